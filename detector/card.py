"""The card beside every model file: what it is, how to feed it, what it was trained on, what it scored.

``name.onnx`` comes with ``name.json``. A card is data: it can be read, printed and checked without any model runtime.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from detector.types import ModelError

SCHEMA = "tellframe.model-card/1"
KINDS = ("dense", "ptq", "hqp")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where p(fake) becomes a word: below ``real_below`` it is real, above ``fake_above`` fake, else unsure."""

    real_below: float
    fake_above: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.real_below <= self.fake_above <= 1.0:
            raise ModelError(
                f"thresholds must keep 0 <= real_below <= fake_above <= 1, got {self.real_below} and {self.fake_above}"
            )


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of one model file; checked where it is made.

    Attributes:
        name: lower-case letters, digits and underscores; the stem of both files.
        kind: "dense" (float), "ptq" (quantised after training) or "hqp" (pruned and quantised by a policy).
        file: name of the .onnx, in the card's own folder.
        sha256, bytes: of that file.
        input_size: side of the crops in px.
        crop_margin: side of the square crop over the longer side of the landmark box, at least 1.
        thresholds: on p(fake).
        trained_on: one line a data set.
        measured: JSON object: what it scored on what, with counts, what it cost and where.
        policy: JSON object per layer: what was pruned and quantised; empty for dense.
        licence: of the weights, with the terms that come from their data.
        origin: how the file was made.

    Raises:
        ModelError: a value is out of its range or of the wrong type.
    """

    name: str
    kind: str
    file: str
    sha256: str
    bytes: int
    input_size: int
    crop_margin: float
    thresholds: Thresholds
    trained_on: tuple[str, ...]
    measured: Json
    policy: Json
    licence: str
    origin: str

    def __post_init__(self) -> None:
        for ok, complaint in (
            (_matches(r"[a-z0-9_]+", self.name), f"name must be lower-case letters, digits and _, got {self.name!r}"),
            (self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}"),
            (
                _matches(r"[^/\\\0.][^/\\\0]*\.onnx", self.file),
                f"file must be a plain .onnx file name, got {self.file!r}",
            ),
            (_matches(r"[0-9a-f]{64}", self.sha256), f"sha256 must be 64 lower-case hex digits, got {self.sha256!r}"),
            (_whole(self.bytes) and self.bytes > 0, f"bytes must be a whole number above 0, got {self.bytes!r}"),
            (
                _whole(self.input_size) and 32 <= self.input_size <= 1024,
                f"input_size must be a whole number, 32..1024 px, got {self.input_size!r}",
            ),
            (
                _number(self.crop_margin) and 1.0 <= self.crop_margin <= 4.0,
                f"crop_margin must be a number, 1..4, got {self.crop_margin!r}",
            ),
            (
                isinstance(self.trained_on, tuple) and all(isinstance(line, str) for line in self.trained_on),
                f"trained_on must be a list of texts, got {self.trained_on!r}",
            ),
            (_is_json(self.measured), "measured must be a JSON object of finite numbers, texts, lists and objects"),
            (_is_json(self.policy), "policy must be a JSON object of finite numbers, texts, lists and objects"),
            (isinstance(self.licence, str), f"licence must be a text, got {self.licence!r}"),
            (isinstance(self.origin, str), f"origin must be a text, got {self.origin!r}"),
        ):
            if not ok:
                raise ModelError(f"model card: {complaint}")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The card in ``text``.

        Raises:
            ModelError: not JSON, of another schema, with keys missing or unknown, or with a value that makes no sense.
        """
        try:
            # Python's reader takes NaN and Infinity, which are not JSON: they become a text, and are refused as one.
            data = json.loads(text, parse_constant=str)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ModelError(f"model card: not JSON ({error}); make it again") from None
        data = _object(data, "the card", ("schema", *(f.name for f in fields(cls))), schema=SCHEMA)
        del data["schema"]
        thresholds = _object(data["thresholds"], "thresholds", ("real_below", "fake_above"))
        for key, value in thresholds.items():
            if not _number(value):
                raise ModelError(f"model card: {key} must be a number, got {value!r}")
        data["thresholds"] = Thresholds(**thresholds)
        if isinstance(data["trained_on"], list):
            data["trained_on"] = tuple(data["trained_on"])
        return cls(**data)

    def to_json(self) -> str:
        """The card as JSON: keys in the order of this class, two spaces of indent, a newline at the end."""
        data: dict[str, Any] = {"schema": SCHEMA}
        data |= {f.name: getattr(self, f.name) for f in fields(self)}
        data["thresholds"] = {f.name: getattr(self.thresholds, f.name) for f in fields(Thresholds)}
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read(card_path: Path) -> ModelCard:
    """The card at ``card_path``, without a look at the model beside it.

    Raises:
        ModelError: it is missing or damaged; the message names the file.
    """
    try:
        return ModelCard.from_json(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"no model card at {card_path}; a model needs its .json beside it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{card_path}: cannot be read ({error})") from error
    except ModelError as error:
        raise ModelError(f"{card_path}: {error}") from None


def verify(card_path: Path) -> ModelCard:
    """The card at ``card_path``, after checking that the model beside it is the one the card speaks of.

    Raises:
        ModelError: the card or the model is missing or damaged, or they do not belong together.
    """
    card = read(card_path)
    model = card_path.parent / card.file
    try:
        size = model.stat().st_size
        digest = checksum(model) if size == card.bytes else ""
    except FileNotFoundError:
        raise ModelError(f"{model} is missing; its card is there, so install or make the model again") from None
    except OSError as error:
        raise ModelError(f"{model}: cannot be read ({error})") from error
    if size != card.bytes:
        raise ModelError(f"{model} has {size} bytes, its card says {card.bytes}; install or make the model again")
    if digest != card.sha256:
        raise ModelError(f"{model} has SHA-256 {digest[:12]}..., its card says {card.sha256[:12]}...; install it again")
    return card


def checksum(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _object(value: object, what: str, keys: tuple[str, ...], schema: str | None = None) -> dict[str, Any]:
    """``value`` as a dictionary with exactly ``keys``; the schema is checked first, as it decides what the keys are."""
    if not isinstance(value, dict):
        raise ModelError(f"model card: {what} must be a JSON object, got {type(value).__name__}")
    if schema is not None and value.get("schema") != schema:
        raise ModelError(
            f"model card: schema {value.get('schema')!r} is unknown; this version reads {schema}: "
            "update tellframe or the model"
        )
    missing, extra = [k for k in keys if k not in value], [k for k in value if k not in keys]
    if missing or extra:
        raise ModelError(f"model card: {what} lacks {missing or 'nothing'} and has unknown {extra or 'nothing'}")
    return dict(value)


def _matches(pattern: str, value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_json(value: object) -> bool:
    """Whether ``value`` is an object that JSON can hold exactly."""
    return isinstance(value, dict) and _is_json_value(value)


def _is_json_value(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_json_value(v) for k, v in value.items())
    if isinstance(value, list):
        return all(_is_json_value(v) for v in value)
    return value is None or isinstance(value, str | bool) or _number(value)
