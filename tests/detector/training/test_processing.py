"""Camera and platform: every step does its own thing, both halves of a pair get the same."""

import numpy as np
import pytest

from detector.training.codec import Codec
from detector.training.processing import Processing
from tests.detector.training.made import make_rgb

RGB = make_rgb((141, 123))
STEPS = {
    "gain": {"gain": 0.3},
    "gamma": {"gamma": 1.3},
    "saturation": {"saturation": 0.2},
    "tint": {"tint_rgb": (1.1, 1.0, 0.9)},
    "smooth": {"smooth": 1.0},
    "motion": {"motion_px": 5.0, "motion_angle": 0.5},
    "blur": {"blur": 1.5},
    "noise": {"noise": 6.0},
    "scale": {"scale": 0.4},
    "h264": {"codec": Codec.H264, "quality": 34, "drift_xy": (0.5, -0.7)},
    "h265": {"codec": Codec.H265, "quality": 34},
    "jpeg": {"jpeg_quality": 40},
    "sharpen": {"sharpen": 1.0},
}


def finest(rgb):
    """Energy of the difference between neighbours."""
    return float((np.diff(rgb.astype(float), axis=1) ** 2).mean())


@pytest.mark.parametrize("step", STEPS)
def test_a_step_changes_the_picture_and_not_its_shape(step):
    before = RGB.copy()
    out = Processing(**STEPS[step]).apply(RGB)
    assert out.shape == RGB.shape
    assert out.dtype == np.uint8
    assert (out != RGB).any()
    np.testing.assert_array_equal(RGB, before)


def test_no_step_changes_nothing():
    np.testing.assert_array_equal(Processing().apply(RGB), RGB)


@pytest.mark.parametrize("step", ["smooth", "motion", "blur", "scale", "h264", "h265", "jpeg"])
def test_what_loses_detail_loses_detail(step):
    assert finest(Processing(**STEPS[step]).apply(RGB)) < finest(RGB)


@pytest.mark.parametrize("step", ["noise", "sharpen"])
def test_what_adds_detail_adds_detail(step):
    assert finest(Processing(**STEPS[step]).apply(RGB)) > finest(RGB)


def test_the_gain_is_in_linear_light():
    grey = np.full((8, 8, 3), 200, np.uint8)
    expected = round(255 * ((200 / 255) ** 2.2 * 0.25) ** (1 / 2.2))
    assert Processing(gain=0.25).apply(grey).mean() == expected


def test_noise_has_the_spread_asked_for():
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert Processing(noise=5.0).apply(grey).std() == pytest.approx(5, rel=0.03)


def test_without_saturation_nothing_has_a_colour():
    out = Processing(saturation=0.0).apply(RGB)
    assert np.ptp(out, axis=2).max() == 0


def test_a_way_is_the_same_for_both_halves():
    """What is drawn is in the object: applied to one picture twice it gives one result, noise included."""
    for seed in range(12):
        way = Processing.draw(np.random.default_rng(seed))
        np.testing.assert_array_equal(way.apply(RGB), way.apply(RGB.copy()))


def test_strength_0_draws_nothing_and_1_draws_everything_at_times():
    rng = np.random.default_rng(0)
    for _ in range(50):
        np.testing.assert_array_equal(Processing.draw(rng, 0.0).apply(RGB), RGB)
    drawn = [Processing.draw(rng) for _ in range(400)]
    plain = Processing()
    for name in (
        "gain",
        "gamma",
        "saturation",
        "tint_rgb",
        "smooth",
        "motion_px",
        "blur",
        "noise",
        "scale",
        "codec",
        "jpeg_quality",
        "sharpen",
    ):
        assert sum(getattr(way, name) != getattr(plain, name) for way in drawn) > 5, name
    assert {way.codec for way in drawn} == {None, *Codec}
