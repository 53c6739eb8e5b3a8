"""Checks the tables of a recipe against the dataclasses they become: a misspelt key is an error, never a default."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from detector.types import UsageError

_NAMES = {int: "a whole number", float: "a number", str: "a text", dict: "a table of numbers", type(None): "a number"}


def read_toml(path: Path) -> dict[str, Any]:
    """What the recipe at ``path`` says.

    Raises:
        UsageError: it is missing, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no recipe at {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: not a TOML recipe ({error})") from None


def take_table(data: dict[str, Any], key: str, kind: type, name: str) -> dict[str, Any]:
    """Takes the table ``key`` out of ``data``, checked against ``kind``; an empty one when it is not there.

    Raises:
        UsageError: it is no table, or as for :func:`check_table`.
    """
    table = data.pop(key, {})
    if not isinstance(table, dict):
        raise UsageError(f"{name}: {key} must be a table, got {table!r}")
    check_table(table, kind, f"{name}: {key}")
    return _with_tuples(table)


def check_table(data: Mapping[str, Any], kind: type, name: str) -> None:
    """Refuses keys that the dataclass ``kind`` has not, and values of another type than its default's.

    A default of None stands for a number that may be left out; one of whole numbers, for a list of any length.

    Raises:
        UsageError: the message names the key, what came, and what there is.
    """
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise UsageError(f"{name}: unknown key {', '.join(unknown)}; there are: {', '.join(known)}")
    defaults = kind()
    for key, value in data.items():
        wanted = getattr(defaults, key)
        if not _fits(value, wanted):
            raise UsageError(f"{name}: {key} must be {_said(wanted)}, got {value!r}")


def _with_tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with tuples for its lists, as dataclasses have them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _said(wanted: object) -> str:
    if isinstance(wanted, tuple):
        return "a list of whole numbers" if _any_length(wanted) and isinstance(wanted[0], int) else _said_floats(wanted)
    return _NAMES[type(wanted)]


def _said_floats(wanted: tuple[Any, ...]) -> str:
    return "two numbers" if len(wanted) == 2 else "a list of numbers"


def _any_length(wanted: tuple[Any, ...]) -> bool:
    """A pair of numbers is a range; any other list may be longer or shorter than its default."""
    return isinstance(wanted[0], int) or len(wanted) != 2


def _fits(value: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(_fits(each, 0.0) for each in value.values())
    if isinstance(wanted, tuple):
        fits = isinstance(value, list) and all(_fits(each, wanted[0]) for each in value)
        return fits and (_any_length(wanted) or len(value) == len(wanted))  # type: ignore[arg-type]
    if isinstance(wanted, float) or wanted is None:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(wanted)
