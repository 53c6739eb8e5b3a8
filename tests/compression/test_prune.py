from __future__ import annotations

import random
import re
from collections.abc import Sequence

import pytest
import torch
import torch_pruning
from torch import Tensor, fx, nn

from compression.groups import ChannelGroup, channel_groups
from compression.prune import keep_channels, mask_channels
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite
from detector.types import ModelError, UsageError
from tests.compression.networks import MobileNetV3Small, ResNet18, ResNeXt, Vgg, picture, settle

NETWORKS = {
    "efficientnet_lite": (lambda: EfficientNetLite(Architecture(width=0.5, depth=0.6, head=64)), 32),
    "resnet18": (lambda: ResNet18(width=8, outputs=3), 64),
    "mobilenetv3": (lambda: MobileNetV3Small(outputs=2), 64),
    "vgg": (Vgg, 16),
    "resnext": (ResNeXt, 16),
}
Subject = tuple[fx.GraphModule, Tensor, list[ChannelGroup]]


@pytest.fixture(params=NETWORKS)
def subject(request: pytest.FixtureRequest) -> Subject:
    """A network in float64, an input of it, and its groups, streams too."""
    make, size = NETWORKS[request.param]
    x = picture(size).double()
    model = traced(settle(make()).double(), x)
    return model, x, channel_groups(model, x, streams=True)


def some(groups: Sequence[ChannelGroup], seed: int, *, remove: bool = False) -> dict[str, list[int]]:
    """Channels to keep of every prunable group, at random; half of the removable blocks gone when ``remove``."""
    draw = random.Random(seed)
    kept: dict[str, list[int]] = {}
    for group in groups:
        if group.prunable:
            count = draw.randrange(1, group.channels + 1)
            gone = remove and group.removable and draw.random() < 0.5
            kept[group.name] = [] if gone else sorted(draw.sample(range(group.channels), count))
    return kept


@pytest.mark.parametrize("remove", [False, True])
def test_removing_channels_is_exactly_masking_them(subject: Subject, remove: bool) -> None:
    model, x, groups = subject
    kept = some(groups, seed=0, remove=remove)
    smaller = keep_channels(model, x, kept)
    with mask_channels(model, groups, kept):
        masked = model(x)
    assert torch.allclose(smaller(x), masked, rtol=0, atol=1e-9)
    assert not torch.allclose(masked, model(x), rtol=0, atol=1e-9)


def test_removing_channels_is_what_torch_pruning_does(subject: Subject) -> None:
    model, x, groups = subject
    kept = some(groups, seed=3)
    theirs = traced(model, x)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, x)
    for group in groups:
        gone = sorted(set(range(group.channels)) - set(kept.get(group.name, range(group.channels))))
        layer = theirs.get_submodule(group.name)
        if gone:
            graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, idxs=gone).prune()
    ours, expected = keep_channels(model, x, kept).state_dict(), theirs.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in expected.items()}
    assert all(torch.equal(value, expected[key]) for key, value in ours.items())


def test_the_smaller_network_has_the_counts_asked_for(subject: Subject) -> None:
    model, x, groups = subject
    kept = some(groups, seed=5)
    after = {g.name: g for g in channel_groups(keep_channels(model, x, kept), x, streams=True)}
    for group in groups:
        assert after[group.name].channels == len(kept.get(group.name, range(group.channels)))
        assert after[group.name].layers == group.layers


def test_a_removed_block_leaves_nothing_behind() -> None:
    x = picture(32)
    model = traced(settle(EfficientNetLite(Architecture(width=0.5))), x)
    smaller = keep_channels(model, x, {"blocks.3.1.conv_pw": [], "blocks.3.2.conv_pw": []})
    names = {name for name, _ in smaller.named_parameters()}
    assert names == {n for n, _ in model.named_parameters() if not n.startswith(("blocks.3.1.", "blocks.3.2."))}


def test_a_removed_resnet_block_leaves_its_activation() -> None:
    """relu(x + 0) = x, since x comes out of a ReLU."""
    x = picture(64).double()
    model = traced(settle(ResNet18(width=8, outputs=3)).double(), x)
    smaller = keep_channels(model, x, {"layer1.1.conv1": []})
    original = settle(ResNet18(width=8, outputs=3)).double()
    original.layer1[1] = nn.Identity()
    assert torch.equal(smaller(x), original(x))


def test_all_channels_kept_is_the_same_network(subject: Subject) -> None:
    model, x, groups = subject
    same = keep_channels(model, x, {g.name: range(g.channels) for g in groups if g.prunable})
    assert torch.equal(same(x), model(x))


def test_pruning_twice_is_pruning_once() -> None:
    x = picture(32).double()
    model = traced(settle(EfficientNetLite(Architecture(width=0.5))).double(), x)
    name = "blocks.2.0.conv_pw"
    twice = keep_channels(keep_channels(model, x, {name: range(0, 64, 2)}), x, {name: range(0, 32, 4)})
    once = keep_channels(model, x, {name: range(0, 64, 8)})
    assert all(torch.equal(value, once.state_dict()[key]) for key, value in twice.state_dict().items())


def test_pruning_leaves_the_model_as_it_was(subject: Subject) -> None:
    model, x, groups = subject
    before = {key: value.clone() for key, value in model.state_dict().items()}
    output = model(x)
    keep_channels(model, x, some(groups, seed=1, remove=True))
    with mask_channels(model, groups, some(groups, seed=1, remove=True)):
        model(x)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(x), output)


def test_the_smaller_network_trains(subject: Subject) -> None:
    model, x, groups = subject
    smaller = keep_channels(model, x, some(groups, seed=2)).train()
    smaller(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())


class SteppedConv(nn.Conv2d):
    """A layer of a class of its own, with a value per output channel and a setting."""

    def __init__(self, *args: int, bits: int, **kwargs: int) -> None:
        super().__init__(*args, **kwargs)
        self.bits = bits
        self.weight_step = nn.Parameter(torch.rand(self.out_channels) + 0.1)
        self.register_buffer("seen", torch.arange(self.out_channels, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.round(self.weight / self.weight_step.view(-1, 1, 1, 1)) * self.weight_step.view(-1, 1, 1, 1)
        return self._conv_forward(x, weight, self.bias)


def test_a_layer_of_a_derived_class_keeps_class_settings_and_values_per_channel() -> None:
    x = picture(8)
    model = traced(
        nn.Sequential(
            SteppedConv(3, 16, 1, bits=4),
            nn.ReLU(),
            SteppedConv(16, 16, 3, groups=16, bits=8),
            SteppedConv(16, 16, 1, bits=6),
            nn.Flatten(),
            nn.Linear(16 * 36, 1),
        ),
        x,
    )
    groups = channel_groups(model, x)
    kept = {"0": [1, 2, 5]}
    smaller = keep_channels(model, x, kept)
    first, depthwise, last = (smaller.get_submodule(name) for name in ("0", "2", "3"))
    assert [(type(m), m.bits) for m in (first, depthwise, last)] == [
        (SteppedConv, 4),
        (SteppedConv, 8),
        (SteppedConv, 6),
    ]
    for layer, name in ((first, "0"), (depthwise, "2")):
        assert torch.equal(layer.weight_step, model.get_submodule(name).weight_step[[1, 2, 5]])
        assert layer.seen.tolist() == [1, 2, 5]
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (3, 3, 3)
    assert (last.in_channels, last.out_channels, last.weight_step.shape) == (3, 16, (16,))
    with mask_channels(model, groups, kept):
        assert torch.allclose(smaller(x), model(x), atol=1e-6)


def test_modes_and_frozen_parameters_stay() -> None:
    x = picture(16)
    model = traced(settle(Vgg()), x).train()
    model.get_submodule("features.3").eval()
    model.get_submodule("features.3").weight.requires_grad_(False)
    smaller = keep_channels(model, x, {"features.0": [0, 3]})
    layer = smaller.get_submodule("features.3")
    assert smaller.training
    assert not layer.training
    assert [p.requires_grad for p in layer.parameters()] == [False, True]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"nose": [0]}, "there is no channel group 'nose'; there are features.0, "),
        ({"classifier": [0]}, "classifier cannot be pruned: touches the model's output"),
        ({"features.0": []}, "features.0 has no residual block that could go with it; keep at least 8"),
        ({"features.0": [2, 1]}, "kept channels of features.0 must be ascending and within 0..15"),
        ({"features.0": [1, 1]}, "must be ascending"),
        ({"features.0": [0, 16]}, "within 0..15"),
        ({"features.0": [-1, 3]}, "within 0..15"),
    ],
)
def test_what_cannot_be_kept_is_said(kept: dict[str, list[int]], message: str) -> None:
    x = picture(16)
    model = traced(settle(Vgg()), x)
    with pytest.raises(UsageError, match=re.escape(message)):
        keep_channels(model, x, kept)
    with pytest.raises(UsageError, match=re.escape(message)), mask_channels(model, channel_groups(model, x), kept):
        pass


def test_a_failure_inside_the_block_takes_the_masks_off() -> None:
    x = picture(16)
    model = traced(settle(Vgg()), x)
    expected = model(x)
    with pytest.raises(KeyError), mask_channels(model, channel_groups(model, x), {"features.0": [0]}):
        raise KeyError
    assert torch.equal(model(x), expected)


def test_channel_counts_written_into_forward_are_noticed() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).view(-1, 8, 4, 4)).mean((2, 3))

    x = picture(4)
    model = traced(Counting(), x)
    with pytest.raises(ModelError, match="write channel counts in forward"):
        keep_channels(model, x, {"first": [0, 1, 2]})
