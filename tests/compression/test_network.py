from __future__ import annotations

import pytest
import torch
from torch import nn

from compression.groups import channel_groups
from compression.network import network_of
from compression.policy import Network
from compression.trace import traced
from detector.training.backbone import EfficientNetLite


@pytest.fixture(scope="module")
def lite0() -> tuple[nn.Module, Network]:
    """A backbone, and what a policy sees of it when every group but the head's may be halved."""
    torch.manual_seed(0)
    backbone = EfficientNetLite().eval()
    example = torch.randn(2, 3, 64, 64)
    graph = traced(backbone, example)
    groups = channel_groups(graph, example)
    options = {g.name: [g.channels // 2, *([0] if g.removable else [])] for g in groups if g.name != "conv_head"}
    return backbone, network_of(graph, example, groups, options)


def test_a_networks_size_is_that_of_its_parameters(lite0: tuple[nn.Module, Network]) -> None:
    backbone, network = lite0
    folded = sum(p.numel() for p in backbone.parameters())
    folded -= sum(norm.weight.numel() for norm in backbone.modules() if isinstance(norm, nn.BatchNorm2d))
    assert sum(layer.bytes(network.full, 32) for layer in network.layers) + network.other_bytes == 4 * folded


def test_layers_stand_in_the_order_in_which_they_run(lite0: tuple[nn.Module, Network]) -> None:
    names = [layer.name for layer in lite0[1].layers]
    assert names == [name for name, m in lite0[0].named_modules() if isinstance(m, nn.Conv2d)]
    assert len(names) == 49


def test_layers_know_the_groups_that_their_cost_depends_on(lite0: tuple[nn.Module, Network]) -> None:
    groups = lite0[1].layer_groups
    assert groups["blocks.1.1.conv_dw"] == ("blocks.1.1.conv_pw",)
    assert groups["blocks.1.1.conv_pw"] == ("blocks.1.1.conv_pw",)  # the stream that it reads is no group here
    assert groups["blocks.6.0.conv_pwl"] == ("blocks.6.0.conv_pw", "blocks.6.0.conv_pwl")
    assert groups["conv_head"] == ("blocks.6.0.conv_pwl",)  # its own was not offered


def test_a_blocks_output_is_that_of_its_last_convolution(lite0: tuple[nn.Module, Network]) -> None:
    feeds = {layer.name: layer.feeds for layer in lite0[1].layers}
    assert feeds["conv_stem"] == ("blocks.0.0.conv_dw",)
    assert feeds["blocks.1.0.conv_pwl"] == ("blocks.1.1.conv_pw", "blocks.1.1.conv_pwl")
    assert feeds["blocks.1.1.conv_pwl"] == ("blocks.2.0.conv_pw",)
    assert feeds["conv_head"] == ()


def test_tensors_have_their_elements(lite0: tuple[nn.Module, Network]) -> None:
    elements = {layer.name: layer.output_elements for layer in lite0[1].layers}
    assert elements["conv_stem"] == 32 * 32 * 32
    assert elements["conv_head"] == 1280 * 2 * 2


def test_groups_offer_their_options_and_the_full_count(lite0: tuple[nn.Module, Network]) -> None:
    groups = {group.name: group for group in lite0[1].groups}
    assert groups["blocks.1.1.conv_pw"].options == (0, 72, 144)
    assert groups["blocks.1.1.conv_pw"].removable
    assert not groups["blocks.1.0.conv_pw"].removable
    assert set(groups["blocks.1.1.conv_pw"].layers) == {f"blocks.1.1.{n}" for n in ("conv_pw", "conv_dw", "conv_pwl")}
    assert "conv_head" not in groups
