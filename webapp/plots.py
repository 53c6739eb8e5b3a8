"""Figures of the page as plain data, and the element that shows one. Pure; the browser draws (static/plot.js)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from detector.types import Label
from pipelines.timeline import SEVERITY, Timeline
from webapp.view import WORDS

Figure = Mapping[str, Any]
"""``{"data": [traces], "layout": {...}}``, as Plotly takes it."""

COLOURS: Final = {
    Label.REAL: "#0072B2",
    Label.UNSURE: "#C99700",
    Label.FAKE: "#D55E00",
    Label.NO_FACE: "#6B7280",
}
"""Of the verdicts: told apart by every kind of colour vision (Okabe and Ito, 2008), on white and on black."""
_SYMBOLS: Final = {Label.REAL: "circle", Label.UNSURE: "diamond", Label.FAKE: "square", Label.NO_FACE: "x"}


def plot_html(figure: Figure, label: str, *, height_px: int = 300, seeks: bool = False) -> str:
    """The element that draws ``figure``.

    Args:
        figure: what to draw; its own colours of text and background are left to the page's theme.
        label: what it shows, in words, for those who cannot see it.
        height_px: of the plot; it is as wide as there is room.
        seeks: whether a click in it moves the player: its x axis is seconds of the video then.
    """
    data = escape(json.dumps(figure, allow_nan=False, separators=(",", ":")), quote=True)
    mark = " seeks" if seeks else ""
    return (
        f'<tellframe-plot figure="{data}" aria-label="{escape(label, quote=True)}" '
        f'style="height:{height_px}px"{mark}></tellframe-plot>'
    )


def timeline_figure(timeline: Timeline, segments: Sequence[Mapping[str, float]] = ()) -> Figure:
    """p(fake) over the seconds of a clip: a line, the verdicts as marks on it, the thresholds, suspicious stretches.

    Args:
        timeline: of the clip.
        segments: its suspicious stretches, ``start_s`` and ``end_s``, as in the record of a clip.
    """
    p = timeline.p_fake  # (n,)
    start_s, end_s = timeline.axis_s
    step_s = (end_s - start_s) / timeline.axis_columns
    times = start_s + (np.arange(len(p)) + 0.5) * step_s  # (n,)
    last_s = max(float(times[-1]) if len(p) else 0.0, 0.1)
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": _rounded(times),
        "y": _rounded(p),
        "line": {"color": "#6B7280", "width": 1},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    layout = {
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": {"title": {"text": "seconds"}, "range": [0, last_s * 1.01], "fixedrange": True},
        "yaxis": {"title": {"text": "p(fake)"}, "range": [-0.03, 1.03], "fixedrange": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "shapes": [*_thresholds(timeline), *map(_stretch, segments)],
    }
    return {"data": [line, *_marks(timeline, times)], "layout": layout}


def _marks(timeline: Timeline, times: Any) -> list[dict[str, Any]]:
    """One trace a verdict, so that each has its own colour, its own mark and its word in the legend."""
    traces = []
    for label in (Label.REAL, Label.UNSURE, Label.FAKE):
        chosen = (timeline.severity == SEVERITY.index(label)) & np.isfinite(timeline.p_fake)  # (n,)
        if not chosen.any():
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": WORDS[label],
                "x": _rounded(times[chosen]),
                "y": _rounded(timeline.p_fake[chosen]),
                "marker": {"color": COLOURS[label], "symbol": _SYMBOLS[label], "size": 6},
                "hovertemplate": "%{x:.1f} s: p(fake) %{y:.2f}<extra>" + WORDS[label] + "</extra>",
            }
        )
    return traces


def _thresholds(timeline: Timeline) -> list[dict[str, Any]]:
    lines = []
    for label, at in ((Label.REAL, timeline.real_below), (Label.FAKE, timeline.fake_above)):
        if at is not None:
            lines.append(
                {
                    "type": "line",
                    "xref": "paper",
                    "x0": 0,
                    "x1": 1,
                    "y0": at,
                    "y1": at,
                    "line": {"color": COLOURS[label], "width": 1, "dash": "dash" if label is Label.FAKE else "dot"},
                }
            )
    return lines


def _stretch(segment: Mapping[str, float]) -> dict[str, Any]:
    return {
        "type": "rect",
        "yref": "paper",
        "x0": segment["start_s"],
        "x1": segment["end_s"],
        "y0": 0,
        "y1": 1,
        "fillcolor": COLOURS[Label.FAKE],
        "opacity": 0.12,
        "line": {"width": 0},
        "layer": "below",
    }


def _rounded(values: Any) -> list[float | None]:
    """Plain numbers for JSON; None where there is none."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
