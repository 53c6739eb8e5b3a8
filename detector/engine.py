"""One frame in, one verdict out: find, follow, crop, score, judge, each stage timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.card import ModelCard
from detector.crop import crop_faces
from detector.quality import flaw
from detector.scale import onto_scale
from detector.tracks import Tracker
from detector.types import (
    NS_PER_MS,
    FaceFinder,
    Faces,
    Frame,
    FrameResult,
    IntArray,
    Pace,
    Scorer,
    Timing,
    Verdict,
)
from detector.verdict import Judge, frame_verdict


@dataclass(frozen=True, slots=True)
class Model:
    """A scorer and the card that says how to feed it and what its numbers mean."""

    card: ModelCard
    scorer: Scorer


class Detector:
    """Judges the frames of one source, in their order.

    Args:
        finder: finds faces; the caller closes it.
        model: scores them.
        max_scored: at most this many faces are scored in one frame, the ones that waited longest first: a crowd must
            not break the frame budget.
        cheaper: models that a pace may ask for instead, its rungs 1, 2 ...; their scores are brought onto the scale
            of ``model`` (see :mod:`detector.scale`), so that a face keeps its word when the model changes.

    Raises:
        ValueError: ``max_scored`` is below 1.
    """

    def __init__(self, finder: FaceFinder, model: Model, max_scored: int = 4, cheaper: Sequence[Model] = ()) -> None:
        if max_scored < 1:
            raise ValueError(f"max_scored is at least 1, got {max_scored}")
        self._finder = finder
        self._ladder = (model, *cheaper)
        self._max_scored = max_scored
        self._tracker = Tracker()
        self._judge = Judge(model.card.thresholds)
        self._scored_ns: dict[int, int] = {}
        self._frames = 0

    def judge(self, frame: Frame, dropped: int = 0, pace: Pace = Pace()) -> FrameResult:  # noqa: B008  (frozen)
        """The verdict on ``frame``.

        Args:
            frame: later than the one before it.
            dropped: frames of the source lost since the one before it; passed on.
            pace: which stages may rest on this frame, and which model scores. Faces are then carried on where they
                should be, and verdicts carried over; the result says so (``fresh``).

        Raises:
            ValueError: the ladder has no such rung.
        """
        if pace.rung >= len(self._ladder):
            raise ValueError(f"rung {pace.rung} of a ladder of {len(self._ladder)} models")
        model = self._ladder[pace.rung]
        find = self._frames % pace.find_every == 0
        score = self._frames % pace.score_every == pace.score_phase
        self._frames += 1
        clock = _Stopwatch()
        looked, faces, ids = self._follow(frame, find=find)
        clock.lap("find", ran=looked)
        fresh = looked and not len(faces)
        if score and len(faces):
            self._score(model, frame, faces, ids, clock)
            fresh = True
        verdict = self._verdict(frame, faces, ids)
        return FrameResult(frame, verdict, clock.timing(), dropped, fresh, model.card.name, pace)

    def _follow(self, frame: Frame, *, find: bool) -> tuple[bool, Faces, IntArray]:
        """Whether the finder ran; the faces of this frame, found or carried on, and their track ids."""
        if find and self._tracker.needs_look(frame.pts_ns):
            faces = self._finder.find(frame)
            return True, faces, self._tracker.update(faces, frame.pts_ns)
        return False, *self._tracker.expected(frame.pts_ns)

    def _score(self, model: Model, frame: Frame, faces: Faces, ids: IntArray, clock: _Stopwatch) -> None:
        card, scale = model.card, self._ladder[0].card.thresholds
        turns = self._turns(ids)
        crops = crop_faces(frame.bgr, faces.xyxy[turns], card.input_size, card.crop_margin)
        flaws = [flaw(crop, faces.xyxy[i], faces.keypoints[i]) for i, crop in zip(turns, crops, strict=True)]
        clock.lap("crop")
        p_fake = model.scorer.score(crops)  # (k,)
        clock.lap("score")
        for i, p, why in zip(turns, p_fake, flaws, strict=True):
            track = int(ids[i])
            self._judge.hear(track, frame.pts_ns, onto_scale(float(p), card.thresholds, scale), why)
            self._scored_ns[track] = frame.pts_ns

    def _turns(self, ids: IntArray) -> IntArray:
        """Which faces are scored in this frame: the ones that waited longest; new ones have waited for ever."""
        waited = np.array([self._scored_ns.get(int(track), -1) for track in ids], np.int64)  # (n,)
        return np.argsort(waited, kind="stable")[: self._max_scored].astype(np.int64)

    def _verdict(self, frame: Frame, faces: Faces, ids: IntArray) -> Verdict:
        alive = self._tracker.alive()
        self._judge.keep(alive)
        self._scored_ns = {track: at for track, at in self._scored_ns.items() if track in alive}
        said = [self._judge.face(int(track), box, frame.pts_ns) for track, box in zip(ids, faces.xyxy, strict=True)]
        return frame_verdict(said)


class _Stopwatch:
    """Laps of one frame, in ms."""

    def __init__(self) -> None:
        self._began_ns = self._lap_ns = time.perf_counter_ns()
        self._laps = {"find": 0.0, "crop": 0.0, "score": 0.0}

    def lap(self, stage: str, *, ran: bool = True) -> None:
        now_ns = time.perf_counter_ns()
        self._laps[stage] = (now_ns - self._lap_ns) / NS_PER_MS if ran else 0.0
        self._lap_ns = now_ns

    def timing(self) -> Timing:
        total_ms = (time.perf_counter_ns() - self._began_ns) / NS_PER_MS
        return Timing(self._laps["find"], self._laps["crop"], self._laps["score"], total_ms)
