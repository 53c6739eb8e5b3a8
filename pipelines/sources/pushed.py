"""Pictures that somebody else sends, such as a browser with a camera."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import av
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext

from detector.types import NS_PER_MS, Frame, InputError, SourceInfo, UInt8Array
from pipelines.sources._base import Source

_JUMP_NS = 250 * NS_PER_MS
"""The sender's clock and ours may drift apart by this much from one picture to the next; beyond that it was set."""
_REMEMBERED = 64  # frames whose origin is kept for a consumer that has not asked yet

_LATEST_MS = 1e14  # in three thousand years

_START, _SCAN = 0xD8, 0xDA
_SIZES = (0xC0, 0xC1)  # baseline, and its 12-bit sister: the markers that a size stands behind
# A baseline picture from a browser has one scan. Progressive ones have many, and a small file may ask for thousands.
_ANOTHER = re.compile(rb"\xff[\xc0-\xcf\xda]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a frame came from.

    Attributes:
        sequence: the sender's number of it.
        captured_ms: when it was captured, on the sender's clock.
        arrived_ns: ``time.monotonic_ns()`` when it was pushed.
        decode_ms: what decoding took.
        replaced: pictures that a newer one took the place of before they were decoded, since the origin that was asked
            for before this one.
    """

    sequence: int
    captured_ms: float
    arrived_ns: int
    decode_ms: float
    replaced: int


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that waits to be decoded."""

    jpeg: bytes
    sequence: int
    captured_ms: float
    arrived_ns: int


class PushedFrames(Source):
    """JPEG pictures that another thread pushes, decoded where the source is iterated; the newest wins.

    One picture waits at most: a newer one takes its place, and its index goes to nobody. A picture that cannot be
    decoded is counted in ``counts.broken``. Times are those of the sender's clock, from 0; where that is set, they go
    on by ours. The source ends when it is stopped.

    Args:
        name: what to call it.
        fps: frames a second that the sender aims at; None when unknown.
        max_bytes: of one picture.
        max_side: of one picture, in pixels; read from its header, before anything is decoded.
    """

    live = True

    def __init__(
        self, name: str, *, fps: float | None = None, max_bytes: int = 1_048_576, max_side: int = 1280
    ) -> None:
        super().__init__(SourceInfo(name, fps=fps))
        self._max_bytes = max_bytes
        self._max_side = max_side
        self._changed = threading.Condition()
        self._newest: _Picture | None = None
        self._replaced = self._replaced_before = 0
        self._origins: deque[tuple[int, Origin]] = deque(maxlen=_REMEMBERED)
        self._asked_replaced = 0
        self._last: _Picture | None = None
        self._decoder: VideoCodecContext | None = None

    @property
    def waiting(self) -> bool:
        """Whether a picture waits to be decoded: one pushed now would take its place."""
        with self._changed:
            return self._newest is not None

    def push(self, jpeg: bytes, sequence: int = 0, captured_ms: float = 0.0) -> None:
        """Hands over a picture; never waits. From any thread; after ``stop()`` it does nothing.

        Args:
            jpeg: a baseline JPEG file.
            sequence: the sender's number of it; comes back in its :class:`Origin`.
            captured_ms: when it was captured, on the sender's clock.

        Raises:
            InputError: not a JPEG, or not one that is taken; nothing changes then.
        """
        arrived_ns = time.monotonic_ns()
        self._check(jpeg, captured_ms)
        with self._changed:
            self._replaced += self._newest is not None
            self._newest = _Picture(jpeg, sequence, captured_ms, arrived_ns)
            self._changed.notify_all()

    def origin(self, index: int) -> Origin:
        """Where the frame ``index`` came from; it and those before it are forgotten then.

        Raises:
            KeyError: no such frame, or asked for before, or so late that it is forgotten.
        """
        with self._changed:
            while self._origins and self._origins[0][0] <= index:
                at, origin = self._origins.popleft()
                if at == index:
                    since, self._asked_replaced = origin.replaced - self._asked_replaced, origin.replaced
                    return replace(origin, replaced=since)
        raise KeyError(index)

    def _check(self, jpeg: bytes, captured_ms: float) -> None:
        name = self.info.name
        if not abs(captured_ms) <= _LATEST_MS:
            raise InputError(f"{name}: a picture was captured at {captured_ms} ms; send the ms of a clock")
        if len(jpeg) > self._max_bytes:
            raise InputError(
                f"{name}: a picture of {len(jpeg):,} bytes came; send at most {self._max_bytes:,}: a smaller one, or "
                "at a lower quality"
            )
        size_wh = jpeg_size(jpeg)
        if size_wh is None:
            raise InputError(f"{name}: what came is no baseline JPEG picture; send JPEG as a browser's canvas makes it")
        if min(size_wh) < 1 or max(size_wh) > self._max_side:
            raise InputError(
                f"{name}: a picture of {size_wh[0]}x{size_wh[1]} pixels came; send at most {self._max_side} on a side"
            )

    def _open(self) -> None:
        # FFmpeg's decoder, not OpenCV's: it tells a damaged picture from a whole one, and writes nothing to stderr.
        decoder = av.CodecContext.create("mjpeg", "r")
        decoder.thread_count = 1
        decoder.options = {"err_detect": "explode", "max_pixels": str(self._max_side**2)}
        self._decoder = decoder

    def _frames(self) -> Iterator[Frame]:
        while (picture := self._next()) is not None:
            began_ns = time.perf_counter_ns()
            bgr = self._decoded(picture.jpeg)
            decode_ms = (time.perf_counter_ns() - began_ns) / NS_PER_MS
            if bgr is None:
                self.counts.broken += 1
            else:
                yield self._frame(bgr, picture, decode_ms)

    def _next(self) -> _Picture | None:
        """The newest picture, once there is one; None when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._stopped.is_set())
            picture, self._newest = self._newest, None
            self._replaced_before = self._replaced
        return None if self._stopped.is_set() else picture

    def _decoded(self, jpeg: bytes) -> UInt8Array | None:
        """uint8 (H, W, 3); None when the picture is damaged."""
        if self._decoder is None:
            return None
        try:
            pictures = self._decoder.decode(av.Packet(jpeg))
        except FFmpegError:
            return None
        return cast(UInt8Array, pictures[0].to_ndarray(format="bgr24")) if pictures else None

    def _frame(self, bgr: UInt8Array, picture: _Picture, decode_ms: float) -> Frame:
        if self._last is not None:
            passed_ns = round((picture.captured_ms - self._last.captured_ms) * NS_PER_MS)
            if abs(passed_ns - (picture.arrived_ns - self._last.arrived_ns)) > _JUMP_NS:
                self._timeline.resume()
        self._last = picture
        self.info = replace(self.info, size_wh=(bgr.shape[1], bgr.shape[0]))
        frame = self._timeline.frame(bgr, round(picture.captured_ms * NS_PER_MS), picture.arrived_ns)
        frame = replace(frame, index=frame.index + self._replaced_before)
        origin = Origin(picture.sequence, picture.captured_ms, picture.arrived_ns, decode_ms, self._replaced_before)
        with self._changed:
            self._origins.append((frame.index, origin))
        return frame

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _close(self) -> None:
        self._decoder = None
        with self._changed:
            self._newest = None


def jpeg_size(jpeg: bytes) -> tuple[int, int] | None:
    """Width and height in pixels that the header of a baseline JPEG with one scan claims; None for anything else."""
    if jpeg[:2] != bytes((0xFF, _START)):
        return None
    at, size_wh = 2, None
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        body = jpeg[at + 4 : at + 2 + length]
        if marker == _SCAN:
            return size_wh if _ANOTHER.search(jpeg, at + 2 + length) is None else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in _SIZES or size_wh is not None or len(body) < 5:
                return None
            size_wh = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
        if length < 2:
            return None
        at += 2 + length
    return None
