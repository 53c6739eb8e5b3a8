import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.quantiles import HIGHEST_MS, LOWEST_MS, Quantiles

in_range = st.lists(st.floats(LOWEST_MS, HIGHEST_MS), min_size=1, max_size=200)
anything = st.lists(st.floats(0, 1e9), max_size=50)


def filled(values):
    quantiles = Quantiles()
    for value in values:
        quantiles.add(value)
    return quantiles


def test_before_the_first_value_there_is_no_quantile():
    assert Quantiles().quantile(0.5) is None
    assert Quantiles().max is None
    assert Quantiles().count == 0


@given(in_range, st.floats(0, 1))
def test_every_quantile_is_within_one_percent_of_numpy(values, q):
    assert filled(values).quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.01)


def test_on_many_latencies_as_they_come_too():
    rng = np.random.default_rng(1)
    values = rng.lognormal(3.0, 0.7, 100_000)
    quantiles = filled(values)
    for q in (0.0, 0.01, 0.5, 0.95, 0.99, 0.999, 1.0):
        assert quantiles.quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.01)


@given(anything, st.floats(0, 1))
def test_outside_the_range_a_quantile_still_lies_between_the_extremes(values, q):
    quantiles = filled(values)
    if values:
        assert min(values) <= quantiles.quantile(q) <= max(values) * (1 + 1e-12)
        assert quantiles.max == max(values)
    assert quantiles.count == len(values)


@given(anything, anything, st.floats(0, 1))
def test_merging_is_the_same_as_adding_everything_to_one(left, right, q):
    merged = filled(left)
    merged.merge(filled(right))
    both = filled(left + right)
    assert merged.count == both.count
    assert merged.max == both.max
    assert merged.quantile(q) == both.quantile(q)


def test_a_stage_that_did_not_run_took_nothing():
    quantiles = filled([0.0] * 10)
    assert quantiles.quantile(0.5) == 0.0
    assert quantiles.max == 0.0


def test_one_value_is_told_exactly():
    assert filled([12.345]).quantile(0.99) == 12.345


def test_memory_does_not_grow():
    assert sys.getsizeof(filled(range(10_000))._bins) < 20_000


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_latency_is_refused(value):
    with pytest.raises(ValueError, match="latency"):
        Quantiles().add(value)


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_what_is_no_quantile_is_refused(q):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Quantiles().quantile(q)
