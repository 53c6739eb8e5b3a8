from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from compression.fakequant import (
    FLOAT,
    LEVELS,
    Activation,
    FoldedConv2d,
    merge_activations,
    rounded,
    weight_steps,
    weights_once,
    with_fake_quantisation,
    without_rounding,
)
from compression.groups import channel_groups
from compression.prune import keep_channels
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite
from detector.types import NothingToAnalyseError, UsageError
from tests.compression.networks import MobileNetV3Small, ResNet18, picture, settle


def small() -> GraphModule:
    torch.manual_seed(0)
    return traced(settle(EfficientNetLite(Architecture(width=0.5, depth=0.6, head=64))), picture(32))


@pytest.fixture(scope="module")
def network() -> GraphModule:
    return small()


def by_hand(x: Tensor, step: Tensor, zero: int, low: int, high: int) -> Tensor:
    """The definition of a rounded value, with the straight-through gradient spelt out for autograd."""
    v = x / step + zero
    clipped = torch.minimum(
        torch.maximum(v, torch.tensor(float(low), dtype=x.dtype)), torch.tensor(float(high), dtype=x.dtype)
    )
    q = clipped + (clipped.round() - clipped).detach()
    return (q - zero) * step


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=40),
    st.floats(0.01, 2),
    st.integers(0, 255),
)
def test_rounding_and_its_gradients_are_those_of_the_definition(values: list[float], step: float, zero: int) -> None:
    results = []
    for function in (rounded, by_hand):
        x = torch.tensor(values, dtype=torch.float64).requires_grad_()
        s = torch.tensor(step, dtype=torch.float64).requires_grad_()
        y = function(x, s, zero, 0, 255)
        (y * torch.arange(1, len(values) + 1)).sum().backward()
        assert x.grad is not None
        assert s.grad is not None
        results.append((y.detach(), x.grad, s.grad))
    edge = (
        (torch.tensor(values, dtype=torch.float64) / step + zero)
        - torch.tensor([0.0, 255.0], dtype=torch.float64)[:, None]
    ).abs().min(0).values < 1e-6
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-9, rtol=0)
    torch.testing.assert_close(results[0][1][~edge], results[1][1][~edge])
    if not edge.any():  # on the very end of the range the gradient may go either way
        torch.testing.assert_close(results[0][2], results[1][2], atol=1e-6, rtol=1e-6)


def test_weights_have_a_step_and_a_gradient_for_each_output_channel() -> None:
    torch.manual_seed(0)
    weight, steps = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64) / 20 + 0.01
    got = []
    for function in (rounded, lambda x, s, *ends: by_hand(x, s.view(-1, 1, 1, 1), *ends)):
        w, s = weight.clone().requires_grad_(), steps.clone().requires_grad_()
        y = function(w, s, 0, -7, 7)
        y.square().sum().backward()
        got.append((y.detach(), w.grad, s.grad))
    for ours, defined in zip(*got, strict=True):
        torch.testing.assert_close(ours, defined)


@pytest.mark.parametrize("bits", [8, 6, 4])
def test_weight_steps_round_with_less_error_than_a_brute_force_over_other_steps(bits: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(6, 40)
    steps = weight_steps(weight, bits)

    def error(step: Tensor) -> Tensor:
        q = (weight / step[:, None]).round().clamp(-LEVELS[bits], LEVELS[bits])
        return (q * step[:, None] - weight).square().sum(1)

    widest = weight.abs().amax(1) / LEVELS[bits]
    if bits == 8:
        torch.testing.assert_close(steps, widest)
        return
    for share in (0.25, 0.4, 0.6, 0.75, 0.9, 1.0, 1.2):
        assert (error(steps) <= error(widest * share) * 1.02).all()


def test_without_rounding_it_computes_what_the_network_computes(network: GraphModule) -> None:
    x = picture(32, 6)
    rounding = with_fake_quantisation(network, {}, [x])
    wide = copy.deepcopy(rounding)
    for module in wide.modules():
        if isinstance(module, Activation):  # no clipping either, but where a ReLU6 clips
            module.zero = 0 if module.limit is not None else module.zero
            with torch.no_grad():
                module.log2_step.copy_(torch.tensor(6 / 255).log2() if module.limit is not None else torch.tensor(3.0))
    with torch.no_grad(), without_rounding(wide):
        torch.testing.assert_close(wide(x), network(x), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(rounding(x), network(x), atol=1e-6)


def test_every_convolution_reads_and_gives_rounded_values_and_folds_its_norm(network: GraphModule) -> None:
    rounding = with_fake_quantisation(network, {}, [picture(32, 4)])
    modules = dict(rounding.named_modules())
    assert not [m for m in modules.values() if isinstance(m, nn.BatchNorm2d | nn.ReLU6)]
    for node in rounding.graph.nodes:
        if node.op == "call_module" and isinstance(modules[str(node.target)], FoldedConv2d):
            assert isinstance(modules[str(node.args[0].target)], Activation)
            assert all(isinstance(modules[str(user.target)], Activation) for user in node.users)


def test_a_float_layer_keeps_its_weights_and_its_output(network: GraphModule) -> None:
    rounding = with_fake_quantisation(network, {"blocks.1.0.conv_dw": FLOAT}, [picture(32, 4)])
    layer = rounding.get_submodule("blocks.1.0.conv_dw")
    assert isinstance(layer, FoldedConv2d)
    assert layer.log2_step is None
    torch.testing.assert_close(layer.rounded_weight(), layer.folded_weight())
    (user,) = next(n for n in rounding.graph.nodes if n.target == "blocks.1.0.conv_dw").users
    assert isinstance(rounding.get_submodule(str(user.target)), nn.ReLU6)  # then rounded for the next layer


@pytest.mark.parametrize("make", [lambda: ResNet18(width=8, outputs=3), lambda: MobileNetV3Small(outputs=2)])
def test_networks_with_other_activations_and_additions_are_rounded_closely(make: object) -> None:
    torch.manual_seed(0)
    x = picture(64, 4)
    model = traced(settle(make()), x)  # type: ignore[operator]
    rounding = with_fake_quantisation(model, {}, [x])
    with torch.no_grad():
        dense, got = model(x), rounding(x)
    assert (got - dense).abs().mean() < 0.25 * dense.std() + 0.02


def test_a_relu6_range_never_grows_past_six() -> None:
    layer = Activation(0.0, 9.0, limit=6.0)
    with torch.no_grad():
        layer.log2_step.add_(3)
    assert layer(torch.tensor([100.0])).item() == pytest.approx(6.0)


def test_rounding_weights_once_gives_the_gradients_of_rounding_them_for_every_part(network: GraphModule) -> None:
    x = picture(32, 4)
    one, many = (with_fake_quantisation(network, {}, [x]) for _ in range(2))
    for part in x.split(2):
        many(part).sum().backward()
    with weights_once(one):
        for part in x.split(2):
            one(part).sum().backward()
    for (name, a), (_, b) in zip(one.named_parameters(), many.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None and b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-3)


def test_channels_can_be_removed_from_a_rounding_network() -> None:
    x = picture(32, 4)
    rounding = with_fake_quantisation(small(), {}, [x])
    groups = [g for g in channel_groups(rounding, x) if g.prunable]
    assert {g.name for g in groups} == {g.name for g in channel_groups(small(), x) if g.prunable}
    gone = next(g for g in groups if g.removable)
    kept = {g.name: list(range(0, g.channels, 2)) for g in groups if g is not gone} | {gone.name: []}
    smaller = merge_activations(keep_channels(rounding, x, kept))
    for layer in smaller.modules():
        if isinstance(layer, FoldedConv2d):
            assert layer.log2_step is not None
            assert len(layer.gain) == len(layer.log2_step) == layer.out_channels == len(layer.weight)
    for node in smaller.graph.nodes:  # no rounding of what is rounded already
        if node.op == "call_module" and isinstance(smaller.get_submodule(str(node.target)), Activation):
            source = node.args[0]
            assert source.op != "call_module" or not isinstance(smaller.get_submodule(str(source.target)), Activation)
    assert smaller(x).shape == (4, 1)


def test_what_makes_no_sense_is_refused(network: GraphModule) -> None:
    with pytest.raises(NothingToAnalyseError, match="at least one batch"):
        with_fake_quantisation(network, {}, [])
    with pytest.raises(UsageError, match=r"conv_stem cannot have 5 bits; there are 32, 8, 6 and 4"):
        with_fake_quantisation(network, {"conv_stem": 5}, [picture(32)])
