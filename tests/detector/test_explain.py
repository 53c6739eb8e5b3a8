import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detector.crop import crop_faces
from detector.explain import CELLS, STRONG, WEAK, heat_picture, log_odds, occlusion_map, region_name
from detector.faces import MediaPipeFaces
from pipelines.sources import VideoFile
from tests.doubles import ScriptedScorer, noise
from tests.shipped import SAMPLES, model

GREY = np.full((70, 70, 3), 128, np.uint8)
NOISE = noise((140, 140))


def looks_at(where, weight=0.1):
    """A scorer of the contrast in one part of the crop, (rows, columns); it sees nothing else."""
    return ScriptedScorer(lambda crop: 1 / (1 + np.exp(-weight * (float(crop[where].std()) - 20))))


class Recorder(ScriptedScorer):
    """Keeps the crops that it was asked about."""

    def __init__(self):
        self.crops = []
        super().__init__(lambda crop: self.crops.append(crop.copy()) or 0.5)


def covered(crop, cells):
    """The crops that an occlusion map with so many cells asks about, without the first: the crop itself."""
    scorer = Recorder()
    occlusion_map(scorer, crop, cells)
    np.testing.assert_array_equal(scorer.crops[0], crop)
    return scorer.crops[1:]


def one_hot(row, column, cells=CELLS, value=2.0):
    heat = np.zeros((cells, cells), np.float32)
    heat[row, column] = value
    return heat


@pytest.fixture(scope="module")
def faces():
    """Crops of real faces with their keypoints, (S, S, 3) and (6, 2) in 0..1 of the crop."""
    card, found = model().card, []
    finder = MediaPipeFaces()
    for name in ("fake.mp4", "two_faces.mp4"):
        with VideoFile(SAMPLES / name) as source:
            frame = next(iter(source))
        seen = finder.find(frame)
        crops = crop_faces(frame.bgr, seen.xyxy, card.input_size, card.crop_margin)
        for crop, box, keypoints in zip(crops, seen.xyxy, seen.keypoints, strict=True):
            side = card.crop_margin * max(box[2] - box[0], box[3] - box[1])
            found.append((crop, (keypoints - (box[:2] + box[2:]) / 2) / side + 0.5))
        finder.restart()
    finder.close()
    assert len(found) == 3
    return found


# ----------------------------------------------------------------------------------------------- the map


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 5), (3, 3), (6, 2)])
def test_the_part_that_a_scorer_looks_at_is_the_part_that_is_found(row, column):
    side = len(NOISE) // CELLS
    where = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
    heat = occlusion_map(looks_at(where), NOISE)
    assert np.unravel_index(heat.argmax(), heat.shape) == (row, column)
    far = np.hypot(*(np.indices(heat.shape) - np.array([row, column])[:, None, None])) >= 2
    np.testing.assert_allclose(heat[far], 0, atol=1e-5)


def test_a_part_that_speaks_for_real_is_below_zero():
    heat = occlusion_map(looks_at((slice(0, 20), slice(0, 20)), weight=-0.1), NOISE)
    assert heat.argmin() == 0
    assert heat.min() < -1
    assert heat.max() < 1e-5


def test_the_map_of_the_shipped_model_is_that_of_a_plain_loop_over_the_cells(faces):
    scorer, crop = model().scorer, faces[0][0]
    heat = occlusion_map(scorer, crop, 3)
    as_it_is = log_odds(scorer.score(crop[None]))[0]
    by_hand = [as_it_is - log_odds(scorer.score(each[None]))[0] for each in covered(crop, 3)]
    np.testing.assert_allclose(heat.ravel(), by_hand, atol=1e-4)


@pytest.mark.parametrize("cells", [2, 5, 7, 9])
def test_a_cover_hides_its_cell_wholly_and_nothing_half_a_cell_away(cells):
    (blurred,) = covered(NOISE, 1)  # with one cell everything is hidden
    side = len(NOISE) / cells
    middles = np.arange(len(NOISE)) + 0.5
    for i, crop in enumerate(covered(NOISE, cells)):
        away = [np.abs(middles / side - (index + 0.5)) for index in divmod(i, cells)]  # in cells
        furthest = np.maximum(away[0][:, None], away[1])
        hidden, clear = furthest < 0.5, furthest > 1
        np.testing.assert_array_equal(crop[hidden], blurred[hidden])
        np.testing.assert_array_equal(crop[clear], NOISE[clear])
        low, high = np.minimum(NOISE, blurred), np.maximum(NOISE, blurred)
        assert np.all((crop >= low) & (crop <= high))


@pytest.mark.parametrize("stripes", [10, 25])  # as fine as an eye, and finer
def test_the_cover_keeps_the_colours_and_takes_the_features(stripes):
    waves = np.sin(2 * np.pi * stripes * (np.arange(140) + 0.5) / 140)[:, None, None] * (90, 60, 20)
    painted = np.broadcast_to(waves + np.array([120, 80, 40]), (140, 140, 3)).astype(np.uint8)
    (blurred,) = covered(painted, 1)
    np.testing.assert_allclose(blurred.mean((0, 1)), painted.mean((0, 1)), atol=1.5)
    assert np.all(blurred.std((0, 1)) < 0.15 * painted.std((0, 1)))


@given(batch=st.integers(1, 60), cells=st.integers(1, 7))
@settings(max_examples=20)
def test_the_batch_bounds_what_is_scored_at_once_and_changes_nothing_else(batch, cells):
    crop = NOISE[:28, :28]
    scorer = looks_at((slice(4, 18), slice(9, 20)))
    heat = occlusion_map(scorer, crop, cells, batch=batch)
    assert max(scorer.batches) <= batch
    assert sum(scorer.batches) == cells * cells + 1
    np.testing.assert_array_equal(heat, occlusion_map(scorer, crop, cells, batch=1))


def test_the_crop_itself_is_left_alone():
    crop = NOISE.copy()
    occlusion_map(looks_at((slice(0, 50), slice(0, 50))), crop)
    np.testing.assert_array_equal(crop, NOISE)


@pytest.mark.parametrize(
    ("crop", "cells", "batch"),
    [
        (GREY.astype(np.float32), 7, 8),
        (GREY[:, :60], 7, 8),
        (GREY[:, :, :1], 7, 8),
        (GREY, 0, 8),
        (GREY, 71, 8),
        (GREY, 7, 0),
    ],
)
def test_what_makes_no_sense_is_refused(crop, cells, batch):
    with pytest.raises(ValueError, match="got"):
        occlusion_map(ScriptedScorer(), crop, cells, batch=batch)


@given(arrays(np.float32, 8, elements=st.floats(0, 1, width=32)))
def test_log_odds_are_finite_keep_the_order_and_can_be_undone(p):
    odds = log_odds(p)
    assert np.isfinite(odds).all()
    assert np.all(np.diff(odds[np.argsort(p)]) >= 0)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), p, atol=2e-6)


# ----------------------------------------------------------------------------------------------- the picture


def test_where_nothing_matters_the_picture_is_the_crop_in_grey():
    picture = heat_picture(NOISE, np.zeros((7, 7), np.float32), side=140)
    assert (picture.shape, picture.dtype) == ((140, 140, 3), np.uint8)
    assert np.ptp(picture, axis=2).max() == 0
    np.testing.assert_allclose(picture[:, :, 0], NOISE @ [0.299, 0.587, 0.114], atol=1)


def test_orange_speaks_for_fake_and_blue_for_real():
    heat = one_hot(1, 1, value=STRONG) - one_hot(5, 5, value=STRONG)
    picture = heat_picture(GREY, heat, side=280).astype(int)
    red, _, blue = picture[60, 60]  # the middles of the two cells
    assert red > blue + 60
    red, _, blue = picture[220, 220]
    assert blue > red + 60
    assert np.ptp(picture[60, 220]) == np.ptp(picture[220, 60]) == 0


def test_colours_are_as_strong_as_the_odds_up_to_a_limit_and_alike_in_every_picture():
    def strength(value):
        heat = one_hot(3, 3, value=-value)
        return int(np.ptp(heat_picture(GREY, heat, side=63)[31, 31]))  # the very middle of the cell

    strengths = [strength(value) for value in (0.0, 0.25, 0.5, STRONG, 3 * STRONG)]
    assert strengths[0] == 0
    assert strengths[1] == pytest.approx(strengths[3] / 4, abs=2)
    assert strengths[2] == pytest.approx(strengths[3] / 2, abs=2)
    assert strengths[4] == strengths[3]


@given(st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=15)
def test_the_ring_is_around_the_part_that_speaks_most_for_fake(row, column):
    heat = one_hot(row, column, value=WEAK)
    ringed = heat_picture(GREY, heat, side=280).astype(int)
    plain = heat_picture(GREY, np.nextafter(heat, 0, dtype=np.float32), side=280).astype(int)  # a hair weaker: no ring
    rows, columns = np.nonzero(np.abs(ringed - plain).max(axis=2) > 40)
    centre = (np.array([row, column]) + 0.5) * 40
    radius = np.hypot(rows + 0.5 - centre[0], columns + 0.5 - centre[1])
    assert len(radius)
    assert np.all(np.abs(radius - 0.62 * 40) < 6)


def test_a_map_in_which_nothing_speaks_for_fake_has_no_ring():
    picture = heat_picture(GREY, np.full((7, 7), -2, np.float32), side=70)
    assert np.ptp(picture.reshape(-1, 3), axis=0).max() == 0


# ----------------------------------------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("keypoint", "words"),
    [
        (0, "the eye on the left of the picture"),  # the person's right eye
        (1, "the eye on the right of the picture"),
        (2, "the nose"),
        (3, "the mouth"),
    ],
)
def test_parts_of_real_faces_have_their_names(faces, keypoint, words):
    for _, keypoints in faces:
        column, row = (int(value * 21) for value in keypoints[keypoint])
        assert region_name(one_hot(row, column, 21), model().card.crop_margin) == words


def test_a_scorer_that_looks_at_the_mouth_of_a_real_face_is_found_out(faces):
    crop, keypoints = faces[0]
    x, y = (int(value * len(crop)) for value in keypoints[3])
    heat = occlusion_map(looks_at((slice(y - 16, y + 16), slice(x - 20, x + 20)), weight=0.5), crop)
    assert region_name(heat, model().card.crop_margin) == "the mouth"


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (0, 0, "the background or hair around the face"),
        (6, 6, "the background or hair around the face"),
        (6, 3, "the chin and jaw"),
        (1, 3, "the forehead"),
        (3, 1, "the edge of the face"),
        (3, 0, "the background or hair around the face"),
    ],
)
def test_what_lies_around_the_features_has_its_name(row, column, words):
    assert region_name(one_hot(row, column), 1.2) == words


def test_the_margin_of_the_crop_is_taken_into_account():
    assert region_name(one_hot(3, 1), 1.2) == "the edge of the face"
    assert region_name(one_hot(3, 1), 1.8) == "the background or hair around the face"


def test_a_map_in_which_nothing_speaks_for_fake_names_no_part():
    for value in (-3.0, 0.0, WEAK - 0.01):
        assert region_name(np.full((7, 7), value, np.float32), 1.2) == "no single part of the face"


@given(arrays(np.float32, (7, 7), elements=st.floats(-4, 4, width=32), unique=True))
def test_the_mirrored_face_has_the_mirrored_name(heat):
    name = region_name(heat, 1.2)
    swapped = {"left": "right", "right": "left"}
    expected = " ".join(swapped.get(word, word) for word in name.split())
    assert region_name(heat[:, ::-1], 1.2) == expected
