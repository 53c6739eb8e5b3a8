"""What shows that an int8 file is the network that was trained: four checks, each a figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch.fx import GraphModule

from compression.export import CORE_INPUT, CORE_OUTPUT, CROPS, LOGIT, cpu_session, probe_crops
from compression.fakequant import FLOAT, FoldedConv2d, without_rounding
from compression.quantize import WEIGHT_LIMIT, float_convolutions, largest_weight
from detector.training.backbone import normalise
from detector.types import Float32Array, ModelError, UInt8Array

_PART = 8


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found; differences are of logits, over all crops.

    Attributes:
        crops: how many were compared.
        torch_median, torch_largest: between torch and ONNX Runtime without optimisation. Both compute on the same grids
            but add in another order: a sum that falls on the border of two steps may go either way, and deep networks
            carry that on. Hence a median and an extreme.
        optimised_median, optimised_largest: between ONNX Runtime with and without optimisation.
        extremes_largest: the same on crops of black, white, stripes and noise, where sums are largest.
        rounding_median: between torch with and without rounding: what int8 itself changes, to compare with.
        largest_weight: largest absolute integer of a weight; up to WEIGHT_LIMIT nothing saturates.
        float_convolutions: layers that ONNX Runtime runs in float although they were to be int8.
    """

    crops: int
    torch_median: float
    torch_largest: float
    optimised_median: float
    optimised_largest: float
    extremes_largest: float
    rounding_median: float
    largest_weight: int
    float_convolutions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded."""
        data = asdict(self) | {"float_convolutions": list(self.float_convolutions)}
        return {key: round(value, 5) if isinstance(value, float) else value for key, value in data.items()}


def prove(network: GraphModule, model: ModelProto, crops: UInt8Array | Float32Array) -> Proof:
    """Compares ``model`` with the ``network`` it was exported from.

    Args:
        network: with fake quantisation.
        model: from :func:`compression.qdq.quantised_core`: finished (crops in), or a core.
        crops: of a finished model uint8 RGB (n, S, S, 3), of a core its float inputs (n, c, S, S); n at least 1.

    Raises:
        ModelError: a weight could saturate, a convolution stayed in float, the median difference from torch is larger
            than what rounding itself changes, or values are not finite.
    """
    in_torch = _torch_logits(network, crops)
    raw, optimised = (_logits(model, crops, optimise=each) for each in (False, True))
    extremes = probe_crops(crops.shape[1]) if crops.dtype == np.uint8 else _extremes(np.asarray(crops, np.float32))
    ends = [_logits(model, extremes, optimise=each) for each in (False, True)]
    wanted_float = {name for name, m in network.named_modules() if isinstance(m, FoldedConv2d) and m.bits == FLOAT}
    proof = Proof(
        crops=len(crops),
        torch_median=_median(in_torch, raw),
        torch_largest=_largest(in_torch, raw),
        optimised_median=_median(optimised, raw),
        optimised_largest=_largest(optimised, raw),
        extremes_largest=_largest(ends[0], ends[1]),
        rounding_median=_median(in_torch, _torch_logits(network, crops, rounding=False)),
        largest_weight=largest_weight(model),
        float_convolutions=tuple(name for name in float_convolutions(model) if name not in wanted_float),
    )
    _check(proof)
    return proof


def _check(proof: Proof) -> None:
    numbers = [value for value in asdict(proof).values() if isinstance(value, float)]
    allowed = max(proof.rounding_median, 1e-3)
    for ok, complaint in (
        (bool(np.isfinite(numbers).all()), "it gives values that are not finite"),
        (proof.largest_weight <= WEIGHT_LIMIT, f"weights go up to {proof.largest_weight} and could saturate"),
        (not proof.float_convolutions, f"convolutions stayed in float: {', '.join(proof.float_convolutions)}"),
        (proof.torch_median <= allowed, f"it is {proof.torch_median:.3g} (median logit) from torch"),
        (proof.optimised_median <= allowed, f"optimisation changes it by {proof.optimised_median:.3g} (median logit)"),
    ):
        if not ok:
            raise ModelError(f"the exported model is not the network that was trained: {complaint}")


def _torch_logits(network: GraphModule, crops: UInt8Array | Float32Array, *, rounding: bool = True) -> Float32Array:
    """What ``network`` makes of ``crops``, float32 (n, outputs)."""
    with without_rounding(network, not rounding), torch.inference_mode():
        parts = [network(_as_input(part)).numpy() for part in _parts(crops)]
    return np.concatenate(parts)


def _as_input(part: UInt8Array | Float32Array) -> torch.Tensor:
    tensor = torch.from_numpy(part)
    return normalise(tensor) if part.dtype == np.uint8 else tensor


def _logits(model: ModelProto, crops: UInt8Array | Float32Array, *, optimise: bool) -> Float32Array:
    """What ``model`` makes of ``crops``, float32 (n, outputs)."""
    session = cpu_session(model, optimise=optimise)
    names = (CROPS, LOGIT) if crops.dtype == np.uint8 else (CORE_INPUT, CORE_OUTPUT)
    parts = [session.run([names[1]], {names[0]: part})[0] for part in _parts(crops)]
    return np.concatenate(parts).reshape(len(crops), -1)


def _extremes(inputs: Float32Array) -> Float32Array:
    """The least value everywhere, the largest, and stripes of both, float32 (3, c, h, w): where sums are largest."""
    low, high = np.full_like(inputs[0], inputs.min()), np.full_like(inputs[0], inputs.max())
    stripes = np.where(np.indices(low.shape).sum(0) // 4 % 2, low, high)
    return np.stack([low, high, stripes])


def _parts(crops: UInt8Array | Float32Array) -> list[UInt8Array | Float32Array]:
    return [crops[at : at + _PART] for at in range(0, len(crops), _PART)]


def _median(a: Float32Array, b: Float32Array) -> float:
    return float(np.median(np.abs(a - b)))


def _largest(a: Float32Array, b: Float32Array) -> float:
    return float(np.abs(a - b).max())
