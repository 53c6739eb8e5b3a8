"""From scores to words that keep a promise: a temperature, and two thresholds. Pure.

Temperature: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Thresholds: quantiles of what the whole
pipeline says of real and fake clips, in the worst of the quality tiers, so that UNSURE takes what is in doubt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.card import Thresholds
from detector.types import UsageError

Scores = NDArray[np.float64]

TEMPERATURES = (0.25, 8.0)
"""A fit outside is no calibration: the scores say nothing, or everything, about the label."""
_EDGE = 1e-4  # p(fake) is clipped this far from 0 and 1, as where clips are judged


@dataclass(frozen=True, slots=True)
class Rule:
    """What the thresholds promise on the calibration clips.

    Attributes:
        real_passes: at least this share of real clips is not called FAKE, in every tier.
        fake_caught: at most ``1 - fake_caught`` of the fakes are called REAL; the rest may be UNSURE.
    """

    real_passes: float = 0.95
    fake_caught: float = 0.9

    def __post_init__(self) -> None:
        for name, share in (("real_passes", self.real_passes), ("fake_caught", self.fake_caught)):
            if not 0.5 <= share <= 1:
                raise UsageError(f"{name} is a share of clips, 0.5..1, got {share}")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came out.

    Attributes:
        temperature: logits are divided by it.
        thresholds: on the probability after that.
        log_loss_before, log_loss_after: mean negative log-likelihood of the labels of the clips as they are, nats.
        real_called_fake: share of real clips above ``fake_above``, by tier.
        fake_called_real: share of fakes below ``real_below``.
        unsure: share of all clips as they are that lies between.
        real_clips, fake_clips: how many there were.
    """

    temperature: float
    thresholds: Thresholds
    log_loss_before: float
    log_loss_after: float
    real_called_fake: Mapping[str, float]
    fake_called_real: float
    unsure: float
    real_clips: int
    fake_clips: int


def calibrate(real: Mapping[str, Scores], fake: Scores, rule: Rule, as_it_is: str) -> Calibration:
    """Temperature and thresholds from clips that training never saw.

    Args:
        real: p(fake) of real clips, float64 (n,) in 0..1, by tier.
        fake: p(fake) of fakes as they are, float64 (m,) in 0..1.
        rule: what is promised.
        as_it_is: the tier in ``real`` that changes nothing.

    Raises:
        UsageError: a class is empty, or too small to promise anything of.
    """
    needed = math.ceil(1 / max(1 - rule.real_passes, 1e-9)) if rule.real_passes < 1 else 1
    if min(map(len, real.values())) < needed or not len(fake):
        raise UsageError(
            f"calibration needs {needed} real clips to promise that {rule.real_passes:.0%} pass, and fakes; "
            f"got {min(map(len, real.values()))} and {len(fake)}"
        )
    logits = np.concatenate([log_odds(real[as_it_is]), log_odds(fake)])
    labels = np.repeat([0.0, 1.0], [len(real[as_it_is]), len(fake)])
    temperature = fit_temperature(logits, labels)
    scaled_real = {tier: scaled(scores, temperature) for tier, scores in real.items()}
    scaled_fake = scaled(fake, temperature)
    thresholds = choose_thresholds(scaled_real, scaled_fake, rule)
    everyone = np.concatenate([scaled_real[as_it_is], scaled_fake])
    between = (everyone >= thresholds.real_below) & (everyone <= thresholds.fake_above)
    return Calibration(
        temperature=temperature,
        thresholds=thresholds,
        log_loss_before=log_loss(logits, labels),
        log_loss_after=log_loss(logits / temperature, labels),
        real_called_fake={tier: float((s > thresholds.fake_above).mean()) for tier, s in scaled_real.items()},
        fake_called_real=float((scaled_fake < thresholds.real_below).mean()),
        unsure=float(between.mean()),
        real_clips=len(real[as_it_is]),
        fake_clips=len(fake),
    )


def choose_thresholds(real: Mapping[str, Scores], fake: Scores, rule: Rule) -> Thresholds:
    """The lowest ``fake_above`` (at least 0.5) and the highest ``real_below`` (at most 0.5) that keep ``rule``.

    Both are rounded outwards to a thousandth. The quantiles are order statistics, not interpolated: the promise holds
    for the clips at hand exactly.
    """
    highest = max(_order_statistic(scores, rule.real_passes) for scores in real.values())
    fake_above = min(1.0, max(0.5, math.ceil(highest * 1000 - 1e-9) / 1000))
    lowest = -_order_statistic(-fake, rule.fake_caught)
    real_below = max(0.0, min(0.5, math.floor(lowest * 1000 + 1e-9) / 1000))
    return Thresholds(real_below, fake_above)


def _order_statistic(scores: Scores, share: float) -> float:
    """The smallest score that at least ``share`` of all scores do not exceed."""
    return float(np.sort(scores)[math.ceil(share * len(scores) - 1e-9) - 1])


def fit_temperature(logits: Scores, labels: Scores) -> float:
    """The temperature with the least log-loss; convex in its inverse, found by golden-section search.

    Args:
        logits: float64 (n,).
        labels: float64 (n,), 1 for fake.
    """
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if log_loss(logits * left, labels) < log_loss(logits * right, labels):
            high = right
        else:
            low = left
    return 2 / (low + high)


def log_loss(logits: Scores, labels: Scores) -> float:
    """Mean negative log-likelihood, nats; both classes weigh alike, however many clips they have."""
    losses = np.logaddexp(0, np.where(labels > 0.5, -logits, logits))
    return float((losses[labels > 0.5].mean() + losses[labels < 0.5].mean()) / 2)


def log_odds(p: Scores) -> Scores:
    """The logit of probabilities, clipped as where clips are judged."""
    inside = p.clip(_EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def scaled(p: Scores, temperature: float) -> Scores:
    """Probabilities after division of their logits by ``temperature``."""
    return np.asarray(1 / (1 + np.exp(-log_odds(p) / temperature)), np.float64)
