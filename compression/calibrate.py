"""What range of values every activation takes: the data that fixes the scales of an int8 model.

ONNX Runtime's own calibrators keep every activation of every crop in memory when they need more than extremes; here
crops stream by, twice: once for the extremes, once for a histogram between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from compression.export import CORE_INPUT
from detector.training.backbone import PIXEL_MEAN, PIXEL_SCALE
from detector.types import Float32Array, UInt8Array

Range = tuple[float, float]
Ranges = Mapping[str, Range]
Method = Literal["minmax", "average", "mse"]

PIXEL_RANGE: Range = ((0 - PIXEL_MEAN) / PIXEL_SCALE, (255 - PIXEL_MEAN) / PIXEL_SCALE)
"""The normalised input: with 256 steps over it, a step is a pixel value and the zero point is PIXEL_MEAN."""

_BINS = 2048
_KEPT = tuple(np.linspace(0.3, 1.0, 71).tolist())
"""Shares of the full range that the mse method tries."""


def activation_ranges(core: ModelProto, crops: Iterable[UInt8Array], method: Method) -> dict[str, Range]:
    """The range, lowest <= 0 <= highest, of every float activation of ``core`` that is worth quantising.

    Args:
        core: a float core with batch norm folded (see :mod:`compression.export`).
        crops: batches of calibration crops, uint8 RGB (n, S, S, 3).
        method: ``minmax``: the extremes; ``average``: the mean over crops of each crop's extremes; ``mse``: the range
            with the least mean squared error after rounding to 8 bits.

    Raises:
        ValueError: no crop at all.
    """
    batches = [normalise_pixels(batch) for batch in crops if len(batch)]
    if not batches:
        raise ValueError("calibration needs at least one crop, got none")
    names, session = _observed(core)
    per_crop = _extremes(session, names, batches)  # name -> (crops, 2)
    widest = {name: (float(e[:, 0].min()), float(e[:, 1].max())) for name, e in per_crop.items()}
    if method == "minmax":
        ranges = widest
    elif method == "average":
        ranges = {name: (float(e[:, 0].mean()), float(e[:, 1].mean())) for name, e in per_crop.items()}
    else:
        histograms = _histograms(session, widest, batches)
        ranges = {name: _least_error_range(histograms[name], widest[name]) for name in names}
    ranges = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high) in ranges.items()}
    return {CORE_INPUT: PIXEL_RANGE, **ranges}


def channel_means(core: ModelProto, crops: Iterable[UInt8Array]) -> dict[str, Float32Array]:
    """The mean over crops and positions of every channel of every (n, c, h, w) activation: name -> float32 (c,).

    The arguments and errors are those of :func:`activation_ranges`.
    """
    batches = [normalise_pixels(batch) for batch in crops if len(batch)]
    if not batches:
        raise ValueError("calibration needs at least one crop, got none")
    names, session = _observed(core)
    sums = {CORE_INPUT: np.sum([batch.mean(axis=(2, 3), dtype=np.float64).sum(axis=0) for batch in batches], axis=0)}
    for name, values in _activations(session, names, batches):
        if values.ndim == 4:
            sums[name] = sums.get(name, 0.0) + values.mean(axis=(2, 3), dtype=np.float64)[0]
    count = sum(map(len, batches))
    return {name: (total / count).astype(np.float32) for name, total in sums.items()}


def normalise_pixels(crops: UInt8Array) -> Float32Array:
    """uint8 (n, S, S, 3) -> float32 (n, 3, S, S): what a core is fed."""
    planes = crops.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((planes - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_SCALE))


def _observed(core: ModelProto) -> tuple[list[str], ort.InferenceSession]:
    """The activations of ``core``, and a session that returns them, without optimisation so that none is fused away."""
    names = [node.output[0] for node in core.graph.node]
    observed = ModelProto()
    observed.CopyFrom(core)
    del observed.graph.output[:]
    observed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return names, ort.InferenceSession(observed.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _activations(
    session: ort.InferenceSession, names: Sequence[str], batches: Sequence[Float32Array]
) -> Iterator[tuple[str, Float32Array]]:
    """Every activation of every crop, float32 (1, ...), one crop at a time: memory stays at one crop's worth."""
    for batch in batches:
        for crop in batch:
            yield from zip(names, session.run(list(names), {CORE_INPUT: crop[None]}), strict=True)


def _extremes(
    session: ort.InferenceSession, names: Sequence[str], batches: Sequence[Float32Array]
) -> dict[str, Float32Array]:
    """Name -> lowest and highest value in each crop, float32 (crops, 2)."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for name, values in _activations(session, names, batches):
        found[name].append((values.min(), values.max()))
    return {name: np.array(pairs, np.float32) for name, pairs in found.items()}


def _histograms(
    session: ort.InferenceSession, widest: Ranges, batches: Sequence[Float32Array]
) -> dict[str, NDArray[np.int64]]:
    """Name -> how many values fall in each of _BINS equal bins over its widest range."""
    counts = {name: np.zeros(_BINS, np.int64) for name in widest}
    for name, values in _activations(session, list(widest), batches):
        low, high = widest[name]
        bins = ((values - low) * (_BINS / max(high - low, 1e-12))).astype(np.int32)
        counts[name] += np.bincount(bins.ravel().clip(0, _BINS - 1), minlength=_BINS)
    return counts


def _least_error_range(counts: NDArray[np.int64], widest: Range) -> Range:
    """The range, each end a share of the widest, with the least squared error of 8-bit rounding and clipping."""
    centres = np.linspace(*widest, _BINS + 1)[:-1] + (widest[1] - widest[0]) / (2 * _BINS)
    low, high = low_end, high_end = min(widest[0], 0.0), max(widest[1], 0.0)
    for _ in range(2):  # one end at a time, twice: the ends hardly depend on each other
        high = min(_shares(high_end), key=lambda end: _error(counts, centres, low, end))
        low = min(_shares(low_end), key=lambda end: _error(counts, centres, end, high))
    return low, high


def _shares(end: float) -> list[float]:
    return [share * end for share in _KEPT] if end else [0.0]


def _error(counts: NDArray[np.int64], centres: NDArray[np.float64], low: float, high: float) -> float:
    """Summed squared error of rounding ``centres`` to 256 steps over low..high."""
    step = max(high - low, 1e-12) / 255
    rounded = np.round((centres.clip(low, high) - low) / step) * step + low
    return float((counts * (rounded - centres) ** 2).sum())
