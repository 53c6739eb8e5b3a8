"""Frames from a byte stream such as standard input."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO, cast

import cv2
import numpy as np

from detector.types import NS_PER_S, Frame, InputError, NothingToAnalyseError, SourceInfo, UInt8Array, UsageError
from pipelines.sources._base import Source
from pipelines.sources._bytes import ByteReader
from pipelines.sources._decoded import DecodedSource
from pipelines.sources._decoder import Decoder, NoVideoError, UnreadableError, is_format
from pipelines.sources.images import check_fps

PIX_FMTS = ("bgr24", "rgb24", "gray")
"""Layouts of raw frames, by FFmpeg's names."""

_LARGEST_SIDE = 16_384


class RawFrames(Source):
    """Uncompressed frames, one after the other, without any header.

    Frame ``i`` is at ``i / fps`` seconds. Bytes left at the end that make no whole frame are no error: they are
    counted as one in ``counts.broken``.

    Args:
        stream: such as ``sys.stdin.buffer``; read to its end, not closed.
        width, height: of every frame, in pixels.
        pix_fmt: one of :data:`PIX_FMTS`; rows follow each other without padding.
        fps: frames a second.
        live: True when frames come at their own pace and only the newest counts.

    Raises:
        UsageError: a size, layout or rate that makes no sense.
    """

    def __init__(
        self,
        stream: BinaryIO,
        width: int,
        height: int,
        *,
        pix_fmt: str = "bgr24",
        fps: float = 30,
        live: bool = False,
    ) -> None:
        name = _name_of(stream)
        if not (1 <= width <= _LARGEST_SIDE and 1 <= height <= _LARGEST_SIDE):
            raise UsageError(f"{name}: width and height are 1 to {_LARGEST_SIDE} pixels, got {width}x{height}")
        if pix_fmt not in PIX_FMTS:
            raise UsageError(f"{name}: pixel format must be one of {', '.join(PIX_FMTS)}, got {pix_fmt!r}")
        check_fps(fps, name)
        super().__init__(SourceInfo(name=name, size_wh=(width, height), fps=fps))
        self.live = live
        self._reader = ByteReader(stream)
        self._shape = (height, width) if pix_fmt == "gray" else (height, width, 3)
        self._to_bgr = {"rgb24": cv2.COLOR_RGB2BGR, "gray": cv2.COLOR_GRAY2BGR}.get(pix_fmt)
        self._period_ns = NS_PER_S / Fraction(fps)

    def _open(self) -> None:
        self._reader.open()

    def _frames(self) -> Iterator[Frame]:
        while True:
            pixels = np.empty(self._shape, np.uint8)
            try:
                got = self._fill(pixels.data.cast("B"))
            except OSError as error:
                raise InputError(f"{self.info.name}: cannot be read on: {error.strerror}") from None
            if got < pixels.size:
                if got and not self._stopped.is_set():
                    self.counts.broken += 1
                return
            bgr = pixels if self._to_bgr is None else cast(UInt8Array, cv2.cvtColor(pixels, self._to_bgr))
            yield self._timeline.frame(bgr, self._timeline.next_index * self._period_ns)

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            got = self._reader.readinto(view[filled:])
            if got == 0:
                break
            filled += got
        return filled

    def _wake(self) -> None:
        self._reader.stop()

    def _close(self) -> None:
        self._reader.close()


class EncodedStream(DecodedSource):
    """Compressed frames from a byte stream that carries its own format, decoded as it comes.

    Formats that can be read from front to end: MPEG-TS, Matroska, fragmented mp4, AVI, Y4M, MJPEG, raw H.264 ...
    Broken frames are skipped and counted; times work as in :class:`~pipelines.sources.video_file.VideoFile`.

    Args:
        stream: such as ``sys.stdin.buffer``; not closed.
        format: FFmpeg's name of the format, such as ``yuv4mpegpipe``, ``mjpeg``, ``mpegts``; None finds out.
        live: True when frames come at their own pace and only the newest counts.

    Raises:
        UsageError: no such format.
    """

    def __init__(self, stream: BinaryIO, *, format: str | None = None, live: bool = False) -> None:
        super().__init__(SourceInfo(name=_name_of(stream)))
        self.live = live
        self._reader = ByteReader(stream)
        if format is not None and not is_format(format):
            raise UsageError(
                f"{self.info.name}: no format called {format!r}; try mpegts, matroska, mjpeg, yuv4mpegpipe"
            )
        self._format = format

    def _open(self) -> None:
        name = self.info.name
        self._reader.open()
        try:
            # No protocol at all: a playlist in the stream opens nothing.
            self._begin(Decoder(self._reader, options={"protocol_whitelist": "none"}, format_name=self._format))
        except UnreadableError as error:
            if self._reader.received == 0:
                raise NothingToAnalyseError(f"{name}: ended without a single byte; nothing to analyse") from None
            if isinstance(error, NoVideoError):
                raise NothingToAnalyseError(f"{name}: holds no video stream; send pictures") from None
            raise InputError(
                f"{name}: cannot be read as video: {error}; send a format that needs no seeking, such as mpegts, "
                "or name it"
            ) from None

    def _wake(self) -> None:
        self._reader.stop()

    def _close(self) -> None:
        super()._close()
        self._reader.close()


def _name_of(stream: BinaryIO) -> str:
    name = getattr(stream, "name", None)
    return "standard input" if name in (0, "<stdin>") else str(name) if isinstance(name, str) else "byte stream"
