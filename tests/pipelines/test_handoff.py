"""Handing frames from the reader's thread to the consumer: nothing lost unnoticed, nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from detector.types import InputError, UsageError
from pipelines.handoff import reading
from pipelines.sources import NetworkStream, RawFrames, VideoFile
from tests.fakes import FakeSource

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_thread_left_behind():
    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + 2
    while set(threading.enumerate()) - before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()


def wait_for(condition, limit_s=5.0):
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.002)


def reader_is_alive():
    return any(thread.name.startswith("reader ") for thread in threading.enumerate())


# ------------------------------------------------------------------------------------------------ what is delivered


def test_a_file_is_delivered_whole_however_slow_the_consumer_is():
    with reading(FakeSource(20), depth=2) as frames:
        got = []
        for frame, dropped in frames:
            time.sleep(0.002)
            got.append((frame.index, dropped))
    assert got == [(i, 0) for i in range(20)]


def test_reading_a_file_waits_when_enough_frames_are_ready():
    source = FakeSource(100)
    with reading(source, depth=3) as frames:
        wait_for(lambda: source.given >= 4)
        time.sleep(0.05)
        assert source.given == 4  # three are ready, and one is in the reader's hands
        next(frames)
        wait_for(lambda: source.given == 5)


def test_from_a_live_source_the_newest_frame_is_delivered_and_the_lost_ones_are_counted():
    all_given = threading.Event()
    more = threading.Event()
    source = FakeSource(10, live=True, hooks={7: lambda: (all_given.set(), more.wait(5))})
    with reading(source) as frames:
        all_given.wait(5)  # 0 .. 6 were given while nobody looked
        frame, dropped = next(frames)
        assert (frame.index, dropped) == (6, 6)
        more.set()
        wait_for(lambda: not reader_is_alive())
        frame, dropped = next(frames)
        assert (frame.index, dropped) == (9, 2)
        assert list(frames) == []


def test_every_live_frame_is_either_delivered_or_counted():
    with reading(FakeSource(500, live=True, hooks={i: lambda: time.sleep(0.001) for i in range(0, 500, 5)})) as frames:
        got = []
        for frame, dropped in frames:
            got.append((frame.index, dropped))
            time.sleep(0.003)
    assert sum(1 + dropped for _, dropped in got) == 500
    indices = [index for index, _ in got]
    assert [d for _, d in got] == [b - a - 1 for a, b in zip([-1, *indices], indices, strict=False)]
    assert indices[-1] == 499


def test_a_consumer_that_keeps_up_with_a_live_source_loses_nothing():
    gate = threading.Semaphore(1)
    source = FakeSource(20, live=True, hooks=dict.fromkeys(range(20), lambda: gate.acquire(timeout=5)))
    with reading(source) as frames:
        got = []
        for frame, dropped in frames:
            got.append((frame.index, dropped))
            gate.release()
    assert got == [(i, 0) for i in range(20)]


def test_whether_a_source_is_live_is_asked_once_it_is_open(server, clip):
    server.file("/clip.mp4", clip.read_bytes())
    with reading(NetworkStream(server.url("/clip.mp4"))) as frames:  # live until it turns out to be a file
        time.sleep(0.1)
        assert [dropped for _, dropped in frames] == [0] * 6


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("live", [True, False])
def test_an_error_of_the_source_comes_after_the_frames_before_it(live):
    source = FakeSource(3, live=live, error=InputError("lost"))
    got = []
    with reading(source) as frames:
        wait_for(lambda: not reader_is_alive())
        with pytest.raises(InputError, match="lost"):
            got.extend(frame.index for frame, _ in frames)
        assert list(frames) == []
    assert got == ([2] if live else [0, 1, 2])


def test_what_cannot_be_opened_is_raised_on_entering(tmp_path):
    entered = []
    with pytest.raises(InputError, match="no such file"), reading(VideoFile(tmp_path / "nothing.mp4")):
        entered.append(True)
    assert entered == []


def test_an_error_that_is_none_of_ours_reaches_the_consumer_too():
    with pytest.raises(ZeroDivisionError), reading(FakeSource(2, hooks={1: lambda: 1 // 0})) as frames:
        list(frames)


def test_an_error_on_opening_leaves_the_source_stopped():
    source = FakeSource(1, open_error=InputError("no"))
    with pytest.raises(InputError), reading(source):
        pass
    assert source.stopped.is_set()


def test_a_depth_below_one_is_refused():
    with pytest.raises(UsageError), reading(FakeSource(1), depth=0):
        pass


# ------------------------------------------------------------------------------------------------ leaving


def test_the_reader_opens_iterates_and_closes_the_source_in_one_thread():
    source = FakeSource(1)
    with reading(source) as frames:
        list(frames)
    assert source.entered_in is source.closed_in is not threading.current_thread()


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_leaving_early_stops_and_closes_the_source_within_a_second(live, error):
    source = FakeSource(10**9, live=live)

    def consume():
        with reading(source) as frames:
            for _ in frames:
                if error is not None:
                    raise error
                break

    start_s = time.monotonic()
    if error is None:
        consume()
    else:
        with pytest.raises(error):
            consume()
    assert time.monotonic() - start_s < 1
    assert source.stopped.is_set()
    assert source.closed_in is not None
    assert not reader_is_alive()


def test_after_leaving_there_are_no_more_frames():
    with reading(FakeSource(5)) as frames:
        next(frames)
    assert list(frames) == []


def test_leaving_does_not_wait_for_a_reader_that_is_stuck():
    release = threading.Event()
    source = FakeSource(5, hooks={1: lambda: release.wait(10)})
    start_s = time.monotonic()
    with reading(source) as frames:
        next(frames)
    assert time.monotonic() - start_s < 1.2
    assert source.closed_in is None
    release.set()  # the call returns: the reader closes the source by itself
    wait_for(lambda: source.closed_in is not None)


def test_a_reader_that_waits_for_a_silent_pipe_is_woken():
    read_end, write_end = os.pipe()
    os.write(write_end, bytes(12))
    with os.fdopen(read_end, "rb") as stream:
        start_s = time.monotonic()
        with reading(RawFrames(stream, 2, 2)) as frames:
            next(frames)
        assert time.monotonic() - start_s < 0.5
        assert not reader_is_alive()
    os.close(write_end)


def test_ctrl_c_ends_a_wait_for_a_source_that_does_not_open():
    code = """
import sys, threading
from pipelines.handoff import reading
from pipelines.sources import EncodedStream
print("waiting", flush=True)
with reading(EncodedStream(sys.stdin.buffer)) as frames:
    pass
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"waiting\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        start_s = time.monotonic()
        process.wait(5)
        assert time.monotonic() - start_s < 1.5
        assert process.stderr.read().splitlines()[-1] == b"KeyboardInterrupt"
