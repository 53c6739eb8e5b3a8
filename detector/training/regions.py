"""Parts of a face as soft masks and smooth movements of its points: what pseudo-fakes are cut and bent with. Pure."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from detector.types import Float32Array

# Indices in MediaPipe's face mesh (canonical_face_model, the FACEMESH_* contours of its Python package).
# fmt: off
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
        150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 327, 129, 358, 49, 279)
JAW = (454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234)
# fmt: on
LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)
MOUTH_CORNERS = (61, 291)

_WORKING_SIDE = 128
"""Masks and movements are smooth: they are made at this many pixels and enlarged."""
_GRID = 24  # cells of a field of movement, each way


def hull_mask(points: Float32Array, indices: tuple[int, ...], shape_hw: tuple[int, int]) -> Float32Array:
    """The convex hull of some points as a hard mask at working size: float32 (h, w) of 0 and 1, longer side 128."""
    scale = _WORKING_SIDE / max(shape_hw)
    size_hw = [max(2, round(side * scale)) for side in shape_hw]
    mask = np.zeros(size_hw, np.float32)
    hull = cv2.convexHull((points[list(indices)] * scale).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, 1.0)
    return mask


def soften(
    mask: Float32Array, shape_hw: tuple[int, int], rng: np.random.Generator, *, deform: float = 5.0
) -> Float32Array:
    """A hard mask bent at random and blurred twice: float32 ``shape_hw``, 0..1 (the mask of the self-blending paper).

    Args:
        mask: from :func:`hull_mask`.
        shape_hw: height and width wanted.
        rng: draws the bend and the two blurs.
        deform: largest bend, in pixels of the working size.
    """
    height, width = mask.shape
    bend = rng.uniform(-deform, deform, (2, 5, 5)).astype(np.float32)
    dx, dy = (cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in bend)
    y, x = np.indices(mask.shape, np.float32)
    bent = cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR)
    first, second = (int(k) * 2 + 1 for k in rng.integers(1, 9, 2))
    bent = cv2.GaussianBlur(bent, (first, first), 0)
    peak = float(bent.max())
    # Pulled in before the second blur, so that the seam lies inside the hull as often as across it.
    bent = (bent - rng.uniform(0.0, 0.4) * peak).clip(0) / max(peak, 1e-6)
    bent = cv2.GaussianBlur(bent, (second, second), 0)
    large = cv2.resize(bent, shape_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return cast(Float32Array, large / max(float(bent.max()), 1e-6))


def field(points: Float32Array, moves: Float32Array, shape_hw: tuple[int, int], reach: float) -> Float32Array:
    """Movements of points spread smoothly over a picture: float32 (h, w, 2), px.

    Every place moves by the Gaussian-weighted mean of the points near it (Nadaraya-Watson), fading to none away from
    all of them.

    Args:
        points: float32 (n, 2), px.
        moves: float32 (n, 2), px.
        shape_hw: of the picture.
        reach: standard deviation of the weights, px.
    """
    height, width = shape_hw
    # Where cv2.resize takes the values of a small picture to lie in the large one.
    rows, columns = ((np.arange(_GRID) + 0.5) * side / _GRID - 0.5 for side in (height, width))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    places = np.stack([x, y], axis=-1).reshape(-1, 1, 2).astype(np.float32)  # (g, 1, 2)
    square = ((places - points) ** 2).sum(axis=2)  # (g, n)
    weights = np.exp(-square / (2 * reach**2))
    mean = (weights @ moves) / (weights.sum(axis=1, keepdims=True) + 0.5)  # (g, 2)
    coarse = mean.reshape(_GRID, _GRID, 2).astype(np.float32)
    return cast(Float32Array, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
