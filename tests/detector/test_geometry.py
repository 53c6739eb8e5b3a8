import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.geometry import iou

whole = st.integers(0, 24)


@st.composite
def boxes(draw, numbers=whole):
    """Boxes xyxy with whole corners on a small canvas, empty ones too: float32 (n, 4)."""
    pairs = draw(st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=5))
    return np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in pairs], np.float32)


def painted(box):
    """The pixels of a box with whole corners, bool (24, 24)."""
    left, top, right, bottom = box.astype(int)
    canvas = np.zeros((24, 24), bool)
    canvas[top:bottom, left:right] = True
    return canvas


@given(boxes(), boxes())
def test_it_is_what_counting_pixels_gives(a, b):
    counted = np.zeros((len(a), len(b)))
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            both, either = painted(one) & painted(other), painted(one) | painted(other)
            counted[i, j] = both.sum() / either.sum() if either.any() else 0
    np.testing.assert_allclose(iou(a, b), counted, rtol=1e-6)


@given(boxes(st.floats(-1e4, 1e4, width=32)), boxes(st.floats(-1e4, 1e4, width=32)))
def test_it_is_symmetric_and_between_0_and_1(a, b):
    overlap = iou(a, b)
    np.testing.assert_array_equal(overlap, iou(b, a).T)
    assert (overlap >= 0).all()
    assert (overlap <= 1).all()


@given(boxes(st.floats(-1e4, 1e4, width=16)))
def test_a_box_covers_itself_wholly_unless_it_is_empty(a):
    area = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    np.testing.assert_array_equal(np.diag(iou(a, a)), (area > 0).astype(np.float32))


def test_boxes_that_touch_or_stand_apart_share_nothing():
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[10, 0, 20, 10], [0, 10, 10, 20], [50, 50, 60, 60]], np.float32)
    np.testing.assert_array_equal(iou(a, b), [[0, 0, 0]])


def test_a_box_turned_inside_out_shares_nothing():
    ordinary = np.array([[0, 0, 10, 10]], np.float32)
    turned = np.array([[8, 0, 2, 10], [8, 8, 2, 2]], np.float32)
    np.testing.assert_array_equal(iou(ordinary, turned), [[0, 0]])


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_no_boxes_give_no_overlaps(n, m):
    overlap = iou(np.zeros((n, 4), np.float32), np.zeros((m, 4), np.float32))
    assert overlap.shape == (n, m)
    assert overlap.dtype == np.float32


def test_a_known_value():
    a = np.array([[0, 0, 2, 2]], np.float32)
    b = np.array([[1, 1, 3, 3]], np.float32)
    assert iou(a, b)[0, 0] == pytest.approx(1 / 7)
