"""Marks on a picture that stay legible on any background: text, plates, boxes, icons. OpenCV; draws in place.

Pictures are uint8 (H, W, 3), colours are blue-green-red, lengths are in pixels.
"""

from __future__ import annotations

import math
import threading
from itertools import pairwise
from typing import Final

import cv2
import numpy as np

from detector.types import Label, UInt8Array

Colour = tuple[int, int, int]
Point = tuple[int, int]

# Okabe and Ito, "Color Universal Design" (2008): told apart with any common colour blindness.
SKY_BLUE: Final[Colour] = (233, 180, 86)
VERMILLION: Final[Colour] = (0, 94, 213)
YELLOW: Final[Colour] = (66, 228, 240)
GREY: Final[Colour] = (176, 176, 176)
WHITE: Final[Colour] = (255, 255, 255)
BLACK: Final[Colour] = (0, 0, 0)

LABEL_COLOURS: Final = {
    Label.REAL: SKY_BLUE,
    Label.FAKE: VERMILLION,
    Label.UNSURE: YELLOW,
    Label.NO_FACE: GREY,
}

REGULAR: Final = 400
BOLD: Final = 700
SMALLEST_TEXT: Final = 9  # pixels; below that nothing can be read

_FONT: Final = cv2.FontFace("sans")
# OpenCV 5.0 sets the weight on a font that all threads share: two that write at once leave each other's letters,
# of the wrong weight, in the glyph cache for good.
_font_lock = threading.Lock()


def text_width(text: str, size: int, weight: int = REGULAR) -> int:
    """Pixels that ``text`` (ASCII) takes at ``size``, its outline included."""
    with _font_lock:
        x, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _FONT, size, weight)
    return int(x + width) + 2 * _outline(size)


def fit_text(text: str, size: int, width: int, weight: int = REGULAR) -> tuple[str, int]:
    """``text`` and the largest size up to ``size`` at which it is at most ``width`` wide.

    What does not fit at the smallest legible size is cut; when not even a letter fits, the text is empty.
    """
    while size > SMALLEST_TEXT and text_width(text, size, weight) > width:
        size -= 1
    if text_width(text, size, weight) <= width:
        return text, size
    keep = len(text) - 1
    while keep > 0 and text_width(text[:keep] + "..", size, weight) > width:
        keep -= 1
    return (text[:keep] + ".." if keep > 0 else ""), size


def put_text(
    bgr: UInt8Array, text: str, x: int, y: int, size: int, colour: Colour = WHITE, weight: int = REGULAR
) -> None:
    """Writes ``text`` (ASCII) with a black outline; (x, y) is the top left corner of a line ``size`` high."""
    edge = _outline(size)
    # Letters reach from the line's top to about 0.2 below the baseline.
    base = (x + edge, y + round(0.8 * size))
    with _font_lock:
        for dx, dy in ((-edge, -edge), (edge, -edge), (-edge, edge), (edge, edge)):
            cv2.putText(bgr, text, (base[0] + dx, base[1] + dy), BLACK, _FONT, size, weight)
        cv2.putText(bgr, text, base, colour, _FONT, size, weight)


def shade(bgr: UInt8Array, x1: int, y1: int, x2: int, y2: int, keep: float = 0.3) -> None:
    """Darkens a rectangle to ``keep`` of its brightness; what lies outside the picture is ignored."""
    part = bgr[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)]
    if part.size:
        cv2.convertScaleAbs(part, part, keep, 0)


def box(bgr: UInt8Array, x1: int, y1: int, x2: int, y2: int, label: Label, thick: int) -> None:
    """A box around a face; the line alone tells the label: REAL single, FAKE double, UNSURE dashed."""
    colour = LABEL_COLOURS[label]
    for line, width in ((BLACK, thick + 2), (colour, thick)):
        if label is Label.UNSURE:
            _dashed(bgr, x1, y1, x2, y2, line, width, dash=6 * thick + 4)
        else:
            cv2.rectangle(bgr, (x1, y1), (x2, y2), line, width)
        inset = 3 * thick
        if label is Label.FAKE and x2 - x1 > 4 * inset and y2 - y1 > 4 * inset:
            cv2.rectangle(bgr, (x1 + inset, y1 + inset), (x2 - inset, y2 - inset), line, width)


def icon(bgr: UInt8Array, label: Label, x: int, y: int, size: int) -> None:
    """The sign of a label in a square: tick on a disc, warning triangle, question on a diamond, struck ring."""
    colour, r = LABEL_COLOURS[label], size / 2
    thick = max(1, round(size / 9))

    def at(u: float, v: float) -> Point:
        return round(x + r + u * r), round(y + r + v * r)

    if label is Label.REAL:
        cv2.circle(bgr, at(0, 0), round(r), colour, cv2.FILLED, cv2.LINE_AA)
        _path(bgr, [at(-0.5, 0.05), at(-0.12, 0.42), at(0.5, -0.35)], BLACK, thick)
    elif label is Label.FAKE:
        _polygon(bgr, [at(0, -0.95), at(1.05, 0.9), at(-1.05, 0.9)], colour)
        _path(bgr, [at(0, -0.35), at(0, 0.25)], BLACK, thick)
        cv2.circle(bgr, at(0, 0.6), max(1, round(thick * 0.6)), BLACK, cv2.FILLED, cv2.LINE_AA)
    elif label is Label.UNSURE:
        _polygon(bgr, [at(0, -1.05), at(1.05, 0), at(0, 1.05), at(-1.05, 0)], colour)
        hook = [
            at(-0.28, -0.3),
            at(-0.1, -0.52),
            at(0.15, -0.5),
            at(0.28, -0.28),
            at(0.18, -0.05),
            at(0, 0.1),
            at(0, 0.25),
        ]
        _path(bgr, hook, BLACK, thick)
        cv2.circle(bgr, at(0, 0.55), max(1, round(thick * 0.6)), BLACK, cv2.FILLED, cv2.LINE_AA)
    else:
        cv2.circle(bgr, at(0, 0), round(0.85 * r), colour, thick, cv2.LINE_AA)
        _path(bgr, [at(-0.6, 0.6), at(0.6, -0.6)], colour, thick)


def dotted_line(bgr: UInt8Array, x1: int, x2: int, y: int, colour: Colour, step: int) -> None:
    """A horizontal dotted line, one pixel thick for every four of ``step``."""
    dots = np.arange(x2 - x1) % step < (step + 1) // 2  # (x2 - x1,)
    bgr[y : y + max(1, step // 4), x1:x2][:, dots] = colour


def _outline(size: int) -> int:
    return max(1, round(size / 18))


def _polygon(bgr: UInt8Array, points: list[Point], colour: Colour) -> None:
    cv2.fillPoly(bgr, [np.array(points, np.int32)], colour, cv2.LINE_AA)


def _path(bgr: UInt8Array, points: list[Point], colour: Colour, thick: int) -> None:
    cv2.polylines(bgr, [np.array(points, np.int32)], False, colour, thick, cv2.LINE_AA)


def _dashed(bgr: UInt8Array, x1: int, y1: int, x2: int, y2: int, colour: Colour, thick: int, dash: int) -> None:
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for (ax, ay), (bx, by) in pairwise(corners):
        pieces = max(1, math.ceil(math.hypot(bx - ax, by - ay) / dash)) | 1  # odd: corners are drawn
        for i in range(0, pieces, 2):
            start = (round(ax + (bx - ax) * i / pieces), round(ay + (by - ay) * i / pieces))
            stop = (round(ax + (bx - ax) * (i + 1) / pieces), round(ay + (by - ay) * (i + 1) / pieces))
            cv2.line(bgr, start, stop, colour, thick)
