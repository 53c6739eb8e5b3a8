"""The plots of an evaluation as SVG for a page. Needs matplotlib.

Colours are those of Okabe and Ito, "Color universal design" (2008), and never the only difference. They are written as
variables of the page, and text as text, so that a plot follows the page's theme and its fonts.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detector.training.metrics import Estimate, Scores, reliability, roc
from detector.types import BoolArray, IntArray
from pipelines.evaluation.figures import frame_scores, row_scores, with_faces_missed
from pipelines.evaluation.results import UNCHANGED, Evaluation, Level, Part, PerturbedPart
from pipelines.evaluation.words import figure
from pipelines.text import on_one_line

# Stand-ins, each unlike any other colour, for the variables of the page.
_INK, _GRID = "#010203", "#040506"
_REAL, _FAKE = "#0072b2", "#d55e00"
_CLIPS, _FRAMES, _PICTURES = "#009e73", "#cc79a7", "#e69f00"
_VARIABLES = {
    _INK: "currentColor",
    _GRID: "var(--grid)",
    _REAL: "var(--real)",
    _FAKE: "var(--fake)",
    _CLIPS: "var(--clips)",
    _FRAMES: "var(--frames)",
    _PICTURES: "var(--pictures)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "tellframe",  # the same plot is the same file
    "text.parse_math": False,  # names may hold a dollar sign
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.0,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_WIDTH = 5.0  # inches: 360 px of a page, as wide as a phone, so that text there is as large as here
_BINS = 20

_LINES = {"clips": ("-", _CLIPS, "o"), "frames": ("--", _FRAMES, "s"), "pictures": (":", _PICTURES, "^")}
"""How each level is drawn: line, colour, mark."""


def roc_plot(evaluation: Evaluation) -> str:
    """The ROC curves of clips, frames and pictures, the first with its band; empty without both classes."""
    samples = _samples(evaluation)
    levels = _measured(evaluation.overall)

    def draw(figure_: Figure) -> None:
        axes = figure_.subplots()
        for i, (name, level) in enumerate(levels.items()):
            curve = roc(*samples[name], draws=1 if i else evaluation.settings.draws)
            line, colour, _ = _LINES[name]
            auc = figure(level.metrics, "auc")
            label = f"{name}, AUC {auc.value:.3f}" if auc else name
            axes.plot(curve.false_positive_rate, curve.true_positive_rate, line, color=colour, label=label)
            if i == 0:
                axes.fill_between(curve.grid, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6)
        axes.set(xlabel="reals flagged (false positive rate)", ylabel="fakes flagged (true positive rate)")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.legend(loc="lower right")

    return _svg(draw, 4.2, "ROC curves") if levels else ""


def histogram_plot(evaluation: Evaluation) -> str:
    """How p(fake) spreads over reals and fakes, with the thresholds."""
    samples = _samples(evaluation)
    name = "clips" if len(samples["clips"][0]) else "pictures"
    p_fake, fake, _ = samples[name]
    thresholds = evaluation.card.thresholds

    def draw(figure_: Figure) -> None:
        both = figure_.subplots(2, sharex=True)
        for axes, which, words, colour in zip(both, (fake, ~fake), ("fake", "real"), (_FAKE, _REAL), strict=True):
            axes.hist(p_fake[which], bins=np.linspace(0, 1, _BINS + 1), color=colour)
            for at in (thresholds.real_below, thresholds.fake_above):
                axes.axvline(at, color=_INK, linewidth=0.9, linestyle="--")
            axes.set(ylabel=f"{words} {name}", xlim=(0, 1))
            axes.yaxis.get_major_locator().set_params(integer=True)
        both[1].set_xlabel("p(fake); dashed: below is REAL, above is FAKE")

    return _svg(draw, 4.2, f"Histograms of p(fake) of {name}")


def reliability_plot(evaluation: Evaluation) -> str:
    """Share of fakes against p(fake), bin by bin; the area of a mark is the number of samples in it."""
    samples = _samples(evaluation)
    levels = _measured(evaluation.overall)

    def draw(figure_: Figure) -> None:
        axes = figure_.subplots()
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=0.6)
        for name, level in levels.items():
            p_fake, fake, _ = samples[name]
            bins = reliability(p_fake, fake)
            _, colour, mark = _LINES[name]
            ece = figure(level.metrics, "ece")
            label = f"{name}, calibration error {ece.value:.3f}" if ece else name
            area = 8 + 300 * bins.count / bins.count.sum()
            axes.scatter(bins.mean_p, bins.fraction_fake, area, color=colour, marker=mark, label=label)
        axes.set(xlabel="mean p(fake) of a bin", ylabel="share of fakes in it", xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
        legend = axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        for handle in legend.legend_handles:
            handle.set_sizes([24])  # type: ignore[union-attr]

    return _svg(draw, 4.2, "Reliability diagram") if levels else ""


def parts_plot(parts: Mapping[str, Part], what: str) -> str:
    """AUC with its interval of each method or source that has one, best first."""
    rows = {name: _measured(part) for name, part in parts.items() if _measured(part)}

    def draw(figure_: Figure) -> None:
        axes = figure_.subplots()
        names = sorted(rows, key=lambda name: next(iter(_aucs(rows[name]).values())).value)
        for name in _LINES:
            found = {i: _aucs(rows[row])[name] for i, row in enumerate(names) if name in rows[row]}
            if found:
                offset = {"clips": 0.18, "frames": 0.0, "pictures": -0.18}[name]
                _marks(axes, list(found.values()), [i + offset for i in found], name)
        axes.axvline(0.5, color=_INK, linewidth=0.6)
        axes.set_yticks(range(len(names)), [_shortened(name) for name in names])
        axes.set(xlabel="AUC with its 95 % interval; 0.5 is chance", xlim=(None, 1.01), ylim=(-0.6, len(names) - 0.4))
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)

    return _svg(draw, 1.3 + 0.36 * len(rows), f"AUC by {what}") if rows else ""


def tiers_plot(evaluation: Evaluation) -> str:
    """AUC, and the share of real clips called FAKE, in each quality tier."""
    tiers = evaluation.tiers
    names = [tier.name for tier in tiers]

    def draw(figure_: Figure) -> None:
        left, right = figure_.subplots(1, 2)
        for name in _LINES:
            found = {i: _aucs(_measured(tier.part)).get(name) for i, tier in enumerate(tiers)}
            estimates = {i: estimate for i, estimate in found.items() if estimate}
            if estimates:
                offset = {"clips": -0.15, "frames": 0.0, "pictures": 0.15}[name]
                _marks(left, list(estimates.values()), [i + offset for i in estimates], name, upright=True)
        left.set(title="AUC", xlim=(-0.5, len(tiers) - 0.5))
        left.legend(loc="lower left", fontsize=8)
        called = {i: e for i, tier in enumerate(tiers) if (e := tier.part.reals.called_fake)}
        values = [100 * estimate.value for estimate in called.values()]
        right.bar(list(called), values, 0.55, color=_REAL)
        right.errorbar(list(called), values, 100 * _arms(list(called.values())), fmt="none", ecolor=_INK, elinewidth=1)
        right.set(title="real clips called FAKE, %", ylim=(0, None), xlim=(-0.5, len(tiers) - 0.5))
        for axes in (left, right):
            axes.set_xticks(range(len(tiers)), [name.replace(" px ", " px\n") for name in names])
            axes.grid(visible=False, axis="x")

    return _svg(draw, 2.8, "Quality tiers") if tiers else ""


def robustness_plot(evaluation: Evaluation) -> str:
    """AUC against the level of each perturbation; the line across is that of the same frames as they are."""
    clean = [row for row in evaluation.robustness if row.perturbation == UNCHANGED]
    changed = [row for row in evaluation.robustness if row.perturbation != UNCHANGED]
    kinds = {name: list(rows) for name, rows in groupby(changed, lambda row: row.perturbation)}
    if not kinds or not _measured(clean[0].part):
        return ""
    columns = 2
    rows = -(-len(kinds) // columns)

    def draw(figure_: Figure) -> None:
        grid = figure_.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, (name, levels) in zip(grid, kinds.items(), strict=False):
            _robustness_panel(axes, clean[0], levels)
            axes.set_title(f"{name}, {levels[0].value:.3g} to {levels[-1].value:.3g}")
        for axes in grid[len(kinds) :]:
            axes.set_visible(False)
        grid[0].legend(loc="lower left", fontsize=8)
        figure_.supxlabel("level of the perturbation, 1 to 5", fontsize=9)
        figure_.supylabel("AUC", fontsize=9)

    return _svg(draw, 0.6 + 1.35 * rows, "AUC under perturbations")


def _robustness_panel(axes: Axes, clean: PerturbedPart, levels: Sequence[PerturbedPart]) -> None:
    for name, whole in _aucs(_measured(clean.part)).items():
        if name == "frames":  # those of the clips, once more
            continue
        line, colour, mark = _LINES[name]
        estimates = [_aucs(_measured(row.part))[name] for row in levels]
        at = [row.level for row in levels]
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        axes.axhline(whole.value, color=colour, linewidth=0.8, linestyle=":")
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(at, [e.value for e in estimates], line, color=colour, marker=mark, markersize=3.5, label=name)
    axes.set_xticks([row.level for row in levels])


# ----------------------------------------------------------------------------------------------------------- parts

_Sample = tuple[Scores, BoolArray, IntArray]


def _samples(evaluation: Evaluation) -> dict[str, _Sample]:
    """Scores, classes and groups of each level, those without a face as what they count as."""
    clips, stills = evaluation.judged.clips, evaluation.judged.stills
    found = {"clips": row_scores(clips), "frames": frame_scores(clips), "pictures": row_scores(stills)}
    return {name: (with_faces_missed(p_fake), fake, group) for name, (p_fake, fake, group) in found.items()}


def _measured(part: Part) -> dict[str, Level]:
    """The levels that have metrics."""
    levels = {"clips": part.video, "frames": part.frame, "pictures": part.image}
    return {name: level for name, level in levels.items() if level.metrics}


def _aucs(levels: Mapping[str, Level]) -> dict[str, Estimate]:
    return {name: level.metrics.auc for name, level in levels.items() if level.metrics}


def _marks(axes: Axes, estimates: Sequence[Estimate], at: Sequence[float], name: str, *, upright: bool = False) -> None:
    """One mark with its interval for each estimate, along x, or along y when ``upright``."""
    values = [estimate.value for estimate in estimates]
    _, colour, mark = _LINES[name]
    look: dict[str, Any] = {"fmt": mark, "color": colour, "markersize": 4.5, "elinewidth": 1.2, "label": name}
    if upright:
        axes.errorbar(at, values, yerr=_arms(estimates), **look)
    else:
        axes.errorbar(values, at, xerr=_arms(estimates), **look)


def _arms(estimates: Sequence[Estimate]) -> Scores:
    """How far intervals reach below and above their values, (2, n); a value may lie just outside its own."""
    arms = np.array([(e.value - e.low, e.high - e.value) for e in estimates], np.float64)  # (n, 2)
    return arms.clip(0).T


def _shortened(name: str) -> str:
    text = on_one_line(name)
    return text if len(text) <= 28 else text[:27] + "…"


def _svg(draw: Callable[[Figure], None], height: float, title: str) -> str:
    """What ``draw`` draws, as an ``<svg>`` element that fits its place and its page."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Measuring a name in a script that matplotlib has no font for; the reader's browser has one.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        canvas = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(canvas)
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([\w-]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{title}"', svg, count=1)
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg.rstrip()
