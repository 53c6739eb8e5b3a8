"""The main figures of an evaluation, short enough for a model's card. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from detector.training.metrics import Estimate
from pipelines.evaluation.results import Evaluation, Level, Part


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """JSON values: counts, AUC and TPR with their intervals, verdicts, by method and tier; pictures where there are."""
    settings = evaluation.settings
    facts: dict[str, Any] = {
        "command": f"tellframe evaluate --stride {settings.stride}"
        + (f" --max-frames {settings.max_frames}" if settings.max_frames is not None else ""),
        "data": [PurePath(folder).name for folder in settings.data],
        "thresholds": [evaluation.card.thresholds.real_below, evaluation.card.thresholds.fake_above],
    }
    for kind in ("video", "image"):
        methods = {name: _figures(part, kind) for name, part in evaluation.methods.items()}
        figures = _figures(evaluation.overall, kind) | {"by_method": {k: v for k, v in methods.items() if v["fakes"]}}
        if figures["fakes"] or figures["reals"]:
            facts["clips" if kind == "video" else "pictures"] = figures
    facts["tiers"] = {tier.name: _figures(tier.part, "video") for tier in evaluation.tiers}
    return {key: value for key, value in facts.items() if value != {}}


def _figures(part: Part, kind: str) -> dict[str, Any]:
    level: Level = getattr(part, kind)
    figures: dict[str, Any] = {"fakes": level.fakes, "reals": level.reals}
    if level.metrics is not None:
        figures |= _estimate("auc", level.metrics.auc) | _estimate("tpr_at_5_fpr", level.metrics.tpr_at_5_fpr)
    if kind == "video":
        figures["fakes_said"] = {label.value: count for label, count in part.fakes.counts.items() if count}
        figures["reals_said"] = {label.value: count for label, count in part.reals.counts.items() if count}
    return figures


def _estimate(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: round(estimate.value, 3), f"{name}_interval": [round(estimate.low, 3), round(estimate.high, 3)]}
