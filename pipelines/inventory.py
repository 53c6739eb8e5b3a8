"""The models there are, as a table or as JSON."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

from detector.models import DEFAULT_MODEL, StoredModel, available
from pipelines.lines import open_lines


def models_command(target: str | None) -> None:
    """Lists the shipped models: to a file or ``-`` as one JSON array, or for people when ``target`` is None."""
    stored = available()
    if target is None:
        for model in stored:
            print(_line(model))  # noqa: T201
        return
    with closing(open_lines(target)) as lines:
        lines.write(json.dumps([model_record(model) for model in stored]) + "\n")


def model_record(model: StoredModel) -> dict[str, Any]:
    """The JSON object of one model."""
    card = model.card
    return {
        "name": card.name,
        "kind": card.kind,
        "path": str(model.path),
        "sha256": card.sha256,
        "input_size": card.input_size,
        "bytes": card.bytes,
        "default": card.name == DEFAULT_MODEL,
    }


def _line(model: StoredModel) -> str:
    card = model.card
    star = "*" if card.name == DEFAULT_MODEL else " "
    return f"{star} {card.name:<32} {card.kind:<6} {card.input_size} px {card.bytes / 1e6:5.1f} MB  {model.path}"
