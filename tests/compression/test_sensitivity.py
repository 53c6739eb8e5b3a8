from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, fx, nn
from torch.nn import functional

from compression.groups import ChannelGroup, channel_groups
from compression.prune import keep_channels
from compression.replay import Replay, settled
from compression.sensitivity import analyse, divergence, fisher, options
from compression.sensitivity_map import SCHEMA, SensitivityMap, strongest
from compression.sensitivity_plot import heat_map
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite, Stage
from detector.types import InputError, NothingToAnalyseError, OutputError, UsageError
from tests.compression.networks import MobileNetV3Small, ResNet18, Vgg, picture, settle

STAGES = (
    Stage(kernel=3, stride=1, expansion=1, channels=16, repeats=1),
    Stage(kernel=3, stride=2, expansion=4, channels=16, repeats=3),
)
Batches = list[tuple[Tensor, Tensor]]


def small() -> nn.Module:
    return EfficientNetLite(Architecture(stages=STAGES, head=32, stem=16))


def prepared(model: nn.Module, size: int, *, streams: bool = False) -> tuple[fx.GraphModule, list[ChannelGroup]]:
    model = traced(settle(model), picture(size))
    return model, channel_groups(model, picture(size), streams=streams)


def data(size: int, outputs: int, batches: int = 2, each: int = 3) -> Batches:
    """Noise with targets that are not all alike."""
    inputs = [picture(size, each, seed) for seed in range(batches)]
    return [(x, torch.arange(len(x)) % max(2, outputs)) for x in inputs]


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits.dtype), reduction="none")
    return functional.cross_entropy(logits, targets, reduction="none")


# -------------------------------------------------------------------------------------------------------- Fisher


def brute_force(model: nn.Module, group: ChannelGroup, batches: Batches) -> Tensor:
    """One sample at a time, with one gate parameter that multiplies what all consumers of the group read."""
    squares = []
    for inputs, targets in batches:
        for i in range(len(inputs)):
            gate = torch.ones(group.channels, dtype=inputs.dtype, requires_grad=True)

            def scale(_layer: nn.Module, args: tuple[Tensor], gate: Tensor = gate) -> tuple[Tensor]:
                return (args[0] * gate.view(1, -1, *[1] * (args[0].dim() - 2)),)

            handles = [model.get_submodule(name).register_forward_pre_hook(scale) for name in group.consumers]
            loss(model(inputs[i : i + 1]), targets[i : i + 1]).sum().backward()
            for handle in handles:
                handle.remove()
            assert gate.grad is not None
            squares.append(gate.grad.square())
    return torch.stack(squares).mean(0)


@pytest.mark.parametrize(
    ("make", "size"),
    [(small, 16), (lambda: ResNet18(4, 3), 32), (lambda: MobileNetV3Small(2), 32), (Vgg, 16)],
)
def test_the_fisher_information_is_that_of_one_gate_parameter_per_sample(make, size: int) -> None:
    """Also where a group has several consumers, and where what they read goes on in a residual stream."""
    model, groups = prepared(make(), size, streams=True)
    batches = data(size, outputs=model(picture(size)).shape[1])
    found = fisher(model, groups, batches, loss)
    measured = [group for group in groups if group.name in found]
    assert {group.name for group in measured} >= {group.name for group in groups if group.prunable}
    several = [group for group in measured if len(group.consumers) > 1]
    for group in [*several[:2], *[g for g in measured if len(g.consumers) == 1][:3]]:
        expected = brute_force(model, group, batches).numpy()
        np.testing.assert_allclose(found[group.name], expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_the_fisher_information_does_not_depend_on_how_samples_are_batched() -> None:
    model, groups = prepared(small(), 16)
    inputs, targets = picture(16, 6), torch.tensor([0, 1, 1, 0, 0, 1])
    whole = fisher(model, groups, [(inputs, targets)], loss)
    parts = fisher(model, groups, [(inputs[:1], targets[:1]), (inputs[1:], targets[1:])], loss)
    for name, values in whole.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(parts[name], values, rtol=1e-4)


def test_a_channel_that_nobody_uses_has_no_fisher_information() -> None:
    model, groups = prepared(small(), 16)
    group = next(g for g in groups if g.name == "blocks.1.0.conv_pw")
    model.get_submodule(group.consumers[0]).weight.data[:, 5] = 0
    values = fisher(model, [group], data(16, 1), loss)[group.name]
    assert values[5] == 0
    assert (np.delete(values, 5) >= 0).all()
    assert 5 not in strongest(values, np.count_nonzero(values))


def test_the_fisher_information_of_a_frozen_model_in_training_mode_is_that_of_eval_mode() -> None:
    model, groups = prepared(small(), 16)
    expected = fisher(model, groups, data(16, 1), loss)
    model.train().requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        found = fisher(model, groups, data(16, 1), loss)
    assert all(np.array_equal(found[name], values) for name, values in expected.items())
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], NothingToAnalyseError, "there is no batch"),
        ([picture(16)], UsageError, "pair of tensors.*got Tensor"),
        ([(picture(16)[0], torch.zeros(3))], UsageError, r"float \(n, c, h, w\).*float32 \(3, 16, 16\)"),
        ([(picture(16).to(torch.uint8), torch.zeros(2))], UsageError, r"got torch.uint8 \(2, 3, 16, 16\)"),
        ([(picture(16), torch.zeros(3))], UsageError, r"targets must be \(2,\).*got \(3,\)"),
        ([(picture(16)[:0], torch.zeros(0))], UsageError, r"got torch.float32 \(0, 3, 16, 16\)"),
    ],
)
def test_batches_that_cannot_be_used_say_what_came(batches: list, error: type[Exception], message: str) -> None:
    model, groups = prepared(small(), 16)
    with pytest.raises(error, match=message):
        fisher(model, groups, batches, loss)
    with pytest.raises(error, match=message):
        analyse(model, groups, batches, loss, saliency=alike(groups))


def alike(groups: list[ChannelGroup]) -> dict[str, np.ndarray]:
    return {group.name: np.ones(group.channels, np.float32) for group in groups}


def test_a_loss_that_is_already_summed_is_refused() -> None:
    model, groups = prepared(small(), 16)
    with pytest.raises(UsageError, match=r"one value a sample, \(3,\), got \(\)"):
        fisher(model, groups, data(16, 1), lambda logits, targets: loss(logits, targets).sum())


# -------------------------------------------------------------------------------------------------------- options


def group_of(channels: int, multiple: int, removable: bool = False) -> ChannelGroup:
    return ChannelGroup("g", channels, ("g",), (), ("h",), multiple, removable, True, "")


def test_options_are_fast_counts_below_all() -> None:
    assert options(group_of(144, 16)) == [112, 80, 48, 32]
    assert options(group_of(96, 16, removable=True)) == [80, 48, 32, 0]
    assert options(group_of(16, 8)) == [8]
    assert options(group_of(8, 8)) == []
    assert options(group_of(12, 8)) == [8]
    assert options(group_of(1280, 8), (0.5,)) == [640]


def test_a_ratio_that_is_no_share_is_refused() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        options(group_of(16, 8), (1.0,))


# --------------------------------------------------------------------------------------------------------- replay


@pytest.mark.parametrize(("make", "size"), [(lambda: ResNet18(4, 3), 32), (lambda: MobileNetV3Small(2), 32)])
def test_running_from_a_layer_is_running_the_rest(make, size: int) -> None:
    """In-place activations and additions included: what is kept must not change under it."""
    model = traced(settle(make()), picture(size))
    base, x = settled(model), picture(size)
    layers = [name for name, module in base.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        torch.testing.assert_close(base(x), model(x), rtol=1e-3, atol=1e-4)
        replay = Replay(base, layers)
        expected = replay.run(x)
        for name in [*layers, *layers]:
            assert torch.equal(replay.run_from(name), expected), name


# -------------------------------------------------------------------------------------------------------- the map


@pytest.fixture(scope="module")
def subject() -> tuple[fx.GraphModule, list[ChannelGroup], Batches]:
    model, groups = prepared(small(), 16)
    return model, groups, data(16, 1)


@pytest.fixture(scope="module")
def found(subject: tuple[fx.GraphModule, list[ChannelGroup], Batches]) -> SensitivityMap:
    model, groups, batches = subject
    return analyse(model, groups, batches, loss, score=lambda logits, targets: float(loss(logits, targets).mean()))


def logits_of(model: nn.Module, batches: Batches) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(inputs) for inputs, _ in batches])


def test_the_divergence_of_a_pruning_is_that_of_the_smaller_network(subject, found: SensitivityMap) -> None:
    model, groups, batches = subject
    dense = logits_of(model, batches)
    for group in groups:
        if not group.prunable:
            continue
        row = found.group(group.name)
        assert [option.kept for option in row.options] == options(group)
        for option in row.options:
            smaller = keep_channels(model, picture(16), {group.name: row.strongest(option.kept)})
            expected = float((logits_of(smaller, batches) - dense).square().mean())
            assert option.divergence == pytest.approx(expected, rel=1e-3, abs=1e-8)


def test_the_divergence_of_a_rounding_is_that_of_rounded_weights_and_input(subject, found: SensitivityMap) -> None:
    """Against the definition: the layer's weights on 15 values a channel, what it reads on 256 values."""
    model, _, batches = subject
    name = "blocks.1.1.conv_pw"
    dense, base = settled(model), settled(model)
    layer = base.get_submodule(name)
    read: list[Tensor] = []
    handle = dense.get_submodule(name).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    expected = logits_of(dense, batches)
    handle.remove()
    x = torch.cat(read).numpy().astype(np.float64)
    low, high, best = min(x.min(), 0), max(x.max(), 0), (np.inf, 0.0, 0)
    for share in np.arange(0.3, 1.01, 0.05):
        step, zero = share * (high - low) / 255, round(-low * 255 / (high - low))
        error = np.square((np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step - x).sum()
        best = min(best, (error, step, zero))
    _, step, zero = best
    layer.register_forward_pre_hook(
        lambda _, inputs: ((torch.round(inputs[0] / step) + zero).clamp(0, 255) - zero) * step
    )
    rows = layer.weight.detach().flatten(1).numpy()
    for row in rows:
        grids = [np.clip(np.rint(row / s), -7, 7) * s for s in np.abs(row).max() / 7 * np.arange(0.3, 1.01, 0.025)]
        row[:] = min(grids, key=lambda grid: float(np.square(grid - row).sum()))
    got = found.layer(name).divergence(4)
    assert got == pytest.approx(float((logits_of(base, batches) - expected).square().mean()), rel=1e-2)


def test_fewer_bits_cost_more(found: SensitivityMap) -> None:
    for layer in found.layers:
        sqnr = [option.sqnr_db for option in layer.options]
        assert [option.bits for option in layer.options] == [8, 6, 4]
        assert sqnr == sorted(sqnr, reverse=True), layer.name
    total = [sum(layer.divergence(bits) for layer in found.layers) for bits in (32, 8, 6, 4)]
    assert total[0] == 0
    assert total == sorted(total)


def test_every_layer_and_every_prunable_group_is_in_the_map(subject, found: SensitivityMap) -> None:
    model, groups, _ = subject
    assert [group.name for group in found.groups] == [group.name for group in groups if group.prunable]
    layers = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {layer.name for layer in found.layers} == layers
    kinds = {layer.name: layer.kind for layer in found.layers}
    assert (kinds["conv_stem"], kinds["blocks.1.1.conv_dw"], kinds["classifier"]) == ("dense", "depthwise", "linear")
    assert found.layer("classifier").weights == 32
    assert (found.samples, found.measure) == (6, "logit_mse")


def test_the_score_is_of_all_samples(subject, found: SensitivityMap) -> None:
    model, _, batches = subject
    targets = torch.cat([targets for _, targets in batches])
    assert found.dense_score == pytest.approx(float(loss(logits_of(model, batches), targets).mean()), rel=1e-4)


def test_the_same_model_and_data_give_the_same_map_and_keep_the_model(subject, found: SensitivityMap) -> None:
    model, groups, batches = subject
    before = {key: value.clone() for key, value in model.state_dict().items()}
    again = analyse(model, groups, batches, loss, score=lambda logits, targets: float(loss(logits, targets).mean()))
    assert again == found
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_several_outputs_diverge_by_kullback_and_leibler() -> None:
    dense, changed = torch.tensor([[0.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]).softmax(0)
    assert divergence(dense, changed) == pytest.approx(float((p * (p / q).log()).sum()) / 2, rel=1e-5)
    assert divergence(dense, dense + 3) == pytest.approx(0, abs=1e-12)


def test_progress_counts_samples_by_stage() -> None:
    model, groups = prepared(Vgg(), 16)
    told: list[tuple[str, int]] = []
    result = analyse(model, groups, data(16, 3), loss, bits=(8,), ratios=(0.5,), progress=lambda *a: told.append(a))
    assert told == [(what, n) for what in ("fisher", "ranges", "trials") for n in (3, 6)]
    assert result.measure == "kl"
    assert result.dense_score is None


def test_a_loader_that_is_read_once_is_refused() -> None:
    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield from data(16, 1)

    model, groups = prepared(small(), 16)
    with pytest.raises(NothingToAnalyseError, match="a list or a DataLoader"):
        analyse(model, groups, once(), loss)


def test_what_makes_no_sense_is_refused(subject) -> None:
    model, groups, batches = subject
    with pytest.raises(UsageError, match=r"bits must be among \[4, 6, 8\], got \[5\]"):
        analyse(model, groups, batches, loss, bits=(5,))
    with pytest.raises(UsageError, match=r"saliency of blocks\.1\.0\.conv_pw must have 64 values, got 3 values"):
        analyse(model, groups, batches, loss, saliency=alike(groups) | {"blocks.1.0.conv_pw": np.ones(3, np.float32)})
    with pytest.raises(UsageError, match="score must be a finite number, got nan"):
        analyse(model, groups, batches, loss, ratios=(), bits=(), score=lambda logits, targets: float("nan"))


# -------------------------------------------------------------------------------------------------------- as data


def test_the_map_survives_json(found: SensitivityMap, tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(found.to_json(), encoding="utf-8")
    assert SensitivityMap.load(path) == found
    assert json.loads(found.to_json())["schema"] == SCHEMA == "tellframe.sensitivity/1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"schema": "tellframe.sensitivity/2"}, "has schema 'tellframe.sensitivity/2', needs"),
        (lambda d: {k: v for k, v in d.items() if k != "samples"}, "lacks 'samples'"),
        (lambda d: d | {"colour": 1}, "has 'colour', which is not part"),
        (lambda d: d | {"samples": "many"}, "samples is 'many', needs int"),
        (lambda d: d | {"samples": True}, "samples is True, needs int"),
        (lambda d: d | {"groups": {}}, "groups is dict, needs a list"),
        (lambda d: d | {"groups": [3]}, r"groups\[0\] is int, needs an object with name, channels"),
        (lambda d: d | {"ratios": [float("nan")]}, r"ratios\[0\] is nan, needs a finite number"),
    ],
)
def test_a_map_that_is_not_one_says_where(found: SensitivityMap, change, message: str) -> None:
    text = json.dumps(change(json.loads(found.to_json())))
    with pytest.raises(InputError, match=message):
        SensitivityMap.from_json(text, "map.json")


def test_what_is_no_map_at_all_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", "3"):
        with pytest.raises(InputError, match=r"map\.json"):
            SensitivityMap.from_json(text, "map.json")
    with pytest.raises(InputError, match="cannot be read as a sensitivity map"):
        SensitivityMap.load(tmp_path / "missing.json")


def test_the_table_has_a_row_per_option(found: SensitivityMap) -> None:
    header, *rows = [line.split(",") for line in found.to_csv().splitlines()]
    assert header == ["kind", "name", "option", "share", "divergence", "score", "fisher_lost", "sqnr_db"]
    assert len(rows) == sum(len(item.options) for item in (*found.groups, *found.layers))
    assert {row[0] for row in rows} == {"pruning", "bits"}
    assert all(len(row) == len(header) for row in rows)


def test_an_option_that_was_not_measured_says_which_were(found: SensitivityMap) -> None:
    with pytest.raises(UsageError, match="not measured at kept 7; there are 48, 32, 16, 0"):
        found.group("blocks.1.1.conv_pw").divergence(7)
    assert found.group("blocks.1.1.conv_pw").divergence(64) == 0
    with pytest.raises(UsageError, match="the map was not measured at name nose"):
        found.layer("nose")


def test_the_strongest_channels_are_ascending_and_ties_go_to_the_first() -> None:
    assert strongest(np.array([1, 3, 3, 2], np.float32), 2) == [1, 2]
    assert strongest(np.array([2, 2, 2], np.float32), 2) == [0, 1]
    assert strongest(np.array([2, 1], np.float32), 0) == []
    with pytest.raises(UsageError, match="cannot keep 3 of 2"):
        strongest(np.array([2, 1], np.float32), 3)


# ------------------------------------------------------------------------------------------------------ the picture


def test_the_heat_map_is_the_same_picture_for_the_same_map(found: SensitivityMap, tmp_path: Path) -> None:
    heat_map(found, tmp_path / "a.png")
    heat_map(found, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1350


def test_the_heat_map_grows_with_the_layers(found: SensitivityMap, tmp_path: Path) -> None:
    heat_map(found, tmp_path / "whole.png")
    heat_map(replace(found, layers=found.layers[:4], groups=()), tmp_path / "part.png")
    with Image.open(tmp_path / "whole.png") as whole, Image.open(tmp_path / "part.png") as part:
        assert whole.height > part.height


def test_a_heat_map_that_cannot_be_written_says_so(found: SensitivityMap, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        heat_map(found, tmp_path / "missing" / "map.png")
