"""``tellframe compress``: the dense detector -> a smaller and faster one, with its card, by HQP."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compression.budget import FrameBudget
from compression.delivery import Delivery
from compression.detector import Places, detector_compression
from compression.policy import Policy
from compression.recipe import DENSE_MODEL, DetectorRecipe
from compression.start import Start, dense_detector
from detector.card import ModelCard
from detector.types import InputError, UsageError
from pipelines.atomic import writable
from pipelines.bench import Plan as BenchPlan
from pipelines.bench import measure
from pipelines.carded import card_of, write_model
from pipelines.text import on_one_line
from pipelines.training.export import UNCALIBRATED

_BENCH_FRAMES, _BENCH_WARM_UP = 300, 30


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked; see ``tellframe compress --help``."""

    recipe: str | None
    data: tuple[str, ...]
    validation: tuple[str, ...]
    out: str
    until: str
    policy: str | None
    pool: str | None
    name: str
    threads: int | None
    workers: int


def compress_command(plan: Plan) -> None:
    """Does what is left to do, phase by phase; what happens is told on standard error, line by line.

    Raises:
        UsageError: the recipe or the policy makes no sense, or a bound cannot be kept.
        TellframeError: data, model or a file of an earlier run is missing or damaged.
    """
    if re.fullmatch(r"[a-z0-9_]+", plan.name) is None:
        raise UsageError(f"--name is lower-case letters, digits and _, got {plan.name!r}")
    recipe = DetectorRecipe.read(Path(plan.recipe)) if plan.recipe is not None else DetectorRecipe()
    given = None if plan.policy is None else _read_policy(Path(plan.policy))
    start = dense_detector(recipe.start)
    places = Places(
        data=tuple(map(Path, plan.data)),
        validation=tuple(map(Path, plan.validation)),
        out=Path(plan.out),
        pool=None if plan.pool is None else Path(plan.pool),
        workers=plan.workers,
        threads=plan.threads,
    )
    work = detector_compression(recipe, start, places, given, lambda: _left_for_the_network(recipe), _tell)
    if plan.until == "sensitivity":
        work.sensitivity()
        return
    policy = work.policy() if given is None else work.take(given)
    if plan.until == "policy":
        return
    run = work.joint(policy)
    if plan.until == "joint":
        return
    delivery = work.export(policy, run)
    _write(Path(plan.out) / f"{plan.name}.onnx", delivery, start, plan)


def _tell(line: str) -> None:
    for each in line.splitlines():
        print(on_one_line(each), file=sys.stderr, flush=True)  # noqa: T201


def _read_policy(path: Path) -> Policy:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a policy ({error})") from error
    return Policy.from_json(text)


def _left_for_the_network(recipe: DetectorRecipe) -> float:
    """What a frame leaves to the network's median run, ms: the rest of the pipeline is measured, at the budget's
    quantile; and a network that takes as long at the median takes longer at that quantile.
    """
    asked = recipe.bounds.frame_ms
    assert asked is not None
    budget = FrameBudget.parse(f"{asked:g}")
    bench = BenchPlan(
        clip=None, model=DENSE_MODEL, budget=f"{asked:g}", frames=_BENCH_FRAMES, warm_up=_BENCH_WARM_UP, threads=1
    )
    latency_ms = measure(bench)["latency_ms"]
    score, total = latency_ms["score"], latency_ms["total"]
    rest_ms = total["p95"] - score["p95"]
    left = (budget.period_ms - rest_ms) * score["p50"] / score["p95"]
    if left <= 0:
        raise UsageError(
            f"bounds: frame_ms of {asked:g} cannot be kept: all but the network takes {rest_ms:.1f} ms here"
        )
    return float(left)


# --------------------------------------------------------------------------------------------------- card


def _write(path: Path, delivery: Delivery, start: Start, plan: Plan) -> None:
    """Model and card."""
    writable(path)
    content = delivery.model.SerializeToString(deterministic=True)
    write_model(path, content, card_of(content, _card(path, delivery, start, plan)))
    _tell(f"{path}: its thresholds are 0.5 until `tellframe calibrate` sets them")


def _card(path: Path, delivery: Delivery, start: Start, plan: Plan) -> ModelCard:
    report, dense = delivery.report, start.card
    return ModelCard(
        name=path.stem,
        kind="hqp",
        file=path.name,
        sha256=hashlib.sha256(b"").hexdigest(),
        bytes=1,
        input_size=report["input_size"],
        crop_margin=start.margin,
        thresholds=UNCALIBRATED,
        trained_on=() if dense is None else dense.trained_on,
        measured={"compression": _figures(report, plan)},
        policy={"groups": report["groups"], "bits": report["bits"]},
        licence="not stated" if dense is None else dense.licence,
        origin=f"tellframe compress from {start.name} (SHA-256 {start.sha256}), onnxruntime {version('onnxruntime')}",
    )


def _figures(report: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The main figures of the report."""
    keys = ("bytes", "macs", "latency_ms", "score", "agreement", "proof", "bounds", "device")
    return {"validation": [Path(each).name for each in plan.validation], **{key: report[key] for key in keys}}
