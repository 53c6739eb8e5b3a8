import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.types import NS_PER_S, Label, Reason
from detector.verdict import NO_FACE, Judge, by_threshold, frame_verdict, word
from tests.doubles import THRESHOLDS, make_verdict, square

BOX = np.array(square(10, 20), np.float32)
scores = st.floats(0, 1)
FLAWS = [Reason.TOO_SMALL, Reason.BLURRED, Reason.DARK, Reason.TURNED_AWAY]


def judged(heard, *, fps=30.0, track=1):
    """What is said of a face after these scores, or (score, flaw) pairs, one a frame."""
    judge = Judge(THRESHOLDS)
    said = None
    for i, what in enumerate(heard):
        p, why = what if isinstance(what, tuple) else (what, None)
        pts_ns = round(i * NS_PER_S / fps)
        judge.hear(track, pts_ns, p, why)
        said = judge.face(track, BOX, pts_ns)
    return said


# ----------------------------------------------------------------------------------------------------- thresholds


@pytest.mark.parametrize(
    ("p", "label", "reason"),
    [
        (0.0, Label.REAL, Reason.BELOW_REAL),
        (0.2999, Label.REAL, Reason.BELOW_REAL),
        (0.3, Label.UNSURE, Reason.BETWEEN),
        (0.5, Label.UNSURE, Reason.BETWEEN),
        (0.7, Label.UNSURE, Reason.BETWEEN),
        (0.7001, Label.FAKE, Reason.ABOVE_FAKE),
        (1.0, Label.FAKE, Reason.ABOVE_FAKE),
    ],
)
def test_a_steady_score_is_worded_by_the_thresholds(p, label, reason):
    assert by_threshold(p, THRESHOLDS) == (label, reason)
    said = judged([p] * 10)
    assert (said.label, said.reason) == (label, reason)


@given(scores, scores)
def test_a_higher_score_is_never_worded_as_less_suspicious(p, q):
    rank = {Label.REAL: 0, Label.UNSURE: 1, Label.FAKE: 2}
    low, high = (rank[by_threshold(x, THRESHOLDS)[0]] for x in sorted((p, q)))
    assert low <= high


# ---------------------------------------------------------------------------------------------------- along a face


@given(st.lists(scores, min_size=1, max_size=30))
def test_the_score_of_a_face_is_the_median_of_its_last_second(heard):
    assert judged(heard).p_fake == pytest.approx(float(np.median(heard)))


@given(st.lists(scores, min_size=1, max_size=120))
def test_what_is_older_than_a_second_does_not_count(heard):
    assert judged(heard).p_fake == pytest.approx(float(np.median(heard[-31:])))


@given(st.lists(scores, min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_the_scores_of_a_second_does_not_matter(heard, random):
    shuffled = list(heard)
    random.shuffle(shuffled)
    first, second = judged(heard), judged(shuffled)
    assert (first.label, first.reason, first.p_fake) == (second.label, second.reason, second.p_fake)


@pytest.mark.parametrize("frames", [5, 6, 7, 8, 15, 30])
@pytest.mark.parametrize(("steady", "label"), [(0.1, Label.REAL), (0.5, Label.UNSURE), (0.9, Label.FAKE)])
def test_one_frame_never_turns_the_word_on_a_steady_face(frames, steady, label):
    for outlier in (0.0, 1.0):
        for where in range(frames):
            heard = [steady] * frames
            heard[where] = outlier
            assert judged(heard).label is label


def test_below_five_scores_nothing_is_said():
    for count in range(1, 5):
        said = judged([0.99] * count)
        assert (said.label, said.reason) == (Label.UNSURE, Reason.TOO_FEW_FRAMES)
        assert said.p_fake == 0.99
    assert judged([0.99] * 5).label is Label.FAKE


def test_without_a_score_a_face_is_unsure_and_has_no_number():
    said = Judge(THRESHOLDS).face(7, BOX, 0)
    assert (said.track, said.label, said.reason) == (7, Label.UNSURE, Reason.TOO_FEW_FRAMES)
    assert said.p_fake is said.p_frame is said.flaw is None
    assert said.xyxy == square(10, 20)


def test_scores_that_disagree_are_unsure_whatever_their_median():
    said = judged([0.02, 0.98] * 8)
    assert (said.label, said.reason) == (Label.UNSURE, Reason.DISAGREE)
    assert judged([0.3, 0.75] * 8).reason is not Reason.DISAGREE


@given(st.lists(scores, min_size=5, max_size=30))
def test_scores_disagree_when_their_quartiles_are_more_than_half_apart(heard):
    label, reason = word(float(np.median(heard)), heard, THRESHOLDS)
    low, high = np.quantile(heard, [0.25, 0.75])
    assert (reason is Reason.DISAGREE) == (high - low > 0.5)
    assert label is Label.UNSURE or reason is not Reason.DISAGREE


@pytest.mark.parametrize("seconds_apart", [0.5, 1.0])
def test_a_slow_pace_reaches_further_back_for_its_five_scores(seconds_apart):
    said = judged([0.9] * 6, fps=1 / seconds_apart)
    assert (said.label, said.p_fake) == (Label.FAKE, 0.9)


def test_a_slow_pace_reaches_back_for_five_scores_that_count():
    said = judged([0.9, (0.9, Reason.BLURRED)] * 10, fps=2)
    assert said.reason is Reason.ABOVE_FAKE


def test_but_not_for_more_than_five_seconds():
    assert judged([0.9] * 10, fps=1 / 3).reason is Reason.TOO_FEW_FRAMES


def test_a_verdict_is_carried_on_while_its_scores_are_recent():
    judge = Judge(THRESHOLDS)
    for i in range(10):
        judge.hear(1, i * NS_PER_S // 30, 0.9, None)
    later = judge.face(1, BOX, 2 * NS_PER_S)
    assert (later.label, later.p_fake, later.p_frame) == (Label.FAKE, 0.9, None)
    assert judge.face(1, BOX, 20 * NS_PER_S).p_fake is None


def test_faces_do_not_hear_each_others_scores():
    judge = Judge(THRESHOLDS)
    for i in range(10):
        judge.hear(1, i, 0.9, None)
        judge.hear(2, i, 0.1, None)
    assert judge.face(1, BOX, 9).label is Label.FAKE
    assert judge.face(2, BOX, 9).label is Label.REAL


def test_a_face_that_is_over_is_forgotten():
    judge = Judge(THRESHOLDS)
    for track in (1, 2):
        for i in range(10):
            judge.hear(track, i, 0.9, None)
    judge.keep({2})
    assert judge.face(1, BOX, 9).p_fake is None
    assert judge.face(2, BOX, 9).p_fake == 0.9


# ------------------------------------------------------------------------------------------------- what has a flaw


def test_the_score_of_a_flawed_frame_does_not_count():
    said = judged([0.1] * 6 + [(0.99, Reason.BLURRED)] * 20)
    assert (said.label, said.p_fake) == (Label.REAL, 0.1)


def test_the_score_and_flaw_of_this_very_frame_are_told():
    said = judged([0.1] * 6 + [(0.99, Reason.DARK)])
    assert (said.p_frame, said.flaw) == (0.99, Reason.DARK)
    said = judged([(0.99, Reason.DARK)] + [0.1] * 6)
    assert (said.p_frame, said.flaw) == (0.1, None)


@pytest.mark.parametrize("why", FLAWS)
def test_a_face_that_only_has_flawed_frames_is_unsure_for_that_reason(why):
    said = judged([(0.99, why)] * 10)
    assert (said.label, said.reason, said.p_fake) == (Label.UNSURE, why, 0.99)


def test_a_face_with_mostly_flawed_frames_is_unsure_for_that_reason():
    assert judged([0.1] * 2 + [(0.99, Reason.BLURRED)] * 20).reason is Reason.BLURRED


# ----------------------------------------------------------------------------------------------------- the whole frame

REAL = make_verdict(0.1, track=1, label=Label.REAL, reason=Reason.BELOW_REAL)
FAKE = make_verdict(0.8, track=2, label=Label.FAKE, reason=Reason.ABOVE_FAKE)
BETWEEN = make_verdict(0.5, track=3, reason=Reason.BETWEEN)
DISAGREE = make_verdict(0.95, track=4, reason=Reason.DISAGREE)
BLURRED = make_verdict(0.99, track=5, reason=Reason.BLURRED, box=square(0, 0, 300))
FEW = make_verdict(0.99, track=6, reason=Reason.TOO_FEW_FRAMES, box=square(0, 0, 30))
NEW = make_verdict(None, track=7, reason=Reason.TOO_FEW_FRAMES, box=square(0, 0, 400))
KINDS = [REAL, FAKE, BETWEEN, DISAGREE, BLURRED, FEW, NEW]


def test_a_frame_without_a_face_says_so():
    assert frame_verdict([]) is NO_FACE
    assert (NO_FACE.label, NO_FACE.reason, NO_FACE.p_fake, NO_FACE.faces) == (Label.NO_FACE, Reason.NO_FACE, None, ())


@pytest.mark.parametrize(
    ("faces", "decisive"),
    [
        ([REAL, FAKE, DISAGREE, BLURRED], FAKE),
        ([REAL, BETWEEN, BLURRED], BETWEEN),
        ([REAL, BETWEEN, DISAGREE], DISAGREE),
        ([REAL, BLURRED, FEW], REAL),
        ([FEW, BLURRED], BLURRED),
        ([NEW], NEW),
    ],
)
def test_the_most_suspicious_face_that_can_be_judged_decides(faces, decisive):
    for order in (faces, faces[::-1]):
        said = frame_verdict(order)
        assert (said.label, said.reason, said.p_fake) == (decisive.label, decisive.reason, decisive.p_fake)
        assert said.faces == tuple(order)


def test_of_two_fakes_the_surer_one_decides():
    surer = make_verdict(0.9, label=Label.FAKE, reason=Reason.ABOVE_FAKE)
    assert frame_verdict([surer, FAKE]).p_fake == frame_verdict([FAKE, surer]).p_fake == 0.9


@given(st.lists(st.sampled_from(KINDS), min_size=1))
def test_a_frame_is_fake_exactly_when_a_face_in_it_is(faces):
    assert (frame_verdict(faces).label is Label.FAKE) == (FAKE in faces)


@given(st.lists(st.sampled_from(KINDS), min_size=1))
def test_a_frame_has_no_score_exactly_when_no_face_has_one(faces):
    assert (frame_verdict(faces).p_fake is None) == all(face.p_fake is None for face in faces)
