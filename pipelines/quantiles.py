"""Quantiles of a stream of latencies in fixed memory."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from detector.types import IntArray

LOWEST_MS: Final = 1e-3
HIGHEST_MS: Final = 1e5
# Each bin is 1 % wider than the one before, so its middle is within 0.5 % of every value in it.
_LOG_RATIO: Final = math.log(1.01)
_BINS: Final = math.ceil(math.log(HIGHEST_MS / LOWEST_MS) / _LOG_RATIO)


class Quantiles:
    """A histogram of latencies with log-spaced bins: 1 % resolution from 0.001 ms to 100 s, 15 KB whatever comes.

    Below that range a value counts as the lowest it can tell (or as the largest seen, if that is smaller); above it,
    as the largest seen. The smallest and the largest value are kept exactly.

    Attributes:
        count: values added.
    """

    def __init__(self) -> None:
        # Bin 0 is everything below the range, the last one everything above.
        self._bins: IntArray = np.zeros(_BINS + 2, np.int64)
        self.count = 0
        self._min = math.inf
        self._max = -math.inf

    def add(self, value_ms: float) -> None:
        """Adds one latency in ms.

        Raises:
            ValueError: it is negative or not finite.
        """
        if not (math.isfinite(value_ms) and value_ms >= 0.0):
            raise ValueError(f"a latency is a finite number of ms, 0 or more, got {value_ms}")
        self._bins[_bin_of(value_ms)] += 1
        self.count += 1
        self._min = min(self._min, float(value_ms))
        self._max = max(self._max, float(value_ms))

    def merge(self, other: Quantiles) -> None:
        """Adds everything that ``other`` has seen."""
        self._bins += other._bins
        self.count += other.count
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)

    def quantile(self, q: float) -> float | None:
        """The ``q``-quantile in ms, interpolated as ``numpy.quantile`` does, within 1 %; None before the first value.

        Raises:
            ValueError: ``q`` is not in 0..1.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"q must be in 0..1, got {q}")
        if self.count == 0:
            return None
        position = q * (self.count - 1)
        rank = math.floor(position)
        low = self._value_at(rank)
        high = self._value_at(min(rank + 1, self.count - 1))
        return low + (high - low) * (position - rank)

    @property
    def max(self) -> float | None:
        """The largest value in ms, exact; None before the first."""
        return self._max if self.count else None

    def _value_at(self, rank: int) -> float:
        """The value at ``rank`` (from 0) of the sorted stream, as far as the bins can tell."""
        if rank == 0:
            return self._min
        if rank == self.count - 1:
            return self._max
        which = int(np.searchsorted(np.cumsum(self._bins), rank, side="right"))
        if which > _BINS:
            return self._max
        middle = LOWEST_MS * math.exp((which - 0.5) * _LOG_RATIO) if which > 0 else LOWEST_MS
        return min(max(middle, self._min), self._max)


def _bin_of(value_ms: float) -> int:
    if value_ms < LOWEST_MS:
        return 0
    return min(1 + math.floor(math.log(value_ms / LOWEST_MS) / _LOG_RATIO), _BINS + 1)
