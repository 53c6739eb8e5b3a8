"""``tellframe compare``: models on the same media and machine, in one run, against the first of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from compression.macs import macs
from compression.profiler import WholeModel, whole_model_ms
from detector.models import StoredModel, find
from detector.training.layouts import Found
from detector.types import Label, UsageError
from pipelines.bench import Plan as BenchPlan
from pipelines.bench import check_output, device, measure
from pipelines.evaluation.command import Plan as EvaluationPlan
from pipelines.evaluation.command import evaluate, gather
from pipelines.evaluation.results import Evaluation
from pipelines.evaluation.run import Options
from pipelines.lines import open_lines
from pipelines.text import plain

SCHEMA = "tellframe.comparison/1"
_ROUNDS = 3
"""Turns of every model in the whole-frame benchmark: what disturbs a shared machine disturbs all of them."""
_CLOSED = {Label.REAL: Label.FAKE, Label.FAKE: Label.REAL}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked; the first model is what the others are compared with.

    Attributes:
        models: names of shipped models, or .onnx files with their cards; no two of one name.
        data, layout, stride: labelled media, as for ``tellframe evaluate``; no data leaves accuracy out.
        runs: of each scorer, timed in turns.
        frames: of each whole pipeline at 1280x720, in three turns; 0 leaves it out.
        json, markdown: files, or ``-``; None for neither.
    """

    models: tuple[str, ...]
    data: tuple[str, ...]
    layout: str
    stride: int
    runs: int
    frames: int
    json: str | None
    markdown: str | None


def compare_command(plan: Plan) -> None:
    """Measures, writes what was asked for, and prints the table.

    Raises:
        TellframeError: nothing could be begun, or none of the media could be read.
    """
    if len(plan.models) < 2:
        raise UsageError("name at least two models; the first is what the others are compared with")
    for target in (plan.json, plan.markdown):
        check_output(target, None)
    comparison = compare(plan)
    if plan.json is not None:
        _write(plan.json, json.dumps(comparison, allow_nan=False) + "\n")
    if plan.markdown is not None:
        _write(plan.markdown, markdown(comparison))
    if "-" not in (plan.json, plan.markdown):
        print(markdown(comparison))  # noqa: T201


def compare(plan: Plan) -> dict[str, Any]:
    """The figures of every model, schema ``tellframe.comparison/1``; see docs/results.md."""
    stored = [find(name) for name in plan.models]
    names = [model.card.name for model in stored]
    if len(set(names)) < len(names):
        raise UsageError(f"two models are called {max(names, key=names.count)}; compare models of different names")
    found = gather(plan.data, plan.layout) if plan.data else None
    graphs = {model.card.name: onnx.load(model.path) for model in stored}
    scorers = whole_model_ms(graphs, runs=plan.runs)
    frames = _whole_frames(plan)
    judged = {name: _evaluated(name, plan, found) for name in plan.models} if found else {}
    reference = judged.get(plan.models[0])
    rows = []
    for asked, model in zip(plan.models, stored, strict=True):
        row = _cost(model, stored[0], macs(graphs[model.card.name]), scorers[model.card.name])
        row |= {"whole_frame_ms": frames.get(asked)}
        if reference is not None:
            row |= {"accuracy": accuracy(judged[asked], reference)}
        rows.append(row)
    settings = {key: value for key, value in asdict(plan).items() if key not in ("json", "markdown")}
    return {"schema": SCHEMA, "settings": settings, "device": device(), "models": rows}


def _cost(model: StoredModel, reference: StoredModel, operations: int, ms: WholeModel) -> dict[str, Any]:
    card = model.card
    return {
        "name": card.name,
        "kind": card.kind,
        "sha256": card.sha256,
        "input_size": card.input_size,
        "bytes": card.bytes,
        "bytes_ratio": round(card.bytes / reference.card.bytes, 4),
        "macs": operations,
        "score_ms": {key: round(value, 4) for key, value in asdict(ms).items()},
    }


def _whole_frames(plan: Plan) -> dict[str, dict[str, float]]:
    """By model: p50 and p95 of the whole frame in ms, each the median over turns."""
    if not plan.frames:
        return {}
    laps: dict[str, list[Mapping[str, float]]] = {name: [] for name in plan.models}
    for _ in range(_ROUNDS):
        for name in plan.models:
            figures = measure(BenchPlan(None, name, "33", max(30, plan.frames // _ROUNDS), 30, 1))
            laps[name].append(figures["latency_ms"]["total"])
    return {
        name: {q: round(float(np.median([turn[q] for turn in turns])), 3) for q in ("p50", "p95")}
        for name, turns in laps.items()
    }


def _evaluated(model: str, plan: Plan, found: Found) -> Evaluation:
    options = Options(plan.stride, None, tiers=False, robustness=False)
    asked = EvaluationPlan(model, plan.data, plan.layout, None, None, plan.stride, False, False, None, 1)
    return evaluate(asked, found, options)


def accuracy(evaluation: Evaluation, reference: Evaluation) -> dict[str, Any]:
    """What a model sees and what it lost, in points of video AUC; and how many verdicts are others.

    ``changed`` counts clips with another verdict; ``reversed`` those of them that went from REAL to FAKE or back.
    """
    aucs, theirs = _aucs(evaluation), _aucs(reference)
    drops = {name: round(100 * (theirs[name] - auc), 2) for name, auc in aucs.items() if name in theirs}
    overall = drops.pop("", None)
    before = {clip.name: clip.label for clip in reference.judged.clips}
    pairs = [(before[clip.name], clip.label) for clip in evaluation.judged.clips if clip.name in before]
    return {
        "clips": len(pairs),
        "video_auc": round(aucs[""], 4) if "" in aucs else None,
        "drop_points": overall,
        "methods": [
            {"method": plain(name), "clips": evaluation.methods[name].video.fakes, "drop_points": drop}
            for name, drop in drops.items()
        ],
        "changed": sum(a != b for a, b in pairs),
        "reversed": sum(_CLOSED.get(a) == b for a, b in pairs),
    }


def _aucs(evaluation: Evaluation) -> dict[str, float]:
    """Video AUC by method, and of everything under ""."""
    parts = {"": evaluation.overall, **evaluation.methods}
    return {name: part.video.metrics.auc.value for name, part in parts.items() if part.video.metrics is not None}


# --------------------------------------------------------------------------------------------------- words


_Cell = Callable[[Mapping[str, Any]], str]


def markdown(comparison: Mapping[str, Any]) -> str:
    """The table, as text that Markdown renders."""
    columns = _columns(comparison["models"])
    lines = [" | ".join(["", *columns, ""]).strip(), "|" + "---|" * len(columns)]
    lines += [" | ".join(["", *(cell(row) for cell in columns.values()), ""]).strip() for row in comparison["models"]]
    machine = comparison["device"]
    return (
        "\n".join([*lines, "", f"{machine['cpu']}, {machine['cores']} cores; scorers on one thread, in turns."]) + "\n"
    )


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, _Cell]:
    columns: dict[str, _Cell] = {
        "model": lambda r: f"`{r['name']}` ({r['kind']}, {r['input_size']} px)",
        "score p50 / p95 ms": lambda r: f"{r['score_ms']['p50_ms']:.1f} / {r['score_ms']['p95_ms']:.1f}",
        "faster": lambda r: (
            f"{r['score_ms']['ratio']:.2f}x ({r['score_ms']['ratio_low']:.2f}-{r['score_ms']['ratio_high']:.2f})"
        ),
        "MB (ratio)": lambda r: f"{r['bytes'] / 1e6:.2f} ({r['bytes_ratio']:.0%})",
        "M MACs": lambda r: f"{r['macs'] / 1e6:.0f}",
    }
    if rows[0]["whole_frame_ms"]:
        columns["frame p50 / p95 ms"] = lambda r: f"{r['whole_frame_ms']['p50']:.1f} / {r['whole_frame_ms']['p95']:.1f}"
    if "accuracy" in rows[0]:
        columns |= {
            "video AUC": lambda r: f"{r['accuracy']['video_auc']:.3f}",
            "drop, points": lambda r: f"{r['accuracy']['drop_points']:+.1f}",
            "worst method": lambda r: _worst(r["accuracy"]),
            "verdicts changed (reversed)": lambda r: (
                f"{r['accuracy']['changed']} ({r['accuracy']['reversed']}) of {r['accuracy']['clips']}"
            ),
        }
    return columns


def _worst(accuracy: Mapping[str, Any]) -> str:
    if not accuracy["methods"]:
        return ""
    worst = max(accuracy["methods"], key=lambda each: each["drop_points"])
    return f"{worst['method']} {worst['drop_points']:+.1f} ({worst['clips']} clips)"


def _write(target: str, text: str) -> None:
    with closing(open_lines(target)) as lines:
        lines.write(text)
