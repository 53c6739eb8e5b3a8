"""What is special about images as frames: order, names, orientation, files that cannot be read."""

import struct

import cv2
import numpy as np
import pytest

from detector.types import NothingToAnalyseError, UsageError
from pipelines.sources import ImageFolder
from tests import clips


def write_image(path, index=0, **options):
    path.write_bytes(cv2.imencode(path.suffix, clips.picture(index, **options))[1].tobytes())
    return path


def read(paths, **options):
    with ImageFolder(paths, **options) as source:
        return list(source), source


def exif(orientation):
    """A JPEG segment that says how the picture was held."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01" + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def test_numbers_in_names_sort_as_numbers(tmp_path):
    paths = [write_image(tmp_path / f"img{i}.png", i) for i in (10, 2, 1)]
    frames, _ = read(paths)
    assert [clips.mark(frame.bgr) for frame in frames] == [1, 2, 10]


def test_times_follow_the_rate(tmp_path):
    frames, source = read([write_image(tmp_path / f"{i}.png") for i in range(4)], fps=24)
    assert [frame.pts_ns for frame in frames] == [0, 41_666_667, 83_333_333, 125_000_000]
    assert (source.info.fps, source.info.frames) == (24, 4)


@pytest.mark.parametrize("name", ["имя.png", "100%.jpg", "a b.bmp", "x.webp"])
def test_any_file_name_works(tmp_path, name):
    frames, _ = read([write_image(tmp_path / name)])
    assert clips.quadrants(frames[0].bgr) == clips.UPRIGHT


@pytest.mark.parametrize(
    ("orientation", "held"),
    [
        (1, lambda bgr: bgr),
        (3, lambda bgr: np.rot90(bgr, 2)),
        (6, lambda bgr: np.rot90(bgr, 1)),
        (8, lambda bgr: np.rot90(bgr, -1)),
        (2, lambda bgr: bgr[:, ::-1]),
    ],
)
def test_photographs_come_out_upright(tmp_path, orientation, held):
    stored = cv2.imencode(".jpg", np.ascontiguousarray(held(clips.picture(0))))[1].tobytes()
    path = tmp_path / "photo.jpg"
    path.write_bytes(stored[:2] + exif(orientation) + stored[2:])
    frames, source = read([path])
    assert clips.quadrants(frames[0].bgr) == clips.UPRIGHT
    assert source.info.size_wh == clips.SIZE_WH


@pytest.mark.parametrize("pixels", [np.full((9, 7), 80, np.uint8), np.full((9, 7, 4), 80, np.uint8)])
def test_grey_and_transparent_images_become_bgr(tmp_path, pixels):
    cv2.imwrite(str(tmp_path / "x.png"), pixels)
    frames, _ = read([tmp_path / "x.png"])
    assert frames[0].bgr.shape == (9, 7, 3)
    assert (frames[0].bgr == 80).all()


def test_files_that_cannot_be_read_are_skipped_counted_and_keep_their_index(tmp_path):
    for i in (1, 3):
        write_image(tmp_path / f"{i}.png", i)
    (tmp_path / "0.png").write_bytes(b"no image")
    (tmp_path / "2.png").touch()
    frames, source = read([tmp_path / f"{i}.png" for i in range(5)])
    assert [(frame.index, clips.mark(frame.bgr)) for frame in frames] == [(1, 1), (3, 3)]
    assert [frame.pts_ns for frame in frames] == [0, 66_666_667]
    assert source.counts.broken == 3


def test_sizes_may_differ(tmp_path):
    paths = [write_image(tmp_path / "0.png"), write_image(tmp_path / "1.png", size_wh=(96, 64))]
    frames, _ = read(paths)
    assert [frame.size_wh for frame in frames] == [(64, 48), (96, 64)]


@pytest.mark.parametrize("names", [[], ["a.png"], ["a.png", "b.png"]])
def test_without_one_readable_image_there_is_nothing_to_analyse(tmp_path, names):
    with pytest.raises(NothingToAnalyseError, match=f"none of {len(names)} images"):
        read([tmp_path / name for name in names])


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_makes_no_times_is_refused(tmp_path, fps):
    with pytest.raises(UsageError, match="above 0"):
        ImageFolder([tmp_path / "a.png"], fps=fps)
