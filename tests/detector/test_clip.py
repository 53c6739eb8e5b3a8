import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.clip import MIN_NS, ClipJudge
from detector.types import NS_PER_S, FrameResult, Label, Reason, Timing, Verdict
from detector.verdict import NO_FACE, frame_verdict
from tests.doubles import THRESHOLDS, make_frame, make_verdict

PICTURE = np.zeros((2, 2, 3), np.uint8)
WORDS = {Label.REAL: Reason.BELOW_REAL, Label.FAKE: Reason.ABOVE_FAKE, Label.UNSURE: Reason.BETWEEN}
scores = st.floats(0, 1)


def result(index, verdict, fps=30.0):
    frame = make_frame(index, fps=fps, bgr=PICTURE)
    return FrameResult(frame, verdict, Timing(1, 1, 1, 3), 0, True, "double")


def judged(frames, fps=30.0):
    """The word on a clip whose i-th frame holds ``frames[i]``, a list of faces."""
    judge = ClipJudge(THRESHOLDS)
    for i, faces in enumerate(frames):
        judge.add(result(i, frame_verdict(faces), fps))
    return judge.verdict()


def face(p, track=1, flaw=None):
    return make_verdict(p, track=track, flaw=flaw)


def one_face(heard, fps=30.0):
    return judged([[face(p)] for p in heard], fps)


def by_numpy(heard):
    """The probability of the mean log-odds, those of 0 and 1 cut at 1e-4 and 1 - 1e-4."""
    p = np.clip(np.array(heard), 1e-4, 1 - 1e-4)
    return 1 / (1 + np.exp(-np.log(p / (1 - p)).mean()))


# --------------------------------------------------------------------------------------------------------- one face


@given(st.lists(scores, min_size=1, max_size=60))
def test_the_score_of_a_clip_is_the_probability_of_the_mean_log_odds(heard):
    assert one_face(heard).p_fake == pytest.approx(by_numpy(heard), abs=1e-9)


@settings(max_examples=50)
@given(st.lists(scores, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter(heard, random):
    shuffled = list(heard)
    random.shuffle(shuffled)
    first, second = one_face(heard), one_face(shuffled)
    assert (first.label, first.reason) == (second.label, second.reason)
    assert first.p_fake == pytest.approx(second.p_fake, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "label", "reason"),
    [
        (0.0, Label.REAL, Reason.BELOW_REAL),
        (0.29, Label.REAL, Reason.BELOW_REAL),
        (0.31, Label.UNSURE, Reason.BETWEEN),
        (0.69, Label.UNSURE, Reason.BETWEEN),
        (0.71, Label.FAKE, Reason.ABOVE_FAKE),
        (1.0, Label.FAKE, Reason.ABOVE_FAKE),
    ],
)
def test_a_steady_score_is_worded_by_the_thresholds(p, label, reason):
    said = one_face([p] * 30)
    assert (said.label, said.reason) == (label, reason)


@given(st.lists(scores, min_size=12, max_size=60))
def test_scores_disagree_when_their_quartiles_are_more_than_half_apart(heard):
    low, high = np.quantile(heard, [0.25, 0.75], method="inverted_cdf")
    reason = one_face(heard).reason
    if high - low > 0.5 + 1 / 50:
        assert reason is Reason.DISAGREE
    if high - low < 0.5 - 1 / 50:
        assert reason is not Reason.DISAGREE


@pytest.mark.parametrize(("steady", "label"), [(0.05, Label.REAL), (0.5, Label.UNSURE), (0.95, Label.FAKE)])
@pytest.mark.parametrize("outlier", [0.0, 1.0])
def test_in_a_second_of_a_steady_face_one_frame_changes_nothing(steady, label, outlier):
    assert one_face([steady] * 29 + [outlier]).label is label


@pytest.mark.parametrize("frames", [5, 6, 10])
def test_one_frame_never_makes_a_short_clip_of_a_real_face_fake(frames):
    assert one_face([0.25] * (frames - 1) + [1.0], fps=10).label is not Label.FAKE


@pytest.mark.parametrize("frames", [5, 6, 10])
def test_one_frame_never_makes_a_short_clip_of_a_fake_face_real(frames):
    assert one_face([0.75] * (frames - 1) + [0.0], fps=10).label is not Label.REAL


# ------------------------------------------------------------------------------------------------ too little to say


def test_a_clip_of_nothing_has_no_face():
    said = ClipJudge(THRESHOLDS).verdict()
    assert (said.label, said.reason, said.p_fake, said.faces, said.segments) == (
        Label.NO_FACE,
        Reason.NO_FACE,
        None,
        (),
        (),
    )


def test_a_clip_without_a_face_has_no_face():
    assert judged([[]] * 30).label is Label.NO_FACE


def test_one_image_is_unsure_of_too_few_frames_and_still_has_its_score():
    said = one_face([0.99])
    assert (said.label, said.reason) == (Label.UNSURE, Reason.TOO_FEW_FRAMES)
    assert said.p_fake == pytest.approx(0.99)


@pytest.mark.parametrize(("frames", "fps"), [(4, 1), (4, 30), (9, 30), (17, 60)])
def test_few_scores_or_little_time_are_too_few_frames(frames, fps):
    assert one_face([0.99] * frames, fps).reason is Reason.TOO_FEW_FRAMES


@pytest.mark.parametrize(("frames", "fps"), [(5, 1), (5, 10), (10, 30), (19, 60)])
def test_five_scores_over_three_tenths_of_a_second_are_enough(frames, fps):
    assert one_face([0.99] * frames, fps).label is Label.FAKE


@pytest.mark.parametrize("first_ms", [0, 100, 300, 400, 1100, 2200])
def test_a_face_seen_for_exactly_the_least_time_is_judged_whenever_it_comes(first_ms):
    judge = ClipJudge(THRESHOLDS)
    for i in range(7):
        pts_ns = (first_ms + 50 * i) * 1_000_000
        frame = make_frame(i, bgr=PICTURE, pts_ns=pts_ns)
        judge.add(FrameResult(frame, frame_verdict([face(0.99)]), Timing(1, 1, 1, 3), 0, True, "double"))
    assert judge.verdict().label is Label.FAKE


def test_a_face_without_any_score_has_no_number():
    said = judged([[make_verdict(None, reason=Reason.TOO_FEW_FRAMES)]] * 10)
    assert (said.label, said.reason, said.p_fake) == (Label.UNSURE, Reason.TOO_FEW_FRAMES, None)


@pytest.mark.parametrize("why", [Reason.TOO_SMALL, Reason.BLURRED, Reason.DARK, Reason.TURNED_AWAY])
def test_a_face_that_only_has_flawed_frames_is_unsure_for_the_commonest_flaw(why):
    other = Reason.DARK if why is not Reason.DARK else Reason.BLURRED
    said = judged([[face(0.9, flaw=why)]] * 20 + [[face(0.9, flaw=other)]] * 5)
    assert (said.label, said.reason) == (Label.UNSURE, why)
    assert said.p_fake == pytest.approx(0.9)


def test_flawed_frames_do_not_count_when_there_are_enough_others():
    said = judged([[face(0.05)]] * 10 + [[face(0.99, flaw=Reason.BLURRED)]] * 50)
    assert said.label is Label.REAL
    assert said.p_fake == pytest.approx(0.05)


def test_frames_without_a_score_count_as_seen_only():
    said = judged([[face(0.9)], [make_verdict(None)]] * 10)
    assert said.faces[0].frames == 20
    assert said.p_fake == pytest.approx(0.9)


# ------------------------------------------------------------------------------------------------------ several faces


@given(st.permutations([(1, 0.1), (2, 0.5), (3, 0.9), (4, 0.2)]))
def test_the_most_suspicious_face_is_the_word_on_the_clip(people):
    said = judged([[face(p, track) for track, p in people]] * 30)
    assert (said.label, said.reason) == (Label.FAKE, Reason.ABOVE_FAKE)
    assert said.p_fake == pytest.approx(0.9)
    assert {summary.track: summary.label for summary in said.faces} == {
        1: Label.REAL,
        2: Label.UNSURE,
        3: Label.FAKE,
        4: Label.REAL,
    }


@pytest.mark.parametrize("phantom_frames", [1, 2, 4, 8])
def test_a_phantom_of_a_few_frames_does_not_decide(phantom_frames):
    frames = [[face(0.1)] for _ in range(30)]
    for i in range(phantom_frames):
        frames[10 + i].append(face(1.0, track=2))
    said = judged(frames)
    assert said.label is Label.REAL
    assert said.faces[1].reason is Reason.TOO_FEW_FRAMES


def test_a_blurred_passer_by_does_not_decide():
    said = judged([[face(0.1), face(1.0, track=2, flaw=Reason.BLURRED)]] * 30)
    assert said.label is Label.REAL


def test_a_consistent_fake_is_not_hidden_by_a_face_whose_scores_disagree():
    torn = [0.9999, 0.9999, 0.3]
    frames = [[face(0.8), face(torn[i % 3], track=2)] for i in range(60)]
    said = judged(frames)
    assert [summary.reason for summary in said.faces] == [Reason.ABOVE_FAKE, Reason.DISAGREE]
    assert said.label is Label.FAKE


def test_a_face_is_summed_up_with_the_times_it_was_seen():
    frames = [[face(0.1)] for _ in range(30)]
    for i in range(12, 25):
        frames[i].append(face(0.2, track=7))
    first, second = judged(frames).faces
    assert (first.track, first.frames, first.first_s) == (1, 30, 0)
    assert (second.track, second.frames) == (7, 13)
    assert second.first_s == pytest.approx(12 / 30)
    assert second.last_s == pytest.approx(24 / 30)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.none() | scores, st.sampled_from([None, Reason.DARK])), max_size=3),
        max_size=40,
    )
)
def test_a_clip_has_no_score_exactly_when_no_face_was_scored(frames):
    made = [[make_verdict(p, track=track, flaw=flaw) for track, p, flaw in faces] for faces in frames]
    said = judged(made)
    assert (said.p_fake is None) == all(p is None for faces in frames for _, p, _ in faces)
    assert (said.label is Label.NO_FACE) == (not any(frames))
    assert said.p_fake is None or 0 <= said.p_fake <= 1


def test_the_word_may_be_asked_for_at_any_moment_and_changes_nothing():
    asked, not_asked = ClipJudge(THRESHOLDS), ClipJudge(THRESHOLDS)
    for i in range(30):
        said = result(i, frame_verdict([make_verdict(0.9, label=Label.FAKE, reason=Reason.ABOVE_FAKE)]))
        asked.add(said)
        not_asked.add(said)
        asked.verdict()
    assert asked.verdict() == not_asked.verdict()


# ---------------------------------------------------------------------------------------------------------- segments


def segments(labels, fps=30.0, p=0.9):
    """The segments of a clip whose frames are called so, as (start, end) in frames."""
    judge = ClipJudge(THRESHOLDS)
    for i, label in enumerate(labels):
        verdict = NO_FACE
        if label is not Label.NO_FACE:
            faces = (make_verdict(p, label=label, reason=WORDS[label]),)
            verdict = Verdict(label, WORDS[label], p, faces)
        judge.add(result(i, verdict, fps))
    return judge.verdict().segments


def spans(labels, fps=30.0):
    return [(round(s.start_s * fps), round(s.end_s * fps)) for s in segments(labels, fps)]


R, F, U, N = Label.REAL, Label.FAKE, Label.UNSURE, Label.NO_FACE


def test_a_stretch_of_fake_frames_is_a_segment():
    assert spans([R] * 10 + [F] * 20 + [R] * 20) == [(10, 29)]
    assert spans([F] * 30) == [(0, 29)]


def test_a_segment_has_the_mean_score_of_its_frames():
    assert segments([F] * 30, p=0.8)[0].p_fake == pytest.approx(0.8)


def test_a_real_clip_has_no_segments_nor_has_an_unsure_one():
    assert spans([R] * 60) == spans([U] * 60) == spans([N] * 60) == []


def test_moments_less_than_half_a_second_apart_are_one_segment():
    assert spans([F] * 10 + [U] * 14 + [F] * 10 + [R] * 30) == [(0, 33)]
    assert spans([F] * 10 + [U] * 16 + [F] * 10 + [R] * 30) == [(0, 9), (26, 35)]


def test_a_flash_is_no_segment():
    assert spans([R] * 10 + [F] * 8 + [R] * 40) == []
    assert spans([R] * 10 + [F] * 8 + [R] * 40 + [F] * 20) == [(58, 77)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([R, F, U, N]), st.integers(1, 25)), max_size=12))
def test_segments_are_in_order_apart_long_enough_and_begin_and_end_with_a_fake_frame(runs):
    labels = [label for label, count in runs for _ in range(count)]
    found = spans(labels)
    for start, end in found:
        assert labels[start] is labels[end] is F
        assert end - start >= (MIN_NS / 1e9) * 30 - 1e-6
    for (_, end), (start, _) in itertools.pairwise(found):
        assert start - end > 15
    inside = {i for start, end in found for i in range(start, end + 1)}
    left_out = [i for i, label in enumerate(labels) if label is F and i not in inside]
    # What is left out is a flash: no stretch of frames left out, joined over gaps of half a second, lasts 0.3 s.
    for first in left_out:
        reach = first
        for i in left_out:
            if first < i <= reach + 15:
                reach = i
        assert reach - first < (MIN_NS / 1e9) * 30


# ------------------------------------------------------------------------------------------------------------ memory


def test_memory_does_not_grow_with_the_length_of_a_clip():
    judge = ClipJudge(THRESHOLDS)
    rng = np.random.default_rng(0)
    results = [result(i, frame_verdict([face(float(rng.random()))])) for i in range(4000)]
    for said in results[:1000]:
        judge.add(said)
    tracemalloc.start()
    try:
        for said in results[1000:]:
            judge.add(said)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 20_000


def test_a_face_costs_two_kilobytes_however_long_it_was_seen():
    judge = ClipJudge(THRESHOLDS)
    results = [result(i, frame_verdict([face(0.5, track=i + 1)])) for i in range(2000)]
    tracemalloc.start()
    try:
        for said in results:
            judge.add(said)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown / len(results) < 2048


def test_log_odds_stay_finite_for_scores_of_0_and_1():
    for p in (0.0, 1.0):
        assert math.isfinite(one_face([p] * 1000).p_fake)


def test_times_far_from_zero_are_told_exactly():
    judge = ClipJudge(THRESHOLDS)
    day_ns = 86_400 * NS_PER_S
    for i in range(20):
        frame = make_frame(i, bgr=PICTURE, pts_ns=day_ns + i * 40_000_000)
        judge.add(FrameResult(frame, frame_verdict([face(0.5)]), Timing(1, 1, 1, 3), 0, True, "double"))
    (summary,) = judge.verdict().faces
    assert summary.last_s - summary.first_s == pytest.approx(0.76)
