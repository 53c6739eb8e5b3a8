from hypothesis import assume, given
from hypothesis import strategies as st

from detector.card import Thresholds
from detector.scale import onto_scale
from detector.verdict import by_threshold

shares = st.floats(0, 1)
thresholds = st.tuples(shares, shares).map(lambda pair: Thresholds(min(pair), max(pair)))
inner = st.tuples(st.floats(0.001, 0.999), st.floats(0.001, 0.999)).map(lambda pair: Thresholds(min(pair), max(pair)))


@given(shares, thresholds)
def test_a_model_on_its_own_scale_says_what_it_said(p, own):
    assert onto_scale(p, own, own) == p


@given(shares, thresholds, thresholds)
def test_a_score_stays_a_probability(p, own, scale):
    assert 0 <= onto_scale(p, own, scale) <= 1


@given(shares, shares, thresholds, thresholds)
def test_what_is_more_suspicious_stays_so(p, q, own, scale):
    low, high = sorted((p, q))
    assert onto_scale(low, own, scale) <= onto_scale(high, own, scale) + 1e-12


@given(st.floats(0.0005, 0.9995), inner, inner)
def test_the_word_for_a_score_does_not_change(p, own, scale):
    assume(min(abs(p - own.real_below), abs(p - own.fake_above)) > 1e-6)
    assume(own.fake_above - own.real_below > 1e-3 and scale.fake_above - scale.real_below > 1e-3)
    assert by_threshold(onto_scale(p, own, scale), scale) == by_threshold(p, own)


@given(st.floats(0.0005, 0.9995), inner, inner)
def test_there_and_back_is_where_it_was(p, own, scale):
    assume(own.fake_above - own.real_below > 1e-3 and scale.fake_above - scale.real_below > 1e-3)
    assert abs(onto_scale(onto_scale(p, own, scale), scale, own) - p) < 1e-4


def test_a_threshold_that_nothing_passes_is_passed_by_nothing():
    never_fake, scale = Thresholds(0.2, 1.0), Thresholds(0.2, 0.6)
    assert by_threshold(onto_scale(1.0, never_fake, scale), scale)[0] != "FAKE"
