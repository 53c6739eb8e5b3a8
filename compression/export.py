"""Torch -> ONNX, verified against torch.

A model goes through three forms, each an ``onnx.ModelProto`` of its own:

*core*: float32 "x" (n, 3, S, S), normalised -> float32 "logits" (n, 1). What the exporter gives and what is quantised.
*finished*: uint8 RGB "crops" (n, S, S, 3) -> "p_fake" and "logit", float32 (n,). What is shipped and scored.
*halved*: a finished model whose float weights are stored as fp16 and cast to fp32 when it is loaded.

Normalisation is one ``DequantizeLinear`` with zero point 127 and scale 1/128: exactly (pixel - 127) / 128, in one pass
over the pixels; and in an int8 graph it costs nothing, because the pixels *are* the quantised input of the first
convolution. (Folding it into that convolution's weights would be wrong at the zero-padded borders.)
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.scorer import DISABLED_OPTIMIZERS
from detector.training.backbone import PIXEL_MEAN, PIXEL_SCALE, PixelsToProbability
from detector.types import Float32Array, ModelError, UInt8Array

OPSET = 17
CORE_INPUT, CORE_OUTPUT = "x", "logits"
CROPS, P_FAKE, LOGIT = "crops", "p_fake", "logit"
P_TOLERANCE = 1e-4
_LOGIT_SCALE = "logit_scale"


# --------------------------------------------------------------------------------------------------- forms


def export_core(backbone: nn.Module, size: int, *, fold: bool) -> ModelProto:
    """The core of ``backbone`` for inputs of ``size`` px, any number at once.

    Args:
        backbone: float32 (n, 3, size, size) -> (n, 1); it is not changed.
        size: the side of the input in px.
        fold: batch norm folded into the convolutions before it (what quantisation wants), or left as nodes of its own
            (ONNX Runtime folds them when it loads the model; the weights stay those of the checkpoint, exactly).
    """
    backbone = copy.deepcopy(backbone).cpu().float().eval()
    if fold:
        _fold_batch_norms(backbone)
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return trace_core(backbone, torch.zeros(2, 3, size, size))


def finish(core: ModelProto) -> ModelProto:
    """``core``, float or quantised, with pixels going in and probabilities coming out."""
    model = ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    size = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    quantise = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == CORE_INPUT]
    if quantise:
        _enter_quantised(model, quantise[0])
    else:
        _enter_float(model)
    squeeze = helper.make_node("Squeeze", [CORE_OUTPUT, "logit_axis"], [LOGIT], name="/squeeze")
    sigmoid = helper.make_node("Sigmoid", [LOGIT], [P_FAKE], name="/sigmoid")
    graph.node.extend([squeeze, sigmoid])
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "logit_axis"))
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info(CROPS, TensorProto.UINT8, ["n", size, size, 3]))
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in (P_FAKE, LOGIT))
    onnx.checker.check_model(model, full_check=True)
    return model


def halve(model: ModelProto) -> ModelProto:
    """``model`` with its float32 weights stored as fp16, each behind a Cast that is folded away at load.

    Lossless when the weights came from fp16 and nothing was folded into them. Tensors below 16 values stay as they are.

    Raises:
        ModelError: a weight is too large for fp16.
    """
    halved = ModelProto()
    halved.CopyFrom(model)
    casts: list[NodeProto] = []
    for tensor in halved.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < 16:
            continue
        name = tensor.name
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(values).all():
            raise ModelError(f"{name} holds values too large for fp16 (65504); store this model as fp32")
        tensor.CopyFrom(numpy_helper.from_array(values, name + "_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], name=f"/cast/{name}", to=TensorProto.FLOAT))
    prepend(halved, casts)
    onnx.checker.check_model(halved, full_check=True)
    return halved


def scale_logit(model: ModelProto, factor: float) -> ModelProto:
    """A finished ``model`` whose logit is multiplied by ``factor``: 1 / temperature. Scaling again adds no node.

    Raises:
        ValueError: ``factor`` is not above 0.
        ModelError: the model is not a finished one.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"factor must be above 0, got {factor}")
    scaled = ModelProto()
    scaled.CopyFrom(model)
    graph = scaled.graph
    for tensor in graph.initializer:
        if tensor.name == _LOGIT_SCALE:
            value = np.asarray(numpy_helper.to_array(tensor) * factor, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, _LOGIT_SCALE))
            return scaled
    at = next((i for i, node in enumerate(graph.node) if LOGIT in node.output), None)
    if at is None:
        raise ModelError(f"the model has no {LOGIT!r}; calibrate models that tellframe exported")
    graph.node[at].output[0] = "unscaled_logit"
    graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), _LOGIT_SCALE))
    graph.node.insert(at + 1, helper.make_node("Mul", ["unscaled_logit", _LOGIT_SCALE], [LOGIT], name="/calibrate"))
    onnx.checker.check_model(scaled, full_check=True)
    return scaled


def save(model: ModelProto, path: Path) -> None:
    """Writes ``model`` to ``path`` whole or not at all; the folder is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(model.SerializeToString(deterministic=True))
            file.close()
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def trace_core(network: nn.Module, example: torch.Tensor) -> ModelProto:
    """The core of ``network``, in eval mode and not changed, for inputs like ``example`` (n, c, h, w)."""
    return _tidy(_trace(network, example))


def _trace(backbone: nn.Module, example: torch.Tensor) -> ModelProto:
    """What torch's exporter makes of ``backbone``.

    The TorchScript exporter, although torch calls it legacy: it keeps average pooling as GlobalAveragePool (which has
    an int8 form; the newer one writes ReduceMean), keeps our names, takes 0.5 s instead of 9, and needs no onnxscript.
    torch is pinned, so it cannot disappear unnoticed.
    """
    buffer = BytesIO()
    with warnings.catch_warnings():
        # Of the exporter itself, and of what it calls inside torch: nothing that this call could do without.
        for message in ("You are using the legacy TorchScript", "The feature will be removed"):
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=message)
        torch.onnx.export(
            backbone,
            (example,),
            cast(str, buffer),  # it takes any binary file; its annotation says paths only
            dynamo=False,
            opset_version=OPSET,
            input_names=[CORE_INPUT],
            output_names=[CORE_OUTPUT],
            dynamic_axes={CORE_INPUT: {0: "n"}, CORE_OUTPUT: {0: "n"}},
            # Keeps batch norm, folded or not, as export_core left it.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def _fold_batch_norms(module: nn.Module) -> None:
    """Folds, in place, every batch norm of ``module`` into the convolution registered before it."""
    convolution: tuple[str, nn.Conv2d] | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            convolution = name, child
        elif isinstance(child, nn.BatchNorm2d) and convolution is not None:
            setattr(module, convolution[0], fuse_conv_bn_eval(convolution[1], child))
            setattr(module, name, nn.Identity())
            convolution = None
        else:
            _fold_batch_norms(child)


def _tidy(model: ModelProto) -> ModelProto:
    """``model`` with its Constant nodes merged into shared initialisers, and its Identity nodes gone."""
    shared: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = node.attribute[0].t
            key = value.SerializeToString(deterministic=True)
            if key not in shared:
                shared[key] = f"constant_{len(shared)}"
                model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), shared[key]))
            renamed[node.output[0]] = shared[key]
            continue
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        if node.op_type == "Identity":
            renamed[node.output[0]] = node.input[0]
            continue
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def _enter_float(model: ModelProto) -> None:
    """Puts crops -> planes -> normalised before a float core."""
    transpose = helper.make_node("Transpose", [CROPS], ["planes"], name="/planes", perm=[0, 3, 1, 2])
    inputs = ["planes", "pixel_scale", "pixel_zero"]
    normalise = helper.make_node("DequantizeLinear", inputs, [CORE_INPUT], name="/normalise")
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(1 / PIXEL_SCALE, np.float32), "pixel_scale"),
            numpy_helper.from_array(np.array(PIXEL_MEAN, np.uint8), "pixel_zero"),
        ]
    )
    prepend(model, [transpose, normalise])


def _enter_quantised(model: ModelProto, quantise: NodeProto) -> None:
    """Puts crops -> planes in the place of the node that quantised the normalised input.

    Raises:
        ModelError: that node does not use the scale and zero point of the pixels.
    """
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    scale, zero = float(values[quantise.input[1]]), int(values[quantise.input[2]])
    if scale != 1 / PIXEL_SCALE or zero != int(PIXEL_MEAN):
        raise ModelError(f"the input is quantised with scale {scale} and zero point {zero}, not as pixels are")
    model.graph.node.remove(quantise)
    transpose = helper.make_node("Transpose", [CROPS], [quantise.output[0]], name="/planes", perm=[0, 3, 1, 2])
    prepend(model, [transpose])


def prepend(model: ModelProto, nodes: list[NodeProto]) -> None:
    """Puts ``nodes`` before all others."""
    everything = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(everything)


# --------------------------------------------------------------------------------------------------- verification


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart over ``crops`` crops: the largest absolute differences."""

    p_fake: float
    logit: float
    crops: int


def probe_crops(size: int, seed: int = 0) -> UInt8Array:
    """Crops to compare models on, uint8 RGB (12, size, size, 3): noise at several scales, ramps, edges, extremes."""
    rng = np.random.default_rng(seed)
    crops: list[UInt8Array] = []
    for cells in (2, 4, 16, 64):  # from smooth light to grain
        coarse = rng.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        at = np.linspace(0, cells - 1, size)
        lower, weight = (
            np.minimum(at.astype(int), cells - 2),
            np.float32(1) * (at - np.minimum(at.astype(int), cells - 2)),
        )
        rows = coarse[lower] * (1 - weight)[:, None, None] + coarse[lower + 1] * weight[:, None, None]
        both = rows[:, lower] * (1 - weight)[None, :, None] + rows[:, lower + 1] * weight[None, :, None]
        crops += [both.astype(np.uint8), (both * 0.5 + rng.integers(0, 128, both.shape)).astype(np.uint8)]
    ramp = np.broadcast_to(np.linspace(0, 255, size)[:, None, None], (size, size, 3)).astype(np.uint8)
    board = np.broadcast_to((np.indices((size, size)).sum(0) // 8 % 2 * 255)[..., None], (size, size, 3)).astype(
        np.uint8
    )
    return np.stack([*crops, ramp, board, np.zeros_like(ramp), np.full_like(ramp, 255)])


def verify(backbone: nn.Module, model: ModelProto, size: int, tolerance: float = P_TOLERANCE) -> Difference:
    """Compares a finished ``model``, as ONNX Runtime optimises it, with ``backbone`` in torch, on :func:`probe_crops`.

    Raises:
        ModelError: a probability differs by more than ``tolerance``, or either model gives values that are not finite.
    """
    crops = probe_crops(size)
    with torch.inference_mode():
        reference = PixelsToProbability(backbone).eval()
        logit = reference.logit(torch.from_numpy(crops)).numpy()
    difference = compare(logit, run_logits(model, crops))
    if not difference.p_fake <= tolerance:  # also when it is NaN
        raise ModelError(
            f"the exported model differs from torch by {difference.p_fake:.2g} in p(fake), more than {tolerance:.2g}; "
            "store it as fp32, or check that the backbone is in eval mode"
        )
    return difference


def compare(expected: Float32Array, got: Float32Array) -> Difference:
    """The largest differences between two arrays of logits, float (n,)."""
    p_fake = np.abs(_sigmoid(expected) - _sigmoid(got)).max()
    return Difference(float(p_fake), float(np.abs(expected - got).max()), len(expected))


def cpu_session(model: ModelProto, *, optimise: bool = True) -> Any:
    """An onnxruntime.InferenceSession of ``model`` on the CPU, as the scorer makes it, or without any optimisation."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
    )


def run_logits(model: ModelProto, crops: UInt8Array, batch: int = 8) -> Float32Array:
    """The logits, float32 (n,), that a finished ``model`` gives uint8 RGB ``crops`` (n, S, S, 3)."""
    session = cpu_session(model)
    parts = [session.run([LOGIT], {CROPS: crops[i : i + batch]})[0] for i in range(0, len(crops), batch)]
    return np.concatenate(parts)


def _sigmoid(logit: Float32Array) -> Float32Array:
    return (1.0 / (1.0 + np.exp(-logit.astype(np.float64)))).astype(np.float32)
