"""Measures the whole pipeline on this machine, as it is deployed: decode, find, crop, score, verdict."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from compression.budget import FixedPace, FrameBudget
from detector.engine import Detector, Model
from detector.faces import MediaPipeFaces
from detector.models import find
from detector.scorer import OnnxScorer
from detector.types import Float32Array, FrameResult, InputError
from pipelines.atomic import is_special, refuse_input, writable
from pipelines.carded import can_note, note
from pipelines.lines import open_lines
from pipelines.looped import Looped
from pipelines.memory import share_one_heap
from pipelines.run import run

SCHEMA = "tellframe.bench/1"
STAGES = ("find", "crop", "score", "total")
_DRAWS = 1000  # of the bootstrap
_BLOCK = 30  # frames: neighbours share a cause, so they are drawn together
_MEMORY_EVERY = 50  # frames


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    ``clip`` None is a shipped sample, ``budget`` as on the command line; ``on_card`` is the heading under which the
    figures go onto the model's card, None leaves the card alone.
    """

    clip: str | None
    model: str
    budget: str
    frames: int
    warm_up: int
    threads: int
    on_card: str | None = None


def bench_command(plan: Plan, target: str | None, plot: str | None = None) -> None:
    """Measures and tells: a table for people, or JSON to a file or ``-``; a plot to the file ``plot``."""
    for path in (target, plot):
        check_output(path, plan.clip)
    if plan.on_card is not None:
        can_note(find(plan.model), plan.on_card)
    figures, laps_ms = _measure(plan)
    if plan.on_card is not None:
        note(find(plan.model), plan.on_card, _for_card(figures))
    if target is not None:
        with closing(open_lines(target)) as lines:
            lines.write(json.dumps(figures, allow_nan=False) + "\n")
    if plot is not None:
        from pipelines.benchplots import latency_plot

        latency_plot(figures, laps_ms, Path(plot))
    if target != "-":
        print(table(figures))  # noqa: T201


def check_output(path: str | None, clip: str | None) -> None:
    """Finds out now, not after the measurement, whether a file can be written; it must not be the clip."""
    if path is not None and path != "-":
        refuse_input(path, clip or "")
        if not is_special(path):
            writable(path)


def measure(plan: Plan) -> dict[str, Any]:
    """Runs the clip round and round and returns the figures, schema ``tellframe.bench/1``.

    Raises:
        TellframeError: the clip cannot be read, or the model is missing.
    """
    return _measure(plan)[0]


def _measure(plan: Plan) -> tuple[dict[str, Any], Float32Array]:
    """The figures, and what they were made from: float32 (frames, stages), ms."""
    share_one_heap()
    budget, stored = FrameBudget.parse(plan.budget), find(plan.model)
    with as_file(files("assets") / "samples" / "real.mp4") as sample, closing(MediaPipeFaces()) as finder:
        clip = Path(plan.clip) if plan.clip else sample
        source = Looped(clip)
        detector = Detector(finder, Model(stored.card, OnnxScorer(stored, threads=plan.threads)))
        with closing(run(source, detector, FixedPace())) as results:
            seen = _watch(results, plan)
        info = source.info
    figures = {
        "schema": SCHEMA,
        "plan": {k: v for k, v in asdict(plan).items() if k != "on_card"} | {"clip": clip.name},
        "size_wh": info.size_wh,
        "clip_fps": info.fps,
        "faces_a_frame": round(seen.faces / plan.frames, 2),
        "frames_a_second": round(plan.frames / seen.wall_s, 2),
        "latency_ms": {stage: _quantiles(seen.laps_ms[:, i]) for i, stage in enumerate(STAGES)},
        "budget": _verdict(seen.laps_ms[:, -1], budget),
        "memory_mb": _memory(seen.memory_mb),
        "model": {"name": stored.card.name, "kind": stored.card.kind, "sha256": stored.card.sha256},
        "device": device(),
    }
    return figures, seen.laps_ms


def _for_card(figures: dict[str, Any]) -> dict[str, Any]:
    """The main figures."""
    plan, latency, machine = figures["plan"], figures["latency_ms"], figures["device"]
    return {
        "command": f"tellframe bench --frames {plan['frames']} --threads {plan['threads']}",
        "device": f"{machine['cpu']}, {machine['cores']} cores",
        "size_wh": list(figures["size_wh"]),
        **{f"{stage}_ms": {q: latency[stage][q] for q in ("p50", "p95", "p99")} for stage in ("score", "total")},
        "frames_a_second": figures["frames_a_second"],
        "memory_mb": figures["memory_mb"]["peak"],
    }


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was measured: ``laps_ms`` float32 (frames, stages); resident memory every so many frames."""

    laps_ms: Float32Array
    wall_s: float
    faces: int
    memory_mb: list[float]


def _watch(results: Generator[FrameResult], plan: Plan) -> _Seen:
    for _ in islice(results, plan.warm_up):
        pass
    laps_ms = np.zeros((plan.frames, len(STAGES)), np.float32)
    faces, memory_mb = 0, [resident_mb()]
    began = time.perf_counter()
    for i, result in enumerate(islice(results, plan.frames)):
        t = result.timing
        laps_ms[i] = t.find_ms, t.crop_ms, t.score_ms, t.total_ms
        faces += len(result.verdict.faces)
        if (i + 1) % _MEMORY_EVERY == 0:
            memory_mb.append(resident_mb())
    return _Seen(laps_ms, time.perf_counter() - began, faces, memory_mb)


def _quantiles(ms: Float32Array) -> dict[str, Any]:
    """p50, p95 and p99 of the frames in which the stage ran, each with its 95 % bootstrap interval."""
    ran = ms[ms > 0]
    if not len(ran):
        return {"runs": 0}
    figures: dict[str, Any] = {"runs": len(ran)}
    draws = np.stack(list(_draws(ran)))  # (draws, n)
    for q in (0.50, 0.95, 0.99):
        low, high = np.percentile(np.quantile(draws, q, axis=1), [2.5, 97.5])
        name = f"p{q * 100:.0f}"
        figures[name] = round(float(np.quantile(ran, q)), 3)
        figures[f"{name}_interval"] = [round(float(low), 3), round(float(high), 3)]
    return figures


def _draws(ms: Float32Array) -> Iterator[Float32Array]:
    """Resamples blocks of neighbouring frames (moving-block bootstrap; Kuensch 1989), seeded."""
    random = np.random.default_rng(0)
    block = min(_BLOCK, len(ms))
    for _ in range(_DRAWS):
        starts = random.integers(0, len(ms) - block + 1, -(-len(ms) // block))
        yield ms[(starts[:, None] + np.arange(block)).ravel()[: len(ms)]]


def _verdict(total_ms: Float32Array, budget: FrameBudget) -> dict[str, Any]:
    """Met when the upper end of the interval of the budget's quantile is inside it: luck does not count."""
    at_quantile = np.stack([np.quantile(draw, budget.quantile) for draw in _draws(total_ms)])
    upper = float(np.percentile(at_quantile, 97.5))
    return {
        "period_ms": round(budget.period_ms, 3),
        "quantile": budget.quantile,
        "upper_ms": round(upper, 3),
        "over": int((total_ms > budget.period_ms).sum()),
        "met": upper <= budget.period_ms,
    }


def _memory(samples_mb: list[float]) -> dict[str, float]:
    """Resident memory: start, end, peak, and the slope of its second half (the first half fills caches)."""
    half = samples_mb[len(samples_mb) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    return {
        "start": round(samples_mb[0], 1),
        "end": round(samples_mb[-1], 1),
        "peak": round(max(samples_mb), 1),
        "growth_per_1000_frames": round(slope * 1000 / _MEMORY_EVERY, 3),
    }


def resident_mb() -> float:
    """Resident memory of this process in MB.

    Raises:
        InputError: not on Linux.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        raise InputError("resident memory is read from /proc, which is not there; the benchmark needs Linux") from None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def device() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("onnxruntime", "mediapipe", "opencv-python", "av", "numpy")},
    }


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    width, height = figures["size_wh"]
    plan, budget, memory = figures["plan"], figures["budget"], figures["memory_mb"]
    lines = [
        f"{figures['model']['name']} on {plan['clip']}, {width}x{height}, {figures['faces_a_frame']:g} faces a frame",
        f"{figures['device']['cpu']}, {figures['device']['cores']} cores; {plan['threads']} scorer threads",
        f"{plan['frames']} frames after {plan['warm_up']} of warm-up: {figures['frames_a_second']:.1f} frames a second",
        "",
        f"{'ms':<8}{'runs':>7}{'p50':>8}{'p95':>8}  {'(interval)':<16}{'p99':>8}",
    ]
    for stage in STAGES:
        row = figures["latency_ms"][stage]
        if row["runs"]:
            low, high = row["p95_interval"]
            span = f"({low:.1f}-{high:.1f})"
            lines.append(
                f"{stage:<8}{row['runs']:>7}{row['p50']:>8.1f}{row['p95']:>8.1f}  {span:<16}{row['p99']:>8.1f}"
            )
    kept = "met" if budget["met"] else "NOT met"
    lines += [
        "",
        f"budget {budget['period_ms']:.1f} ms at p{budget['quantile'] * 100:.0f}: {kept} "
        f"(upper end {budget['upper_ms']:.1f} ms; {budget['over']} frames over)",
        f"memory {memory['start']:.0f} -> {memory['end']:.0f} MB, "
        f"{memory['growth_per_1000_frames']:+.2f} MB per 1000 frames",
    ]
    return "\n".join(lines)
