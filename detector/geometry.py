"""Boxes: how much they overlap."""

from __future__ import annotations

import numpy as np

from detector.types import Float32Array


def iou(a: Float32Array, b: Float32Array) -> Float32Array:
    """Intersection over union of every box of ``a`` with every box of ``b``.

    Args:
        a: float32 (n, 4), xyxy.
        b: float32 (m, 4), xyxy.

    Returns:
        float32 (n, m), 0..1; 0 where both boxes are empty.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])  # (n, m, 2)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)  # (n, m)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=1)  # (n,)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=1)  # (m,)
    union = area_a[:, None] + area_b[None, :] - shared
    overlap: Float32Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap
