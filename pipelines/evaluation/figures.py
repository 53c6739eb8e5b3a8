"""From what was judged to figures: pure, no model and no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from detector.training.metrics import DRAWS, Estimate, Metrics, Scores, measure, proportion
from detector.types import BoolArray, IntArray, Label
from pipelines.evaluation.results import NO_FACE_P, Clip, Judged, Level, Part, Row, Said


def part(judged: Judged, draws: int = DRAWS) -> Part:
    """Figures of everything in ``judged``."""
    return Part(
        video=level(*row_scores(judged.clips), draws=draws),
        frame=level(*frame_scores(judged.clips), draws=draws),
        image=level(*row_scores(judged.stills), draws=draws),
        reals=said([clip for clip in judged.clips if not clip.fake]),
        fakes=said([clip for clip in judged.clips if clip.fake]),
    )


def by_method(judged: Judged, draws: int = DRAWS) -> dict[str, Part]:
    """Figures of the fakes of each method against all reals."""
    methods = sorted({row.method for row in judged.rows() if row.fake})
    return {
        method: part(
            Judged(
                tuple(clip for clip in judged.clips if not clip.fake or clip.method == method),
                tuple(still for still in judged.stills if not still.fake or still.method == method),
            ),
            draws,
        )
        for method in methods
    }


def by_source(judged: Judged, draws: int = DRAWS) -> dict[str, Part]:
    """Figures of each source by itself; without metrics where it has one class only."""
    sources = sorted({row.source for row in judged.rows()})
    return {
        source: part(
            Judged(
                tuple(clip for clip in judged.clips if clip.source == source),
                tuple(still for still in judged.stills if still.source == source),
            ),
            draws,
        )
        for source in sources
    }


def row_scores(rows: Sequence[Row]) -> tuple[Scores, BoolArray, IntArray]:
    """p(fake) of each row, NaN without a face; which are fake; each a group of its own: (n,) each."""
    p_fake = np.array([row.p_fake for row in rows], np.float64)  # None becomes NaN
    return p_fake, np.array([row.fake for row in rows], np.bool_), np.arange(len(rows))


def frame_scores(clips: Sequence[Clip]) -> tuple[Scores, BoolArray, IntArray]:
    """p(fake) of every frame of every clip, NaN without a face; which are fake; their clip: (n,) each."""
    p_fake = np.array([p for clip in clips for p in clip.frames], np.float64)
    group = np.repeat(np.arange(len(clips)), [len(clip.frames) for clip in clips])
    return p_fake, np.array([clip.fake for clip in clips], np.bool_)[group], group


def level(p_fake: Scores, fake: BoolArray, groups: IntArray, draws: int = DRAWS) -> Level:
    """Figures of samples; NaN is a sample without a face."""
    fakes, reals = int(fake.sum()), int((~fake).sum())
    metrics: Metrics | None = None
    if fakes and reals:
        metrics = measure(with_faces_missed(p_fake), fake, groups, draws)
    return Level(fakes, reals, int(np.isnan(p_fake).sum()), metrics)


def with_faces_missed(p_fake: Scores) -> Scores:
    """``p_fake`` with what a sample without a face counts as."""
    return np.where(np.isnan(p_fake), NO_FACE_P, p_fake)


def said(clips: Sequence[Clip]) -> Said:
    """Verdicts of clips of one class."""
    counts: Mapping[Label, int] = Counter(clip.label for clip in clips)
    called: Estimate | None = proportion(counts.get(Label.FAKE, 0), len(clips)) if clips else None
    return Said(counts, called)


def lacking(judged: Judged) -> dict[str, tuple[str, ...]]:
    """Which rows have no figures because their other class has no sample: a reason and their names."""
    found: dict[str, tuple[str, ...]] = {}
    kinds: tuple[tuple[str, Sequence[Row]], ...] = ("clip", judged.clips), ("picture", judged.stills)
    for what, rows in kinds:
        classes = {row.fake for row in rows}
        if len(classes) == 1:
            missing = "real" if True in classes else "fake"
            found[f"no {missing} {what} to compare with"] = tuple(row.name for row in rows)
    return found
