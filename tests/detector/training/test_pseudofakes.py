"""Forgeries: they change the face and leave the rest, repeat by their seed, and do what their source says."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.training import pseudofakes
from detector.training.pseudofakes import FROM_ONE_FACE, FROM_TWO_FACES, blend, paste, similarity, swap
from detector.training.regions import JAW, LIPS, LOWER_LIP, OVAL, field, hull_mask, soften
from tests.detector.training.made import make_points, make_rgb

RGB, POINTS = make_rgb(), make_points()
DONOR, DONOR_POINTS = make_rgb(seed=9), make_points((110, 130), 100, seed=9)


def forge(kind, seed):
    rng = np.random.default_rng(seed)
    if kind in FROM_TWO_FACES:
        return FROM_TWO_FACES[kind](RGB, POINTS, DONOR, DONOR_POINTS, rng)
    return FROM_ONE_FACE[kind](RGB, POINTS, rng)


KINDS = (*FROM_ONE_FACE, *FROM_TWO_FACES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_forgery_is_a_picture_of_the_same_shape_that_differs(kind):
    for seed in range(8):
        before = RGB.copy(), POINTS.copy()
        real, fake = forge(kind, seed)
        assert real.shape == fake.shape == RGB.shape
        assert real.dtype == fake.dtype == np.uint8
        assert (real != fake).any()
        np.testing.assert_array_equal(before[0], RGB)
        np.testing.assert_array_equal(before[1], POINTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_forgery(kind):
    for a, b in zip(forge(kind, 5), forge(kind, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(forge(kind, 5), forge(kind, 6), strict=True))


@pytest.mark.parametrize("kind", ["self_blend", "reenact", "swap", "paste"])
def test_nothing_changes_away_from_the_face(kind):
    """The corners of the picture lie half a face away from the oval."""
    for seed in range(12):
        real, fake = forge(kind, seed)
        for corner in (np.s_[:25, :25], np.s_[:25, -25:], np.s_[-25:, :25], np.s_[-25:, -25:]):
            assert np.abs(real[corner].astype(int) - fake[corner]).max() <= 1


def test_reenactment_and_swaps_leave_the_real_half_alone():
    for kind in ("reenact", "reconstruct", "swap", "paste"):
        np.testing.assert_array_equal(forge(kind, 1)[0], RGB)


def test_self_blending_changes_the_real_half_with_the_lower_layer():
    """Else a change of colour around the face would give the fake away."""
    reals = [forge("self_blend", seed)[0] for seed in range(20)]
    touched = [(real != RGB).any() for real in reals]
    assert any(touched)
    assert not all(touched)


@pytest.mark.parametrize("forge_with", [swap, paste])
def test_a_swap_and_a_paste_bring_the_donor(forge_with):
    """In the middle of the face the fake is nearer to the aligned donor, in shape, than to the real face."""
    donor = np.zeros_like(DONOR)
    donor[::8] = 255  # stripes, which no colour transfer takes away
    stripes = 0
    for seed in range(10):
        _, fake = forge_with(RGB, POINTS, donor, DONOR_POINTS, np.random.default_rng(seed))
        rows = fake[100:140, 105:135].mean(axis=(1, 2))
        plain = RGB[100:140, 105:135].mean(axis=(1, 2))
        stripes += np.diff(rows).std() > 1.5 * np.diff(plain).std()
    assert stripes >= 8


def test_a_face_pasted_over_itself_has_lost_nothing():
    """Where there is nothing to align and to colour, only a loss of detail could be seen: a swap has one."""

    def worst(forge_with, seed):
        real, fake = forge_with(RGB, POINTS, RGB, POINTS, np.random.default_rng(seed))
        return np.abs(real.astype(int) - fake).max()

    assert max(worst(paste, seed) for seed in range(12)) <= 6  # the way to LAB and back
    assert np.median([worst(swap, seed) for seed in range(12)]) > 12


@given(angle=st.floats(-3, 3), scale=st.floats(0.2, 5), shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
def test_the_best_similarity_is_found(angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    move = similarity(POINTS, (POINTS @ turn.T + shift).astype(np.float32))
    np.testing.assert_allclose(move[:, :2], turn, atol=1e-3 * scale + 1e-4)
    np.testing.assert_allclose(POINTS @ move[:, :2].T + move[:, 2], POINTS @ turn.T + shift, atol=0.05)


def test_a_similarity_of_unlike_shapes_beats_its_neighbours():
    rng = np.random.default_rng(0)
    target = (POINTS + rng.normal(0, 8, POINTS.shape)).astype(np.float32)
    move = similarity(POINTS, target)

    def error(m):
        return ((POINTS @ m[:, :2].T + m[:, 2] - target) ** 2).sum()

    for da, db in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)):
        other = move.copy()
        other[:, :2] += np.array([[da, -db], [db, da]])
        other[:, 2] = target.mean(axis=0) - other[:, :2] @ POINTS.mean(axis=0)
        assert error(move) < error(other)


def test_blending_is_the_formula():
    mask = np.random.default_rng(0).random(RGB.shape[:2]).astype(np.float32)
    expected = mask[..., None] * DONOR.astype(float) + (1 - mask[..., None]) * RGB
    np.testing.assert_allclose(blend(DONOR, RGB, mask), expected, atol=0.51)


@given(st.integers(0, 10_000), st.sampled_from([OVAL, JAW, LIPS]))
def test_a_soft_mask_is_between_0_and_1_and_near_its_hull(seed, hull):
    hard = hull_mask(POINTS, hull, RGB.shape[:2])
    mask = soften(hard, RGB.shape[:2], np.random.default_rng(seed))
    assert mask.shape == RGB.shape[:2]
    assert mask.min() >= 0
    assert mask.max() <= 1 + 1e-6
    near = cv2.dilate(cv2.resize(hard, RGB.shape[1::-1]), np.ones((71, 71)))
    assert mask[near == 0].max(initial=0) < 0.02


def test_a_hull_mask_covers_its_points_and_no_more():
    hard = cv2.resize(hull_mask(POINTS, OVAL, RGB.shape[:2]), RGB.shape[1::-1])
    inside = np.pi / 4 * np.ptp(POINTS[list(OVAL)], axis=0).prod()
    assert hard.sum() == pytest.approx(inside, rel=0.06)


def test_a_field_follows_its_points_and_fades():
    moves = np.zeros_like(POINTS)
    moves[list(LOWER_LIP)] = (0, 10)
    flow = field(POINTS, moves, RGB.shape[:2], reach=8)
    lip = POINTS[list(LOWER_LIP)].mean(axis=0).round().astype(int)
    assert flow[lip[1], lip[0], 1] > 1
    assert np.abs(flow[:20]).max() < 0.1
    assert np.abs(flow[..., 0]).max() < 1e-6


def test_losing_detail_takes_the_finest_away():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    spectra = [
        np.abs(np.fft.fft2(p[..., 0].astype(float) - 128))[100, 100]
        for p in (noise, pseudofakes.lose_detail(noise, 0.4, np.random.default_rng(1)))
    ]
    assert spectra[1] < 0.35 * spectra[0]
