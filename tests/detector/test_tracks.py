import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.tracks import Tracker
from detector.types import NS_PER_MS, NS_PER_S, Faces
from tests.doubles import make_faces, square

MS = NS_PER_MS


def seen(tracker, ms, *boxes):
    """The ids of what was found at ``ms``."""
    return tracker.update(make_faces(*boxes), ms * MS).tolist()


def smooth_path(seed, frames, fps, speed):
    """Top left corner of a box, (frames, 2) px: a random walk whose velocity turns slowly; ``speed`` in px a second."""
    rng = np.random.default_rng(seed)
    times = np.arange(frames) / fps
    hz, phase = rng.uniform(0.1, 0.4, 2), rng.uniform(0, 2 * np.pi, 2)
    swing = speed / (2 * np.pi * hz)  # the sine's steepest slope is then `speed`
    return swing * np.sin(2 * np.pi * hz * times[:, None] + phase)


# ------------------------------------------------------------------------------------------------------- identity


def test_ids_count_from_1_in_the_order_of_the_faces():
    assert seen(Tracker(), 0, square(0, 0), square(300, 0), square(600, 0)) == [1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    st.sampled_from([24, 25, 30, 60]),
    st.floats(0, 200),
)
def test_a_face_that_moves_smoothly_keeps_its_id(seeds, fps, speed):
    tracker = Tracker()
    paths = [smooth_path(seed, 3 * fps, fps, speed) + np.array([2000 * i, 0]) for i, seed in enumerate(seeds)]
    for frame in range(3 * fps):
        boxes = [square(*path[frame]) for path in paths]
        ids = tracker.update(make_faces(*boxes), round(frame * NS_PER_S / fps))
        assert ids.tolist() == list(range(1, len(seeds) + 1))


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_faces_are_found_does_not_matter(random):
    tracker = Tracker()
    order = [0, 1, 2]
    of_place = {}
    for frame in range(20):
        random.shuffle(order)
        ids = seen(tracker, 33 * frame, *(square(300 * i + 2 * frame, 0) for i in order))
        for place, track in zip(order, ids, strict=True):
            assert of_place.setdefault(place, track) == track


def test_two_faces_that_pass_each_other_far_apart_keep_their_ids():
    tracker = Tracker()
    for frame in range(60):
        left, right = square(10 * frame, 0), square(600 - 10 * frame, 300)
        assert seen(tracker, 33 * frame, left, right) == [1, 2]


def test_a_face_that_jumps_to_another_place_is_another_face():
    tracker = Tracker()
    seen(tracker, 0, square(0, 0))
    assert seen(tracker, 33, square(400, 0)) == [2]


@pytest.mark.parametrize("missed_ms", [33, 300, 567])
def test_a_face_missed_for_a_while_keeps_its_id(missed_ms):
    tracker = Tracker(forget_ms=600)
    for frame in range(5):
        seen(tracker, 33 * frame, square(0, 0))
    for ms in range(33 * 5, 33 * 4 + missed_ms, 33):
        assert seen(tracker, ms) == []
    assert seen(tracker, 33 * 4 + missed_ms, square(0, 0)) == [1]


def test_a_face_missed_for_longer_is_a_new_one():
    tracker = Tracker(forget_ms=600)
    seen(tracker, 0, square(0, 0))
    for ms in range(33, 700, 33):
        seen(tracker, ms)
    assert tracker.alive() == frozenset()
    assert seen(tracker, 700, square(0, 0)) == [2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), unique=True), max_size=40), st.integers(20, 900))
def test_an_id_is_never_given_twice(places, step_ms):
    tracker = Tracker()
    over = set()
    highest = 0
    for i, found in enumerate(places):
        before = tracker.alive()
        ids = seen(tracker, step_ms * i, *(square(300 * place, 0) for place in found))
        assert len(set(ids)) == len(ids)
        assert not over & set(ids)
        new = [track for track in ids if track not in before]
        assert all(track > highest for track in new)
        highest = max([highest, *ids])
        over |= before - tracker.alive()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), unique=True), max_size=40))
def test_who_was_seen_last_is_alive(places):
    tracker = Tracker()
    for i, found in enumerate(places):
        ids = seen(tracker, 33 * i, *(square(300 * place, 0) for place in found))
        assert set(ids) <= tracker.alive()


@pytest.mark.parametrize("look_ms", [667, 1000, 2000])
def test_a_face_seen_at_every_look_keeps_its_id_however_rare_the_looks(look_ms):
    tracker = Tracker()
    assert [seen(tracker, look_ms * i, square(0, 0)) for i in range(5)] == [[1]] * 5


# ----------------------------------------------------------------------------------------------- between two looks


def settled(step_px, frames=12, ms=40):
    """A tracker that followed a face moving by ``step_px`` to the right every ``ms``; the last look's time in ms."""
    tracker = Tracker()
    for frame in range(frames):
        seen(tracker, ms * frame, square(step_px * frame, 0))
    return tracker, ms * (frames - 1)


def test_without_a_look_a_face_is_expected_where_it_moves_to():
    tracker, last_ms = settled(step_px=4)
    faces, ids = tracker.expected((last_ms + 80) * MS)
    assert ids.tolist() == [1]
    np.testing.assert_allclose(faces.xyxy, [square(4 * 13, 0)], atol=0.1)


def test_its_keypoints_move_with_it():
    tracker, last_ms = settled(step_px=4)
    faces, _ = tracker.expected((last_ms + 80) * MS)
    np.testing.assert_allclose(faces.keypoints, make_faces(square(4 * 13, 0)).keypoints, atol=0.1)


def test_a_still_face_is_expected_where_it_is_and_as_sure():
    tracker, last_ms = settled(step_px=0)
    faces, _ = tracker.expected((last_ms + 500) * MS)
    np.testing.assert_array_equal(faces.xyxy, [square(0, 0)])
    np.testing.assert_array_equal(faces.confidence, make_faces(square(0, 0)).confidence)


def test_a_face_does_not_run_away_when_nobody_looks_for_long():
    tracker, last_ms = settled(step_px=4)
    later, much_later = (tracker.expected((last_ms + ms) * MS)[0].xyxy for ms in (150, 5000))
    np.testing.assert_allclose(later, [square(4 * 11 + 15, 0)], atol=0.1)
    np.testing.assert_array_equal(much_later, later)


def test_a_face_the_last_look_missed_is_not_expected():
    tracker = Tracker()
    seen(tracker, 0, square(0, 0), square(300, 0))
    seen(tracker, 33, square(300, 0))
    _, ids = tracker.expected(40 * MS)
    assert ids.tolist() == [2]
    assert tracker.alive() == {1, 2}


def test_before_the_first_look_nothing_is_expected():
    faces, ids = Tracker().expected(0)
    assert len(faces) == len(ids) == 0


# A file may give two frames times 1 us apart: pipelines/sources/_base.py moves a time stamp that does not increase by
# that much. One pixel of jitter must not become a million px a second.
@pytest.mark.parametrize("gap_ns", [1_000, NS_PER_MS])
def test_two_looks_within_a_moment_do_not_throw_a_face_out_of_the_picture(gap_ns):
    tracker = Tracker()
    times = [0, 33 * MS, 66 * MS, 66 * MS + gap_ns]
    for i, pts_ns in enumerate(times):
        tracker.update(make_faces(square(100 + i, 100, 200 + i)), pts_ns)
    faces, _ = tracker.expected(100 * MS)
    np.testing.assert_allclose(faces.xyxy, [square(104, 100, 204)], atol=40)


def test_two_looks_within_a_moment_do_not_lose_a_face():
    tracker = Tracker()
    times = [0, 33 * MS, 66 * MS, 66 * MS + 1_000, 100 * MS]
    ids = [tracker.update(make_faces(square(100 + 2 * i, 100)), pts_ns).tolist() for i, pts_ns in enumerate(times)]
    assert ids == [[1]] * 5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 150), st.sampled_from([24, 30, 60]))
def test_a_carried_on_box_is_near_the_face(seed, speed, fps):
    tracker = Tracker()
    path = smooth_path(seed, 2 * fps, fps, speed)
    for frame, corner in enumerate(path):
        pts_ns = round(frame * NS_PER_S / fps)
        if frame < 6 or frame % 3 == 0:
            tracker.update(make_faces(square(*corner)), pts_ns)
        else:
            faces, _ = tracker.expected(pts_ns)
            assert np.abs(faces.xyxy[0] - square(*corner)).max() < 10


# --------------------------------------------------------------------------------------------- when to look again


def test_the_first_frame_needs_a_look_and_so_does_every_frame_without_a_face():
    tracker = Tracker()
    assert tracker.needs_look(0)
    for ms in (0, 33, 66):
        seen(tracker, ms)
        assert tracker.needs_look((ms + 33) * MS)


def test_a_new_face_is_looked_at_until_it_was_foreseen_three_times():
    tracker = Tracker()
    for frame in range(4):
        assert tracker.needs_look(33 * frame * MS)
        seen(tracker, 33 * frame, square(0, 0))
    assert not tracker.needs_look(33 * 4 * MS)


def test_sure_of_its_faces_it_rests_for_look_ms():
    tracker, last_ms = settled(step_px=0, ms=33)
    assert not tracker.needs_look((last_ms + 99) * MS)
    assert tracker.needs_look((last_ms + 100) * MS)


def test_a_face_that_was_missed_is_looked_for_at_every_frame():
    tracker = Tracker()
    for frame in range(10):
        seen(tracker, 33 * frame, square(0, 0), square(300, 0))
    assert not tracker.needs_look(330 * MS)
    seen(tracker, 430, square(0, 0))
    assert tracker.needs_look(431 * MS)


def test_a_face_that_moves_unforeseen_is_looked_at_again():
    tracker, last_ms = settled(step_px=0)
    seen(tracker, last_ms + 100, square(30, 0))
    assert tracker.needs_look((last_ms + 101) * MS)


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
@pytest.mark.parametrize("first_ms", range(0, 300, 40))
def test_a_face_that_comes_in_is_found_within_a_quarter_of_a_second(fps, first_ms):
    """A perfect finder, asked only when a look is needed, one face there from the start."""
    tracker = Tracker()
    appears_ns = (1000 + first_ms) * MS
    for frame in range(2 * fps):
        pts_ns = round(frame * NS_PER_S / fps)
        boxes = [square(0, 0)] + ([square(400, 0)] if pts_ns >= appears_ns else [])
        if tracker.needs_look(pts_ns) and 2 in tracker.update(make_faces(*boxes), pts_ns):
            assert pts_ns - appears_ns <= 250 * MS
            return
    pytest.fail("never found")


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_the_finder_rests_on_most_frames_of_a_still_face(fps):
    tracker, looks = Tracker(), 0
    for frame in range(4 * fps):
        pts_ns = round(frame * NS_PER_S / fps)
        if tracker.needs_look(pts_ns):
            looks += 1
            tracker.update(make_faces(square(0, 0)), pts_ns)
    assert 4 * 6 <= looks <= 4 * 10 + 4


def test_no_faces_are_no_ids():
    ids = Tracker().update(Faces.empty(), 0)
    assert ids.shape == (0,)
    assert ids.dtype == np.int64
