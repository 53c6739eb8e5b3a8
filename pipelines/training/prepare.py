"""Labelled pictures and clips -> shards of faces to train on: ``tellframe prepare``.

Media are shared out over shards before work begins, in a fixed order; a shard is written whole or not at all, with a
report beside it. So any number of processes give the same shards, and an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import multiprocessing
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from detector.faces import MediaPipeFaces
from detector.training.holdout import split_by_identity
from detector.training.landmarks import FaceMesh
from detector.training.layouts import Found, Kind, Layout, Medium, counts, discover, plain
from detector.training.samples import FaceSample, Origin, cut_region, write_shard
from detector.types import Frame, InputError, NothingToAnalyseError, TellframeError, UsageError
from pipelines.atomic import atomic_writer, output_error
from pipelines.evaluation.command import together
from pipelines.evaluation.run import why
from pipelines.sources import VideoFile
from pipelines.sources.images import read_image
from pipelines.text import on_one_line

SCHEMA = "tellframe.prepared/1"
MANIFEST = "prepared.json"
LEFT_OUT = "left_out.json"
_NAMED = 5  # of what was left out, on the terminal
TRAIN, HELD_OUT = "train", "held_out"
_SHARD_SAMPLES = 512
_MIN_SIDE_PX = 48.0
"""A smaller face teaches the resizing, not the face."""
_SURE = 0.5  # of the face mesh: below it its points are noise
NO_FACE = f"no face found of {_MIN_SIDE_PX:.0f} px or more whose landmarks are sure"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked.

    Attributes:
        data: folders in a known layout, or CSV files.
        layout: theirs.
        real, fake: plain folders of one class.
        out: where the shards go; with ``hold_out``, into ``train`` and ``held_out`` there.
        frames: faces taken from each clip, evenly spaced.
        hold_out: the share of people kept apart, 0..1.
        workers: processes.
        seed: of the choice of people.
    """

    data: tuple[str, ...]
    layout: str
    real: tuple[str, ...]
    fake: tuple[str, ...]
    out: str
    frames: int
    hold_out: float
    workers: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Task:
    """One shard to fill."""

    shard: Path
    media: tuple[Medium, ...]
    frames: int


def prepare_command(plan: Plan) -> None:
    """Makes the shards and prints what went in and what did not."""
    if not plan.data and not plan.real and not plan.fake:
        raise UsageError("name the data: folders or CSV files, or --real DIR and --fake DIR")
    found = _gather(plan)
    out = Path(plan.out)
    if plan.hold_out:
        split = split_by_identity(found.media, plan.hold_out, plan.seed)
        parts = {out / TRAIN: split.train, out / HELD_OUT: split.held_out}
        straddling = split.straddling
    else:
        parts, straddling = {out: found.media}, ()
    tasks = [task for folder, media in parts.items() for task in _tasks(folder, media, plan)]
    reports = _run(tasks, plan.workers)
    _tell(out, parts, reports, found, straddling)
    if not any(report["samples"] for report in reports):
        raise NothingToAnalyseError(f"no face was found in any of {len(found.media)} pictures and clips")


def _gather(plan: Plan) -> Found:
    """All that the plan names, together."""
    founds = [discover(Path(folder), Layout(plan.layout)) for folder in plan.data]
    founds += [plain(Path(folder), fake=False) for folder in plan.real]
    founds += [plain(Path(folder), fake=True) for folder in plan.fake]
    return together(founds)


def _tasks(folder: Path, media: Sequence[Medium], plan: Plan) -> list[_Task]:
    """The shards of one folder.

    Raises:
        UsageError: the folder holds shards of other media or settings.
    """
    chunks: list[list[Medium]] = [[]]
    filled = 0
    # Mixed by name, so that every shard has a bit of every source: a reader of a few shards sees them all.
    for medium in sorted(media, key=lambda m: (_scattered(m), m.source, m.name)):
        filled += plan.frames if medium.kind is Kind.VIDEO else 1
        chunks[-1].append(medium)
        if filled >= _SHARD_SAMPLES:
            chunks.append([])
            filled = 0
    tasks = [
        _Task(folder / f"shard-{i:05d}.tar", tuple(chunk), plan.frames) for i, chunk in enumerate(filter(None, chunks))
    ]
    asked = {"schema": SCHEMA, "frames": plan.frames, "shards": [[_described(m) for m in t.media] for t in tasks]}
    manifest = folder / MANIFEST
    if manifest.exists() or any(folder.glob("*.tar")):
        if _json(manifest) != asked:
            raise UsageError(f"{folder}: holds shards of other data or settings; choose another --out or remove it")
    else:
        _make(folder)
        _write_json(manifest, asked)
    for part in folder.glob(".shard-*"):  # of a run that was killed
        part.unlink(missing_ok=True)
    return tasks


def _described(medium: Medium) -> list[object]:
    """What a shard holds of a medium: another label is another shard."""
    return [str(medium.path), medium.fake, medium.method, medium.source, sorted(medium.identities)]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from None


def _scattered(medium: Medium) -> int:
    """A number that scatters media, the same on every machine."""
    return zlib.crc32(f"{medium.source}/{medium.name}".encode("utf-8", "surrogateescape"))


def _run(tasks: Sequence[_Task], workers: int) -> list[dict[str, Any]]:
    """The reports of all tasks; those that are done already are not done again."""
    reports = {task.shard: report for task in tasks if (report := _done(task))}
    open_tasks = [task for task in tasks if task.shard not in reports]
    console = Console(stderr=True)
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("media", total=sum(len(task.media) for task in tasks))
        progress.advance(bar, sum(len(task.media) for task in tasks if task.shard in reports))
        # Spawned, not forked: MediaPipe's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(max(1, min(workers, len(open_tasks))), mp_context=context)
        try:
            pending = {pool.submit(_fill, task): task for task in open_tasks}
            for future in as_completed(pending):
                task = pending[future]
                reports[task.shard] = future.result()
                progress.advance(bar, len(task.media))
        except BrokenProcessPool:
            raise InputError(
                "a worker process died (out of memory?); run again with fewer --workers to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
    return [reports[task.shard] for task in tasks]


def _done(task: _Task) -> dict[str, Any] | None:
    """The report of a shard that an earlier run finished; None when there is none, or the shard is not what it says."""
    report = _json(task.shard.with_suffix(".json"))
    if report is None or not task.shard.is_file() or task.shard.stat().st_size != report.get("bytes"):
        return None
    return report


def _fill(task: _Task) -> dict[str, Any]:
    """Makes one shard, in a worker process."""
    cv2.setNumThreads(1)
    finder, mesh = MediaPipeFaces(), FaceMesh()
    failed: dict[str, list[str]] = {}
    per_class: Counter[str] = Counter()

    def samples() -> Iterator[FaceSample]:
        for medium in task.media:
            taken = 0
            try:
                for sample in faces_of(medium, task.frames, finder, mesh):
                    taken += 1
                    per_class[f"{medium.source}/{medium.method}"] += 1
                    yield sample
            except TellframeError as error:
                what = f"cut short after {taken} faces" if taken else "left out"
                failed.setdefault(f"{what}, {why(error, medium)}", []).append(medium.name)
                continue
            if not taken:
                failed.setdefault(f"left out, {NO_FACE}", []).append(medium.name)

    try:
        count = write_shard(task.shard, samples())
    finally:
        finder.close()
    report = {
        "samples": count,
        "bytes": task.shard.stat().st_size,
        "per_class": dict(sorted(per_class.items())),
        "failed": failed,
    }
    _write_json(task.shard.with_suffix(".json"), report)
    return report


def faces_of(medium: Medium, frames: int, finder: MediaPipeFaces, mesh: FaceMesh) -> Iterator[FaceSample]:
    """The largest face of a picture, or of ``frames`` evenly spaced frames of a clip.

    Raises:
        InputError: it cannot be read.
        NothingToAnalyseError: it holds no picture.
    """
    finder.restart()
    for frame in _frames(medium, frames):
        faces = finder.find(frame)
        if not len(faces):
            continue
        sides = (faces.xyxy[:, 2:] - faces.xyxy[:, :2]).max(axis=1)  # (n,)
        if sides.max() < _MIN_SIDE_PX:
            continue
        rgb, xyxy = cut_region(frame.bgr, faces.xyxy[int(sides.argmax())])
        points, sure = mesh.find(rgb, xyxy)
        if sure >= _SURE:
            origin = Origin(
                medium.name, frame.index, medium.fake, medium.method, medium.source, tuple(sorted(medium.identities))
            )
            yield FaceSample(rgb, xyxy, points, origin)


def _frames(medium: Medium, count: int) -> Iterator[Frame]:
    """A picture as one frame; ``count`` frames of a clip, evenly spaced over it."""
    if medium.kind is Kind.IMAGE:
        bgr = read_image(str(medium.path))
        if bgr is None:
            raise InputError(f"{medium.path}: cannot be read as a picture; check that it opens in a viewer")
        yield Frame(bgr, index=0, pts_ns=0, captured_ns=0)
        return
    with VideoFile(medium.path) as clip:
        length = clip.info.frames or _length(medium.path)
        wanted = {int((i + 0.5) * length / count) for i in range(count)}
        last = max(wanted)
        for frame in clip:
            if frame.index in wanted:
                yield frame
            if frame.index >= last:
                return


def _length(path: Path) -> int:
    """Frames of a clip whose container does not say; counted."""
    with VideoFile(path) as clip:
        return max(1, sum(1 for _ in clip))


def _tell(
    out: Path,
    parts: dict[Path, tuple[Medium, ...]],
    reports: Sequence[dict[str, Any]],
    found: Found,
    straddling: Sequence[Medium],
) -> None:
    """Prints what went in, and what did not with a few names; all names go into a file."""
    for folder, media in parts.items():
        kinds = ", ".join(f"{n} {name}" for name, n in counts(media).items())
        print(on_one_line(f"{folder}: {kinds}"))  # noqa: T201
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report["per_class"])
    for name, count in sorted(total.items()):
        print(on_one_line(f"  {count:>7} faces  {name}"))  # noqa: T201
    missed: dict[str, list[str]] = {f"left out, {reason}": list(names) for reason, names in found.left_out.items()}
    for report in reports:
        for reason, names in report["failed"].items():
            missed.setdefault(reason, []).extend(names)
    if straddling:
        missed["left out, people on both sides of the split"] = [medium.name for medium in straddling]
    for reason, names in missed.items():
        more = f" and {len(names) - _NAMED} more, see {LEFT_OUT}" if len(names) > _NAMED else ""
        print(on_one_line(f"{reason}: {len(names)}: {', '.join(names[:_NAMED])}{more}"))  # noqa: T201
    _write_json(out / LEFT_OUT, dict(missed))


def _json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None when it is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _write_json(path: Path, data: dict[str, Any]) -> None:
    with atomic_writer(path) as file:
        file.write(json.dumps(data, indent=1) + "\n")
