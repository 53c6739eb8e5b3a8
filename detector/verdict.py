"""From scores to words: smoothing along a track, thresholds, abstention. Pure; no model, no clock of its own.

A face is judged by the median of its recent scores, never by one frame. UNSURE is an answer, with its reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from detector.card import Thresholds
from detector.types import NS_PER_S, FaceVerdict, Float32Array, Label, Reason, Verdict

WINDOW_NS = NS_PER_S
"""Scores of the last second count ..."""
MIN_SCORES = 5
"""... and at least this many must, or it is too few frames; a slow pace may reach further back for them."""
_OLDEST_NS = 5 * NS_PER_S
MAX_SPREAD = 0.5
"""Interquartile range of the recent scores above which they disagree."""

NO_FACE = Verdict(Label.NO_FACE, Reason.NO_FACE, None)


@dataclass(slots=True)
class _Memory:
    """The recent scores of one track: presentation time, p(fake), and the flaw of the face in that frame."""

    scores: deque[tuple[int, float, Reason | None]] = field(default_factory=deque)

    def add(self, pts_ns: int, p_fake: float, flaw: Reason | None) -> None:
        self.scores.append((pts_ns, p_fake, flaw))
        self.forget(pts_ns)

    def forget(self, pts_ns: int) -> None:
        """Drops what is too old; the last few scores may be older than the window, as far as ``_OLDEST_NS``."""
        while self.scores:
            age_ns = pts_ns - self.scores[0][0]
            if age_ns <= WINDOW_NS or (len(self.usable()) <= MIN_SCORES and age_ns <= _OLDEST_NS):
                break
            self.scores.popleft()

    def at(self, pts_ns: int) -> tuple[float, Reason | None] | tuple[None, None]:
        """Score and flaw of the frame at ``pts_ns``, if the face was scored in it."""
        if not self.scores or self.scores[-1][0] != pts_ns:
            return None, None
        _, p_fake, flaw = self.scores[-1]
        return p_fake, flaw

    def usable(self) -> list[float]:
        return [p for _, p, flaw in self.scores if flaw is None]


class Judge:
    """Says what is known of every followed face, frame by frame.

    Args:
        thresholds: of the model in use.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._tracks: dict[int, _Memory] = {}

    def hear(self, track: int, pts_ns: int, p_fake: float, flaw: Reason | None) -> None:
        """Takes the score of one face: ``p_fake`` in 0..1, ``flaw`` from :func:`detector.quality.flaw`."""
        self._tracks.setdefault(track, _Memory()).add(pts_ns, p_fake, flaw)

    def keep(self, alive: Iterable[int]) -> None:
        """Forgets every track but these."""
        wanted = set(alive)
        self._tracks = {track: memory for track, memory in self._tracks.items() if track in wanted}

    def face(self, track: int, xyxy: Float32Array, pts_ns: int) -> FaceVerdict:
        """What is said of one face at ``pts_ns``, now that the scores of this frame have been heard."""
        memory = self._tracks.get(track, _Memory())
        memory.forget(pts_ns)
        label, reason, p_fake = self._word(memory)
        left, top, right, bottom = (float(side) for side in xyxy)
        p_frame, flaw = memory.at(pts_ns)
        return FaceVerdict(track, (left, top, right, bottom), label, reason, p_fake, p_frame, flaw)

    def _word(self, memory: _Memory) -> tuple[Label, Reason, float | None]:
        usable = memory.usable()
        flaws = [flaw for _, _, flaw in memory.scores if flaw is not None]
        p_fake = float(np.median(usable or [p for _, p, _ in memory.scores])) if memory.scores else None
        if len(usable) < MIN_SCORES and len(flaws) > len(usable):
            return Label.UNSURE, flaws[-1], p_fake
        if p_fake is None:
            return Label.UNSURE, Reason.TOO_FEW_FRAMES, None
        return *word(p_fake, usable, self._thresholds), p_fake


def word(p_fake: float, scores: Sequence[float], thresholds: Thresholds) -> tuple[Label, Reason]:
    """Label and reason for a face with this smoothed ``p_fake`` and these usable recent ``scores``, all in 0..1."""
    if len(scores) < MIN_SCORES:
        return Label.UNSURE, Reason.TOO_FEW_FRAMES
    low, high = np.percentile(scores, [25, 75])
    if high - low > MAX_SPREAD:
        return Label.UNSURE, Reason.DISAGREE
    return by_threshold(p_fake, thresholds)


def by_threshold(p_fake: float, thresholds: Thresholds) -> tuple[Label, Reason]:
    """Label and reason for ``p_fake`` alone."""
    if p_fake > thresholds.fake_above:
        return Label.FAKE, Reason.ABOVE_FAKE
    if p_fake < thresholds.real_below:
        return Label.REAL, Reason.BELOW_REAL
    return Label.UNSURE, Reason.BETWEEN


def frame_verdict(faces: Sequence[FaceVerdict]) -> Verdict:
    """The word on a frame is the word on its most suspicious face.

    In this order: a face called FAKE; one whose *scores* leave it open; one called REAL; and only then a face that
    cannot be judged, the largest: a blurred passer-by must not make a clear face UNSURE.
    """
    if not faces:
        return NO_FACE
    decisive = max(faces, key=lambda face: (_suspicion(face), face.p_fake or 0.0))
    if _suspicion(decisive) == 0:
        decisive = max(faces, key=lambda face: (face.p_fake is not None, _area(face)))
    return Verdict(decisive.label, decisive.reason, decisive.p_fake, tuple(faces))


def _suspicion(face: FaceVerdict) -> int:
    if face.label is Label.FAKE:
        return 3
    if face.reason in (Reason.BETWEEN, Reason.DISAGREE):
        return 2
    return 1 if face.label is Label.REAL else 0


def _area(face: FaceVerdict) -> float:
    left, top, right, bottom = face.xyxy
    return (right - left) * (bottom - top)
