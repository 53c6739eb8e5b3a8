"""Decodes with PyAV: the only file of the sources that imports ``av``, and the only one that knows its errors."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import av.error
import av.logging
import cv2
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.sidedata.sidedata import SideData, SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from detector.types import NS_PER_S, SourceCounts, SourceInfo, UInt8Array

av.logging.set_level(None)  # FFmpeg's own lines would end up between ours on stderr

DAMAGED_IN_A_ROW = 100
"""Unreadable packets after which the rest of a file is given up: some demuxers report the same spot for ever."""

# FFmpeg shows any text file as ANSI art, a video of letters.
_TEXT_ART = {"tty", "bin", "xbin", "adf", "idf"}

_NO_CLOCK = {"mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe", "jpeg_pipe", "png_pipe"}

_NOT_A_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

# The first that fits wins, so the more precise come first.
_PLAIN_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (av.error.HTTPUnauthorizedError, "user name or password refused (HTTP 401)"),
    (av.error.HTTPForbiddenError, "access refused (HTTP 403)"),
    (av.error.HTTPNotFoundError, "not found (HTTP 404)"),
    (av.error.HTTPClientError, "the server refuses the request (HTTP 4xx)"),
    (av.error.HTTPServerError, "the server reports an error of its own (HTTP 5xx)"),
    (av.error.ConnectionRefusedError, "connection refused"),
    (av.error.ConnectionResetError, "connection broken"),
    (av.error.ConnectionAbortedError, "connection broken"),
    (av.error.BrokenPipeError, "connection broken"),
    (av.error.TimeoutError, "no answer in time"),
    (av.error.ExitError, "no answer in time"),
    (av.error.PermissionError, "no permission to read it"),
    (av.error.FileNotFoundError, "not found"),
    (av.error.IsADirectoryError, "it is a directory"),
    (av.error.InvalidDataError, "no video that can be read, or damaged"),
    (av.error.ProtocolNotFoundError, "this way of transport is not supported"),
    (av.error.DecoderNotFoundError, "its codec is not supported"),
    (av.error.EOFError, "it ended before it began"),
)


class UnreadableError(Exception):
    """The input cannot be opened or read on; ``str(error)`` is the cause in plain words, without a name or address."""


class NoVideoError(UnreadableError):
    """The input can be read and has no video stream."""


class ByteSource(Protocol):
    """What is decoded when it is no file or address."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture: ``bgr`` uint8 (H, W, 3), upright; ``stamp_ns`` on the stream's own clock, if it has one."""

    bgr: UInt8Array
    stamp_ns: Fraction | None


class Decoder:
    """One opened input: what its best video stream says of itself, and its pictures.

    Args:
        what: an FFmpeg address or an object with ``read``.
        options: FFmpeg options; must name the protocols that may be opened (``protocol_whitelist``).
        format_name: FFmpeg's name of the container; None finds out.
        timeouts_s: (open, read) in seconds; None waits for ever.

    Raises:
        UnreadableError: it cannot be opened.
        NoVideoError: it has no video stream; cover art is none.
    """

    def __init__(
        self,
        what: str | ByteSource,
        *,
        options: Mapping[str, str],
        format_name: str | None = None,
        timeouts_s: tuple[float, float] | None = None,
    ) -> None:
        self._container = _open(what, options, format_name, timeouts_s)
        self._reformatter = VideoReformatter()
        try:
            self._stream = _choose_stream(self._container)
        except UnreadableError:
            self.close()
            raise
        self._stream.thread_type = "AUTO"

    @property
    def has_clock(self) -> bool:
        """Whether the times are the sender's; some formats carry none, and FFmpeg makes them up (25 a second)."""
        return self._container.format.name not in _NO_CLOCK

    @property
    def has_known_end(self) -> bool:
        """Whether the container says how long it is, or is one file of known size."""
        if self._container.duration is not None and self._container.duration > 0:
            return True
        playlist = self._container.format.name in {"hls", "dash"}  # their size is the playlist's
        return not playlist and self._container.size > 0

    def hurry(self) -> None:
        """For live input, before the first picture: uses no threads that hold frames back."""
        self._stream.thread_type = "SLICE"
        self._stream.codec_context.flags |= Flags.low_delay

    def describe(self, name: str, size_wh: tuple[int, int] | None = None) -> SourceInfo:
        """What the container claims, under ``name``; ``size_wh`` is that of an upright picture."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        fps = float(rate) if rate else None
        duration = self._container.duration
        duration_s = duration / av.time_base if duration is not None and duration > 0 else None
        frames = self._stream.frames or (round(duration_s * fps) if duration_s and fps else None)
        return SourceInfo(name=name, size_wh=size_wh, fps=fps, frames=frames, duration_s=duration_s)

    def pictures(self, counts: SourceCounts, *, tolerant: bool) -> Iterator[Picture | None]:
        """Every picture, upright; None where a packet gave none, so that the caller can look at the clock.

        Broken frames are skipped and added to ``counts.broken``: a packet that cannot be decoded, a packet that
        cannot be read, a picture that the decoder marks as damaged.

        Args:
            counts: where broken frames are counted.
            tolerant: goes on behind a spot that cannot be read, as a file allows and a connection does not.

        Raises:
            UnreadableError: the input cannot be read on.
        """
        failures = 0
        while failures < DAMAGED_IN_A_ROW:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield from self._decode(packet, counts)
                return
            except (av.error.FFmpegError, OSError) as error:
                if not (tolerant and isinstance(error, av.error.InvalidDataError)):
                    raise UnreadableError(_plain_words(error)) from None
                failures += 1
                counts.broken += 1
                yield None

    def close(self) -> None:
        """Closes the input; safe to call twice."""
        self._container.close()

    def _decode(self, packet: av.Packet[VideoStream], counts: SourceCounts) -> Iterator[Picture | None]:
        try:
            frames = self._stream.decode(packet)
        except av.error.EOFError:
            frames = []
        except av.error.FFmpegError:
            frames = []
            counts.broken += 1
        if not frames:
            yield None
        for frame in frames:
            if frame.is_corrupt:
                counts.broken += 1
                yield None
            else:
                yield Picture(self._bgr(frame), _stamp_ns(frame))

    def _bgr(self, frame: VideoFrame) -> UInt8Array:
        # One thread: with more, starting them costs more than they save up to 1080p.
        picture = self._reformatter.reformat(frame, format="bgr24", threads=1)
        plane = picture.planes[0]
        rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)  # (>= H, >= 3 W)
        bgr = rows[: picture.height, : 3 * picture.width].reshape(picture.height, picture.width, 3)
        return _upright(bgr, frame)


def is_format(name: str) -> bool:
    """Whether FFmpeg reads a format of that name."""
    return name in av.formats_available and av.ContainerFormat(name).is_input


def _open(
    what: str | ByteSource,
    options: Mapping[str, str],
    format_name: str | None,
    timeouts_s: tuple[float, float] | None,
) -> InputContainer:
    try:
        container = av.open(
            what, mode="r", format=format_name, options=dict(options), timeout=timeouts_s, metadata_errors="replace"
        )
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableError(_plain_words(error)) from None
    if container.format.name in _TEXT_ART:
        container.close()
        raise UnreadableError("text, no video")
    return container


def _choose_stream(container: InputContainer) -> VideoStream:
    films = [stream for stream in container.streams.video if not stream.disposition & _NOT_A_FILM]
    if not films:
        raise NoVideoError("no video stream")
    best = container.streams.best("video")
    chosen = next((stream for stream in films if stream is best), films[0])
    if cast(object, chosen.codec_context) is None:
        raise UnreadableError("its codec is not supported")
    for other in container.streams:
        if other is not chosen:
            other.discard = Discard.all  # an adaptive stream would download every variant
    return chosen


def _plain_words(error: av.error.FFmpegError | OSError) -> str:
    for kind, words in _PLAIN_WORDS:
        if isinstance(error, kind):
            return words
    if error.errno == errno.EIO:
        return "the host is unknown, or the connection or disk gave out"
    return (error.strerror or type(error).__name__).lower()


def _stamp_ns(frame: VideoFrame) -> Fraction | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * frame.time_base * NS_PER_S


def _upright(bgr: UInt8Array, frame: VideoFrame) -> UInt8Array:
    """Applies the display matrix: quarter turns and mirrors; contiguous, and copied only if need be."""
    # Not frame.side_data, which the frame keeps: the two would hold each other, and every picture until the next
    # garbage collection. Typed as a mapping, it iterates its values.
    extras = cast(Iterable[SideData], cast(Any, SideDataContainer)(frame))
    matrix = next((data for data in extras if data.type is SideDataType.DISPLAYMATRIX), None)
    if matrix is None:
        return np.ascontiguousarray(bgr)
    a, b, _, c, d = np.frombuffer(cast(Any, matrix), np.int32)[:5].tolist()  # (x, y) -> (a x + c y, b x + d y)
    turned = abs(b) > abs(a)
    flip_y, flip_x = ((b < 0), (c < 0)) if turned else ((d < 0), (a < 0))
    if turned and flip_y != flip_x:  # OpenCV turns in one pass, 15 times faster than numpy
        way = cv2.ROTATE_90_COUNTERCLOCKWISE if flip_y else cv2.ROTATE_90_CLOCKWISE
        return cast(UInt8Array, cv2.rotate(bgr, way))
    picture = cv2.transpose(bgr) if turned else bgr
    if flip_y or flip_x:
        picture = cv2.flip(picture, -1 if flip_y and flip_x else 0 if flip_y else 1)
    return np.ascontiguousarray(cast(UInt8Array, picture))
