"""The sensitivity map as a figure: a row a layer; left, its channels pruned; right, its weights rounded. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from webapp.hqpreports import Reports, Trial
from webapp.plots import Figure, plot_html

HOW_TO_READ: Final = (
    "A row is a layer of the network, in the order in which a picture passes through them, and a cell is one "
    "experiment: only that layer was changed, on the left by keeping a share of its channels (“none”: its whole block "
    "left out), on the right by rounding its weights to fewer bits. The brighter a cell and the higher its number (the "
    "mean squared change of the network's answer, a logit), the more is lost: a row that is dark on the left can be "
    "cut, one that is dark on the right can be rounded, and grey was not tried."
)
_ROW_PX, _FRAME_PX = 17, 150
_DECADES = 5
"""Of divergence that colours tell apart, below the largest; what is less is as good as nothing."""
_BRIGHT = 0.45
"""From this share of the scale on, black text is read more easily than white."""
_NONE = "none"


def heat_html(reports: Reports) -> str:
    """The map as an element of the page."""
    height_px = _ROW_PX * len(reports.layers) + _FRAME_PX
    label = "Sensitivity of every layer to pruning and to fewer bits; the table below says what came of it"
    return plot_html(sensitivity_figure(reports), label, height_px=height_px)


def sensitivity_figure(reports: Reports) -> Figure:
    """The map: two panels that share rows and colours."""
    largest = max(trial.divergence for trial in (*reports.pruned, *reports.rounded))
    top = math.log10(largest)
    scale = {
        "colorscale": "Cividis",  # its lightness rises evenly, for every colour vision and in grey
        "zmin": top - _DECADES,
        "zmax": top,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{customdata}<extra></extra>",
        "texttemplate": "%{text}",
    }
    powers = range(math.ceil(top - _DECADES), math.floor(top) + 1)
    bar = {
        "orientation": "h",
        "y": 0,
        "yanchor": "top",
        "thickness": 12,
        "len": 1,
        "tickvals": [*powers],
        "ticktext": [f"{10.0**power:g}" for power in powers],
        "title": {"text": "change (log scale)", "side": "bottom"},
    }
    panels = [("x", _pruning(reports)), ("x2", _rounding(reports))]
    traces = [
        {"type": "heatmap", "xaxis": axis, **cells, **scale, "textfont": {"color": ink}, "showscale": False}
        for axis, panel in panels
        for ink, cells in _by_ink(panel, top - (1 - _BRIGHT) * _DECADES)
    ]
    traces[0] |= {"showscale": True, "colorbar": bar}
    return {"data": traces, "layout": _layout(reports)}


def _by_ink(cells: Mapping[str, Any], bright_from: float) -> list[tuple[str, dict[str, Any]]]:
    """The cells in two parts, dark ones for white text and bright ones for black: a trace has one ink."""
    z, text = cells["z"], cells["text"]
    dark = [[value is not None and value < bright_from for value in row] for row in z]

    def those(values: Sequence[Sequence[Any]], wanted: bool, other: Any) -> list[list[Any]]:
        pairs = (zip(row, is_dark, strict=True) for row, is_dark in zip(values, dark, strict=True))
        return [[value if is_dark is wanted else other for value, is_dark in row] for row in pairs]

    inks = (("#ffffff", True), ("#000000", False))
    return [(ink, {**cells, "z": those(z, wanted, None), "text": those(text, wanted, "")}) for ink, wanted in inks]


def _layout(reports: Reports) -> Mapping[str, Any]:
    rows = [layer.removeprefix("blocks.") for layer in reports.layers]
    columns = len(_ratios(reports)), len(_bits(reports))
    split = columns[0] / sum(columns)
    axis = {
        "side": "top",
        "type": "category",
        "fixedrange": True,
        "showgrid": False,
        "ticks": "",
        "tickangle": 0,
        "tickfont": {"size": 11},
    }
    return {
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "dragmode": False,  # a finger that scrolls the page must not get caught in it
        "plot_bgcolor": "rgba(128,128,128,0.25)",
        "xaxis": {**axis, "domain": [0, split - 0.015], "title": {"text": "channels kept, %"}},
        "xaxis2": {**axis, "domain": [split + 0.015, 1], "title": {"text": "bits"}, "anchor": "y"},
        "yaxis": {
            "tickvals": [*range(len(rows))],
            "ticktext": rows,
            "tickfont": {"size": 10},
            "range": [len(rows) - 0.5, -0.5],  # the first layer on top
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
        },
    }


def _pruning(reports: Reports) -> dict[str, Any]:
    groups: dict[str, list[Trial]] = {}
    for trial in reports.pruned:
        groups.setdefault(trial.layer, []).append(trial)
    ratios = _ratios(reports)
    trials: list[list[Trial | None]] = []
    group: list[Trial] = []
    for layer in reports.layers:
        # A depthwise layer has the channels of the layer before it: they go together.
        group = group if layer.endswith("conv_dw") else groups.get(layer, [])
        trials.append([_asked_for(ratio, group) for ratio in ratios])
    words = [_NONE if ratio == 0 else f"{100 * ratio:g}" for ratio in ratios]
    return {"x": words, **_cells(reports, trials, _pruned_words)}


def _rounding(reports: Reports) -> dict[str, Any]:
    bits = _bits(reports)
    found = {(trial.layer, trial.amount): trial for trial in reports.rounded}
    trials = [[found.get((layer, count)) for count in bits] for layer in reports.layers]
    return {"x": [f"{count}" for count in bits], **_cells(reports, trials, _rounded_words)}


def _cells(reports: Reports, trials: Sequence[Sequence[Trial | None]], words: Any) -> dict[str, Any]:
    """What the cells hold: the logarithm as colour, the number as text, the whole of it where the pointer rests."""
    hover = [
        [None if trial is None else f"<b>{layer}</b><br>{words(trial)}" for trial in row]
        for layer, row in zip(reports.layers, trials, strict=True)
    ]
    return {
        "y": [*range(len(trials))],
        "z": [[None if t is None else round(math.log10(max(t.divergence, 1e-12)), 3) for t in row] for row in trials],
        "text": [["" if trial is None else _short(trial.divergence) for trial in row] for row in trials],
        "customdata": hover,
        "hoverongaps": False,
    }


def _pruned_words(trial: Trial) -> str:
    what = f"{trial.amount} channels of {trial.layer} kept ({trial.share:.0%})" if trial.amount else "block left out"
    return f"{what}<br>change {trial.divergence:.3g}"


def _rounded_words(trial: Trial) -> str:
    return f"weights of {trial.amount} bits<br>change {trial.divergence:.3g}"


def _short(divergence: float) -> str:
    """At most four characters."""
    if divergence < 0.01:
        return "≈0"
    return f"{divergence:.0f}" if divergence >= 9.95 else f"{divergence:.{1 if divergence >= 0.095 else 2}f}"


def _ratios(reports: Reports) -> Sequence[float]:
    """Shares that were asked for, the largest first; 0 is a block left out."""
    ratios = sorted(map(float, reports.report["recipe"]["ratios"]), reverse=True)
    return [*ratios, 0.0] if any(trial.amount == 0 for trial in reports.pruned) else ratios


def _bits(reports: Reports) -> Sequence[int]:
    return sorted({trial.amount for trial in reports.rounded}, reverse=True)


def _asked_for(ratio: float, group: Sequence[Trial]) -> Trial | None:
    """The trial that came of asking for ``ratio``: counts are rounded to what the kernels like."""
    found = [trial for trial in group if (trial.amount == 0) == (ratio == 0)]
    return min(found, key=lambda trial: abs(trial.share - ratio), default=None)
