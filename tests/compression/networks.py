"""Small networks with the structures that pruning has to understand; written from the papers, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution and batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Figure 5, left, of He et al., "Deep Residual Learning", CVPR 2016; a projection where shapes differ."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = conv_bn(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet18(nn.Module):
    """Table 1 of the same paper; ``width`` 64 is the original."""

    def __init__(self, width: int = 64, outputs: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers: list[nn.Module] = []
        inputs = width
        for i, channels in enumerate((width, 2 * width, 4 * width, 8 * width)):
            first = BasicBlock(inputs, channels, stride=1 if i == 0 else 2)
            layers.append(nn.Sequential(first, BasicBlock(channels, channels, stride=1)))
            inputs = channels
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class SqueezeExcite(nn.Module):
    """Section 5.3 of Howard et al., "Searching for MobileNetV3", ICCV 2019: a quarter of the channels, hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(8, channels // 4 // 8 * 8)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.adaptive_avg_pool2d(x, 1)
        gate = functional.hardsigmoid(self.fc2(functional.relu(self.fc1(gate))))
        return gate * x


class Bneck(nn.Module):
    """A row of table 2 of the same paper."""

    def __init__(
        self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int, excite: bool, act: type[nn.Module]
    ) -> None:
        super().__init__()
        self.expand = nn.Sequential(*conv_bn(inputs, expanded, 1), act()) if expanded != inputs else None
        self.depthwise = nn.Sequential(*conv_bn(expanded, expanded, kernel, stride, expanded), act())
        self.excite = SqueezeExcite(expanded) if excite else None
        self.project = conv_bn(expanded, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        y = y if self.excite is None else self.excite(y)
        y = self.project(y)
        return x + y if self.residual else y


# Table 2: kernel, expanded, outputs, squeeze-and-excite, hard-swish, stride.
_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1), (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1), (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip


class MobileNetV3Small(nn.Module):
    """Table 2 of the same paper."""

    def __init__(self, outputs: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 16, 3, 2), nn.Hardswish())
        blocks: list[nn.Module] = []
        inputs = 16
        for kernel, expanded, channels, excite, swish, stride in _SMALL:
            act = nn.Hardswish if swish else nn.ReLU
            blocks.append(Bneck(inputs, expanded, channels, kernel, stride, excite, act))
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*conv_bn(inputs, 576, 1), nn.Hardswish())
        self.hidden = nn.Linear(576, 1024)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(1024, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x))).mean((2, 3))
        return self.classifier(self.dropout(functional.hardswish(self.hidden(x))))


class Vgg(nn.Module):
    """A chain of convolutions without batch norm, with biases, and a flatten that keeps 2 x 2 positions (at 16 px)."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels in (16, 24, 32):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            inputs = channels
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(inputs * 4, 32)
        self.classifier = nn.Linear(32, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).flatten(1)
        return self.classifier(torch.relu(self.hidden(x)))


class ResNeXt(nn.Module):
    """A stem and one block of Xie et al., "Aggregated Residual Transformations", CVPR 2017: a grouped convolution."""

    def __init__(self, width: int = 32, cardinality: int = 4, outputs: int = 1) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.reduce = conv_bn(width, width, 1)
        self.grouped = conv_bn(width, width, 3, groups=cardinality)
        self.restore = conv_bn(width, width, 1)
        self.last = conv_bn(width, 24)
        self.classifier = nn.Linear(24, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.grouped(torch.relu(self.reduce(x))))
        x = torch.relu(x + self.restore(y))
        return self.classifier(torch.relu(self.last(x)).mean((2, 3)))


def settle(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` in eval mode, with weights and statistics as after training: no two channels alike."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
            if module.bias is not None:
                module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model.eval()


def picture(size: int, count: int = 2, seed: int = 0) -> Tensor:
    """Noise, float32 (count, 3, size, size)."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
