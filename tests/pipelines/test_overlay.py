import string
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.types import FaceVerdict, Frame, FrameResult, Label, Reason, Timing, Verdict
from pipelines.drawing import LABEL_COLOURS, box, fit_text, icon, put_text, text_width
from pipelines.overlay import draw
from pipelines.strip import bar_picture
from pipelines.timeline import SEVERITY, Timeline
from tests.pipelines.results import SCORES, make_face, make_picture, make_result

JUDGED = (Label.REAL, Label.FAKE, Label.UNSURE)
SIZES = ((1, 1), (16, 9), (160, 120), (320, 240), (720, 1280), (1280, 720), (3840, 2160))


def timeline_of(*results, **options):
    timeline = Timeline(0.3, 0.7, **options)
    for result in results:
        timeline.add(result)
    return timeline


def scored(p_fake, index, label=Label.REAL):
    return make_result(label, index=index, faces=(make_face(label=label, p_fake=p_fake),))


def colour_count(bgr, label):
    return int((bgr == np.array(LABEL_COLOURS[label], np.uint8)).all(axis=2).sum())


# ------------------------------------------------------------------------------------------------ the picture


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("label", Label)
def test_any_size_is_drawn_on_a_copy(label, size):
    picture = make_picture(*size)
    result = make_result(label, bgr=picture)
    out = draw(picture, result, timeline_of(result), 33.3)
    assert out.shape == picture.shape
    assert out.dtype == np.uint8
    assert (picture == 90).all()
    assert colour_count(out, label) > 0


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)
boxes = st.tuples(numbers, numbers, numbers, numbers)
faces = st.lists(
    st.builds(
        lambda xyxy, label, p: FaceVerdict(123456, xyxy, label, Reason.BETWEEN, p, None),
        boxes,
        st.sampled_from(JUDGED),
        st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), faces, st.floats(0, 1e7), st.none() | st.floats(0.1, 1e3))
def test_no_box_size_or_latency_breaks_it(width, height, faces, total_ms, budget_ms):
    verdict = Verdict(Label.UNSURE, Reason.BETWEEN, None, tuple(faces))
    frame = Frame(make_picture(width, height), 0, 0, 0)
    result = FrameResult(frame, verdict, Timing(0, 0, 0, total_ms), 10**7, True, "m")
    assert draw(frame.bgr, result, timeline_of(result), budget_ms).shape == (height, width, 3)


def test_a_picture_that_is_not_contiguous_is_fine():
    picture = make_picture(640, 480)[:, ::-1][::2]
    result = make_result(Label.REAL, bgr=picture)
    assert draw(picture, result, timeline_of(result), None).shape == picture.shape


def test_a_face_under_the_banner_keeps_its_label_in_sight():
    picture = make_picture(640, 480)
    result = make_result(Label.NO_FACE, bgr=picture)
    face = make_face(label=Label.FAKE, xyxy=(200.0, 60.0, 400.0, 300.0))
    with_face = make_result(Label.FAKE, bgr=picture, faces=(face,))
    out = draw(picture, with_face, timeline_of(result), None)
    below_the_box = out[306:330, 200:380]
    assert (below_the_box == 255).all(axis=2).any()


def test_a_late_frame_looks_late():
    picture = make_picture(640, 480)
    in_time = make_result(bgr=picture, timing=Timing(0, 0, 0, 33.0))
    late = make_result(bgr=picture, timing=Timing(0, 0, 0, 34.0))
    timeline = timeline_of(in_time)
    assert colour_count(draw(picture, in_time, timeline, 33.3), Label.UNSURE) == 0
    assert colour_count(draw(picture, late, timeline, 33.3), Label.UNSURE) > 0


def test_threads_that_draw_at_once_draw_the_same():
    picture = make_picture(480, 360)
    result = make_result(Label.FAKE, bgr=picture)
    timeline = timeline_of(result)
    expected = draw(picture, result, timeline, 33.3)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(draw(picture, result, timeline, 33.3), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ------------------------------------------------------------------------------------------------ its parts

# What labels, reasons and numbers are made of; brackets would stick out of the line.
texts = st.text(string.ascii_letters + string.digits + " #/.,:-_", min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(9, 70), st.sampled_from([400, 700]))
def test_the_ink_of_a_text_stays_in_its_line(text, size, weight):
    width = text_width(text, size, weight)
    canvas = np.full((3 * size, width + 4 * size, 3), 128, np.uint8)
    put_text(canvas, text, 2 * size, size, size, weight=weight)
    ys, xs = np.nonzero((canvas != 128).any(axis=2))
    if len(xs):
        # A j reaches left and a slash up, by less than the padding that every text has (a third of its size).
        assert xs.min() >= 2 * size - 1 - 0.1 * size
        assert xs.max() <= 2 * size + width
        assert ys.min() >= size - 2 - 0.1 * size
        assert ys.max() <= size + 1.25 * size


@settings(deadline=None, max_examples=60)
@given(texts, st.integers(9, 70), st.integers(-5, 400))
def test_a_fitted_text_is_never_wider_than_its_room(text, size, room):
    fitted, fitted_size = fit_text(text, size, room)
    assert fitted_size <= size
    assert fitted == "" or text_width(fitted, fitted_size) <= room


def test_a_label_is_told_by_its_line_alone():
    shapes = {}
    for label in JUDGED:
        canvas = make_picture(200, 200)
        box(canvas, 20, 20, 180, 180, label, 3)
        shapes[label] = (canvas == np.array(LABEL_COLOURS[label], np.uint8)).all(axis=2)
    row = {label: shape[100].sum() for label, shape in shapes.items()}
    assert row[Label.FAKE] == 2 * row[Label.REAL]  # a double line
    top = {label: shape[20] for label, shape in shapes.items()}
    assert top[Label.REAL][20:180].all()
    assert 0.2 < top[Label.UNSURE][20:180].mean() < 0.8  # dashes


def test_every_icon_has_its_own_shape():
    shapes = []
    for label in Label:
        canvas = np.zeros((40, 40, 3), np.uint8)
        icon(canvas, label, 4, 4, 32)
        shapes.append(canvas.any(axis=2))
    for i, one in enumerate(shapes):
        assert not any((one == other).mean() > 0.95 for other in shapes[i + 1 :])


def test_the_colours_differ_for_an_eye_without_colour():
    greys = sorted(
        int(cv2.cvtColor(np.uint8([[colour]]), cv2.COLOR_BGR2GRAY)[0, 0])
        for label, colour in LABEL_COLOURS.items()
        if label in JUDGED
    )
    assert min(np.diff(greys)) > 30


# ------------------------------------------------------------------------------------------------ the timeline


@given(st.lists(st.tuples(st.integers(0, 60_000), st.floats(0, 1)), min_size=1, max_size=80))
def test_the_whole_clip_fits_in_its_columns_and_no_peak_is_lost(times_and_scores):
    times_and_scores.sort()
    timeline = Timeline(columns=16)
    for t_ms, p in times_and_scores:
        result = make_result(Label.REAL, pts_ns=t_ms * 1_000_000, faces=(make_face(p_fake=p),))
        timeline.add(result)
    assert len(timeline.p_fake) == len(timeline.severity) <= timeline.axis_columns <= 16
    peak = max(p for _, p in times_and_scores)
    assert np.nanmax(timeline.p_fake) == np.float32(peak)
    start_s, end_s = timeline.axis_s
    assert start_s == 0 <= times_and_scores[-1][0] / 1000 < end_s


def test_one_fake_frame_stays_visible_in_an_hour():
    timeline = Timeline(columns=64)
    for index in range(0, 90_000, 50):
        timeline.add(scored(0.05, index))
    timeline.add(scored(0.95, 90_000, Label.FAKE))
    for index in range(90_050, 180_000, 50):
        timeline.add(scored(0.05, index))
    assert list(timeline.severity).count(SEVERITY.index(Label.FAKE)) == 1
    assert colour_count(bar_picture(timeline, 20, 40), Label.FAKE) > 30


def test_a_window_forgets_what_is_older():
    timeline = Timeline(columns=50, window_s=2.0)
    timeline.add(scored(0.95, 0, Label.FAKE))
    for index in range(1, 100):
        timeline.add(scored(0.1, index))
    assert np.nanmax(timeline.p_fake) < 0.2
    assert timeline.axis_s[1] - timeline.axis_s[0] == pytest.approx(2.0)
    assert timeline.axis_s[0] <= 99 * 0.04 - 1.9
    timeline.add(scored(0.1, 10**6))
    assert len(timeline.p_fake) == 50
    assert np.isnan(timeline.p_fake[:-1]).all()


def test_a_verdict_stands_until_the_next_frame_but_not_over_a_long_hole():
    timeline = timeline_of(scored(0.5, 0), scored(0.6, 10), scored(0.7, 250))
    known = ~np.isnan(timeline.p_fake)
    assert known[:12].all()
    assert not known[15:295].any()
    assert known[-1]


def test_frames_without_a_face_are_hatched_and_faces_without_a_score_leave_a_line():
    no_face = timeline_of(*(make_result(Label.NO_FACE, index=index) for index in range(250)))
    bars = bar_picture(no_face, 100, 40)
    assert 0.1 < colour_count(bars, Label.NO_FACE) / 4000 < 0.4
    unscored = make_result(Label.UNSURE, faces=(FaceVerdict(1, (0, 0, 9, 9), Label.UNSURE, Reason.DARK, None, None),))
    bars = bar_picture(timeline_of(unscored), 300, 40)
    assert colour_count(bars, Label.UNSURE) > 0
    assert not bars[:-1].any()


@pytest.mark.parametrize("label", JUDGED)
def test_a_bar_is_as_high_as_the_score(label):
    results = [scored(SCORES[label], index, label) for index in range(250)]
    bars = bar_picture(timeline_of(*results), 100, 101)
    assert bars[:, 50].any(axis=1).sum() == pytest.approx(100 * SCORES[label] + 1, abs=1)


def test_a_time_before_the_last_does_no_harm():
    timeline = timeline_of(scored(0.5, 100), scored(0.9, 3))
    assert np.nanmax(timeline.p_fake) == np.float32(0.9)
    assert timeline.frames == 2


def test_drops_are_counted():
    timeline = timeline_of(make_result(dropped=2), make_result(index=3, dropped=1))
    assert timeline.dropped == 3


@pytest.mark.parametrize("options", [{"columns": 7}, {"columns": 0}, {"window_s": 0.0}])
def test_senseless_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        Timeline(**options)
