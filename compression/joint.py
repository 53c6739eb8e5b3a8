"""Joint optimisation: pruning and rounding act together while the weights adapt.

The network rounds from the first step on (learned step sizes). Channels that the policy does not keep are pressed
towards zero by a growing penalty (Wang et al., "Neural Pruning via Growing Regularization", ICLR 2021) and leave at
milestones, those least missed first, by a Fisher saliency that is measured anew for each; the rest of the run goes to
recovery. The teacher throughout is the dense float network: its logits and its last features (Hinton et al. 2015;
Romero et al., "FitNets", ICLR 2015). At every milestone a gate looks at accuracy: past the bound, the phase is taken
back and done again at half the pace.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compression.examples import Batch, Examples, pooled
from compression.fakequant import Activation, merge_activations, weights_once
from compression.groups import ChannelGroup, channel_groups
from compression.prune import keep_channels
from compression.sensitivity import fisher
from detector.types import ModelError, UsageError

_PRESSED_TO = 7.0
"""A channel that is to go has lost a factor of exp(7) by the milestone: taking it away changes nothing more."""
_LARGEST_GRADIENT = 5.0
_WARM_UP = 20
_FREE_IN_RECOVERY = ("steps", "learning_rate", "weight_decay", "part", "labels", "logits", "features", "average")


@dataclass(frozen=True, slots=True)
class JointRecipe:
    """How to adapt the weights.

    Attributes:
        steps: of the optimiser, in all.
        pruning: share of the steps in which channels go, in 0..1; the rest is recovery.
        milestones: times at which channels are taken away.
        learning_rate: at its peak; it rises over a few steps and falls to 0 along a cosine.
        weight_decay: on weights.
        part: inputs that go through the network at once; a batch is cut so, for the cache's sake.
        labels, logits, features: weights of the three losses: true labels, the teacher's logits, its features.
        max_drop: what the score may lose at a milestone, in its unit (1 is 100 points of AUC).
        retries: how often a phase may be taken back before the run goes on with the channels it has.
        average: decay of the average of the weights, over the recovery.
        saliency_batches: from which the Fisher saliency is measured.
        seed: of everything drawn.
    """

    steps: int = 2000
    pruning: float = 0.4
    milestones: int = 4
    learning_rate: float = 4e-4
    weight_decay: float = 1e-3
    part: int = 4
    labels: float = 0.25
    logits: float = 1.0
    features: float = 1.0
    max_drop: float = 0.03
    retries: int = 2
    average: float = 0.99
    saliency_batches: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for ok, complaint in (
            (self.steps >= 1, f"steps must be at least 1, got {self.steps}"),
            (0 < self.pruning < 1, f"pruning must be between 0 and 1, got {self.pruning}"),
            (self.milestones >= 1, f"milestones must be at least 1, got {self.milestones}"),
            (
                self.steps * self.pruning >= self.milestones,
                f"{self.steps} steps, {self.pruning:g} of them for pruning, are too few for "
                f"{self.milestones} milestones",
            ),
            (self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}"),
            (self.part >= 1, f"part must be at least 1, got {self.part}"),
            (0 <= self.average < 1, f"average must be in 0..1, got {self.average}"),
            (self.max_drop > 0, f"max_drop must be above 0, got {self.max_drop}"),
            (self.retries >= 0, f"retries must not be negative, got {self.retries}"),
            (self.saliency_batches >= 1, f"saliency_batches must be at least 1, got {self.saliency_batches}"),
            (
                min(self.weight_decay, self.labels, self.logits, self.features, self.seed) >= 0,
                "weights of losses, weight_decay and seed must not be negative",
            ),
            (self.labels + self.logits > 0, "labels or logits must weigh something"),
        ):
            if not ok:
                raise UsageError(f"joint: {complaint}")


class Teacher(Protocol):
    """What the student follows."""

    def answer(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, outputs) and pooled features of ``inputs``."""
        ...


class DenseTeacher:
    """The dense network with the features of one of its layers.

    Args:
        model: traced; it is not changed.
        layer: the module whose output is the feature (n, channels, h, w).
    """

    def __init__(self, model: GraphModule, layer: str) -> None:
        self._model, self._layer = copy.deepcopy(model).eval(), layer

    def answer(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Teacher`."""
        with torch.no_grad(), _seeing(self._model, self._layer) as seen:
            logits = self._model(inputs)
            return logits, pooled(seen[0])


@contextmanager
def _seeing(model: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Inside the block, what ``layer`` gave when ``model`` last ran stands in the list.

    The hook does not stay: networks with one cannot be copied.
    """
    seen: list[Tensor] = []

    def see(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        seen[:] = [output]

    handle = model.get_submodule(layer).register_forward_hook(see)
    try:
        yield seen
    finally:
        handle.remove()


@dataclass(frozen=True, slots=True)
class Milestone:
    """What happened at a milestone: the gate's score, whether it let the step pass, and the channels then kept."""

    step: int
    score: float | None
    passed: bool
    kept: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Phase:
    """Steps that end with a milestone, and what can be taken back of them.

    Attributes:
        number: from 1.
        begin, end: steps.
        going: positions that leave, int64, by group, among those it has now.
        consumers: layers that read each group.
        before: the network as it was.
    """

    number: int
    begin: int
    end: int
    going: Mapping[str, Tensor]
    consumers: Mapping[str, tuple[str, ...]]
    before: GraphModule


class JointRun:
    """One run, step by step. What :meth:`run` gives to ``save`` can be taken up again with :meth:`restore`.

    Args:
        student: with fake quantisation, not pruned; see :func:`compression.fakequant.with_fake_quantisation`. It is not
            changed.
        target: channels to keep by group; 0 drops a removable block; groups that are not named stay whole.
        recipe: how.
        examples: what is learnt from.
        layer: whose output is compared with the teacher's features; its channels must not be pruned.
        teacher: asked when the examples bring no answers; None when they do.
        evaluate: the score of a network, higher is better; None for no gate.
        tell: is told what happens, a line each.

    Raises:
        UsageError: ``target`` asks for what the network has not, or ``layer`` would be pruned.
    """

    def __init__(
        self,
        student: GraphModule,
        target: Mapping[str, int],
        recipe: JointRecipe,
        examples: Examples,
        layer: str,
        teacher: Teacher | None = None,
        evaluate: Callable[[GraphModule], float] | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self._recipe, self._examples, self._layer, self._teacher = recipe, examples, layer, teacher
        self._evaluate, self._tell = evaluate, tell
        self._model = copy.deepcopy(student)
        self._example = next(examples.batches(0)).inputs[:2]
        groups = {group.name: group for group in channel_groups(self._model, self._example)}
        _check_target(groups, target, layer)
        self._target = {name: count for name, count in target.items() if count < groups[name].channels}
        self._alive = {name: torch.arange(groups[name].channels) for name in self._target}
        self._full = {name: groups[name].channels for name in self._target}
        self._step, self._fitted_at, self._length = 0, 0, recipe.steps * recipe.pruning / recipe.milestones
        self._milestones: list[Milestone] = []
        self._score_before: float | None = None
        self._phase: _Phase | None = None
        self._average: AveragedModel | None = None
        self._recovering = False
        self._fit()
        if not self._target:
            self._recover()

    # ----------------------------------------------------------------------------------------------- running

    def run(self, save: Callable[[dict[str, Any]], None] = lambda _: None, save_every: int = 100) -> GraphModule:
        """Trains to the end and returns the compressed network, in eval mode.

        ``save`` gets the state before every phase, and every ``save_every`` steps of the recovery: a run that is
        stopped inside a phase begins that phase again.

        Raises:
            ModelError: a loss is not finite.
        """
        if self._evaluate is not None and self._score_before is None:
            self._score_before = self._evaluate(self._model.eval())
            self._tell(f"rounded, not pruned: score {self._score_before:.4f}")
        batches, pace = self._examples.batches(self._step), _Pace(self._tell)
        while self._step < self._recipe.steps:
            if not self._recovering and self._phase is None:
                save(self.state())
                self._phase = self._next_phase()
            losses = self._learn(next(batches))
            self._step += 1
            pace.show(self._step, losses)
            if self._phase is not None and self._step >= self._phase.end:
                self._end(self._phase)
            elif self._recovering and self._step % save_every == 0:
                save(self.state())
        if self._phase is not None:
            self._tell("the steps ended inside a phase: it is taken back")
            self._model, self._phase = self._phase.before, None
        return self.result()

    def result(self) -> GraphModule:
        """The network as it stands, a copy in eval mode: the average of the weights once there is one."""
        source = self._model if self._average is None else self._average.module
        return copy.deepcopy(cast(GraphModule, source)).eval()

    @property
    def milestones(self) -> Sequence[Milestone]:
        """What happened at the milestones so far."""
        return tuple(self._milestones)

    @property
    def kept(self) -> Mapping[str, Sequence[int]]:
        """The original indices of the channels that every pruned group still has."""
        return {name: alive.tolist() for name, alive in self._alive.items()}

    def _learn(self, batch: Batch) -> dict[str, float]:
        """One step of the optimiser; the mean losses."""
        self._set_rate()
        self._model.train()
        self._optimiser.zero_grad(set_to_none=True)
        sums = {"labels": 0.0, "logits": 0.0, "features": 0.0}
        with weights_once(self._model), _seeing(self._model, self._layer) as seen:
            for part in parts(batch, self._recipe.part):
                losses, share = self._losses(part, seen), len(part.inputs) / len(batch.inputs)
                weighted = [getattr(self._recipe, name) * value for name, value in losses.items()]
                (torch.stack(weighted).sum() * share).backward()  # type: ignore[no-untyped-call]
                for name, value in losses.items():
                    sums[name] += float(value.detach()) * share
        if not all(map(math.isfinite, sums.values())):
            raise ModelError(f"the loss of step {self._step} is not finite ({sums}); lower the learning_rate")
        nn.utils.clip_grad_norm_(self._model.parameters(), _LARGEST_GRADIENT)
        self._optimiser.step()
        if self._phase is not None:
            self._press(self._phase)
        if self._average is not None:
            self._average.update_parameters(self._model)
        return sums

    def _losses(self, batch: Batch, seen: list[Tensor]) -> dict[str, Tensor]:
        logits, features = self._answers(batch)
        got = self._model(batch.inputs)
        return {
            "labels": per_sample_loss(got, batch.targets).mean(),
            "logits": logit_loss(got, logits),
            "features": (pooled(seen[0]) - features).square().mean() / features.square().mean().clamp(min=1e-6),
        }

    def _answers(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if batch.logits is not None and batch.features is not None:
            return batch.logits, batch.features
        if self._teacher is None:
            raise UsageError("the examples bring no answers of the teacher; give a teacher to ask")
        return self._teacher.answer(batch.inputs)

    def _set_rate(self) -> None:
        rate = self._recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * self._step / self._recipe.steps))
        rate *= min(1.0, (self._step - self._fitted_at + 1) / _WARM_UP)
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def _fit(self) -> None:
        """After the network changed its shape: an optimiser for it."""
        trained = [p for p in self._model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self._recipe.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimiser = AdamW(groups, lr=self._recipe.learning_rate)
        self._fitted_at = self._step

    # ----------------------------------------------------------------------------------------------- pruning

    def _next_phase(self) -> _Phase:
        """Chooses who leaves at the next milestone: the channels with the least Fisher saliency, measured now."""
        number = 1 + sum(milestone.passed for milestone in self._milestones)
        wanted = self._wanted(number)
        groups = {g.name: g for g in channel_groups(self._model, self._example) if g.name in wanted}
        saliency = self._saliency(list(groups.values())) if groups else {}
        going = {
            name: torch.as_tensor(saliency[name]).argsort()[: groups[name].channels - count].sort().values
            for name, count in wanted.items()
        }
        end = self._step + max(1, round(self._length))
        leaving = sum(map(len, going.values()))
        self._tell(f"phase {number} of {self._recipe.milestones}, to step {end}: {leaving} channels go")
        consumers = {name: group.consumers for name, group in groups.items()}
        return _Phase(number, self._step, end, going, consumers, copy.deepcopy(self._model))

    def _wanted(self, milestone: int) -> dict[str, int]:
        """Channels to keep after ``milestone``, of the groups that lose some then; most go early (Zhu & Gupta 2017).

        Blocks go whole; the first of them at the first milestone, and none at the last.
        """
        of = self._recipe.milestones
        share = 1 - (1 - milestone / of) ** 3
        wanted = {
            name: round(self._full[name] - share * (self._full[name] - n)) for name, n in self._target.items() if n
        }
        blocks = [name for name, n in self._target.items() if not n]
        due = math.ceil(len(blocks) * milestone / max(1, of - 1))
        wanted |= dict.fromkeys(blocks[:due], 0)
        return {name: count for name, count in wanted.items() if count < len(self._alive[name])}

    def _saliency(self, groups: Sequence[ChannelGroup]) -> Mapping[str, Any]:
        batches = self._examples.batches(self._step)
        some = [next(batches) for _ in range(self._recipe.saliency_batches)]
        self._model.eval()
        inputs = [(part.inputs, part.targets) for batch in some for part in parts(batch, self._recipe.part)]
        values = fisher(self._model, groups, inputs, per_sample_loss)
        self._model.zero_grad(set_to_none=True)
        return values

    def _press(self, phase: _Phase) -> None:
        """Presses what leaves towards zero, harder with every step of the phase."""
        length = phase.end - phase.begin
        left = math.exp(-2 * _PRESSED_TO * (self._step - phase.begin + 1) / (length * (length + 1)))
        with torch.no_grad():
            for name, positions in phase.going.items():
                for layer in phase.consumers[name]:
                    module = self._model.get_submodule(layer)
                    cast(Tensor, module.weight)[:, positions] *= left
                    if not self._target[name]:  # a whole branch: its bias goes too
                        cast(Tensor, module.bias).mul_(left)

    def _end(self, phase: _Phase) -> None:
        """Takes the channels away, and lets the gate judge."""
        alive = dict(self._alive)
        kept = {name: _others(len(alive[name]), positions) for name, positions in phase.going.items()}
        self._reshape({name: stays.tolist() for name, stays in kept.items()})
        self._alive |= {name: alive[name][stays] for name, stays in kept.items()}
        self._phase = None
        score = None if self._evaluate is None else self._evaluate(self._model.eval())
        passed = score is None or score >= cast(float, self._score_before) - self._recipe.max_drop
        counts = {name: len(indices) for name, indices in self._alive.items()}
        self._milestones.append(Milestone(self._step, score, passed, counts))
        said = "" if score is None else f": score {score:.4f}{'' if passed else ', too low: taken back'}"
        self._tell(f"milestone {phase.number}, step {self._step}{said}")
        if not passed:
            self._take_back(phase, alive)
        elif phase.number == self._recipe.milestones:
            self._recover()

    def _take_back(self, phase: _Phase, alive: dict[str, Tensor]) -> None:
        """The network is as it was before ``phase``; the next try takes twice as long, until there were too many."""
        self._model, self._alive = phase.before, alive
        self._fit()
        self._length *= 2
        if sum(not milestone.passed for milestone in self._milestones) > self._recipe.retries:
            self._tell("the gate lets nothing more go: the run recovers with the channels it has")
            self._recover()

    def _recover(self) -> None:
        """From here on nothing leaves, and the weights are averaged."""
        self._recovering = True
        follow = get_ema_multi_avg_fn(self._recipe.average)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self._model, multi_avg_fn=follow)

    def _reshape(self, kept: Mapping[str, Sequence[int]]) -> None:
        self._model = merge_activations(keep_channels(self._model, self._example, kept))
        self._fit()

    # ----------------------------------------------------------------------------------------------- keeping

    def state(self) -> dict[str, Any]:
        """Everything that changes, as plain values and tensors; between phases only."""
        return {
            "recipe": asdict(self._recipe),
            "target": dict(self._target),
            "step": self._step,
            "fitted_at": self._fitted_at,
            "length": self._length,
            "score_before": self._score_before,
            "recovering": self._recovering,
            "alive": {name: indices.tolist() for name, indices in self._alive.items()},
            "milestones": [asdict(milestone) for milestone in self._milestones],
            "network": _weights(self._model),
            "zeros": {n: m.zero for n, m in self._model.named_modules() if isinstance(m, Activation)},
            "average": None if self._average is None else _weights(self._average.module),
            "averaged": 0 if self._average is None else int(self._average.n_averaged),
            "optimiser": self._optimiser.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up a run that was begun with the same student, target and recipe.

        A run that is past its last milestone may go on with more steps, and with other rates and losses.

        Raises:
            UsageError: the state belongs to another run.
            ModelError: it is damaged.
        """
        try:
            theirs, free = state["recipe"], _FREE_IN_RECOVERY if state["recovering"] else ()
            other = [key for key, value in asdict(self._recipe).items() if key not in free and theirs[key] != value]
            if other:
                raise UsageError(f"the saved run has another {', '.join(other)}; begin a new one elsewhere")
            if state["target"] != self._target:
                raise UsageError("the saved run has another target; begin a new one elsewhere")
            self._take_up(state)
        except UsageError:
            raise
        except Exception as error:
            raise ModelError(
                f"the saved run is damaged ({type(error).__name__}: {error}); remove it to begin again"
            ) from error

    def _take_up(self, state: Mapping[str, Any]) -> None:
        alive = {name: torch.tensor(indices, dtype=torch.int64) for name, indices in state["alive"].items()}
        fewer = {name: stays.tolist() for name, stays in alive.items() if len(stays) < len(self._alive[name])}
        if fewer:
            self._reshape(fewer)
        self._alive = alive
        _load(self._model, state["network"])
        for name, zero in state.get("zeros", {}).items():  # no weights: they come from what calibrated the student
            cast(Activation, self._model.get_submodule(name)).zero = zero
        self._step, self._length, self._score_before = state["step"], state["length"], state["score_before"]
        self._milestones = [Milestone(**each) for each in state["milestones"]]
        if state["recovering"]:
            self._recover()
            average = cast(AveragedModel, self._average)
            _load(average.module, state["average"])
            average.n_averaged.fill_(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        for group in self._optimiser.param_groups:  # a decay of 0, for vectors, stays
            group["weight_decay"] = self._recipe.weight_decay if group["weight_decay"] else 0.0
        self._fitted_at = state["fitted_at"]


class _Pace:
    """Tells losses and seconds a step, every 20 steps."""

    def __init__(self, tell: Callable[[str], None], every: int = 20) -> None:
        self._tell, self._every, self._sums, self._began = tell, every, dict[str, float](), time.monotonic()

    def show(self, step: int, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value / self._every
        if step % self._every == 0:
            words = ", ".join(f"{name} {value:.4f}" for name, value in self._sums.items())
            self._tell(f"step {step}: {words}; {(time.monotonic() - self._began) / self._every:.2f} s a step")
            self._sums, self._began = {}, time.monotonic()


# --------------------------------------------------------------------------------------------------- losses


def per_sample_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of every sample, (n,): binary for one output, else over classes."""
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.float(), reduction="none")
    return functional.cross_entropy(logits, targets, reduction="none")


def logit_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """How far from the teacher: Huber loss of one output, KL divergence over classes (Hinton et al. 2015)."""
    if logits.shape[1] == 1:
        return functional.smooth_l1_loss(logits, teacher)
    return functional.kl_div(logits.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)


def parts(batch: Batch, size: int) -> Iterator[Batch]:
    """``batch`` in parts of at most ``size`` inputs."""
    for at in range(0, len(batch.inputs), size):
        cut = slice(at, at + size)
        answers = (
            None if batch.logits is None else batch.logits[cut],
            None if batch.features is None else batch.features[cut],
        )
        yield Batch(batch.inputs[cut], batch.targets[cut], *answers)


# --------------------------------------------------------------------------------------------------- helpers


def _check_target(groups: Mapping[str, ChannelGroup], target: Mapping[str, int], layer: str) -> None:
    for name, count in target.items():
        group = groups.get(name)
        if group is None or not group.prunable:
            reason = "there is no such group" if group is None else group.reason
            raise UsageError(f"{name} cannot be pruned: {reason}")
        if not (0 < count <= group.channels or (count == 0 and group.removable)):
            raise UsageError(f"{name} has {group.channels} channels and cannot keep {count}")
        if layer in (*group.producers, *group.carriers) and count < group.channels:
            raise UsageError(f"{layer} is compared with the teacher's and would be pruned; compare another layer")


def _others(count: int, positions: Tensor) -> Tensor:
    """The positions in 0..count that are not in ``positions``, ascending."""
    stays = torch.ones(count, dtype=torch.bool)
    stays[positions] = False
    return stays.nonzero().flatten()


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    model.load_state_dict(dict(weights))
