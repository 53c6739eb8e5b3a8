import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.budget import FPS_30, FPS_60, FixedPace, FrameBudget
from detector.types import Label, Pace, UsageError
from tests.pipelines.results import make_result


def test_33_and_16_are_the_periods_of_30_and_60_frames_a_second():
    assert FrameBudget.parse("33") == FPS_30
    assert FrameBudget.parse("16") == FPS_60
    assert FPS_30.period_ms == pytest.approx(1000 / 30)
    assert FPS_60.period_ms == pytest.approx(1000 / 60)
    assert FPS_30.quantile == FPS_60.quantile == 0.95


@given(st.floats(0.001, 1e6))
def test_any_other_number_is_a_time_in_ms(ms):
    assert FrameBudget.parse(repr(ms)).period_ms == {33.0: FPS_30.period_ms, 16.0: FPS_60.period_ms}.get(ms, ms)


@pytest.mark.parametrize("text", ["", "fast", "33ms", "0", "-5", "nan", "inf", "-inf", "1e999"])
def test_what_is_no_time_above_0_is_refused_with_what_came(text):
    with pytest.raises(UsageError, match="budget"):
        FrameBudget.parse(text)


@pytest.mark.parametrize(("period_ms", "quantile"), [(0, 0.95), (10, 0), (10, 1.01), (10, float("nan"))])
def test_a_budget_that_makes_no_sense_cannot_be_made(period_ms, quantile):
    with pytest.raises(UsageError, match=r"above 0 ms, .* in 0\.\.1"):
        FrameBudget(period_ms, quantile)


def test_all_frames_may_have_to_be_in_time():
    assert FrameBudget(10, 1.0).quantile == 1.0


def test_a_fixed_pace_is_the_same_whatever_it_sees():
    governor = FixedPace(3)
    paces = []
    for i in range(5):
        paces.append(governor.pace())
        governor.observe(make_result(Label.REAL, index=i))
    assert paces == [Pace(3, 3)] * 5
    assert FixedPace().pace() == Pace(1, 1)


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_below_one_is_refused(stride):
    with pytest.raises(UsageError, match="--stride is at least 1"):
        FixedPace(stride)
