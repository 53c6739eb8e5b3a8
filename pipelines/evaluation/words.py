"""Figures as text: how they are called and written, on the terminal and on the page. Pure."""

from __future__ import annotations

from detector.training.metrics import Estimate, Metrics
from pipelines.evaluation.results import Evaluation, Level, Part
from pipelines.text import on_one_line

METRICS = {
    "auc": "AUC",
    "average_precision": "average precision",
    "eer": "equal error rate",
    "tpr_at_1_fpr": "TPR at 1 % FPR",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "ece": "calibration error",
}
"""Name of each field of :class:`Metrics`, in order."""
NONE = "-"


def figure(metrics: Metrics | None, name: str) -> Estimate | None:
    """A metric by the name of its field; None where there are no metrics."""
    estimate: Estimate | None = getattr(metrics, name) if metrics else None
    return estimate


def number(estimate: Estimate | None) -> str:
    """``0.934 (0.880-0.973)``, the value with its interval."""
    if estimate is None:
        return NONE
    return f"{estimate.value:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"


def share(estimate: Estimate | None) -> str:
    """``3.7 % (0.7-18.3)``."""
    if estimate is None:
        return NONE
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f}-{100 * estimate.high:.1f})"


def size(level: Level) -> str:
    """``36 fake, 27 real``."""
    return f"{level.fakes} fake, {level.reals} real"


def terminal_table(evaluation: Evaluation) -> str:
    """The main figures for people; several lines, no line end."""
    overall = evaluation.overall
    levels = {"clips": overall.video, "frames": overall.frame, "pictures": overall.image}
    used = {name: level for name, level in levels.items() if level.fakes + level.reals}
    lines = [
        evaluation.card.name,
        _row("", *used),
        _row("fake, real", *(size(level) for level in used.values())),
        _row("without a face", *(str(level.without_face) for level in used.values())),
        *(
            _row(words, *(number(figure(level.metrics, name)) for level in used.values()))
            for name, words in METRICS.items()
        ),
        "",
        *_called(overall),
    ]
    for title, parts in (("method", evaluation.methods), ("source", evaluation.sources)):
        lines += ["", _row(title, *(f"AUC over {name}" for name in used))]
        lines += [_row(on_one_line(name), *_aucs(part, used)) for name, part in parts.items()]
    if evaluation.tiers:
        lines += ["", _row("tier", "AUC over clips", "real clips called FAKE")]
        lines += [
            _row(t.name, number(figure(t.part.video.metrics, "auc")), share(t.part.reals.called_fake))
            for t in evaluation.tiers
        ]
    lines += _troubles(evaluation)
    return "\n".join(lines)


def _row(first: str, *others: str) -> str:
    return (f"{first:<24}" + "".join(f"{other:<24}" for other in others)).rstrip()


def _aucs(part: Part, used: dict[str, Level]) -> list[str]:
    levels = {"clips": part.video, "frames": part.frame, "pictures": part.image}
    return [number(figure(levels[name].metrics, "auc")) for name in used]


def _called(part: Part) -> list[str]:
    said = {"real clips called FAKE": part.reals, "fake clips called FAKE": part.fakes}
    return [_row(words, share(of.called_fake)) for words, of in said.items() if of.called_fake is not None]


def _troubles(evaluation: Evaluation) -> list[str]:
    """Each reason with how many it befell and the first of their names."""
    lines = []
    for reason, names in evaluation.failures.items():
        shown = ", ".join(on_one_line(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        lines += ["", f"{len(names)} x {on_one_line(reason)}: {shown}"]
    return lines
