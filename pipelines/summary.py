"""What a whole clip amounts to: verdict, faces, segments, latency, budget. One JSON object a clip."""

from __future__ import annotations

from typing import Any

from compression.budget import FrameBudget
from detector.card import ModelCard
from detector.clip import ClipJudge, ClipVerdict
from detector.types import NS_PER_S, FrameResult, Pace, SourceCounts, SourceInfo
from pipelines.quantiles import Quantiles
from pipelines.text import plain

SCHEMA = "tellframe.clip/1"
STAGES = ("find", "crop", "score", "total")
QUANTILES = (0.50, 0.95, 0.99)


class Summary:
    """Gathers the results of one clip in memory that does not grow with its length.

    Args:
        path: what the user called the clip.
        card: of the model that scores, or the first of several: their scores are on its scale.
        budget: what a frame may take.
    """

    def __init__(self, path: str, card: ModelCard, budget: FrameBudget) -> None:
        self._path, self._card, self._budget = path, card, budget
        self._judge = ClipJudge(card.thresholds)
        self._latency = {stage: Quantiles() for stage in STAGES}
        self._last_ns = 0
        self._pace: Pace | None = None
        self._find_every = self._score_every = 1
        self._models: dict[str, int] = {}
        self.frames = 0
        self.steps = 0
        self.scored = 0
        self.over = 0
        self.dropped = 0

    def add(self, result: FrameResult) -> None:
        """Takes the next result."""
        self.frames += 1
        self.dropped += result.dropped
        self.scored += any(face.p_frame is not None for face in result.verdict.faces)
        self._last_ns = result.frame.pts_ns
        self._judge.add(result)
        self._note_pace(result)
        timing = result.timing
        self.over += timing.total_ms > self._budget.period_ms
        # A stage that did not run says nothing of what it costs.
        stages = {"find": timing.find_ms, "crop": timing.crop_ms, "score": timing.score_ms, "total": timing.total_ms}
        for stage, ms in stages.items():
            if ms > 0:
                self._latency[stage].add(ms)

    def _note_pace(self, result: FrameResult) -> None:
        """What was left out, so that the record can say so."""
        self.steps += self._pace not in (None, result.pace)
        self._pace = result.pace
        self._find_every = max(self._find_every, result.pace.find_every)
        self._score_every = max(self._score_every, result.pace.score_every)
        self._models[result.model] = self._models.get(result.model, 0) + 1

    def verdict(self) -> ClipVerdict:
        """The word on the clip so far."""
        return self._judge.verdict()

    def latency_ms(self, stage: str, q: float) -> float | None:
        """The ``q``-quantile of a stage ("find", "crop", "score" or "total") in ms; None when it never ran."""
        return self._latency[stage].quantile(q)

    def budget_met(self) -> bool:
        """Whether the budget's quantile of the frames was done in time: counted, not read off the histogram."""
        return self.over <= (1 - self._budget.quantile) * self.frames + 1e-9

    def record(self, info: SourceInfo, counts: SourceCounts, *, complete: bool) -> dict[str, Any]:
        """The JSON object of the clip, schema ``tellframe.clip/1``; docs/results.md says what the keys mean.

        Args:
            info: of the source.
            counts: of the source.
            complete: False when the clip was cut short: by a limit, an error, or Ctrl-C.
        """
        verdict = self.verdict()
        fps = info.fps or self._measured_fps()
        return {
            "schema": SCHEMA,
            "path": plain(self._path),
            "verdict": verdict.label.value,
            "reason": verdict.reason.value,
            "p_fake": _rounded(verdict.p_fake, 6),
            "frames": self.frames,
            "frames_scored": self.scored,
            "duration_s": round(self._last_ns / NS_PER_S + (1 / fps if fps and self.frames else 0.0), 3),
            "fps": _rounded(fps, 3),
            "faces": [
                {
                    "track": face.track,
                    "verdict": face.label.value,
                    "reason": face.reason.value,
                    "p_fake": _rounded(face.p_fake, 6),
                    "frames": face.frames,
                    "first_s": round(face.first_s, 3),
                    "last_s": round(face.last_s, 3),
                }
                for face in verdict.faces
            ],
            "segments": [
                {"start_s": round(s.start_s, 3), "end_s": round(s.end_s, 3), "p_fake": round(s.p_fake, 6)}
                for s in verdict.segments
            ],
            "latency_ms": {
                stage: {f"p{q * 100:.0f}": _rounded(self.latency_ms(stage, q), 3) for q in QUANTILES}
                for stage in STAGES
            },
            "budget": {
                "period_ms": round(self._budget.period_ms, 3),
                "over": self.over,
                "met": self.budget_met(),
            },
            "pace": {"steps": self.steps, "find_every": self._find_every, "score_every": self._score_every},
            "dropped": self.dropped,
            "broken": counts.broken,
            "reconnects": counts.reconnects,
            "complete": complete,
            "model": {"name": self._card.name, "sha256": self._card.sha256},
            "models": [{"name": plain(name), "frames": frames} for name, frames in self._models.items()],
        }

    def _measured_fps(self) -> float | None:
        """Frames a second of the source, the dropped ones too."""
        return (self.frames - 1 + self.dropped) * NS_PER_S / self._last_ns if self._last_ns else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
