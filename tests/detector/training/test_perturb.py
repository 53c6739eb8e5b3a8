import subprocess
import sys

import cv2
import numpy as np
import pytest

from detector.training.codec import Codec, reencode
from detector.training.perturb import LEVELS, PERTURBATIONS, TIERS, degrade, perturb

LEVEL = range(1, LEVELS + 1)
PUBLISHED = {  # Jiang et al., CVPR 2020, and get_distortion_parameter of its release
    "saturation": (0.4, 0.3, 0.2, 0.1, 0.0),
    "contrast": (0.85, 0.725, 0.6, 0.475, 0.35),
    "blocks": (16, 32, 48, 64, 80),
    "noise": (0.001, 0.002, 0.005, 0.01, 0.05),
    "blur": (7, 9, 13, 17, 21),
    "pixelation": (2, 3, 4, 5, 6),
    "h264": (30, 32, 35, 38, 40),
}


def scene(count=2, size_wh=(160, 120)):
    """``count`` pictures of a coloured texture that moves, uint8 RGB, with levels from 30 to 220."""
    width, height = size_wh
    coarse = np.random.default_rng(0).integers(30, 221, (height // 6 + 2, width // 6 + 2, 3), np.uint8)
    wide = cv2.resize(coarse, (width + 3 * count, height), interpolation=cv2.INTER_LINEAR)
    return [np.ascontiguousarray(wide[:, 3 * i : 3 * i + width]) for i in range(count)]


def grey(level, size_wh=(320, 256)):
    return [np.full((size_wh[1], size_wh[0], 3), level, np.uint8)]


def psnr(frames, others):
    """dB, over all pixels of all pictures."""
    return 10 * np.log10(255**2 / np.mean((np.float64(frames) - np.float64(others)) ** 2))


def differs(frames, others):
    """The largest difference of a pixel."""
    return int(np.abs(np.int16(frames) - np.int16(others)).max())


# --------------------------------------------------------------------------------------- what all have in common


@pytest.mark.parametrize("name", PUBLISHED)
def test_levels_are_those_published(name):
    assert PERTURBATIONS[name].values == PUBLISHED[name]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_higher_level_is_worse(name):
    frames = scene(3, (320, 240))
    quality = [psnr(frames, perturb(frames, name, level, seed=0)) for level in LEVEL]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] > quality[-1] + 1


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("level", [1, 5])
@pytest.mark.parametrize("size_wh", [(97, 81), (64, 300), (7, 5), (1, 1)])
def test_as_many_frames_of_the_same_size_come_out_and_the_input_stays_as_it_is(name, level, size_wh):
    frames = scene(3, size_wh)
    before = [rgb.copy() for rgb in frames]
    out = perturb(frames, name, level, seed=0)
    assert [(rgb.shape, rgb.dtype) for rgb in out] == [(frames[0].shape, np.dtype("uint8"))] * 3
    assert np.array_equal(frames, before)
    assert not any(np.shares_memory(a, b) for a in out for b in frames)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_same_seed_gives_the_same_frames(name):
    frames = scene()
    assert np.array_equal(perturb(frames, name, 3, seed=5), perturb(frames, name, 3, seed=5))


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_only_what_is_drawn_changes_with_the_seed(name):
    frames = scene()
    same = np.array_equal(perturb(frames, name, 3, seed=5), perturb(frames, name, 3, seed=6))
    assert same == (name not in ("blocks", "noise"))


@pytest.mark.parametrize("name", ["blocks", "noise"])
def test_what_is_drawn_is_drawn_anew_for_every_frame(name):
    first, second = perturb(grey(100) * 2, name, 3, seed=0)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "at least one picture"),
        ({"frames": [*grey(1), *grey(1, (8, 8))]}, "size of the first"),
        ({"frames": [np.zeros((8, 8, 3), np.float32)]}, "uint8"),
        ({"name": "fog"}, "name must be one of saturation, .*, got 'fog'"),
        ({"level": 0}, "level must be 1 to 5, got 0"),
        ({"level": 6}, "level must be 1 to 5, got 6"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_edge(changes, message):
    with pytest.raises(ValueError, match=message):
        perturb(**{"frames": grey(1), "name": "blur", "level": 1, "seed": 0} | changes)


def test_torch_is_not_needed():
    code = "import sys, detector.training.perturb; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# ------------------------------------------------------------------------------------------------- one by one


@pytest.mark.parametrize("level", LEVEL)
def test_saturation_scales_chroma_and_keeps_luma(level):
    """Against OpenCV's YCbCr in floating point."""
    rgb = scene(1)[0]
    ycc = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2YCR_CB)  # chroma is centred on 0.5 in float
    ycc[..., 1:] = 0.5 + PUBLISHED["saturation"][level - 1] * (ycc[..., 1:] - 0.5)
    assert differs(perturb([rgb], "saturation", level, 0), [np.rint(cv2.cvtColor(ycc, cv2.COLOR_YCR_CB2RGB))]) <= 1


def test_without_any_saturation_a_picture_is_grey():
    out = perturb(scene(1), "saturation", 5, 0)[0]
    assert np.array_equal(out.max(2), out.min(2))


@pytest.mark.parametrize("level", LEVEL)
def test_contrast_is_a_factor_of_every_grey_level(level):
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    out = perturb([ramp], "contrast", level, 0)[0]
    assert np.abs(out - ramp * PUBLISHED["contrast"][level - 1]).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("level", LEVEL)
@pytest.mark.parametrize(("size_wh", "units"), [((2000, 1999), 7), ((1280, 720), 2), ((300, 200), 1)])
def test_blocks_are_grey_squares_of_8_px_so_many_per_256_px(level, size_wh, units):
    frames = grey(7, size_wh)
    out = perturb(frames, "blocks", level, seed=3)[0]
    hidden = np.all(out == 128, axis=2)
    assert np.all(out[~hidden] == 7)
    most = units * PUBLISHED["blocks"][level - 1] * 64
    # Squares may lie on one another: on average as many pixels stay free as if each fell anywhere.
    free = (1 - 64 / hidden.size) ** (most / 64)
    assert hidden.sum() <= most
    assert hidden.sum() == pytest.approx(hidden.size * (1 - free), rel=0.12)
    covered = np.zeros_like(hidden)
    for y, x in np.argwhere(np.lib.stride_tricks.sliding_window_view(hidden, (8, 8)).all((2, 3))):
        covered[y : y + 8, x : x + 8] = True
    assert np.array_equal(covered, hidden)


def test_blocks_reach_every_edge():
    out = [perturb(grey(7, (40, 30)), "blocks", 5, seed)[0] for seed in range(5)]
    hidden = np.any(np.stack(out)[..., 0] == 128, axis=0)
    assert hidden[0].any()
    assert hidden[-1].any()
    assert hidden[:, 0].any()
    assert hidden[:, -1].any()


@pytest.mark.parametrize("level", [1, 2, 3])
def test_noise_has_the_variance_published_in_each_of_y_cb_and_cr(level):
    """In limited range over 0..1, as the release adds it; higher levels are cut off at black and white."""
    frames = grey(128, (640, 640))
    full = cv2.cvtColor(perturb(frames, "noise", level, seed=1)[0].astype(np.float32), cv2.COLOR_RGB2YCR_CB)
    limited = full.astype(np.float64) * np.array([219, 224, 224]) / 255 / 255
    rounding = np.array([0.4, 0.5, 0.5]) / 12 / 255**2  # of grey levels, weighed as Y, Cr and Cb weigh R, G and B
    variances = limited.reshape(-1, 3).var(axis=0) - rounding
    assert variances == pytest.approx([PUBLISHED["noise"][level - 1]] * 3, rel=0.02)
    assert np.abs(np.corrcoef(limited.reshape(-1, 3).T) - np.eye(3)).max() < 0.01


def test_noise_grows_with_the_level_by_the_root_of_its_variance_and_keeps_the_mean():
    frames = grey(128)
    mild, strong = (np.float64(perturb(frames, "noise", level, seed=1)) - 128 for level in (1, 2))
    assert strong.std() / mild.std() == pytest.approx(2**0.5, rel=0.01)
    assert abs(strong.mean()) < 0.3


@pytest.mark.parametrize("level", LEVEL)
def test_blur_spreads_a_point_over_the_kernel(level):
    size = PUBLISHED["blur"][level - 1]
    point = np.zeros((61, 61, 3), np.uint8)
    point[30, 30] = 255
    x = np.arange(61) - 30
    line = np.where(np.abs(x) <= size // 2, np.exp(-(x**2) / (2 * (size / 6) ** 2)), 0)
    expected = 255 * np.outer(line, line) / line.sum() ** 2
    assert np.abs(perturb([point], "blur", level, 0)[0] - expected[..., None]).max() <= 1.5


def test_blur_is_that_of_opencv():
    rgb = scene(1)[0]
    assert np.array_equal(perturb([rgb], "blur", 3, 0)[0], cv2.GaussianBlur(rgb, (13, 13), 13 / 6))


@pytest.mark.parametrize("level", LEVEL)
def test_pixelation_goes_through_a_picture_of_the_size_published(level):
    divisor, rgb = PUBLISHED["pixelation"][level - 1], scene(1)[0]
    small = cv2.resize(rgb, (160 // divisor, 120 // divisor))
    assert np.array_equal(perturb([rgb], "pixelation", level, 0)[0], cv2.resize(small, (160, 120)))


def test_pixelation_skips_pixels_and_resizing_averages_them():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::4] = 255  # one column of four: a quarter of the light
    pixelated, resized = (perturb([stripes], name, level, 0)[0] for name, level in (("pixelation", 3), ("resize", 4)))
    assert abs(float(resized.mean()) - 255 / 4) < 1
    assert abs(float(pixelated.mean()) - 255 / 4) > 20


@pytest.mark.parametrize("level", LEVEL)
def test_resizing_goes_through_a_picture_that_much_smaller(level):
    """120 x 96 px: whole numbers at every level, so areas are means of blocks."""
    rgb, side = scene(1, (120, 96))[0], PERTURBATIONS["resize"].values[level - 1]
    small = cv2.resize(rgb, (round(120 * side), round(96 * side)), interpolation=cv2.INTER_AREA)
    if level >= 2:
        n = round(1 / side)
        means = rgb.reshape(96 // n, n, 120 // n, n, 3).mean((1, 3))
        assert np.abs(small - means).max() <= 0.5 + 1e-6
    expected = cv2.resize(small, (120, 96), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(perturb([rgb], "resize", level, 0)[0], expected)


@pytest.mark.parametrize("level", LEVEL)
def test_jpeg_has_the_qualities_of_the_protocol(level):
    rgb, quality = scene(1)[0], (90, 70, 50, 40, 30)[level - 1]
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert np.array_equal(perturb([rgb], "jpeg", level, 0)[0], cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("level", LEVEL)
def test_h264_is_that_of_x264_with_its_defaults(level):
    frames = scene(4)
    assert np.array_equal(
        perturb(frames, "h264", level, 0), reencode(frames, Codec.H264, PUBLISHED["h264"][level - 1], "medium", 250)
    )


# ------------------------------------------------------------------------------------------------------ tiers


@pytest.mark.parametrize(
    ("tier", "size_wh", "out_wh"),
    [
        ("as it is", (1280, 720), (1280, 720)),
        ("768 px q60", (1280, 720), (768, 432)),
        ("512 px q40", (720, 1280), (288, 512)),
        ("512 px q40", (300, 200), (300, 200)),
    ],
)
def test_a_tier_limits_the_longer_side_and_never_enlarges(tier, size_wh, out_wh):
    out = degrade(scene(1, size_wh)[0], tier)
    assert (out.shape[1], out.shape[0]) == out_wh


@pytest.mark.parametrize(("tier", "side", "quality"), [("768 px q60", 768, 60), ("512 px q40", 512, 40)])
@pytest.mark.parametrize("size_wh", [(1001, 563), (200, 300)])
def test_a_tier_is_area_averaging_and_then_jpeg_of_the_picture_in_bgr(tier, side, quality, size_wh):
    """To the bit, whichever order of channels a caller has."""
    bgr = np.ascontiguousarray(scene(1, size_wh)[0][..., ::-1])
    scale = side / max(size_wh)
    small = bgr if scale >= 1 else cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert np.array_equal(degrade(bgr[..., ::-1], tier), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_leaves_the_picture_itself_as_it_is(tier):
    rgb = scene(1, (600, 400))[0]
    before = rgb.copy()
    out = degrade(rgb, tier)
    assert np.array_equal(rgb, before)
    assert not np.shares_memory(out, rgb)


def test_the_first_tier_changes_nothing_and_the_last_is_the_worst():
    rgb = scene(1, (500, 400))[0]
    quality = [psnr([rgb], [degrade(rgb, tier)]) for tier in list(TIERS)[1:]]
    assert np.array_equal(degrade(rgb, next(iter(TIERS))), rgb)
    assert quality == sorted(quality, reverse=True)


def test_an_unknown_tier_and_what_is_no_picture_are_refused():
    with pytest.raises(ValueError, match="tier must be one of as it is, 768 px q60, 512 px q40, got '8k'"):
        degrade(grey(1)[0], "8k")
    with pytest.raises(ValueError, match="uint8"):
        degrade(np.zeros((8, 8), np.uint8), "as it is")
