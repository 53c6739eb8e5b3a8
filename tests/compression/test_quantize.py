from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper

from compression.calibrate import PIXEL_RANGE, activation_ranges, channel_means
from compression.export import CORE_INPUT, export_core, finish, run_logits
from compression.quantize import WEIGHT_LIMIT, correct_biases, float_convolutions, largest_weight, optimised, quantise
from detector.training.backbone import imagenet_backbone, normalise
from detector.types import ModelError, UInt8Array

SIZE = 96


def pictures(count: int, seed: int) -> UInt8Array:
    """Pictures with light, shapes and grain, uint8 RGB (count, SIZE, SIZE, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIZE, SIZE)) / SIZE
    result = []
    for _ in range(count):
        picture = np.zeros((SIZE, SIZE, 3))
        for _ in range(6):
            colour = rng.uniform(-120, 120, 3)
            cx, cy, rx, ry = rng.uniform(0, 1, 4) * (1, 1, 0.4, 0.4) + (0, 0, 0.05, 0.05)
            picture += np.exp(-((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) ** 2))[..., None] * colour
        picture += rng.uniform(60, 190) + rng.normal(0, rng.uniform(1, 8), picture.shape)
        result.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(result)


@pytest.fixture(scope="module")
def core() -> ModelProto:
    """ImageNet features under a classifier that looks at all of them."""
    torch.manual_seed(0)
    return export_core(imagenet_backbone(), SIZE, fold=True)


@pytest.fixture(scope="module")
def int8(core: ModelProto) -> ModelProto:
    return quantise(core, activation_ranges(core, [pictures(8, seed=1), pictures(8, seed=2)], "mse"))


def test_the_int8_logit_follows_the_float_one(core: ModelProto, int8: ModelProto) -> None:
    """On pictures it was not calibrated on; the error is rounding, so it is bounded by a share of the signal."""
    crops = pictures(32, seed=3)
    expected, got = run_logits(finish(core), crops), run_logits(int8, crops)
    error = got - expected
    assert np.sqrt((error**2).mean()) < 0.5 * expected.std()
    assert np.corrcoef(expected, got)[0, 1] > 0.9


def test_corrected_biases_lessen_the_error(core: ModelProto, int8: ModelProto) -> None:
    calibration, crops = pictures(16, seed=1), pictures(32, seed=3)
    corrected = correct_biases(core, channel_means(core, [calibration[:5], calibration[5:]]))
    better = quantise(corrected, activation_ranges(core, [calibration], "mse"))
    expected = run_logits(finish(core), crops)
    before, after = (np.square(run_logits(model, crops) - expected).mean() for model in (int8, better))
    assert after < before


def test_channel_means_are_those_of_torch() -> None:
    backbone, crops = imagenet_backbone().eval(), pictures(3, seed=7)
    means = channel_means(export_core(backbone, SIZE, fold=True), [crops[:1], crops[1:]])
    planes = normalise(torch.from_numpy(crops))
    np.testing.assert_allclose(means[CORE_INPUT], planes.mean(dim=(0, 2, 3)), atol=1e-5)
    with torch.inference_mode():
        stem = backbone.act1(backbone.bn1(backbone.conv_stem(planes)))
    np.testing.assert_allclose(means["/act1/Clip_output_0"], stem.mean(dim=(0, 2, 3)), atol=1e-4)


def test_no_convolution_stays_in_float(int8: ModelProto) -> None:
    assert float_convolutions(int8) == []
    counts = Counter(n.op_type for n in optimised(int8).graph.node)
    assert counts["QLinearConv"] == 49
    assert counts["QLinearAdd"] == 9


def test_pixels_enter_the_first_convolution_as_they_are(int8: ModelProto) -> None:
    """No node between the crops and the first integer convolution: no float, no rounding."""
    stem = next(n for n in optimised(int8).graph.node if n.op_type == "QLinearConv")
    assert stem.input[0] == "crops"
    assert "QuantizeLinear" not in {n.op_type for n in optimised(int8).graph.node}


def test_float_convolutions_are_found_where_there_are_some(core: ModelProto) -> None:
    names = float_convolutions(finish(core))
    assert len(names) == 49
    assert any("conv_stem" in name for name in names)


def test_weights_cannot_saturate_16_bit_sums(core: ModelProto, int8: ModelProto) -> None:
    assert 0 < largest_weight(int8) <= WEIGHT_LIMIT
    assert largest_weight(core) == 0
    assert 2 * 255 * WEIGHT_LIMIT <= np.iinfo(np.int16).max < 2 * 255 * (WEIGHT_LIMIT + 1)


def test_optimised_and_unoptimised_integer_graphs_agree(int8: ModelProto) -> None:
    """The integer kernels against the plain float meaning of the same graph, on extreme pixels too."""
    import onnxruntime as ort

    crops = np.concatenate([pictures(6, seed=4), np.zeros((1, SIZE, SIZE, 3), np.uint8)])
    crops = np.concatenate([crops, np.full((1, SIZE, SIZE, 3), 255, np.uint8)])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(int8.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(run_logits(int8, crops), plain.run(["logit"], {"crops": crops})[0], atol=0.1)


@pytest.mark.parametrize("method", ["minmax", "average", "mse"])
def test_ranges_hold_zero_and_lie_within_the_extremes(core: ModelProto, method: str) -> None:
    crops = pictures(3, seed=5)
    widest = activation_ranges(core, [crops], "minmax")
    ranges = activation_ranges(core, [crops[:2], crops[2:]], method)  # type: ignore[arg-type]
    assert ranges.keys() == widest.keys() == {CORE_INPUT, *(n.output[0] for n in core.graph.node)}
    assert ranges[CORE_INPUT] == PIXEL_RANGE
    for name, (low, high) in ranges.items():
        assert widest[name][0] - 1e-6 <= low <= 0 <= high <= widest[name][1] + 1e-6, name


def test_calibration_needs_a_crop(core: ModelProto) -> None:
    with pytest.raises(ValueError, match="at least one crop"):
        activation_ranges(core, [np.zeros((0, SIZE, SIZE, 3), np.uint8)], "minmax")


def test_a_missing_range_is_refused(core: ModelProto) -> None:
    with pytest.raises(ModelError, match="the core cannot be quantised"):
        quantise(core, {CORE_INPUT: PIXEL_RANGE})


def test_pixels_quantised_in_another_way_are_refused(core: ModelProto) -> None:
    ranges = activation_ranges(core, [pictures(1, seed=6)], "minmax")
    with pytest.raises(ModelError, match="not as pixels are"):
        quantise(core, ranges | {CORE_INPUT: (-2.0, 2.0)})


def test_quantising_leaves_the_core_as_it_was(core: ModelProto, int8: ModelProto) -> None:
    weight = next(t for t in core.graph.initializer if t.name == "conv_stem.weight")
    assert numpy_helper.to_array(weight).dtype == np.float32
