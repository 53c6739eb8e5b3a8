from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch.fx import GraphModule

from compression.calibrate import PIXEL_RANGE
from compression.export import finish, probe_crops, run_logits
from compression.fakequant import FLOAT, FoldedConv2d, with_fake_quantisation
from compression.proof import prove
from compression.qdq import integers_of, pack, quantised_core
from compression.quantize import WEIGHT_LIMIT, float_convolutions, largest_weight, optimised
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite, normalise
from detector.types import ModelError
from tests.compression.networks import MobileNetV3Small, ResNet18, picture, settle

SIZE = 64


def network(bits: dict[str, int] | None = None) -> GraphModule:
    torch.manual_seed(0)
    model = traced(settle(EfficientNetLite(Architecture(width=0.5, depth=0.6, head=64))), picture(SIZE))
    crops = normalise(torch.from_numpy(probe_crops(SIZE)))
    return with_fake_quantisation(model, bits or {}, [crops], PIXEL_RANGE)


@pytest.fixture(scope="module")
def rounding() -> GraphModule:
    return network()


@pytest.fixture(scope="module")
def int8(rounding: GraphModule) -> ModelProto:
    return finish(quantised_core(rounding, SIZE))


def run_core(core: ModelProto, x: torch.Tensor) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(core.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": x.numpy()})[0]
    return result


def test_onnx_computes_what_torch_computes_on_the_same_grids(rounding: GraphModule, int8: ModelProto) -> None:
    crops = probe_crops(SIZE)
    with torch.no_grad():
        logits = rounding(normalise(torch.from_numpy(crops)))[:, 0].numpy()
    assert np.median(np.abs(run_logits(int8, crops) - logits)) < 0.02 * logits.std()


@pytest.mark.parametrize("make", [lambda: ResNet18(width=8, outputs=3), lambda: MobileNetV3Small(outputs=2)])
def test_other_networks_come_out_as_torch_computes_them(make: object) -> None:
    torch.manual_seed(0)
    x = picture(SIZE, 4)
    rounding = with_fake_quantisation(traced(settle(make()), x), {}, [x])  # type: ignore[operator]
    with torch.no_grad():
        logits = rounding(x).numpy()
    got = run_core(quantised_core(rounding, SIZE), x)
    assert np.median(np.abs(got - logits)) < 0.05 * logits.std() + 1e-4


def test_weights_are_the_integers_that_training_ended_on(rounding: GraphModule, int8: ModelProto) -> None:
    tensors = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    integers = integers_of(int8)
    for name, layer in rounding.named_modules():
        if isinstance(layer, FoldedConv2d):
            assert layer.log2_step is not None
            with torch.no_grad():
                expected = (layer.rounded_weight() / layer.log2_step.exp2().view(-1, 1, 1, 1)).round().numpy()
            np.testing.assert_array_equal(integers[name], expected)
            assert tensors[f"{name}.bias"].dtype == np.int32


def test_every_convolution_runs_on_the_int8_kernel_and_none_can_saturate(int8: ModelProto) -> None:
    assert float_convolutions(int8) == []
    assert 0 < largest_weight(int8) <= WEIGHT_LIMIT
    kinds = {node.op_type for node in optimised(int8).graph.node}
    assert "QLinearConv" in kinds
    assert not kinds & {"Conv", "FusedConv", "Clip", "QuantizeLinear"}


def test_convolutions_are_called_after_their_layers(rounding: GraphModule) -> None:
    core = quantised_core(rounding, SIZE)
    layers = {name for name, module in rounding.named_modules() if isinstance(module, FoldedConv2d)}
    assert {node.name for node in core.graph.node if node.op_type == "Conv"} == layers


def test_a_float_layer_stays_float_and_computes_the_same() -> None:
    mixed = network({"blocks.2.0.conv_dw": FLOAT})
    model = finish(quantised_core(mixed, SIZE))
    crops = probe_crops(SIZE)
    with torch.no_grad():
        logits = mixed(normalise(torch.from_numpy(crops)))[:, 0].numpy()
    assert np.median(np.abs(run_logits(model, crops) - logits)) < 0.02 * logits.std()
    assert float_convolutions(model) == ["blocks.2.0.conv_dw"]


@pytest.mark.parametrize("dead", [0, 3])
def test_a_dead_channel_with_an_ordinary_bias_keeps_its_bias(dead: int) -> None:
    model = network()
    layer = model.get_submodule("blocks.1.0.conv_pw")
    assert isinstance(layer, FoldedConv2d)
    assert layer.log2_step is not None
    with torch.no_grad():
        layer.weight[dead] = 1e-9
        layer.log2_step[dead] = -40.0
        layer.bias[dead] = 3.0  # type: ignore[index]
        crops = probe_crops(SIZE)
        logits = model(normalise(torch.from_numpy(crops)))[:, 0].numpy()
    core = quantised_core(model, SIZE)
    tensors = {t.name: numpy_helper.to_array(t) for t in core.graph.initializer}
    bias = tensors["blocks.1.0.conv_pw.bias"][dead] * tensors["blocks.1.0.conv_pw.bias_step"][dead]
    assert bias == pytest.approx(3.0, rel=1e-6)
    assert np.median(np.abs(run_logits(finish(core), crops) - logits)) < 0.02 * logits.std()


@pytest.mark.parametrize("bits", [4, 6])
def test_packed_weights_take_fewer_bytes_and_compute_exactly_the_same(bits: int) -> None:
    widths = {"conv_head": bits, "blocks.6.0.conv_pwl": bits, "conv_stem": 8}
    whole = finish(quantised_core(network(widths), SIZE))
    packed = pack(whole, widths)
    crops = probe_crops(SIZE)
    np.testing.assert_array_equal(run_logits(packed, crops), run_logits(whole, crops))
    weights = sum(integers_of(whole)[name].size for name in ("conv_head", "blocks.6.0.conv_pwl"))
    saved = len(whole.SerializeToString()) - len(packed.SerializeToString())
    assert saved > weights * (1 - bits / 8) - 6000  # what unpacking itself takes
    assert float_convolutions(packed) == []


@given(st.sampled_from([4, 6]), st.lists(st.integers(-31, 31), min_size=1, max_size=50))
def test_any_weights_come_back_from_packing(bits: int, values: list[int]) -> None:
    limit = 7 if bits == 4 else 31
    weight = np.clip(values, -limit, limit).astype(np.int8).reshape(-1, 1, 1, 1)
    tensor = numpy_helper.from_array(weight, "layer.weight")
    cast = helper.make_node("Cast", ["layer.weight"], ["y"], to=TensorProto.INT32)
    y = helper.make_tensor_value_info("y", TensorProto.INT32, weight.shape)
    graph = helper.make_graph([cast], "weights", [], [y], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(pack(model, {"layer": bits}).SerializeToString())
    np.testing.assert_array_equal(session.run(None, {})[0], weight)


def test_the_proof_holds_for_what_was_exported(rounding: GraphModule, int8: ModelProto) -> None:
    proof = prove(rounding, int8, probe_crops(SIZE, seed=1))
    assert proof.crops == 12
    assert proof.torch_median <= proof.rounding_median
    assert proof.largest_weight == largest_weight(int8)
    assert proof.to_json()["float_convolutions"] == []


def test_the_proof_fails_for_another_network_and_for_weights_that_saturate(int8: ModelProto) -> None:
    other = network()
    with torch.no_grad():
        other.get_submodule("classifier").weight.mul_(3)  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match=r"not the network that was trained: it is .* from torch"):
        prove(other, int8, probe_crops(SIZE, seed=1))
    wide = ModelProto()
    wide.CopyFrom(int8)
    weight = next(t for t in wide.graph.initializer if t.name == "conv_stem.weight")
    integers = numpy_helper.to_array(weight).copy()
    integers.flat[0] = 127
    weight.CopyFrom(numpy_helper.from_array(integers, weight.name))
    with pytest.raises(ModelError, match="weights go up to 127 and could saturate"):
        prove(network(), wide, probe_crops(SIZE))
