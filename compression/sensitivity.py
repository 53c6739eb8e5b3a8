"""Sensitivity analysis: how much the detector needs every channel of every group, and every bit of every layer.

Three measurements, each of one change at a time: the Fisher information of a gate on every channel (which channels
matter), the divergence of the logits when a group keeps only its strongest channels, and when a layer is quantised.
Nothing is drawn at random: the same model and data give the same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from compression.fakequant import LEVELS
from compression.groups import ChannelGroup, is_dense, is_depthwise
from compression.prune import mask_channels
from compression.replay import Replay, settled
from compression.saliency import NO_BATCH, Batch, Loss, checked, fisher
from compression.sensitivity_map import (
    BitsOption,
    GroupSensitivity,
    LayerSensitivity,
    PruningOption,
    SensitivityMap,
    strongest,
)
from detector.types import Float32Array, NothingToAnalyseError, UsageError

__all__ = ["SensitivityMap", "analyse", "fisher", "options", "strongest"]

RATIOS = (0.75, 0.5, 0.375, 0.25)
BITS = (8, 6, 4)
LARGEST_SQNR_DB = 200.0
"""What is written when there is no error at all."""
_VALUES_PER_BATCH = 4096
"""Of a layer's input, a batch, to choose its range by: all batches together give some 10^5."""

Score = Callable[[Tensor, Tensor], float]
"""(logits (N, outputs), targets (N,)) of all samples -> a number to read beside the divergence."""
Progress = Callable[[str, int], None]
"""(what is done, samples so far)."""


def options(group: ChannelGroup, ratios: Sequence[float] = RATIOS) -> list[int]:
    """The channel counts that ``group`` is tried with, most first.

    The ``ratios`` of its channels, rounded to its fast multiple, without all of them; 0 when its block can go.
    """
    if not all(0 < ratio < 1 for ratio in ratios):
        raise UsageError(f"ratios are shares of channels kept, between 0 and 1, got {list(ratios)}")
    steps = [max(1, int(ratio * group.channels / group.multiple + 0.5)) for ratio in ratios]
    counts = {step * group.multiple for step in steps}
    smaller = sorted((count for count in counts if count < group.channels), reverse=True)
    return smaller + [0] * group.removable


def analyse(
    model: fx.GraphModule,
    groups: Sequence[ChannelGroup],
    loader: Iterable[Batch],
    loss: Loss,
    *,
    ratios: Sequence[float] = RATIOS,
    bits: Sequence[int] = BITS,
    saliency: Mapping[str, Float32Array] | None = None,
    score: Score | None = None,
    progress: Progress | None = None,
) -> SensitivityMap:
    """The sensitivity map of ``model``.

    Args:
        model: see :func:`compression.trace.traced`, without fake quantisation; it is not changed.
        groups: from :func:`compression.groups.channel_groups`; those that are not prunable are left out.
        loader: batches, read up to three times, so a list or a DataLoader; small ones (2-8 pictures) stay in cache.
        loss: what :func:`fisher` differentiates.
        ratios: shares of channels to keep; see :func:`options`.
        bits: of weights: 8, 6 or 4.
        saliency: from :func:`fisher` over more data; None computes it from ``loader``.
        score: see :data:`Score`; None asks for none.
        progress: see :data:`Progress`; None tells nobody.

    Raises:
        NothingToAnalyseError: ``loader`` gives no batch, or none a second time.
        UsageError: batches of a wrong shape or type, ratios or bits that make no sense.
    """
    if not set(bits) <= LEVELS.keys():
        raise UsageError(f"bits must be among {sorted(LEVELS)}, got {list(bits)}")
    groups = [group for group in groups if group.prunable]
    if saliency is None:
        saliency = fisher(model, groups, _counted(loader, progress, "fisher"), loss)
    changes = _prunings(groups, saliency, ratios)
    base = settled(model)
    layers = [str(n.target) for n in base.graph.nodes if n.op == "call_module" and _is_layer(base, n)]
    ranges = _input_ranges(base, layers, _counted(loader, progress, "ranges"))
    trials: list[_Trial] = [*changes, *(_Rounding(name, b, ranges[name]) for name in layers for b in bits)]
    outcome = _try(base, groups, trials, _counted(loader, progress, "trials"))
    return _map(base, groups, saliency, outcome, score, ratios, bits)


# -------------------------------------------------------------------------------------------------------- trials


@dataclass(frozen=True, slots=True)
class _Pruning:
    """A group with some of its channels."""

    group: ChannelGroup
    kept: tuple[int, ...]

    @property
    def start(self) -> str:
        return self.group.consumers[0]


@dataclass(frozen=True, slots=True)
class _Rounding:
    """A layer with weights of few bits, and an input of 8, in ``span``."""

    start: str
    bits: int
    span: tuple[float, float]


_Trial = _Pruning | _Rounding


@dataclass(slots=True)
class _Outcome:
    """What trials did to the logits.

    Attributes:
        dense, targets: logits (n, outputs) of the unchanged model, and targets (n,), batch by batch.
        logits: of every trial, as ``dense``.
        powers: of a rounding: the summed squares of the layer's output and of its error.
    """

    dense: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    logits: dict[_Trial, list[Tensor]] = field(default_factory=dict)
    powers: dict[_Trial, tuple[float, float]] = field(default_factory=dict)


def _prunings(
    groups: Sequence[ChannelGroup], saliency: Mapping[str, Float32Array], ratios: Sequence[float]
) -> list[_Pruning]:
    for group in groups:
        values = saliency.get(group.name)
        if values is None or len(values) != group.channels:
            came = "nothing" if values is None else f"{len(values)} values"
            raise UsageError(f"saliency of {group.name} must have {group.channels} values, got {came}")
    return [
        _Pruning(group, tuple(strongest(saliency[group.name], count)))
        for group in groups
        for count in options(group, ratios)
    ]


def _try(
    model: fx.GraphModule, groups: Sequence[ChannelGroup], trials: Sequence[_Trial], batches: Iterable[Batch]
) -> _Outcome:
    """Every trial on every batch; what comes before the change is computed once a batch."""
    outcome = _Outcome(logits={trial: [] for trial in trials}, powers=dict.fromkeys(trials, (0.0, 0.0)))
    replay = Replay(model, {trial.start for trial in trials})
    weights = {t: _rounded_weight(model.get_submodule(t.start), t.bits) for t in trials if isinstance(t, _Rounding)}
    with torch.inference_mode():
        for inputs, targets in batches:
            outcome.dense.append(replay.run(inputs))
            outcome.targets.append(targets)
            for trial in trials:
                if isinstance(trial, _Pruning):
                    with mask_channels(model, groups, {trial.group.name: trial.kept}):
                        logits = replay.run_from(trial.start)
                else:
                    logits, *powers = _try_rounding(model, replay, trial, weights[trial])
                    signal, noise = outcome.powers[trial]
                    outcome.powers[trial] = signal + powers[0], noise + powers[1]
                outcome.logits[trial].append(logits)
    if not outcome.dense:
        raise NothingToAnalyseError(NO_BATCH)
    return outcome


def _try_rounding(
    model: fx.GraphModule, replay: Replay, trial: _Rounding, weight: Tensor
) -> tuple[Tensor, float, float]:
    """The logits with one layer rounded, and the powers of its output and of its error."""
    layer = model.get_submodule(trial.start)
    exact = layer(replay.input_of(trial.start))
    with _rounding(layer, weight, trial.span) as outputs:
        logits = replay.run_from(trial.start)
    return logits, _power(exact), _power(outputs[0] - exact)


@contextmanager
def _rounding(layer: nn.Module, weight: Tensor, span: tuple[float, float]) -> Iterator[list[Tensor]]:
    """While it is open, ``layer`` has rounded weights, rounds its input in ``span``, and lists its outputs."""
    exact = layer.weight
    outputs: list[Tensor] = []

    def round_input(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_on_grid(inputs[0], *span), *inputs[1:])

    def note(_layer: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
        outputs.append(output)

    hooks: list[RemovableHandle] = [layer.register_forward_pre_hook(round_input), layer.register_forward_hook(note)]
    layer.weight = nn.Parameter(weight, requires_grad=False)
    try:
        yield outputs
    finally:
        layer.weight = exact
        for hook in hooks:
            hook.remove()


def _power(x: Tensor) -> float:
    """The sum of squares of ``x``; a dot product, which blocks its sums, is exact enough in float32."""
    flat = x.flatten()
    return float(torch.dot(flat, flat))


# ------------------------------------------------------------------------------------------------------ rounding


def _rounded_weight(layer: nn.Module, bits: int) -> Tensor:
    """The weights of ``layer`` on a symmetric grid per output channel.

    At 8 bits the grid reaches the largest weight; below, where it is coarse, it is the one with the least squared
    error among some that clip.
    """
    limit = LEVELS[bits]
    weight = dict(layer.named_parameters(recurse=False))["weight"].detach()
    rows = weight.flatten(1)  # (out, in * k * k)
    widest = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / limit  # (out, 1)
    shares = [1.0] if bits == 8 else [share / 40 for share in range(40, 11, -1)]
    best, least = torch.zeros_like(rows), torch.full_like(widest, torch.inf)
    for share in shares:
        step = widest * share
        rounded = (rows / step).round().clamp(-limit, limit) * step
        error = (rounded - rows).square().sum(1, keepdim=True)
        best = torch.where(error < least, rounded, best)
        least = torch.minimum(error, least)
    return best.view_as(weight)


def _on_grid(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` on the 256 values of uint8 whose scale and whole zero point cover ``low`` <= 0 <= ``high``."""
    step = max(high - low, 1e-12) / 255
    return torch.fake_quantize_per_tensor_affine(x, step, round(-low / step), 0, 255)


def _input_ranges(
    model: fx.GraphModule, layers: Sequence[str], batches: Iterable[Batch]
) -> dict[str, tuple[float, float]]:
    """The range to round the input of every layer in, 0 included: that of the least squared error."""
    values: dict[str, list[Tensor]] = {name: [] for name in layers}
    extremes: dict[str, list[Tensor]] = {name: [] for name in layers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def see(_layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            flat = inputs[0].flatten()
            extremes[name].append(torch.stack(flat.aminmax()))
            # An odd stride, so that no column of the picture is seen more often than others.
            values[name].append(flat[:: max(1, len(flat) // _VALUES_PER_BATCH) | 1].clone())

        return see

    with ExitStack() as stack, torch.inference_mode():
        for name in layers:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(watch(name)).remove)
        for inputs, _ in map(checked, batches):
            model(inputs)
    if layers and not extremes[layers[0]]:
        raise NothingToAnalyseError(NO_BATCH)
    return {name: _best_range(torch.cat(values[name]), torch.cat(extremes[name])) for name in layers}


def _best_range(values: Tensor, extremes: Tensor) -> tuple[float, float]:
    """The share of the full range (of ``extremes``, with 0) that rounds ``values``, float (n,), with least error."""
    low, high = min(float(extremes.min()), 0.0), max(float(extremes.max()), 0.0)
    shares = [share / 20 for share in range(20, 5, -1)]
    errors = [_power(_on_grid(values, low * share, high * share) - values) for share in shares]
    share = shares[int(np.argmin(errors))]
    return low * share, high * share


# ------------------------------------------------------------------------------------------------------- results


def _map(
    model: fx.GraphModule,
    groups: Sequence[ChannelGroup],
    saliency: Mapping[str, Float32Array],
    outcome: _Outcome,
    score: Score | None,
    ratios: Sequence[float],
    bits: Sequence[int],
) -> SensitivityMap:
    dense, targets = torch.cat(outcome.dense), torch.cat(outcome.targets)
    pruned: dict[str, list[PruningOption]] = {group.name: [] for group in groups}
    rounded: dict[str, list[BitsOption]] = {}
    for trial, parts in outcome.logits.items():
        logits = torch.cat(parts)
        away, value = divergence(dense, logits), _scored(score, logits, targets)
        if isinstance(trial, _Pruning):
            lost = _share_lost(saliency[trial.group.name], trial.kept)
            pruned[trial.group.name].append(PruningOption(len(trial.kept), lost, away, value))
        else:
            sqnr = _sqnr_db(*outcome.powers[trial])
            rounded.setdefault(trial.start, []).append(BitsOption(trial.bits, away, sqnr, value))
    return SensitivityMap(
        measure="logit_mse" if dense.shape[1] == 1 else "kl",
        samples=len(dense),
        dense_score=_scored(score, dense, targets),
        ratios=tuple(float(ratio) for ratio in ratios),
        bits=tuple(bits),
        groups=tuple(_group_row(group, saliency[group.name], pruned[group.name]) for group in groups),
        layers=tuple(_layer_row(model, name, found) for name, found in rounded.items()),
    )


def _group_row(group: ChannelGroup, saliency: Float32Array, found: Sequence[PruningOption]) -> GroupSensitivity:
    return GroupSensitivity(
        name=group.name,
        channels=group.channels,
        multiple=group.multiple,
        removable=group.removable,
        holders=(*group.producers, *group.depthwise),
        consumers=group.consumers,
        fisher=tuple(float(value) for value in saliency),
        options=tuple(found),
    )


def _layer_row(model: fx.GraphModule, name: str, found: Sequence[BitsOption]) -> LayerSensitivity:
    layer = model.get_submodule(name)
    kind = "linear" if isinstance(layer, nn.Linear) else "dense" if is_dense(layer) else "grouped"
    kind = "depthwise" if is_depthwise(layer) else kind
    return LayerSensitivity(name, kind, dict(layer.named_parameters())["weight"].numel(), tuple(found))


def divergence(dense: Tensor, changed: Tensor) -> float:
    """How far logits (n, outputs) are from those of the dense model.

    The mean squared difference of one output; the mean Kullback-Leibler divergence, in nats, of several.
    """
    if dense.shape[1] == 1:
        return float((changed - dense).double().square().mean())
    ours, theirs = (functional.log_softmax(logits.double(), 1) for logits in (changed, dense))
    # Rounding can make the sum of a few 1e-17 negative.
    return max(0.0, float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)))


def _scored(score: Score | None, logits: Tensor, targets: Tensor) -> float | None:
    if score is None:
        return None
    value = float(score(logits, targets))
    if not math.isfinite(value):
        raise UsageError(f"score must be a finite number, got {value}; does the loader give every kind of target?")
    return value


def _share_lost(saliency: Float32Array, kept: Sequence[int]) -> float:
    total = float(saliency.sum(dtype=np.float64))
    return 1.0 - float(saliency[list(kept)].sum(dtype=np.float64)) / total if total > 0 else 0.0


def _sqnr_db(signal: float, noise: float) -> float:
    if noise == 0:
        return LARGEST_SQNR_DB
    return min(LARGEST_SQNR_DB, 10 * float(np.log10(max(signal, 1e-30) / noise)))


# --------------------------------------------------------------------------------------------------------- input


def _counted(batches: Iterable[Batch], progress: Progress | None, what: str) -> Iterator[Batch]:
    """``batches``, with ``progress`` told after each."""
    samples = 0
    for batch in batches:
        yield batch
        samples += len(batch[0])
        if progress is not None:
            progress(what, samples)


def _is_layer(model: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(model.get_submodule(str(node.target)), nn.Conv2d | nn.Linear)
