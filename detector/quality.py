"""Whether a face can be judged at all: large enough, sharp, lit, and turned to the camera. Pure.

A detector gives a number for anything; these checks say when the number means nothing. The bounds keep 99 % of 478
ordinary real faces (LFW, FFHQ and video frames), so that they abstain on the unusual only.
"""

from __future__ import annotations

import cv2
import numpy as np

from detector.types import Float32Array, Reason, UInt8Array

MIN_SIDE_PX = 64.0
"""Smallest longer side of a landmark box: below it compression leaves too little of a face (detection literature)."""
MIN_LUMA = 40.0
"""Mean brightness, 0..255; the 1st percentile of real video faces is 50."""
MIN_SHARPNESS = 0.012
"""Laplacian variance over grey variance; the 1st percentile of LFW is 0.014."""
MAX_TURN = 0.65
"""See :func:`turn`; the 99th percentile of LFW is 0.63, a profile is 0.9."""

_WORKING_SIDE = 96  # px: sharpness is measured at one scale, so that large and small faces compare


def flaw(crop: UInt8Array, xyxy: Float32Array, keypoints: Float32Array) -> Reason | None:
    """Why a face cannot be judged in this frame, or None when it can.

    Args:
        crop: uint8 RGB (S, S, 3), as scored.
        xyxy: landmark box, float32 (4,), px of the frame.
        keypoints: float32 (6, 2), px of the frame, in the order of :class:`~detector.types.Faces`.
    """
    if float(max(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1])) < MIN_SIDE_PX:
        return Reason.TOO_SMALL
    if abs(turn(keypoints)) > MAX_TURN:
        return Reason.TURNED_AWAY
    grey = _grey_face(crop)
    if float(grey.mean()) < MIN_LUMA:
        return Reason.DARK
    if sharpness(grey) < MIN_SHARPNESS:
        return Reason.BLURRED
    return None


def turn(keypoints: Float32Array) -> float:
    """How far a head is turned, -1..1: 0 frontal, +-1 full profile.

    The difference of the nose's distances to the two ears, over their sum; ``keypoints`` is float32 (6, 2).
    """
    nose, right_ear, left_ear = keypoints[2], keypoints[4], keypoints[5]
    right, left = float(np.linalg.norm(nose - right_ear)), float(np.linalg.norm(nose - left_ear))
    return (right - left) / max(right + left, 1e-6)


def sharpness(grey: Float32Array) -> float:
    """Variance of the Laplacian over the variance of the picture: edges against contrast, so that dim is not blurred.

    ``grey`` is float32 (H, W); a flat picture has sharpness 0. After Pech-Pacheco et al., "Diatom autofocusing in
    brightfield microscopy" (ICPR 2000), there without the division.
    """
    contrast = float(grey.var())
    return float(cv2.Laplacian(grey, cv2.CV_32F).var()) / contrast if contrast > 1e-3 else 0.0


def _grey_face(crop: UInt8Array) -> Float32Array:
    """The face without the crop's margin, grey, float32 (96, 96)."""
    size = len(crop)
    rim = size // 12  # crops are about 1.2 faces wide: 0.1 on each side
    face = crop[rim : size - rim, rim : size - rim]
    small = cv2.resize(face, (_WORKING_SIDE, _WORKING_SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
