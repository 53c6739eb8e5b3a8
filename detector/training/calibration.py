"""From scores to words that keep a promise: a temperature, and two thresholds. Pure.

Temperature: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. Thresholds: quantiles of what the whole
pipeline says of real clips, in the worst of the quality tiers, and of fakes as they are; UNSURE takes what is in doubt.
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
        fake_caught: at most ``1 - fake_caught`` of the fakes, as they are, are called REAL; the rest may be UNSURE.
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


@dataclass(frozen=True, slots=True)
class Fit:
    """A temperature, and the mean log-loss of the clips' labels without and with it, nats."""

    temperature: float
    log_loss_before: float
    log_loss_after: float


def clip_temperature(real: Scores, fake: Scores) -> Fit:
    """The temperature for p(fake) of real clips, float64 (n,), and of fakes, float64 (m,), as they are.

    Raises:
        UsageError: a class is empty.
    """
    if not len(real) or not len(fake):
        raise UsageError(f"calibration needs real clips and fakes, got {len(real)} and {len(fake)}")
    logits = np.concatenate([log_odds(real), log_odds(fake)])
    labels = np.repeat([0.0, 1.0], [len(real), len(fake)])
    temperature = fit_temperature(logits, labels)
    return Fit(temperature, log_loss(logits, labels), log_loss(logits / temperature, labels))


def calibrate(fit: Fit, real: Mapping[str, Scores], fake: Scores, rule: Rule, as_it_is: str) -> Calibration:
    """Thresholds from clips that training never saw, scored by the model with its temperature.

    Args:
        fit: that temperature.
        real: p(fake) of real clips, float64 (n,) in 0..1, by tier.
        fake: p(fake) of fakes as they are, float64 (m,) in 0..1.
        rule: what is promised.
        as_it_is: the tier in ``real`` that changes nothing.

    Raises:
        UsageError: a class is empty, or too small to promise anything of.
    """
    smallest = min(map(len, real.values()), default=0)
    needed = needed_for(rule.real_passes)
    if smallest < needed or not len(fake):
        raise UsageError(
            f"calibration needs {needed} real clips to promise that {rule.real_passes:.0%} pass, and fakes; "
            f"got {smallest} and {len(fake)}"
        )
    thresholds = choose_thresholds(real, fake, rule)
    everyone = np.concatenate([real[as_it_is], fake])
    between = (everyone >= thresholds.real_below) & (everyone <= thresholds.fake_above)
    return Calibration(
        temperature=fit.temperature,
        thresholds=thresholds,
        log_loss_before=fit.log_loss_before,
        log_loss_after=fit.log_loss_after,
        real_called_fake={tier: float((scores > thresholds.fake_above).mean()) for tier, scores in real.items()},
        fake_called_real=float((fake < thresholds.real_below).mean()),
        unsure=float(between.mean()),
        real_clips=len(real[as_it_is]),
        fake_clips=len(fake),
    )


def needed_for(share: float) -> int:
    """How many clips it takes for one failure to be no more than ``1 - share`` of them; 1 when none may fail."""
    return 1 if share >= 1 else math.ceil(1 / (1 - share) - 1e-9)


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
