"""From a sensitivity map and latency tables to a policy that was built, measured and found to keep its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from onnx import ModelProto

from compression.fakequant import FLOAT
from compression.latency import LatencyTable, Precision, measure, rescale
from compression.network import network_of
from compression.policy import Bounds, Network, Policy
from compression.problem import Problem
from compression.profiler import whole_model_ms
from compression.recipe import Recipe
from compression.sensitivity import divergence
from compression.sensitivity_map import SensitivityMap
from compression.solver import local_swaps, solve
from compression.student import rounded_and_pruned
from compression.subject import Subject
from compression.variants import core_of
from detector.types import UsageError

Finish = Callable[[ModelProto], ModelProto]
"""A core -> the form that is deployed, and timed."""
Tell = Callable[[str], None]

_CLOSE = 0.03
"""A prediction this near to what was measured needs no further round."""
_SIZE_IMAGES = 128
_SWAP_IMAGES = 64


@dataclass(frozen=True, slots=True)
class Round:
    """A policy that was built and measured, beside the dense float network of the same input size.

    Attributes:
        policy: as solved for.
        predicted_ms, measured_ms, dense_ms: medians.
        met: whether it keeps the bounds, by what was measured.
    """

    policy: Policy
    predicted_ms: float
    measured_ms: float
    dense_ms: float
    met: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the policy's details."""
        data = {k: v for k, v in asdict(self).items() if k != "policy"}
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in data.items()}
        return {"input_size": self.policy.input_size, **rounded, "faster": round(self.dense_ms / self.measured_ms, 3)}


# --------------------------------------------------------------------------------------------------- the problem


def network_for(subject: Subject, recipe: Recipe) -> Network:
    """What there is to decide about."""
    example = subject.example(subject.first_size)
    return network_of(subject.network, example, subject.groups, subject.choices(recipe.ratios))


def latency_table(subject: Subject, recipe: Recipe, size: int, finish: Finish) -> LatencyTable:
    """What every layer costs on this device at ``size`` px: every group at one ratio after the other.

    Float is measured only when the recipe allows it.
    """
    network, example = network_for(subject, recipe), subject.example(size)
    kinds: tuple[Precision, ...] = ("int8", "fp32") if FLOAT in recipe.bits else ("int8",)
    kinds = kinds if set(recipe.bits) != {FLOAT} else ("fp32",)
    table = measure(
        lambda counts, kind: finish(core_of(subject.network, example, _fewer(counts, network), kind)),
        _variants(network),
        network.layer_groups,
        precisions=kinds,
        runs=recipe.runs,
    )
    return replace(table, input_size=size)


def _variants(network: Network) -> list[dict[str, int]]:
    """Every group at its first count, at its second, ...; the last where it has no more."""
    options = {group.name: sorted((n for n in group.options if n), reverse=True) for group in network.groups}
    longest = max(map(len, options.values()), default=1)
    return [{name: counts[min(i, len(counts) - 1)] for name, counts in options.items()} for i in range(longest)]


def _fewer(counts: Mapping[str, int], network: Network) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count < network.full[name]}


def prune_losses(sensitivity: SensitivityMap) -> dict[str, dict[int, float]]:
    """Divergence by group and kept count; keeping fewer never counts as better, whatever the noise says."""
    losses: dict[str, dict[int, float]] = {}
    for group in sensitivity.groups:
        worst = 0.0
        losses[group.name] = {}
        for option in sorted(group.options, key=lambda o: -o.kept):
            worst = max(worst, option.divergence) if option.kept else option.divergence
            losses[group.name][option.kept] = worst if option.kept else option.divergence
    return losses


def quant_losses(sensitivity: SensitivityMap) -> dict[str, dict[int, float]]:
    """Divergence by layer and bits; fewer bits never count as better."""
    losses: dict[str, dict[int, float]] = {}
    for layer in sensitivity.layers:
        worst = 0.0
        losses[layer.name] = {}
        for option in sorted(layer.options, key=lambda o: -o.bits):
            worst = max(worst, option.divergence)
            losses[layer.name][option.bits] = worst
    return losses


def size_losses(subject: Subject) -> dict[int, float]:
    """What the dense network's own logits lose at each input size, where the examples bring the teacher's."""
    if len(subject.examples) == 1:
        return {}
    losses: dict[int, float] = {}
    for size in subject.examples:
        batches = [b for b in subject.batches(size, _SIZE_IMAGES) if b.logits is not None]
        if not batches:
            return {}
        with torch.inference_mode():
            ours = torch.cat([subject.network(batch.inputs) for batch in batches])
        losses[size] = divergence(torch.cat([b.logits for b in batches if b.logits is not None]), ours)
    return {size: loss - min(losses.values()) for size, loss in losses.items()}


# --------------------------------------------------------------------------------------------------- deciding


class Decider:
    """Solves, builds, measures, corrects, and solves again.

    Args:
        subject: the dense network.
        recipe: bounds, rounds, swaps.
        sensitivity: from :func:`compression.sensitivity.analyse`.
        tables: by input size; what was learned of them is in :attr:`tables` afterwards.
        finish: see :data:`Finish`.
        frame_ms: what a whole frame leaves to the network, when the recipe bounds frames.
        tell: is told what happens, a line each.
    """

    def __init__(
        self,
        subject: Subject,
        recipe: Recipe,
        sensitivity: SensitivityMap,
        tables: Mapping[int, LatencyTable],
        finish: Finish,
        frame_ms: float | None = None,
        tell: Tell = print,
    ) -> None:
        self._subject, self._recipe, self._finish, self._tell = subject, recipe, finish, tell
        self._sensitivity, self._frame_ms = sensitivity, frame_ms
        self._network = network_for(subject, recipe)
        self.tables = dict(tables)
        self.rounds: list[Round] = []
        layers = [layer.name for layer in self._network.layers]
        self._problem = Problem(
            self._network,
            {name: losses for name, losses in prune_losses(sensitivity).items() if name in self._network.full},
            {name: losses for name, losses in quant_losses(sensitivity).items() if name in layers},
            list(self.tables.values()),
            size_loss=size_losses(subject),
            allowed_bits=dict.fromkeys(layers, recipe.bits),
        )
        self._dense = {
            size: finish(core_of(subject.network, subject.example(size), {}, "fp32")) for size in self.tables
        }
        self._dense_ms = {size: self._time({"dense": model})["dense"] for size, model in self._dense.items()}

    def decide(self) -> Policy:
        """The policy with the least loss among those that were measured and keep the bounds.

        Raises:
            UsageError: none does; the message says what can be kept.
        """
        for number in range(1, self._recipe.rounds + 1):
            policy = self._solve()
            known = [r for r in self.rounds if (r.policy.kept, r.policy.bits) == (policy.kept, policy.bits)]
            self.rounds.append(self._measured(policy))
            self._tell_round(number)
            latest = self.rounds[-1]
            near = abs(latest.measured_ms / latest.predicted_ms - 1) <= _CLOSE
            if latest.met and (near or known or self._latency_bound(policy.input_size) is None):
                break
        met = [each.policy for each in self.rounds if each.met]
        if not met:
            raise UsageError(self._what_was_reached())
        best = min(met, key=lambda policy: policy.predicted.loss)
        return self._swapped(best) if self._recipe.swaps else best

    def _solve(self) -> Policy:
        """The best policy over all input sizes, each with the bounds that hold there."""
        found, refused = list[Policy](), list[str]()
        for size, table in self.tables.items():
            try:
                found.append(solve(replace(self._problem, tables=[table], bounds=self._bounds(size))))
            except UsageError as error:
                refused.append(str(error))
        if not found:
            raise UsageError(refused[0] if len(refused) == 1 else "; ".join(refused))
        return min(found, key=lambda policy: policy.predicted.loss)

    def _bounds(self, size: int) -> Bounds:
        targets = self._recipe.bounds
        whole = sum(layer.bytes(self._network.full, FLOAT) for layer in self._network.layers)
        share = None if targets.share is None else targets.share * (whole + self._network.other_bytes)
        stored = [bound for bound in (targets.bytes, share) if bound is not None]
        return Bounds(self._latency_bound(size), min(stored, default=None))

    def _latency_bound(self, size: int) -> float | None:
        faster = self._recipe.bounds.asked_faster
        relative = None if faster is None else self._dense_ms[size] / faster
        asked = [b for b in (self._recipe.bounds.latency_ms, self._frame_ms, relative) if b is not None]
        return min(asked, default=None)

    def _measured(self, policy: Policy) -> Round:
        """Builds ``policy``, times it beside the dense network, and corrects the table of its input size by that."""
        size = policy.input_size
        model = self._finish(rounded_and_pruned(self._subject, policy).core)
        ms = self._time({"dense": self._dense[size], "policy": model})
        self._dense_ms[size] = ms["dense"]
        bound = self._latency_bound(size)
        predicted = policy.predicted.latency_ms
        self.tables[size] = rescale(self.tables[size], [predicted], [ms["policy"]])
        return Round(policy, predicted, ms["policy"], ms["dense"], bound is None or ms["policy"] <= bound)

    def _time(self, models: Mapping[str, ModelProto]) -> dict[str, float]:
        return {name: each.p50_ms for name, each in whole_model_ms(models, runs=self._recipe.runs).items()}

    def _tell_round(self, number: int) -> None:
        r = self.rounds[-1]
        bound = self._latency_bound(r.policy.input_size)
        wanted = "" if bound is None else f", {bound:.2f} wanted"
        self._tell(
            f"round {number}, {r.policy.input_size} px: predicted {r.predicted_ms:.2f} ms, measured "
            f"{r.measured_ms:.2f}{wanted}; {r.dense_ms / r.measured_ms:.2f} times faster than dense"
        )

    def _what_was_reached(self) -> str:
        best = min(self.rounds, key=lambda r: r.measured_ms)
        bound = self._latency_bound(best.policy.input_size)
        return (
            f"no policy kept {bound:.2f} ms when it was built and measured: the fastest took {best.measured_ms:.2f} ms "
            f"({best.dense_ms / best.measured_ms:.2f} times faster than dense, {best.policy.input_size} px); ask for "
            f"{math.ceil(best.measured_ms * 100) / 100:g} ms, allow more rounds, or smaller sizes"
        )

    # ----------------------------------------------------------------------------------------------- swaps

    def _swapped(self, policy: Policy) -> Policy:
        """``policy`` after swaps that make the built network's logits come nearer to the dense one's."""
        size = policy.input_size
        problem = replace(self._problem, tables=[self.tables[size]], bounds=self._bounds(size))
        inputs = self._subject.inputs(size, _SWAP_IMAGES)
        with torch.inference_mode():
            dense = torch.cat([self._subject.network(x) for x in inputs])
        evaluate = partial(_distance, self._subject, self._sensitivity, inputs, dense)
        swapped = local_swaps(problem, policy, evaluate, evaluations=self._recipe.swaps)
        lap = self._measured(swapped)
        self._tell(f"after swaps: measured {lap.measured_ms:.2f} ms{'' if lap.met else ', too slow: left as it was'}")
        self.rounds.append(lap)
        return swapped if lap.met else policy


def _distance(
    subject: Subject, sensitivity: SensitivityMap, inputs: Sequence[torch.Tensor], dense: torch.Tensor, policy: Policy
) -> float:
    """How far the logits of the network that ``policy`` makes, not adapted, are from the dense one's."""
    strongest = {name: sensitivity.group(name).strongest(count) for name, count in policy.kept.items()}
    student = rounded_and_pruned(subject, policy, strongest).network
    with torch.inference_mode():
        return divergence(dense, torch.cat([student(x) for x in inputs]))
