"""The sensitivity map as a picture: which layers mind pruning, and which mind few bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from compression.sensitivity_map import GroupSensitivity, PruningOption, SensitivityMap
from detector.types import OutputError

_COLOURS = "viridis"
"""Its lightness rises evenly, so order shows with any colour vision and in grey; numbers in the cells say the rest."""
_DECADES = 5
"""Of divergence that colours tell apart, below the largest; what is less is as good as nothing."""
_NOT_PRUNED = "#ececec"
_STYLE: dict[Any, Any] = {
    "font.size": 8.0,
    "text.parse_math": False,  # names may hold a dollar sign
    "axes.linewidth": 0.6,
    "axes.titlesize": 9.5,
}
_WORDS = {"logit_mse": "mean squared error of the logit", "kl": "KL divergence of the outputs, nats"}
_ROW_INCHES, _FRAME_INCHES, _WIDTH_INCHES = 0.19, 1.5, 9.0
_Shade = Callable[[float], tuple[Any, bool]]
"""A divergence -> its colour, and whether that is dark."""


def heat_map(sensitivity: SensitivityMap, path: Path) -> None:
    """Writes a PNG with a row per layer: left, the layer's channels pruned; right, its weights rounded.

    Both panels share rows and colours. A cell of the left one spans the layers that hold the same channels.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    rows = {layer.name: i for i, layer in enumerate(sensitivity.layers)}
    norm, colours = _norm(sensitivity), matplotlib.colormaps[_COLOURS]
    with matplotlib.rc_context(_STYLE):
        height = _ROW_INCHES * len(rows) + _FRAME_INCHES
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained", dpi=150)
        ratios = [*sensitivity.ratios, *([0.0] if any(group.removable for group in sensitivity.groups) else [])]
        widths = [len(ratios), len(sensitivity.bits)]
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=widths)
        _draw_pruning(left, sensitivity, ratios, rows, _shade(norm, colours))
        _draw_bits(right, sensitivity, _shade(norm, colours))
        _label_rows(left, sensitivity)
        bar = figure.colorbar(
            ScalarMappable(norm, colours), ax=[left, right], location="bottom", extend="min", aspect=60, pad=0.01,
            format=FuncFormatter(lambda value, _: f"{value:g}"),
        )  # fmt: skip
        bar.minorticks_off()
        measure = _WORDS.get(sensitivity.measure, sensitivity.measure)
        bar.set_label(
            f"{measure} against the dense model, one change at a time, {sensitivity.samples} pictures\n"
            "rounding: the layer's input has 8 bits; grey: channels that stay (residual streams, outputs)"
        )
        try:
            figure.savefig(path, metadata={"Software": None})
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error}") from error


def _norm(sensitivity: SensitivityMap) -> LogNorm:
    """Colours from the largest divergence down by a few decades."""
    pruned = [option.divergence for group in sensitivity.groups for option in group.options]
    rounded = [option.divergence for layer in sensitivity.layers for option in layer.options]
    largest = max([*pruned, *rounded, 1e-12])
    return LogNorm(largest / 10**_DECADES, largest, clip=True)


def _shade(norm: LogNorm, colours: Colormap) -> _Shade:
    def shade(divergence: float) -> tuple[Any, bool]:
        level = float(norm(max(divergence, 1e-300)))
        return colours(level), level < 0.6

    return shade


def _draw_pruning(
    axes: Axes, sensitivity: SensitivityMap, ratios: Sequence[float], rows: dict[str, int], shade: _Shade
) -> None:
    axes.set_title("Pruning: share of channels kept (cells: how many)", loc="left")
    axes.set_facecolor(_NOT_PRUNED)
    for group in sensitivity.groups:
        held = sorted(rows[name] for name in group.holders if name in rows)
        for x, ratio in enumerate(ratios):
            option = _option(group, ratio)
            for first, count in _runs(held) if option is not None else []:
                assert option is not None
                _cell(axes, x, first, count, option.divergence, shade, f"{option.kept}")
    labels = ["no block" if ratio == 0 else f"{ratio:.3g}" for ratio in ratios]
    axes.set_xticks(range(len(ratios)), labels)
    axes.set_xlim(-0.5, len(ratios) - 0.5)


def _draw_bits(axes: Axes, sensitivity: SensitivityMap, shade: _Shade) -> None:
    axes.set_title("Rounding weights (cells: SQNR, dB)", loc="left")
    for y, layer in enumerate(sensitivity.layers):
        for x, option in enumerate(layer.options):
            _cell(axes, x, y, 1, option.divergence, shade, f"{option.sqnr_db:.0f}")
    axes.set_xticks(range(len(sensitivity.bits)), [f"{bits} bits" for bits in sensitivity.bits])
    axes.set_xlim(-0.5, len(sensitivity.bits) - 0.5)


def _label_rows(axes: Axes, sensitivity: SensitivityMap) -> None:
    axes.set_yticks(range(len(sensitivity.layers)), [layer.name for layer in sensitivity.layers])
    axes.set_ylim(len(sensitivity.layers) - 0.5, -0.5)  # the first layer on top
    for panel in axes.figure.axes:
        panel.tick_params(length=0, labeltop=True, top=False)


def _cell(axes: Axes, x: int, y: int, rows: int, divergence: float, shade: _Shade, text: str) -> None:
    colour, dark = shade(divergence)
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, rows, facecolor=colour, edgecolor="white", linewidth=0.8))
    axes.text(x, y + (rows - 1) / 2, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")


def _option(group: GroupSensitivity, ratio: float) -> PruningOption | None:
    """The option that came of asking for ``ratio``; 0 is the block gone. None when rounding left nothing to try."""
    found = [o for o in group.options if (o.kept == 0) == (ratio == 0)]
    return min(found, key=lambda option: abs(option.kept / group.channels - ratio), default=None)


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """First and count of every run of neighbours in ``rows``, ascending."""
    starts = [row for row in rows if row - 1 not in rows]
    ends = [row for row in rows if row + 1 not in rows]
    return [(start, end - start + 1) for start, end in zip(starts, ends, strict=True)]
