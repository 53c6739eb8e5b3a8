"""Runs a model over labelled media through the run-time pipeline: as they are, in quality tiers, and perturbed.

Clips go through the very :class:`~detector.engine.Detector`, pace and :class:`~detector.clip.ClipJudge` of
``tellframe video``: the figures are those of the program, not of the model alone.
"""

from __future__ import annotations

import time
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import cast

import cv2

from compression.budget import FixedPace
from detector.clip import ClipJudge
from detector.engine import Detector, Model
from detector.training.layouts import Kind, Medium
from detector.training.perturb import LEVELS, PERTURBATIONS, TIERS, degrade, perturb
from detector.types import (
    FaceFinder,
    Frame,
    FrameResult,
    FrameSource,
    InputError,
    NothingToAnalyseError,
    UInt8Array,
    UsageError,
    Verdict,
)
from pipelines.evaluation.results import UNCHANGED, Clip, Judged, Row, Still
from pipelines.run import run
from pipelines.sources import VideoFile
from pipelines.sources.images import read_image

ROBUSTNESS_FRAMES = 24
"""Frames of a clip that are perturbed: under a second of it, as it is encoded dozens of times over ..."""
ROBUSTNESS_STRIDE = 4
"""... and every n-th of them is judged: six scores, where a verdict needs five."""
NO_FACE = "no face found; counted as p(fake) 0.5"
_MOST_FACES = 64  # of a picture that are scored: no next frame is waiting

Condition = tuple[str, int]
"""A perturbation and its level."""
CONDITIONS: tuple[Condition, ...] = (
    (UNCHANGED, 0),
    *((name, level) for name in PERTURBATIONS for level in range(1, LEVELS + 1)),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What is run.

    Attributes:
        stride: every n-th frame of a clip is judged, as by ``tellframe video --stride``.
        max_frames: of a clip; None for all.
        tiers: whether everything is judged in the quality tiers too.
        robustness: whether everything is judged perturbed too.
    """

    stride: int = 1
    max_frames: int | None = None
    tiers: bool = True
    robustness: bool = True

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"--max-frames is at least 1, got {self.max_frames}")
        FixedPace(self.stride)  # refuses what is no stride

    @property
    def passes(self) -> int:
        """How often each medium is judged."""
        return 1 + (len(TIERS) if self.tiers else 0) + (len(CONDITIONS) if self.robustness else 0)


@dataclass(frozen=True, slots=True)
class Findings:
    """What was judged: as it is, by tier, by condition; and what went wrong, reason -> names."""

    clean: Judged
    tiers: Mapping[str, Judged]
    robustness: Mapping[Condition, Judged]
    failures: Mapping[str, tuple[str, ...]]


def run_all(
    media: Iterable[Medium],
    model: Model,
    finder: FaceFinder,
    options: Options,
    step: Callable[[], None] = lambda: None,
) -> Findings:
    """Judges every medium in every way that ``options`` ask for; one that cannot be read is a failure with its name.

    Args:
        media: what to judge.
        model: any scorer, with its card.
        finder: the caller closes it.
        options: what is run.
        step: called ``options.passes`` times for each medium, as it is judged.
    """
    clean: list[Row] = []
    tiers: defaultdict[str, list[Row]] = defaultdict(list)
    robustness: defaultdict[Condition, list[Row]] = defaultdict(list)
    failures: defaultdict[str, list[str]] = defaultdict(list)
    for medium in media:
        subject: _Subject = (_Picture if medium.kind is Kind.IMAGE else _Film)(medium, model, finder, options)
        try:
            row = subject.as_it_is()
        except (InputError, NothingToAnalyseError) as error:
            failures[why(error, medium)].append(medium.name)
            for _ in range(options.passes):
                step()
            continue
        if row.p_fake is None:
            failures[NO_FACE].append(medium.name)
        if subject.error is not None:
            failures[f"cut short: {why(subject.error, medium)}"].append(medium.name)
        clean.append(row)
        step()
        for tier, limits in TIERS.items() if options.tiers else ():
            tiers[tier].append(row if limits is None else subject.in_tier(tier))
            step()
        for condition in CONDITIONS if options.robustness else ():
            robustness[condition].append(subject.perturbed(*condition))
            step()
    return Findings(
        _judged(clean),
        {tier: _judged(rows) for tier, rows in tiers.items()},
        {condition: _judged(rows) for condition, rows in robustness.items()},
        {reason: tuple(names) for reason, names in failures.items()},
    )


def frame_score(verdict: Verdict) -> float | None:
    """The score of this very frame: of its most suspicious face that can be judged, else of any; None without one."""
    scored = [(face.flaw is None, face.p_frame) for face in verdict.faces if face.p_frame is not None]
    return max(scored)[1] if scored else None


def why(error: Exception, medium: Medium) -> str:
    """What is wrong with a medium, without its name, so that the same trouble of many is one reason."""
    return str(error).removeprefix(f"{medium.path}: ")


def _judged(rows: Sequence[Row]) -> Judged:
    clips = tuple(row for row in rows if isinstance(row, Clip))
    return Judged(clips, tuple(row for row in rows if isinstance(row, Still)))


# --------------------------------------------------------------------------------------------- pictures and clips


@dataclass(slots=True)
class _Subject(ABC):
    """A medium to be judged in several ways; ``error`` is what cut it short when it was judged as it is."""

    medium: Medium
    model: Model
    finder: FaceFinder
    options: Options
    error: Exception | None = None

    @abstractmethod
    def as_it_is(self) -> Row:
        """Its row; raises InputError or NothingToAnalyseError when it cannot be read."""

    @abstractmethod
    def in_tier(self, tier: str) -> Row:
        """Its row when it went through a tier."""

    @abstractmethod
    def perturbed(self, name: str, level: int) -> Row:
        """Its row, perturbed."""

    def _perturb(self, pictures: Sequence[UInt8Array], name: str, level: int) -> Sequence[UInt8Array]:
        """Pictures in BGR, perturbed; the randomness is the medium's own, and the same in every run."""
        if name == UNCHANGED:
            return pictures
        seed = zlib.crc32(self.medium.name.encode("utf-8", "surrogateescape"))
        return [_swapped(rgb) for rgb in perturb([_swapped(bgr) for bgr in pictures], name, level, seed)]


class _Picture(_Subject):
    def as_it_is(self) -> Still:
        return self._judge(self._bgr())

    def in_tier(self, tier: str) -> Still:
        return self._judge(_degraded(self._bgr(), tier))

    def perturbed(self, name: str, level: int) -> Still:
        return self._judge(self._perturb([self._bgr()], name, level)[0])

    def _bgr(self) -> UInt8Array:
        bgr = read_image(str(self.medium.path))
        if bgr is None:
            raise InputError(f"{self.medium.path}: cannot be read as a picture; check that it opens in a viewer")
        return bgr

    def _judge(self, bgr: UInt8Array) -> Still:
        self.finder.restart()
        frame = Frame(bgr, index=0, pts_ns=0, captured_ns=time.monotonic_ns())
        verdict = Detector(self.finder, self.model, _MOST_FACES).judge(frame).verdict
        m = self.medium
        return Still(m.name, m.source, m.method, m.fake, frame_score(verdict), len(verdict.faces))


@dataclass(slots=True)
class _Film(_Subject):
    beginning: Sequence[Frame] = field(default=())

    def as_it_is(self) -> Clip:
        return self._watch(VideoFile(self.medium.path))

    def in_tier(self, tier: str) -> Clip:
        return self._watch(_Degraded(self.medium.path, tier))

    def perturbed(self, name: str, level: int) -> Clip:
        if not self.beginning:
            limit = min(ROBUSTNESS_FRAMES, self.options.max_frames or ROBUSTNESS_FRAMES)
            self.beginning = _beginning(self.medium.path, limit)
        pictures = self._perturb([frame.bgr for frame in self.beginning], name, level)
        self.finder.restart()
        detector, pace = Detector(self.finder, self.model), FixedPace(ROBUSTNESS_STRIDE).pace()
        notes = _Notes(self.model)
        for frame, bgr in zip(self.beginning, pictures, strict=True):
            notes.add(detector.judge(replace(frame, bgr=bgr), pace=pace))
        return notes.clip(self.medium, broken=0)

    def _watch(self, source: FrameSource) -> Clip:
        self.finder.restart()
        notes = _Notes(self.model)
        results = run(source, Detector(self.finder, self.model), FixedPace(self.options.stride))
        with closing(results):
            try:
                for result in islice(results, self.options.max_frames):
                    notes.add(result)
            except (InputError, NothingToAnalyseError) as error:
                if not notes.results:
                    raise
                self.error = error
        return notes.clip(self.medium, source.counts.broken)


class _Notes:
    """What is kept of the results of one clip."""

    def __init__(self, model: Model) -> None:
        self._judge = ClipJudge(model.card.thresholds)
        self._frames: list[float | None] = []
        self.results = 0

    def add(self, result: FrameResult) -> None:
        self.results += 1
        self._judge.add(result)
        if result.fresh:  # others carry over what was seen before
            self._frames.append(frame_score(result.verdict))

    def clip(self, medium: Medium, broken: int) -> Clip:
        said = self._judge.verdict()
        named = medium.name, medium.source, medium.method, medium.fake
        return Clip(*named, said.p_fake, said.label, said.reason, tuple(self._frames), broken)


def _beginning(path: Path, limit: int) -> list[Frame]:
    """The first frames of a clip, as long as their size does not change: a perturbation takes one size."""
    frames: list[Frame] = []
    # What is wrong with the clip has been said when it was judged as it is.
    with suppress(InputError, NothingToAnalyseError), VideoFile(path) as source:
        for frame in islice(source, limit):
            frames.append(frame)
    return list(takewhile(lambda frame: frame.size_wh == frames[0].size_wh, frames))


class _Degraded(VideoFile):
    """A clip whose frames went through a tier, in the thread that reads it: beside the model, as decoding is."""

    def __init__(self, path: Path, tier: str) -> None:
        super().__init__(path)
        self._tier = tier

    def _frames(self) -> Iterator[Frame]:
        for frame in super()._frames():
            yield replace(frame, bgr=_degraded(frame.bgr, self._tier))


def _degraded(bgr: UInt8Array, tier: str) -> UInt8Array:
    return _swapped(degrade(_swapped(bgr), tier))


def _swapped(picture: UInt8Array) -> UInt8Array:
    """RGB for BGR, and back."""
    return cast(UInt8Array, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
