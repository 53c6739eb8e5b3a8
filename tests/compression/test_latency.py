from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from onnx import ModelProto

from compression.calibrate import PIXEL_RANGE
from compression.export import CORE_INPUT, export_core, finish
from compression.latency import (
    OTHER,
    Boundary,
    LatencyTable,
    Precision,
    _nearest,
    block_of,
    boundaries,
    measure,
    rescale,
)
from compression.profiler import conv_owners, layer_of, module_path, whole_model_ms
from compression.quantize import quantise
from detector.training.backbone import Architecture, EfficientNetLite, Stage
from detector.types import ModelError

SIZE = 64
STAGES = (Stage(3, 1, 1, 16, 1), Stage(3, 2, 6, 24, 2), Stage(5, 2, 6, 40, 1))
WIDTHS = {"blocks.1.0.conv_pw": 96, "blocks.1.1.conv_pw": 144, "blocks.2.0.conv_pw": 144}
VARIANTS = (WIDTHS, {"blocks.1.0.conv_pw": 48, "blocks.1.1.conv_pw": 64, "blocks.2.0.conv_pw": 64})


def build(counts: Mapping[str, int], precision: Precision) -> ModelProto:
    """A small EfficientNet-Lite with the given expansion widths; its values mean nothing."""
    expanded = {block_of(group): count for group, count in counts.items()}
    stages = STAGES if counts["blocks.1.1.conv_pw"] else (STAGES[0], replace(STAGES[1], repeats=1), STAGES[2])
    torch.manual_seed(0)
    backbone = EfficientNetLite(Architecture(stages=stages, head=256, expanded=expanded)).eval()
    core = export_core(backbone, SIZE, fold=True)
    if precision == "fp32":
        return finish(core)
    made = [name for node in core.graph.node for name in node.output]
    ranges = {name: (0.0, 6.0) if "Clip" in name else (-4.0, 4.0) for name in made}
    return quantise(core, {**ranges, CORE_INPUT: PIXEL_RANGE})


def groups_of_layers() -> dict[str, tuple[str, ...]]:
    names = ["conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw", "conv_head"]
    groups: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for group in WIDTHS:
        groups |= {f"{block_of(group)}.{leaf}": (group,) for leaf in ("conv_pw", "conv_dw", "conv_pwl")}
    return groups


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return measure(build, VARIANTS, groups_of_layers(), runs=45)


def a_table() -> LatencyTable:
    cells: dict[tuple[str, tuple[int, ...], Precision], float] = {
        ("stem", (), "int8"): 0.5,
        ("a.pw", (16,), "int8"): 0.1,
        ("a.pw", (32,), "int8"): 0.3,
        ("a.pw", (64,), "int8"): 0.4,
        ("mix", (16, 16), "int8"): 1.0,
        ("mix", (32, 32), "int8"): 3.0,
    }
    return LatencyTable(
        input_size=64,
        groups={"stem": (), "a.pw": ("a.pw",), "mix": ("a.pw", "mix")},
        cells=cells,
        rest={("a", "int8"): 0.2, (OTHER, "fp32"): 0.7},
        quantise=Boundary(1e-6, 0.01),
        dequantise=Boundary(2e-6),
        device={"cpu": "a test"},
    )


# ---------------------------------------------------------------------------------------------------- measured


def test_every_convolution_has_a_cost_at_each_count(table: LatencyTable) -> None:
    for layer, groups in groups_of_layers().items():
        wanted = sorted({tuple(variant[g] for g in groups) for variant in VARIANTS})
        for precision in ("int8", "fp32"):
            assert table.counts(layer, precision) == wanted
            assert all(table.layer_ms(layer, counts, precision) > 0 for counts in wanted)


def test_a_variant_may_lack_a_block() -> None:
    table = measure(build, [{**WIDTHS, "blocks.1.1.conv_pw": 0}], groups_of_layers(), precisions=("int8",), runs=30)
    gone = {layer for layer in groups_of_layers() if block_of(layer) == "blocks.1.1"}
    assert {layer for layer, _, _ in table.cells} == set(groups_of_layers()) - gone


def test_what_is_no_convolution_has_a_cost_too(table: LatencyTable) -> None:
    assert table.rest_ms("blocks.1.1", "int8") > 0  # its addition
    assert table.rest_ms(OTHER, "int8") > 0
    assert table.rest_ms(OTHER, "fp32") > 0
    assert table.rest_ms("nowhere", "int8") == 0


def test_the_table_says_what_it_was_measured_on(table: LatencyTable) -> None:
    assert table.input_size == SIZE
    assert table.device["threads"] == "1"
    assert table.device["onnxruntime"]
    assert table.device["cpu"]
    assert LatencyTable.from_json(table.to_json()) == table


def test_a_table_that_one_model_corrected_predicts_another() -> None:
    """Loosely: within 40 %, of models that differ by more than that. Others use this machine."""
    table = measure(build, VARIANTS, groups_of_layers(), runs=60)
    models = {"full": build(WIDTHS, "fp32"), "small": build(VARIANTS[1], "int8")}
    times = whole_model_ms(models, runs=90)
    full, small = table_sum(table, WIDTHS, "fp32"), table_sum(table, VARIANTS[1], "int8")
    assert 0.2 < full / times["full"].p50_ms < 5  # ms, not s
    corrected = rescale(table, [full], [times["full"].p50_ms])
    assert small * corrected.correction == pytest.approx(times["small"].p50_ms, rel=0.4)


def table_sum(table: LatencyTable, counts: Mapping[str, int], precision: Precision) -> float:
    cells = [table.layer_ms(n, tuple(counts[g] for g in gs), precision) for n, gs in groups_of_layers().items()]
    return sum(cells) + sum(table.rest_ms(block, kind) for block, kind in table.rest if kind == precision)


def test_a_model_is_as_fast_as_itself_and_slower_than_a_smaller_one() -> None:
    models = {"one": build(WIDTHS, "fp32"), "same": build(WIDTHS, "fp32"), "small": build(VARIANTS[1], "int8")}
    times = whole_model_ms(models, runs=60)
    assert times["one"].ratio == times["one"].ratio_low == times["one"].ratio_high == 1
    assert 0.5 < times["same"].ratio < 2
    assert times["small"].ratio > 1
    for time in times.values():
        assert 0 < time.least_ms <= time.p50_ms <= time.p95_ms
        assert time.ratio_low <= time.ratio <= time.ratio_high
        assert time.runs == 60


def test_conversions_cost_something_that_grows_with_the_tensor() -> None:
    for boundary in boundaries(runs=30):
        assert boundary.ms_per_element > 0
        assert boundary.ms_per_call >= 0
        assert boundary.ms(200_000) > boundary.ms(10_000) > 0


def test_a_convolution_of_no_known_layer_is_an_error() -> None:
    groups = groups_of_layers()
    del groups["conv_head"]
    with pytest.raises(ModelError, match="conv_head"):
        measure(build, VARIANTS[:1], groups, precisions=("fp32",), runs=30)
    with pytest.raises(ModelError, match=r"no node of conv_tail"):
        measure(build, VARIANTS[:1], {**groups_of_layers(), "conv_tail": ()}, precisions=("fp32",), runs=30)


def test_too_little_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="30 runs"):
        measure(build, VARIANTS, groups_of_layers(), runs=3)
    with pytest.raises(ValueError, match=r"none for blocks\.1\.1\.conv_pw"):
        measure(build, [{"blocks.1.0.conv_pw": 96, "blocks.2.0.conv_pw": 144}], groups_of_layers())
    with pytest.raises(ValueError, match="at least one variant"):
        measure(build, (), groups_of_layers())
    with pytest.raises(ValueError, match="at least one model"):
        whole_model_ms({})


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("/blocks/blocks.1/blocks.1.0/conv_pw/Conv_token_9", "blocks.1.0.conv_pw"),
        ("/blocks/blocks.1/blocks.1.0/conv_pw/Conv", "blocks.1.0.conv_pw"),
        ("/conv_stem/Conv_output_0_nchwc", "conv_stem"),
        ("/act1/Clip_output_0_nchwc", "conv_stem"),
        ("/blocks/blocks.1/blocks.1.1/act2/Clip_output_0_nchwc_kernel_time", "blocks.1.1.conv_dw"),
        ("/blocks/blocks.1/blocks.1.1/Add", None),
        ("/pool/GlobalAveragePool", None),
        ("ReorderOutput_token_7", None),
    ],
)
def test_nodes_of_a_profile_know_their_layer(name: str, layer: str | None) -> None:
    assert layer_of(name, conv_owners(build(WIDTHS, "fp32"))) == layer


def test_nodes_that_are_called_by_their_layer_are_known_too() -> None:
    model = build(WIDTHS, "int8")
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.name = module_path(node.name)
    owners = conv_owners(model)
    assert layer_of("blocks.1.0.conv_pw", owners) == "blocks.1.0.conv_pw"
    assert layer_of("blocks.1.0.conv_pw_token_9", owners) == "blocks.1.0.conv_pw"
    assert layer_of("conv_stem_nchwc", owners) == "conv_stem"
    assert set(owners.values()) == set(groups_of_layers())
    again = measure(lambda *_: model, VARIANTS[:1], groups_of_layers(), precisions=("int8",), runs=30)
    assert {layer for layer, _, _ in again.cells} == set(groups_of_layers())


# ---------------------------------------------------------------------------------------------------- the table


def test_counts_between_measured_ones_lie_on_the_line_between_them() -> None:
    table = a_table()
    assert table.layer_ms("a.pw", (32,), "int8") == 0.3
    assert table.layer_ms("a.pw", (24,), "int8") == pytest.approx(0.2)
    assert table.layer_ms("a.pw", (48,), "int8") == pytest.approx(0.35)
    assert table.layer_ms("a.pw", (96,), "int8") == pytest.approx(0.5)
    assert table.layer_ms("a.pw", (8,), "int8") == pytest.approx(0.05)  # the line would say 0
    assert table.layer_ms("stem", (), "int8") == 0.5


def test_a_layer_between_two_groups_takes_the_nearest_measured_counts_and_scales() -> None:
    assert a_table().layer_ms("mix", (32, 32), "int8") == 3.0
    assert a_table().layer_ms("mix", (32, 16), "int8") in (pytest.approx(2.0), pytest.approx(1.5))
    assert _nearest({(16, 16): 1.0, (64, 64): 8.0}, (64, 32)) == pytest.approx(4.0)


def test_a_layer_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(ModelError, match="no fp32 cost of stem"):
        a_table().layer_ms("stem", (), "fp32")
    with pytest.raises(ValueError, match="depends on"):
        a_table().layer_ms("a.pw", (16, 16), "int8")


def test_rescaling_corrects_every_cost_again_and_again() -> None:
    table = a_table()
    once = rescale(table, [2.0], [3.0])
    twice = rescale(once, [1.0, 1.0, 1.0], [2.0, 1.0, 90.0])
    assert once.correction == 1.5
    assert twice.corrections == (1.5, 2.0)
    assert twice.layer_ms("stem", (), "int8") == pytest.approx(1.5)
    assert twice.rest_ms("a", "int8") == pytest.approx(0.6)
    assert twice.boundary_ms(1e6, "int8") == pytest.approx(3 * 1.01)
    assert twice.boundary_ms(1e6, "fp32") == pytest.approx(6.0)
    assert twice.cells == table.cells
    for predicted, measured in (([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])):
        with pytest.raises(ValueError, match=r"as many|above 0"):
            rescale(table, predicted, measured)


def test_a_table_is_the_same_after_json() -> None:
    table = rescale(a_table(), [2.0], [3.0])
    assert LatencyTable.from_json(table.to_json()) == table
    assert json.loads(table.to_json())["schema"] == "tellframe.latency/1"


def test_a_table_for_people_has_a_line_for_every_cost() -> None:
    rows = list(csv.DictReader(rescale(a_table(), [1.0], [2.0]).to_csv().splitlines()))
    assert len(rows) == 8
    assert rows[0] == {
        "input_size": "64", "layer": "stem", "groups": "", "counts": "", "precision": "int8", "ms": "1.000000",
    }  # fmt: skip
    assert rows[-1]["layer"] == "rest of other"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "tellframe.latency/9", "schema 'tellframe.latency/9' is unknown"),
        (("extra",), 1, "unknown ['extra']"),
        (("layers", 0, "mhz"), 1, "unknown ['mhz']"),
        (("layers", 0, "ms"), -1.0, "at least 0 ms"),
        (("layers", 0, "counts"), [3], "does not fit"),
        (("layers", 0, "precision"), "int4", "does not fit"),
        (("rest", 0, "block"), None, "lacks ['block']"),
        (("quantise", "ms"), 1, "unknown ['ms']"),
        (("corrections",), [0.0], "above 0"),
        (("layers",), 3, "latency table"),
    ],
)
def test_a_damaged_table_is_refused(path: tuple[str | int, ...], value: object, message: str) -> None:
    data = json.loads(a_table().to_json())
    at = data
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    with pytest.raises(ModelError, match=re.escape(message)):
        LatencyTable.from_json(json.dumps(data))


def test_a_table_that_makes_no_sense_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="at least 0 ms"):
        replace(a_table(), cells={("stem", (), "int8"): -1.0})
