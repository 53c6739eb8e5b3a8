"""Which part of a face drove its score: parts are covered one at a time, on the very model that scored it.

After Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (ECCV 2014). A map shows what the
*score* depends on. It is no proof that what it marks was manipulated.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, cast

import cv2
import numpy as np

from detector.types import Float32Array, Scorer, UInt8Array

CELLS: Final = 7
"""Parts each way: an odd number gives nose and mouth a column of their own. 50 runs of the model: about half a second
on one core with the default one."""
WEAK: Final = 0.3
"""Log-odds below which a part is not named: the maps of the int8 model and of the float one differ by 0.08 (median
root mean square over 18 faces of development clips), at worst by 0.16."""
STRONG: Final = 1.0
"""Log-odds at which a part has its full colour: there its cover divides the odds of fake by 2.7."""
EXPLANATION: Final = (
    "The picture in grey, blue and orange is the face as the model saw it. Each part was covered in turn with a "
    "blurred copy, and the face scored again. Orange: without this part the score falls, so it spoke for fake; the "
    "ring marks the strongest. Blue: without it the score rises, so it spoke for real, or the cover itself looks "
    "like a trace of manipulation. This shows what the score depends on. It does not show what was manipulated, or "
    "that anything was."
)

_EDGE_P: Final = 1e-6  # float32 steps are 6e-8 below 1: log-odds are good to a sixteenth up to here
_BLUR: Final = 1 / 12  # standard deviation over the side of the crop: colours stay, features go
_FACE_WIDTH: Final = 0.86  # of a landmark box, over its height (detector.faces)
_FULL_ALPHA: Final = 0.7
# RGB; Okabe and Ito, "Color Universal Design" (2008): told apart with any common colour blindness.
_FOR_FAKE: Final = np.array([213, 94, 0], np.float32)
_FOR_REAL: Final = np.array([0, 114, 178], np.float32)


def occlusion_map(scorer: Scorer, crop: UInt8Array, cells: int = CELLS, *, batch: int = 8) -> Float32Array:
    """How much the log-odds of p(fake) fall when a part of the face is covered.

    The cover is a strongly blurred copy of the crop, blended in softly: a grey square would be a trace of manipulation
    itself. It hides one cell wholly and fades out over half a cell around it, so that neighbours overlap.

    Args:
        scorer: the model that the user runs.
        crop: uint8 RGB (S, S, 3), as scored.
        cells: parts each way, 1..S.
        batch: crops scored at once; bounds the memory, and changes nothing else.

    Returns:
        float32 (cells, cells), top row first. Above 0: the part speaks for fake; below: for real.

    Raises:
        ValueError: the crop is of another shape or dtype, or there are too few or too many cells.
    """
    side = len(crop)
    if crop.dtype != np.uint8 or crop.shape != (side, side, 3):
        raise ValueError(f"crop must be uint8 (S, S, 3), got {crop.dtype} {crop.shape}")
    if not 1 <= cells <= side or batch < 1:
        raise ValueError(f"cells are 1..{side} and a batch is at least 1, got {cells} and {batch}")
    blurred = cast(UInt8Array, cv2.GaussianBlur(crop, (0, 0), _BLUR * side, borderType=cv2.BORDER_REPLICATE))
    as_it_is = log_odds(scorer.score(crop[None]))  # (1,)
    covered = np.empty(cells * cells, np.float32)
    for start in range(0, len(covered), batch):
        part = range(start, min(start + batch, len(covered)))
        crops = np.stack([_covered(crop, blurred, *divmod(i, cells), cells) for i in part])  # (b, S, S, 3)
        covered[start : part.stop] = log_odds(scorer.score(crops))
    return (as_it_is - covered).reshape(cells, cells)


def log_odds(p: Float32Array) -> Float32Array:
    """Log-odds, float32 (n,), of probabilities (n,): finite also where a float32 sigmoid reached 0 or 1."""
    inside = p.astype(np.float64).clip(_EDGE_P, 1 - _EDGE_P)
    return cast(Float32Array, np.log(inside / (1 - inside)).astype(np.float32))


def heat_picture(crop: UInt8Array, heat: Float32Array, side: int = 360) -> UInt8Array:
    """The crop in grey with the map on it: orange speaks for fake, blue for real, a ring marks the strongest orange.

    Colours are as strong as the log-odds, up to :data:`STRONG`, the same in every picture: a map in which nothing
    matters stays grey, however its own values compare. No ring is drawn below :data:`WEAK`.

    Args:
        crop: uint8 RGB (S, S, 3).
        heat: float32 (cells, cells), from :func:`occlusion_map`.
        side: of the picture, px.

    Returns:
        uint8 RGB (side, side, 3).
    """
    grey = cv2.cvtColor(cv2.resize(crop, (side, side), interpolation=cv2.INTER_CUBIC), cv2.COLOR_RGB2GRAY)
    smooth = cv2.resize(heat, (side, side), interpolation=cv2.INTER_LINEAR)  # (side, side)
    alpha = (np.abs(smooth)[:, :, None] / STRONG).clip(0, 1) * _FULL_ALPHA  # (side, side, 1)
    colour = np.where(smooth[:, :, None] > 0, _FOR_FAKE, _FOR_REAL)  # (side, side, 3)
    out = np.rint(grey[:, :, None] + alpha * (colour - grey[:, :, None])).astype(np.uint8)
    if heat.max() >= WEAK:
        _ring(out, heat)
    return out


def region_name(heat: Float32Array, crop_margin: float) -> str:
    """Which part speaks most for fake, in words that finish "Spoke most for fake: ".

    It is read off the geometry of the crop, so it holds for a face that is upright and turned to the camera; left and
    right are those of the picture. Places are medians over 127 faces of 63 development clips.

    Args:
        heat: float32 (cells, cells), from :func:`occlusion_map`.
        crop_margin: side of the crop over the longer side of the landmark box (of the model's card).
    """
    if float(heat.max()) < WEAK:
        return "no single part of the face"
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    y, x = ((int(i) + 0.5) / len(heat) - 0.5 for i in (row, column))  # -0.5..0.5 of the crop
    return _place(x * crop_margin / _FACE_WIDTH, y * crop_margin)


def _place(x: float, y: float) -> str:
    """The part of a face at (x, y), in widths and heights of its landmark box from the centre of the box."""
    from_centre = math.hypot(x, y) / 0.5  # 1 on the oval that the box holds
    side = "left" if x < 0 else "right"
    if from_centre > 1.15:
        return "the background or hair around the face"
    if y > 0.32:
        return "the chin and jaw"
    if y < -0.25 and from_centre < 0.9:
        return "the forehead"
    if from_centre > 0.78:
        return "the edge of the face"
    if y < -0.07:
        return "the bridge of the nose" if abs(x) < 0.1 else f"the eye on the {side} of the picture"
    if abs(x) < (0.17 if y < 0.14 else 0.21):
        return "the nose" if y < 0.14 else "the mouth"
    return f"the cheek on the {side} of the picture"


def _covered(crop: UInt8Array, blurred: UInt8Array, row: int, column: int, cells: int) -> UInt8Array:
    """A copy of ``crop`` with one cell hidden."""
    (top, down), (left, across) = (_fade(i, cells, len(crop)) for i in (row, column))
    mask = (down[:, None] * across)[:, :, None]  # (h, w, 1), 0..1
    part = slice(top, top + len(down)), slice(left, left + len(across))
    out = crop.copy()
    out[part] = np.rint(crop[part] + mask * (blurred[part].astype(np.float32) - crop[part]))
    return out


@lru_cache(maxsize=64)
def _fade(index: int, cells: int, side: int) -> tuple[int, Float32Array]:
    """First pixel of a cover along one axis, and its weights, float32 (n,): 1 in the cell, falling to 0 beside it."""
    cell = side / cells
    middle = (index + 0.5) * cell
    start, stop = max(0, math.floor(middle - cell)), min(side, math.ceil(middle + cell))
    away = np.abs(np.arange(start, stop) + 0.5 - middle) / cell  # (n,), in cells
    return start, (np.cos(np.pi * (away - 0.5).clip(0, 0.5)) ** 2).astype(np.float32)


def _ring(rgb: UInt8Array, heat: Float32Array) -> None:
    """Draws a ring around the cell that speaks most for fake: dark and light, seen on any ground, and in print."""
    side, cell = len(rgb), len(rgb) / len(heat)
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    centre = round((int(column) + 0.5) * cell), round((int(row) + 0.5) * cell)
    thick = max(1, side // 120)
    for colour, width in (((0, 0, 0), 3 * thick), ((255, 255, 255), thick)):
        cv2.circle(rgb, centre, round(0.62 * cell), colour, width, cv2.LINE_AA)
