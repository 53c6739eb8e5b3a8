"""H.264 in an MP4 that a browser plays while it loads; the only file that encodes with PyAV."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.stream import VideoStream

from detector.types import NS_PER_S, UInt8Array
from pipelines.atomic import PartFile, output_error

# The usual tick of video: 24, 25, 30, 29.97 and 60 frames a second are whole numbers of it.
_TICKS_PER_S: Final = 90_000
# One macroblock of H.264: smaller pictures are not played everywhere.
_SMALLEST_SIDE: Final = 16
# ultrafast: 7 ms a 720p frame on a shared 2-core machine, veryfast 19 ms. No B-frames: nothing waits for a later one.
_ENCODER: Final = {"preset": "ultrafast", "crf": "23", "bf": "0", "g": "60"}
_BT601: Final = 6  # SMPTE 170M: what cv2's conversion computes; untagged, a player guesses by size
_BT709: Final = 1
_LIMITED: Final = 1


class VideoFile:
    """Writes pictures with their own times; the file appears at ``path`` on close, and only if it has a picture.

    The first picture sets the size, rounded up to even (the last row or column is repeated) and to 16 at least.
    Later pictures of another size are scaled to fit, on black.

    Args:
        path: where the file will be.
        fps: nominal frames a second: how long the last picture is shown when there is no other hint.

    Raises:
        OutputError: ``path`` cannot be written.
    """

    def __init__(self, path: str | Path, fps: float | None = None) -> None:
        self._path = path
        self._fps = fps if fps is not None and 1.0 <= fps <= 1000.0 else 30.0
        self._part = PartFile(path)
        self._out: tuple[OutputContainer, VideoStream] | None = None
        self._start_ns = 0
        self._ticks = -1  # time of the last picture
        self._duration = max(1, round(_TICKS_PER_S / self._fps))

    def write(self, bgr: UInt8Array, pts_ns: int) -> None:
        """Adds a picture.

        Args:
            bgr: uint8 (H, W, 3).
            pts_ns: its time; the first picture's becomes 0. One that is not after the last is moved just after it.

        Raises:
            OutputError: the disk is full, or the like; nothing can be saved then.
        """
        try:
            if self._out is None:
                self._out = self._open(bgr)
                self._start_ns = pts_ns
            container, stream = self._out
            size_wh = (stream.width, stream.height)
            yuv = np.asarray(cv2.cvtColor(_fit(bgr, size_wh), cv2.COLOR_BGR2YUV_I420), np.uint8)  # (1.5 H, W)
            frame = av.VideoFrame.from_ndarray(yuv, format="yuv420p")
            ticks = max(round((pts_ns - self._start_ns) * _TICKS_PER_S / NS_PER_S), self._ticks + 1)
            if self._ticks >= 0:
                self._duration = ticks - self._ticks
            frame.pts, frame.time_base = ticks, Fraction(1, _TICKS_PER_S)
            # Only the last one counts (the others end where the next begins): it is shown as long as the one before.
            frame.duration = self._duration
            self._ticks = ticks
            container.mux(stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            self.discard()
            raise output_error(self._path, error) from error

    def close(self) -> None:
        """Finishes the file and puts it in its place; does nothing the second time.

        Raises:
            OutputError: the disk is full, or the like; nothing can be saved then.
        """
        if self._out is None:
            self._part.discard()
            return
        container, stream = self._out
        try:
            container.mux(stream.encode(None))
            container.close()
        except (OSError, av.FFmpegError) as error:
            self.discard()
            raise output_error(self._path, error) from error
        self._out = None
        self._part.commit()

    def discard(self) -> None:
        """Gives up: no file."""
        out, self._out = self._out, None
        # The file is going away, and why is known already: closing writes the index, and fails for the same reason.
        with suppress(OSError, av.FFmpegError):
            if out is not None:
                out[0].close()
        self._part.discard()

    def _open(self, bgr: UInt8Array) -> tuple[OutputContainer, VideoStream]:
        # The index is moved to the front at the end, so that playing starts before all is loaded.
        container = av.open(str(self._part.part), "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(self._fps).limit_denominator(1001)
        stream: VideoStream = container.add_stream("libx264", rate=rate, options=_ENCODER)
        height, width = bgr.shape[:2]
        stream.width = max(_SMALLEST_SIDE, width + width % 2)
        stream.height = max(_SMALLEST_SIDE, height + height % 2)
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        context = stream.codec_context
        context.flags |= Flags.frame_duration  # else the last picture is shown for the nominal time, not for its own
        context.colorspace, context.color_range = _BT601, _LIMITED
        context.color_primaries = context.color_trc = _BT709
        return container, stream


def _fit(bgr: UInt8Array, size_wh: tuple[int, int]) -> UInt8Array:
    """``bgr`` in exactly ``size_wh``: as it is, with a repeated row or column, or scaled and on black."""
    width, height = size_wh
    h, w = bgr.shape[:2]
    right, below = width - w, height - h
    if right == below == 0:
        return bgr
    if right in (0, 1) and below in (0, 1):
        return np.asarray(cv2.copyMakeBorder(bgr, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    scale = min(width / w, height / h)
    w, h = max(1, min(width, round(w * scale))), max(1, min(height, round(h * scale)))
    out: UInt8Array = np.zeros((height, width, 3), np.uint8)
    x, y = (width - w) // 2, (height - h) // 2
    shrinks = scale < 1
    out[y : y + h, x : x + w] = cv2.resize(bgr, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return out
