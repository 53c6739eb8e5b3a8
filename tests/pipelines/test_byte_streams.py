"""What is special about frames from byte streams: exact pixels, short ends, pipes that stay silent."""

import gzip
import io
import os
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from detector.types import InputError, NothingToAnalyseError, UsageError
from pipelines.sources import EncodedStream, RawFrames
from tests import clips

W, H = 5, 3
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, H, W, 3), np.uint8)


@contextmanager
def pipe(data=b""):
    """A pipe with ``data`` in it, whose writer says nothing more."""
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    with os.fdopen(read_end, "rb") as stream:
        yield stream, write_end
    os.close(write_end)


def read(source):
    with source:
        return list(source)


def stops_within_a_second(source, frames_before):
    """Reads in this thread, stops from another, and checks how long it takes and what came before."""
    stopper = threading.Timer(0.15, source.stop)
    stopper.start()
    start_s = time.monotonic()
    frames = read(source)
    stopper.join()
    assert time.monotonic() - start_s < 1.15
    assert len(frames) == frames_before


# ------------------------------------------------------------------------------------------------ raw


@pytest.mark.parametrize(
    ("pix_fmt", "stored", "expected"),
    [
        ("bgr24", PIXELS, PIXELS),
        ("rgb24", PIXELS[..., ::-1], PIXELS),
        ("gray", PIXELS[..., 0], np.repeat(PIXELS[..., :1], 3, axis=3)),
    ],
)
def test_raw_frames_are_exact(pix_fmt, stored, expected):
    frames = read(RawFrames(io.BytesIO(stored.tobytes()), W, H, pix_fmt=pix_fmt, fps=10))
    assert np.array_equal([frame.bgr for frame in frames], expected)
    assert [frame.pts_ns for frame in frames] == [0, 100_000_000, 200_000_000, 300_000_000]


def test_raw_frames_that_arrive_in_pieces_are_put_together():
    data = PIXELS.tobytes()
    with pipe() as (stream, write_end):

        def dribble():
            for i in range(0, len(data), 7):
                os.write(write_end, data[i : i + 7])
                time.sleep(0.0005)

        writer = threading.Thread(target=dribble)
        writer.start()
        with RawFrames(stream, W, H) as source:
            frames = iter(source)
            got = [next(frames).bgr for _ in PIXELS]
        writer.join()
    assert np.array_equal(got, PIXELS)


def test_a_short_last_frame_is_counted_as_broken_and_is_no_error():
    source = RawFrames(io.BytesIO(PIXELS.tobytes()[:-1]), W, H)
    assert len(read(source)) == 3
    assert source.counts.broken == 1


def test_no_byte_at_all_is_nothing_to_analyse():
    with pytest.raises(NothingToAnalyseError):
        read(RawFrames(io.BytesIO(), W, H))


def test_less_than_one_frame_is_nothing_to_analyse():
    with pytest.raises(NothingToAnalyseError):
        read(RawFrames(io.BytesIO(b"abc"), W, H))


@pytest.mark.parametrize(
    ("size_wh", "options"),
    [
        ((0, 3), {}),
        ((5, -1), {}),
        ((10**6, 3), {}),
        ((5, 3), {"pix_fmt": "yuv420p"}),
        ((5, 3), {"fps": 0}),
        ((5, 3), {"fps": float("inf")}),
    ],
)
def test_sizes_layouts_and_rates_that_make_no_sense_are_refused(size_wh, options):
    with pytest.raises(UsageError):
        RawFrames(io.BytesIO(), *size_wh, **options)


def test_what_python_has_read_ahead_is_not_lost():
    with pipe(b"header\n" + PIXELS.tobytes()) as (stream, _):
        assert stream.readline() == b"header\n"  # and everything behind it is in the buffer now
        with RawFrames(stream, W, H) as source:
            frames = iter(source)
            assert np.array_equal([next(frames).bgr for _ in PIXELS], PIXELS)


def test_a_wrapped_stream_is_read_through_its_wrapper(tmp_path):
    path = tmp_path / "frames.gz"
    path.write_bytes(gzip.compress(PIXELS.tobytes()))
    with gzip.open(path) as stream:  # has the descriptor of the compressed file
        frames = read(RawFrames(stream, W, H))
    assert np.array_equal([frame.bgr for frame in frames], PIXELS)


def test_an_ordinary_file_and_an_unbuffered_one_can_be_read(tmp_path):
    path = tmp_path / "frames.raw"
    path.write_bytes(PIXELS.tobytes())
    for buffering in (0, -1):
        with path.open("rb", buffering=buffering) as stream:
            assert len(read(RawFrames(stream, W, H))) == len(PIXELS)


def test_a_socket_can_be_read_and_stopped():
    here, there = socket.socketpair()
    with here, there, here.makefile("rb") as stream:
        there.sendall(PIXELS.tobytes())
        stops_within_a_second(RawFrames(stream, W, H), len(PIXELS))


def test_a_silent_pipe_is_stopped_also_in_the_middle_of_a_frame():
    with pipe(PIXELS.tobytes()[:-1]) as (stream, _):
        source = RawFrames(stream, W, H)
        stops_within_a_second(source, len(PIXELS) - 1)
    assert source.counts.broken == 0


def test_reading_leaves_the_stream_open_and_no_descriptor_behind():
    with pipe(PIXELS.tobytes()) as (stream, _):
        before = len(list(Path("/proc/self/fd").iterdir()))
        stops_within_a_second(RawFrames(stream, W, H), len(PIXELS))
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert not stream.closed
        assert os.get_blocking(stream.fileno())


def test_live_is_what_the_caller_says():
    assert RawFrames(io.BytesIO(), W, H).live is False
    assert RawFrames(io.BytesIO(), W, H, live=True).live is True
    assert EncodedStream(io.BytesIO(), live=True).live is True


# ------------------------------------------------------------------------------------------------ encoded


def encoded(container_format, codec, frames=6, pix_fmt="yuv420p"):
    buffer = io.BytesIO()
    buffer.name = "clip"
    clips.write_clip(buffer, frames, container_format=container_format, codec=codec, pix_fmt=pix_fmt)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container_format", "codec", "pix_fmt"),
    [
        ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
        ("mjpeg", "mjpeg", "yuvj420p"),
        ("mpegts", "libx264", "yuv420p"),
        ("matroska", "libx264", "yuv420p"),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_decodes_formats_that_need_no_seeking(container_format, codec, pix_fmt, named):
    data = encoded(container_format, codec, pix_fmt=pix_fmt)
    frames = read(EncodedStream(io.BytesIO(data), format=container_format if named else None))
    assert [clips.mark(frame.bgr) for frame in frames] == list(range(6))
    assert frames[1].pts_ns > 0


def test_decodes_from_a_pipe_to_its_end():
    read_end, write_end = os.pipe()
    os.write(write_end, encoded("mpegts", "libx264"))
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        assert len(read(EncodedStream(stream))) == 6


def test_a_silent_pipe_is_stopped_while_opening_and_while_reading():
    with pipe() as (stream, _):
        stops_within_a_second(EncodedStream(stream), 0)
    with pipe(encoded("yuv4mpegpipe", "wrapped_avframe")) as (stream, _):
        source = EncodedStream(stream, format="yuv4mpegpipe")
        stopper = threading.Timer(0.2, source.stop)
        stopper.start()
        start_s = time.monotonic()
        read(source)
        stopper.join()
        assert time.monotonic() - start_s < 1.2


@pytest.mark.parametrize("format", [None, "mpegts"])
def test_an_empty_stream_is_nothing_to_analyse(format):
    with pytest.raises(NothingToAnalyseError, match="single byte"):
        read(EncodedStream(io.BytesIO(), format=format))


def test_garbage_is_refused_in_one_line():
    with pytest.raises(InputError, match="cannot be read as video") as caught:
        read(EncodedStream(io.BytesIO(b"hello world" * 1000)))
    assert "\n" not in str(caught.value)


def test_a_playlist_in_a_stream_opens_nothing(tmp_path, server):
    path = clips.write_clip(tmp_path / "part.ts")
    for entry in (str(path), f"file://{path}", server.url("/part.ts")):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:4,\n{entry}\n#EXT-X-ENDLIST\n"
        with pytest.raises(InputError):
            read(EncodedStream(io.BytesIO(playlist.encode())))
    assert server.requests == []


def test_sound_only_is_nothing_to_analyse(tmp_path):
    data = clips.write_audio(tmp_path / "sound.wav").read_bytes()
    with pytest.raises(NothingToAnalyseError, match="no video stream"):
        read(EncodedStream(io.BytesIO(data)))


def test_a_format_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="no format called 'mpegts2'"):
        EncodedStream(io.BytesIO(), format="mpegts2")


def test_a_live_stream_without_a_clock_is_timed_by_arrival():
    data = encoded("mjpeg", "mjpeg", pix_fmt="yuvj420p")
    frames = read(EncodedStream(io.BytesIO(data), format="mjpeg", live=True))
    for frame in frames:
        assert abs(frame.pts_ns - (frame.captured_ns - frames[0].captured_ns)) < 10e6
