"""What was measured on a model, put on its card: the card then says it wherever the model goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from detector.card import ModelCard
from detector.models import StoredModel
from detector.types import UsageError
from pipelines.atomic import atomic_writer, writable


def can_note(stored: StoredModel, heading: str) -> None:
    """Checks before the work that a card can take a note.

    Raises:
        UsageError: an empty heading.
        OutputError: the card cannot be written.
    """
    if not heading.strip():
        raise UsageError("--on-card needs a heading for the card, such as 'development clips'")
    writable(stored.path.with_suffix(".json"))


def note(stored: StoredModel, heading: str, facts: Mapping[str, Any]) -> None:
    """Puts ``facts`` (JSON values) under ``heading`` in ``measured``, in the place of what stood there."""
    write_card(stored, replace(stored.card, measured={**stored.card.measured, heading: dict(facts)}))


def write_card(stored: StoredModel, card: ModelCard) -> None:
    """``card`` in the place of the one beside the model."""
    with atomic_writer(stored.path.with_suffix(".json")) as file:
        file.write(card.to_json())
