import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from detector.training.metrics import Estimate, measure, proportion, reliability, roc

NAMES = ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "ece")


@st.composite
def labelled(draw):
    """Scores on a coarse grid, so that most are tied, with both classes among them."""
    fake = draw(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda said: 0 < sum(said) < len(said)))
    levels = draw(st.integers(1, 12))
    steps = draw(st.lists(st.integers(0, levels), min_size=len(fake), max_size=len(fake)))
    return np.array(steps) / levels, np.array(fake)


def some(n=200, share=0.4, gap=0.15, seed=0):
    """Overlapping scores of ``n`` samples."""
    random = np.random.default_rng(seed)
    fake = random.random(n) < share
    return (random.random(n) * 0.8 + gap * fake).clip(0, 1), fake


def values(scores, fake, **options):
    figures = measure(scores, fake, draws=1, **options)
    return {name: getattr(figures, name).value for name in NAMES}


# ------------------------------------------------------------------------------------------------------------ values


@given(labelled())
def test_auc_and_average_precision_are_those_of_scikit_learn_with_ties_too(sample):
    scores, fake = sample
    figures = values(scores, fake)
    assert figures["auc"] == pytest.approx(roc_auc_score(fake, scores))
    assert figures["average_precision"] == pytest.approx(average_precision_score(fake, scores))


@given(labelled())
def test_auc_is_the_chance_that_a_fake_scores_above_a_real_one(sample):
    scores, fake = sample
    above = (scores[fake][:, None] > scores[~fake]).mean() + 0.5 * (scores[fake][:, None] == scores[~fake]).mean()
    assert values(scores, fake)["auc"] == pytest.approx(above)


@given(labelled())
def test_tpr_at_a_rate_is_the_best_point_of_the_curve_that_keeps_to_it(sample):
    scores, fake = sample
    fpr, tpr, _ = roc_curve(fake, scores, drop_intermediate=False)
    figures = values(scores, fake)
    assert figures["tpr_at_1_fpr"] == pytest.approx(tpr[fpr <= 0.01].max())
    assert figures["tpr_at_5_fpr"] == pytest.approx(tpr[fpr <= 0.05].max())


def test_a_rate_that_is_met_exactly_is_met():
    real = np.linspace(0.0, 0.6, 300)
    allowed = np.sort(real)[-4]  # above it are 3 of 300, which is 1 %
    scores = np.append(real, [allowed + 1e-6, 0.1])
    assert values(scores, np.arange(302) >= 300)["tpr_at_1_fpr"] == 0.5


@given(labelled())
def test_the_equal_error_rate_is_where_the_curve_crosses_the_diagonal(sample):
    scores, fake = sample
    fpr, tpr, _ = roc_curve(fake, scores, drop_intermediate=False)
    # Both rates only grow along the curve, so it is a function of their sum, which is 1 where misses equal alarms.
    assert values(scores, fake)["eer"] == pytest.approx(np.interp(1.0, fpr + tpr, fpr), abs=1e-12)


@pytest.mark.parametrize(
    ("fakes", "reals", "eer"),
    [
        # Between thresholds 0.7 and 0.4 all fakes are caught, and 1 of 4 reals is flagged throughout.
        ([0.9, 0.8, 0.4], [0.7, 0.3, 0.2, 0.1], 1 / 4),
        # At 0.6: 1 of 2 fakes missed, 1 of 2 reals flagged.
        ([0.9, 0.3], [0.6, 0.1], 1 / 2),
        # From (0, 1/2) to (1/3, 1), one step for two tied samples: x = 1 - (1/2 + 3x/2) at x = 1/5.
        ([0.9, 0.5], [0.5, 0.2, 0.1], 1 / 5),
        ([0.9, 0.8], [0.2, 0.1], 0),
        ([0.2, 0.1], [0.9, 0.8], 1),
        ([0.5, 0.5], [0.5, 0.5], 1 / 2),
    ],
)
def test_equal_error_rates_worked_by_hand(fakes, reals, eer):
    scores = np.array(fakes + reals)
    assert values(scores, np.arange(len(scores)) < len(fakes))["eer"] == pytest.approx(eer)


def ece_bin_by_bin(scores, fake):
    """Equation 3 of Guo et al. 2017 as it stands there."""
    error = 0.0
    for m in range(15):
        inside = (scores > m / 15) & (scores <= (m + 1) / 15) if m else scores <= 1 / 15
        if inside.any():
            error += inside.mean() * abs(fake[inside].mean() - scores[inside].mean())
    return error


@given(labelled())
def test_the_calibration_error_is_equation_3_of_guo_et_al(sample):
    assert values(*sample)["ece"] == pytest.approx(ece_bin_by_bin(*sample))


def test_a_calibration_error_worked_by_hand():
    scores = np.repeat([0.8, 0.3], 10)
    fake = np.arange(10) < np.array([6, 3])[:, None]  # 6 of 10 where 8 were promised, 3 of 10 as promised
    assert values(scores, fake.ravel())["ece"] == pytest.approx(0.5 * 0.2)


# --------------------------------------------------------------------------------------------------------- intervals


def brute_force(scores, fake, groups, draws=800):
    """95 % intervals of AUC and AP by drawing whole groups with replacement, one draw after the other."""
    random = np.random.default_rng(1)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    of_fakes = [rows for rows in members if fake[rows[0]]]
    of_reals = [rows for rows in members if not fake[rows[0]]]
    drawn = []
    for _ in range(draws):
        picked = [side[i] for side in (of_fakes, of_reals) for i in random.integers(0, len(side), len(side))]
        rows = np.concatenate(picked)
        drawn.append((roc_auc_score(fake[rows], scores[rows]), average_precision_score(fake[rows], scores[rows])))
    return np.percentile(drawn, [2.5, 97.5], axis=0).T


@pytest.mark.parametrize("size", [1, 8])
def test_intervals_are_those_of_a_bootstrap_draw_by_draw(size):
    scores, fake = some(n=64)
    # Frames of one clip are alike: eight copies of it, so that drawing them apart would halve the interval and more.
    scores, fake, groups = (np.repeat(values, size) for values in (scores, fake, np.arange(64) * 7))
    figures = measure(scores, fake, groups)
    expected = brute_force(scores, fake, groups)
    for name, (low, high) in zip(("auc", "average_precision"), expected, strict=True):
        found = getattr(figures, name)
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_without_groups_every_sample_is_its_own():
    scores, fake = some(n=50)
    assert measure(scores, fake) == measure(scores, fake, np.arange(50))


def test_the_order_of_the_samples_does_not_matter_to_the_values():
    scores, fake = some()
    assert values(scores[::-1], fake[::-1]) == pytest.approx(values(scores, fake))


@given(labelled())
def test_an_interval_is_in_order_and_in_range(sample):
    figures = measure(*sample, draws=50)
    for name in NAMES:
        found = getattr(figures, name)
        assert -1e-12 <= found.low <= found.high <= 1 + 1e-12


def test_an_interval_of_auc_covers_the_truth_about_95_times_in_100():
    # 0.8 u + 0.15 against 0.8 v: a fake loses where v - u > 0.15 / 0.8, a triangle.
    truth = 1 - (1 - 0.15 / 0.8) ** 2 / 2
    covered = sum(
        found.low <= truth <= found.high
        for found in (measure(*some(n=120, share=0.5, seed=seed), draws=400).auc for seed in range(300))
    )
    assert 0.91 <= covered / 300 <= 0.985


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    scores, fake = some()
    assert measure(scores, fake, seed=3) == measure(scores, fake, seed=3)
    assert measure(scores, fake, seed=3).auc.low != measure(scores, fake, seed=4).auc.low


def test_a_perfect_separation_has_no_width():
    figures = measure(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True]))
    assert figures.auc == Estimate(1.0, 1.0, 1.0)


def test_no_draw_lacks_a_class_even_with_one_sample_of_it():
    scores, fake = some(n=30)
    fake[:] = False
    fake[0] = True
    assert np.isfinite(measure(scores, fake).auc.low)


def test_many_scores_take_little_time_and_memory():
    scores, fake = some(n=1000)
    tracemalloc.start()
    began = time.process_time()
    measure(scores, fake)
    spent_s = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent_s < 5  # a quarter of a second on an idle core
    assert peak < 64e6


# ------------------------------------------------------------------------------------------------- points for plots


@given(labelled())
def test_the_curve_is_that_of_scikit_learn(sample):
    scores, fake = sample
    fpr, tpr, threshold = roc_curve(fake, scores, drop_intermediate=False)
    curve = roc(scores, fake, draws=2)
    assert curve.false_positive_rate == pytest.approx(fpr)
    assert curve.true_positive_rate == pytest.approx(tpr)
    assert curve.threshold == pytest.approx(threshold)


def test_the_band_holds_the_intervals_of_the_rates_on_it():
    scores, fake = some()
    curve, figures = roc(scores, fake), measure(scores, fake)
    assert curve.grid[[1, 5]] == pytest.approx([0.01, 0.05])
    assert (curve.low[1], curve.high[1]) == (figures.tpr_at_1_fpr.low, figures.tpr_at_1_fpr.high)
    assert (curve.low[5], curve.high[5]) == (figures.tpr_at_5_fpr.low, figures.tpr_at_5_fpr.high)


def test_the_bins_add_up_to_the_calibration_error():
    scores, fake = some()
    bins = reliability(scores, fake)
    assert bins.count.sum() == len(scores)
    assert (bins.count > 0).all()
    error = (bins.count / len(scores) * abs(bins.fraction_fake - bins.mean_p)).sum()
    assert error == pytest.approx(values(scores, fake)["ece"])


# ------------------------------------------------------------------------------------------------------- proportions


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_proportion_has_the_interval_of_wilson(hits, total, low, high):
    found = proportion(hits, total)
    assert found.value == hits / total
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_a_proportion_of_all_reaches_one():
    assert proportion(7, 7).high == 1.0
    assert proportion(0, 7).low == 0.0


@pytest.mark.parametrize(("hits", "total"), [(1, 0), (3, 2), (-1, 2)])
def test_a_proportion_of_too_few_is_refused(hits, total):
    with pytest.raises(ValueError, match=f"got {hits} of {total}"):
        proportion(hits, total)


# ----------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("compute", [measure, roc, reliability])
@pytest.mark.parametrize(
    ("scores", "fake", "complaint"),
    [
        ([0.1, np.nan, np.inf], [True, False, True], "2 of 3 are not"),
        ([0.1, 1.5, 0.2], [True, False, True], "0..1; 1 of 3 are not, such as 1.5"),
        ([0.1, 0.2], [False, False], "no fake sample among 2"),
        ([0.1, 0.2], [True, True], "no real sample among 2"),
        ([], [], "no fake sample among 0"),
        ([0.1, 0.2], [True], "got float64 (2,) and bool (1,)"),
        ([0.1, 0.2], [1, 0], "got float64 (2,) and int64 (2,)"),
    ],
)
def test_scores_that_make_no_sense_are_refused(compute, scores, fake, complaint):
    fake = np.array(fake, bool if not fake else None)
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(").replace(")", r"\)")):
        compute(np.array(scores, np.float64), fake)


def test_a_group_of_both_classes_is_refused_by_name():
    with pytest.raises(ValueError, match="group 7 has both"):
        measure(np.array([0.1, 0.2, 0.3]), np.array([True, False, True]), np.array([7, 7, 8]))


def test_groups_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="must have the shape of scores"):
        measure(np.array([0.1, 0.2]), np.array([True, False]), np.array([1]))


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="draws is at least 1, got 0"):
        measure(np.array([0.1, 0.2]), np.array([True, False]), draws=0)
