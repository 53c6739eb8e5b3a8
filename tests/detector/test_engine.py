import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.card import Thresholds
from detector.crop import crop_faces
from detector.engine import Detector, Model
from detector.types import Label, Pace, Reason
from tests.doubles import ScriptedFinder, ScriptedScorer, make_card, make_faces, make_frame, noise, square

PICTURE = noise()


def still(_):
    return [square(200, 100)]


def detector(script=still, p=0.9, *, max_scored=4, **card):
    """A detector, its finder and its scorer."""
    finder, scorer = ScriptedFinder(script), ScriptedScorer(p)
    return Detector(finder, Model(make_card(**card), scorer), max_scored), finder, scorer


def judge(engine, count, *, pace=None, fps=30.0):
    return [engine.judge(make_frame(i, fps=fps, bgr=PICTURE), pace=pace or Pace()) for i in range(count)]


# ---------------------------------------------------------------------------------------------------------- one frame


def test_a_frame_becomes_a_result_that_carries_it():
    engine, _, _ = detector()
    frame = make_frame(3, bgr=PICTURE)
    said = engine.judge(frame, dropped=2)
    assert said.frame is frame
    assert (said.dropped, said.model, said.fresh) == (2, "double", True)
    (face,) = said.verdict.faces
    assert (face.track, face.xyxy) == (1, square(200, 100))
    assert face.p_frame == face.p_fake == pytest.approx(0.9)


def test_what_is_scored_is_the_crop_that_training_uses():
    seen = []
    engine, _, _ = detector(p=lambda crop: seen.append(crop.copy()) or 0.5, input_size=96, crop_margin=1.5)
    judge(engine, 1)
    np.testing.assert_array_equal(seen, crop_faces(PICTURE, make_faces(square(200, 100)).xyxy, 96, 1.5))


def test_a_steady_face_has_its_word_from_the_fifth_frame_on():
    engine, _, _ = detector(p=0.9)
    labels = [said.verdict.label for said in judge(engine, 8)]
    assert labels == [Label.UNSURE] * 4 + [Label.FAKE] * 4


def test_the_thresholds_are_those_of_the_card():
    thresholds = type(make_card().thresholds)(0.01, 0.05)
    engine, _, _ = detector(p=0.06, thresholds=thresholds)
    assert judge(engine, 5)[-1].verdict.label is Label.FAKE


def test_without_a_face_nothing_is_scored_and_the_frame_says_so():
    engine, _, scorer = detector(lambda _: [])
    said = judge(engine, 3)[-1]
    assert (said.verdict.label, said.verdict.p_fake, said.fresh) == (Label.NO_FACE, None, True)
    assert scorer.batches == []


def test_a_face_too_small_to_judge_is_scored_and_called_so():
    engine, _, _ = detector(lambda _: [square(200, 100, 40)])
    said = judge(engine, 6)[-1]
    assert (said.verdict.label, said.verdict.reason) == (Label.UNSURE, Reason.TOO_SMALL)
    assert said.verdict.faces[0].flaw is Reason.TOO_SMALL
    assert said.verdict.p_fake == pytest.approx(0.9)


def test_two_faces_are_judged_each_for_itself():
    engine, _, _ = detector(
        lambda _: [square(100, 100), square(400, 100)], p=lambda crop: 0.9 if crop[..., 0].mean() > 60 else 0.1
    )
    picture = noise()
    picture[:, :320, 2] = 0  # no red on the left
    results = [engine.judge(make_frame(i, bgr=picture)) for i in range(6)]
    labels = {face.xyxy[0]: face.label for face in results[-1].verdict.faces}
    assert labels == {100: Label.REAL, 400: Label.FAKE}
    assert results[-1].verdict.label is Label.FAKE


def test_a_box_mostly_outside_the_picture_is_judged_too():
    engine, _, _ = detector(lambda _: [square(-80, -80), square(620, 340)])
    assert len(judge(engine, 6)[-1].verdict.faces) == 2


# --------------------------------------------------------------------------------------------------------------- pace


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_at_a_stride_every_nth_frame_is_judged_and_the_others_carry_its_verdict_over(stride):
    engine, finder, scorer = detector()
    results = judge(engine, 30, pace=Pace(stride, stride))
    fresh = [said.frame.index for said in results if said.fresh]
    assert fresh == list(range(0, 30, stride))
    assert set(finder.asked) <= set(fresh)
    assert scorer.batches == [1] * len(fresh)
    for said in results:
        (face,) = said.verdict.faces
        assert (face.track, face.xyxy) == (1, square(200, 100))
        assert (face.p_frame is None) == (not said.fresh)
        assert face.p_fake == pytest.approx(0.9)


def test_the_finder_may_rest_while_the_scorer_works():
    engine, finder, scorer = detector()
    results = judge(engine, 12, pace=Pace(find_every=4, score_every=1))
    assert set(finder.asked) <= {0, 4, 8}
    assert scorer.batches == [1] * 12
    assert all(said.fresh for said in results)


def test_the_scorer_may_rest_while_the_finder_works():
    engine, _, scorer = detector()
    results = judge(engine, 12, pace=Pace(find_every=1, score_every=4))
    assert len(scorer.batches) == 3
    assert [said.fresh for said in results] == [i % 4 == 0 for i in range(12)]


def test_no_face_is_fresh_where_it_was_looked_for_and_carried_over_elsewhere():
    engine, _, _ = detector(lambda _: [])
    results = judge(engine, 9, pace=Pace(3, 3))
    assert [said.fresh for said in results] == [i % 3 == 0 for i in range(9)]
    assert {said.verdict.label for said in results} == {Label.NO_FACE}


def test_frames_are_counted_as_they_come_not_by_their_index():
    engine, finder, _ = detector()
    for index in (5, 11, 12, 20):
        engine.judge(make_frame(index, bgr=PICTURE), pace=Pace(2, 2))
    assert finder.asked == [5, 12]


def test_a_still_face_is_looked_for_only_now_and_then_but_scored_in_every_frame():
    engine, finder, scorer = detector()
    results = judge(engine, 60)
    assert 12 <= len(finder.asked) <= 25
    assert scorer.batches == [1] * 60
    assert all(said.fresh for said in results)


def test_a_moving_face_is_cut_where_it_has_moved_to():
    engine, finder, _ = detector(lambda frame: [square(100 + 3 * frame.index, 100)])
    results = judge(engine, 60)
    assert len(finder.asked) < 40
    for said in results:
        assert said.verdict.faces[0].xyxy[0] == pytest.approx(100 + 3 * said.frame.index, abs=6)
        assert said.verdict.faces[0].track == 1


def test_a_clip_at_a_large_stride_gets_its_verdict():
    engine, _, _ = detector()
    assert judge(engine, 30 * 5, pace=Pace(20, 20))[-1].verdict.label is Label.FAKE


def test_two_frames_of_the_same_time_do_no_harm():
    engine, _, _ = detector(lambda frame: [square(100 + frame.index, 100, 100 + frame.index)])
    times_ms = [0, 33, 66, 66.001, 100, 133]
    for index, ms in enumerate(times_ms):
        frame = make_frame(index, bgr=PICTURE, pts_ns=round(ms * 1e6))
        left, _, right, _ = engine.judge(frame).verdict.faces[0].xyxy
        assert right - left < 200


def test_with_a_phase_finding_and_scoring_take_turns():
    engine, finder, _ = detector(lambda frame: [square(100 + 40 * (frame.index % 2), 100)])  # never sure
    results = judge(engine, 24, pace=Pace(find_every=4, score_every=2, score_phase=1))
    assert finder.asked == list(range(0, 24, 4))
    assert [said.frame.index for said in results if said.timing.score_ms > 0] == list(range(1, 24, 2))
    assert all(said.pace == Pace(4, 2, 1) for said in results)


# ------------------------------------------------------------------------------------------------- a ladder of models


def two_models(first=0.8, second=0.2, thresholds=None):
    """A detector with a cheaper model of another size, and both scorers."""
    scorers = ScriptedScorer(first), ScriptedScorer(second)
    large = Model(make_card(name="large"), scorers[0])
    small = Model(make_card(name="small", input_size=32, thresholds=thresholds or large.card.thresholds), scorers[1])
    return Detector(ScriptedFinder(still), large, cheaper=[small]), *scorers


def test_the_pace_says_which_model_scores_and_the_result_names_it():
    engine, large, small = two_models()
    rungs = [0, 0, 1, 1, 1, 0]
    results = [engine.judge(make_frame(i, bgr=PICTURE), pace=Pace(rung=rung)) for i, rung in enumerate(rungs)]
    assert [said.model for said in results] == ["large", "large", "small", "small", "small", "large"]
    assert [said.verdict.faces[0].p_frame for said in results] == pytest.approx([0.8, 0.8, 0.2, 0.2, 0.2, 0.8])
    assert (len(large.batches), len(small.batches)) == (3, 3)


def test_every_model_gets_crops_of_its_own_size():
    sizes = []
    engine, _, _ = two_models(lambda crop: sizes.append(len(crop)) or 0.5, lambda crop: sizes.append(len(crop)) or 0.5)
    for i, rung in enumerate([0, 1, 0]):
        engine.judge(make_frame(i, bgr=PICTURE), pace=Pace(rung=rung))
    assert sizes == [64, 32, 64]


def test_a_face_keeps_its_word_when_the_model_changes():
    """The cheaper model's thresholds lie far lower: 0.2 is as suspicious there as 0.8 is here."""
    engine, _, _ = two_models(0.8, 0.2, thresholds=Thresholds(0.05, 0.1))
    results = [engine.judge(make_frame(i, bgr=PICTURE), pace=Pace(rung=int(i >= 10))) for i in range(60)]
    assert {said.verdict.label for said in results[4:]} == {Label.FAKE}
    assert results[-1].verdict.p_fake > 0.7


def test_a_rung_that_is_not_there_is_refused():
    engine, _, _ = two_models()
    with pytest.raises(ValueError, match="rung 2 of a ladder of 2"):
        engine.judge(make_frame(0, bgr=PICTURE), pace=Pace(rung=2))


# ---------------------------------------------------------------------------------------------------------- in a crowd


def crowd(count):
    return lambda _: [square(150 * (i % 10), 150 * (i // 10)) for i in range(count)]


@pytest.mark.parametrize(("faces", "most"), [(5, 4), (9, 4), (12, 1), (20, 6)])
def test_in_a_crowd_every_face_is_scored_in_turn(faces, most):
    engine, _, scorer = detector(crowd(faces), max_scored=most)
    rounds = -(-faces // most)
    results = judge(engine, 3 * rounds)
    assert scorer.batches == [most] * (3 * rounds)
    turns = {track: [] for track in range(1, faces + 1)}
    for said in results:
        assert len(said.verdict.faces) == faces
        for face in said.verdict.faces:
            if face.p_frame is not None:
                turns[face.track].append(said.frame.index)
    for frames in turns.values():
        assert frames[0] < rounds
        assert max(np.diff(frames)) <= rounds


def test_a_newcomer_to_a_crowd_is_scored_at_once():
    engine, _, _ = detector(lambda frame: crowd(8 if frame.index < 10 else 9)(frame), max_scored=2)
    for said in judge(engine, 20):
        for face in said.verdict.faces:
            if face.track == 9:
                assert face.p_frame is not None
                return
    pytest.fail("the newcomer was never seen")


def test_everybody_in_a_crowd_gets_a_word():
    engine, _, _ = detector(crowd(20), max_scored=4)
    assert {face.label for face in judge(engine, 60)[-1].verdict.faces} == {Label.FAKE}


def test_a_frame_of_a_crowd_has_a_score_as_soon_as_one_of_its_faces_has():
    engine, _, _ = detector(lambda _: [*crowd(4)(_), square(0, 150, 190)], max_scored=4)
    assert judge(engine, 1)[0].verdict.p_fake == pytest.approx(0.9)


# -------------------------------------------------------------------------------------------------------------- timing


def test_what_a_stage_took_is_told_under_its_name():
    def slow_find(_):
        time.sleep(0.03)
        return [square(200, 100)]

    def slow_score(_):
        time.sleep(0.05)
        return 0.5

    engine, _, _ = detector(slow_find, slow_score)
    timing = judge(engine, 1)[0].timing
    assert timing.find_ms >= 30
    assert timing.score_ms >= 50
    assert 0 < timing.crop_ms < 30


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=15))
def test_a_stage_that_did_not_run_took_nothing_and_the_stages_are_within_the_total(steps):
    engine, finder, scorer = detector(lambda frame: crowd(steps[frame.index][2])(frame))
    for i, (find, score, _) in enumerate(steps):
        looks, scored = len(finder.asked), len(scorer.batches)
        timing = engine.judge(make_frame(i, bgr=PICTURE), pace=Pace(find, score)).timing
        assert timing.find_ms + timing.crop_ms + timing.score_ms <= timing.total_ms
        assert (timing.find_ms > 0) == (len(finder.asked) > looks)
        assert (timing.crop_ms > 0) == (timing.score_ms > 0) == (len(scorer.batches) > scored)


# -------------------------------------------------------------------------------------------------------------- memory


def test_faces_that_are_gone_are_forgotten():
    """A face a second for a minute: an id each, and no score of one in the verdict of another."""
    engine, _, _ = detector(lambda frame: [square(400 * (frame.index // 10 % 2), 100)], p=lambda crop: 0.9)
    tracks = {face.track for said in judge(engine, 100, fps=10) for face in said.verdict.faces}
    assert tracks == set(range(1, 11))
