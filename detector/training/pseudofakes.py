"""Fakes made on the fly from real faces. Each function is one kind of forgery, with its source.

All take a window around a face, uint8 RGB (h, w, 3), the face mesh in it, float32 (468, 2) px, and a random generator,
and return ``(real, fake)``, two windows of the same shape that differ by the forgery alone: where the forger also
changed what lies around the face (its colours, its sharpness), the real one is changed with it, so that ordinary
processing is evidence of nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np

from detector.training.regions import (
    BROWS,
    JAW,
    LEFT_EYE,
    LIPS,
    LOWER_LIP,
    MOUTH_CORNERS,
    NOSE,
    OVAL,
    RIGHT_EYE,
    field,
    hull_mask,
    soften,
)
from detector.types import Float32Array, UInt8Array

Pair = tuple[UInt8Array, UInt8Array]
Rng = np.random.Generator

_EYES = (*RIGHT_EYE, *LEFT_EYE, *BROWS)
_HULLS = (
    (*OVAL, *BROWS),  # the whole face with its forehead
    (*JAW, *BROWS),  # brows to chin: what most swap tools replace
    (*BROWS, *LIPS, *NOSE, *_EYES),  # the inner face
    (*JAW, *NOSE, *LIPS),  # the lower face
    (*LIPS, 152, 377, 148),  # mouth and chin
    _EYES,
)
_HULL_ODDS = np.array([0.3, 0.3, 0.15, 0.1, 0.1, 0.05])


# --------------------------------------------------------------------------------------------------- forgeries


def self_blend(rgb: UInt8Array, points: Float32Array, rng: Rng) -> Pair:
    """A face blended into itself: after Shiohara & Yamasaki, "Detecting Deepfakes with Self-Blended Images", CVPR 2022.

    Two copies, one of which gets other colours and frequencies; the upper one is moved and scaled a little, and is
    blended into the lower one through a deformed, blurred hull of part of the face.
    """
    changed = retouch(rgb, rng)
    upper, lower = (changed, rgb) if rng.random() < 0.5 else (rgb, changed)
    upper = _jitter(upper, rng)
    mask = _random_hull(rgb, points, rng) * rng.choice([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    return lower, blend(upper, lower, mask)


def swap(rgb: UInt8Array, points: Float32Array, donor: UInt8Array, donor_points: Float32Array, rng: Rng) -> Pair:
    """Another person's face, aligned, matched in colour, and blended in: the classical face swap.

    Alignment by landmarks and a feathered hull as in Li et al., "Face X-ray for More General Face Forgery Detection",
    CVPR 2020; colours by Reinhard et al., "Color Transfer between Images", 2001, or the seam by Perez et al., "Poisson
    Image Editing", 2003, as in Le et al., "OpenForensics", ICCV 2021, where the donor is a generated face. The donor
    loses detail first, as what a generator of 64-256 px gives does.
    """
    face = _aligned(donor, donor_points, rgb.shape[:2], points, fit=rng.random() < 0.7)
    if rng.random() < 0.7:
        face = lose_detail(face, float(rng.uniform(0.35, 0.9)), rng)
    hull = _HULLS[int(rng.choice(3, p=[0.35, 0.45, 0.2]))]
    hard = hull_mask(points, hull, rgb.shape[:2])
    if rng.random() < 0.9:
        face = _match_colours(face, rgb, hard, float(rng.uniform(0.7, 1.0)))
    if rng.random() < 0.25:
        return rgb, _poisson(face, rgb, hard)
    mask = soften(hard, rgb.shape[:2], rng, deform=3.0)
    return rgb, blend(face, rgb, mask)


def paste(rgb: UInt8Array, points: Float32Array, donor: UInt8Array, donor_points: Float32Array, rng: Rng) -> Pair:
    """A face, generated or another person's, cloned in at full detail: Le et al., "OpenForensics", ICCV 2021.

    Against :func:`swap`: the donor loses no detail, and the seam is more often Poisson's and else less deformed.
    """
    face = _aligned(donor, donor_points, rgb.shape[:2], points, fit=rng.random() < 0.8)
    hard = hull_mask(points, _HULLS[int(rng.choice(2))], rgb.shape[:2])
    if rng.random() < 0.9:
        face = _match_colours(face, rgb, hard, float(rng.uniform(0.7, 1.0)))
    if rng.random() < 0.5:
        return rgb, _poisson(face, rgb, hard)
    return rgb, blend(face, rgb, soften(hard, rgb.shape[:2], rng, deform=2.0))


def reenact(rgb: UInt8Array, points: Float32Array, rng: Rng) -> Pair:
    """The same person made to move: mouth, jaw, eyes or brows are bent, rendered again with less detail, blended back.

    What Face2Face and NeuralTextures (Thies et al., CVPR 2016 and SIGGRAPH 2019) and talking-head tools leave: no
    other identity, a re-rendered part, a soft seam.
    """
    parts = rng.random(3) < (0.8, 0.35, 0.25)  # mouth and jaw, eyes, brows
    if not parts.any():
        parts[0] = True
    face_px = float(np.ptp(points[:, 1]))
    moves = np.zeros_like(points)
    if parts[0]:
        moves[list(LOWER_LIP)] += (0, rng.uniform(-0.04, 0.09) * face_px)
        moves[list(JAW[5:-5])] += (rng.normal(0, 0.008) * face_px, rng.uniform(-0.02, 0.06) * face_px)
        for corner, side in zip(MOUTH_CORNERS, (-1, 1), strict=True):
            moves[corner] += (side * rng.uniform(-0.04, 0.04) * face_px, rng.uniform(-0.04, 0.03) * face_px)
    if parts[1]:
        moves[list(RIGHT_EYE + LEFT_EYE)] += rng.normal(0, 0.012, 2) * face_px
    if parts[2]:
        moves[list(BROWS)] += (0, rng.uniform(-0.05, 0.03) * face_px)
    bent = _bend(rgb, field(points, moves.astype(np.float32), rgb.shape[:2], reach=0.07 * face_px))
    rendered = lose_detail(bent, float(rng.uniform(0.3, 0.9)), rng)
    if rng.random() < 0.6:
        rendered = _shift_colours(rendered, rng, strength=0.4)
    whole = rng.random() < 0.35
    hull = _HULLS[int(rng.choice(2))] if whole else (*_HULLS[3 if parts[0] else 5], *(_EYES if parts[1:].any() else ()))
    mask = soften(hull_mask(points, hull, rgb.shape[:2]), rgb.shape[:2], rng, deform=3.0)
    return rgb, blend(rendered, rgb, mask)


def reconstruct(rgb: UInt8Array, points: Float32Array, rng: Rng) -> Pair:
    """The face as a decoder gives it back: the traces of up-sampling, without another identity or movement.

    Up-sampling by zeros and a short kernel leaves copies of the spectrum (Zhang et al., "Detecting and Simulating
    Artifacts in GAN Fake Images", WIFS 2019); a bottleneck loses the finest detail. On the face alone, or everywhere.
    """
    rendered = _upsampled(rgb, rng) if rng.random() < 0.6 else lose_detail(rgb, float(rng.uniform(0.3, 0.7)), rng)
    if rng.random() < 0.4:
        return rgb, rendered
    mask = _random_hull(rgb, points, rng)
    return rgb, blend(rendered, rgb, mask)


# --------------------------------------------------------------------------------------------------- steps


def blend(upper: UInt8Array, lower: UInt8Array, mask: Float32Array) -> UInt8Array:
    """``upper`` where ``mask`` (h, w) is 1, ``lower`` where it is 0; uint8."""
    mixed = lower + mask[..., None] * (upper.astype(np.float32) - lower)
    return cast(UInt8Array, np.rint(mixed).clip(0, 255).astype(np.uint8))


def retouch(rgb: UInt8Array, rng: Rng) -> UInt8Array:
    """Other colours and another sharpness, as between two generations of a picture."""
    changed = _shift_colours(rgb, rng, strength=1.0)
    kind = rng.random()
    if kind < 0.4:
        return lose_detail(changed, float(rng.uniform(0.25, 0.8)), rng)
    if kind < 0.7:
        return _sharpen(changed, float(rng.uniform(0.3, 1.2)))
    return changed


def lose_detail(rgb: UInt8Array, keep: float, rng: Rng) -> UInt8Array:
    """Shrunk to ``keep`` of its size and enlarged again, by methods drawn at random."""
    height, width = rgb.shape[:2]
    small = (max(8, round(width * keep)), max(8, round(height * keep)))
    down = rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
    up = rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
    shrunk = cv2.resize(rgb, small, interpolation=int(down))
    return cast(UInt8Array, cv2.resize(shrunk, (width, height), interpolation=int(up)))


def _shift_colours(rgb: UInt8Array, rng: Rng, strength: float) -> UInt8Array:
    """Channels moved by up to 20, brightness and contrast by up to 15 %, hue and saturation a little."""
    gain = 1 + strength * rng.uniform(-0.15, 0.15)
    shift = strength * (rng.uniform(-20, 20, 3) + rng.uniform(-15, 15))
    values = np.arange(256, dtype=np.float32)[:, None]
    table = ((values - 128) * gain + 128 + shift).clip(0, 255).astype(np.uint8)  # (256, 3)
    changed = cast(UInt8Array, cv2.LUT(rgb, table[:, None, :]))
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV)
        hue = (np.arange(256) + strength * rng.uniform(-6, 6)) % 180
        saturation = (np.arange(256) * (1 + strength * rng.uniform(-0.3, 0.3))).clip(0, 255)
        table = np.stack([hue, saturation, np.arange(256)], axis=1).astype(np.uint8)
        changed = cast(UInt8Array, cv2.cvtColor(cv2.LUT(hsv, table[:, None, :]), cv2.COLOR_HSV2RGB))
    return changed


def _sharpen(rgb: UInt8Array, amount: float) -> UInt8Array:
    return cast(UInt8Array, cv2.addWeighted(rgb, 1 + amount, cv2.GaussianBlur(rgb, (5, 5), 0), -amount, 0))


def _jitter(rgb: UInt8Array, rng: Rng) -> UInt8Array:
    """Moved by up to 3 % across and 1.5 % down, scaled by up to 5 % about the centre (section 3.1 of the SBI paper)."""
    height, width = rgb.shape[:2]
    scale = rng.uniform(0.95, 1.05)
    dx, dy = rng.uniform(-0.03, 0.03) * width, rng.uniform(-0.015, 0.015) * height
    move = np.array([[scale, 0, dx + (1 - scale) * width / 2], [0, scale, dy + (1 - scale) * height / 2]], np.float32)
    moved = cv2.warpAffine(rgb, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return cast(UInt8Array, moved)


def _random_hull(rgb: UInt8Array, points: Float32Array, rng: Rng) -> Float32Array:
    hull = _HULLS[int(rng.choice(len(_HULLS), p=_HULL_ODDS))]
    return soften(hull_mask(points, hull, rgb.shape[:2]), rgb.shape[:2], rng)


def similarity(source: Float32Array, target: Float32Array) -> Float32Array:
    """The rotation, scale and shift, float32 (2, 3), that brings ``source`` (n, 2) nearest to ``target`` (n, 2).

    Least squares in closed form: Umeyama, "Least-Squares Estimation of Transformation Parameters", PAMI 1991, in 2-D.
    """
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - mean_s, target - mean_t
    power = float((s**2).sum())
    a = float((s * t).sum()) / power
    b = float((s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum()) / power
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, mean_t - turn @ mean_s]).astype(np.float32)


def _aligned(
    donor: UInt8Array, donor_points: Float32Array, shape_hw: tuple[int, ...], points: Float32Array, *, fit: bool
) -> UInt8Array:
    """``donor`` moved onto ``points``; with ``fit`` also bent to their shape and expression."""
    move = similarity(donor_points, points)
    size_wh = (shape_hw[1], shape_hw[0])
    face = cv2.warpAffine(donor, move, size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    if not fit:
        return cast(UInt8Array, face)
    moved = donor_points @ move[:, :2].T + move[:, 2]
    reach = 0.06 * float(np.ptp(points[:, 1]))
    return _bend(cast(UInt8Array, face), field(points, points - moved, (shape_hw[0], shape_hw[1]), reach))


def _bend(rgb: UInt8Array, moves: Float32Array) -> UInt8Array:
    """``rgb`` with every place moved by ``moves``, float32 (h, w, 2) px (read backwards: smooth, small movements)."""
    y, x = np.indices(rgb.shape[:2], np.float32)
    bent = cv2.remap(rgb, x - moves[..., 0], y - moves[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return cast(UInt8Array, bent)


def _match_colours(face: UInt8Array, like: UInt8Array, hard: Float32Array, strength: float) -> UInt8Array:
    """``face`` with mean and spread in LAB of ``like``, both inside the mask ``hard`` (at working size)."""
    size_wh = hard.shape[::-1]
    inside = hard > 0.5
    if not inside.any():
        return face
    ours, theirs = (
        cv2.cvtColor(cv2.resize(p, size_wh, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)[inside].astype(np.float32)
        for p in (face, like)
    )  # (k, 3)
    gain = 1 + strength * (theirs.std(axis=0) / (ours.std(axis=0) + 1e-3) - 1).clip(-0.5, 1.0)
    shift = strength * (theirs.mean(axis=0) - ours.mean(axis=0))
    values = np.arange(256, dtype=np.float32)[:, None]
    table = ((values - ours.mean(axis=0)) * gain + ours.mean(axis=0) + shift).clip(0, 255).astype(np.uint8)  # (256, 3)
    lab = cv2.LUT(cv2.cvtColor(face, cv2.COLOR_RGB2LAB), table[:, None, :])
    return cast(UInt8Array, cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def _poisson(upper: UInt8Array, lower: UInt8Array, hard: Float32Array) -> UInt8Array:
    """``upper`` with the light of ``lower`` along the rim of the mask ``hard`` (at working size): no seam to see."""
    height, width = lower.shape[:2]
    mask = (cv2.resize(hard, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5).astype(np.uint8) * 255
    mask[[0, 1, -2, -1], :] = 0  # the solver wants a rim around the mask
    mask[:, [0, 1, -2, -1]] = 0
    left, top, w, h = cv2.boundingRect(mask)
    if min(w, h) < 8:
        return lower
    return cast(UInt8Array, cv2.seamlessClone(upper, lower, mask, (left + w // 2, top + h // 2), cv2.NORMAL_CLONE))


def _upsampled(rgb: UInt8Array, rng: Rng) -> UInt8Array:
    """Halved, then doubled as a transposed convolution does it: zeros between the pixels, then a short odd kernel."""
    height, width = rgb.shape[:2]
    half = cv2.resize(rgb, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    sparse = np.zeros((half.shape[0] * 2, half.shape[1] * 2, 3), np.float32)
    sparse[::2, ::2] = half
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) * (1 + rng.normal(0, 0.08, (3, 3)).astype(np.float32))
    rendered = cv2.filter2D(sparse, -1, 4 * kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)[:height, :width]
    finest = rgb - cv2.GaussianBlur(rgb, (3, 3), 0).astype(np.float32)  # a skip connection gives some of it back
    return cast(UInt8Array, np.rint(rendered + rng.uniform(0, 0.8) * finest).clip(0, 255).astype(np.uint8))


FROM_ONE_FACE: dict[str, Callable[[UInt8Array, Float32Array, Rng], Pair]] = {
    "self_blend": self_blend,
    "reenact": reenact,
    "reconstruct": reconstruct,
}
"""Forgeries that need one face."""

FROM_TWO_FACES: dict[str, Callable[[UInt8Array, Float32Array, UInt8Array, Float32Array, Rng], Pair]] = {
    "swap": swap,
    "paste": paste,
}
"""Forgeries that bring the face of a donor."""
