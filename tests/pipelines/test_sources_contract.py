"""What every source of frames promises, checked on all of them."""

import io
import os
import threading
import time
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest

from detector.types import Frame, FrameSource
from pipelines.sources import EncodedStream, ImageFolder, NetworkStream, RawFrames, VideoFile, Webcam
from tests import clips
from tests.fakes import Camera

COUNT = 6
SIZE_WH = clips.SIZE_WH


def raw_bytes(convert=lambda bgr: bgr):
    return b"".join(convert(clips.picture(i)).tobytes() for i in range(COUNT))


def make_file(request):
    return VideoFile(request.getfixturevalue("clip"))


def make_network_file(request):
    server = request.getfixturevalue("server")
    server.file("/clip.mp4", request.getfixturevalue("clip").read_bytes())
    return NetworkStream(server.url("/clip.mp4"))


def make_network_live(request):
    server = request.getfixturevalue("server")
    server.live("/live", [(request.getfixturevalue("transport_stream"), "stall")])
    return NetworkStream(server.url("/live"), read_timeout_s=0.8)


def make_webcam(request):
    return Webcam(0, open_capture=Camera(request.getfixturevalue("clip")).open)


def make_images(request):
    folder = request.getfixturevalue("tmp_path")
    paths = [folder / f"img{i}.png" for i in range(COUNT)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), clips.picture(i))
    return ImageFolder(paths, fps=30)


def make_raw(request):
    return RawFrames(io.BytesIO(raw_bytes()), *SIZE_WH)


def make_raw_rgb(request):
    return RawFrames(io.BytesIO(raw_bytes(lambda bgr: bgr[:, :, ::-1])), *SIZE_WH, pix_fmt="rgb24")


def make_raw_pipe(request):
    """A pipe whose writer stays open and silent behind the last frame."""
    read_end, write_end = os.pipe()
    stream = os.fdopen(read_end, "rb")
    request.addfinalizer(stream.close)
    writer = threading.Thread(target=os.write, args=(write_end, raw_bytes()))
    writer.start()
    request.addfinalizer(lambda: (writer.join(), os.close(write_end)))
    return RawFrames(stream, *SIZE_WH)


def make_encoded(request):
    buffer = io.BytesIO()
    clips.write_clip(buffer, codec="mjpeg", pix_fmt="yuvj420p", container_format="avi")
    return EncodedStream(io.BytesIO(buffer.getvalue()))


MAKERS = [
    make_file,
    make_network_file,
    make_network_live,
    make_webcam,
    make_images,
    make_raw,
    make_raw_rgb,
    make_raw_pipe,
    make_encoded,
]


@pytest.fixture(params=MAKERS, ids=lambda maker: maker.__name__.removeprefix("make_"))
def source(request):
    made: FrameSource = request.param(request)
    return made


def take(source, count=COUNT):
    with source:
        return list(islice(source, count))


def test_gives_frames_of_the_right_pictures_in_order(source):
    frames = take(source)
    assert all(isinstance(frame, Frame) for frame in frames)
    assert [clips.mark(frame.bgr) for frame in frames] == list(range(COUNT))
    assert all(clips.quadrants(frame.bgr) == clips.UPRIGHT for frame in frames)


def test_gives_contiguous_writable_bgr_bytes(source):
    for frame in take(source, 2):
        assert frame.bgr.dtype == np.uint8
        assert frame.size_wh == SIZE_WH
        assert frame.bgr.flags.c_contiguous
        assert frame.bgr.flags.writeable


def test_a_frame_stays_as_it_was_when_later_ones_are_read(source):
    with source:
        frames = iter(source)
        first = next(frames)
        before = first.bgr.copy()
        list(islice(frames, COUNT - 1))
        assert np.array_equal(first.bgr, before)


def test_indices_count_from_zero_and_times_increase_from_zero(source):
    frames = take(source)
    assert [frame.index for frame in frames] == list(range(COUNT))
    times = [frame.pts_ns for frame in frames]
    assert times[0] == 0
    assert all(a < b for a, b in pairwise(times))


def test_frames_are_stamped_with_the_monotonic_clock(source):
    before = time.monotonic_ns()
    frames = take(source)
    stamps = [before, *(frame.captured_ns for frame in frames), time.monotonic_ns()]
    assert stamps == sorted(stamps)


def test_knows_its_name_size_and_rate_once_it_is_open(source):
    with source:
        next(iter(source))
        assert source.info.name
        assert source.info.size_wh == SIZE_WH
        assert source.info.fps == pytest.approx(30)


def test_a_sound_source_has_nothing_to_count(source):
    take(source)
    assert (source.counts.broken, source.counts.reconnects) == (0, 0)


def test_ends_within_a_second_when_stopped_from_another_thread(source):
    with source:
        frames = iter(source)
        next(frames)
        stopper = threading.Timer(0.05, source.stop)
        stopper.start()
        start_s = time.monotonic()
        for _ in frames:
            time.sleep(0.02)
        assert time.monotonic() - start_s < 1
        stopper.join()


def test_stopped_before_it_is_read_it_gives_nothing_and_no_error(source):
    with source:
        source.stop()
        source.stop()
        assert list(source) == []


def test_closing_twice_and_stopping_afterwards_is_harmless(source):
    take(source, 1)
    source.__exit__(None, None, None)
    source.stop()


def test_iterating_before_it_is_open_or_after_it_is_closed_is_an_error(source):
    with pytest.raises(RuntimeError, match="not open"):
        iter(source)
    take(source, 1)
    with pytest.raises(RuntimeError, match="not open"):
        iter(source)


def test_opens_once_and_iterates_once(source):
    with source:
        next(iter(source))
        with pytest.raises(RuntimeError, match="iterates once"):
            iter(source)
    with pytest.raises(RuntimeError, match="opens once"):
        source.__enter__()


def test_a_consumer_that_fails_gets_its_own_error(source):
    def consume():
        with source:
            for _ in source:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()
