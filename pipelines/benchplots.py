"""The plots of the benchmarks, as files (the ending of their name says of which kind). Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.types import Float32Array, OutputError, UsageError

# Okabe and Ito, "Color universal design" (2008).
_BLUE, _ORANGE, _GREEN, _RED, _GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#7f7f7f"
_STYLE: dict[Any, Any] = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "legend.frameon": False,
    "text.parse_math": False,  # names may hold a dollar sign
}
_DPI = 150


def check_kind(plot: str) -> None:
    """Refuses a file name whose ending is no kind of picture: now, not after the measurement.

    Raises:
        UsageError: so it is.
    """
    kinds = sorted(Figure().canvas.get_supported_filetypes())
    if Path(plot).suffix.removeprefix(".") not in kinds:
        raise UsageError(f"--plot {plot}: the name must end with one of {', '.join(kinds)}, such as latency.png")


def latency_plot(figures: dict[str, Any], laps_ms: Float32Array, path: Path) -> None:
    """Where the time of frames goes: a distribution of every stage, its p50, p95 and p99 with intervals, the budget.

    Args:
        figures: schema ``tellframe.bench/1``.
        laps_ms: float32 (frames, stages); 0 where a stage did not run.
        path: of the picture.
    """
    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=(8, 4.5), layout="constrained")
        axes = drawing.subplots()
        stages = list(figures["latency_ms"])
        period_ms = figures["budget"]["period_ms"]
        for row, stage in enumerate(reversed(stages)):
            ran = laps_ms[:, stages.index(stage)]
            _draw_stage(axes, row, ran[ran > 0], figures["latency_ms"][stage], labelled=row == 0)
        axes.axvline(period_ms, color=_RED, label=f"budget {period_ms:.1f} ms")
        axes.set_yticks(range(len(stages)), list(reversed(stages)))
        axes.set_xlim(0, max(1.4 * period_ms, 1.1 * _highest(figures)))
        axes.set_xlabel("ms a frame, where the stage ran")
        kept = "met" if figures["budget"]["met"] else "NOT met"
        axes.set_title(
            f"{figures['model']['name']}, {figures['plan']['frames']} frames, "
            f"{figures['size_wh'][0]}x{figures['size_wh'][1]}: budget {kept}"
        )
        axes.legend(loc="upper right")
        _save(drawing, path)


def _highest(figures: dict[str, Any]) -> float:
    return max(float(row["p99_interval"][1]) for row in figures["latency_ms"].values() if row["runs"])


def _draw_stage(axes: Axes, row: int, ms: Float32Array, quantiles: dict[str, Any], *, labelled: bool) -> None:
    """A band as thick as frames are many, and three marks with their intervals."""
    if not len(ms):
        return
    counts, edges = np.histogram(ms, bins=80)
    middle = (edges[:-1] + edges[1:]) / 2
    half = 0.4 * counts / counts.max()
    axes.fill_between(middle, row - half, row + half, step="mid", color=_BLUE, alpha=0.3, linewidth=0)
    for name, colour, mark in (("p50", _GREEN, "o"), ("p95", _ORANGE, "s"), ("p99", _RED, "^")):
        at = quantiles[name]
        low, high = quantiles[f"{name}_interval"]
        axes.plot([low, high], [row, row], color=colour, linewidth=2)
        axes.plot([at], [row], mark, color=colour, markersize=5, label=f"{name}, 95 % interval" if labelled else None)


def governor_plot(figures: dict[str, Any], path: Path) -> None:
    """What frames took, and what was left out, over time.

    Args:
        figures: schema ``tellframe.governor/1``.
        path: of the picture.
    """
    line, thirds = figures["timeline"], figures["thirds"]
    at_s = np.array(line["pts_s"])
    busy = at_s[thirds[0]["frames"]], at_s[thirds[0]["frames"] + thirds[1]["frames"] - 1]
    with matplotlib.rc_context(_STYLE):
        drawing = Figure(figsize=(9, 6), layout="constrained")
        top, middle, bottom = drawing.subplots(3, sharex=True, height_ratios=[3, 1.3, 1])
        _draw_times(top, at_s, np.array(line["total_ms"]), figures["budget"]["period_ms"])
        middle.step(at_s, line["find_every"], where="post", color=_GREEN, label="faces looked for")
        middle.step(at_s, line["score_every"], where="post", color=_ORANGE, linestyle="--", label="faces scored")
        middle.set_yscale("log", base=2)
        middle.set_yticks([1, 2, 4, 8, 24], ["1", "2", "4", "8", "24"])
        middle.set_ylabel("in one frame of")
        bottom.step(at_s, line["model"], where="post", color=_BLUE)
        names = [model["name"] for model in figures["models"]]
        bottom.set_yticks(range(len(names)), names)
        bottom.set_ylim(len(names) - 0.5, -0.5)
        bottom.set_xlabel("s")
        for axes in (top, middle, bottom):
            axes.axvspan(*busy, color=_GREY, alpha=0.15, linewidth=0)
        top.set_title(f"{figures['plan']['load']} busy processes beside the shaded third")
        for axes in (top, middle):
            axes.legend(loc="upper right")
        _save(drawing, path)


def _draw_times(axes: Axes, at_s: Any, total_ms: Any, period_ms: float) -> None:
    """Every frame, and the p95 of the last 60."""
    axes.plot(at_s, total_ms, ".", markersize=2.5, color=_BLUE, alpha=0.6, label="a frame")
    rolling = [np.quantile(total_ms[max(0, i - 59) : i + 1], 0.95) for i in range(len(total_ms))]
    axes.plot(at_s, rolling, color=_BLUE, linewidth=1.2, label="p95 of the last 60")
    axes.axhline(period_ms, color=_RED, label=f"budget {period_ms:.1f} ms")
    axes.set_ylim(0, max(2.5 * period_ms, float(np.quantile(total_ms, 0.99))))
    axes.set_ylabel("ms")


def _save(drawing: Figure, path: Path) -> None:
    try:
        drawing.savefig(path, dpi=_DPI)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from None
