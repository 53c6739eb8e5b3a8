"""A plain loader of (inputs, targets) as examples to compress with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from compression.examples import Batch
from detector.types import NothingToAnalyseError, UsageError


@dataclass(frozen=True, slots=True)
class LoaderExamples:
    """The batches of a loader, round and round (see :class:`~compression.examples.Examples`).

    A run that was stopped goes on with the same batches only if the loader gives the same ones every time it is read:
    ``shuffle=False``, or a sampler with a seed.

    Attributes:
        loader: gives pairs of inputs, float (n, c, S, S), and targets (n,), and can be read again: a DataLoader, a
            list.
    """

    loader: Iterable[Sequence[Tensor]]

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches of steps ``first``, ``first`` + 1, ...

        Raises:
            NothingToAnalyseError: the loader gives nothing.
            UsageError: it gives something else than pairs of tensors.
        """
        skip = first
        while True:
            length = 0
            for item in self.loader:
                length += 1
                if length > skip:
                    yield _batch(item)
            if not length:
                raise NothingToAnalyseError(
                    "the loader gives no batch; give a list or a DataLoader, which can be read more than once"
                )
            skip = skip % length if skip >= length else 0  # whole passes need not be read


def _batch(item: object) -> Batch:
    if not (isinstance(item, Sequence) and len(item) == 2 and all(isinstance(part, Tensor) for part in item)):
        raise UsageError(f"a loader gives pairs of tensors, inputs and targets, got {type(item).__name__}")
    return Batch(item[0], item[1])
