"""What is special about pictures that somebody else pushes: the newest wins, and none is taken on trust."""

import struct
import threading
import time
from itertools import pairwise

import cv2
import numpy as np
import pytest

from detector.types import NS_PER_MS, InputError
from pipelines.handoff import reading
from pipelines.sources.pushed import PushedFrames, jpeg_size
from tests import clips


def jpeg(index=0, size_wh=clips.SIZE_WH, *options):
    ok, data = cv2.imencode(".jpg", clips.picture(index, size_wh), [cv2.IMWRITE_JPEG_QUALITY, 90, *options])
    assert ok
    return data.tobytes()


def claiming(size_wh, data=None):
    """A JPEG whose header claims another size."""
    data = jpeg() if data is None else data
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", size_wh[1], size_wh[0]) + data[at + 9 :]


def damaged():
    """A JPEG with a sound header, cut off in the picture."""
    data = jpeg()
    return data[: (data.index(b"\xff\xda") + len(data)) // 2]


def wait_for(condition, limit_s=5.0):
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.002)


class Pushing:
    """Pushes pictures one by one and takes the frame of each."""

    def __init__(self, source):
        self.source = source
        self._frames = iter(source)

    def __call__(self, index=0, data=None, ms=None, sequence=None):
        data = jpeg(index) if data is None else data
        self.source.push(data, index if sequence is None else sequence, index * 33.0 if ms is None else ms)
        return next(self._frames)


@pytest.fixture
def pushing():
    with PushedFrames("browser") as source:
        yield Pushing(source)


# ------------------------------------------------------------------------------------------------ the newest wins


def test_a_picture_that_waits_makes_room_for_a_newer_one(pushing):
    for index in range(4):
        pushing.source.push(jpeg(index), index)
    frame = pushing(4)
    assert clips.mark(frame.bgr) == 4
    assert not pushing.source.waiting


def test_pictures_that_were_replaced_keep_their_indices_and_are_told_of_once(pushing):
    pushing.source.push(jpeg(0), 0, 0.0)
    pushing.source.push(jpeg(1), 1, 33.0)
    first, second = pushing(2), pushing(3)
    assert [first.index, second.index] == [2, 3]
    assert [pushing.source.origin(frame.index).replaced for frame in (first, second)] == [2, 0]


def test_what_was_replaced_before_a_frame_that_nobody_asked_about_is_told_with_the_next(pushing):
    pushing.source.push(jpeg(), 0, 0.0)
    pushing(1)
    last = pushing(2)
    assert pushing.source.origin(last.index).replaced == 1


def test_every_picture_is_judged_dropped_replaced_or_broken():
    source, pushed, seen, lost = PushedFrames("browser"), 300, 0, 0
    data, last = jpeg(3), pushed - 1

    def push():
        for index in range(pushed):
            source.push(damaged() if index % 7 == 0 else data, index, index * 5.0)

    with reading(source) as frames:
        pusher = threading.Thread(target=push)
        pusher.start()
        for frame, dropped in frames:
            origin = source.origin(frame.index)
            seen, lost = seen + 1, lost + dropped + origin.replaced
            if origin.sequence == last:
                break
        pusher.join()
    assert seen + lost + source.counts.broken == pushed


# ------------------------------------------------------------------------------------------------ where it came from


def test_what_came_with_a_picture_is_found_by_its_index_once(pushing):
    frame = pushing(0, ms=1234.5, sequence=77)
    origin = pushing.source.origin(frame.index)
    assert (origin.sequence, origin.captured_ms, origin.arrived_ns) == (77, 1234.5, frame.captured_ns)
    assert origin.decode_ms > 0
    with pytest.raises(KeyError):
        pushing.source.origin(frame.index)


def test_memory_does_not_grow_when_nobody_asks(pushing):
    first, *_ = [pushing(i) for i in range(200)]
    with pytest.raises(KeyError):
        pushing.source.origin(first.index)


# ------------------------------------------------------------------------------------------------ times


def times_ms(pushing, stamps):
    return [pushing(i, ms=ms).pts_ns / NS_PER_MS for i, ms in enumerate(stamps)]


def test_times_are_those_of_the_sender_from_zero(pushing):
    assert times_ms(pushing, [5000.0, 5033.25, 5066.5]) == [0.0, 33.25, 66.5]


@pytest.mark.parametrize("jump_ms", [-3_600_000.0, -400.0, -0.01, 0.0, 5_000.0, 1e12, -1e12])
def test_times_increase_by_little_when_the_clock_of_the_sender_is_set(pushing, jump_ms):
    times = times_ms(pushing, [1e6, 1e6 + 33, 1e6 + 33 + jump_ms, 1e6 + 66 + jump_ms])
    assert all(0 < b - a < 1000 for a, b in pairwise(times))


@pytest.mark.parametrize("ms", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_time_that_is_none_is_refused(pushing, ms):
    with pytest.raises(InputError, match="captured at"):
        pushing.source.push(jpeg(), 0, ms)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"GIF89a",
        bytes(100),
        b"\xff\xd8" + b"\xff\xe0\x00\x00" * 10,
        cv2.imencode(".png", clips.picture(0))[1].tobytes(),
        jpeg(0, clips.SIZE_WH, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        jpeg()[:-2] + jpeg()[2:],  # a second picture behind the first: it could be of any size
    ],
    ids=["nothing", "a start", "GIF", "zeros", "endless segments", "PNG", "progressive", "two in one"],
)
def test_what_is_no_plain_jpeg_is_refused_and_leaves_no_trace(pushing, data):
    with pytest.raises(InputError, match="no baseline JPEG"):
        pushing.source.push(data)
    assert pushing(0).index == 0


def test_a_picture_of_too_many_bytes_is_refused():
    source = PushedFrames("browser", max_bytes=500)
    with pytest.raises(InputError, match=r"^browser: a picture of [\d,]+ bytes came; send at most 500: "):
        source.push(jpeg())


@pytest.mark.parametrize("size_wh", [(1281, 720), (720, 1281), (65535, 65535), (0, 48), (64, 0)])
def test_a_picture_that_claims_a_size_out_of_bounds_is_refused_before_it_is_decoded(size_wh):
    with pytest.raises(InputError, match=f"a picture of {size_wh[0]}x{size_wh[1]} pixels"):
        PushedFrames("browser").push(claiming(size_wh))


@pytest.mark.parametrize("size_wh", [(1, 1), (33, 17), (640, 480), (1280, 720), (720, 1280)])
def test_the_size_is_read_from_the_header_and_comes_out(pushing, size_wh):
    data = jpeg(0, size_wh) if min(size_wh) > 16 else cv2.imencode(".jpg", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    assert jpeg_size(data) == size_wh
    assert pushing(0, data).size_wh == size_wh
    assert pushing.source.info.size_wh == size_wh


@pytest.mark.parametrize("end", [-1, -2, -3, -40])
def test_no_cut_off_header_trips_the_reader_of_sizes(end):
    header = jpeg()[: jpeg().index(b"\xff\xda")]
    assert jpeg_size(header[:end]) is None


# ------------------------------------------------------------------------------------------------ what is broken


@pytest.mark.parametrize("zeros", [0, 200], ids=["cut off", "overwritten"])
def test_a_damaged_picture_is_counted_and_the_next_one_goes_on(zeros, capfd):
    data = jpeg(1, (320, 240))
    middle = len(data) // 2
    source = PushedFrames("browser")
    with reading(source) as frames:
        source.push(data[:middle] + (bytes(zeros) + data[middle + zeros :] if zeros else b""))
        wait_for(lambda: source.counts.broken)
        source.push(jpeg(5), 9, 100.0)
        frame, dropped = next(frames)
    assert (frame.index, dropped, clips.mark(frame.bgr), source.counts.broken) == (1, 0, 5, 1)
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------------------ the end


def test_pushing_to_a_source_that_has_ended_is_harmless():
    source = PushedFrames("browser")
    with source:
        source.stop()
        source.push(jpeg())
        assert list(source) == []
    source.push(jpeg())


def test_a_reader_that_waits_for_a_picture_goes_when_it_is_stopped():
    source = PushedFrames("browser")
    with reading(source):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "reader browser"]
