"""The latency table: what each layer of a network costs on this device, with ONNX Runtime.

Whole models are profiled in place, because a layer alone in a loop keeps its weights in a cache that it shares in real
life. A layer's cost at a channel count is read from the variant of the network that has this count there, so a handful
of uniform variants (every group at one keep ratio), each in float and int8, fill the table. The variants take turns:
whatever else the machine does meanwhile hits all of them alike.

A table is for one input size and one thread. It predicts a sum of kernels, not a run: compare it with
:func:`compression.profiler.whole_model_ms`, then :func:`rescale` it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compression.profiler import (
    ACTIVATIONS,
    CONVOLUTIONS,
    Node,
    conv_owners,
    device,
    layer_of,
    module_path,
    profile,
)
from compression.records import build, checked, read_object
from detector.types import ModelError

SCHEMA = "tellframe.latency/1"
OTHER = "other"
"""Where the cost of nodes goes that are of no block: layout changes, pooling, the classifier."""

Precision = Literal["int8", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("int8", "fp32")
Counts = tuple[int, ...]
Build = Callable[[Mapping[str, int], Precision], ModelProto]


# --------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Boundary:
    """What a tensor costs that changes precision: the conversion, and the change of memory layout beside it.

    Attributes:
        ms_per_element: for each element of the tensor, at least 0.
        ms_per_call: for each tensor, at least 0.
    """

    ms_per_element: float
    ms_per_call: float = 0.0

    def ms(self, elements: float) -> float:
        """The cost of a tensor with this many elements."""
        return self.ms_per_call + self.ms_per_element * elements


NO_BOUNDARY = Boundary(0.0)


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """What each layer costs at one input size, batch 1, one thread.

    Attributes:
        input_size: side of the crops in px.
        groups: the channel groups that each layer's cost depends on, by layer: none, one or more.
        cells: ms by layer, kept counts of its groups in that order (``()`` without groups), and precision.
        rest: ms of all that is no convolution, by block or :data:`OTHER`, and precision.
        quantise, dequantise: of a tensor that goes from float to int8, and back.
        corrections: factors from comparisons with whole models; every cost is multiplied by all of them.
        device: what it was measured on and with.
    """

    input_size: int
    groups: Mapping[str, tuple[str, ...]]
    cells: Mapping[tuple[str, Counts, Precision], float]
    rest: Mapping[tuple[str, Precision], float] = field(default_factory=dict)
    quantise: Boundary = NO_BOUNDARY
    dequantise: Boundary = NO_BOUNDARY
    corrections: tuple[float, ...] = ()
    device: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for (layer, counts, precision), ms in self.cells.items():
            if precision not in PRECISIONS or len(counts) != len(self.groups.get(layer, ())):
                raise ValueError(f"{layer} {counts} {precision} does not fit the layer's groups {self.groups}")
            if not 0 <= ms < math.inf:
                raise ValueError(f"a cost is at least 0 ms, got {ms} for {layer} {counts} {precision}")
        if any(not 0 < factor < math.inf for factor in self.corrections):
            raise ValueError(f"a correction is above 0, got {self.corrections}")

    @property
    def correction(self) -> float:
        """All corrections in one factor."""
        return math.prod(self.corrections)

    def counts(self, layer: str, precision: Precision) -> list[Counts]:
        """The counts that ``layer`` was measured at."""
        return sorted(counts for name, counts, kind in self.cells if (name, kind) == (layer, precision))

    def layer_ms(self, layer: str, counts: Counts, precision: Precision) -> float:
        """The cost of ``layer`` with ``counts`` channels kept in its groups.

        Counts that were not measured: with one group, the line through the two nearest measured counts around (or
        beyond) it, never less than the proportional share of the least one; with several groups, the nearest measured
        counts, scaled by the ratio of the products.

        Raises:
            ModelError: the layer was never measured in this precision.
        """
        found = self.cells.get((layer, counts, precision))
        if found is None:
            known = {c: self.cells[layer, c, precision] for c in self.counts(layer, precision)}
            if not known:
                raise ModelError(f"the latency table has no {precision} cost of {layer}; measure that layer")
            if len(counts) != len(next(iter(known))):
                raise ValueError(f"{layer} depends on {self.groups[layer]}, got counts {counts}")
            found = _on_the_line(known, counts[0]) if len(counts) == 1 else _nearest(known, counts)
        return found * self.correction

    def rest_ms(self, block: str, precision: Precision) -> float:
        """The cost of what is no convolution in ``block`` (or :data:`OTHER`)."""
        return self.rest.get((block, precision), 0.0) * self.correction

    def boundary_ms(self, elements: float, into: Precision) -> float:
        """The cost of turning a tensor into another precision."""
        return (self.quantise if into == "int8" else self.dequantise).ms(elements) * self.correction

    def to_json(self) -> str:
        """The table as JSON; :meth:`from_json` reads it."""
        data = {
            "schema": SCHEMA,
            "input_size": self.input_size,
            "device": dict(self.device),
            "corrections": list(self.corrections),
            "quantise": asdict(self.quantise),
            "dequantise": asdict(self.dequantise),
            "groups": {layer: list(groups) for layer, groups in self.groups.items()},
            "layers": [
                {"layer": layer, "counts": list(counts), "precision": precision, "ms": ms}
                for (layer, counts, precision), ms in self.cells.items()
            ],
            "rest": [{"block": block, "precision": kind, "ms": ms} for (block, kind), ms in self.rest.items()],
        }
        return json.dumps(data, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The table in ``text``.

        Raises:
            ModelError: not JSON, of another schema, with keys missing or unknown, or with values that make no sense.
        """
        keys = ("input_size", "device", "corrections", "quantise", "dequantise", "groups", "layers", "rest")
        data = read_object(text, "latency table", SCHEMA, keys)
        try:
            return cls._of(data)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"latency table: {error}; measure it again") from None

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> Self:
        """The table of JSON values that have the right keys."""
        layers = [checked(row, "a layer", ("layer", "counts", "precision", "ms")) for row in data["layers"]]
        rest = [checked(row, "a rest", ("block", "precision", "ms")) for row in data["rest"]]
        return cls(
            input_size=int(data["input_size"]),
            groups={layer: tuple(groups) for layer, groups in data["groups"].items()},
            cells={(row["layer"], tuple(row["counts"]), row["precision"]): float(row["ms"]) for row in layers},
            rest={(row["block"], row["precision"]): float(row["ms"]) for row in rest},
            quantise=build(Boundary, data["quantise"], "quantise"),
            dequantise=build(Boundary, data["dequantise"], "dequantise"),
            corrections=tuple(data["corrections"]),
            device=dict(data["device"]),
        )

    def to_csv(self) -> str:
        """The table for people: a line for each layer, counts and precision, corrected ms."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("input_size", "layer", "groups", "counts", "precision", "ms"))
        for (layer, counts, kind), ms in self.cells.items():
            row = (layer, " ".join(self.groups[layer]), " ".join(map(str, counts)), kind)
            writer.writerow((self.input_size, *row, f"{ms * self.correction:.6f}"))
        for (block, kind), ms in self.rest.items():
            writer.writerow((self.input_size, f"rest of {block}", "", "", kind, f"{ms * self.correction:.6f}"))
        return out.getvalue()


def _on_the_line(known: Mapping[Counts, float], count: int) -> float:
    """The cost at ``count`` on the line through the measured costs beside it."""
    points = sorted((counts[0], ms) for counts, ms in known.items())
    if len(points) == 1:
        return points[0][1] * count / points[0][0]
    (x0, y0), (x1, y1) = next((pair for pair in pairwise(points) if count < pair[1][0]), (points[-2], points[-1]))
    return max(y0 + (y1 - y0) * (count - x0) / (x1 - x0), points[0][1] * min(1.0, count / points[0][0]))


def _nearest(known: Mapping[Counts, float], counts: Counts) -> float:
    """The cost at the measured counts nearest to ``counts`` (in ratios), scaled by the product of the counts."""
    wanted = np.log(counts)
    nearest = min(known, key=lambda c: float(np.abs(np.log(c) - wanted).sum()))
    return known[nearest] * math.prod(counts) / math.prod(nearest)


def rescale(table: LatencyTable, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> LatencyTable:
    """``table`` corrected by whole models: one more factor, the median of measured / predicted.

    Args:
        table: what predicted.
        predicted_ms: of some models at this table's input size; one is enough.
        measured_ms: of the same models.

    Raises:
        ValueError: no model, not as many on both sides, or a time that is not above 0.
    """
    if len(predicted_ms) != len(measured_ms) or not predicted_ms:
        raise ValueError(f"needs as many predictions as measurements, got {len(predicted_ms)}, {len(measured_ms)}")
    if min(*predicted_ms, *measured_ms, math.inf) <= 0:
        raise ValueError(f"times are above 0 ms, got {list(predicted_ms)} and {list(measured_ms)}")
    factor = statistics.median(m / p for p, m in zip(predicted_ms, measured_ms, strict=True))
    return replace(table, corrections=(*table.corrections, factor))


def block_of(layer: str) -> str:
    """The block that a layer lies in: ``blocks.1.0.conv_pw`` -> ``blocks.1.0``; :data:`OTHER` at the top."""
    return layer.rpartition(".")[0] or OTHER


# --------------------------------------------------------------------------------------------------- measuring


def measure(
    build: Build,
    variants: Iterable[Mapping[str, int]],
    groups: Mapping[str, tuple[str, ...]],
    *,
    precisions: Sequence[Precision] = PRECISIONS,
    runs: int = 60,
    warm_up: int = 8,
) -> LatencyTable:
    """Measures the table; takes a second or so for each variant beside what ``build`` takes.

    Args:
        build: group counts and a precision -> a finished model (crops in); every variant is built once in each.
        variants: kept count of every group, by group; 0 where its block is gone. Where variants share a count, the
            median counts.
        groups: the channel groups that each layer's cost depends on, by layer; every convolution is in it.
        precisions: which to measure.
        runs: profiled runs of every variant, at least 30.
        warm_up: runs before them.

    Raises:
        ModelError: a layer has no node of its own in a variant, or a convolution is of no known layer.
    """
    if runs < 30:
        raise ValueError(f"a median needs at least 30 runs, got {runs}")
    tags = [(dict(counts), kind) for counts in variants for kind in precisions]
    if not tags:
        raise ValueError("the table needs at least one variant, got none")
    for group in {name for names in groups.values() for name in names}:
        if any(group not in counts for counts, _ in tags):
            raise ValueError(f"every variant has a count for each group, one has none for {group}")
    models = [build(counts, kind) for counts, kind in tags]
    cells, rest = _costs(tags, models, profile(models, runs, warm_up), groups)
    quantise, dequantise = boundaries(runs=runs)
    return LatencyTable(
        input_size=models[0].graph.input[0].type.tensor_type.shape.dim[1].dim_value,
        groups={layer: tuple(names) for layer, names in groups.items()},
        cells=cells,
        rest=rest,
        quantise=quantise,
        dequantise=dequantise,
        device={**device(), "runs": str(runs), "variants": str(len(tags) // len(precisions))},
    )


def _costs(
    tags: Sequence[tuple[Mapping[str, int], Precision]],
    models: Sequence[ModelProto],
    profiles: Sequence[Mapping[Node, float]],
    groups: Mapping[str, tuple[str, ...]],
) -> tuple[dict[tuple[str, Counts, Precision], float], dict[tuple[str, Precision], float]]:
    """Cells and rest of a table from the profiles of its variants: medians where several variants agree."""
    cells: dict[tuple[str, Counts, Precision], list[float]] = {}
    rest: dict[tuple[str, Precision], list[float]] = {}
    for (counts, kind), model, nodes in zip(tags, models, profiles, strict=True):
        there = [layer for layer, names in groups.items() if all(counts[group] for group in names)]
        layers, blocks = _by_owner(nodes, conv_owners(model), there)
        for layer, ms in layers.items():
            cells.setdefault((layer, tuple(counts[g] for g in groups[layer]), kind), []).append(ms)
        for block, ms in blocks.items():
            rest.setdefault((block, kind), []).append(ms)
    return (
        {key: statistics.median(values) for key, values in sorted(cells.items())},
        {key: statistics.median(values) for key, values in sorted(rest.items())},
    )


def _by_owner(
    nodes: Mapping[Node, float], owners: Mapping[str, str], known: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Sums the ms of ``nodes`` by layer, and of all that is no convolution by block or :data:`OTHER`."""
    layers: dict[str, float] = {}
    blocks: dict[str, float] = {}
    known_blocks = {block_of(layer) for layer in known}
    for (name, op), ms in nodes.items():
        layer = layer_of(name, owners) if op in CONVOLUTIONS or op in ACTIVATIONS else None
        if layer is not None and layer in known:
            layers[layer] = layers.get(layer, 0.0) + ms
        elif op in CONVOLUTIONS:
            raise ModelError(f"node {name} ({op}) is of no known layer (got {layer}); name it by its module")
        else:
            block = next((b for b in _parents(module_path(name)) if b in known_blocks), OTHER)
            blocks[block] = blocks.get(block, 0.0) + ms
    if missing := [layer for layer in known if layer not in layers]:
        raise ModelError(f"the profile has no node of {missing[0]} ({len(missing)} are missing); is it a convolution?")
    return layers, blocks


def _parents(path: str) -> Iterator[str]:
    """``a.b.c``, ``a.b``, ``a``."""
    while path:
        yield path
        path = path.rpartition(".")[0]


# --------------------------------------------------------------------------------------------------- boundaries


def boundaries(*, channels: int = 48, sides: Sequence[int] = (14, 28, 56), runs: int = 60) -> tuple[Boundary, Boundary]:
    """What (quantising, dequantising) a tensor costs between an int8 and a float convolution.

    Everything between the two convolutions counts: the conversion, and the changes of memory layout that ONNX Runtime
    makes beside it. A line is fitted through tensors of several sizes.
    """
    sandwiches = [_sandwich(channels, side) for side in sides]
    elements = [channels * side * side for side in sides]
    profiles = profile(sandwiches, runs, warm_up=8)
    between = [_between(nodes) for nodes in profiles]
    return _line(elements, [q for q, _ in between]), _line(elements, [d for _, d in between])


def _line(elements: Sequence[int], ms: Sequence[float]) -> Boundary:
    """The least-squares line, with a start and a slope that are not negative."""
    slope, start = np.polyfit(elements, ms, 1)
    if slope < 0 or start < 0:
        return Boundary(float(np.dot(elements, ms) / np.dot(elements, elements)))
    return Boundary(float(slope), float(start))


def _between(nodes: Mapping[Node, float]) -> tuple[float, float]:
    """The ms between the second convolution (float) and the third, and between the first and the second.

    ``nodes`` are in the order in which they ran.
    """
    sums = [0.0]
    for (_, op), ms in nodes.items():
        if op in CONVOLUTIONS:
            sums.append(0.0)
        else:
            sums[-1] += ms
    if len(sums) != 4:
        raise ModelError(f"expected three convolutions in the boundary benchmark, got {len(sums) - 1}")
    return sums[2], sums[1]


def _sandwich(channels: int, side: int) -> ModelProto:
    """A float convolution between two int8 ones, 1 x 1, on a tensor (1, channels, side, side)."""
    weight = np.random.default_rng(0).integers(-60, 60, (channels, channels, 1, 1))
    shape = [1, channels, side, side]
    tensors = [
        numpy_helper.from_array(np.array(0.05, np.float32), "scale"),
        numpy_helper.from_array(np.array(128, np.uint8), "zero"),
        numpy_helper.from_array(weight.astype(np.int8), "w8"),
        numpy_helper.from_array(np.array(0.001, np.float32), "w_scale"),
        numpy_helper.from_array(np.array(0, np.int8), "w_zero"),
        numpy_helper.from_array(weight.astype(np.float32) / 1000, "w32"),
    ]
    nodes: list[NodeProto] = []

    def add(op: str, inputs: Sequence[str], output: str) -> str:
        nodes.append(helper.make_node(op, list(inputs), [output], name=f"/{output}"))
        return output

    def round_trip(x: str) -> str:
        add("QuantizeLinear", (x, "scale", "zero"), f"{x}_q")
        return add("DequantizeLinear", (f"{x}_q", "scale", "zero"), f"{x}_dq")

    x = round_trip("x")
    for i, kind in enumerate(("int8", "fp32", "int8")):
        w = add("DequantizeLinear", ("w8", "w_scale", "w_zero"), f"w{i}") if kind == "int8" else "w32"
        x = round_trip(add("Conv", (x, w), f"conv{i}"))
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", x)]
    graph = helper.make_graph(nodes, "sandwich", value[:1], value[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
