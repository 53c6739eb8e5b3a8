"""A pool of training pairs with the teacher's answers, made once and read many times.

Forging a pair and asking the dense teacher cost more than a step of the small student: both are done once, on disk.
Pairs are those of training (:mod:`detector.training.pairs`), cut at every input size that a policy may choose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from compression.examples import GRID, Batch
from compression.joint import Teacher
from detector.training.backbone import normalise
from detector.training.pairs import PairMaker
from detector.training.workers import one_thread
from detector.types import ModelError, OutputError, UInt8Array

_MADE = "made.json"
_LOGITS, _FEATURES = "logits.npy", "features.npy"


@dataclass(frozen=True, slots=True)
class Pool:
    """Pairs on disk.

    Attributes:
        folder: where they lie.
        size: side of the crops to read, px; one of those that the pool was made for.
        pairs: in a batch; the network sees twice as many crops.
        seed: of their order.
    """

    folder: Path
    size: int
    pairs: int
    seed: int = 0

    def __len__(self) -> int:
        return len(self._open(_LOGITS))

    def batches(self, first: int) -> Iterator[Batch]:
        """Endless batches, every pass in an order of its own (see :class:`~compression.examples.Examples`).

        Inputs are float (2 * pairs, 3, size, size), normalised, channels last: real, fake, real, fake ...

        Raises:
            ModelError: the pool is damaged.
        """
        crops, logits, features = (self._open(name) for name in (_crops(self.size), _LOGITS, _FEATURES))
        steps = max(1, len(logits) // self.pairs)
        step = first
        while True:
            turn, at = divmod(step, steps)
            order = np.random.default_rng([self.seed, turn]).permutation(len(logits))
            chosen = np.sort(order[at * self.pairs : (at + 1) * self.pairs])
            pixels = crops[chosen].reshape(-1, *crops.shape[2:])  # (2p, S, S, 3), a copy
            yield Batch(
                normalise(torch.from_numpy(pixels)).contiguous(memory_format=torch.channels_last),
                torch.tensor([0.0, 1.0]).repeat(len(chosen)),
                torch.from_numpy(logits[chosen].reshape(-1, 1)),
                torch.from_numpy(features[chosen].reshape(-1, *features.shape[2:]).astype(np.float32)),
            )
            step += 1

    def crops(self, pairs: int) -> UInt8Array:
        """The crops of the first ``pairs`` pairs, uint8 RGB (2 * pairs, size, size, 3)."""
        crops = self._open(_crops(self.size))
        return np.array(crops[:pairs]).reshape(-1, *crops.shape[2:])

    def _open(self, name: str) -> NDArray[Any]:
        try:
            return cast(NDArray[Any], np.load(self.folder / name, mmap_mode="r"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.folder / name}: the pool is damaged ({error}); remove {self.folder}") from error


def make_pool(
    folder: Path,
    maker: PairMaker,
    identity: str,
    sizes: Sequence[int],
    teacher: Teacher,
    teacher_size: int,
    *,
    workers: int = 2,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Makes a pool of all pairs of ``maker`` in ``folder``; one that is there, of the same making, is left as it is.

    Args:
        folder: made when it is not there.
        maker: of the pairs; its length is the pool's.
        identity: what the pairs are made of (data, mix, seed) and who answers, in any form: a pool of another identity
            is made anew.
        sizes: of the crops, px.
        teacher: asked about every crop.
        teacher_size: side of the crops that it takes, px.
        workers: processes that make pairs.
        tell: is told how many pairs are done, of how many.

    Raises:
        OutputError: the folder cannot be written.
    """
    made = hashlib.sha256(repr((identity, tuple(sizes), teacher_size, len(maker))).encode()).hexdigest()
    if _read_made(folder) == made:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MADE).unlink(missing_ok=True)
        _fill(folder, maker, sizes, teacher, teacher_size, workers, tell)
        (folder / _MADE).write_text(json.dumps({"made_of": made}))  # last: without it the pool is not whole
    except OSError as error:
        raise OutputError(f"{folder}: the pool cannot be written ({error.strerror}); choose another --out") from error


def _read_made(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / _MADE).read_text())["made_of"])
    except (OSError, ValueError, KeyError):
        return None


def _fill(
    folder: Path,
    maker: PairMaker,
    sizes: Sequence[int],
    teacher: Teacher,
    teacher_size: int,
    workers: int,
    tell: Callable[[int, int], None],
) -> None:
    files = {size: _new(folder / _crops(size), (len(maker), 2, size, size, 3), np.uint8) for size in sizes}
    logits = features = None
    loader: DataLoader[tuple[UInt8Array, ...]] = DataLoader(
        cast(Any, _AtSizes(maker, (*sizes, teacher_size))),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=one_thread,
        multiprocessing_context="spawn" if workers else None,
    )
    for i, (*crops, for_teacher) in enumerate(loader):
        for size, pair in zip(sizes, crops, strict=True):
            files[size][i] = pair
        answer, seen = _ask(teacher, for_teacher)
        if logits is None or features is None:
            logits = _new(folder / _LOGITS, (len(maker), *answer.shape), np.float32)
            features = _new(folder / _FEATURES, (len(maker), *seen.shape), np.float16)
        logits[i], features[i] = answer, seen
        tell(i + 1, len(maker))


class _AtSizes:
    """Pairs as crops of several sizes: a map-style data set for torch's loaders."""

    def __init__(self, maker: PairMaker, sizes: tuple[int, ...]) -> None:
        self._maker, self._sizes = maker, sizes

    def __len__(self) -> int:
        return len(self._maker)

    def __getitem__(self, number: int) -> tuple[UInt8Array, ...]:
        if number >= len(self._maker):
            raise IndexError(number)
        return tuple(pair.crops for pair in self._maker.at_sizes(number, self._sizes))


def _ask(teacher: Teacher, crops: UInt8Array | Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Answers about a pair: logits (2, outputs) and features (2, channels, GRID, GRID)."""
    inputs = normalise(torch.as_tensor(crops)).contiguous(memory_format=torch.channels_last)
    logits, features = teacher.answer(inputs)
    assert features.shape[-1] == GRID
    return logits.float().numpy(), features.float().numpy()


def _new(path: Path, shape: tuple[int, ...], dtype: type) -> NDArray[Any]:
    return cast(NDArray[Any], np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape))


def _crops(size: int) -> str:
    return f"crops_{size}.npy"
