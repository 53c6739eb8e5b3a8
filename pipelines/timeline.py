"""What was said so far, in a fixed number of columns: the memory behind the strip at the foot of the overlay."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from detector.types import NS_PER_S, Float32Array, FrameResult, Label

# In a column that several frames share the gravest word stays.
SEVERITY: Final = (None, Label.NO_FACE, Label.REAL, Label.UNSURE, Label.FAKE)

_FINEST_NS = NS_PER_S // 30
_SHORTEST_AXIS_NS = 10 * NS_PER_S
# A verdict stands until the next frame, but a hole longer than this is shown as a hole.
_HOLD_NS = NS_PER_S


class Timeline:
    """p(fake) and label over time.

    Without ``window_s`` it holds the whole clip up to now: when the columns are full, neighbours merge and each
    covers twice the time. With ``window_s`` it holds the last seconds and forgets the rest. Frames that share a
    column merge by maximum, so a single suspicious frame stays visible for good.

    Args:
        real_below, fake_above: thresholds of the detector, 0..1, to be drawn; None draws none.
        columns: how many columns; even.
        window_s: seconds to remember; None for the whole clip.

    Attributes:
        dropped: frames of the source lost so far.
        frames: results added so far.
    """

    def __init__(
        self,
        real_below: float | None = None,
        fake_above: float | None = None,
        *,
        columns: int = 512,
        window_s: float | None = None,
    ) -> None:
        if columns < 2 or columns % 2:
            raise ValueError(f"columns must be even and at least 2, got {columns}")
        if window_s is not None and not window_s > 0:
            raise ValueError(f"window_s must be more than 0, got {window_s}")
        self.real_below = real_below
        self.fake_above = fake_above
        self.dropped = 0
        self.frames = 0
        self._sliding = window_s is not None
        self._span_ns = _FINEST_NS if window_s is None else max(1, round(window_s * NS_PER_S / columns))
        self._p: Float32Array = np.full(columns, np.nan, np.float32)
        self._severity: NDArray[np.int8] = np.zeros(columns, np.int8)
        self._first = 0  # column of the clip that stands in column 0 of the arrays
        self._last = -1  # last column in use, counted in the arrays

    def add(self, result: FrameResult) -> None:
        """Takes the next result of the clip."""
        self.frames += 1
        self.dropped += result.dropped
        column = self._make_room(result.frame.pts_ns)
        self._hold(column)
        p_fake = result.verdict.p_fake
        self._p[column] = np.fmax(self._p[column], np.float32(np.nan if p_fake is None else p_fake))
        self._severity[column] = max(int(self._severity[column]), SEVERITY.index(result.verdict.label))
        self._last = column

    @property
    def p_fake(self) -> Float32Array:
        """float32 (n,): the largest p(fake) of every column up to now; NaN where nothing was scored."""
        return self._p[: self._last + 1]

    @property
    def severity(self) -> NDArray[np.int8]:
        """int8 (n,): the gravest label of every column up to now, an index into ``SEVERITY``; 0 where nothing is."""
        return self._severity[: self._last + 1]

    @property
    def axis_columns(self) -> int:
        """How many columns the axis has, at least n: a young timeline starts at the left and grows into it."""
        if self._sliding:
            return len(self._p)
        return min(len(self._p), max(self._last + 1, _SHORTEST_AXIS_NS // self._span_ns))

    @property
    def axis_s(self) -> tuple[float, float]:
        """Times at the two ends of the axis, in seconds of the clip."""
        start = self._first * self._span_ns / NS_PER_S
        return start, start + self.axis_columns * self._span_ns / NS_PER_S

    def _make_room(self, pts_ns: int) -> int:
        """The column for ``pts_ns``, in the arrays, after shifting or merging older ones."""
        if self._sliding:
            over = pts_ns // self._span_ns - self._first - (len(self._p) - 1)
            if over > 0:
                self._shift(min(over, len(self._p)))
                self._first += over
        else:
            while pts_ns // self._span_ns >= len(self._p):
                self._merge()
        # A time before the last one belongs to no clip we know; it must not write outside the arrays.
        return max(pts_ns // self._span_ns - self._first, self._last, 0)

    def _shift(self, by: int) -> None:
        self._p = np.concatenate([self._p[by:], np.full(by, np.nan, np.float32)])
        self._severity = np.concatenate([self._severity[by:], np.zeros(by, np.int8)])
        self._last = max(self._last - by, -1)

    def _merge(self) -> None:
        half = len(self._p) // 2
        p = np.fmax(self._p[0::2], self._p[1::2])  # (columns / 2,)
        severity = np.maximum(self._severity[0::2], self._severity[1::2])
        self._p = np.concatenate([p, np.full(half, np.nan, np.float32)])
        self._severity = np.concatenate([severity, np.zeros(half, np.int8)])
        self._last = self._last // 2  # -1 stays -1
        self._span_ns *= 2

    def _hold(self, column: int) -> None:
        """Fills the columns between the last result and this one: at 10 frames a second most have none."""
        gap = slice(self._last + 1, column)
        if self._last >= 0 and (gap.stop - gap.start) * self._span_ns <= _HOLD_NS:
            self._p[gap] = self._p[self._last]
            self._severity[gap] = self._severity[self._last]
