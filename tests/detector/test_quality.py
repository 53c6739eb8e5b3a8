import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.crop import crop_faces
from detector.quality import flaw, sharpness, turn
from detector.types import Reason
from tests.doubles import make_faces, noise, square

SIZE = 128


def judged(bgr, side=120.0, keypoints=None):
    """What is wrong with the face in the middle of ``bgr``, cut as the engine cuts it."""
    height, width = bgr.shape[:2]
    faces = make_faces(square((width - side) / 2, (height - side) / 2, side))
    crop = crop_faces(bgr, faces.xyxy, SIZE, 1.2)[0]
    return flaw(crop, faces.xyxy[0], faces.keypoints[0] if keypoints is None else keypoints)


def head(nose):
    """Keypoints of a face 200 px from ear to ear whose nose is at ``nose``: -1 the right ear, 1 the left one."""
    points = np.zeros((6, 2), np.float32)
    points[2], points[4], points[5] = (100 * nose, 0), (-100, 0), (100, 0)
    return points


def test_a_sharp_lit_frontal_face_of_some_size_has_no_flaw():
    assert judged(noise()) is None


def test_below_64_pixels_a_face_is_too_small():
    assert judged(noise(), side=63) is Reason.TOO_SMALL
    assert judged(noise(), side=64) is None


def test_the_longer_side_counts():
    faces = make_faces((100, 100, 150, 170))
    crop = crop_faces(noise(), faces.xyxy, SIZE, 1.2)[0]
    assert flaw(crop, faces.xyxy[0], faces.keypoints[0]) is None


def test_a_dark_face_is_too_dark_though_what_is_around_it_is_not():
    dark = noise() // 8
    assert judged(dark) is Reason.DARK
    around = np.full_like(dark, 255)
    middle = (slice(120, 240), slice(260, 380))
    around[middle] = dark[middle]
    assert judged(around) is Reason.DARK


def soft(size_wh=(640, 360)):
    """A picture of strong contrast in which nothing is smaller than 80 px."""
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), np.uint8)
    return cv2.resize(coarse, size_wh, interpolation=cv2.INTER_LINEAR)


def test_a_blurred_face_is_blurred_and_a_dim_one_is_not():
    assert judged(soft()) is Reason.BLURRED
    assert judged(noise() // 3 + 20) is None


def test_a_flat_picture_is_blurred():
    assert judged(np.full((360, 640, 3), 128, np.uint8)) is Reason.BLURRED


@pytest.mark.parametrize("nose", [-0.95, -0.7, 0.7, 0.95])
def test_a_nose_near_one_ear_is_turned_away_to_either_side(nose):
    assert judged(noise(), keypoints=head(nose)) is Reason.TURNED_AWAY


@pytest.mark.parametrize("nose", [-0.6, 0, 0.6])
def test_a_face_that_looks_about_here_is_not(nose):
    assert judged(noise(), keypoints=head(nose)) is None


def test_the_size_is_told_before_the_blur_that_comes_with_it():
    assert judged(soft(), side=40) is Reason.TOO_SMALL


coordinates = st.floats(-2000, 2000, width=32)


@given(st.lists(st.tuples(coordinates, coordinates), min_size=6, max_size=6))
def test_turn_is_between_minus_1_and_1_and_odd_under_a_mirror(points):
    keypoints = np.array(points, np.float32)
    mirrored = keypoints[[1, 0, 2, 3, 5, 4]] * np.array([-1, 1], np.float32)
    assert -1.001 <= turn(keypoints) <= 1.001
    assert turn(mirrored) == pytest.approx(-turn(keypoints), abs=1e-5)


@pytest.mark.parametrize("nose", [-1, -0.5, 0, 0.25, 1])
def test_turn_is_where_the_nose_is_between_the_ears(nose):
    assert turn(head(nose)) == pytest.approx(nose, abs=1e-6)


def test_keypoints_all_in_one_place_are_no_turn():
    assert turn(np.zeros((6, 2), np.float32)) == 0


@pytest.mark.parametrize("gain", [0.2, 3.0])
def test_sharpness_does_not_depend_on_contrast_or_brightness(gain):
    grey = noise()[:96, :96, 0].astype(np.float32)
    assert sharpness(grey * gain + 7) == pytest.approx(sharpness(grey), rel=1e-3)


def test_sharpness_falls_with_every_step_of_blur():
    grey = noise()[:96, :96, 0].astype(np.float32)
    steps = [sharpness(grey), *(sharpness(cv2.GaussianBlur(grey, (0, 0), sigma)) for sigma in (1, 2, 4, 8))]
    assert steps == sorted(steps, reverse=True)
    assert sharpness(np.full((96, 96), 5, np.float32)) == 0


def test_sharpness_of_a_checkerboard_is_its_known_value():
    # The Laplacian (-4 in the middle, 1 at each side) of a checkerboard of -1 and 1 is 8 times the board, sign turned.
    rows, columns = np.mgrid[:64, :64]
    board = np.where((rows + columns) % 2, 1, -1).astype(np.float32)
    assert sharpness(board) == pytest.approx(64, rel=0.01)
