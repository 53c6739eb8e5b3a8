"""How frames are numbered and timed, whatever a source's clock does."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detector.types import SourceCounts
from pipelines.sources._base import Timeline

BGR = np.zeros((2, 2, 3), np.uint8)
PERIOD_NS = 40_000_000


def place(stamps, captured=None):
    timeline = Timeline(SourceCounts(), fps=25)
    captured = captured or range(1, len(stamps) + 1)
    return [timeline.frame(BGR, stamp, at).pts_ns for stamp, at in zip(stamps, captured, strict=True)]


def test_the_first_frame_is_at_zero_and_the_others_keep_their_distance():
    assert place([500, 507, 1_000_000]) == [0, 7, 999_500]


def test_a_time_that_does_not_increase_becomes_the_last_plus_a_microsecond():
    assert place([0, 50_000_000, 50_000_000, 10_000_000, 90_000_000]) == [
        0,
        50_000_000,
        50_001_000,
        50_002_000,
        90_000_000,
    ]


def test_a_clock_that_starts_again_goes_on_one_period_later():
    hour = 3_600_000_000_000
    assert place([hour, hour + 7, 0, 5]) == [0, 7, 7 + PERIOD_NS, 12 + PERIOD_NS]


def test_frames_without_a_time_are_one_period_apart():
    assert place([None, None, 1000, 1003]) == [0, PERIOD_NS, 2 * PERIOD_NS, 2 * PERIOD_NS + 3]


def test_after_a_reconnect_the_time_that_passed_is_the_distance():
    timeline = Timeline(SourceCounts())
    timeline.frame(BGR, 700, captured_ns=1_000)
    timeline.resume()
    assert timeline.frame(BGR, 3, captured_ns=9_000_000).pts_ns == 8_999_000
    assert timeline.frame(BGR, 10, captured_ns=9_000_001).pts_ns == 8_999_007


def test_broken_frames_take_an_index():
    counts = SourceCounts()
    timeline = Timeline(counts)
    first = timeline.frame(BGR, 0)
    counts.broken += 2
    assert (first.index, timeline.frame(BGR, 1).index) == (0, 3)


@given(st.lists(st.one_of(st.none(), st.integers(-(10**13), 10**13)), min_size=1), st.data())
def test_times_increase_from_zero_whatever_the_clock_and_reconnects_do(stamps, data):
    timeline = Timeline(SourceCounts())
    times = []
    for i, stamp in enumerate(stamps):
        if data.draw(st.booleans()):
            timeline.resume()
        times.append(timeline.frame(BGR, stamp, captured_ns=i).pts_ns)
    assert times[0] == 0
    assert all(a < b for a, b in pairwise(times))
