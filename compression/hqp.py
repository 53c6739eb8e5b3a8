"""HQP: sensitivity-aware joint quantisation and pruning of any convolutional classifier.

Four phases, each usable alone, each leaving its data in a folder: what every layer is sensitive to, a policy that keeps
the bounds on this device, weights adapted to pruning and rounding at once, and an int8 model with the proof that it is
the network that was trained. A phase whose result is there, made of the same inputs, is not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.fx import GraphModule

from compression.deciding import Decider, Finish, Tell, latency_table
from compression.delivery import Delivery, deliver
from compression.examples import Examples
from compression.fakequant import FLOAT
from compression.joint import JointRun, Teacher, per_sample_loss
from compression.latency import LatencyTable
from compression.policy import Policy
from compression.profiler import device
from compression.recipe import Recipe
from compression.sensitivity import analyse
from compression.sensitivity_map import SensitivityMap
from compression.sensitivity_plot import heat_map
from compression.student import check_policy, rounding
from compression.subject import Subject
from compression.workspace import Workspace, digest
from detector.types import UsageError

SENSITIVITY, POLICY, STATE, REPORT, MODEL = "sensitivity", "policy.json", "state.pt", "report.json", "model.onnx"
PHASES = ("sensitivity", "policy", "joint", "export")

Evaluate = Callable[[nn.Module, int], float]
"""(network, input size) -> its score, higher is better, 1 at best."""


class Compression:
    """The phases on one subject; each does what those before it have not done yet.

    Args:
        subject: the dense network and its examples.
        recipe: what is asked.
        folder: of the results; an interrupted run goes on there.
        evaluate: the gate at milestones, and the figures of the report; None for neither.
        finish: a core -> the form that is deployed; a core is deployed as it is when None.
        teacher: asked when examples bring no answers; the dense network when None.
        dense_size: input size that the dense network is evaluated at, px; the student's when None.
        frame_ms: gives what a whole frame leaves to the network, ms; asked only when the recipe bounds frames.
        tell: is told what happens, a line each; it all goes to ``hqp.log`` as well.
    """

    def __init__(
        self,
        subject: Subject,
        recipe: Recipe,
        folder: Path,
        *,
        evaluate: Evaluate | None = None,
        finish: Finish | None = None,
        teacher: Teacher | None = None,
        dense_size: int | None = None,
        frame_ms: Callable[[], float] | None = None,
        tell: Tell = print,
    ) -> None:
        if recipe.bounds.frame_ms is not None and frame_ms is None:
            raise UsageError("bounds: frame_ms is for the detector, whose frames can be measured; name latency_ms")
        self._subject, self._recipe, self._space = subject, recipe, Workspace(folder)
        self._evaluate, self._finish = evaluate, finish or _as_it_is
        self._teacher, self._dense_size, self._frame_ms = teacher, dense_size, frame_ms
        self._told = tell

    # ----------------------------------------------------------------------------------------------- sensitivity

    def sensitivity(self) -> SensitivityMap:
        """What every layer is sensitive to: ``sensitivity.json``, ``.csv`` and ``.png``."""
        bits = tuple(b for b in self._recipe.bits if b != FLOAT)
        parts = self._subject.identity(), self._recipe.ratios, bits, self._recipe.sensitivity_images
        name, made_of = f"{SENSITIVITY}.json", digest(SENSITIVITY, *parts)
        text = self._space.text(name, made_of)
        if text is not None:
            return SensitivityMap.from_json(text, str(self._space.path(name)))
        size, images = self._subject.first_size, self._recipe.sensitivity_images
        self._tell(f"sensitivity of {len(self._subject.groups)} groups on {images} inputs of {size} px")
        pairs = _Pairs(self._subject, size, images)
        score = _score_of(pairs)
        found = analyse(
            self._subject.network,
            self._subject.groups,
            pairs,
            per_sample_loss,
            ratios=self._recipe.ratios,
            bits=bits,
            score=score,
            progress=_Progress(self._tell, images),
        )
        self._space.write(f"{SENSITIVITY}.csv", found.to_csv())
        self._space.draw(f"{SENSITIVITY}.png", lambda path: heat_map(found, path))
        self._space.write(name, found.to_json(), made_of)
        return found

    # ----------------------------------------------------------------------------------------------- policy

    def tables(self) -> dict[int, LatencyTable]:
        """What every layer costs on this device, by input size: ``latency_SIZE.json`` and ``.csv``."""
        return {size: self._table(size) for size in self._subject.examples}

    def _table(self, size: int) -> LatencyTable:
        shapes = [(name, tuple(value.shape)) for name, value in self._subject.network.state_dict().items()]
        parts = shapes, self._subject.choices(self._recipe.ratios), self._recipe.bits, self._recipe.runs, device()
        name, made_of = f"latency_{size}.json", digest("latency", size, *parts)
        text = self._space.text(name, made_of)
        if text is not None:
            return LatencyTable.from_json(text)
        self._tell(f"latency of every layer at {size} px, on this device")
        table = latency_table(self._subject, self._recipe, size, self._finish)
        self._write_table(size, table, made_of)
        return table

    def _write_table(self, size: int, table: LatencyTable, made_of: str | None) -> None:
        self._space.write(f"latency_{size}.csv", table.to_csv())
        self._space.write(f"latency_{size}.json", table.to_json(), made_of)

    def policy(self) -> Policy:
        """The policy that was found, built and measured: ``policy.json``; its rounds: ``rounds.json``.

        Raises:
            UsageError: no policy keeps the bounds; the message says what can be kept.
        """
        made_of = self._policy_digest()
        text = self._space.text(POLICY, made_of)
        if text is not None:
            return Policy.from_json(text)
        found, tables = self.sensitivity(), self.tables()
        left = None
        if self._recipe.bounds.frame_ms is not None and self._frame_ms is not None:
            left = self._frame_ms()
            self._tell(f"a frame of {self._recipe.bounds.frame_ms:g} ms leaves {left:.2f} ms to the network")
        decider = Decider(self._subject, self._recipe, found, tables, self._finish, left, self._tell)
        policy = decider.decide()
        for size, table in decider.tables.items():
            self._write_table(size, table, self._space.made_of(f"latency_{size}.json"))
        rounds = {"schema": "tellframe.rounds/1", "rounds": [each.to_json() for each in decider.rounds]}
        self._space.write("rounds.json", json.dumps(rounds, indent=1) + "\n")
        self._space.write(POLICY, policy.to_json(), made_of)
        self._tell(policy_table(policy))
        return policy

    def _policy_digest(self) -> str:
        r = self._recipe
        parts = r.ratios, r.bits, r.sensitivity_images, r.rounds, r.swaps, r.runs, asdict(r.bounds)
        return digest("policy", self._subject.identity(), *parts, device())

    def take(self, policy: Policy) -> Policy:
        """Puts a given policy in the place of one that would be found.

        Raises:
            UsageError: it is of another network, or of an input size without examples.
        """
        check_policy(self._subject, policy)
        self._space.write(POLICY, policy.to_json(), self._policy_digest())
        return policy

    # ----------------------------------------------------------------------------------------------- joint

    def joint(self, policy: Policy) -> JointRun:
        """Weights adapted to ``policy``: ``state.pt``, from which a run that was stopped goes on.

        Raises:
            UsageError: the folder holds a run of another policy, recipe or network.
            ModelError: ``state.pt`` is damaged, or training fails.
        """
        run = self.begun(policy)
        run.run(lambda state: self._space.save(STATE, state))
        self._space.save(STATE, run.state())
        return run

    def begun(self, policy: Policy) -> JointRun:
        """The run of :meth:`joint` as ``state.pt`` has it, or a new one; nothing is trained."""
        size = policy.input_size
        decided = sorted(policy.kept.items()), sorted(policy.bits.items()), size
        made_of = digest(STATE, self._subject.identity(), decided, asdict(self._recipe.joint))
        path = self._space.path(STATE)
        if self._space.made_of(STATE) not in (None, made_of):
            raise UsageError(f"{path}: belongs to a run of another policy, recipe or network; choose another --out")
        run = JointRun(
            rounding(self._subject, policy, self._recipe.calibration_images),
            {name: count for name, count in policy.kept.items() if count < policy.channels[name]},
            self._recipe.joint,
            self._subject.examples[size],
            self._subject.marks.features,
            self._teacher or self._subject.teacher(),
            None if self._evaluate is None else self._gate(size),
            self._tell,
        )
        if path.exists():
            run.restore(self._space.load(STATE))
            self._tell(f"going on from {path}")
        self._space.note(STATE, made_of)
        return run

    def _gate(self, size: int) -> Callable[[GraphModule], float]:
        evaluate = self._evaluate
        assert evaluate is not None
        return lambda network: evaluate(network, size)

    # ----------------------------------------------------------------------------------------------- export

    def export(self, policy: Policy, run: JointRun) -> Delivery:
        """The int8 model, proved and measured: ``report.json``; the model itself is the caller's to write."""
        self._tell("export: torch against ONNX, sizes, latency")
        delivery = deliver(
            self._subject, policy, run, self._recipe, self._finish, self._scores(policy, run), self._teacher
        )
        self._space.write(REPORT, json.dumps(delivery.report, indent=1, allow_nan=False) + "\n")
        for line in delivery.lines():
            self._tell(line)
        return delivery

    def _scores(self, policy: Policy, run: JointRun) -> dict[str, float] | None:
        if self._evaluate is None:
            return None
        size = policy.input_size
        dense = self._evaluate(self._subject.network, self._dense_size or size)
        return {"dense": dense, "hqp": self._evaluate(run.result(), size)}

    def _tell(self, line: str) -> None:
        self._told(line)
        with self._space.path("hqp.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def compress(
    model: nn.Module,
    examples: Examples | Mapping[int, Examples],
    folder: Path,
    *,
    recipe: Recipe | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    tell: Tell = print,
) -> Delivery:
    """All phases, one after the other; the model goes to ``model.onnx`` in ``folder``.

    Args:
        model: any convolutional classifier, float (n, c, S, S) -> logits (n, outputs); it is not changed.
        examples: inputs and labels; by input size in px where several may be chosen. A
            :class:`compression.loader.LoaderExamples` makes them of a DataLoader.
        folder: of the results; an interrupted run goes on there.
        recipe: what is asked; its default when None.
        evaluate: a network's score, higher is better, 1 at best; None for no gate.
        tell: is told what happens, a line each.

    Raises:
        ModelError: the model cannot be traced, or the result is not what was trained.
        NothingToAnalyseError, UsageError: the examples are empty or of a wrong shape, or a bound cannot be kept.
    """
    if not isinstance(examples, Mapping):
        first = next(examples.batches(0), None)
        examples = {int(first.inputs.shape[-1]) if first is not None else 0: examples}
    scored = None if evaluate is None else _at_any_size(evaluate)
    work = Compression(Subject.of(model, examples), recipe or Recipe(), folder, evaluate=scored, tell=tell)
    policy = work.policy()
    delivery = work.export(policy, work.joint(policy))
    Workspace(folder).write(MODEL, delivery.model.SerializeToString(deterministic=True))
    return delivery


def policy_table(policy: Policy) -> str:
    """The policy for people."""
    lines = [f"policy at {policy.input_size} px: {policy.predicted.latency_ms:.2f} ms, {policy.predicted.bytes:.0f} B"]
    lines += [
        f"  {name}: {policy.kept[name]} of {count}" if policy.kept[name] else f"  {name}: its block is dropped"
        for name, count in policy.channels.items()
        if policy.kept[name] < count
    ]
    widths = {b: sum(1 for each in policy.bits.values() if each == b) for b in sorted(set(policy.bits.values()))}
    lines.append("  bits: " + ", ".join(f"{count} layers of {b}" for b, count in widths.items()))
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- helpers


def _as_it_is(core: ModelProto) -> ModelProto:
    return core


def _at_any_size(evaluate: Callable[[nn.Module], float]) -> Evaluate:
    return lambda network, _size: evaluate(network)


class _Pairs:
    """The first examples of a subject as pairs of inputs and targets, which can be read again."""

    def __init__(self, subject: Subject, size: int, images: int) -> None:
        self._subject, self._size, self._images = subject, size, images

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._subject.batches(self._size, self._images):
            yield batch.inputs, batch.targets


class _Progress:
    """Tells how far the analysis is, ten times a part."""

    def __init__(self, tell: Tell, images: int) -> None:
        self._tell, self._every, self._next = tell, max(1, images // 10), dict[str, int]()

    def __call__(self, what: str, images: int) -> None:
        if images >= self._next.get(what, self._every):
            self._next[what] = images + self._every
            self._tell(f"{what}: {images} inputs")


def _score_of(pairs: _Pairs) -> Callable[[Tensor, Tensor], float] | None:
    """AUC for one output, accuracy for several; None where the targets are all of a kind."""
    targets = torch.cat([target for _, target in pairs])
    return None if bool((targets == targets[0]).all()) else _score


def _score(logits: Tensor, targets: Tensor) -> float:
    if logits.shape[1] > 1:
        return float((logits.argmax(1) == targets).float().mean())
    scores, fake = logits[:, 0].double().numpy(), targets.numpy() > 0.5
    above, ties = scores[fake][:, None] > scores[~fake], scores[fake][:, None] == scores[~fake]  # each (fakes, reals)
    return float(above.mean() + 0.5 * ties.mean())
