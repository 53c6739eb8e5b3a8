"""What happens to pictures on their way to a viewer: the robustness protocol, and the tiers that thresholds are set on.

The first seven kinds, and their five levels, are those of DeeperForensics-1.0 (Jiang et al., CVPR 2020,
arXiv:2001.03024), as the authors' release has them (github.com/EndlessSora/DeeperForensics-1.0, folder
``perturbation``), but rounded to the nearest grey level where the release cuts off. H.265, JPEG and resizing are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from detector.training.codec import Codec, check_frames, check_picture, jpeg, reencode
from detector.types import Float32Array, UInt8Array

Change = Callable[[Sequence[UInt8Array], float, np.random.Generator], list[UInt8Array]]
"""Frames of one size and the value of a level -> new frames, as many."""

LEVELS: Final = 5

_BLOCK_SIDE: Final = 8  # px
_BLOCK_GREY: Final = 128
_BLOCK_UNIT: Final = 256  # px of a frame's shorter side, for each of which a level's number of blocks is drawn


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One kind of change, in five strengths.

    Attributes:
        parameter: what the values are, with their unit.
        values: of levels 1 to 5, each worse than the one before.
        change: makes new frames with a value; leaves its input as it is.
    """

    parameter: str
    values: tuple[float, float, float, float, float]
    change: Change


def perturb(frames: Sequence[UInt8Array], name: str, level: int, seed: int) -> list[UInt8Array]:
    """The frames of a clip after one perturbation.

    Args:
        frames: uint8 RGB (h, w, 3), in sequence, at least one, all of one size: whole frames, not crops, as blocks,
            blur and codecs go by pixels of the frame.
        name: a key of :data:`PERTURBATIONS`.
        level: 1 (mild) to 5.
        seed: of what is drawn at random; the same arguments give the same result.

    Returns:
        uint8 RGB (h, w, 3), as many; nothing is shared with ``frames``.

    Raises:
        ValueError: an argument is out of its range, or the frames differ in size.
    """
    check_frames(frames)
    if name not in PERTURBATIONS:
        raise ValueError(f"name must be one of {', '.join(PERTURBATIONS)}, got {name!r}")
    if not 1 <= level <= LEVELS:
        raise ValueError(f"level must be 1 to {LEVELS}, got {level}")
    kind = PERTURBATIONS[name]
    return kind.change(frames, kind.values[level - 1], np.random.default_rng(seed))


# ----------------------------------------------------------------------------------------- DeeperForensics-1.0


def _saturation(rgb: UInt8Array, factor: float) -> UInt8Array:
    """Chroma times ``factor`` in YCbCr (BT.601), which is: each pixel on its way to the grey of its own luma.

    DeeperForensics-1.0, "color saturation change".
    """
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(rgb, factor, grey, 1 - factor, 0), np.uint8)


def _contrast(rgb: UInt8Array, factor: float) -> UInt8Array:
    """Every channel times ``factor``: the release's "color contrast change" pulls towards black, not towards grey."""
    return np.asarray(cv2.convertScaleAbs(rgb, alpha=factor), np.uint8)


def _blocks(rgb: UInt8Array, per_unit: float, rng: np.random.Generator) -> UInt8Array:
    """Grey squares of 8 px at random places: ``per_unit`` for every whole 256 px of the shorter side.

    DeeperForensics-1.0, "local block-wise". There, a frame below 256 px gets none; here it gets ``per_unit``.
    """
    height, width = rgb.shape[:2]
    count = round(per_unit) * max(1, min(height, width) // _BLOCK_UNIT)
    lefts = rng.integers(0, max(1, width - _BLOCK_SIDE + 1), count)
    tops = rng.integers(0, max(1, height - _BLOCK_SIDE + 1), count)
    out = rgb.copy()
    for left, top in zip(lefts, tops, strict=True):
        out[top : top + _BLOCK_SIDE, left : left + _BLOCK_SIDE] = _BLOCK_GREY
    return out


def _noise_to_rgb() -> Float32Array:
    """float32 (3, 3): what noise of one unit in limited-range Y, Cb and Cr (rows) is in R, G and B (columns).

    Limited range spreads 219 (Y) and 224 (Cb, Cr) steps over 255, so noise in it grows on its way back.
    """
    y = np.array([1.0, 1.0, 1.0]) * 255 / 219
    cb = np.array([0.0, -0.344, 1.773]) * 255 / 224  # BT.601, as OpenCV rounds it
    cr = np.array([1.403, -0.714, 0.0]) * 255 / 224
    return np.stack([y, cb, cr]).astype(np.float32)


_NOISE_TO_RGB: Final = _noise_to_rgb()


def _noise(rgb: UInt8Array, variance: float, rng: np.random.Generator) -> UInt8Array:
    """White Gaussian noise of ``variance`` (of a range of 0..1) in each of Y, Cb and Cr, limited range.

    DeeperForensics-1.0, "white Gaussian noise in color components".
    """
    ycc = rng.standard_normal(rgb.shape, np.float32)  # (H, W, 3)
    added = ycc @ (_NOISE_TO_RGB * np.float32(255 * variance**0.5))  # (H, W, 3)
    return np.rint(rgb + added).clip(0, 255).astype(np.uint8)


def _blur(rgb: UInt8Array, kernel: float) -> UInt8Array:
    """Gaussian of ``kernel`` px (odd) and a sigma of a sixth of it: DeeperForensics-1.0, "Gaussian blur"."""
    return np.asarray(cv2.GaussianBlur(rgb, (round(kernel), round(kernel)), kernel / 6), np.uint8)


def _pixelation(rgb: UInt8Array, divisor: float) -> UInt8Array:
    """Sides over ``divisor`` and back, bilinear both ways: beyond 2 it skips pixels on the way down, and edges jag.

    DeeperForensics-1.0, "JPEG compression", which in its release is this; papers since say pixelation (Haliassos et
    al., "Lips Don't Lie", CVPR 2021).
    """
    height, width = rgb.shape[:2]
    small_wh = (max(1, width // round(divisor)), max(1, height // round(divisor)))
    small = cv2.resize(rgb, small_wh, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _h264(frames: Sequence[UInt8Array], crf: float, _: np.random.Generator) -> list[UInt8Array]:
    """DeeperForensics-1.0, "video compression": ``ffmpeg -crf``, and x264 with its defaults."""
    return reencode(frames, Codec.H264, round(crf), preset="medium")


# ------------------------------------------------------------------------------------------------------ ours


def _h265(frames: Sequence[UInt8Array], crf: float, _: np.random.Generator) -> list[UInt8Array]:
    """At H.264's levels; this preset is within 0.3 dB of it on ``assets/samples/real.mp4``, in up to twice the time."""
    return reencode(frames, Codec.H265, round(crf), preset="ultrafast")


def _jpeg(rgb: UInt8Array, quality: float) -> UInt8Array:
    """Each frame on its own, as cameras with MJPEG and screenshots have it."""
    return jpeg(rgb, round(quality))


def _resize(rgb: UInt8Array, scale: float) -> UInt8Array:
    """Down to ``scale`` by averaging areas and back up bicubically: detail lost in a small upload, shown large.

    Unlike pixelation it skips no pixel: detail is lost, and no jags take its place.
    """
    height, width = rgb.shape[:2]
    small_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(rgb, small_wh, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _each(change: Callable[[UInt8Array, float], UInt8Array]) -> Change:
    """A change of single pictures, for sequences."""
    return lambda frames, value, _: [change(rgb, value) for rgb in frames]


def _each_drawn(change: Callable[[UInt8Array, float, np.random.Generator], UInt8Array]) -> Change:
    """A random change of single pictures, for sequences: drawn anew for every frame, as in the release."""
    return lambda frames, value, rng: [change(rgb, value, rng) for rgb in frames]


PERTURBATIONS: Final[Mapping[str, Perturbation]] = {
    "saturation": Perturbation("factor of chroma", (0.4, 0.3, 0.2, 0.1, 0.0), _each(_saturation)),
    "contrast": Perturbation("factor of grey levels", (0.85, 0.725, 0.6, 0.475, 0.35), _each(_contrast)),
    "blocks": Perturbation("blocks per 256 px of the shorter side", (16, 32, 48, 64, 80), _each_drawn(_blocks)),
    "noise": Perturbation("variance, of 0..1", (0.001, 0.002, 0.005, 0.01, 0.05), _each_drawn(_noise)),
    "blur": Perturbation("kernel in px", (7, 9, 13, 17, 21), _each(_blur)),
    "pixelation": Perturbation("divisor of the sides", (2, 3, 4, 5, 6), _each(_pixelation)),
    "h264": Perturbation("CRF of x264", (30, 32, 35, 38, 40), _h264),
    "h265": Perturbation("CRF of x265", (30, 32, 35, 38, 40), _h265),
    "jpeg": Perturbation("quality", (90, 70, 50, 40, 30), _each(_jpeg)),
    "resize": Perturbation("factor of the sides", (3 / 4, 1 / 2, 1 / 3, 1 / 4, 1 / 6), _each(_resize)),
}
"""The robustness protocol, by name."""


# ----------------------------------------------------------------------------------------------------- tiers


@dataclass(frozen=True, slots=True)
class Tier:
    """What a platform leaves of a picture: its longer side in px at most, then JPEG of a quality."""

    longer_side: int
    quality: int


TIERS: Final[Mapping[str, Tier | None]] = {
    "as it is": None,
    "768 px q60": Tier(768, 60),
    "512 px q40": Tier(512, 40),
}
"""Thresholds are chosen so that at least 95 % of real faces pass in the worst of these (ours)."""


def degrade(rgb: UInt8Array, tier: str) -> UInt8Array:
    """The picture as ``tier``, a key of :data:`TIERS`, leaves it: uint8 RGB, of the smaller size, nothing shared.

    Raises:
        ValueError: ``rgb`` is not uint8 (H, W, 3), or there is no such tier.
    """
    check_picture(rgb)
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}, got {tier!r}")
    limits = TIERS[tier]
    if limits is None:
        return rgb.copy()
    scale = limits.longer_side / max(rgb.shape[:2])
    if scale < 1:
        rgb = np.asarray(cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return jpeg(rgb, limits.quality)
