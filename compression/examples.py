"""What compression learns from: inputs, labels, and the dense teacher's answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

GRID = 4
"""Features are compared after pooling to GRID x GRID cells: teacher and student may see inputs of different sizes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some inputs and what is known of them.

    Attributes:
        inputs: float (n, c, h, w), as the network takes them.
        targets: float (n,) of 0 and 1 for one output, int64 (n,) for several classes.
        logits: the teacher's, float (n, outputs); None when it must be asked.
        features: the teacher's, float (n, channels, GRID, GRID); None when it must be asked, or is not.
    """

    inputs: Tensor
    targets: Tensor
    logits: Tensor | None = None
    features: Tensor | None = None


class Examples(Protocol):
    """Batches without end; step ``n`` gets the same batch whenever it is asked, so that a run can go on."""

    def batches(self, first: int) -> Iterator[Batch]:
        """The batches of steps ``first``, ``first`` + 1, ..."""
        ...


def pooled(features: Tensor) -> Tensor:
    """Float (n, channels, h, w) -> (n, channels, GRID, GRID)."""
    return functional.adaptive_avg_pool2d(features, GRID)
