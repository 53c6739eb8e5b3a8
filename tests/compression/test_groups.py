from __future__ import annotations

import operator

import pytest
import torch
from torch import Tensor, nn

from compression.groups import ChannelGroup, channel_groups, residual_branch
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite
from detector.types import ModelError
from tests.compression.networks import MobileNetV3Small, ResNet18, ResNeXt, Vgg, conv_bn, picture, settle


def groups_of(model: nn.Module, size: int = 32, *, streams: bool = False) -> dict[str, ChannelGroup]:
    x = picture(size)
    return {group.name: group for group in channel_groups(traced(settle(model), x), x, streams=streams)}


class Net(nn.Module):
    """A convolution of 8 channels, something in between, and a convolution that reads what comes out of it."""

    def __init__(self, between: nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.between = between
        self.second = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x))).mean((2, 3))


# ------------------------------------------------------------------------------------------------------- tracing


def test_a_trace_has_the_names_of_the_model_and_computes_what_it_computes() -> None:
    model, x = settle(ResNet18(width=8, outputs=3)), picture(32)
    trace = traced(model, x)
    assert dict(trace.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert torch.equal(trace(x), model(x))


def test_a_trace_shares_nothing_with_the_model() -> None:
    model, x = settle(Vgg()), picture(16)
    before = model(x)
    trace = traced(model, x)
    nn.init.zeros_(trace.get_submodule("classifier").weight)
    assert torch.equal(model(x), before)
    assert not torch.equal(trace(x), before)


def test_a_trace_is_in_eval_mode_and_leaves_the_model_in_its_own() -> None:
    model = Vgg().train()
    assert not traced(model, picture(16)).training
    assert model.training


def test_a_layer_of_a_derived_class_stays_whole() -> None:
    class Scaled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    trace = traced(nn.Sequential(Scaled(3, 8, 1), nn.Conv2d(8, 1, 1)), picture(8))
    assert [node.target for node in trace.graph.nodes if node.op == "call_module"] == ["0", "1"]


def test_a_decision_about_values_is_named_with_its_module() -> None:
    class Moody(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.mean() > 0 else -x

    with pytest.raises(ModelError, match=r"between \(Moody\) cannot be traced.*forward\(\)"):
        traced(Net(Moody()), picture(8))


def test_a_network_that_draws_at_random_is_not_traced() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    with pytest.raises(ModelError, match="something else"):
        traced(Net(Noisy()), picture(8))


def test_an_input_of_a_wrong_shape_says_what_came() -> None:
    with pytest.raises(ModelError, match=r"Vgg does not take an input of torch.float32 \(2, 3, 40, 40\)"):
        traced(Vgg(), picture(40))


# -------------------------------------------------------------------------------------------------------- groups


def test_the_expansion_of_an_inverted_residual_block_is_one_group() -> None:
    groups = groups_of(EfficientNetLite())
    assert groups["blocks.1.1.conv_pw"] == ChannelGroup(
        name="blocks.1.1.conv_pw",
        channels=144,
        producers=("blocks.1.1.conv_pw",),
        carriers=("blocks.1.1.bn1", "blocks.1.1.conv_dw", "blocks.1.1.bn2"),
        consumers=("blocks.1.1.conv_pwl",),
        multiple=16,
        removable=True,
        prunable=True,
        reason="",
        depthwise=("blocks.1.1.conv_dw",),
    )
    assert groups["blocks.1.1.conv_pw"].layers == tuple(f"blocks.1.1.conv_{kind}" for kind in ("pw", "dw", "pwl"))


def test_only_blocks_with_a_shortcut_can_be_removed() -> None:
    groups = groups_of(EfficientNetLite())
    blocks = {name for name, group in groups.items() if group.removable}
    repeats = (1, 2, 2, 3, 3, 4, 1)
    assert blocks == {f"blocks.{i}.{j}.conv_pw" for i, count in enumerate(repeats) for j in range(1, count)}


def test_a_residual_stream_is_prunable_on_request_only() -> None:
    name = "blocks.3.0.conv_pwl"
    kept, asked = groups_of(EfficientNetLite())[name], groups_of(EfficientNetLite(), streams=True)[name]
    assert (kept.prunable, kept.reason) == (False, "residual stream")
    assert (asked.prunable, asked.reason) == (True, "")
    assert asked.producers == tuple(f"blocks.3.{j}.conv_pwl" for j in range(3))
    assert asked.consumers == ("blocks.3.1.conv_pw", "blocks.3.2.conv_pw", "blocks.4.0.conv_pw")


def test_the_blocks_of_a_resnet() -> None:
    """Inner channels are groups; a block with a projection shortcut cannot go, one with an identity can."""
    groups = groups_of(ResNet18(width=8, outputs=3), 64)
    inner = groups["layer2.1.conv1"]
    assert (inner.producers, inner.consumers) == (("layer2.1.conv1",), ("layer2.1.conv2",))
    assert (inner.multiple, inner.prunable, inner.removable) == (8, True, True)
    assert groups["layer2.0.conv1"].prunable
    assert not groups["layer2.0.conv1"].removable
    stream = groups["layer2.0.conv2"]
    assert stream.reason == "residual stream"
    assert set(stream.producers) == {"layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv2"}
    assert groups["fc"].reason == "touches the model's output"


def test_squeeze_and_excite_is_part_of_the_group_that_it_scales() -> None:
    groups = groups_of(MobileNetV3Small(outputs=2), 64)
    block = groups["blocks.4.expand.0"]
    assert block.producers == ("blocks.4.expand.0", "blocks.4.excite.fc2")
    assert block.consumers == ("blocks.4.excite.fc1", "blocks.4.project.0")
    assert (block.prunable, block.removable, block.multiple) == (True, True, 16)
    squeezed = groups["blocks.4.excite.fc1"]
    assert (squeezed.consumers, squeezed.prunable, squeezed.removable) == (("blocks.4.excite.fc2",), True, False)


def test_every_dense_layer_is_in_one_group_as_a_producer() -> None:
    for model, size in ((EfficientNetLite(), 32), (MobileNetV3Small(2), 64), (ResNet18(8, 3), 64), (Vgg(), 16)):
        dense = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)} - {
            n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups > 1
        }
        producers = [name for group in groups_of(model, size).values() for name in group.producers]
        assert sorted(producers) == sorted(dense)


def test_a_grouped_convolution_is_said_to_be_in_the_way() -> None:
    groups = groups_of(ResNeXt())
    for name in ("reduce.0", "grouped.0"):
        assert not groups[name].prunable
        assert groups[name].reason == "grouped.0 is a grouped convolution"
    assert groups["last.0"].prunable


def test_a_flatten_with_spatial_extent_is_said_to_be_in_the_way() -> None:
    groups = groups_of(Vgg(), 16)
    assert groups["features.6"].reason == "flatten with spatial extent does not keep the channels apart"
    assert groups["features.0"].prunable
    assert groups["hidden"].prunable


class Between(nn.Module):
    def __init__(self, act) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


class Shared(nn.Module):
    """One convolution, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.conv(x)))


class Scale(nn.Module):
    """A parameter that no layer of torch.nn holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@pytest.mark.parametrize(
    ("between", "channels", "reason"),
    [
        (nn.GroupNorm(2, 8), 8, "between (GroupNorm) does not keep the channels apart"),
        (nn.LocalResponseNorm(3), 8, "between (LocalResponseNorm) does not keep the channels apart"),
        (nn.ChannelShuffle(2), 8, "between (ChannelShuffle) does not keep the channels apart"),
        (nn.PixelShuffle(2), 2, "between (PixelShuffle) does not keep the channels apart"),
        (Between(lambda x: torch.cat([x, x], 1)), 16, "cat does not keep the channels apart"),
        (Between(lambda x: x.softmax(1)), 8, "softmax does not keep the channels apart"),
        (Between(lambda x: x + x.flip(1)), 8, "flip does not keep the channels apart"),
        (Shared(), 8, "between.conv is used more than once"),
        (Scale(), 8, "mul reads a parameter that is part of no layer"),
    ],
)
def test_what_mixes_channels_is_named(between: nn.Module, channels: int, reason: str) -> None:
    group = groups_of(Net(between, channels), 8)["first"]
    assert (group.prunable, group.reason) == (False, reason)


def test_what_leaves_channels_apart_is_no_obstacle() -> None:
    for between in (nn.PReLU(8), nn.InstanceNorm2d(8, affine=True), nn.AvgPool2d(2), nn.Upsample(scale_factor=2),
                    Between(lambda x: x.clamp(0, 6)), Between(lambda x: x * x.mean((2, 3), keepdim=True))):  # fmt: skip
        assert groups_of(Net(between), 8)["first"].prunable, between


def test_a_module_between_layers_may_be_of_an_unknown_class() -> None:
    """As fake quantisation is: it has a number, not a layer's weights, and leaves channels apart."""

    class Rounding(nn.Identity):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Parameter(torch.tensor(0.1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255) * self.step / 0.1

    group = groups_of(Net(Rounding()), 8)["first"]
    assert group.prunable
    assert group.carriers == ()


def test_a_block_that_is_read_from_outside_cannot_be_removed() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.outer = conv_bn(3, 8), conv_bn(8, 16), conv_bn(16, 8)
            self.aside, self.last = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            inner = torch.relu(self.inner(x))
            y = x + self.outer(inner)
            return self.last(y + self.aside(inner)).mean((2, 3))

    group = groups_of(Leaky(), 8)["inner.0"]
    assert group.prunable
    assert not group.removable


def test_the_branch_of_a_block_ends_where_it_is_added() -> None:
    x = picture(32)
    model = traced(settle(EfficientNetLite()), x)
    branch = residual_branch(model, ("blocks.1.1.conv_pw",), ("blocks.1.1.conv_pwl",))
    assert branch is not None
    assert branch.tail.target == "blocks.1.1.bn3"
    assert branch.skip.target == "blocks.1.0.bn3"
    assert branch.addition.target is operator.add


def test_finding_groups_leaves_the_model_as_it_was() -> None:
    x = picture(32)
    model = traced(settle(EfficientNetLite(Architecture(width=0.5))), x).train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    channel_groups(model, x)
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_input_that_does_not_fit_says_what_came() -> None:
    model = traced(settle(Vgg()), picture(16))
    with pytest.raises(ModelError, match=r"\(2, 3, 40, 40\)"):
        channel_groups(model, picture(40))
