from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.latency import OTHER, Boundary, LatencyTable
from compression.policy import Bounds, Group, Layer, Network, Policy
from compression.problem import Problem, decided, predict
from compression.solver import local_swaps, solve, uniform
from detector.types import ModelError, UsageError


def small_network(*, joined: bool = False) -> Network:
    """A stem, two residual blocks of which the second may go, and, ``joined``, a layer between two groups."""
    groups = [
        Group("b.0.pw", 32, (16, 32), ("b.0.pw", "b.0.pwl")),
        Group("b.1.pw", 32, (0, 16, 32), ("b.1.pw", "b.1.pwl")),
    ]
    layers = [
        Layer("stem", 3, 8, taps=9, feeds=("b.0.pw", "b.0.pwl"), output_elements=512),
        Layer("b.0.pw", 8, 32, out_group="b.0.pw", feeds=("b.0.pwl",), output_elements=2048),
        Layer("b.0.pwl", 32, 8, in_group="b.0.pw", feeds=("b.1.pw", "b.1.pwl"), output_elements=512),
        Layer("b.1.pw", 8, 32, out_group="b.1.pw", feeds=("b.1.pwl",), output_elements=2048),
        Layer("b.1.pwl", 32, 8, in_group="b.1.pw", feeds=("head",) if joined else (), output_elements=512),
    ]
    if joined:
        groups += [Group("head", 16, (8, 16), ("head", "mix")), Group("mix", 16, (8, 16), ("mix", "last"))]
        layers += [
            Layer("head", 8, 16, out_group="head", feeds=("mix",), output_elements=1024),
            Layer("mix", 16, 16, in_group="head", out_group="mix", feeds=("last",), output_elements=1024),
            Layer("last", 16, 1, in_group="mix", output_elements=1),
        ]
        groups, layers = groups[1:], layers[3:]
    return Network(tuple(layers), tuple(groups), input_size=32, other_bytes=40)


def table_for(network: Network, rng: random.Random, input_size: int = 32) -> LatencyTable:
    """Random costs, in 1/64 ms so that their sums are exact; fewer channels may well be slower."""
    options = {group.name: [n for n in group.options if n] for group in network.groups}
    cells = {
        (layer.name, counts, precision): rng.randint(1, 64) / 64
        for layer in network.layers
        for counts in product(*(options[g] for g in layer.groups))
        for precision in ("int8", "fp32")
    }
    blocks = {layer.name.rpartition(".")[0] for layer in network.layers}
    return LatencyTable(
        input_size,
        network.layer_groups,
        cells,
        rest={(block or OTHER, kind): rng.randint(0, 8) / 64 for block in blocks for kind in ("int8", "fp32")},
        quantise=Boundary(rng.choice((0, 2**-12, 2**-10)), rng.choice((0, 1 / 64))),
        dequantise=Boundary(rng.choice((0, 2**-12, 2**-10)), rng.choice((0, 1 / 64))),
    )


def random_problem(seed: int, *, joined: bool = False, sizes: tuple[int, ...] = (32,)) -> Problem:
    rng = random.Random(seed)
    network = small_network(joined=joined)
    prune = {g.name: {n: rng.randint(0, 64) / 64 for n in g.options if n < g.channels} for g in network.groups}
    widths = (8, 4) if rng.random() < 0.5 else (8,)
    quant = {layer.name: {b: rng.randint(0, 64) / 64 for b in widths} for layer in network.layers[:3]}
    quant |= {layer.name: {8: rng.randint(0, 64) / 64} for layer in network.layers[3:]}
    tables = [table_for(network, rng, size) for size in sizes]
    return Problem(network, prune, quant, tables, size_loss={size: rng.randint(0, 8) / 64 for size in sizes})


def everything(problem: Problem) -> Iterator[Policy]:
    """Every policy there is, bounds or no bounds."""
    network = problem.network
    for table in problem.tables:
        for counts in product(*(problem.counts(group) for group in network.groups)):
            kept = dict(zip((group.name for group in network.groups), counts, strict=True))
            there = network.there(kept)
            for widths in product(*(problem.bits(layer) for layer in there)):
                bits = dict(zip((layer.name for layer in there), widths, strict=True))
                yield decided(problem, table.input_size, kept, bits, "brute force")


def bounded(problem: Problem, all_policies: list[Policy], seed: int) -> Problem:
    """Bounds around what a random policy costs, so that they bite, and are met exactly or by nobody at times."""
    rng = random.Random(seed)
    policy = rng.choice(all_policies).predicted
    factor = rng.choice((1.0, 1.0, 0.7, 1.2))
    latency = policy.latency_ms * factor if rng.random() < 0.8 else None
    size = policy.bytes * factor if rng.random() < 0.5 else None
    loss = policy.loss * factor if rng.random() < 0.3 else None
    return replace(problem, bounds=Bounds(latency, size, loss))


# ---------------------------------------------------------------------------------------------------- solving


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from(["loss", "latency_ms", "bytes"]))
def test_the_solver_finds_what_brute_force_finds(seed: int, joined: bool, axis: str) -> None:
    problem = random_problem(seed, joined=joined)
    all_policies = list(everything(problem))
    problem = bounded(problem, all_policies, seed)
    within = [p for p in all_policies if problem.bounds.kept_by(p.predicted)]
    if not within:
        with pytest.raises(UsageError, match="no policy meets"):
            solve(problem)
        return
    found = solve(problem, minimise=axis, gap=0)
    assert problem.bounds.kept_by(found.predicted)
    least = min(getattr(p.predicted, axis) for p in within)
    assert getattr(found.predicted, axis) == pytest.approx(least, rel=1e-5, abs=1e-6)
    assert found.predicted == predict(problem, found.input_size, found.kept, found.bits)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_input_size_is_found(seed: int) -> None:
    problem = random_problem(seed, sizes=(32, 16))
    all_policies = list(everything(problem))
    problem = bounded(problem, all_policies, seed)
    within = [p for p in all_policies if problem.bounds.kept_by(p.predicted)]
    if within:
        assert solve(problem, gap=0).predicted.loss == pytest.approx(min(p.predicted.loss for p in within), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(1.0, 3.0))
def test_a_looser_bound_never_gives_a_greater_loss(seed: int, factor: float) -> None:
    problem = random_problem(seed)
    least = solve(problem, minimise="latency_ms").predicted
    tight = replace(problem, bounds=Bounds(least.latency_ms * 1.05, least.bytes * 1.05))
    loose = replace(problem, bounds=Bounds(least.latency_ms * 1.05 * factor, least.bytes * 1.05 * factor))
    assert solve(loose, gap=0).predicted.loss <= solve(tight, gap=0).predicted.loss + 1e-6


def test_without_bounds_nothing_is_taken_away() -> None:
    problem = random_problem(1)
    problem = replace(problem, prune_loss={g: dict.fromkeys(o, 1.0) for g, o in problem.prune_loss.items()})
    problem = replace(problem, quant_loss={layer.name: {8: 1.0} for layer in problem.network.layers})
    policy = solve(problem)
    assert policy.ratios == {"b.0.pw": 1.0, "b.1.pw": 1.0}
    assert set(policy.bits.values()) == {32}
    assert policy.predicted.loss == problem.size_loss[32]
    assert policy.status == "optimal"


def test_a_dropped_block_costs_nothing_and_its_neighbours_meet() -> None:
    """Stem and first block in float, and nothing else: dropping the second block leaves no conversion."""
    problem = random_problem(3)
    table = problem.tables[0]
    kept = {"b.0.pw": 32, "b.1.pw": 0}
    got = predict(problem, 32, kept, {"stem": 32, "b.0.pw": 32, "b.0.pwl": 32})
    layers = [("stem", ()), ("b.0.pw", (32,)), ("b.0.pwl", (32,))]
    ms = sum(table.layer_ms(name, counts, "fp32") for name, counts in layers) + table.rest_ms("b.0", "fp32")
    assert got.latency_ms == pytest.approx(ms + max(table.rest_ms(OTHER, kind) for kind in ("int8", "fp32")))
    assert got.bytes == 4 * (9 * 3 * 8 + 8 + 8 * 32 + 32 + 32 * 8 + 8) + 40
    assert got.loss == pytest.approx(problem.prune_loss["b.1.pw"][0] + problem.size_loss[32])


def test_conversions_are_charged_once_a_tensor_and_at_its_pruned_size() -> None:
    problem = random_problem(4)
    table = replace(problem.tables[0], quantise=Boundary(1.0, 0.5), dequantise=Boundary(100.0))
    problem = replace(problem, tables=[table])
    still = replace(problem, tables=[replace(table, quantise=Boundary(0), dequantise=Boundary(0))])
    kept = {"b.0.pw": 16, "b.1.pw": 16}
    bits = {"stem": 32, "b.0.pw": 8, "b.0.pwl": 8, "b.1.pw": 8, "b.1.pwl": 32}

    def conversions(bits: dict[str, int]) -> float:
        return predict(problem, 32, kept, bits).latency_ms - predict(still, 32, kept, bits).latency_ms

    # The stem's output is quantised for b.0.pw and b.0.pwl, once; b.0.pwl's is wanted in float by b.1.pwl, which adds
    # it; b.1.pw's is, at half its channels.
    assert conversions(bits) == pytest.approx(512 + 0.5 + 100 * 512 + 100 * 1024)
    assert conversions({**bits, "b.0.pw": 32}) == pytest.approx(512.5 + (1024 + 0.5) + 100 * 512 + 100 * 1024)
    assert conversions(dict.fromkeys(bits, 8)) == 0


def test_precision_does_not_alternate_when_conversions_cost_more_than_they_save() -> None:
    problem = random_problem(5)
    dear = replace(problem.tables[0], quantise=Boundary(1.0), dequantise=Boundary(1.0))
    for table in (dear, replace(dear, corrections=(0.5,))):
        policy = solve(replace(problem, tables=[table]), minimise="latency_ms")
        assert len({bits == 32 for bits in policy.bits.values()}) == 1


def test_fewer_bits_than_8_buy_size_only() -> None:
    problem = random_problem(6)
    kept = problem.network.full
    quant = {layer.name: {8: 0.0, 6: 0.5, 4: 1.0} for layer in problem.network.layers}
    problem = replace(problem, quant_loss=quant)
    sizes = {b: predict(problem, 32, kept, dict.fromkeys(quant, b)) for b in (8, 6, 4)}
    assert sizes[8].latency_ms == sizes[6].latency_ms == sizes[4].latency_ms
    weights = sum(layer.inputs * layer.outputs * layer.taps for layer in problem.network.layers)
    assert sizes[8].bytes - sizes[4].bytes == weights / 2
    assert sizes[8].bytes - sizes[6].bytes == weights / 4


def test_what_is_fixed_or_not_allowed_is_not_chosen() -> None:
    problem = replace(random_problem(7), fixed=("b.0.pw",), allowed_bits={"stem": (32,), "b.0.pw": (8, 4)})
    problem = replace(problem, quant_loss={layer.name: {8: 0.1, 4: 0.2} for layer in problem.network.layers})
    for axis in ("loss", "latency_ms", "bytes"):
        policy = solve(problem, minimise=axis)
        assert policy.kept["b.0.pw"] == 32
        assert policy.bits["stem"] == 32
        assert policy.bits["b.0.pw"] in (8, 4)


# ---------------------------------------------------------------------------------------------------- no policy


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_what_an_error_says_can_be_met_can_be_met_and_nothing_less(seed: int) -> None:
    problem = random_problem(seed)
    least = solve(problem, minimise="latency_ms").predicted.latency_ms
    with pytest.raises(UsageError, match="the fastest allowed takes") as error:
        solve(replace(problem, bounds=Bounds(latency_ms=least * 0.9)))
    said = float(re.search(r"takes ([0-9.]+) ms \(", str(error.value)).group(1))
    assert solve(replace(problem, bounds=Bounds(latency_ms=said))).predicted.latency_ms <= said
    with pytest.raises(UsageError):
        solve(replace(problem, bounds=Bounds(latency_ms=said - 0.011)))


def test_errors_name_the_bound_that_cannot_be_met() -> None:
    problem = random_problem(11)
    problem = replace(problem, quant_loss={layer.name: {8: 1.0} for layer in problem.network.layers})
    fastest = solve(problem, minimise="latency_ms").predicted
    with pytest.raises(UsageError, match=r"no policy meets 100 bytes: the smallest allowed takes .* bytes") as error:
        solve(replace(problem, bounds=Bounds(latency_ms=100, bytes=100)))
    said = int(re.search(r"\((\d+) bytes", str(error.value)).group(1))
    assert solve(replace(problem, bounds=Bounds(bytes=said))).predicted.bytes <= said
    with pytest.raises(UsageError, match="with the rest kept, the fastest allowed takes") as error:
        solve(replace(problem, bounds=Bounds(latency_ms=fastest.latency_ms, loss=problem.size_loss[32])))
    said_ms = float(re.search(r"takes ([0-9.]+) ms \(", str(error.value)).group(1))
    solve(replace(problem, bounds=Bounds(latency_ms=said_ms, loss=problem.size_loss[32])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prune_loss": {"b.0.pw": {16: 0.1}}}, "prune_loss of b.1.pw at 0"),
        ({"prune_loss": {"b.0.pw": {16: -0.1}, "b.1.pw": {0: 1.0, 16: 1.0}}}, "at least 0, got -0.1"),
        ({"quant_loss": {"stem": {8: math.nan}}}, "quant_loss of stem at 8 bits"),
        ({"fixed": ("nowhere",)}, "fixed names nowhere"),
        ({"allowed_bits": {"nowhere": (8,)}}, "allowed_bits names nowhere"),
        ({"allowed_bits": {"stem": (6,)}}, "no bit-width is left for stem"),
        ({"tables": []}, "at least one"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        replace(random_problem(1), **change)


def test_bounds_are_numbers_of_at_least_0() -> None:
    with pytest.raises(UsageError, match="latency_ms"):
        Bounds(latency_ms=-1)
    with pytest.raises(UsageError, match="loss"):
        Bounds(loss=math.nan)


# ---------------------------------------------------------------------------------------------------- uniform, swaps


def test_a_uniform_policy_keeps_the_option_nearest_to_its_ratio() -> None:
    problem = random_problem(2)
    policy = uniform(problem, 0.6)
    assert policy.kept == {"b.0.pw": 16, "b.1.pw": 16}
    assert set(policy.bits.values()) == {8}
    assert uniform(problem, 1, bits=32).predicted.loss == pytest.approx(problem.size_loss[32])
    assert uniform(replace(problem, fixed=("b.0.pw",)), 0.5).kept == {"b.0.pw": 32, "b.1.pw": 16}
    assert uniform(replace(problem, allowed_bits={"stem": (32,)}), 1).bits["stem"] == 32
    with pytest.raises(UsageError, match="keep ratio"):
        uniform(problem, 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_best_uniform_policy_is_never_better_than_the_solvers(seed: int) -> None:
    problem = bounded(random_problem(seed), list(everything(random_problem(seed))), seed)
    try:
        policy = uniform(problem)
    except UsageError:
        return
    assert problem.bounds.kept_by(policy.predicted)
    assert solve(problem, gap=0).predicted.loss <= policy.predicted.loss + 1e-6


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_local_swaps_keep_the_bounds_and_never_make_it_worse(seed: int) -> None:
    problem = random_problem(seed)
    fastest = solve(problem, minimise="latency_ms").predicted
    slowest = uniform(problem, 1, bits=32).predicted
    problem = replace(problem, bounds=Bounds(latency_ms=(fastest.latency_ms + slowest.latency_ms) / 2))
    truth = random.Random(seed)
    noise: dict[str, float] = {}
    asked: list[Policy] = []

    def evaluate(policy: Policy) -> float:
        asked.append(policy)
        return noise.setdefault(policy.to_json(), truth.random())

    start = solve(problem)
    better = local_swaps(problem, start, evaluate, evaluations=12)
    assert len(asked) <= 12
    assert asked[0] == start
    assert all(problem.bounds.kept_by(policy.predicted) for policy in asked)
    assert noise[better.to_json()] == min(noise.values())
    assert len({policy.to_json() for policy in asked}) == len(asked)


def test_local_swaps_undo_two_decisions_that_are_bad_together() -> None:
    """Each layer alone takes 8 bits well, both together do not; the sum of sensitivities cannot know."""
    network = small_network()
    quant = {"b.0.pw": {8: 0.1}, "b.0.pwl": {8: 0.1}, "b.1.pwl": {8: 0.15}}
    cells = {key: 1.0 if key[2] == "int8" else 2.0 for key in table_for(network, random.Random(0)).cells}
    table = LatencyTable(32, network.layer_groups, cells)
    prune = {"b.0.pw": {16: 9.0}, "b.1.pw": {0: 9.0, 16: 9.0}}
    problem = Problem(network, prune, quant, [table], Bounds(latency_ms=8.0))
    start = solve(problem)
    assert {name for name, bits in start.bits.items() if bits == 8} == {"b.0.pw", "b.0.pwl"}

    def evaluate(policy: Policy) -> float:
        together = policy.bits["b.0.pw"] == policy.bits["b.0.pwl"] == 8
        return policy.predicted.loss + (1.0 if together else 0.0)

    better = local_swaps(problem, start, evaluate)
    assert {name for name, bits in better.bits.items() if bits == 8} in (
        {"b.0.pw", "b.1.pwl"},
        {"b.0.pwl", "b.1.pwl"},
    )
    assert better.predicted.latency_ms <= 8.0
    assert better.status == "local swaps"
    assert local_swaps(problem, start, evaluate, least_gain=2.0) == start


# ---------------------------------------------------------------------------------------------------- JSON


def test_a_policy_is_the_same_after_json() -> None:
    problem = replace(random_problem(8), bounds=Bounds(bytes=1500))
    policy = solve(problem, minimise="latency_ms")
    again = Policy.from_json(policy.to_json())
    assert again == policy
    assert again.to_json() == policy.to_json()
    assert json.loads(policy.to_json())["schema"] == "tellframe.policy/1"


def test_a_policy_says_which_blocks_it_drops() -> None:
    problem = random_problem(9)
    policy = decided(problem, 32, {"b.0.pw": 16, "b.1.pw": 0}, dict.fromkeys(["stem", "b.0.pw", "b.0.pwl"], 8), "x")
    assert policy.removed_blocks == ("b.1",)
    assert policy.ratios == {"b.0.pw": 0.5, "b.1.pw": 0.0}
    assert Policy.from_json(policy.to_json()).removed_blocks == ("b.1",)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "tellframe.policy/9", "schema 'tellframe.policy/9' is unknown"),
        (("extra",), 1, "has unknown ['extra']"),
        (("bits",), None, "lacks"),
        (("bits", "stem"), 5, "got 5 for stem"),
        (("groups", "b.0.pw", "kept"), 64, "cannot keep 64"),
        (("groups", "b.0.pw", "ratio"), 0.9, "keeps"),
        (("groups", "b.0.pw", "mask"), [], "has unknown ['mask']"),
        (("removed_blocks",), ["b.0"], "removed_blocks are"),
        (("predicted", "joules"), 1, "has unknown ['joules']"),
        (("bounds", "latency_ms"), -1, "latency_ms"),
        (("predicted", "loss"), math.nan, "is finite"),
        (("input_size",), "224", "px above 0"),
        (("groups",), [], "policy:"),
    ],
)
def test_a_damaged_policy_is_refused(path: tuple[str, ...], value: object, message: str) -> None:
    problem = random_problem(10)
    data = json.loads(uniform(problem, 1).to_json())
    at = data
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    with pytest.raises(ModelError, match=re.escape(message)):
        Policy.from_json(json.dumps(data))


def test_what_is_not_json_is_refused() -> None:
    for kind in (Policy, Network):
        with pytest.raises(ModelError, match="not JSON"):
            kind.from_json("{")
        with pytest.raises(ModelError, match="schema 'list'"):
            kind.from_json("[]")


def test_a_network_is_the_same_after_json() -> None:
    network = small_network(joined=True)
    assert Network.from_json(network.to_json()) == network
    data = json.loads(network.to_json())
    data["layers"][0]["colour"] = "red"
    with pytest.raises(ModelError, match="colour"):
        Network.from_json(json.dumps(data))


def test_a_network_that_contradicts_itself_is_refused() -> None:
    network = small_network()
    with pytest.raises(ValueError, match="twice"):
        replace(network, layers=(*network.layers, network.layers[0]))
    with pytest.raises(ValueError, match="which is not in the network"):
        replace(network, layers=network.layers[:-1])
    with pytest.raises(ValueError, match="its layers are"):
        replace(network, groups=(network.groups[0], replace(network.groups[1], layers=("b.1.pw",))))
    with pytest.raises(ValueError, match="options"):
        Group("g", 32, (16,), ())
