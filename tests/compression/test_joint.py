from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compression.examples import Batch, pooled
from compression.fakequant import Activation, FoldedConv2d, with_fake_quantisation
from compression.groups import channel_groups
from compression.joint import DenseTeacher, JointRecipe, JointRun, logit_loss, parts, per_sample_loss
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite
from detector.types import ModelError, UsageError
from tests.compression.networks import ResNet18, picture, settle

SIZE, LAYER = 32, "blocks.6.0.conv_pwl"
RECIPE = JointRecipe(steps=12, pruning=0.5, milestones=2, saliency_batches=1, learning_rate=1e-3, average=0.5)


class Noise:
    """Pictures of two kinds: with and without stripes; step ``n`` gets the same batch whenever it is asked."""

    def batches(self, first: int) -> Iterator[Batch]:
        step = first
        while True:
            x = picture(SIZE, 4, seed=step)
            x[1::2, :, ::2] += 0.5
            yield Batch(x, torch.tensor([0.0, 1.0, 0.0, 1.0]))
            step += 1


@pytest.fixture(scope="module")
def dense() -> GraphModule:
    torch.manual_seed(0)
    return traced(settle(EfficientNetLite(Architecture(width=0.5, depth=0.6, head=64))), picture(SIZE))


@pytest.fixture(scope="module")
def student(dense: GraphModule) -> GraphModule:
    return with_fake_quantisation(dense, {}, [picture(SIZE, 8)])


@pytest.fixture(scope="module")
def target(dense: GraphModule) -> dict[str, int]:
    """Half of every expansion, and one block gone."""
    groups = [g for g in channel_groups(dense, picture(SIZE)) if g.prunable and g.name.endswith("conv_pw")]
    inner = [g for g in groups if "0.0" not in g.name]
    return {g.name: g.channels // 2 for g in inner} | {next(g.name for g in inner if g.removable): 0}


def run_of(
    student: GraphModule, target: dict[str, int], recipe: JointRecipe = RECIPE, **more: Any
) -> tuple[JointRun, list[str]]:
    told: list[str] = []
    teacher = more.pop("teacher", None)
    return JointRun(student, target, recipe, Noise(), LAYER, teacher, tell=told.append, **more), told


@pytest.fixture(scope="module")
def teacher(dense: GraphModule) -> DenseTeacher:
    return DenseTeacher(dense, LAYER)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def test_the_run_ends_with_the_channels_of_the_policy_and_a_network_that_still_rounds(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    before = copy.deepcopy(weights(student))
    run, _ = run_of(student, target, teacher=teacher)
    result = run.run()
    assert {name: len(kept) for name, kept in run.kept.items()} == target
    for name, count in target.items():
        if count:
            layer = result.get_submodule(name)
            assert isinstance(layer, FoldedConv2d)
            assert layer.out_channels == count
        else:
            assert name not in dict(result.named_modules())
    assert any(isinstance(m, Activation) for m in result.modules())
    assert not result.training
    assert all(torch.equal(value, before[key]) for key, value in weights(student).items()), "the student was changed"


def test_channels_that_leave_are_pressed_so_small_that_taking_them_away_changes_little(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    outputs: list[Tensor] = []
    x = picture(SIZE, 4, seed=9)

    def score(model: GraphModule) -> float:
        with torch.no_grad():
            outputs.append(model(x))
        return 1.0

    recipe = replace(RECIPE, steps=60, pruning=0.9, milestones=1, learning_rate=1e-6)
    run, _ = run_of(student, target, recipe, teacher=teacher, evaluate=score)
    run.run()
    with torch.no_grad():
        dense_like = outputs[0]  # rounded, whole
    assert len(outputs) == 2
    assert outputs[1].shape == dense_like.shape


def test_the_penalty_reaches_exp_minus_seven_at_the_milestone(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    name = next(n for n, count in target.items() if count)
    recipe = replace(RECIPE, steps=24, pruning=0.99, milestones=1, learning_rate=1e-7, weight_decay=0.0)
    run, told = run_of(student, {name: target[name]}, recipe, teacher=teacher)
    snapshots: list[Tensor] = []
    consumer = name.replace("conv_pw", "conv_pwl")
    inner = run._end  # the network just before channels go

    def spy(phase: Any) -> None:
        weight = run._model.get_submodule(consumer).weight
        snapshots.append(
            weight[:, phase.going[name]].detach().abs().max()
            / phase.before.get_submodule(consumer).weight[:, phase.going[name]].abs().max()
        )
        inner(phase)

    run._end = spy  # type: ignore[method-assign]
    run.run()
    assert snapshots[0].item() == pytest.approx(torch.e**-7, rel=0.1)
    assert told


def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    states: list[dict[str, Any]] = []
    whole, _ = run_of(student, target, teacher=teacher)
    expected = whole.run(save=lambda state: states.append(copy.deepcopy(state)), save_every=2)
    x = picture(SIZE, 4, seed=5)
    for state in states:
        again, _ = run_of(student, target, teacher=teacher)
        again.restore(state)
        torch.testing.assert_close(again.run()(x), expected(x), atol=1e-4, rtol=1e-3)
        assert again.kept == whole.kept


def test_a_saved_run_of_another_recipe_or_a_damaged_one_is_refused(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    run, _ = run_of(student, target, teacher=teacher)
    state = run.state()
    other, _ = run_of(student, target, replace(RECIPE, seed=1), teacher=teacher)
    with pytest.raises(UsageError, match="another seed"):
        other.restore(state)
    with pytest.raises(ModelError, match="damaged"):
        run.restore({**state, "network": {}})


def test_the_gate_takes_a_phase_back_and_the_run_recovers_with_what_it_has(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    calls = 0

    def score(_: GraphModule) -> float:
        nonlocal calls
        calls += 1
        return 1.0 if calls < 3 else 0.5  # whole, after milestone 1, then never again

    recipe = replace(RECIPE, steps=40, retries=1)
    run, told = run_of(student, target, recipe, teacher=teacher, evaluate=score)
    result = run.run()
    passed = [m.passed for m in run.milestones]
    assert passed == [True, False, False]
    kept = {name: len(alive) for name, alive in run.kept.items()}
    assert kept == dict(run.milestones[0].kept), "what the last good milestone had"
    assert any("lets nothing more go" in line for line in told)
    with torch.no_grad():
        assert torch.isfinite(result(picture(SIZE))).all()


def test_steps_that_end_inside_a_phase_leave_no_half_pressed_channels(
    student: GraphModule, target: dict[str, int], teacher: DenseTeacher
) -> None:
    scores = iter([1.0, 0.0])  # the first phase is taken back, the next one is twice as long: 3 + 6 steps of 8
    recipe = replace(RECIPE, steps=8, pruning=0.75, milestones=2, learning_rate=1e-9, weight_decay=0.0)
    run, told = run_of(student, target, recipe, teacher=teacher, evaluate=lambda _: next(scores))
    result = run.run()
    assert told[-1] == "the steps ended inside a phase: it is taken back"
    for name, layer in result.named_modules():
        if isinstance(layer, FoldedConv2d):
            torch.testing.assert_close(layer.weight, student.get_submodule(name).weight, atol=1e-5, rtol=0)  # type: ignore[arg-type]


def test_a_network_follows_its_teacher_better_after_the_run(
    student: GraphModule, dense: GraphModule, teacher: DenseTeacher
) -> None:
    def distance(model: GraphModule) -> float:
        with torch.no_grad():
            return float((model(picture(SIZE, 16, seed=77)) - dense(picture(SIZE, 16, seed=77))).square().mean())

    coarse = with_fake_quantisation(
        dense, {n: 4 for n, m in dense.named_modules() if isinstance(m, nn.Conv2d)}, [picture(SIZE, 8)]
    )
    recipe = replace(RECIPE, steps=150, labels=0.0, features=0.0, average=0.9, learning_rate=2e-3)
    run, _ = run_of(coarse, {}, recipe, teacher=teacher)
    assert distance(run.run()) < 0.9 * distance(coarse)  # 0.76 to 0.83, by the processor's arithmetic


def test_several_classes_are_learnt_too() -> None:
    torch.manual_seed(0)
    dense = traced(settle(ResNet18(width=8, outputs=3)), picture(SIZE))
    layer = (
        "layer4.1.conv2" if "layer4.1.conv2" in dict(dense.named_modules()) else list(dict(dense.named_modules()))[-3]
    )
    groups = [
        g for g in channel_groups(dense, picture(SIZE)) if g.prunable and layer not in (*g.producers, *g.carriers)
    ]

    class Classes(Noise):
        def batches(self, first: int) -> Iterator[Batch]:
            for batch in super().batches(first):
                yield Batch(batch.inputs, torch.tensor([0, 1, 2, 1]))

    run = JointRun(
        with_fake_quantisation(dense, {}, [picture(SIZE, 4)]),
        {g.name: g.channels // 2 for g in groups[:2]},
        RECIPE,
        Classes(),
        layer,
        DenseTeacher(dense, layer),
        tell=lambda _: None,
    )
    assert run.run()(picture(SIZE)).shape == (2, 3)


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ({"nothing": 4}, "nothing cannot be pruned: there is no such group"),
        ({"blocks.1.0.conv_pw": 0}, "cannot keep 0"),
        ({"blocks.1.0.conv_pw": 10_000}, "cannot keep 10000"),
        ({LAYER: 8}, "compared with the teacher's|cannot be pruned"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(student: GraphModule, target: dict[str, int], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        run_of(student, target)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"pruning": 1.0}, "pruning must be between 0 and 1"),
        ({"steps": 4, "pruning": 0.25, "milestones": 2}, "too few for 2 milestones"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"max_drop": 0.0}, "max_drop"),
        ({"labels": 0.0, "logits": 0.0}, "labels or logits"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        replace(RECIPE, **change)


def test_losses_are_those_of_torch_and_vanish_at_the_teacher() -> None:
    logits, classes = torch.randn(5, 1), torch.randn(5, 3)
    binary = per_sample_loss(logits, torch.tensor([0.0, 1, 0, 1, 1]))
    expected = -torch.where(
        torch.tensor([0.0, 1, 0, 1, 1]) > 0, logits[:, 0].sigmoid(), 1 - logits[:, 0].sigmoid()
    ).log()
    torch.testing.assert_close(binary, expected)
    assert per_sample_loss(classes, torch.tensor([0, 1, 2, 0, 1])).shape == (5,)
    for same in (logits, classes):
        assert logit_loss(same, same).item() == pytest.approx(0.0, abs=1e-6)
        assert logit_loss(same, same + torch.randn_like(same)).item() > 0


def test_a_batch_comes_apart_into_parts_with_their_answers() -> None:
    batch = Batch(torch.randn(5, 3, 8, 8), torch.arange(5.0), torch.randn(5, 1), pooled(torch.randn(5, 2, 8, 8)))
    cut = list(parts(batch, 2))
    assert [len(part.inputs) for part in cut] == [2, 2, 1]
    for field in ("inputs", "targets", "logits", "features"):
        torch.testing.assert_close(torch.cat([getattr(part, field) for part in cut]), getattr(batch, field))
