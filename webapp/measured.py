"""What a measurement of this machine found (schema ``tellframe.bench/1``) -> a table and a figure. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from webapp.plots import Figure, plot_html
from webapp.tables import note_html, table_html

STAGES: Final = {"find": "Find faces", "crop": "Cut out", "score": "Score", "total": "Whole frame"}
"""Of the figures, and what the page calls them."""
_QUANTILES = ("p50", "p95", "p99")
# Told apart by every kind of colour vision (Okabe and Ito, 2008); none is a verdict's. Patterns say the same.
_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#8C6D1F")
_PATTERNS = ("", "/", ".", "x")
_HATCHING: Final = {"fillmode": "overlay", "fgcolor": "#ffffff", "solidity": 0.3}
_BUDGET_COLOUR = "#D55E00"

Figures = Mapping[str, Any]
"""Of one model, schema ``tellframe.bench/1``."""


def measured_html(measured: Sequence[Figures]) -> str:
    """The figures as a table, a row a model, and what they were measured on."""
    head = ("Model", "Frames a second", "Budget", *(f"{words}, ms" for words in STAGES.values()))
    return table_html("What was measured here", head, map(_row, measured), "tf-wide") + note_html(_about(measured[0]))


def _row(figures: Figures) -> Sequence[str]:
    cells = [figures["model"]["name"], f"{figures['frames_a_second']:.1f}", _kept(figures["budget"])]
    for stage in STAGES:
        took = figures["latency_ms"][stage]
        cells.append(" / ".join(f"{took[q]:.1f}" for q in _QUANTILES) if took["runs"] else "did not run")
    return cells


def _kept(budget: Mapping[str, Any]) -> str:
    return f"{'✓ met' if budget['met'] else '✗ not met'} ({budget['period_ms']:.1f} ms)"


def _about(figures: Figures) -> str:
    plan, device, budget, (width, height) = figures["plan"], figures["device"], figures["budget"], figures["size_wh"]
    return (
        f"Measured on {device['cpu']}, {device['cores']} cores, {device['system']}: {plan['frames']} frames of "
        f"{width}x{height} with one face, after {plan['warm_up']} to warm up, {plan['threads']} scorer thread. Times "
        "are p50 / p95 / p99: half of the frames took no longer than p50, 95 of 100 no longer than p95; so few frames "
        f"tell p99 roughly. The budget is met when {100 * budget['quantile']:.0f} of 100 frames keep it, by the upper "
        "end of an interval, so that luck does not count. Whatever else this machine does makes it slower. Faces are "
        "not looked for in every frame, so the stages do not add up to the whole."
    )


def measured_plot(measured: Sequence[Figures]) -> str:
    """:func:`measured_figure` as an element of the page, with a line that says how to read it."""
    plot = plot_html(measured_figure(measured), "Latency by stage of every model, against the budget", height_px=340)
    return plot + note_html("Bars: p50. Whiskers: up to p95. Dashed line: what a frame may take.")


def measured_figure(measured: Sequence[Figures]) -> Figure:
    """Latency by stage against the budget: a bar a model up to p50, with a whisker up to p95."""
    period_ms = measured[0]["budget"]["period_ms"]
    highest_ms = max(took.get("p95", 0.0) for figures in measured for took in figures["latency_ms"].values())
    layout = {
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "barmode": "group",
        "dragmode": False,
        "xaxis": {"fixedrange": True, "tickangle": 0},
        "yaxis": {"title": {"text": "ms"}, "range": [0, 1.12 * max(highest_ms, period_ms)], "fixedrange": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "shapes": [_budget_line(period_ms)],
        "annotations": [_budget_words(period_ms)],
    }
    return {"data": [_bars(figures, i) for i, figures in enumerate(measured)], "layout": layout}


def _bars(figures: Figures, i: int) -> dict[str, Any]:
    ran = {stage: figures["latency_ms"][stage] for stage in STAGES if figures["latency_ms"][stage]["runs"]}
    p50 = [took["p50"] for took in ran.values()]
    p95 = [took["p95"] for took in ran.values()]
    above = [round(high - middle, 3) for middle, high in zip(p50, p95, strict=True)]
    return {
        "type": "bar",
        "name": figures["model"]["name"],
        "x": [STAGES[stage].replace(" ", "<br>") for stage in ran],
        "y": p50,
        "customdata": p95,
        "error_y": {
            "type": "data",
            "array": above,
            "arrayminus": [0.0] * len(above),
            "symmetric": False,
            "thickness": 1.5,
            "width": 4,
            "color": "#888888",  # seen on white and on black
        },
        "marker": {
            "color": _COLOURS[i % len(_COLOURS)],
            "pattern": {**_HATCHING, "shape": _PATTERNS[i % len(_PATTERNS)]},
        },
        "hovertemplate": "p50 %{y:.1f} ms, p95 %{customdata:.1f} ms<extra>%{fullData.name}</extra>",
    }


def _budget_line(period_ms: float) -> dict[str, Any]:
    line = {"color": _BUDGET_COLOUR, "width": 2, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": period_ms, "y1": period_ms, "line": line}


def _budget_words(period_ms: float) -> dict[str, Any]:
    place = {"xref": "paper", "x": 0.01, "y": period_ms, "xanchor": "left", "yanchor": "bottom"}
    return {"text": f"budget {period_ms:.1f} ms", "showarrow": False, **place}
