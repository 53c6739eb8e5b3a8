"""`tellframe stream`: frames on standard input."""

import signal
import subprocess
import time

import numpy as np
import pytest

from tests import clips
from tests.cli.run import (
    FAKE,
    assert_quiet,
    assert_refused,
    command,
    environment,
    finished,
    half_written,
    outputs,
    parsed,
    pictures,
    started,
    tellframe,
    untimed,
)

SMALL = ("stream", "--width", 64, "--height", 48)
BLACK = bytes(64 * 48 * 3)


def test_raw_frames_get_the_same_verdicts_as_the_clip_they_come_from(tmp_path):
    frames = ("--max-frames", 30, "--jsonl")
    from_file = tellframe("video", FAKE, *frames, "-", cwd=tmp_path)
    raw = pictures(FAKE, 30)
    from_pipe = tellframe("stream", "--width", 1280, "--height", 720, *frames, "-", stdin=raw, cwd=tmp_path)
    assert_quiet(from_file)
    assert_quiet(from_pipe)
    assert len(from_file.records()) == 30
    assert untimed(from_pipe.records()) == untimed(from_file.records())


@pytest.mark.parametrize(("pix_fmt", "channels"), [("rgb24", 3), ("gray", 1)])
def test_other_layouts_are_read_at_their_size(tmp_path, pix_fmt, channels):
    raw = bytes(64 * 48 * channels * 3)
    done = tellframe(*SMALL, "--pix-fmt", pix_fmt, "--fps", 10, "--json", "-", stdin=raw, cwd=tmp_path)
    assert_quiet(done)
    (record,) = done.records()
    assert (record["frames"], record["duration_s"], record["fps"]) == (3, 0.3, 10)


def test_bytes_that_make_no_whole_frame_are_counted(tmp_path):
    done = tellframe(*SMALL, "--json", "-", stdin=BLACK * 2 + b"rest", cwd=tmp_path)
    assert_quiet(done)
    (record,) = done.records()
    assert (record["frames"], record["broken"]) == (2, 1)


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "container"), [("mjpeg", "mjpeg", "mjpeg"), ("auto", "libx264", "mpegts")]
)
def test_streams_that_carry_their_format_are_decoded(tmp_path, pix_fmt, codec, container):
    yuv = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    clip = clips.write_clip(tmp_path / "clip", 4, codec=codec, container_format=container, pix_fmt=yuv)
    done = tellframe("stream", "--pix-fmt", pix_fmt, "--json", "-", stdin=clip.read_bytes(), cwd=tmp_path)
    assert_quiet(done)
    assert [record["frames"] for record in done.records()] == [4]


@pytest.mark.parametrize(
    ("arguments", "stdin", "code"),
    [
        (SMALL, b"", 4),
        (SMALL, BLACK[:-1], 4),
        (("stream", "--pix-fmt", "mjpeg"), BLACK, 4),
        (("stream", "--pix-fmt", "auto"), b"hello, I am no video\n" * 100, 3),
        (("stream", "--pix-fmt", "yuv4mpeg"), b"hello, I am no video\n" * 100, 3),
        (("stream",), BLACK, 2),
        (("stream", "--width", 64), BLACK, 2),
        (("stream", "--width", 0, "--height", 48), BLACK, 2),
        (("stream", "--width", 64, "--height", -48), BLACK, 2),
        (("stream", "--width", 64, "--height", 1_000_000), BLACK, 2),
        (("stream", "--width", "wide", "--height", 48), BLACK, 2),
        ((*SMALL, "--fps", "nan"), BLACK, 2),
        ((*SMALL, "--pix-fmt", "yuv420p"), BLACK, 2),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else str(value)[:12],
)
def test_what_cannot_be_judged_is_refused_in_one_line(tmp_path, out, arguments, stdin, code):
    assert_refused(tellframe(*arguments, *outputs(out), stdin=stdin, cwd=tmp_path), code)
    assert list(out.iterdir()) == []


def test_a_closed_standard_input_is_refused_in_one_line(tmp_path):
    line = subprocess.list2cmdline(map(str, command(*SMALL)))
    done = subprocess.Popen(
        ["sh", "-c", f"exec {line} <&-"], cwd=tmp_path, env=environment(), stdout=-1, stderr=subprocess.PIPE
    )
    done = finished(done)
    assert done.code in (2, 3, 4), done.err
    assert_refused(done, done.code)


def test_ctrl_c_ends_the_wait_for_a_frame_that_does_not_come(tmp_path, out):
    process = started(*SMALL, "--live", *outputs(out), cwd=tmp_path, stdin=subprocess.PIPE)
    noise = np.random.default_rng(0).integers(0, 255, len(BLACK), np.uint8).tobytes()
    while not any(path.stat().st_size for path in out.glob(".frames.jsonl.*.part")):
        assert process.poll() is None
        process.stdin.write(noise)
        process.stdin.flush()
        time.sleep(0.05)
    time.sleep(0.3)  # now it waits
    process.send_signal(signal.SIGINT)
    sent_s = time.monotonic()
    while process.poll() is None and time.monotonic() - sent_s < 20:
        time.sleep(0.05)
    assert time.monotonic() - sent_s < 5
    done = finished(process)
    assert_quiet(done, 130)
    (record,) = parsed((out / "clips.jsonl").read_text())
    assert record["complete"] is False
    assert len(parsed((out / "frames.jsonl").read_text())) == record["frames"]
    assert sorted(path.name for path in out.iterdir()) == ["clips.jsonl", "frames.csv", "frames.jsonl", "seen.mp4"]
    assert half_written(out) == []
