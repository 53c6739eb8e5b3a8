"""p(fake) over a clip as a drawing that needs no script: what the report shows, on the screen and in print. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

import numpy as np

from detector.types import Label
from pipelines.timeline import SEVERITY, Timeline
from webapp.view import WORDS, clock

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _STRIP = 720, 210, 40, 712, 24, 22  # px
_FOOT: Final = _HEIGHT - 24  # y of the strip's lower edge
_FLOOR: Final = _FOOT - _STRIP - 6  # y of p(fake) 0
_STRIP_HEIGHTS: Final = {Label.REAL: 0.3, Label.UNSURE: 0.6, Label.FAKE: 1.0}  # told by height, not by colour alone
_TICKS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600, 7200)
_CAPTION: Final = (
    "Line: p(fake) of the most suspicious face, smoothed over a second. Dashed: the thresholds. Shaded: stretches "
    f"called {WORDS[Label.FAKE]}. Numbers: the frames shown below. Strip: what was said of each frame; high "
    f"{WORDS[Label.FAKE]}, middle {WORDS[Label.UNSURE]}, low {WORDS[Label.REAL]}, none no face. Time in min:s."
)


def timeline_svg(timeline: Timeline, segments: Sequence[Mapping[str, float]], moments_s: Sequence[float]) -> str:
    """A figure: the curve, the thresholds, suspicious stretches, numbered moments, and a strip of the words below.

    Args:
        timeline: of the clip.
        segments: its suspicious stretches, ``start_s`` and ``end_s``, as in the record of a clip.
        moments_s: times of the moments that are numbered 1, 2 ...
    """
    axis = _Axis(timeline)
    drawn = (
        *(_stretch(axis, segment) for segment in segments),
        *_curve(timeline, axis),
        *_scale(timeline),
        *(_text(axis.x(at), _HEIGHT - 5, clock(at)[:-2], "middle") for at in _ticks(axis.end_s)),
        *_strip(timeline, axis),
        *(_moment(axis, number, at) for number, at in enumerate(moments_s, 1)),
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="p(fake) over the video">'
        f"{''.join(drawn)}</svg><figcaption>{escape(_CAPTION)}</figcaption></figure>"
    )


class _Axis:
    """Where the columns of a timeline, and its seconds, lie in the drawing: the clip so far fills it."""

    def __init__(self, timeline: Timeline) -> None:
        start_s, end_s = timeline.axis_s
        self._step_s = (end_s - start_s) / timeline.axis_columns
        self.end_s = max(len(timeline.p_fake), 1) * self._step_s

    def x(self, seconds: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * min(max(seconds / self.end_s, 0.0), 1.0)

    def column(self, index: float) -> float:
        return self.x(index * self._step_s)


def _y(p: float) -> float:
    return _FLOOR - (_FLOOR - _TOP) * p


def _stretch(axis: _Axis, segment: Mapping[str, float]) -> str:
    left, right = axis.x(segment["start_s"]), axis.x(segment["end_s"])
    return _rect("stretch", left, _TOP, max(1.0, right - left), _FLOOR - _TOP)


def _scale(timeline: Timeline) -> Iterator[str]:
    """0, 0.5 and 1, and the thresholds."""
    for p in (0.0, 0.5, 1.0):
        yield _text(_LEFT - 6, _y(p) + 4, f"{p:g}", "end")
    for threshold, words in (
        (timeline.real_below, f"{WORDS[Label.REAL]} below"),
        (timeline.fake_above, f"{WORDS[Label.FAKE]} above"),
    ):
        if threshold is not None:
            yield f'<path class="threshold" d="M{_LEFT} {_y(threshold):.1f} H{_RIGHT}"/>'
            yield _text(_RIGHT - 2, _y(threshold) - 4, f"{words} {threshold:.2f}", "end")


def _curve(timeline: Timeline, axis: _Axis) -> Iterator[str]:
    """A line through the columns that have a score, broken where there is none; a lone one is a dot."""
    for scored, run in groupby(enumerate(timeline.p_fake.tolist()), key=lambda item: bool(np.isfinite(item[1]))):
        points = [(axis.column(column + 0.5), _y(value)) for column, value in run if scored]
        if len(points) == 1:
            yield f'<circle class="dot" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="1.5"/>'
        elif points:
            yield f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _strip(timeline: Timeline, axis: _Axis) -> Iterator[str]:
    """What was said of each frame, as bars at the foot."""
    for severity, run in groupby(enumerate(timeline.severity.tolist()), key=lambda item: item[1]):
        columns, label = [column for column, _ in run], SEVERITY[severity]
        if label in _STRIP_HEIGHTS:
            left, right = axis.column(columns[0]), axis.column(columns[-1] + 1)
            height = _STRIP * _STRIP_HEIGHTS[label]
            yield _rect(f"tf-{label.value}", left, _FOOT - height, right - left, height)


def _moment(axis: _Axis, number: int, at_s: float) -> str:
    x = axis.x(at_s)
    return f'<path class="moment" d="M{x:.1f} {_TOP} V{_FLOOR}"/>' + _text(x, _TOP - 4, str(number), "middle")


def _ticks(end_s: float) -> list[float]:
    """At most eight round times of 0..``end_s``, whole seconds."""
    step_s = next((step for step in _TICKS_S if end_s / step < 8), _TICKS_S[-1])
    return [float(at) for at in range(0, int(end_s) + 1, step_s)]


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
