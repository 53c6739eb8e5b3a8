"""The sensitivity map: what every layer loses by pruning and by fewer bits, as data that is saved and compared."""

from __future__ import annotations

import csv
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from detector.types import Float32Array, InputError, UsageError

SCHEMA = "tellframe.sensitivity/1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PruningOption:
    """What happens when a group keeps its ``kept`` strongest channels.

    Attributes:
        kept: channels that stay; 0 is the residual block gone.
        fisher_lost: share of the group's summed Fisher that goes, 0..1.
        divergence: of the logits from those of the dense model; see :attr:`SensitivityMap.measure`.
        score: of the model with this one change; None when no score was asked for.
    """

    kept: int
    fisher_lost: float
    divergence: float
    score: float | None


@dataclass(frozen=True, slots=True)
class BitsOption:
    """What happens when a layer's weights have ``bits`` bits and its input 8.

    Attributes:
        sqnr_db: power of the layer's output over that of its error, in dB.
        divergence, score: as in :class:`PruningOption`.
    """

    bits: int
    divergence: float
    sqnr_db: float
    score: float | None


@dataclass(frozen=True, slots=True)
class GroupSensitivity:
    """A channel group against pruning; see :class:`compression.groups.ChannelGroup` for the first attributes.

    Attributes:
        holders: the layers that have these channels as their outputs: producers and depthwise convolutions.
        fisher: of every channel.
        options: most channels first.
    """

    name: str
    channels: int
    multiple: int
    removable: bool
    holders: tuple[str, ...]
    consumers: tuple[str, ...]
    fisher: tuple[float, ...]
    options: tuple[PruningOption, ...]

    def strongest(self, count: int) -> list[int]:
        """The indices of the ``count`` channels with the largest Fisher, ascending."""
        return strongest(np.asarray(self.fisher, np.float32), count)

    def divergence(self, kept: int) -> float:
        """Of ``kept`` channels, which must be one of the options, or all."""
        return 0.0 if kept == self.channels else _pick(self.name, "kept", self.options, kept).divergence


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """A layer against quantisation.

    Attributes:
        kind: "dense", "depthwise", "grouped" or "linear".
        weights: how many it has, biases not counted.
        options: most bits first.
    """

    name: str
    kind: str
    weights: int
    options: tuple[BitsOption, ...]

    def divergence(self, bits: int) -> float:
        """Of ``bits``, which must be one of the options, or 32."""
        return 0.0 if bits == 32 else _pick(self.name, "bits", self.options, bits).divergence


@dataclass(frozen=True, slots=True)
class SensitivityMap:
    """One change at a time, measured.

    Attributes:
        measure: of divergence: "logit_mse" (mean squared error, one output) or "kl" (in nats, several outputs).
        samples: how many inputs it was measured on.
        dense_score: of the unchanged model; None when no score was asked for.
        ratios: shares of channels kept that were asked for, before rounding to what is fast.
        bits: weight bit-widths that were asked for.
        groups, layers: in the order of computation.
    """

    measure: str
    samples: int
    dense_score: float | None
    ratios: tuple[float, ...]
    bits: tuple[int, ...]
    groups: tuple[GroupSensitivity, ...]
    layers: tuple[LayerSensitivity, ...]

    def group(self, name: str) -> GroupSensitivity:
        """The group called ``name``."""
        return _pick("the map", "name", self.groups, name)

    def layer(self, name: str) -> LayerSensitivity:
        """The layer called ``name``."""
        return _pick("the map", "name", self.layers, name)

    @property
    def fisher(self) -> dict[str, Float32Array]:
        """Float32 (channels,) by group name."""
        return {group.name: np.asarray(group.fisher, np.float32) for group in self.groups}

    def to_json(self) -> str:
        """JSON that :meth:`from_json` reads back to an equal map."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "the sensitivity map") -> SensitivityMap:
        """The map in ``text``; ``name`` is what messages call it.

        Raises:
            InputError: not JSON, of another schema, or with fields missing, unknown or of a wrong type.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{name} is not JSON: {error}") from error
        schema = data.pop("schema", None) if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise InputError(f"{name} has schema {schema!r}, needs {SCHEMA!r}; run the sensitivity analysis again")
        return typing.cast(SensitivityMap, _decoded(cls, data, name))

    @classmethod
    def load(cls, path: Path) -> SensitivityMap:
        """The map in the file at ``path``.

        Raises:
            InputError: as for :meth:`from_json`, or no such file.
        """
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a sensitivity map: {error}") from error

    def to_csv(self) -> str:
        """One row for every option: kind, name, option, and what was measured."""
        out = StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["kind", "name", "option", "share", "divergence", "score", "fisher_lost", "sqnr_db"])
        for group in self.groups:
            for o in group.options:
                share = f"{o.kept / group.channels:.4f}"
                row = ["pruning", group.name, o.kept, share, _number(o.divergence), _number(o.score)]
                writer.writerow([*row, _number(o.fisher_lost), ""])
        for layer in self.layers:
            for b in layer.options:
                row = ["bits", layer.name, b.bits, f"{b.bits / 32:.4f}", _number(b.divergence), _number(b.score)]
                writer.writerow([*row, "", f"{b.sqnr_db:.2f}"])
        return out.getvalue()


def strongest(fisher: Float32Array, count: int) -> list[int]:
    """The indices of the ``count`` largest values of ``fisher``, float (channels,), ascending; ties: the first stay."""
    if not 0 <= count <= len(fisher):
        raise UsageError(f"cannot keep {count} of {len(fisher)} channels")
    return sorted(np.argsort(-fisher, kind="stable")[:count].tolist())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _pick(owner: str, attribute: str, items: Sequence[T], value: object) -> T:
    """The item whose ``attribute`` is ``value``."""
    for item in items:
        if getattr(item, attribute) == value:
            return item
    there = ", ".join(str(getattr(item, attribute)) for item in items)
    raise UsageError(f"{owner} was not measured at {attribute} {value}; there are {there or 'none'}")


# ------------------------------------------------------------------------------------------------ strict reading


def _decoded(kind: Any, data: Any, where: str) -> Any:
    """``data``, as JSON gives it, as a value of type ``kind``; InputError says ``where`` it does not fit."""
    if is_dataclass(kind):
        return _decoded_record(typing.cast(type, kind), data, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(data, list):
            raise InputError(f"{where} is {type(data).__name__}, needs a list")
        return tuple(_decoded(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is types.UnionType:  # X | None
        return None if data is None else _decoded(arguments[0], data, where)
    accepted = (int, float) if kind is float else kind
    if not isinstance(data, accepted) or (isinstance(data, bool) and kind is not bool):
        raise InputError(f"{where} is {data!r}, needs {kind.__name__}")
    if kind is float and not math.isfinite(data):
        raise InputError(f"{where} is {data!r}, needs a finite number")
    return kind(data)


def _decoded_record(kind: type, data: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    if not isinstance(data, dict):
        raise InputError(f"{where} is {type(data).__name__}, needs an object with {', '.join(names)}")
    for name in names:
        if name not in data:
            raise InputError(f"{where} lacks {name!r}")
    unknown = sorted(data.keys() - set(names))
    if unknown:
        raise InputError(f"{where} has {unknown[0]!r}, which is not part of {SCHEMA}")
    return kind(**{name: _decoded(hints[name], data[name], f"{where}.{name}") for name in names})
