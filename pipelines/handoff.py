"""Decoding beside scoring: a thread reads a source and hands its frames over."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from detector.types import Frame, FrameSource, UsageError

_LOOK_S = 0.1
LEAVE_S = 0.9
"""How long leaving waits for the reader; a thread that is stuck in a system call is left to itself after that."""


@contextmanager
def reading(source: FrameSource, *, depth: int = 4, stopped: Callable[[], bool] = lambda: False) -> Iterator[Handover]:
    """Opens ``source`` in a thread of its own and iterates ``(frame, dropped)`` beside it.

    ``dropped`` is the number of frames lost in the hand-over since the frame before. From a live source only the
    newest frame is kept, so the consumer is never behind; from any other no frame is lost, and reading waits while
    ``depth`` frames are ready. An error of the source is raised where it is iterated, after the frames before it.

    The reader opens, iterates and closes the source, so all of that happens in one thread. Leaving the block, however
    it is left, stops the source and waits for the reader, for less than a second: a reader that is stuck in a
    blocking call (a silent network stream until its read time-out, a wedged camera) is a daemon thread that closes
    the source when the call returns, and does not keep the process alive. Errors after leaving are not reported.

    ``stopped`` is asked before every frame, and ten times a second while none comes: once it says yes, the iteration
    ends.

    Raises:
        UsageError: ``depth`` is below 1.
        InputError, NothingToAnalyseError: the source cannot be opened; raised on entering.
    """
    if depth < 1:
        raise UsageError(f"at least one frame must fit between reading and scoring, got {depth}")
    handover = Handover(depth, stopped)
    reader = threading.Thread(target=_read, args=(source, handover), name=f"reader {source.info.name}", daemon=True)
    reader.start()
    try:
        handover.wait_until_open()
        yield handover
    finally:
        handover.close()
        source.stop()
        reader.join(LEAVE_S)


class Handover:
    """Between one reader and one consumer: iterates ``(frame, dropped)`` until the source ends or the block is left.

    Frames lost before the end are all accounted for: handed over + dropped = read.
    """

    def __init__(self, depth: int, stopped: Callable[[], bool]) -> None:
        self._depth = depth
        self._stopped = stopped
        self._newest_only = False
        self._ready: deque[Frame] = deque()
        self._dropped = 0
        self._opened = False
        self._ended = False
        self._left = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> tuple[Frame, int]:
        """The next frame, and how many were dropped before it since the last one; waits for it."""
        with self._changed:
            self._wait(lambda: bool(self._ready) or self._ended or self._left)
            if self._stopped():
                raise StopIteration
            if self._left or not self._ready:
                self._raise_error()
                raise StopIteration
            frame, dropped = self._ready.popleft(), self._dropped
            self._dropped = 0
            self._changed.notify_all()
            return frame, dropped

    def wait_until_open(self) -> None:
        """Returns when the source is open; raises what kept it from opening."""
        with self._changed:
            self._wait(lambda: self._opened or self._ended)
            if not self._opened:
                self._raise_error()

    def _wait(self, happened: Callable[[], bool]) -> None:
        """Waits until it happened, or the consumer was told to stop."""
        while not self._changed.wait_for(happened, timeout=_LOOK_S) and not self._stopped():
            pass

    def open(self, *, live: bool) -> None:
        """The reader says: the source is open."""
        with self._changed:
            self._opened, self._newest_only = True, live
            self._changed.notify_all()

    def put(self, frame: Frame) -> bool:
        """The reader hands over a frame; False when nobody wants any more."""
        with self._changed:
            if self._newest_only:
                self._dropped += len(self._ready)
                self._ready.clear()
            else:
                self._changed.wait_for(lambda: len(self._ready) < self._depth or self._left)
            self._ready.append(frame)
            self._changed.notify_all()
            return not self._left

    def end(self, error: BaseException | None = None) -> None:
        """The reader says: the source is closed, and why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """The consumer says: no more."""
        with self._changed:
            self._left = True
            self._ready.clear()
            self._changed.notify_all()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None and not self._left:
            raise error


def _read(source: FrameSource, handover: Handover) -> None:
    error: BaseException | None = None
    try:
        with source:
            handover.open(live=source.live)
            for frame in source:
                if not handover.put(frame):
                    break
    except BaseException as caught:  # every kind: the consumer must not wait for a reader that is gone
        error = caught
    handover.end(error)
