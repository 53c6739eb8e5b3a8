"""H.264, H.265 and JPEG, there and back in memory: what cameras, messengers and platforms do to pictures.

A call makes its own encoder and decoder and shares nothing, so it may run in forked and in spawned workers. One thread
each way: the same pictures give the same result, and workers do not fight over cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final, cast

import av
import cv2
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from detector.types import UInt8Array


class Codec(StrEnum):
    """How video is compressed."""

    H264 = "h264"
    H265 = "h265"


PRESETS: Final = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
    "placebo",
)
"""Of both encoders, from quick to thorough; theirs is "medium" when nothing is said."""
MAX_CRF: Final = 51
"""Of both encoders: the coarsest; theirs is 23 (x264) and 28 (x265) when nothing is said."""
GOP: Final = 250
"""Pictures from one key frame to the next at most, of both encoders when nothing is said."""

_ENCODERS: Final = {Codec.H264: "libx264", Codec.H265: "libx265"}
_DECODERS: Final = {Codec.H264: "h264", Codec.H265: "hevc"}
_AVX_512F: Final = 13  # cv::CpuFeatures; the Python module has no names for them
# With AVX-512 the macroblock tree of x264 (of 2025, in PyAV 18.1) depends on more than the pictures: the same ones come
# out differently in another process. With the instructions of AVX2 they do not.
_X264: Final[dict[str, str]] = {"x264-params": "asm=avx2"} if cv2.checkHardwareSupport(_AVX_512F) else {}
# x265 writes to stderr past FFmpeg's log, and starts a thread per core unless told not to.
_OPTIONS: Final[dict[Codec, dict[str, str]]] = {
    Codec.H264: _X264,
    Codec.H265: {"x265-params": "log-level=none:pools=none:frame-threads=1:wpp=0"},
}
# CRF goes by how long a picture is seen; 25 a second is where both encoders leave it as it is (BASE_FRAME_DURATION).
_RATE: Final = Fraction(25)
# px. H.264: one macroblock. H.265: one coding tree unit; x265 4.2 refuses less than 16, and in widths up to 48 writes
# past the end of its buffers (valgrind: in Lookahead::cuTree), which ends the process sooner or later.
_SMALLEST_SIDE: Final = {Codec.H264: 16, Codec.H265: 64}


def reencode(
    frames: Sequence[UInt8Array], codec: Codec, crf: int, preset: str = "veryfast", gop: int = GOP
) -> list[UInt8Array]:
    """The pictures after a real encoder and decoder, as many and in their order.

    8-bit 4:2:0, BT.601, limited range, as ``ffmpeg -crf`` makes it of pictures.

    Args:
        frames: uint8 RGB (h, w, 3), at least one, all of one size; odd sizes are padded by their edge and cut back.
        codec: which one.
        crf: constant rate factor, 0 (best) to 51. The two encoders do not mean the same quality by it.
        preset: one of :data:`PRESETS`.
        gop: pictures from one key frame to the next at most, from 1.

    Returns:
        uint8 RGB (h, w, 3), contiguous; nothing is shared with ``frames``.

    Raises:
        ValueError: an argument is out of its range, or the pictures differ in size.
    """
    check_frames(frames)
    if codec not in _ENCODERS:
        raise ValueError(f"codec must be one of {', '.join(_ENCODERS)}, got {codec!r}")
    if not 0 <= crf <= MAX_CRF:
        raise ValueError(f"crf must be 0 to {MAX_CRF}, got {crf}")
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if gop < 1:
        raise ValueError(f"gop must be at least 1, got {gop}")
    options = {"crf": str(crf), "preset": preset, "g": str(gop), **_OPTIONS[codec]}
    converter = VideoReformatter()
    packets = _encoded([_to_yuv(rgb, _SMALLEST_SIDE[codec], converter) for rgb in frames], _ENCODERS[codec], options)
    # Strict: a picture lost on the way would pair every later one with a wrong original.
    pairs = zip(frames, _decoded(packets, _DECODERS[codec]), strict=True)
    return [_to_rgb(yuv, rgb.shape) for rgb, yuv in pairs]


def jpeg(rgb: UInt8Array, quality: int) -> UInt8Array:
    """A picture after JPEG (baseline, 4:2:0, as OpenCV and libjpeg write it), uint8 RGB (H, W, 3) both ways.

    Args:
        rgb: uint8 (H, W, 3).
        quality: of libjpeg, 1 to 100 (best).

    Raises:
        ValueError: ``rgb`` is no such array, or ``quality`` is out of its range.
    """
    check_picture(rgb)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be 1 to 100, got {quality}")
    # OpenCV writes blue, green, red: in another order JPEG would weigh and thin out the wrong channels.
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)


def check_picture(rgb: UInt8Array) -> None:
    """Raises ValueError unless ``rgb`` is uint8 (H, W, 3) and not empty."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"a picture must be uint8 (H, W, 3) and not empty, got {rgb.dtype} {rgb.shape}")


def check_frames(frames: Sequence[UInt8Array]) -> None:
    """Raises ValueError unless ``frames`` are pictures of one size, at least one."""
    if len(frames) == 0:
        raise ValueError("frames must hold at least one picture, got none")
    for rgb in frames:
        check_picture(rgb)
        if rgb.shape != frames[0].shape:
            raise ValueError(f"all pictures must have the size of the first, {frames[0].shape}, got {rgb.shape}")


def _to_yuv(rgb: UInt8Array, smallest_side: int, converter: VideoReformatter) -> VideoFrame:
    """``rgb`` as 4:2:0, with even sides of at least so many px: the edge is repeated, as black would bleed in.

    By libswscale, as in ffmpeg: it averages the chroma of four pixels, where OpenCV takes that of one.
    """
    height, width = rgb.shape[:2]
    below = max(smallest_side, height + height % 2) - height
    right = max(smallest_side, width + width % 2) - width
    padded = np.asarray(cv2.copyMakeBorder(rgb, 0, below, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    return converter.reformat(av.VideoFrame.from_ndarray(padded, format="rgb24"), format="yuv420p", threads=1)


def _to_rgb(yuv: VideoFrame, shape: tuple[int, ...]) -> UInt8Array:
    """uint8 RGB of ``shape``, without the padding.

    By OpenCV: on its way back libswscale darkens every picture by 1.2 grey levels, and what went through a codec must
    not be told from what did not by its brightness.
    """
    rgb = cv2.cvtColor(yuv.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
    return np.ascontiguousarray(rgb[: shape[0], : shape[1]], np.uint8)


def _encoded(pictures: Sequence[VideoFrame], encoder: str, options: dict[str, str]) -> list[Packet[Any]]:
    """Raw packets, in the order they are decoded in."""
    context = cast(VideoCodecContext, av.CodecContext.create(encoder, "w"))
    context.width, context.height, context.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
    context.framerate, context.time_base = _RATE, 1 / _RATE
    context.thread_count = 1
    context.options = options
    packets: list[Packet[Any]] = []
    for index, picture in enumerate(pictures):
        picture.pts, picture.time_base = index, context.time_base
        packets += context.encode(picture)
    return packets + context.encode(None)


def _decoded(packets: Sequence[Packet[Any]], decoder: str) -> Iterator[VideoFrame]:
    """The pictures of ``packets``, in the order they are shown in."""
    context = cast(VideoCodecContext, av.CodecContext.create(decoder, "r"))
    context.thread_count = 1
    for packet in packets:
        yield from context.decode(packet)
    yield from context.decode(None)
