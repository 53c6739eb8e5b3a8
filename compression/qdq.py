"""A network that was trained with fake quantisation -> its int8 ONNX form, carrying the learned grids exactly.

Every fake quantiser becomes a QuantizeLinear/DequantizeLinear pair with its own step and zero point; weights become the
integers that training ended on. Nothing is calibrated or rounded a second time, so torch and ONNX compute the same
(:mod:`compression.proof` measures it).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.fx import GraphModule

from compression.export import prepend, trace_core
from compression.fakequant import BIAS_LIMIT, LEVELS, TOP, Activation, FoldedConv2d, rounded
from detector.types import Float32Array, IntArray, UInt8Array


def quantised_core(model: GraphModule, size: int, channels: int = 3) -> ModelProto:
    """The core (float "x" -> "logits", see :mod:`compression.export`) of a network with fake quantisation.

    Its Conv nodes are called after their layers. Weights of 6 and 4 bits are int8 here; see :func:`pack`.

    Args:
        model: from :func:`compression.fakequant.with_fake_quantisation`, trained or not. It is not changed.
        size: side of the input, px.
        channels: of the input.
    """
    frozen = copy.deepcopy(model).cpu().float().eval()
    for name, module in list(frozen.named_modules()):
        if isinstance(module, FoldedConv2d | Activation):
            parent, _, own = name.rpartition(".")
            new: nn.Module = _FrozenConv(module) if isinstance(module, FoldedConv2d) else _FrozenActivation(module)
            setattr(frozen.get_submodule(parent), own, new)
    frozen.recompile()
    core = trace_core(frozen, torch.zeros(2, channels, size, size))
    _integer_weights(core)
    _integer_biases(core)
    _name_convolutions(core)
    onnx.checker.check_model(core, full_check=True)
    return core


class _FrozenConv(nn.Module):
    """A folded convolution whose weight stands on its grid already."""

    step: Tensor | None

    def __init__(self, layer: FoldedConv2d) -> None:
        super().__init__()
        self._stride, self._padding = layer.stride, cast(tuple[int, int], layer.padding)
        self._dilation, self._groups, self._bits = layer.dilation, layer.groups, layer.bits
        with torch.no_grad():
            self.register_buffer("weight", layer.rounded_weight().clone())
            self.register_buffer("bias", layer.rounded_bias().clone())
            self.register_buffer("step", None if layer.log2_step is None else layer.log2_step.exp2())

    def forward(self, x: Tensor) -> Tensor:
        weight = cast(Tensor, self.weight)
        if self.step is not None:
            weight = rounded(weight, self.step, 0, -LEVELS[self._bits], LEVELS[self._bits])
        bias = cast(Tensor, self.bias)
        return torch.conv2d(x, weight, bias, self._stride, self._padding, self._dilation, self._groups)


class _FrozenActivation(nn.Module):
    """A fake quantiser of an activation with its step as a plain number."""

    def __init__(self, layer: Activation) -> None:
        super().__init__()
        self._zero = layer.zero
        self.register_buffer("step", layer.step.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return rounded(x, cast(Tensor, self.step), self._zero, 0, TOP)


# --------------------------------------------------------------------------------------------------- integers


def _tensors(model: ModelProto) -> dict[str, TensorProto]:
    return {t.name: t for t in model.graph.initializer}


def _integer_weights(model: ModelProto) -> None:
    """Weights that the graph quantises become integers, in place."""
    tensors = _tensors(model)
    for node in [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in tensors]:
        weight = numpy_helper.to_array(tensors[node.input[0]])  # (out, in / groups, kh, kw)
        step = numpy_helper.to_array(tensors[node.input[1]])  # (out,)
        integers = np.rint(weight / step.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        tensors[node.input[0]].CopyFrom(numpy_helper.from_array(integers, node.input[0]))
        reader = next(n for n in model.graph.node if node.output[0] in n.input)
        reader.input[0] = node.input[0]
        model.graph.node.remove(node)


def _integer_biases(model: ModelProto) -> None:
    """Biases of int8 convolutions become int32 in units of input step x weight step, as kernels add them, in place."""
    tensors, made_by = _tensors(model), {n.output[0]: n for n in model.graph.node}
    for node in [n for n in model.graph.node if n.op_type == "Conv"]:
        sources = [made_by.get(name) for name in node.input[:2]]
        if not all(s is not None and s.op_type == "DequantizeLinear" for s in sources):
            continue
        step = numpy_helper.to_array(tensors[cast(NodeProto, sources[0]).input[1]])  # ()
        bias = tensors[node.input[2]]
        name, values = bias.name, numpy_helper.to_array(bias)  # (out,)
        unit = step * _room_for(values / step, cast(NodeProto, sources[1]), tensors)  # (out,)
        integers = np.rint(values / unit.astype(np.float64))
        bias.CopyFrom(numpy_helper.from_array(integers.astype(np.int32), name))
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(unit, f"{name}_step"),
                numpy_helper.from_array(np.zeros(len(unit), np.int32), f"{name}_zero"),
            ]
        )
        inputs = [name, f"{name}_step", f"{name}_zero"]
        dequantise = helper.make_node("DequantizeLinear", inputs, [f"{name}_float"], name=f"/dequantise/{name}", axis=0)
        node.input[2] = f"{name}_float"
        model.graph.node.insert(list(model.graph.node).index(node), dequantise)


def _room_for(bias: Float32Array, dequantise: NodeProto, tensors: Mapping[str, TensorProto]) -> Float32Array:
    """Weight steps, float32 (out,), under which ``bias``, in units of the input's step, fits its integers.

    A channel that is as good as dead has a tiny step and an ordinary bias: its step grows, and its weights, which mean
    nothing beside the bias, are rounded to the new one.
    """
    weight, step = tensors[dequantise.input[0]], tensors[dequantise.input[1]]
    steps = numpy_helper.to_array(step)
    growth = np.maximum(np.abs(bias) / (BIAS_LIMIT * steps.astype(np.float64)), 1)
    integers = numpy_helper.to_array(weight)
    shrunk = np.rint(integers / growth.reshape(-1, *[1] * (integers.ndim - 1)))
    weight.CopyFrom(numpy_helper.from_array(shrunk.astype(np.int8), weight.name))
    grown = np.asarray(steps * growth, np.float32)
    step.CopyFrom(numpy_helper.from_array(grown, step.name))
    return grown


def _name_convolutions(model: ModelProto) -> None:
    """Every Conv node gets the name of its layer: that of its weight, in place."""
    made_by = {n.output[0]: n for n in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "Conv":
            source = made_by.get(node.input[1])
            node.name = (source.input[0] if source is not None else node.input[1]).removesuffix(".weight")


# --------------------------------------------------------------------------------------------------- packing


@dataclass(frozen=True, slots=True)
class _Packing:
    """So many bytes hold so many integers of ``bits`` bits."""

    bits: int
    bytes: int
    integers: int


_PACKINGS = {4: _Packing(4, 1, 2), 6: _Packing(6, 3, 4)}


def pack(model: ModelProto, bits: Mapping[str, int]) -> ModelProto:
    """``model`` with weights of 6 and 4 bits stored in as many, behind nodes that ONNX Runtime folds away at load.

    CPUs have no kernel below 8 bits: this buys bytes on disk, nothing else.

    Args:
        model: core or finished. It is not changed.
        bits: by layer name.
    """
    packed = ModelProto()
    packed.CopyFrom(model)
    tensors, unpacking = _tensors(packed), list[NodeProto]()
    for layer, width in bits.items():
        tensor = tensors.get(f"{layer}.weight")
        if width not in _PACKINGS or tensor is None or tensor.data_type != TensorProto.INT8:
            continue
        integers = numpy_helper.to_array(tensor)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(_packed(integers.astype(np.int64), _PACKINGS[width]), f"{name}_packed"))
        unpacking += _unpack(packed, name, integers.shape, _PACKINGS[width])
    prepend(packed, unpacking)
    onnx.checker.check_model(packed, full_check=True)
    return packed


def _packed(integers: IntArray, packing: _Packing) -> UInt8Array:
    """Integers -> bytes, uint8 (groups, packing.bytes): little-endian digits of a number, offset to be positive."""
    radix = 1 << packing.bits
    digits = np.zeros(-(-integers.size // packing.integers) * packing.integers, np.int64)
    digits[: integers.size] = integers.ravel() + radix // 2
    numbers = digits.reshape(-1, packing.integers) @ radix ** np.arange(packing.integers)
    return ((numbers[:, None] >> (8 * np.arange(packing.bytes))) & 0xFF).astype(np.uint8)


def _unpack(model: ModelProto, name: str, shape: tuple[int, ...], packing: _Packing) -> list[NodeProto]:
    """Nodes that make the int8 tensor ``name`` of ``name``_packed; their constants go into the model."""
    radix, size = 1 << packing.bits, int(np.prod(shape))
    constants: dict[str, NDArray[Any]] = {
        "places": 256 ** np.arange(packing.bytes, dtype=np.int32),
        "powers": (radix ** np.arange(packing.integers, dtype=np.int32)).astype(np.int32),
        "radix": np.array(radix, np.int32),
        "offset": np.array(radix // 2, np.int32),
        "axis": np.array([1], np.int64),
        "flat": np.array([-1], np.int64),
        "begin": np.array([0], np.int64),
    }
    known = _tensors(model)
    for key, value in constants.items():
        if f"unpack{packing.bits}_{key}" not in known:
            model.graph.initializer.append(numpy_helper.from_array(value, f"unpack{packing.bits}_{key}"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([size], np.int64), f"{name}_size"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))

    def const(key: str) -> str:
        return f"unpack{packing.bits}_{key}"

    steps: list[tuple[str, list[str], str, dict[str, int]]] = [
        ("Cast", [f"{name}_packed"], "bytes", {"to": TensorProto.INT32}),
        ("Mul", ["bytes", const("places")], "placed", {}),
        ("ReduceSum", ["placed", const("axis")], "number", {"keepdims": 1}),
        ("Div", ["number", const("powers")], "shifted", {}),
        ("Mod", ["shifted", const("radix")], "digits", {}),
        ("Sub", ["digits", const("offset")], "signed", {}),
        ("Reshape", ["signed", const("flat")], "row", {}),
        ("Slice", ["row", const("begin"), f"{name}_size"], "cut", {}),
        ("Cast", ["cut"], "small", {"to": TensorProto.INT8}),
        ("Reshape", ["small", f"{name}_shape"], "", {}),
    ]
    outside = {f"{name}_packed", f"{name}_size", f"{name}_shape", *map(const, constants)}

    def wire(tensor: str) -> str:
        return tensor if tensor in outside else f"{name}_{tensor}" if tensor else name

    return [
        helper.make_node(
            op, [wire(i) for i in inputs], [wire(output)], name=f"/unpack/{name}/{i}", **cast(Any, attributes)
        )
        for i, (op, inputs, output, attributes) in enumerate(steps)
    ]


def integers_of(model: ModelProto) -> dict[str, Float32Array]:
    """The integer weights of a core by layer, for a look at how they are spread."""
    return {
        t.name.removesuffix(".weight"): numpy_helper.to_array(t).astype(np.float32)
        for t in model.graph.initializer
        if t.data_type == TensorProto.INT8 and t.name.endswith(".weight")
    }
