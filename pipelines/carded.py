"""A model and its card, written together; and what was measured on a model, put on its card."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from detector.card import ModelCard
from detector.models import StoredModel
from detector.types import UsageError
from pipelines.atomic import PartFile, atomic_writer, output_error, writable


def can_note(stored: StoredModel, heading: str) -> None:
    """Checks before the work that a card can take a note.

    Raises:
        UsageError: an empty heading.
        OutputError: the card cannot be written.
    """
    if not heading.strip():
        raise UsageError("--on-card needs a heading for the card, such as 'development clips'")
    writable(card_path(stored.path))


def note(stored: StoredModel, heading: str, facts: Mapping[str, Any]) -> None:
    """Puts ``facts`` (JSON values) under ``heading`` in ``measured``, in the place of what stood there."""
    card = replace(stored.card, measured={**stored.card.measured, heading: dict(facts)})
    with atomic_writer(card_path(stored.path)) as file:
        file.write(card.to_json())


def card_path(model: Path) -> Path:
    """Where the card of the model at ``model`` lies."""
    return model.with_suffix(".json")


def card_of(content: bytes, card: ModelCard) -> ModelCard:
    """``card`` with size and checksum of ``content``."""
    return replace(card, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def write_model(path: Path, content: bytes, card: ModelCard) -> None:
    """A model and its card in the place of what was there: both are whole on disk before either is moved.

    Args:
        path: the .onnx file.
        content: its bytes.
        card: of that very content; see :func:`card_of`.

    Raises:
        OutputError: one of them cannot be written; both are then as they were.
    """
    model, beside = PartFile(path), PartFile(card_path(path))
    try:
        for part, data in ((model, content), (beside, card.to_json().encode())):
            try:
                part.part.write_bytes(data)
            except OSError as error:
                raise output_error(part.path, error) from error
        with _undisturbed():
            model.commit()
            beside.commit()
    finally:
        model.discard()
        beside.discard()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is done."""
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
