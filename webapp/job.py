"""One uploaded clip on its way: checked, judged, explained, written down; asked how far it is, and given up."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compression.budget import FrameBudget
from detector.engine import Model
from detector.types import NS_PER_S, FrameResult, InputError, TellframeError, UInt8Array
from pipelines.annotated import AnnotatedVideo
from pipelines.atomic import atomic_writer
from pipelines.evidence import Evidence, Explained, explained
from pipelines.report import json_text
from pipelines.session import Session, Settings
from pipelines.sinks import Csv, MultiSink
from pipelines.sources import VideoFile
from pipelines.timeline import Timeline
from webapp.report import ClipFile, report_html


@dataclass(frozen=True, slots=True)
class Limits:
    """What a clip may be.

    Attributes:
        bytes: size of its file.
        seconds: duration.
        pixels: width times height.
        jobs: clips of all users that may be judged or wait at once.
        keep_s: results are deleted so long after their clip was judged.
    """

    bytes: int = 500_000_000
    seconds: float = 1800.0
    pixels: int = 4096 * 2304
    jobs: int = 40
    keep_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a clip is: frames read of frames expected (None: not known), and the seconds still to go."""

    frames: int
    expected: int | None
    eta_s: float | None
    explaining: bool = False

    @property
    def share(self) -> float | None:
        """0..1, or None when the end is not known."""
        return min(1.0, self.frames / self.expected) if self.expected else None


@dataclass(frozen=True, slots=True)
class Judged:
    """A judged clip, and the files about it."""

    record: Mapping[str, Any]
    thumbnails: Mapping[int, UInt8Array]
    moments: Sequence[Explained]
    timeline: Timeline
    video: Path
    json: Path
    csv: Path
    report: Path


class Cancelled(Exception):  # noqa: N818  (nothing went wrong)
    """What was asked for, a clip or a measurement, was given up before its end."""


class Job:
    """One clip on its way.

    Args:
        clip: the file; it is hashed and read, and deleted at the end.
        name: what the user calls it.
        folder: of its own, for the results; deleted when nothing comes of the clip.
        ladder: loaded models, shared with others; the first judges.
        budget: what a frame may take; shown, not enforced, as frames of a file wait.
        stride: every n-th frame is judged.
        limits: what it may be.
    """

    def __init__(
        self,
        clip: Path,
        name: str,
        folder: Path,
        ladder: Sequence[Model],
        budget: FrameBudget,
        stride: int,
        limits: Limits,
    ) -> None:
        self.name = name
        self.folder = folder
        self._clip = clip
        self._model = ladder[0]
        self._settings = Settings(budget, stride)
        self._limits = limits
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._progress = Progress(0, None, None)
        self._outcome: Judged | BaseException | None = None
        self._began_s = self._ended_s = 0.0

    def run(self) -> None:
        """Judges the clip, or finds that it was given up; what comes of it is kept for :meth:`result`."""
        self._began_s = time.monotonic()
        try:
            if not self.cancelled:
                self._outcome = self._judge()
        except BaseException as error:  # every kind: somebody waits for the outcome
            self._outcome = error
        finally:
            if self.cancelled:
                self._outcome = Cancelled()
            self._clip.unlink(missing_ok=True)
            if not isinstance(self._outcome, Judged):
                shutil.rmtree(self.folder, ignore_errors=True)
            self._ended_s = time.monotonic()
            self._done.set()

    def cancel(self) -> None:
        """Ends it soon; harmless when it has ended, or not begun."""
        self._cancelled.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended, after at most so many seconds; None waits for its end."""
        return self._done.wait(seconds)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._progress

    @property
    def ended(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return self._done.is_set()

    @property
    def age_s(self) -> float:
        """Seconds since it ended; 0 before."""
        return time.monotonic() - self._ended_s if self.ended else 0.0

    @property
    def cancelled(self) -> bool:
        """Whether it was given up."""
        return self._cancelled.is_set()

    def result(self) -> Judged:
        """What came of it, once it has ended.

        Raises:
            TellframeError: why nothing came of it.
            Cancelled: it was given up.
        """
        if not isinstance(self._outcome, Judged):
            raise self._outcome or Cancelled
        return self._outcome

    def _judge(self) -> Judged:
        source, card = VideoFile(self._clip), self._model.card
        video, csv = self.folder / "annotated.mp4", self.folder / "frames.csv"
        evidence = Evidence(card)
        annotated = AnnotatedVideo(
            video, self._settings.budget.period_ms, card.thresholds.real_below, card.thresholds.fake_above
        )
        try:
            with (
                MultiSink(annotated, Csv(csv), evidence) as sinks,
                Session(self._model, self._settings, 1, self._stopped) as session,
            ):
                result = session.judge(source, sinks, lambda frame: self._watch(source, frame))
            self._go_on()
            if result.error is not None:
                raise result.error
        except TellframeError as error:
            raise by_name(error, self._clip, self.name) from None
        record = result.record | {"path": self.name}
        self._progress = Progress(record["frames"], record["frames"], None, explaining=True)
        moments = []
        for moment in evidence.moments:
            self._go_on()
            moments.append(explained(moment, self._model))
        return self._written(record, evidence, moments, video, csv)

    def _stopped(self) -> bool:
        return self.cancelled

    def _go_on(self) -> None:
        if self.cancelled:
            raise Cancelled

    def _watch(self, source: VideoFile, frame: FrameResult) -> None:
        """Notes how far the clip is, and ends one that is longer than its container claimed."""
        done, expected = frame.frame.index + 1, source.info.frames
        if expected is not None and expected < done:
            expected = None  # the container claimed fewer than there are
        spent_s = time.monotonic() - self._began_s
        eta_s = spent_s / done * (expected - done) if expected and done >= 2 * self._settings.stride else None
        self._progress = Progress(done, expected, eta_s)
        if frame.frame.pts_ns > self._limits.seconds * NS_PER_S:
            raise InputError(f"{self.name}: is longer than {_minutes(self._limits.seconds)}; cut it into parts")

    def _written(
        self, record: dict[str, Any], evidence: Evidence, moments: list[Explained], video: Path, csv: Path
    ) -> Judged:
        """The record and the report, as files beside the video and the table."""
        json, report = self.folder / "result.json", self.folder / "report.html"
        file = _facts(self._clip, self.name)
        record = record | {"file": {"name": file.name, "bytes": file.bytes, "sha256": file.sha256}}
        page = report_html(
            record,
            self._model.card,
            file=file,
            settings=self._words(),
            thumbnails=evidence.thumbnails,
            moments=moments,
            timeline=evidence.timeline,
            made_at=datetime.now(UTC),
        )
        for path, content in ((json, json_text(record)), (report, page)):
            with atomic_writer(path) as text:
                text.write(content)
        return Judged(record, evidence.thumbnails, moments, evidence.timeline, video, json, csv, report)

    def _words(self) -> dict[str, str]:
        stride = self._settings.stride
        return {
            "Settings": (
                "every frame judged" if stride == 1 else f"one frame in {stride} judged, verdicts carried over"
            )
            + f"; budget of a frame {self._settings.budget.period_ms:.1f} ms"
        }


def check(clip: Path, limits: Limits) -> None:
    """Opens a clip and closes it again.

    Raises:
        InputError: it cannot be read, or is more than ``limits`` allow.
        NothingToAnalyseError: it holds no video.
    """
    size = clip.stat().st_size if clip.is_file() else 0
    if size > limits.bytes:
        raise InputError(f"{clip}: has {size / 1e6:.0f} MB; at most {limits.bytes / 1e6:.0f} MB are taken: cut it")
    with VideoFile(clip) as source:
        info = source.info
    if info.duration_s is not None and info.duration_s > limits.seconds:
        longest = _minutes(limits.seconds)
        raise InputError(f"{clip}: is {_minutes(info.duration_s)} long; at most {longest} are taken: cut it into parts")
    if info.size_wh is not None and info.size_wh[0] * info.size_wh[1] > limits.pixels:
        raise InputError(
            f"{clip}: has {info.size_wh[0]}x{info.size_wh[1]} pixels; at most {limits.pixels / 1e6:.1f} million are "
            "taken: scale it down"
        )


def by_name(error: TellframeError, clip: Path, name: str) -> TellframeError:
    """The same error, speaking of ``clip`` by the name that the user knows."""
    return type(error)(str(error).replace(str(clip), name))


def _facts(clip: Path, name: str) -> ClipFile:
    with clip.open("rb") as file:
        return ClipFile(name, hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
