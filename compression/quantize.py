"""Plain post-training quantisation: a float core -> an int8 model, uint8 activations and int8 weights (U8S8, QDQ)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data
from onnxruntime.quantization.shape_inference import quant_pre_process

from compression.calibrate import Ranges
from compression.export import finish
from detector.scorer import DISABLED_OPTIMIZERS
from detector.types import Float32Array, ModelError

WEIGHT_LIMIT = 64
"""x86 without VNNI adds pairs of products in 16 bits, saturating at 32767: 2 * 255 * 64 = 32640 fits, 65 does not."""

_QUANTISED_OPS = ["Conv", "Clip", "Add"]
"""Pooling and classifier stay in float: they cost next to nothing, and 8 bits of a pooled feature, which uses a small
part of the range that it is pooled from, are worth 0.09 of logit error."""


def quantise(core: ModelProto, ranges: Ranges) -> ModelProto:
    """A finished int8 model (crops in, p_fake out) from a float ``core`` and the ``ranges`` of its activations.

    Weights are int8, symmetric, per output channel, within +-WEIGHT_LIMIT; activations uint8, asymmetric, per tensor;
    sums and biases int32.

    Args:
        core: batch norm folded; see :func:`compression.export.export_core`. It is not changed.
        ranges: of every activation, from :func:`compression.calibrate.activation_ranges` or learned.

    Raises:
        ModelError: ``ranges`` lacks an activation, or ONNX Runtime cannot quantise the core.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        source, target, cache = (Path(folder) / name for name in ("core.onnx", "int8.onnx", "ranges.json"))
        onnx.save(core, source)  # by file: given a model, the pre-processing would change it
        quant_pre_process(source, source, skip_symbolic_shape=True)
        save_tensors_data(_tensors_data(ranges), cache)
        try:
            quantize_static(
                source,
                target,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTISED_OPS,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=cache,
            )
        except (ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"the core cannot be quantised: {str(error).splitlines()[0]}") from error
        return finish(onnx.load(target))


def correct_biases(core: ModelProto, means: Mapping[str, Float32Array]) -> ModelProto:
    """``core`` with biases that make up for what rounding its weights will do to the mean of every output channel.

    Rounding errors of a channel's few weights do not cancel (a depthwise filter has nine or 25), so its output shifts
    by error x mean input, on every picture alike; the bias takes that shift back. Section 4.2 of Nagel et al.,
    "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, with means from calibration.

    Args:
        core: as for :func:`quantise`. It is not changed.
        means: float32 (c,) of every activation, from :func:`compression.calibrate.channel_means`.
    """
    corrected = ModelProto()
    corrected.CopyFrom(core)
    tensors = {t.name: t for t in corrected.graph.initializer}
    for node in corrected.graph.node:
        if node.op_type != "Conv":
            continue
        weight = numpy_helper.to_array(tensors[node.input[1]])  # (out, in / groups, k, k)
        lost = (weight - _rounded(weight)).sum(axis=(2, 3))  # (out, in / groups)
        mean = means[node.input[0]]  # (in,)
        shift = lost[:, 0] * mean if weight.shape[1] == 1 else lost @ mean  # (out,)
        bias = tensors[node.input[2]]
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + shift.astype(np.float32), bias.name))
    return corrected


def _rounded(weight: Float32Array) -> Float32Array:
    """What :func:`quantise` makes of a convolution's weights, float32 (out, in, k, k)."""
    step = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / WEIGHT_LIMIT
    step[step == 0] = 1  # a dead channel
    return np.asarray(np.round(weight / step) * step, np.float32)


def float_convolutions(model: ModelProto) -> list[str]:
    """Names of the convolutions that ONNX Runtime still runs in float, after its optimisation, in ``model``."""
    fused = optimised(model, layouts=False)  # a change of layout fuses no more, and loses the names
    return [node.name for node in fused.graph.node if node.op_type in ("Conv", "FusedConv")]


def optimised(model: ModelProto, *, layouts: bool = True) -> ModelProto:
    """``model`` as ONNX Runtime runs it on this machine's CPU, with or without its changes of memory layout."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if not layouts:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(
            model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
        )
        return onnx.load(path)


def largest_weight(model: ModelProto) -> int:
    """The largest absolute int8 weight of ``model``; 0 when it has none."""
    weights = [t for t in model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    return max((int(np.abs(numpy_helper.to_array(t).astype(np.int16)).max()) for t in weights), default=0)


def _tensors_data(ranges: Ranges) -> TensorsData:
    """``ranges`` as ONNX Runtime's quantiser reads them."""
    pairs = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, pairs)


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """ONNX Runtime's quantiser warns through the root logger, about things decided here."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
