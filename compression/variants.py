"""Pruned and rounded forms of a network whose values mean nothing: what latency is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from onnx import ModelProto
from torch import Tensor, nn
from torch.fx import GraphModule

from compression.calibrate import PIXEL_RANGE
from compression.fakequant import FLOAT, with_fake_quantisation
from compression.prune import keep_channels
from compression.qdq import quantised_core


def core_of(
    model: GraphModule, example: Tensor, counts: Mapping[str, int], precision: Literal["int8", "fp32"]
) -> ModelProto:
    """The core of ``model`` with the first ``counts[group]`` channels of each group, for timing.

    Args:
        model: traced.
        example: an input, float (n, c, S, S).
        counts: by group; 0 drops a removable block.
        precision: of all its convolutions.
    """
    kept = {name: list(range(count)) for name, count in counts.items()}
    pruned = keep_channels(model, example, kept) if kept else model
    names = [name for name, module in pruned.named_modules() if isinstance(module, nn.Conv2d)]
    bits = dict.fromkeys(names, FLOAT if precision == "fp32" else 8)
    rounding = with_fake_quantisation(pruned, bits, [example[:1]], PIXEL_RANGE if example.shape[1] == 3 else None)
    return quantised_core(rounding, int(example.shape[-1]), int(example.shape[1]))
