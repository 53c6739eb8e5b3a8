"""Rows of clips and pictures that nobody judged, and what they amount to."""

import numpy as np

from detector.training.perturb import TIERS
from detector.types import Label
from detector.verdict import by_threshold
from pipelines.evaluation.command import Plan, conclude
from pipelines.evaluation.results import Clip, Judged, Still
from pipelines.evaluation.run import CONDITIONS, Findings
from tests.doubles import THRESHOLDS, make_card


def make_plan(**changes):
    values = {
        "model": "double",
        "data": ("data",),
        "layout": "auto",
        "json": None,
        "html": None,
        "stride": 1,
        "tiers": True,
        "robustness": True,
        "max_frames": None,
        "threads": 1,
    }
    return Plan(**values | changes)


def make_clip(name="a.mp4", p_fake=0.5, *, fake=False, method=None, source="set", frames=None, label=None):
    label_, reason = by_threshold(0.5 if p_fake is None else p_fake, THRESHOLDS)
    frames = (p_fake,) * 4 if frames is None else frames
    method = method or ("swap" if fake else "real")
    return Clip(name, source, method, fake, p_fake, label or label_, reason, frames, broken=0)


def make_still(name="a.jpg", p_fake=0.5, *, fake=False, method=None, source="set", faces=1):
    return Still(name, source, method or ("swap" if fake else "real"), fake, p_fake, faces)


def make_judged(clips=24, stills=16, gap=0.4, seed=0):
    """Overlapping scores; two methods and two sources."""
    random = np.random.default_rng(seed)

    def p(fake):
        return float(np.clip(random.normal(0.35 + gap * fake, 0.2), 0, 1))

    def film(i):
        fake = i % 2 == 0
        score = p(fake)
        frames = tuple(float(np.clip(random.normal(score, 0.1), 0, 1)) for _ in range(5))
        method = ("swap", "reenact")[i % 4 // 2] if fake else "real"
        return make_clip(f"{i}.mp4", score, fake=fake, method=method, source=f"set {i % 3 // 2}", frames=frames)

    films = tuple(film(i) for i in range(clips))
    return Judged(films, tuple(make_still(f"{i}.jpg", p(i % 2 == 0), fake=i % 2 == 0) for i in range(stills)))


def make_findings(clean=None, failures=None):
    clean = make_judged() if clean is None else clean
    tiers = {name: make_judged(gap=0.4 - 0.1 * i, seed=i) for i, name in enumerate(TIERS)}
    robustness = {(name, level): make_judged(gap=0.4 - 0.07 * level, seed=level) for name, level in CONDITIONS}
    failures = {"cannot be read": ("bad.mp4",)} if failures is None else failures
    return Findings(clean, tiers, robustness, failures)


def make_evaluation(findings=None, plan=None, left_out=None):
    return conclude(make_card(), plan or make_plan(), findings or make_findings(), left_out or {}, draws=20)


def nobody_seen(name, *, fake):
    return make_clip(name, None, fake=fake, frames=(None, None), label=Label.NO_FACE)
