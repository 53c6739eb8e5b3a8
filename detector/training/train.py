"""The training loop: pairs in, checkpoints and a log out. Stops at any step and goes on from its last checkpoint.

One process on a CPU or a GPU, or several under ``accelerate launch``: devices, gradient exchange and mixed precision
are Accelerate's.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Sampler

from detector.training.backbone import EfficientNetLite, imagenet_backbone, load_checkpoint
from detector.training.pairs import Pair, PairMaker
from detector.training.recipe import Recipe
from detector.training.runlog import RunLog
from detector.training.samples import SampleStore
from detector.training.scorer import RUN_TIME_MARGIN
from detector.training.step import PREFIX_BATCH, Step, learning_rate
from detector.training.validation import ValidationSet, mean_auc
from detector.training.workers import one_thread
from detector.types import ModelError, OutputError, UsageError

LAST, BEST, FINAL = "last.pt", "best.pt", "final.pt"
_LOG_EVERY = 10
_PATIENCE = timedelta(hours=2)  # of the other processes, while the main one validates


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run finds its data and leaves its results.

    Attributes:
        data, validation: folders of shards.
        out: the run's folder.
        workers: processes that make pairs.
        threads: of the network on a CPU; torch's choice when None.
    """

    data: tuple[Path, ...]
    validation: tuple[Path, ...]
    out: Path
    workers: int = 2
    threads: int | None = None


@dataclass(slots=True)
class _State:
    """All that changes while a run goes on; ``trained_on`` is a digest of its data."""

    backbone: EfficientNetLite
    average: AveragedModel
    optimiser: Optimizer
    trained_on: str
    processes: int
    step: int = 0
    best_auc: float = -1.0
    seconds: float = 0.0
    left_out: int = 0


def train(recipe: Recipe, places: Places, tell: Callable[[str], None] = print) -> None:
    """Trains as ``recipe`` says; goes on where an earlier run in ``places.out`` stopped.

    Leaves there ``best.pt`` (the averaged weights with the best validation AUC) and ``final.pt``, state dicts in fp16;
    ``last.pt``, from which a run goes on; ``log.csv`` and ``log.png``.

    Raises:
        UsageError: ``places.out`` holds a run of another recipe, on other data or with more steps.
        OutputError: ``places.out`` cannot be written.
        NothingToAnalyseError: the shards hold nothing to train on, or a validation set lacks a class.
        ModelError: the checkpoint to start from, or ``last.pt``, is missing or damaged.
    """
    patience = InitProcessGroupKwargs(timeout=_PATIENCE)
    accelerator = Accelerator(
        mixed_precision=_precision(recipe), cpu=not torch.cuda.is_available(), kwargs_handlers=[patience]
    )
    tell = tell if accelerator.is_main_process else _say_nothing
    torch.manual_seed(recipe.seed)
    if places.threads is not None:
        torch.set_num_threads(places.threads)
    store = SampleStore(*places.data)
    for damage in store.damaged:
        tell(f"damaged: {damage.shard}: {damage.reason}")
    state = _begin(recipe, places.out, accelerator, _digest(store))
    watch = _Watch.of(recipe, places, state, accelerator, tell)
    tell(
        f"{len(store)} samples; {recipe.steps} steps of {recipe.pairs} pairs on {accelerator.device}, from {state.step}"
    )
    step = Step(recipe, state.backbone, state.average, state.optimiser, accelerator)
    for pairs, kinds, failed in _batches(recipe, places, store, state, accelerator):
        began = time.monotonic()
        for name in failed:
            tell(f"left out: {name}")
        measured = step(state.step, pairs, kinds)
        state.step += 1
        state.left_out += len(failed)
        state.seconds += time.monotonic() - began
        if not math.isfinite(measured["loss"]):
            raise ModelError(
                f"the loss of step {state.step} is {measured['loss']}; start again with a lower learning_rate"
            )
        if watch is not None:
            watch.look(measured)
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _save_weights(state.average.module, places.out / FINAL)
        best = f"; best validation AUC {state.best_auc:.4f} in {places.out / BEST}" if places.validation else ""
        tell(f"done: {places.out / FINAL}{best}; damaged samples replaced: {state.left_out}")


def _precision(recipe: Recipe) -> str:
    if recipe.precision == "auto":
        has_it = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if has_it else "no"
    return "bf16" if recipe.precision == "bf16" else "no"


# --------------------------------------------------------------------------------------------------- beginning


def _say_nothing(_: str) -> None:
    """What the processes beside the main one tell."""


def _digest(store: SampleStore) -> str:
    """What identifies the samples and their order: pair numbers mean something only with the same ones."""
    return hashlib.sha256(repr(store.origins).encode("utf-8", "surrogateescape")).hexdigest()


def _begin(recipe: Recipe, out: Path, accelerator: Accelerator, trained_on: str) -> _State:
    """A new run, or the one that ``out`` holds."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error.strerror}; choose another --out") from None
    backbone = imagenet_backbone() if recipe.start == "imagenet" else load_checkpoint(Path(recipe.start))
    backbone = backbone.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer in [backbone.conv_stem, backbone.bn1, *list(backbone.blocks)[: recipe.frozen_stages]]:
        layer.requires_grad_(recipe.frozen_stages == 0)
    average = AveragedModel(backbone, multi_avg_fn=get_ema_multi_avg_fn(recipe.average), use_buffers=True)  # type: ignore[no-untyped-call]
    state = _State(backbone, average, _optimiser(recipe, backbone), trained_on, accelerator.num_processes)
    if (out / LAST).exists():
        _restore(state, out / LAST, recipe)
    return state


def _optimiser(recipe: Recipe, backbone: nn.Module) -> Optimizer:
    trained = [p for p in backbone.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _batches(
    recipe: Recipe, places: Places, store: SampleStore, state: _State, accelerator: Accelerator
) -> Iterator[tuple[Tensor, Tensor, tuple[str, ...]]]:
    """The batches still to come, as crops uint8 (n, 2, S, S, 3), kinds (n,), and samples that could not be read."""
    each_step = recipe.pairs * accelerator.num_processes
    maker = PairMaker(store, recipe.mix, recipe.seed, recipe.steps * each_step)
    first = state.step * each_step + accelerator.process_index * recipe.pairs
    loader = DataLoader(
        cast(Any, maker),  # a map-style data set by its methods
        batch_sampler=_Numbers(first, recipe.pairs, each_step, recipe.steps - state.step),
        num_workers=places.workers,
        collate_fn=_collate,
        worker_init_fn=one_thread,
        persistent_workers=False,
        prefetch_factor=4 if places.workers else None,
        pin_memory=accelerator.device.type == "cuda",
        # Spawned: a forked child of a process with threads (torch's, OpenCV's) may hang.
        multiprocessing_context="spawn" if places.workers else None,
    )
    for crops, kinds, failed in loader:
        yield crops.to(accelerator.device, non_blocking=True), kinds.to(accelerator.device), failed


class _Numbers(Sampler[list[int]]):
    """The numbers of the pairs of every batch that is still to come, for one process of several."""

    def __init__(self, first: int, pairs: int, stride: int, batches: int) -> None:
        self._first, self._pairs, self._stride, self._batches = first, pairs, stride, batches

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(self._batches):
            at = self._first + i * self._stride
            yield list(range(at, at + self._pairs))

    def __len__(self) -> int:
        return self._batches


def _collate(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    crops = torch.stack([torch.from_numpy(pair.crops) for pair in pairs])
    return crops, torch.tensor([pair.kind for pair in pairs]), tuple(name for pair in pairs for name in pair.failed)


# --------------------------------------------------------------------------------------------------- watching


@dataclass(frozen=True, slots=True)
class _Watch:
    """Logs every step; validates and saves when it is time."""

    recipe: Recipe
    out: Path
    state: _State
    sets: Sequence[ValidationSet]
    log: RunLog
    device: torch.device
    tell: Callable[[str], None]

    @classmethod
    def of(
        cls, recipe: Recipe, places: Places, state: _State, accelerator: Accelerator, tell: Callable[[str], None]
    ) -> _Watch | None:
        """The watch of the main process; None in the others, which need no validation data."""
        if not accelerator.is_main_process:
            return None
        sets = [ValidationSet(folder, recipe.mix.size, RUN_TIME_MARGIN) for folder in places.validation]
        for damage in (damage for each in sets for damage in each.damaged):
            tell(f"damaged: {damage.shard}: {damage.reason}")
        log = RunLog(places.out, recipe.to_json(), [each.name for each in sets], step=state.step)
        return cls(recipe, places.out, state, sets, log, accelerator.device, tell)

    def look(self, measured: dict[str, float]) -> None:
        """After a step that measured ``measured``."""
        state, last = self.state, self.state.step == self.recipe.steps
        self.log.add(measured)
        if state.step % _LOG_EVERY == 0 or last:
            self.log.write(state.step, learning_rate(self.recipe, state.step - 1), state.seconds)
        if state.step % self.recipe.validate_every == 0 or last:
            self._validate()
            _save_state(state, self.recipe, self.out / LAST)
            self.log.plot()

    def _validate(self) -> None:
        """Scores the averaged weights, and keeps them when they are the best so far."""
        state, network = self.state, self.state.average.module
        batch = PREFIX_BATCH if self.device.type == "cpu" else 256
        scores = [each.score(network, self.device, batch) for each in self.sets]
        if not scores:
            return
        self.log.validated(state.step, scores)
        words = [
            f"{each.name} AUC {score.auc:.4f} (real {score.real_mean:.2f}, fake {score.fake_mean:.2f})"
            for each, score in zip(self.sets, scores, strict=True)
        ]
        self.tell(f"step {state.step}: {', '.join(words)}; {self.log.line()}")
        if mean_auc(scores) > state.best_auc:
            state.best_auc = mean_auc(scores)
            _save_weights(network, self.out / BEST)


def _save_weights(network: nn.Module, path: Path) -> None:
    """The state dict in fp16, whole or not at all."""
    halves = {k: v.cpu().half() if v.is_floating_point() else v.cpu() for k, v in network.state_dict().items()}
    _save(halves, path)


def _save_state(state: _State, recipe: Recipe, path: Path) -> None:
    _save(
        {
            "recipe": recipe.to_json(),
            "trained_on": state.trained_on,
            "processes": state.processes,
            "step": state.step,
            "best_auc": state.best_auc,
            "seconds": state.seconds,
            "left_out": state.left_out,
            "backbone": state.backbone.state_dict(),
            "average": state.average.state_dict(),
            "optimiser": state.optimiser.state_dict(),
        },
        path,
    )


def _save(data: object, path: Path) -> None:
    """Torch's file, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def _restore(state: _State, path: Path, recipe: Recipe) -> None:
    """Fills ``state`` from a checkpoint of the same recipe; more steps may be asked for than before."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        theirs = kept["recipe"]
        differing = [
            k for k, v in recipe.to_json().items() if k not in ("steps", "validate_every") and theirs.get(k) != v
        ]
        if differing:
            raise UsageError(f"{path}: belongs to a run with another {', '.join(differing)}; choose another --out")
        if (kept["trained_on"], kept["processes"]) != (state.trained_on, state.processes):
            raise UsageError(f"{path}: belongs to a run on other data or processes; choose another --out")
        if kept["step"] > recipe.steps:
            raise UsageError(f"{path}: has done {kept['step']} steps already; ask for more than that, or another --out")
        state.backbone.load_state_dict(kept["backbone"])
        state.average.load_state_dict(kept["average"])
        state.optimiser.load_state_dict(kept["optimiser"])
        state.step, state.best_auc, state.seconds, state.left_out = (
            kept[key] for key in ("step", "best_auc", "seconds", "left_out")
        )
    except UsageError:
        raise
    except Exception as error:  # torch's reader raises many kinds
        raise ModelError(f"{path} is damaged ({type(error).__name__}); remove it to start again") from error
