"""Chooses the policy: an integer program, a uniform policy to compare it with, and swaps under real evaluation.

The program has one binary for each (layer, kept counts of its groups, bits). What a layer costs, in ms, bytes and loss
alike, may be any function of these three, because the binary *is* their product; nothing is linearised.

Sensitivities are added up, which is wrong in places (Deng et al., "CLADO", DAC 2025): :func:`local_swaps` repairs
what a real evaluation finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from compression.latency import Counts
from compression.policy import Bounds, Layer, Policy, Prediction, nearest
from compression.problem import Costs, Problem, decided, precision_of
from detector.types import UsageError

Axis = Literal["latency_ms", "bytes", "loss"]
_AXES: tuple[Axis, ...] = ("latency_ms", "bytes", "loss")


def solve(problem: Problem, *, minimise: Axis = "loss", time_limit_s: float = 60.0, gap: float = 1e-4) -> Policy:
    """The best policy that keeps all bounds, over all input sizes.

    Args:
        problem: what to choose by.
        minimise: what there should be least of: the summed sensitivity, or latency or size under a bound on it.
        time_limit_s: for each input size; the best found by then counts, with its gap.
        gap: relative distance to the optimum at which the search may stop.

    Raises:
        UsageError: no policy keeps the bounds; the message says what can be kept.
    """
    found = _least(problem, minimise, problem.bounds, time_limit_s, gap)
    if found is None:
        raise UsageError(_what_can_be_met(problem, time_limit_s))
    return found


def _least(problem: Problem, axis: Axis, bounds: Bounds, time_limit_s: float, gap: float) -> Policy | None:
    """The policy with the least of ``axis`` over all input sizes, or None when no policy keeps ``bounds``."""
    bounded = replace(problem, bounds=bounds)
    policies = [_Program(bounded, table.input_size).least(axis, time_limit_s, gap) for table in problem.tables]
    found = [policy for policy in policies if policy is not None]
    return min(found, key=lambda p: (getattr(p.predicted, axis), p.predicted.latency_ms), default=None)


# --------------------------------------------------------------------------------------------------- the program


@dataclass(frozen=True, slots=True)
class _Choice:
    """One way to run a layer: the variable that says whether it is the one."""

    variable: int
    counts: Counts
    bits: int

    @property
    def there(self) -> bool:
        return all(self.counts)

    @property
    def int8(self) -> bool:
        return precision_of(self.bits) == "int8"


class _Program:
    """The mixed-integer linear program for one input size.

    Variables, all in 0..1:
        a binary for each (group, count): one of each group is 1;
        a binary for each (layer, counts, bits): one of each layer is 1, and they agree with those of the groups. With
            a count of 0 the layer is gone: it costs nothing, and takes whatever precision it likes, so that a dropped
            block hands on whatever it gets;
        two for each tensor and count of its group: whether it is turned from int8 into float, and the other way.
    """

    def __init__(self, problem: Problem, input_size: int) -> None:
        self._problem, self._input_size = problem, input_size
        self._costs = Costs(problem, input_size)
        self._columns: list[tuple[float, ...]] = []  # ms, bytes, loss of each variable
        self._integral: list[bool] = []
        self._rows: list[tuple[dict[int, float], float, float]] = []  # coefficients, least, most
        self._counts = {group.name: problem.counts(group) for group in problem.network.groups}
        self._keeps: dict[tuple[str, int], int] = {}
        for group in problem.network.groups:
            for count in self._counts[group.name]:
                cost = Prediction(0.0, 0.0, problem.group_loss(group, count))
                self._keeps[group.name, count] = self._variable(cost)
            self._row({self._keeps[group.name, n]: 1.0 for n in self._counts[group.name]}, 1.0, 1.0)
        self._layers = {layer.name: layer for layer in problem.network.layers}
        self._choices = {name: self._layer(layer) for name, layer in self._layers.items()}
        for layer in problem.network.layers:
            self._conversions(layer)

    def _variable(self, cost: Prediction, *, integral: bool = True) -> int:
        self._columns.append(astuple(cost))
        self._integral.append(integral)
        return len(self._columns) - 1

    def _row(self, coefficients: dict[int, float], least: float, most: float) -> None:
        self._rows.append((coefficients, least, most))

    def _layer(self, layer: Layer) -> list[_Choice]:
        """The choices of ``layer``, and that they agree with the counts of its groups."""
        nothing = Prediction(0.0, 0.0, 0.0)
        choices: list[_Choice] = []
        for counts in product(*(self._counts[group] for group in layer.groups)):
            there = all(counts)
            for bits in self._problem.bits(layer) if there else (32, 8):
                cost = self._costs.layer(layer, counts, bits) if there else nothing
                choices.append(_Choice(self._variable(cost), counts, bits))
        if not layer.groups:
            self._row({choice.variable: 1.0 for choice in choices}, 1.0, 1.0)
        for i, group in enumerate(layer.groups):
            for count in self._counts[group]:
                agreeing = {choice.variable: 1.0 for choice in choices if choice.counts[i] == count}
                self._row({**agreeing, self._keeps[group, count]: -1.0}, 0.0, 0.0)
        return choices

    def _conversions(self, layer: Layer) -> None:
        """What it costs when the output of ``layer`` is used in another precision, at each of its counts."""
        group = layer.out_group
        for count in (None,) if group is None else self._counts[group]:
            if count == 0 or not layer.feeds:
                continue
            full = self._problem.network.full
            kept = full if group is None or count is None else full | {group: count}
            up, down = (
                self._variable(Prediction(self._costs.boundary_ms(layer, kept, into), 0.0, 0.0), integral=False)
                for into in ("fp32", "int8")
            )
            made = self._int8(layer.name, group, count)
            for user in layer.feeds:
                used = self._int8(user, group, count)
                difference = {**made, **dict.fromkeys(used, -1.0)}
                self._row({**difference, up: -1.0}, -np.inf, 0.0)
                self._row({**difference, down: 1.0}, 0.0, np.inf)

    def _int8(self, name: str, group: str | None, count: int | None) -> dict[int, float]:
        """A sum that is 1 when the layer runs in int8, with ``group`` at ``count``."""
        at = None if group is None else self._layers[name].groups.index(group)
        return {c.variable: 1.0 for c in self._choices[name] if c.int8 and (at is None or c.counts[at] == count)}

    def least(self, axis: Axis, time_limit_s: float, gap: float) -> Policy | None:
        """The policy with the least of ``axis`` within the bounds, or None when there is none."""
        bounds = self._problem.bounds
        constant = self._costs.constant
        room = {
            each: getattr(bounds, each) - getattr(constant, each) for each in _AXES if getattr(bounds, each) is not None
        }
        if any(left < 0 for left in room.values()):
            return None
        slack = 0.0
        for _ in range(4):  # the solver keeps bounds to 1e-6 or so: ask for a little more until they are kept
            result = self._run(axis, room, slack, time_limit_s, gap)
            if result.x is None and result.status == 1:
                raise UsageError(f"no policy was found within {time_limit_s:g} s; give the solver more time")
            if result.x is None:
                return None
            policy = self._read(result)
            if bounds.kept_by(policy.predicted):
                return policy
            slack = slack * 4 or 2e-6
        return None

    def _run(
        self, axis: Axis, room: Mapping[Axis, float], slack: float, time_limit_s: float, gap: float
    ) -> optimize.OptimizeResult:
        """Solves; every bound is scaled to 1, so that the solver's tolerances mean the same for ms and bytes."""
        costs = dict(zip(_AXES, np.array(self._columns).T, strict=True))  # each (variables,)
        bounded = [
            optimize.LinearConstraint(costs[each][None, :] / max(left, 1e-12), -np.inf, 1.0 - slack)
            for each, left in room.items()
        ]
        least, most = (np.array([row[i] for row in self._rows]) for i in (1, 2))
        return optimize.milp(
            costs[axis] / max(float(costs[axis].max()), 1e-12),
            integrality=np.array(self._integral, int),
            bounds=optimize.Bounds(0, 1),
            constraints=[optimize.LinearConstraint(self._matrix(), least, most), *bounded],
            options={"time_limit": time_limit_s, "mip_rel_gap": gap},
        )

    def _matrix(self) -> sparse.csr_array:
        entries = [(i, column, value) for i, (row, _, _) in enumerate(self._rows) for column, value in row.items()]
        at, columns, values = zip(*entries, strict=True)
        return sparse.csr_array((values, (at, columns)), shape=(len(self._rows), len(self._columns)))

    def _read(self, result: optimize.OptimizeResult) -> Policy:
        values: NDArray[np.float64] = result.x
        kept = {group: count for (group, count), variable in self._keeps.items() if values[variable] > 0.5}
        bits = {name: c.bits for name, choices in self._choices.items() for c in choices if values[c.variable] > 0.5}
        status = "optimal" if result.status == 0 else "time limit"
        return decided(self._problem, self._input_size, kept, bits, status, float(result.mip_gap or 0.0))


# --------------------------------------------------------------------------------------------------- no policy


def _what_can_be_met(problem: Problem, time_limit_s: float) -> str:
    """Why there is no policy, and what to ask for instead: found by solving for it."""
    bounds = problem.bounds
    asked = {axis: getattr(bounds, axis) for axis in _AXES if getattr(bounds, axis) is not None}
    for axis, value in asked.items():  # a bound that nothing keeps
        least = _least(problem, axis, Bounds(), time_limit_s, 1e-6)
        if least is not None and not Bounds(**{axis: value}).kept_by(least.predicted):
            smaller = ", or allow smaller inputs" if axis == "latency_ms" else ""
            return f"no policy meets {_said(axis, value)}: {_reached(axis, least)}; ask for at least that{smaller}"
    wanted = " and ".join(_said(axis, value) for axis, value in asked.items())
    for axis in asked:  # a bound that nothing keeps beside the others
        least = _least(problem, axis, replace(bounds, **{axis: None}), time_limit_s, 1e-6)
        if least is not None:
            return f"no policy meets {wanted}: with the rest kept, {_reached(axis, least)}; ask for at least that"
    return f"no policy meets {wanted}, nor all of them but one; loosen at least two"


def _said(axis: Axis, value: float) -> str:
    if axis == "latency_ms":
        return f"{value:g} ms on this device"
    return f"{value:.0f} bytes" if axis == "bytes" else f"a loss of {value:g}"


def _reached(axis: Axis, policy: Policy) -> str:
    """What ``policy`` costs, rounded up, so that asking for what is said works."""
    p = policy.predicted
    word = {"latency_ms": "fastest", "bytes": "smallest", "loss": "most accurate"}[axis]
    ms, loss = math.ceil(p.latency_ms * 100) / 100, math.ceil(p.loss * 1e4) / 1e4
    return f"the {word} allowed takes {ms:g} ms ({math.ceil(p.bytes)} bytes, loss {loss:g}, {policy.input_size} px)"


# --------------------------------------------------------------------------------------------------- uniform


def uniform(problem: Problem, ratio: float | None = None, *, bits: int = 8, input_size: int | None = None) -> Policy:
    """One keep ratio and one bit-width everywhere: what the choice by layers is compared with.

    Args:
        problem: fixed groups, and layers that may not have ``bits``, are left out of it.
        ratio: above 0, at most 1; every group keeps the option nearest to it. None: the largest ratio that keeps the
            bounds.
        bits: of every layer that may have them; others get the next wider that they may have.
        input_size: of one of the tables; None: of the first.

    Raises:
        UsageError: no ratio keeps the bounds, or ``ratio`` is not in 0..1.
    """
    size = problem.tables[0].input_size if input_size is None else input_size
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise UsageError(f"a keep ratio is above 0 and at most 1, got {ratio}")
        return _uniform(problem, ratio, bits, size)
    counts = {group: problem.counts(group) for group in problem.network.groups}
    ratios = {1.0} | {n / group.channels for group, options in counts.items() for n in options if n}
    policies = [_uniform(problem, each, bits, size) for each in sorted(ratios, reverse=True)]
    for policy in policies:
        if problem.bounds.kept_by(policy.predicted):
            return policy
    fastest = min(policies, key=lambda p: p.predicted.latency_ms)
    raise UsageError(f"no uniform policy of {bits} bits keeps the bounds: {_reached('latency_ms', fastest)}")


def _uniform(problem: Problem, ratio: float, bits: int, input_size: int) -> Policy:
    kept = {g.name: nearest(problem.counts(g), ratio * g.channels) for g in problem.network.groups}
    widths = {layer.name: _at_least(problem.bits(layer), bits) for layer in problem.network.layers}
    return decided(problem, input_size, kept, widths, f"uniform {ratio:g}")


def _at_least(allowed: Collection[int], bits: int) -> int:
    """The narrowest of ``allowed`` that has ``bits``, or else the widest."""
    return min((each for each in allowed if each >= bits), default=max(allowed))


# --------------------------------------------------------------------------------------------------- swaps


def local_swaps(
    problem: Problem,
    policy: Policy,
    evaluate: Callable[[Policy], float],
    *,
    evaluations: int = 40,
    least_gain: float = 0.0,
) -> Policy:
    """Improves ``policy`` by a real evaluation, one or two decisions at a time, within all bounds.

    A move is one step in one decision (a group's next count, a layer's next bit-width), or a gentler step in one and a
    harsher one in another. Moves are tried in the order of their predicted loss; the first that is better is taken,
    and the search goes on from there.

    Args:
        problem: what ``policy`` was chosen by.
        policy: where to start.
        evaluate: what counts, lower is better: build it, measure it on pictures.
        evaluations: how many policies to evaluate at most, ``policy`` included.
        least_gain: a move must be better by more than this (the noise of ``evaluate``).
    """
    best, score = policy, evaluate(policy)
    seen, left = {_key(policy)}, evaluations - 1
    moves = _moves(problem, best)
    while left > 0:
        move = next((each for each in moves if _key(each) not in seen), None)
        if move is None:
            break
        seen.add(_key(move))
        value, left = evaluate(move), left - 1
        if value < score - least_gain:
            best, score = move, value
            moves = _moves(problem, best)
    return best


def _key(policy: Policy) -> tuple[tuple[tuple[str, int], ...], ...]:
    return tuple(sorted(policy.kept.items())), tuple(sorted(policy.bits.items()))


@dataclass(frozen=True, slots=True)
class _Step:
    """One decision's next value: of a group's ``kept`` count, or else of a layer's bits."""

    name: str
    kept: bool
    value: int
    gentler: bool


def _moves(problem: Problem, policy: Policy) -> list[Policy]:
    """All policies one step, or one gentler and one harsher step, from ``policy`` that keep the bounds, best first."""
    steps = list(_steps(problem, policy))
    harsher = [step for step in steps if not step.gentler]
    pairs = [(a, b) for a in steps if a.gentler for b in harsher if (a.name, a.kept) != (b.name, b.kept)]
    moves = [_moved(problem, policy, change) for change in [*((step,) for step in steps), *pairs]]
    return sorted((m for m in moves if problem.bounds.kept_by(m.predicted)), key=lambda m: m.predicted.loss)


def _steps(problem: Problem, policy: Policy) -> Iterator[_Step]:
    """Every decision's next values."""
    for group in problem.network.groups:
        for value, gentler in _neighbours(problem.counts(group), policy.kept[group.name]):
            yield _Step(group.name, True, value, gentler)
    for layer in problem.network.layers:
        if layer.name in policy.bits:
            for value, gentler in _neighbours(problem.bits(layer), policy.bits[layer.name]):
                yield _Step(layer.name, False, value, gentler)


def _neighbours(options: Collection[int], now: int) -> list[tuple[int, bool]]:
    """The options above and below ``now``, and whether that is gentler."""
    above = sorted(n for n in options if n > now)[:1]
    below = sorted(n for n in options if n < now)[-1:]
    return [(n, True) for n in above] + [(n, False) for n in below]


def _moved(problem: Problem, policy: Policy, steps: tuple[_Step, ...]) -> Policy:
    """``policy`` after ``steps``. Layers that come back get the widest integers that they may have."""
    kept = dict(policy.kept) | {step.name: step.value for step in steps if step.kept}
    bits = {layer.name: next((b for b in problem.bits(layer) if b <= 8), 32) for layer in problem.network.layers}
    bits |= dict(policy.bits) | {step.name: step.value for step in steps if not step.kept}
    return decided(problem, policy.input_size, kept, bits, "local swaps")
