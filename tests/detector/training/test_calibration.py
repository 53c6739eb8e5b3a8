"""Calibration: the temperature is found, the thresholds keep their promise on the clips at hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from detector.training.calibration import (
    Fit,
    Rule,
    calibrate,
    choose_thresholds,
    clip_temperature,
    fit_temperature,
    log_loss,
    needed_for,
)
from detector.types import UsageError

scores = st.lists(st.floats(0, 1), min_size=20, max_size=60).map(np.array)


@given(real=scores, worse=scores, fake=scores, passes=st.floats(0.5, 1), caught=st.floats(0.5, 1))
def test_thresholds_keep_the_rule_in_every_tier(real, worse, fake, passes, caught):
    rule = Rule(passes, caught)
    thresholds = choose_thresholds({"a": real, "b": worse}, fake, rule)
    assert 0 <= thresholds.real_below <= 0.5 <= thresholds.fake_above <= 1
    for tier in (real, worse):
        assert (tier <= thresholds.fake_above).mean() >= passes - 1e-9
    assert (fake >= thresholds.real_below).mean() >= caught - 1e-9


def test_thresholds_are_no_stricter_than_the_rule_asks():
    real = np.linspace(0, 0.99, 100)
    fake = np.linspace(0, 0.99, 100)
    thresholds = choose_thresholds({"a": real}, fake, Rule(0.95, 0.9))
    assert thresholds.fake_above == pytest.approx(0.94, abs=1e-9)
    assert thresholds.real_below == pytest.approx(0.1, abs=1e-9)


def test_good_scores_need_no_unsure():
    thresholds = choose_thresholds({"a": np.full(30, 0.1)}, np.full(30, 0.9), Rule())
    assert thresholds.real_below == thresholds.fake_above == 0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_scores_that_were_sharpened_is_found(temperature):
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 40_000)
    labels = (rng.random(40_000) < 1 / (1 + np.exp(-honest))).astype(float)
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.05)


@given(st.integers(0, 1000))
def test_the_fit_is_that_of_a_general_minimiser(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0.0, 1.0], 30)
    logits = rng.normal(2 * labels - 1, 2)
    best = minimize_scalar(lambda b: log_loss(logits * b, labels), bounds=(1 / 8, 4), method="bounded").x
    assert log_loss(logits / fit_temperature(logits, labels), labels) <= log_loss(logits * best, labels) + 1e-9


def test_all_that_is_said_of_a_calibration_is_so():
    rng = np.random.default_rng(1)
    real = {"as it is": rng.beta(1, 4, 60), "worse": rng.beta(2, 4, 60)}
    fake = rng.beta(4, 1.5, 50)
    fit = clip_temperature(real["as it is"], fake)
    found = calibrate(fit, real, fake, Rule(), "as it is")
    for tier, share in found.real_called_fake.items():
        assert share == (real[tier] > found.thresholds.fake_above).mean() <= 0.05
    assert found.fake_called_real == (fake < found.thresholds.real_below).mean() <= 0.1
    assert (found.temperature, found.log_loss_after) == (fit.temperature, fit.log_loss_after)
    assert found.log_loss_after <= found.log_loss_before
    assert (found.real_clips, found.fake_clips) == (60, 50)
    assert 0 < found.unsure < 1


@pytest.mark.parametrize(("share", "needed"), [(0.5, 2), (0.8, 5), (0.9, 10), (0.95, 20), (0.99, 100), (1.0, 1)])
def test_a_promise_takes_so_many_clips(share, needed):
    assert needed_for(share) == needed


@pytest.mark.parametrize("real", [{"a": np.full(5, 0.1)}, {}])
def test_too_few_clips_promise_nothing(real):
    with pytest.raises(UsageError, match="calibration needs 20 real clips"):
        calibrate(Fit(1.0, 1.0, 1.0), real, np.full(5, 0.9), Rule(), "a")


@pytest.mark.parametrize("counts", [(0, 3), (3, 0)])
def test_a_temperature_takes_both_classes(counts):
    with pytest.raises(UsageError, match="needs real clips and fakes"):
        clip_temperature(np.full(counts[0], 0.1), np.full(counts[1], 0.9))


@pytest.mark.parametrize("rule", [{"real_passes": 1.2}, {"fake_caught": 0.1}])
def test_a_rule_is_a_share(rule):
    with pytest.raises(UsageError, match="share of clips"):
        Rule(**rule)
