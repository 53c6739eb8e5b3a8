"""Shows the governor at work: a clip played as a camera would give it, with busy processes beside its middle third."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from compression.budget import FrameBudget
from compression.governor import LoadGovernor
from detector.engine import Detector
from detector.faces import MediaPipeFaces
from detector.models import StoredModel, ladder
from detector.types import NS_PER_MS, NS_PER_S, Frame, FrameResult
from pipelines.bench import check_output, device
from pipelines.lines import open_lines
from pipelines.looped import Looped
from pipelines.memory import share_one_heap
from pipelines.run import run
from pipelines.session import loaded

SCHEMA = "tellframe.governor/1"
THIRDS = ("before", "load", "after")
# Ends by itself when the program that started it is gone, however that ended.
_BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(10**6): pass"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is shown.

    ``clip`` None is a shipped sample, ``model`` what :func:`detector.models.ladder` takes, ``budget`` as on the command
    line; ``load`` is the number of busy processes.
    """

    clip: str | None
    model: str | None
    budget: str
    frames: int
    warm_up: int
    threads: int
    load: int


class Camera(Looped):
    """A clip round and round at a pace of its own; what is not taken in time is lost."""

    live = True

    def __init__(self, path: Path, period_ms: float) -> None:
        super().__init__(path)
        self._period_ms = period_ms

    def __iter__(self) -> Iterator[Frame]:
        began_s = time.perf_counter()
        for frame in super().__iter__():
            at_ms = frame.index * self._period_ms
            time.sleep(max(0.0, began_s + at_ms / 1000 - time.perf_counter()))
            yield replace(frame, pts_ns=round(at_ms * NS_PER_MS))


def governor_command(plan: LoadPlan, target: str | None, plot: str | None) -> None:
    """Runs and tells: a table for people, or JSON to a file or ``-``; a plot to the file ``plot``."""
    for path in (target, plot):
        check_output(path, plan.clip)
    figures = show(plan)
    if target is not None:
        with closing(open_lines(target)) as lines:
            lines.write(json.dumps(figures, allow_nan=False) + "\n")
    if plot is not None:
        from pipelines.benchplots import governor_plot

        governor_plot(figures, Path(plot))
    if target != "-":
        print(table(figures))  # noqa: T201


def show(plan: LoadPlan) -> dict[str, Any]:
    """Plays the clip, loads the machine in the middle, and returns the figures, schema ``tellframe.governor/1``.

    Raises:
        TellframeError: the clip cannot be read, or a model is missing.
    """
    share_one_heap()
    budget, models = FrameBudget.parse(plan.budget), ladder(plan.model)
    first, *cheaper = (loaded(stored, plan.threads) for stored in models)
    with as_file(files("assets") / "samples" / "real.mp4") as sample, closing(MediaPipeFaces()) as finder:
        clip = Path(plan.clip) if plan.clip else sample
        source = Camera(clip, budget.period_ms)
        detector = Detector(finder, first, cheaper=cheaper)
        with closing(run(source, detector, LoadGovernor(budget, len(models)))) as results:
            seen = _watch(results, plan)
        size_wh = source.info.size_wh
    return {
        "schema": SCHEMA,
        "plan": asdict(plan) | {"clip": clip.name},
        "size_wh": size_wh,
        "budget": {"period_ms": round(budget.period_ms, 3), "quantile": budget.quantile},
        "thirds": [_third(name, part, budget) for name, part in zip(THIRDS, _thirds(seen), strict=True)],
        "models": [_model(stored, seen) for stored in models],
        "timeline": _timeline(seen),
        "device": device(),
    }


def _watch(results: Generator[FrameResult], plan: LoadPlan) -> list[FrameResult]:
    """The results without their pictures, with the machine busy in the middle third."""
    for _ in islice(results, plan.warm_up):
        pass
    seen: list[FrameResult] = []
    empty = np.zeros((1, 1, 3), np.uint8)
    with ExitStack() as stack:
        for i, result in enumerate(islice(results, plan.frames)):
            seen.append(replace(result, frame=replace(result.frame, bgr=empty)))
            if i + 1 == plan.frames // 3:
                stack.enter_context(_busy(plan.load))
            if i + 1 == 2 * plan.frames // 3:
                stack.close()
    return seen


@contextmanager
def _busy(processes: int) -> Iterator[None]:
    """So many processes that do nothing but take time."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def _thirds(seen: Sequence[FrameResult]) -> list[Sequence[FrameResult]]:
    a, b = len(seen) // 3, 2 * len(seen) // 3
    return [seen[:a], seen[a:b], seen[b:]]


def _third(name: str, seen: Sequence[FrameResult], budget: FrameBudget) -> dict[str, Any]:
    """The figures of one third; ``settled`` are those of its second half."""
    spent_s = (seen[-1].frame.pts_ns - seen[0].frame.pts_ns) / NS_PER_S
    return {
        "name": name,
        "frames": len(seen),
        "dropped": sum(result.dropped for result in seen),
        "steps": sum(a.pace != b.pace for a, b in pairwise(seen)),
        "scores_a_second": round(sum(result.timing.score_ms > 0 for result in seen) / spent_s, 2),
        **_latency(seen, budget),
        "settled": _latency(seen[len(seen) // 2 :], budget),
    }


def _latency(seen: Sequence[FrameResult], budget: FrameBudget) -> dict[str, Any]:
    total_ms = np.array([result.timing.total_ms for result in seen])
    return {
        "p50_ms": round(float(np.quantile(total_ms, 0.5)), 3),
        "p95_ms": round(float(np.quantile(total_ms, 0.95)), 3),
        "over": int((total_ms > budget.period_ms).sum()),
    }


def _model(stored: StoredModel, seen: Sequence[FrameResult]) -> dict[str, Any]:
    card = stored.card
    used = sum(result.model == card.name for result in seen)
    return {"name": card.name, "kind": card.kind, "sha256": card.sha256, "frames": used}


def _timeline(seen: Sequence[FrameResult]) -> dict[str, list[Any]]:
    return {
        "pts_s": [round(result.frame.pts_ns / NS_PER_S, 3) for result in seen],
        "total_ms": [round(result.timing.total_ms, 3) for result in seen],
        "find_every": [result.pace.find_every for result in seen],
        "score_every": [result.pace.score_every for result in seen],
        "model": [result.pace.rung for result in seen],
        "dropped": [result.dropped for result in seen],
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    plan, budget, machine = figures["plan"], figures["budget"], figures["device"]
    width, height = figures["size_wh"]
    lines = [
        f"{plan['clip']}, {width}x{height}, as from a camera with a frame every {budget['period_ms']:.1f} ms",
        f"{machine['cpu']}, {machine['cores']} cores; {plan['threads']} scorer threads; "
        f"{plan['load']} busy processes beside the middle third",
        "",
        f"{'':<8}{'frames':>7}{'p50 ms':>8}{'p95 ms':>8}{'over':>6}{'settled p95':>13}{'steps':>7}{'scores/s':>10}"
        f"{'dropped':>9}",
    ]
    for third in figures["thirds"]:
        lines.append(
            f"{third['name']:<8}{third['frames']:>7}{third['p50_ms']:>8.1f}{third['p95_ms']:>8.1f}{third['over']:>6}"
            f"{third['settled']['p95_ms']:>13.1f}{third['steps']:>7}{third['scores_a_second']:>10.1f}"
            f"{third['dropped']:>9}"
        )
    lines += ["", *(f"{model['name']}: {model['frames']} frames" for model in figures["models"])]
    return "\n".join(lines)
