import gc
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.crop import crop_faces
from detector.explain import heat_picture, occlusion_map, region_name
from detector.types import NS_PER_S, Label, Reason, SourceInfo
from pipelines.evidence import THUMBNAIL_PX, VIEW_PX, Evidence, Moment, explained
from tests.doubles import make_card, make_verdict
from tests.pipelines.results import make_picture, make_result
from tests.shipped import judged, model

INFO = SourceInfo("clip.mp4")
PICTURE = make_picture()


def face(p_frame, track=1, box=(30.0, 20.0, 70.0, 60.0), flaw=None):
    """What is said of a face that is REAL whatever this frame says."""
    return make_verdict(p_frame, track=track, label=Label.REAL, p_fake=0.1, flaw=flaw, box=box)


def frame(at_s, *faces, bgr=PICTURE):
    return make_result(Label.REAL if faces else Label.NO_FACE, pts_ns=round(at_s * NS_PER_S), faces=faces, bgr=bgr)


def evidence_of(results, moments=3):
    evidence = Evidence(make_card(), moments)
    evidence.begin("clip.mp4", INFO)
    for result in results:
        evidence.write(result)
    evidence.close()
    return evidence


def chosen(results, moments=3):
    return [(m.pts_s, m.track, m.p_frame) for m in evidence_of(results, moments).moments]


def brute_force(results, wanted):
    """The choice as it is described, by keeping everything."""
    seconds = {}
    for result in results:
        at_s = result.frame.pts_ns / NS_PER_S
        for each in result.verdict.faces:
            if each.p_frame is not None and each.flaw is None:
                seconds.setdefault(math.floor(at_s), []).append((at_s, each.track, each.p_frame))
    candidates = [max(moments, key=lambda moment: moment[2]) for moments in seconds.values()]
    picked = []
    for candidate in sorted(candidates, key=lambda moment: -moment[2]):
        if len(picked) < wanted and all(abs(candidate[0] - other[0]) >= 1 - 1e-7 for other in picked):
            picked.append(candidate)
    return sorted(picked)


# ----------------------------------------------------------------------------------------------- moments

SCORED = st.builds(
    lambda p, flawed, scored: (p if scored else None, Reason.BLURRED if flawed and scored else None),
    st.sampled_from([i / 8 for i in range(9)]),  # a few values: equals are common
    st.booleans(),
    st.sampled_from([True, True, True, False]),
)


@given(
    steps_ms=st.lists(st.sampled_from([40, 250, 500, 1000, 1700]), max_size=60),
    scores=st.lists(st.lists(SCORED, max_size=2), min_size=60, max_size=60),
    wanted=st.integers(1, 4),
)
@settings(max_examples=60)
def test_the_chosen_moments_are_those_that_keeping_everything_would_choose(steps_ms, scores, wanted):
    times_s = np.cumsum([0, *steps_ms])[:-1] / 1000
    results = [
        frame(at_s, *(replace(face(p), track=track, flaw=flaw) for track, (p, flaw) in enumerate(seen, 1)))
        for at_s, seen in zip(times_s, scores, strict=False)
    ]
    assert chosen(results, wanted) == brute_force(results, wanted)


def test_moments_come_in_order_of_time_and_at_least_a_second_apart():
    results = [frame(i / 10, face(0.5 + 0.4 * math.sin(i))) for i in range(100)]
    times = [at_s for at_s, _, _ in chosen(results, 5)]
    assert len(times) == 5
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))


def test_moments_too_near_to_a_better_one_make_room_for_a_lower_one():
    near = [frame(0.2, face(0.7)), frame(1.1, face(0.9)), frame(2.0, face(0.8))]
    later = [frame(2.0 + i, face(0.5 - i / 100)) for i in range(1, 9)]
    assert chosen([*near, *later]) == [(1.1, 1, 0.9), (3.0, 1, 0.49), (4.0, 1, 0.48)]


def test_a_clip_that_is_called_real_has_its_most_suspicious_moments_all_the_same():
    assert chosen([frame(0.2, face(0.05)), frame(1.5, face(0.02))]) == [(0.2, 1, 0.05), (1.5, 1, 0.02)]


def test_a_clip_without_a_scored_face_has_no_moment_and_no_face():
    evidence = evidence_of([frame(0.1), frame(0.2)])
    assert evidence.moments == ()
    assert evidence.thumbnails == {}


def test_a_moment_holds_pictures_of_its_own_frame():
    pictures = [make_picture(shade=shade) for shade in (40, 90, 140)]
    results = [
        frame(i * 0.3, face(p), bgr=bgr) for i, (p, bgr) in enumerate(zip((0.2, 0.9, 0.4), pictures, strict=True))
    ]
    evidence = evidence_of(results)
    for picture in pictures:
        picture[:] = 0  # a decoder may use its memory again
    (moment,) = evidence.moments
    assert np.all(moment.crop == 90)
    assert np.all(moment.view == 90)


@pytest.mark.parametrize("box", [(100.0, 60.0, 140.0, 100.0), (5.0, 5.0, 20.0, 30.0), (590.0, 300.0, 660.0, 380.0)])
def test_a_view_shows_the_face_with_what_is_around_it(box):
    picture = np.full((360, 640, 3), (200, 100, 50), np.uint8)
    left, top, right, bottom = (round(side) for side in box)
    picture[top:bottom, left:right] = (0, 0, 255)
    (moment,) = evidence_of([frame(0, face(0.9, box=box), bgr=picture)]).moments
    assert max(moment.view.shape[:2]) == VIEW_PX
    red = np.all(moment.view.astype(int) - (255, 0, 0) == 0, axis=2)
    around = np.all(np.abs(moment.view.astype(int) - (50, 100, 200)) == 0, axis=2)  # RGB of the ground
    inside = max(0, min(right, 640) - left) * max(0, min(bottom, 360) - top)
    assert red.mean() == pytest.approx(inside / (2.4 * max(right - left, bottom - top)) ** 2, rel=0.15)
    assert around.mean() > 0.5


def test_a_face_larger_than_the_picture_is_shown_as_the_whole_picture():
    (moment,) = evidence_of([frame(0, face(0.9, box=(-50.0, -50.0, 400.0, 400.0)))]).moments
    assert moment.view.shape == (270, 360, 3)


def there_are(kind):
    """How many objects of a kind this process holds."""
    gc.collect()
    return sum(type(each) is kind for each in gc.get_objects())  # isinstance() would wake what libraries deprecate


def test_memory_does_not_grow_with_the_length_of_a_clip():
    before = there_are(Moment)
    evidence = evidence_of([frame(at_s, face(at_s / 1000)) for at_s in range(400)])
    assert there_are(Moment) - before <= 3 * 3 - 2 + 1
    assert [m.pts_s for m in evidence.moments] == [397, 398, 399]


def test_there_is_at_least_one_moment_to_choose():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Evidence(make_card(), 0)


def test_a_second_clip_takes_the_place_of_the_first():
    evidence = evidence_of([frame(7.5, face(0.99, track=3))])
    evidence.begin("other.mp4", INFO)
    assert (evidence.moments, evidence.thumbnails, len(evidence.timeline.p_fake)) == ((), {}, 0)
    evidence.write(frame(0.5, face(0.1)))
    assert [m.pts_s for m in evidence.moments] == [0.5]


# ----------------------------------------------------------------------------------------------- thumbnails


def shade_of(*shown):
    """The shade of the thumbnail, when these faces were seen in pictures of shades 10, 20 ..."""
    results = [frame(i, each, bgr=make_picture(shade=10 * (i + 1))) for i, each in enumerate(shown)]
    (thumbnail,) = evidence_of(results).thumbnails.values()
    assert thumbnail.shape == (THUMBNAIL_PX, THUMBNAIL_PX, 3)
    return int(thumbnail[0, 0, 0])


def sized(side, p_frame=0.5, flaw=None):
    return face(p_frame, box=(10.0, 10.0, 10.0 + side, 10.0 + side), flaw=flaw)


def test_a_thumbnail_is_the_first_of_frames_alike():
    assert shade_of(sized(40), sized(42), sized(47)) == 10


def test_a_clearly_larger_face_makes_a_better_thumbnail():
    assert shade_of(sized(40), sized(49), sized(30)) == 20


def test_a_face_without_a_flaw_makes_a_better_thumbnail_than_a_larger_one_with_a_flaw():
    assert shade_of(sized(20, None), sized(30, flaw=Reason.DARK), sized(10), sized(70, flaw=Reason.DARK)) == 30
    assert shade_of(sized(50, None), sized(10, flaw=Reason.DARK)) == 20


def test_what_lies_outside_the_picture_makes_no_face_larger():
    beside = face(0.5, box=(100.0, 10.0, 180.0, 90.0))  # 28 px of it are inside
    assert shade_of(sized(60), beside) == 10


def test_of_a_crowd_the_clearest_faces_are_kept():
    results = [frame(i, face(0.5, track=i, box=(0.0, 0.0, 5.0 + i % 80, 5.0 + i % 80))) for i in range(1, 161)]
    kept = evidence_of(results).thumbnails
    assert len(kept) == 64
    assert list(kept) == sorted(kept)
    sizes = sorted((i % 80 for i in range(1, 161)), reverse=True)
    assert sorted((track % 80 for track in kept), reverse=True) == sizes[:64]


# ----------------------------------------------------------------------------------------------- real clips


@pytest.mark.parametrize(("name", "faces"), [("fake.mp4", 1), ("two_faces.mp4", 2), ("no_face.mp4", 0)])
def test_of_a_real_clip_every_face_has_its_picture_and_the_moments_are_the_brute_forces(name, faces):
    sample = judged(name)
    assert sorted(sample.evidence.thumbnails) == [each["track"] for each in sample.record["faces"]]
    assert len(sample.evidence.thumbnails) == faces
    found = [(m.pts_s, m.track, m.p_frame) for m in sample.evidence.moments]
    assert found == brute_force(sample.results, 3)
    assert bool(found) == bool(faces)


@pytest.mark.parametrize("name", ["fake.mp4", "two_faces.mp4"])
def test_the_crop_of_a_moment_is_what_the_model_saw(name):
    for moment in judged(name).evidence.moments:
        assert model().scorer.score(moment.crop[None])[0] == pytest.approx(moment.p_frame, abs=1e-5)


def test_a_thumbnail_of_a_real_face_is_cut_from_a_frame_of_the_clip():
    sample = judged("fake.mp4")
    (thumbnail,) = sample.evidence.thumbnails.values()
    cuts = [
        crop_faces(result.frame.bgr, np.array([each.xyxy], np.float32), THUMBNAIL_PX, 1.5)[0]
        for result in sample.results
        for each in result.verdict.faces
    ]
    assert any(np.array_equal(thumbnail, cut) for cut in cuts)


def test_the_timeline_is_that_of_the_clip():
    sample = judged("fake.mp4")
    timeline, card = sample.evidence.timeline, model().card
    assert timeline.frames == sample.record["frames"]
    assert (timeline.real_below, timeline.fake_above) == (card.thresholds.real_below, card.thresholds.fake_above)
    assert np.nanmax(timeline.p_fake) == pytest.approx(max(result.verdict.p_fake for result in sample.results))


def test_a_moment_is_explained_by_the_model_that_scored_it():
    moment = judged("fake.mp4").evidence.moments[0]
    told = explained(moment, model())
    heat = occlusion_map(model().scorer, moment.crop)
    assert told.moment is moment
    assert told.region == region_name(heat, model().card.crop_margin)
    np.testing.assert_array_equal(told.heat, heat_picture(moment.crop, heat))
