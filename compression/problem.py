"""What a policy is chosen by, and what it should cost.

The sensitivities of a policy's decisions are added up; its latency is the sum of what its layers and conversions take.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from compression.latency import OTHER, Counts, LatencyTable, Precision, block_of
from compression.policy import BITS, Bounds, Group, Kept, Layer, Network, Policy, Prediction
from detector.types import ModelError, UsageError


@dataclass(frozen=True, slots=True)
class Problem:
    """All that a policy is chosen by.

    Attributes:
        network: what is decided about.
        prune_loss: sensitivity by group and kept count, at least 0; every option has one, the full count needs none.
        quant_loss: sensitivity by layer and bits, at least 0; 32 bits need none. Bits without one are not offered.
        tables: what layers cost: one table for each input size that may be chosen.
        bounds: what must be kept.
        size_loss: sensitivity by input size; 0 where it is not named.
        fixed: groups that stay whole.
        allowed_bits: by layer, where not all bits of ``quant_loss`` (and 32) may be chosen.

    Raises:
        UsageError: a name that is not in the network, a loss that is missing or below 0, a layer without bits.
    """

    network: Network
    prune_loss: Mapping[str, Mapping[int, float]]
    quant_loss: Mapping[str, Mapping[int, float]]
    tables: Sequence[LatencyTable]
    bounds: Bounds = field(default_factory=Bounds)
    size_loss: Mapping[int, float] = field(default_factory=dict)
    fixed: Collection[str] = ()
    allowed_bits: Mapping[str, Collection[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tables or len({t.input_size for t in self.tables}) < len(self.tables):
            raise UsageError("a policy needs one latency table for each input size, and at least one")
        layers = {layer.name for layer in self.network.layers}
        for names, known, what in (
            (self.fixed, self.network.full, "fixed"),
            (self.allowed_bits, layers, "allowed_bits"),
        ):
            if unknown := sorted(set(names) - set(known)):
                raise UsageError(f"{what} names {unknown[0]}, which is not in the network")
        for group in self.network.groups:
            for count in self.counts(group):
                self.group_loss(group, count)
        for layer in self.network.layers:
            if not self.bits(layer):
                raise UsageError(f"no bit-width is left for {layer.name}: quant_loss has none of the allowed ones")
            for bits in self.bits(layer):
                self.layer_loss(layer, bits)

    def table(self, input_size: int) -> LatencyTable:
        """The table for ``input_size``."""
        for table in self.tables:
            if table.input_size == input_size:
                return table
        raise UsageError(f"there is no latency table for {input_size} px; measure one")

    def counts(self, group: Group) -> tuple[int, ...]:
        """The counts that may be kept in ``group``."""
        return (group.channels,) if group.name in self.fixed else group.options

    def bits(self, layer: Layer) -> tuple[int, ...]:
        """The bit-widths that ``layer`` may get, widest first."""
        known = {32, *self.quant_loss.get(layer.name, {})}
        return tuple(sorted(known & set(self.allowed_bits.get(layer.name, BITS)) & set(BITS), reverse=True))

    def group_loss(self, group: Group, count: int) -> float:
        """The sensitivity of keeping ``count`` channels of ``group``."""
        loss = 0.0 if count == group.channels else self.prune_loss.get(group.name, {}).get(count)
        if loss is None or not 0 <= loss < math.inf:
            raise UsageError(f"prune_loss of {group.name} at {count} must be a number of at least 0, got {loss}")
        return loss

    def layer_loss(self, layer: Layer, bits: int) -> float:
        """The sensitivity of giving ``layer`` this many bits."""
        loss = self.quant_loss.get(layer.name, {}).get(bits, 0.0 if bits == 32 else None)
        if loss is None or not 0 <= loss < math.inf:
            raise UsageError(f"quant_loss of {layer.name} at {bits} bits must be a number of at least 0, got {loss}")
        return loss


def precision_of(bits: int) -> Precision:
    """The kernel for weights of so many bits: below 8 they are stored packed, and expanded when loaded."""
    return "fp32" if bits == 32 else "int8"


class Costs:
    """What single decisions cost, in ms, bytes and loss, at one input size.

    Attributes:
        constant: what no decision changes.
    """

    def __init__(self, problem: Problem, input_size: int) -> None:
        self._problem = problem
        self._table = problem.table(input_size)
        self._area = (input_size / problem.network.input_size) ** 2
        # What is no convolution in a block (its addition) goes with the block's last layer.
        self._last = {block_of(layer.name): layer.name for layer in problem.network.layers}
        other_ms = max(self._table.rest_ms(OTHER, "int8"), self._table.rest_ms(OTHER, "fp32"))
        loss = problem.size_loss.get(input_size, 0.0)
        self.constant = Prediction(other_ms, problem.network.other_bytes, loss)

    def layer(self, layer: Layer, counts: Counts, bits: int) -> Prediction:
        """Of ``layer``, with ``counts`` channels kept in its groups (see :attr:`Layer.groups`)."""
        precision = precision_of(bits)
        kept = dict(zip(layer.groups, counts, strict=True))
        ms = self._table.layer_ms(layer.name, self._table_counts(layer, kept), precision)
        block = block_of(layer.name)
        if block != OTHER and self._last[block] == layer.name:
            ms += self._table.rest_ms(block, precision)
        return Prediction(ms, layer.bytes(kept, bits), self._problem.layer_loss(layer, bits))

    def boundary_ms(self, layer: Layer, kept: Kept, into: Precision) -> float:
        """Of turning what ``layer`` makes into another precision: once, however many layers use it."""
        share = layer.channels(kept)[1] / layer.outputs
        return self._table.boundary_ms(layer.output_elements * self._area * share, into)

    def _table_counts(self, layer: Layer, kept: Kept) -> Counts:
        """The counts that the table wants: of all groups of the layer, or of some when others were left whole."""
        groups = self._table.groups.get(layer.name, ())
        if unknown := [g for g in groups if g not in kept]:
            raise ModelError(f"the latency table has {layer.name} depend on {unknown[0]}, the network has not")
        return tuple(kept[g] for g in groups)


def predict(problem: Problem, input_size: int, kept: Kept, bits: Mapping[str, int]) -> Prediction:
    """What a choice costs.

    A residual addition counts as part of the last convolution of its block; in a block that mixes precisions the
    conversions around it may be one more or fewer than what is counted.

    Args:
        problem: sensitivities and tables.
        input_size: which table.
        kept: count of every group.
        bits: of every layer that is still there.
    """
    costs, network = Costs(problem, input_size), problem.network
    there = network.there(kept)
    removed = {layer.name for layer in network.layers} - {layer.name for layer in there}
    parts = [costs.layer(layer, tuple(kept[g] for g in layer.groups), bits[layer.name]) for layer in there]
    parts.append(costs.constant)
    latency_ms = sum(part.latency_ms for part in parts)
    for layer in there:
        wanted = {precision_of(bits[user]) for user in _users(network, layer, removed)}
        for other in wanted - {precision_of(bits[layer.name])}:
            latency_ms += costs.boundary_ms(layer, kept, other)
    pruning = sum(problem.group_loss(group, kept[group.name]) for group in network.groups)
    return Prediction(latency_ms, sum(p.bytes for p in parts), pruning + sum(p.loss for p in parts))


def decided(
    problem: Problem, input_size: int, kept: Kept, bits: Mapping[str, int], status: str, gap: float = 0.0
) -> Policy:
    """A choice as a policy, with its prediction. ``bits`` may name layers that are gone."""
    left = {layer.name: bits[layer.name] for layer in problem.network.there(kept)}
    predicted = predict(problem, input_size, kept, left)
    return Policy(input_size, problem.network.full, dict(kept), left, predicted, problem.bounds, status, gap)


def _users(network: Network, layer: Layer, removed: Collection[str]) -> set[str]:
    """The layers that use what ``layer`` makes, when dropped blocks hand on what they get."""
    feeds = {each.name: each.feeds for each in network.layers}
    users: set[str] = set()
    seen: set[str] = set()
    waiting = list(layer.feeds)
    while waiting:
        user = waiting.pop()
        if user in seen:
            continue
        seen.add(user)
        if user in removed:
            waiting.extend(feeds[user])
        else:
            users.add(user)
    return users
