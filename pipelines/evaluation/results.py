"""What an evaluation found, and its JSON: schema ``tellframe.evaluation/1``, see docs/results.md. Values only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from detector.card import ModelCard
from detector.training.metrics import Estimate, Metrics
from detector.types import Label, Reason
from pipelines.text import plain

SCHEMA = "tellframe.evaluation/1"
NO_FACE_P = 0.5
"""What a picture or clip without a scored face counts as: leaving it out would reward a finder that misses faces."""
UNCHANGED = "none"
"""The perturbation that is none."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was said of one medium.

    Attributes:
        name, source, method, fake: as of :class:`~detector.training.layouts.Medium`.
        p_fake: None without a scored face.
    """

    name: str
    source: str
    method: str
    fake: bool
    p_fake: float | None


@dataclass(frozen=True, slots=True)
class Clip(Row):
    """What the run-time pipeline said of one clip.

    Attributes:
        label, reason: of the clip.
        frames: score of every frame that was looked at, of its most suspicious face; None where none was found.
        broken: frames that could not be decoded.
    """

    label: Label
    reason: Reason
    frames: tuple[float | None, ...]
    broken: int


@dataclass(frozen=True, slots=True)
class Still(Row):
    """What was said of one picture: ``p_fake`` is of its most suspicious face."""

    faces: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Clips and pictures that were judged under one condition."""

    clips: tuple[Clip, ...] = ()
    stills: tuple[Still, ...] = ()

    def rows(self) -> tuple[Row, ...]:
        """Clips, then pictures."""
        return self.clips + self.stills


@dataclass(frozen=True, slots=True)
class Level:
    """Figures over clips, over their frames, or over pictures.

    ``metrics`` is None when a class has no sample; ``without_face`` of the samples count as ``NO_FACE_P``.
    """

    fakes: int
    reals: int
    without_face: int
    metrics: Metrics | None


@dataclass(frozen=True, slots=True)
class Said:
    """How many clips of one class got which verdict, and the share of them that was called FAKE; None without any."""

    counts: Mapping[Label, int]
    called_fake: Estimate | None


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of everything, of one method or source, or under one condition."""

    video: Level
    frame: Level
    image: Level
    reals: Said
    fakes: Said


@dataclass(frozen=True, slots=True)
class TierPart:
    """Figures of one of the quality tiers of :mod:`detector.training.perturb`: both limits None for "as it is"."""

    name: str
    longer_side_px: int | None
    jpeg_quality: int | None
    part: Part


@dataclass(frozen=True, slots=True)
class PerturbedPart:
    """Figures after one perturbation of :mod:`detector.training.perturb`.

    Attributes:
        perturbation: its name; ``UNCHANGED`` for the same frames as they are.
        level: 1 (mild) to 5; 0 for the same frames as they are.
        parameter, value: what the level stands for; None for the same frames as they are.
    """

    perturbation: str
    level: int
    parameter: str | None
    value: float | None
    part: Part


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was measured.

    Attributes:
        data, layout: as they were asked for.
        stride: every n-th frame of a clip was judged.
        max_frames: of a clip, None for all.
        threads: of the scorer.
        draws: of the bootstrap.
        robustness_frames, robustness_stride: of a clip, for robustness.
    """

    data: tuple[str, ...]
    layout: str
    stride: int
    max_frames: int | None
    threads: int
    draws: int
    robustness_frames: int
    robustness_stride: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything; ``failures`` are reasons with the names they befell."""

    card: ModelCard
    settings: Settings
    judged: Judged
    overall: Part
    methods: Mapping[str, Part]
    sources: Mapping[str, Part]
    tiers: tuple[TierPart, ...]
    robustness: tuple[PerturbedPart, ...]
    failures: Mapping[str, tuple[str, ...]]

    def to_json(self) -> str:
        """One line of JSON with its line end."""
        card = self.card
        record = {
            "schema": SCHEMA,
            "model": {"name": card.name, "kind": card.kind, "sha256": card.sha256, **asdict(card.thresholds)},
            "settings": asdict(self.settings) | {"data": [plain(folder) for folder in self.settings.data]},
            "overall": _part(self.overall),
            "methods": [{"method": plain(name), **_part(part)} for name, part in self.methods.items()],
            "sources": [{"source": plain(name), **_part(part)} for name, part in self.sources.items()],
            "tiers": [
                {
                    "tier": tier.name,
                    "longer_side_px": tier.longer_side_px,
                    "jpeg_quality": tier.jpeg_quality,
                    **_part(tier.part),
                }
                for tier in self.tiers
            ],
            "robustness": [
                {
                    "perturbation": row.perturbation,
                    "level": row.level,
                    "parameter": row.parameter,
                    "value": row.value,
                    **_part(row.part),
                }
                for row in self.robustness
            ],
            "failures": [
                {"reason": plain(reason), "count": len(names), "names": [plain(name) for name in names]}
                for reason, names in self.failures.items()
            ],
            "clips": [_clip(clip) for clip in self.judged.clips],
            "images": [_still(still) for still in self.judged.stills],
        }
        return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def _part(part: Part) -> dict[str, Any]:
    video = _level(part.video)
    for name, said in (("reals", part.reals), ("fakes", part.fakes)):
        video[f"{name}_said"] = {label.value: said.counts.get(label, 0) for label in Label}
        video |= _estimate(f"{name}_called_fake", said.called_fake)
    return {"video": video, "frame": _level(part.frame), "image": _level(part.image)}


def _level(level: Level) -> dict[str, Any]:
    record: dict[str, Any] = {"fakes": level.fakes, "reals": level.reals, "without_face": level.without_face}
    for field in fields(Metrics):
        record |= _estimate(field.name, getattr(level.metrics, field.name) if level.metrics else None)
    return record


def _estimate(name: str, estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {name: None, f"{name}_interval": None}
    return {name: round(estimate.value, 6), f"{name}_interval": [round(estimate.low, 6), round(estimate.high, 6)]}


def _clip(clip: Clip) -> dict[str, Any]:
    return {
        **_named(clip),
        "verdict": clip.label.value,
        "reason": clip.reason.value,
        "p_fake": _rounded(clip.p_fake),
        "frames": len(clip.frames),
        "frames_without_face": clip.frames.count(None),
        "broken": clip.broken,
    }


def _still(still: Still) -> dict[str, Any]:
    return {**_named(still), "p_fake": _rounded(still.p_fake), "faces": still.faces}


def _named(row: Row) -> dict[str, Any]:
    return {"name": plain(row.name), "source": plain(row.source), "method": plain(row.method), "fake": row.fake}


def _rounded(p_fake: float | None) -> float | None:
    return None if p_fake is None else round(p_fake, 6)
