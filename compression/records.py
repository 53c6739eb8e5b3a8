"""Reads the JSON of plan files strictly: a misspelt key is an error, never a default."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from detector.types import ModelError


def read_object(text: str, what: str, schema: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object in ``text``, of ``schema`` and with exactly ``keys`` beside it.

    Raises:
        ModelError: it is something else; the message says what came.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{what}: not JSON ({error}); make it again") from None
    if not isinstance(data, dict) or data.get("schema") != schema:
        came = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise ModelError(f"{what}: schema {came!r} is unknown; this version reads {schema}")
    try:
        return checked(data, what, ("schema", *keys))
    except ValueError as error:
        raise ModelError(str(error)) from None


def checked(value: object, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """``value`` as an object with exactly ``keys``; ValueError otherwise."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object, got {type(value).__name__}")  # noqa: TRY004
    missing, extra = [k for k in keys if k not in value], [k for k in value if k not in keys]
    if missing or extra:
        raise ValueError(f"{what} lacks {missing or 'nothing'} and has unknown {extra or 'nothing'}")
    return value


def build(kind: Any, value: object, what: str, tuples: Collection[str] = ()) -> Any:
    """A dataclass from a JSON object with exactly its fields; ``tuples`` names those that JSON has as lists."""
    data = checked(value, what, tuple(f.name for f in fields(kind)))
    return kind(**{key: tuple(each) if key in tuples else each for key, each in data.items()})
