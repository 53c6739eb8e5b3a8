"""The governor, alone and before a plant: a detector that has nothing but costs."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.budget import FrameBudget
from compression.governor import LAST_STRIDES, PATIENCE, STRIDES, WINDOW, LoadGovernor, Setting
from detector.types import Pace, Timing, UsageError
from tests.pipelines.results import make_result

BUDGET = FrameBudget(20.0)
FRAME = make_result()
FINEST = Setting(0, 0)
SETTLED = 2_000
"""Frames after which a governor under a steady load has found its place."""


class Plant:
    """Frames that cost ``find_ms`` where faces are looked for and ``scores_ms[rung]`` where they are scored.

    ``noise``: a frame's time is off by up to this share of it, evenly.
    """

    def __init__(self, find_ms, scores_ms, *, noise=0.0, seed=0, budget=BUDGET):
        self.find_ms, self.scores_ms, self.noise = find_ms, scores_ms, noise
        self.governor = LoadGovernor(budget, len(scores_ms))
        self._random = np.random.default_rng(seed)
        self._frames = 0

    def run(self, frames, load=1.0):
        """Judges so many frames that take ``load`` times as long; returns their settings and times."""
        seen = [self._frame(load) for _ in range(frames)]
        return [setting for setting, _ in seen], np.array([ms for _, ms in seen])

    def _frame(self, load):
        setting, pace = self.governor.setting, self.governor.pace()
        load *= 1 + self.noise * self._random.uniform(-1, 1)
        find_ms = load * self.find_ms * (self._frames % pace.find_every == 0)
        score_ms = load * self.scores_ms[pace.rung] * (self._frames % pace.score_every == pace.score_phase)
        self._frames += 1
        total_ms = find_ms + score_ms + 0.2
        self.governor.observe(replace(FRAME, timing=Timing(find_ms, 0.0, score_ms, total_ms)))
        return setting, total_ms


def quantile_ms(setting, find_ms, scores_ms):
    """What a setting takes at p95, by playing it through."""
    pace = setting.pace()
    frames = np.arange(24 * 60)
    return np.quantile(
        find_ms * (frames % pace.find_every == 0)
        + scores_ms[pace.rung] * (frames % pace.score_every == pace.score_phase)
        + 0.2,
        0.95,
        method="higher",
    )


def order(setting):
    """Finer settings are smaller."""
    return setting.rung, setting.stride


def every_setting(rungs):
    last = [Setting(rungs - 1, len(STRIDES) + i) for i in range(len(LAST_STRIDES))]
    return [Setting(rung, stride) for rung in range(rungs) for stride in range(len(STRIDES))] + last


def most(seen):
    """Where it spent most of the frames."""
    return Counter(seen).most_common(1)[0][0]


def moves(seen):
    return sum(a != b for a, b in pairwise(seen))


# Costs go down the ladder, as those of cheaper models do.
ladders = st.lists(st.floats(1, 60), min_size=1, max_size=4).map(lambda costs: sorted(costs, reverse=True))
plants = st.tuples(st.floats(0.5, 25), ladders)


# ------------------------------------------------------------------------------------------------------- the settings


def test_stages_that_both_rest_never_wake_in_the_same_frame_but_in_the_last_setting():
    *others, last = every_setting(3)
    assert last.pace() == Pace(24, 24, 0, 2)
    for setting in others:
        pace = setting.pace()
        if pace.find_every > 1 and pace.score_every > 1:
            frames = range(1000)
            looks = {n for n in frames if n % pace.find_every == 0}
            scores = {n for n in frames if n % pace.score_every == pace.score_phase}
            assert scores
            assert not looks & scores


def test_a_governor_begins_with_the_best_model_and_judges_every_frame():
    assert LoadGovernor(BUDGET, 3).pace() == Pace(1, 1, 0, 0)


def test_it_needs_a_model():
    with pytest.raises(UsageError, match="at least one model, got 0"):
        LoadGovernor(BUDGET, 0)


def test_steps_down_lengthen_looking_then_scoring_then_change_the_model_and_end_at_the_maxima():
    plant = Plant(100, [100, 100])
    settings_seen, _ = plant.run(300)
    paces = list(dict.fromkeys(setting.pace() for setting in settings_seen))
    assert [(p.find_every, p.score_every, p.rung) for p in paces] == [
        *((find, score, 0) for find, score in STRIDES),
        (*STRIDES[-1], 1),
        *((find, score, 1) for find, score in LAST_STRIDES),
    ]
    assert moves(settings_seen) == len(paces) - 1


def test_a_late_frame_or_two_move_nothing():
    governor = LoadGovernor(BUDGET)
    for i in range(10 * WINDOW):
        governor.observe(replace(FRAME, timing=Timing(1, 0, 1, 50.0 if i % WINDOW < 3 else 2.0)))
        assert governor.setting == FINEST


def test_the_fourth_late_frame_of_sixty_does():
    governor = LoadGovernor(BUDGET)
    for i in range(WINDOW):
        assert governor.setting == FINEST
        governor.observe(replace(FRAME, timing=Timing(1, 0, 1, 50.0 if i % 19 == 2 else 2.0)))
    assert governor.setting != FINEST


def test_with_a_quantile_of_one_no_frame_may_be_late():
    governor = LoadGovernor(FrameBudget(20.0, 1.0))
    governor.observe(replace(FRAME, timing=Timing(1, 0, 1, 20.1)))
    assert governor.setting != FINEST


@given(st.lists(st.floats(0, 200), max_size=400), st.integers(1, 4))
def test_it_never_leaves_its_bounds_whatever_comes(times_ms, rungs):
    governor = LoadGovernor(BUDGET, rungs)
    allowed = set(every_setting(rungs))
    for ms in times_ms:
        governor.observe(replace(FRAME, timing=Timing(ms / 2, 0, ms / 2, ms)))
        assert governor.setting in allowed


# ------------------------------------------------------------------------------------------------- under a steady load


@settings(max_examples=20, deadline=None)
@given(plants)
def test_it_settles_in_the_finest_setting_that_keeps_the_budget(plant):
    find_ms, scores_ms = plant
    kept = [
        setting
        for setting in every_setting(len(scores_ms))
        if quantile_ms(setting, find_ms, scores_ms) <= BUDGET.period_ms
    ]
    running = Plant(find_ms, scores_ms)
    running.run(SETTLED)
    seen, times_ms = running.run(SETTLED)
    assert most(seen) == min(kept, key=order)
    assert np.mean(times_ms > BUDGET.period_ms) <= 0.05


@settings(max_examples=20, deadline=None)
@given(plants, st.integers(0, 99))
def test_with_noise_it_keeps_the_budget_whenever_a_setting_does_with_room_for_the_noise(plant, seed):
    find_ms, scores_ms = plant
    noise = 0.15
    worst_ms = [
        quantile_ms(setting, find_ms * (1 + noise), [ms * (1 + noise) for ms in scores_ms])
        for setting in every_setting(len(scores_ms))
    ]
    running = Plant(find_ms, scores_ms, noise=noise, seed=seed)
    running.run(SETTLED)
    _, times_ms = running.run(SETTLED)
    if min(worst_ms) <= BUDGET.period_ms:
        assert np.mean(times_ms > BUDGET.period_ms) <= 0.05


@settings(max_examples=20, deadline=None)
@given(plants, st.integers(0, 99), st.sampled_from([0.0, 0.15]))
def test_it_does_not_oscillate(plant, seed, noise):
    running = Plant(*plant, noise=noise, seed=seed)
    running.run(2 * SETTLED)
    seen, _ = running.run(3_000)
    assert moves(seen) <= 12


@settings(max_examples=20, deadline=None)
@given(plants, st.floats(1.0, 4.0))
def test_more_load_never_ends_in_a_finer_setting(plant, load):
    settled = []
    for factor in (1.0, load):
        running = Plant(*plant)
        running.run(SETTLED, factor)
        settled.append(order(most(running.run(SETTLED, factor)[0])))
    assert settled[0] <= settled[1]


# -------------------------------------------------------------------------------------------------- as the load changes


@settings(max_examples=20, deadline=None)
@given(plants, st.floats(1.5, 10), st.integers(200, 3_000))
def test_it_is_back_where_it_was_when_a_load_is_gone(plant, load, frames):
    running = Plant(*plant)
    running.run(SETTLED)
    before = most(running.run(SETTLED)[0])
    running.run(frames, load)
    running.run(6_000)
    assert most(running.run(SETTLED)[0]) == before


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(200, 3_000), st.floats(3, 20))
def test_full_rate_comes_back_with_patience_for_each_step_however_long_the_load_was(rungs, frames, load):
    plant = Plant(3.0, [8.0 - rung for rung in range(rungs)])
    plant.run(200)
    plant.run(frames, load)
    assert plant.governor.setting != FINEST
    steps = len(LAST_STRIDES) + rungs + len(STRIDES)
    plant.run(3 * PATIENCE * steps)
    assert plant.governor.setting == FINEST


def test_a_step_up_that_failed_waits_twice_as_long():
    """Finding and scoring fit into the budget one by one, and not both in a frame."""
    seen, _ = Plant(12.0, [12.0]).run(6_000)
    tries = [i for i, (a, b) in enumerate(pairwise(seen)) if order(b) < order(a)]
    waits = np.diff(tries)
    assert 3 <= len(tries) <= 8
    assert (waits[1:] > 1.5 * waits[:-1]).all()
