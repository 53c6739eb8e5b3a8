"""What is said of a frame, drawn on it: boxes, a banner, the latency, a strip of scores over time. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from detector.types import FaceVerdict, FrameResult, Label, Reason, UInt8Array
from pipelines.drawing import (
    BOLD,
    LABEL_COLOURS,
    REGULAR,
    SMALLEST_TEXT,
    WHITE,
    YELLOW,
    Colour,
    box,
    fit_text,
    icon,
    put_text,
    shade,
    text_width,
)
from pipelines.strip import draw_strip
from pipelines.timeline import Timeline

# Below this, letters would hide the face they speak of: boxes and an edge in the colour of the label must do.
_SMALLEST_SIDE = 120


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things go, in pixels. It depends on the size of the picture only, so that nothing jumps in a video.

    ``wide``: the costs stand beside the verdict, not under it. ``banner_y2`` and ``strip_y1`` bound what is free.
    """

    text: int
    big: int
    pad: int
    line: int
    wide: bool
    banner_y2: int
    strip_y1: int

    @staticmethod
    @lru_cache(maxsize=8)
    def of(width: int, height: int) -> _Layout:
        text = max(11, round(0.022 * math.sqrt(width * height)))
        big, pad = round(1.5 * text), text // 2
        longest = max(text_width(reason, text) for reason in Reason)
        words_w = max(longest, text_width(_headline(Label.UNSURE, 0.0), big, BOLD))
        costs_w = max(text_width(words, text) for words in _costs(100.0, 33.3, 100))
        wide = big + text + words_w + costs_w + 5 * pad <= width
        banner_y2 = big + text + 2 * pad + (0 if wide else text + pad // 2)
        strip_y1 = height - max(18, round(0.08 * height)) - _small(text) - 2 * pad
        return _Layout(text, big, pad, max(2, round(text / 8)), wide, banner_y2, max(strip_y1, banner_y2))


def draw(bgr: UInt8Array, result: FrameResult, history: Timeline, budget_ms: float | None) -> UInt8Array:
    """A copy of ``bgr`` with the verdict on it. Texts stay inside the picture; one under 120 pixels has none.

    Args:
        bgr: uint8 (H, W, 3), of the size of ``result.frame``; not changed.
        result: what is said of it.
        history: the clip up to now, ``result`` included.
        budget_ms: what a frame may take; None when there is no budget.

    Returns:
        uint8 (H, W, 3).
    """
    out: UInt8Array = np.array(bgr, order="C")
    height, width = out.shape[:2]
    layout = _Layout.of(width, height)
    legible = min(width, height) >= _SMALLEST_SIDE
    # The most suspicious face last: its label must not be covered by another's.
    for face in sorted(result.verdict.faces, key=lambda face: -1.0 if face.p_fake is None else face.p_fake):
        _draw_face(out, face, layout, legible)
    if legible:
        _draw_banner(out, result, history.dropped, budget_ms, layout)
        draw_strip(out, history, layout.strip_y1, _small(layout.text), layout.pad)
    else:
        cv2.rectangle(out, (0, 0), (width - 1, height - 1), LABEL_COLOURS[result.verdict.label], 1)
    return out


def _draw_face(out: UInt8Array, face: FaceVerdict, layout: _Layout, legible: bool) -> None:
    height, width = out.shape[:2]
    if not np.isfinite(face.xyxy).all():
        return
    x1, y1, x2, y2 = (round(value) for value in face.xyxy)
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return
    # Boxes may reach past the picture: their lines follow its edge then.
    x1, x2 = max(x1, 0), min(x2, width - 1)
    y1, y2 = max(y1, 0), min(y2, height - 1)
    box(out, x1, y1, x2, y2, face.label, layout.line if legible else 1)
    if legible:
        _draw_face_label(out, face, (x1, y1, x2, y2), layout)


def _draw_face_label(out: UInt8Array, face: FaceVerdict, xyxy: tuple[int, int, int, int], layout: _Layout) -> None:
    """A plate with icon and text above the box, or below it, or in its top, wherever banner and strip leave room."""
    width = out.shape[1]
    p_fake = "" if face.p_fake is None else f" {face.p_fake:.2f}"
    gap, side = layout.pad // 2, layout.text
    text, size = fit_text(f"#{face.track} {face.label}{p_fake}", layout.text, width - side - 3 * gap, BOLD)
    plate_w = side + text_width(text, size, BOLD) + 3 * gap
    plate_h = side + 2 * gap
    x1, y1, _, y2 = xyxy
    x = max(0, min(x1, width - plate_w))
    y = y1 - plate_h - layout.line
    if y < layout.banner_y2:
        y = y2 + layout.line + 1
    if y + plate_h > layout.strip_y1:
        y = max(layout.banner_y2, min(y1 + layout.line, layout.strip_y1 - plate_h))
    shade(out, x, y, x + plate_w, y + plate_h)
    icon(out, face.label, x + gap, y + gap, side)
    put_text(out, text, x + side + 2 * gap, y + gap + (side - size) // 2, size, WHITE, BOLD)


def _draw_banner(out: UInt8Array, result: FrameResult, dropped: int, budget_ms: float | None, layout: _Layout) -> None:
    """At the top: icon, verdict and reason; latency and drops on the right, or below where it is narrow."""
    width, pad, text, big = out.shape[1], layout.pad, layout.text, layout.big
    verdict = result.verdict
    side = big + text  # the icon is as high as the two lines
    left = side + 2 * pad
    latency, lost = _costs(result.timing.total_ms, budget_ms, dropped)
    colour = YELLOW if _late(result.timing.total_ms, budget_ms) else WHITE
    shade(out, 0, 0, width, layout.banner_y2)
    icon(out, verdict.label, pad, pad, side)
    # A latency of minutes or a million drops may be wider than planned: the verdict gives way.
    costs_w = max(text_width(latency, text), text_width(lost, text)) + 2 * pad if layout.wide else pad
    _put_fitted(out, _headline(verdict.label, verdict.p_fake), left, pad, big, width - left - costs_w, WHITE, BOLD)
    _put_fitted(out, verdict.reason, left, pad + big, text, width - left - costs_w, WHITE)
    if layout.wide:
        put_text(out, latency, width - pad - text_width(latency, text), pad + big - text, text, colour)
        put_text(out, lost, width - pad - text_width(lost, text), pad + big, text, colour)
    else:
        _put_fitted(out, f"{latency}, {lost}", pad, pad + side + pad // 2, text, width - 2 * pad, colour)


def _headline(label: Label, p_fake: float | None) -> str:
    words = label.replace("_", " ")
    return words if p_fake is None else f"{words}  {p_fake:.2f}"


def _costs(total_ms: float, budget_ms: float | None, dropped: int) -> tuple[str, str]:
    latency = f"{total_ms:.1f} ms" if budget_ms is None else f"{total_ms:.1f} / {budget_ms:.1f} ms"
    return latency, f"{'LATE, ' if _late(total_ms, budget_ms) else ''}dropped {dropped}"


def _late(total_ms: float, budget_ms: float | None) -> bool:
    return budget_ms is not None and total_ms > budget_ms


def _small(text: int) -> int:
    return max(SMALLEST_TEXT, round(0.75 * text))


def _put_fitted(
    out: UInt8Array, text: str, x: int, y: int, size: int, width: int, colour: Colour, weight: int = REGULAR
) -> None:
    text, fitted = fit_text(text, size, width, weight)
    put_text(out, text, x, y + (size - fitted) // 2, fitted, colour, weight)
