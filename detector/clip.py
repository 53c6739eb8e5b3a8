"""The verdict of a whole video: its most suspicious *consistent* face, and when it was suspicious. Pure.

Memory does not grow with the length of a video, but for a few numbers a face and a segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detector.card import Thresholds
from detector.types import NS_PER_MS, NS_PER_S, FaceVerdict, FrameResult, Label, Reason, Verdict
from detector.verdict import MAX_SPREAD, MIN_SCORES, by_threshold

MIN_NS = 300 * NS_PER_MS
"""A face, and a segment, shorter than this is not consistent."""
_GAP_NS = NS_PER_S // 2  # suspicious moments closer than this are one segment
_BINS = 50  # of p(fake), for the spread of a track's scores
_FLAWS = (Reason.TOO_SMALL, Reason.BLURRED, Reason.DARK, Reason.TURNED_AWAY)


@dataclass(frozen=True, slots=True)
class FaceSummary:
    """One followed face of a video: seconds are presentation time, ``p_fake`` 0..1 or None without a score."""

    track: int
    label: Label
    reason: Reason
    p_fake: float | None
    frames: int
    first_s: float
    last_s: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a video whose frames were called FAKE; ``p_fake`` is their mean."""

    start_s: float
    end_s: float
    p_fake: float


@dataclass(frozen=True, slots=True)
class ClipVerdict:
    """What is said of a whole video; ``p_fake`` is None exactly when no face was scored."""

    label: Label
    reason: Reason
    p_fake: float | None
    faces: tuple[FaceSummary, ...]
    segments: tuple[Segment, ...]


class ClipJudge:
    """Gathers frame results; says at any moment what they amount to.

    Args:
        thresholds: of the model that scored.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._tracks: dict[int, _TrackSum] = {}
        self._segments = _Segments()

    def add(self, result: FrameResult) -> None:
        """Takes the next frame of the video."""
        pts_ns = result.frame.pts_ns
        self._segments.add(pts_ns, result.verdict)
        for face in result.verdict.faces:
            if face.track not in self._tracks:
                self._tracks[face.track] = _TrackSum(face.track, pts_ns)
            self._tracks[face.track].add(pts_ns, face)

    def verdict(self) -> ClipVerdict:
        """The word on what was seen so far."""
        faces = tuple(track.summary(self._thresholds) for track in self._tracks.values())
        segments = self._segments.closed()
        if not faces:
            return ClipVerdict(Label.NO_FACE, Reason.NO_FACE, None, (), ())
        judged = [face for face in faces if face.reason not in (*_FLAWS, Reason.TOO_FEW_FRAMES)]
        if judged:
            # A face called FAKE goes before one whose scores disagree, whatever their means.
            worst = max(judged, key=lambda face: (face.label is Label.FAKE, face.p_fake or 0.0))
        else:
            worst = max(faces, key=lambda face: (face.p_fake is not None, face.frames))
        return ClipVerdict(worst.label, worst.reason, worst.p_fake, faces, segments)


class _TrackSum:
    """Running sums over one track. Scores are averaged as log-odds: one sure frame weighs more than one in doubt."""

    def __init__(self, track: int, pts_ns: int) -> None:
        self._track = track
        self._first_ns = self._last_ns = pts_ns
        self._frames = 0
        self._usable = _ScoreSum()
        self._flawed = _ScoreSum()
        self._flaws = dict.fromkeys(_FLAWS, 0)

    def add(self, pts_ns: int, face: FaceVerdict) -> None:
        self._last_ns = pts_ns
        self._frames += 1
        if face.p_frame is None:
            return
        if face.flaw is None:
            self._usable.add(face.p_frame)
        else:
            self._flawed.add(face.p_frame)
            self._flaws[face.flaw] += 1

    def summary(self, thresholds: Thresholds) -> FaceSummary:
        first_s, last_s = self._first_ns / NS_PER_S, self._last_ns / NS_PER_S
        label, reason = self._word(thresholds)
        p_fake = self._usable.mean() if self._usable.count else self._flawed.mean()
        return FaceSummary(self._track, label, reason, p_fake, self._frames, first_s, last_s)

    def _word(self, thresholds: Thresholds) -> tuple[Label, Reason]:
        p_fake = self._usable.mean()
        if p_fake is None or self._usable.count < MIN_SCORES or self._last_ns - self._first_ns < MIN_NS:
            flawed = self._flawed.count > self._usable.count
            return Label.UNSURE, max(_FLAWS, key=self._flaws.__getitem__) if flawed else Reason.TOO_FEW_FRAMES
        word = by_threshold(p_fake, thresholds)
        # One extreme frame can turn the mean of a short clip, never its median.
        opposite = {word[0], by_threshold(self._usable.quantile(0.5), thresholds)[0]} == {Label.REAL, Label.FAKE}
        if opposite or self._usable.quantile(0.75) - self._usable.quantile(0.25) > MAX_SPREAD:
            return Label.UNSURE, Reason.DISAGREE
        return word


class _ScoreSum:
    """Mean log-odds and quantiles of scores, without keeping them."""

    def __init__(self) -> None:
        self.count = 0
        self._log_odds = 0.0
        self._histogram = np.zeros(_BINS, np.int64)

    def add(self, p: float) -> None:
        inside = min(max(p, 1e-4), 1 - 1e-4)  # a float32 sigmoid reaches 0 and 1
        self.count += 1
        self._log_odds += math.log(inside / (1 - inside))
        self._histogram[min(int(p * _BINS), _BINS - 1)] += 1

    def mean(self) -> float | None:
        """Probability of the mean log-odds; None without a score."""
        return 1 / (1 + math.exp(-self._log_odds / self.count)) if self.count else None

    def quantile(self, q: float) -> float:
        """The ``q``-quantile of the scores, to a fiftieth; there must be one."""
        below = self._histogram.cumsum()  # (bins,)
        return float(np.searchsorted(below, self.count * q) + 0.5) / _BINS


class _Segments:
    """Joins the frames called FAKE into stretches of time."""

    def __init__(self) -> None:
        self._done: list[Segment] = []
        self._start_ns: int | None = None
        self._end_ns = 0
        self._sum = 0.0
        self._count = 0

    def add(self, pts_ns: int, verdict: Verdict) -> None:
        if verdict.label is not Label.FAKE or verdict.p_fake is None:
            return
        if self._start_ns is None or pts_ns - self._end_ns > _GAP_NS:
            self._done = list(self.closed())
            self._start_ns, self._sum, self._count = pts_ns, 0.0, 0
        self._end_ns = pts_ns
        self._sum += verdict.p_fake
        self._count += 1

    def closed(self) -> tuple[Segment, ...]:
        """All segments so far, the one under way too, if it is long enough to count."""
        if self._start_ns is None or self._end_ns - self._start_ns < MIN_NS:
            return tuple(self._done)
        last = Segment(self._start_ns / NS_PER_S, self._end_ns / NS_PER_S, self._sum / self._count)
        return (*self._done, last)
