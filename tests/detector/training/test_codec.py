import multiprocessing
import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest

from detector.training.codec import PRESETS, Codec, jpeg, reencode

CODECS = list(Codec)


def scene(count=4, size_wh=(96, 80), seed=0):
    """``count`` pictures of a coloured texture that moves 3 px to the right each time, uint8 RGB."""
    width, height = size_wh
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, (width + 3 * count) // 8 + 2, 3), np.uint8)
    fine = rng.normal(0, 6, (height, width + 3 * count, 3))
    wide = cv2.resize(coarse, (width + 3 * count, height), interpolation=cv2.INTER_CUBIC) + fine
    wide = wide.clip(0, 255).astype(np.uint8)
    return [np.ascontiguousarray(wide[:, 3 * (count - i) : 3 * (count - i) + width]) for i in range(count)]


def psnr(frames, others):
    """dB, over all pixels of all pictures."""
    return 10 * np.log10(255**2 / np.mean((np.float64(frames) - np.float64(others)) ** 2))


def flat(levels, size=32):
    return [np.full((size, size, 3), level, np.uint8) for level in levels]


# -------------------------------------------------------------------------------------------------- reencode


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("preset", ["ultrafast", "veryfast", "medium"])
@pytest.mark.parametrize("gop", [1, 3, 250])
def test_as_many_pictures_come_out_and_in_their_order(codec, preset, gop):
    """Also where B-frames are encoded in another order, and where few pictures never fill the look-ahead."""
    for count in (1, 2, 9):
        levels = [20 + 25 * ((5 * i) % 9) for i in range(count)]
        out = reencode(flat(levels), codec, 20, preset, gop)
        assert [round(float(rgb.mean()) / 5) for rgb in out] == pytest.approx([level / 5 for level in levels], abs=1)


@pytest.mark.parametrize("codec", CODECS)
def test_a_higher_crf_costs_quality(codec):
    frames = scene()
    quality = [psnr(frames, reencode(frames, codec, crf)) for crf in (10, 20, 28, 36, 44, 51)]
    assert all(better > worse + 0.3 for better, worse in pairwise(quality)), quality


@pytest.mark.parametrize("codec", CODECS)
def test_at_the_best_crf_only_chroma_and_rounding_are_lost(codec):
    """Grey has no chroma to thin out."""
    grey = [cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for rgb in scene()]
    out = reencode(grey, codec, 0)
    assert np.abs(np.int16(out) - np.int16(grey)).max() <= 3


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "colour", [(200, 30, 30), (30, 200, 30), (30, 30, 200), (240, 200, 180), (0, 0, 0), (255,) * 3]
)
def test_colours_come_back(codec, colour):
    """To where 8-bit limited range can hold them, whatever the size: no guess between BT.601 and BT.709."""
    for height, width in ((32, 32), (720, 1280)):
        out = reencode([np.full((height, width, 3), colour, np.uint8)], codec, 10, "ultrafast")[0]
        assert np.abs(out.reshape(-1, 3).mean(0) - colour).max() < 3


def test_brightness_does_not_tell_what_went_through_a_codec():
    frames = scene(2, (256, 256))
    drift = np.float64(reencode(frames, Codec.H264, 0)).mean() - np.float64(frames).mean()
    assert abs(drift) < 0.5


def test_chroma_is_the_mean_of_four_pixels():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 100, 100), (100, 100, 200)
    out = reencode([stripes], Codec.H264, 0)[0].astype(float).mean((0, 1))
    assert out == pytest.approx([150, 100, 150], abs=3)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size_wh", [(1, 1), (15, 33), (33, 15), (48, 40), (97, 81), (2, 64)])
def test_any_size_comes_back_as_it_was(codec, size_wh):
    frames = scene(3, size_wh)
    out = reencode(frames, codec, 12)
    assert {(rgb.shape, rgb.dtype, rgb.flags.c_contiguous) for rgb in out} == {
        (frames[0].shape, np.dtype("uint8"), True)
    }
    assert psnr(frames, out) > 20


@pytest.mark.parametrize("codec", CODECS)
def test_an_odd_edge_is_as_good_as_the_rest(codec):
    frames = [cv2.GaussianBlur(rgb, (9, 9), 3) for rgb in scene(2, (97, 81))]
    out = reencode(frames, codec, 20)
    edge = psnr([rgb[-2:] for rgb in frames], [rgb[-2:] for rgb in out])
    assert edge > psnr(frames, out) - 4


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_pictures_give_the_same_result_and_stay_as_they_are(codec):
    frames = scene()
    before = [rgb.copy() for rgb in frames]
    first, second = reencode(frames, codec, 30), reencode(frames, codec, 30)
    assert np.array_equal(first, second)
    assert np.array_equal(frames, before)
    assert not any(np.shares_memory(a, b) for a in first for b in frames)


def test_views_and_read_only_pictures_are_taken():
    bgr = np.stack(scene())
    bgr.flags.writeable = False
    assert np.array_equal(
        reencode(bgr[..., ::-1], Codec.H264, 30), reencode(np.ascontiguousarray(bgr[..., ::-1]), Codec.H264, 30)
    )


@pytest.mark.parametrize("codec", CODECS)
def test_a_still_scene_flickers_only_where_every_picture_is_a_key_frame(codec):
    """Noise too faint for the rate is skipped in pictures made from the one before, and coded anew in key frames."""
    rng, still = np.random.default_rng(1), np.int16(scene(1)[0])
    frames = [(still + rng.integers(-3, 4, still.shape)).clip(0, 255).astype(np.uint8) for _ in range(6)]

    def flicker(gop):
        return np.abs(np.diff(np.int16(reencode(frames, codec, 36, gop=gop)), axis=0)).mean()

    assert flicker(gop=1) > 3 * flicker(gop=250)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("codec", CODECS)
def test_every_preset_is_known_to_both_encoders(codec, preset):
    assert len(reencode(flat([50, 60], 16), codec, 28, preset)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "at least one picture"),
        ({"frames": [*flat([1]), *flat([1], 34)]}, "size of the first"),
        ({"frames": [np.zeros((32, 32), np.uint8)]}, r"uint8 \(H, W, 3\)"),
        ({"frames": [np.zeros((32, 32, 3), np.float32)]}, "float32"),
        ({"frames": [np.zeros((0, 32, 3), np.uint8)]}, "not empty"),
        ({"codec": "vp9"}, "codec must be one of h264, h265, got 'vp9'"),
        ({"crf": -1}, "crf must be 0 to 51, got -1"),
        ({"crf": 52}, "crf must be 0 to 51, got 52"),
        ({"preset": "fastest"}, "preset must be one of ultrafast.*got 'fastest'"),
        ({"gop": 0}, "gop must be at least 1, got 0"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_edge(changes, message):
    arguments = {"frames": flat([1]), "codec": Codec.H264, "crf": 28} | changes
    with pytest.raises(ValueError, match=message):
        reencode(**arguments)


# ------------------------------------------------------------------------------------- processes, logs, memory


@pytest.mark.parametrize("start", ["fork", "spawn"])
# From Python 3.12 on, forking is warned of wherever a library has threads. It is what training does by default.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_get_the_same_result(start):
    frames = scene()
    here = [reencode(frames, codec, 30) for codec in CODECS]  # so that a fork inherits codecs that were used
    with multiprocessing.get_context(start).Pool(2) as workers:
        waiting = [workers.apply_async(reencode, (frames, codec, 30)) for codec in CODECS * 2]
        there = [result.get(timeout=60) for result in waiting]
    assert np.array_equal(there, here * 2)


def test_pictures_of_any_size_are_the_same_in_every_process():
    """Sides that are no multiple of a macroblock, and several pictures: where x264 once took what lay in memory."""
    code = (
        "import hashlib, os; import numpy as np; from detector.training.codec import Codec, reencode; "
        "from tests.detector.training.test_codec import scene; "
        "junk = [np.full(9_000_000, os.getpid() % 251, np.uint8) for _ in range(4)]; del junk; "
        "sizes = [(184, 184), (148, 148), (164, 164), (150, 90)]; "
        "out = [reencode(scene(3, size, seed), Codec.H264, 24) for size in sizes for seed in range(5)]; "
        "print(hashlib.sha256(b''.join(rgb.tobytes() for frames in out for rgb in frames)).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(4)]
    assert len({run.stdout for run in runs}) == 1


def test_nothing_is_written_to_the_terminal():
    """Not by x265 either, which writes past every log; and not at exit."""
    code = (
        "import numpy as np; from detector.training.codec import Codec, reencode; "
        "frames = [np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)] * 5; "
        "[reencode(frames, codec, crf, preset) for codec in Codec for crf in (0, 28, 51) "
        "for preset in ('ultrafast', 'veryfast', 'medium')]"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert (run.stdout, run.stderr) == ("", "")


@pytest.mark.parametrize("codec", CODECS)
def test_memory_threads_and_files_do_not_grow(codec):
    psutil = pytest.importorskip("psutil")
    frames, process = scene(2, (128, 128)), psutil.Process()

    def used(calls):
        for _ in range(calls):
            reencode(frames, codec, 30, "ultrafast")
        return process.memory_info().rss, process.num_threads(), process.num_fds()

    rss, threads, files = used(20)
    later_rss, later_threads, later_files = used(60)
    # One picture kept of each call would be 3 MB.
    assert later_rss - rss < 2e6
    assert later_threads <= threads
    assert later_files <= files


# ------------------------------------------------------------------------------------------------------ jpeg


def test_jpeg_is_what_opencv_writes_of_the_same_picture():
    rgb = scene(1)[0]
    for quality in (1, 40, 100):
        _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert np.array_equal(jpeg(rgb, quality), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def test_jpeg_thins_out_chroma_as_cameras_do():
    rgb = scene(1)[0]
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80, *sampling])
    assert np.array_equal(jpeg(rgb, 80), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def test_a_lower_jpeg_quality_costs_quality_and_leaves_the_picture_as_it_is():
    rgb = scene(1)[0]
    before = rgb.copy()
    quality = [psnr([rgb], [jpeg(rgb, q)]) for q in (95, 70, 40, 10)]
    assert quality == sorted(quality, reverse=True)
    assert np.array_equal(rgb, before)


@pytest.mark.parametrize(("size_wh"), [(1, 1), (17, 9)])
def test_jpeg_keeps_any_size(size_wh):
    assert jpeg(scene(1, size_wh)[0], 50).shape == (size_wh[1], size_wh[0], 3)


@pytest.mark.parametrize("quality", [0, 101])
def test_a_jpeg_quality_out_of_range_is_refused(quality):
    with pytest.raises(ValueError, match=f"quality must be 1 to 100, got {quality}"):
        jpeg(scene(1)[0], quality)


def test_jpeg_refuses_what_is_no_picture():
    with pytest.raises(ValueError, match="uint8"):
        jpeg(np.zeros((4, 4), np.uint8), 50)
