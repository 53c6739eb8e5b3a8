import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detector.crop import crop_faces

PICTURE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


def crop(bgr, box, size, margin=1.0):
    return crop_faces(bgr, np.array([box], np.float32), size, margin)[0]


def photo(width, height):
    """A smooth picture with detail at every place, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(1).integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_a_square_of_exactly_the_size_is_cut_pixel_by_pixel():
    np.testing.assert_array_equal(crop(PICTURE, (20, 30, 52, 62), 32), PICTURE[30:62, 20:52, ::-1])


def test_the_margin_widens_the_longer_side_around_the_centre():
    # 24 x 40 around (50, 45), times 1.2: 48 x 48 from (26, 21)
    np.testing.assert_array_equal(crop(PICTURE, (38, 25, 62, 65), 48, 1.2), PICTURE[21:69, 26:74, ::-1])


def test_crops_are_rgb():
    blue = np.zeros((64, 64, 3), np.uint8)
    blue[..., 0] = 200
    np.testing.assert_array_equal(crop(blue, (10, 10, 50, 50), 16), np.full((16, 16, 3), (0, 0, 200), np.uint8))


@pytest.mark.parametrize("box", [(-10, -10, 30, 30), (100, 70, 140, 110), (-10, 60, 30, 100), (100, -10, 140, 30)])
def test_what_lies_outside_repeats_the_edge(box):
    padded = cv2.copyMakeBorder(PICTURE, 50, 50, 50, 50, cv2.BORDER_REPLICATE)
    left, top, right, bottom = (side + 50 for side in box)
    np.testing.assert_array_equal(crop(PICTURE, box, 40), padded[top:bottom, left:right, ::-1])


def test_a_box_far_outside_shows_the_nearest_corner():
    np.testing.assert_array_equal(crop(PICTURE, (500, 500, 540, 540), 40), np.full((40, 40, 3), PICTURE[-1, -1, ::-1]))


def test_pixels_around_the_square_do_not_leak_into_it():
    inside = np.full((90, 120, 3), 255, np.uint8)
    inside[30:62, 20:52] = 7
    for size in (16, 32, 50):
        np.testing.assert_array_equal(crop(inside, (20, 30, 52, 62), size), 7)


def test_memory_behind_a_view_is_not_read():
    large = np.full((200, 200, 3), 255, np.uint8)
    window = large[50:110, 50:110]
    window[:] = 9
    np.testing.assert_array_equal(crop(window, (-20, -20, 80, 80), 32), 9)


def test_the_picture_itself_is_not_changed_nor_shared():
    before = PICTURE.copy()
    crops = crop_faces(PICTURE, np.array([[20, 30, 52, 62]], np.float32), 32, 1.0)
    crops[:] = 0
    np.testing.assert_array_equal(PICTURE, before)


sides = st.floats(-1000, 1000, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(sides, sides, sides, sides), max_size=3), st.integers(32, 80), st.floats(1, 2))
@example([(0, 0, 0, 0)], 32, 1.0)
@example([(50, 50, 20, 20)], 32, 1.3)  # turned inside out
@example([(0, 0, 0.01, 0.01)], 64, 1.3)
@example([(0, 0, 3000, 1)], 32, 1.0)
def test_any_box_gives_crops_of_the_asked_size(boxes, size, margin):
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    crops = crop_faces(PICTURE, xyxy, size, margin)
    assert crops.shape == (len(boxes), size, size, 3)
    assert crops.dtype == np.uint8
    assert crops.flags.c_contiguous


def test_a_box_many_times_the_picture_costs_no_more_memory_than_a_large_picture():
    tracemalloc.start()
    try:
        crop(PICTURE, (-2000, -2000, 2000, 2000), 32)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("times", [2, 4, 6, 8])
def test_shrinking_by_an_even_number_turns_a_checkerboard_into_flat_grey(times):
    rows, columns = np.mgrid[: 32 * times, : 32 * times]
    board = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    shrunk = crop(board, (0, 0, 32 * times, 32 * times), 32).astype(int)
    assert np.abs(shrunk - 127.5).max() <= 1


@pytest.mark.parametrize("times", [2.0, 2.6, 3.0, 3.7, 5.3])
def test_shrinking_noise_leaves_no_more_of_it_than_area_averaging_does(times):
    side = round(64 * times)
    static = np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8)
    averaged = cv2.resize(static, (64, 64), interpolation=cv2.INTER_AREA)
    assert crop(static, (0, 0, side, side), 64).std() < 1.1 * averaged.std()


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 60), st.integers(20, 60), st.integers(60, 120))
def test_a_picture_twice_as_large_gives_about_the_same_crop(x, y, side):
    small, large = photo(320, 240), photo(640, 480)
    box = np.array([x, y, x + side, y + side])
    difference = crop(small, box, 48).astype(int) - crop(large, 2 * box, 48)
    assert np.abs(difference).mean() < 4


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 200))
def test_the_centre_of_the_box_stays_in_the_centre_whatever_the_scale(side):
    picture = np.zeros((400, 400, 3), np.uint8)
    around = slice(200 - side // 8, 200 + side // 8)
    picture[around, around] = 255
    seen = crop(picture, (200 - side / 2, 200 - side / 2, 200 + side / 2, 200 + side / 2), 64)[..., 0].astype(float)
    half_a_pixel = 0.5 * 64 / side  # the square begins at a whole pixel
    for axis in np.mgrid[:64, :64]:
        assert (seen * axis).sum() / seen.sum() == pytest.approx(31.5, abs=half_a_pixel + 0.25)


def test_crops_of_one_picture_do_not_depend_on_each_other():
    boxes = np.array([[20, 30, 52, 62], [0, 0, 90, 90], [-10, -10, 30, 30]], np.float32)
    together = crop_faces(PICTURE, boxes, 32, 1.3)
    apart = [crop_faces(PICTURE, box[None], 32, 1.3)[0] for box in boxes]
    np.testing.assert_array_equal(together, apart)
