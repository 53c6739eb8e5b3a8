"""The detector as a subject of compression: pools of pairs to learn from, prepared faces to be judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from compression.calibrate import PIXEL_RANGE
from compression.deciding import Tell
from compression.examples import Batch
from compression.export import finish
from compression.hqp import Compression
from compression.joint import Teacher
from compression.policy import Policy
from compression.pool import Pool, make_pool
from compression.recipe import DetectorRecipe
from compression.start import Start
from compression.subject import Subject
from compression.workspace import digest
from detector.training.pairs import PairMaker
from detector.training.samples import SampleStore
from detector.training.validation import ValidationSet, mean_auc
from detector.types import UsageError

_VALIDATION_BATCH = 4


@dataclass(frozen=True, slots=True)
class Places:
    """Where a compression finds its data and leaves its results.

    Attributes:
        data, validation: folders of shards.
        out: of the results.
        pool: of the pairs; in ``out`` when None.
        workers: processes that make pairs.
        threads: of the network; torch's choice when None.
    """

    data: tuple[Path, ...]
    validation: tuple[Path, ...]
    out: Path
    pool: Path | None = None
    workers: int = 2
    threads: int | None = None


def detector_compression(
    recipe: DetectorRecipe,
    start: Start,
    places: Places,
    policy: Policy | None = None,
    frame_ms: Callable[[], float] | None = None,
    tell: Tell = print,
) -> Compression:
    """The phases, ready to run; makes the pool when it is not there.

    Args:
        recipe: what is asked.
        start: the dense network.
        places: data and results.
        policy: one that is given; None when it is to be found.
        frame_ms: see :class:`compression.hqp.Compression`.
        tell: is told what happens, a line each.

    Raises:
        UsageError: ``policy`` is for an input size that the recipe has not.
        NothingToAnalyseError: the shards hold nothing to learn from, or a validation set lacks a class.
        OutputError: a folder cannot be written.
    """
    if policy is not None and policy.input_size not in recipe.sizes:
        named = ", ".join(map(str, recipe.sizes))
        raise UsageError(f"the policy is for {policy.input_size} px, the recipe's sizes are {named}; add it there")
    if places.threads is not None:
        torch.set_num_threads(places.threads)
    size = recipe.teacher_size if start.card is None else start.card.input_size
    subject = Subject.of(start.network, {size: _Noise(size)}, PIXEL_RANGE)
    folder = places.pool or places.out / "pool"
    _fill_pool(folder, recipe, start, places, subject.teacher(), size, tell)
    sizes = recipe.sizes if policy is None else (policy.input_size,)
    return Compression(
        subject.with_examples({each: Pool(folder, each, recipe.pairs, recipe.joint.seed) for each in sizes}),
        recipe,
        places.out,
        evaluate=_Auc(places.validation, start.margin) if places.validation else None,
        finish=finish,
        dense_size=size,
        frame_ms=frame_ms,
        tell=tell,
    )


def pool_identity(recipe: DetectorRecipe, start: Start, store: SampleStore) -> str:
    """What a pool is made of: samples, mix, seed, and who answers."""
    return digest("pool", start.network, store.origins, asdict(recipe.mix), recipe.seed)


def _fill_pool(
    folder: Path, recipe: DetectorRecipe, start: Start, places: Places, teacher: Teacher, size: int, tell: Tell
) -> None:
    store = SampleStore(*places.data)
    for damage in store.damaged:
        tell(f"damaged: {damage.shard}: {damage.reason}")
    make_pool(
        folder,
        PairMaker(store, recipe.mix, recipe.seed, recipe.pool_pairs),
        pool_identity(recipe, start, store),
        recipe.sizes,
        teacher,
        size,
        workers=places.workers,
        tell=_Every(max(1, recipe.pool_pairs // 20), tell),
    )


class _Auc:
    """The mean AUC of the validation sets, at crops of any size (see :data:`compression.hqp.Evaluate`)."""

    def __init__(self, folders: tuple[Path, ...], margin: float) -> None:
        self._folders, self._margin, self._sets = folders, margin, dict[int, list[ValidationSet]]()

    def __call__(self, network: nn.Module, size: int) -> float:
        if size not in self._sets:
            self._sets[size] = [ValidationSet(folder, size, self._margin) for folder in self._folders]
        cpu = torch.device("cpu")
        return mean_auc([each.score(network, cpu, _VALIDATION_BATCH) for each in self._sets[size]])


@dataclass(frozen=True, slots=True)
class _Noise:
    """Noise, for looking at a network before there are examples."""

    size: int

    def batches(self, first: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(first)
        yield Batch(torch.randn(2, 3, self.size, self.size, generator=generator), torch.zeros(2))


class _Every:
    """Tells how many pairs are made, now and then."""

    def __init__(self, every: int, tell: Tell) -> None:
        self._every, self._tell = every, tell

    def __call__(self, done: int, of: int) -> None:
        if done % self._every == 0 or done == of:
            self._tell(f"pool: {done} of {of} pairs")
