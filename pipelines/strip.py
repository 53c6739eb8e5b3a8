"""The strip at the foot of the overlay: the scores of a clip over time. Draws in place."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from detector.types import Label, UInt8Array
from pipelines.drawing import BLACK, LABEL_COLOURS, WHITE, dotted_line, put_text, shade, text_width
from pipelines.timeline import SEVERITY, Timeline

_NO_FACE: Final = SEVERITY.index(Label.NO_FACE)
_PALETTE: Final = np.array([BLACK if label is None else LABEL_COLOURS[label] for label in SEVERITY], np.uint8)


def draw_strip(out: UInt8Array, history: Timeline, top: int, text: int, pad: int) -> None:
    """Draws over everything below ``top``: a caption, a bar a column, a dotted line a threshold.

    Args:
        out: uint8 (H, W, 3).
        history: what to draw.
        top: first row of the strip.
        text: height of its texts in pixels.
        pad: space around things in pixels.
    """
    height, width = out.shape[:2]
    thresholds = [value for value in (history.fake_above, history.real_below) if value is not None]
    gutter = max((text_width(f"{value:.2f}", text) for value in thresholds), default=0)
    x1, x2 = pad, width - pad - gutter
    y1, y2 = top + text + pad, height - pad // 2
    if y2 - y1 < 4 or x2 - x1 < 4:
        return
    shade(out, 0, top, width, height)
    shade(out, x1, y1, x2, y2)  # once more: a bright picture would tint the bars
    bars = bar_picture(history, x2 - x1, y2 - y1)
    out[y1:y2, x1:x2] = cv2.max(bars, out[y1:y2, x1:x2])
    written_y = y1 - text
    for value in thresholds:
        y = round(y2 - 1 - value * (y2 - y1 - 1))
        dotted_line(out, x1, x2, y, WHITE, max(4, text // 2))
        text_y = min(max(y - text // 2, y1 - text // 4), y2 - text)
        if text_y >= written_y + text:  # in a low strip there is room for one number only
            put_text(out, f"{value:.2f}", x2, text_y, text)
            written_y = text_y
    times = " - ".join(_clock(seconds) for seconds in history.axis_s)
    times_x = x2 - text_width(times, text)
    if times_x > x1 + text_width("fake score", text) + pad:
        put_text(out, "fake score", x1, top + pad // 2, text)
    put_text(out, times, max(times_x, x1), top + pad // 2, text)


def bar_picture(history: Timeline, width: int, height: int) -> UInt8Array:
    """The bars alone, uint8 (height, width, 3), on black.

    A bar is as high as the score and has the colour of the label; frames without a face are hatched over the whole
    height; a face without a score leaves one line at the foot.
    """
    columns = history.axis_columns
    seen = len(history.severity)
    level = np.zeros(columns, np.float32)  # (columns,)
    level[:seen] = np.nan_to_num(history.p_fake, nan=0.0)
    kind = np.zeros(columns, np.uint8)  # (columns,) index into SEVERITY
    kind[:seen] = history.severity
    # Columns that share a pixel merge by maximum here too; one that covers several pixels is repeated.
    starts = np.arange(width) * columns // width  # (width,)
    level = np.maximum.reduceat(level, starts)
    kind = np.maximum.reduceat(kind, starts)
    rows = np.arange(height)[::-1, None]  # (height, 1), 0 at the foot
    filled = rows <= level * np.float32(height - 1)  # (height, width)
    hatch = (rows + np.arange(width)) % max(4, height // 6) == 0
    shown = np.where(kind == _NO_FACE, hatch, filled)
    picture: UInt8Array = np.take(_PALETTE, kind * shown, axis=0)  # (height, width, 3)
    return picture


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
