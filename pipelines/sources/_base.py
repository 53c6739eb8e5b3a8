"""What every source of frames shares: opening once, stopping, closing, numbering and timing its frames."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Self

from detector.types import (
    NS_PER_S,
    Frame,
    NothingToAnalyseError,
    SourceCounts,
    SourceInfo,
    TellframeError,
    UInt8Array,
)

STEP_NS = 1_000
"""How far a frame whose time stamp does not increase is moved behind the one before it."""

RESTART_NS = NS_PER_S
"""A time stamp that falls back by this much or more is a clock that started again, not two frames out of order."""


class Source(ABC):
    """A :class:`detector.types.FrameSource`; each kind of source fills in ``_open``, ``_frames`` and ``_close``.

    A source opens once and iterates once, in one thread. ``stop()`` is the only method for other threads: leave
    closing to the thread that iterates.

    Attributes:
        live: True when frames come at their own pace and late ones are worthless.
        info: what is known of the source; completed when it is opened.
        counts: what went wrong so far.
    """

    live: bool = False

    def __init__(self, info: SourceInfo) -> None:
        self.info = info
        self.counts = SourceCounts()
        self._timeline = Timeline(self.counts, info.fps)
        self._stopped = threading.Event()
        self._entered = False
        self._open_now = False
        self._running: Generator[Frame, None, None] | None = None

    def __enter__(self) -> Self:
        """Opens the source; stopped meanwhile, it counts as open and holds no frames.

        Raises:
            InputError: it cannot be opened.
            NothingToAnalyseError: it can, and holds nothing to judge.
            RuntimeError: it was opened before.
        """
        if self._entered:
            raise RuntimeError(f"{self.info.name}: a source opens once; make a new one to read it again")
        self._entered = True
        try:
            self._open()
        except BaseException as error:
            self._close()
            if not (isinstance(error, TellframeError) and self._stopped.is_set()):
                raise
        self._open_now = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the source; harmless when it is closed already."""
        self._open_now = False
        if self._running is not None:
            self._running.close()
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once.

        Raises:
            InputError: the input failed on the way.
            NothingToAnalyseError: it ended without one frame.
            RuntimeError: the source is not open, or was iterated before.
        """
        if not self._open_now:
            raise RuntimeError(f"{self.info.name}: not open; use `with source:` around the loop")
        if self._running is not None:
            raise RuntimeError(f"{self.info.name}: a source iterates once; make a new one to read it again")
        self._running = self._until_stopped()
        return self._running

    def stop(self) -> None:
        """Ends the iteration soon, without an error; may be called from any thread and more than once."""
        self._stopped.set()
        self._wake()

    def _until_stopped(self) -> Generator[Frame, None, None]:
        any_frame = False
        try:
            if self._stopped.is_set():
                return
            for frame in self._frames():
                if self._stopped.is_set():
                    return
                any_frame = True
                yield frame
        except TellframeError:
            if not self._stopped.is_set():
                raise
        if not any_frame and not self._stopped.is_set():
            raise NothingToAnalyseError(f"{self.info.name}: ended without a single frame; nothing to analyse")

    @abstractmethod
    def _open(self) -> None:
        """Opens the input and completes ``self.info``."""

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """The frames; checks ``self._stopped`` wherever it loops without yielding or waits."""

    def _close(self) -> None:  # noqa: B027  # a source may have nothing to release
        """Releases what ``_open`` took, also after it failed halfway; safe to call twice."""

    def _wake(self) -> None:  # noqa: B027  # nor anything that waits
        """Ends a wait that does not watch ``self._stopped``; from any thread, also before and after it is open."""


class Timeline:
    """Numbers and times frames: indices count broken ones, times start at 0 and strictly increase.

    A time stamp that does not increase becomes the one before it + 1 us. One that falls back by a second or more
    means that the clock behind it was started again: it is taken to come one frame period after the last.
    """

    def __init__(self, counts: SourceCounts, fps: float | None = None) -> None:
        self._counts = counts
        self._given = 0
        self._offset_ns: Fraction | int | None = None
        self._last_ns = -1
        self._last_captured_ns = 0
        self._resuming = False
        self.set_rate(fps)

    @property
    def next_index(self) -> int:
        """The index that the next frame gets."""
        return self._given + self._counts.broken

    def set_rate(self, fps: float | None) -> None:
        """Sets the frame period used where no time stamp helps; 30 fps when unknown."""
        self._period_ns = round(NS_PER_S / (fps or 30.0))

    def resume(self) -> None:
        """Says that the next frame comes from another clock: it is placed by the time that passed meanwhile."""
        self._resuming = True

    def frame(self, bgr: UInt8Array, stamp_ns: Fraction | int | None, captured_ns: int | None = None) -> Frame:
        """The next frame.

        Args:
            bgr: uint8 (H, W, 3).
            stamp_ns: its time on the source's own clock, in ns; None when it has none.
            captured_ns: when it was grabbed, on the monotonic clock; None is now.
        """
        captured_ns = time.monotonic_ns() if captured_ns is None else captured_ns
        pts_ns = self._place(stamp_ns, captured_ns)
        frame = Frame(bgr=bgr, index=self.next_index, pts_ns=pts_ns, captured_ns=captured_ns)
        self._given += 1
        self._last_ns = pts_ns
        self._last_captured_ns = captured_ns
        return frame

    def _place(self, stamp_ns: Fraction | int | None, captured_ns: int) -> int:
        if self._last_ns < 0:
            expected_ns = 0
        elif self._resuming:
            expected_ns = self._last_ns + max(captured_ns - self._last_captured_ns, STEP_NS)
        else:
            expected_ns = self._last_ns + self._period_ns
        if self._resuming:
            self._offset_ns, self._resuming = None, False
        if stamp_ns is None:
            return expected_ns
        if self._offset_ns is None or stamp_ns + self._offset_ns <= self._last_ns - RESTART_NS:
            self._offset_ns = expected_ns - stamp_ns
        pts_ns = round(stamp_ns + self._offset_ns)
        return pts_ns if pts_ns > self._last_ns else self._last_ns + STEP_NS
