"""What goes wrong: one line on standard error, the right exit code, nothing half-written."""

import json
import os
import shutil

import pytest

from tests import clips
from tests.cli.run import (
    MODELS,
    REAL,
    assert_quiet,
    assert_refused,
    finished,
    frames_in,
    half_written,
    outputs,
    parsed,
    started,
    tellframe,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder of what is no video."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("Dear Sir or Madam,\n" * 200)
    (folder / "text.txt").write_text("Dear Sir or Madam,\n" * 200)
    (folder / "noise.mp4").write_bytes(os.urandom(100_000))
    (folder / "head.mp4").write_bytes(REAL.read_bytes()[:1_500])
    (folder / "no_pictures.mp4").write_bytes(REAL.read_bytes()[:20_000])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (folder / "directory").mkdir()
    (folder / "directory" / "notes.txt").write_text("no video")
    (folder / "line\nbreak.mp4").touch()
    clips.write_audio(folder / "sound.wav")
    return folder


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing.mp4", 3),
        ("missing\nline.mp4", 3),
        ("line\nbreak.mp4", 3),
        ("empty.mp4", 3),
        ("text.mp4", 3),
        ("text.txt", 3),
        ("noise.mp4", 3),
        ("head.mp4", 3),
        ("/dev/null", 3),
        ("http://127.0.0.1:9/clip.mp4", 3),
        ("no_pictures.mp4", 4),
        ("broken.png", 4),
        ("sound.wav", 4),
        ("directory", 4),
        ("*.nothing", 4),
        ("ftp://127.0.0.1/clip.mp4", 2),
        ("http://", 2),
        ("", 2),
    ],
)
def test_an_input_that_is_no_video(inputs, out, name, code):
    assert_refused(tellframe("video", name, *outputs(out), cwd=inputs), code)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stride", "0"),
        ("--stride", "many"),
        ("--max-frames", "0"),
        ("--threads", "0"),
        ("--fail-on", "real"),
        ("--nonsense",),
        ("--budget", "abc"),
        ("--budget", "nan"),
        ("--budget", "-1"),
        ("--budget", "0"),
        ("--budget", "inf"),
        ("--json", "-", "--jsonl", "-"),
        ("--json", "-", "--csv", "-"),
        ("--jsonl", "same", "--csv", "same"),
        ("--json", "same", "--jsonl", "./same"),
        ("--json", ""),
        ("--save-video", ""),
    ],
    ids=" ".join,
)
def test_options_that_make_no_sense(tmp_path, tiny, arguments):
    done = tellframe("video", tiny, *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert_refused(done, 2)


@pytest.mark.parametrize("arguments", [(), ("video",), ("judge", "clip.mp4"), ("--nonsense",)], ids=" ".join)
def test_commands_that_there_are_not(tmp_path, arguments):
    done = tellframe(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert done.out == ""
    assert "Usage: tellframe" in done.err or done.err.startswith("tellframe: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["video", "webcam", "stream", "models", "bench", "doctor"])
def test_every_command_explains_itself(tmp_path, command):
    done = tellframe(command, "--help", cwd=tmp_path)
    assert_quiet(done)
    assert done.out.startswith(f"Usage: tellframe {command} ")


@pytest.mark.parametrize("option", ["--json", "--jsonl", "--csv", "--save-video"])
@pytest.mark.parametrize("target", ["missing/result", "folder", "file/result"])
def test_an_output_that_cannot_be_written(tmp_path, tiny, option, target):
    if (option, target) == ("--save-video", "folder"):
        pytest.skip("a folder is what --save-video takes")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    assert_refused(tellframe("video", tiny, option, target, cwd=tmp_path), 6)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_several_clips_do_not_fit_in_one_video(tmp_path, tiny):
    (tmp_path / "seen.mp4").write_text("mine")
    assert_refused(tellframe("video", tiny, tiny, "--save-video", "seen.mp4", cwd=tmp_path), 6)
    assert (tmp_path / "seen.mp4").read_text() == "mine"


@pytest.mark.parametrize("arguments", [(), ("--json", "-"), ("--jsonl", "-"), ("--csv", "-")], ids=" ".join)
def test_a_full_disk_behind_standard_output(tmp_path, tiny, arguments):
    assert_refused(tellframe("video", tiny, *arguments, cwd=tmp_path, stdout="/dev/full"), 6)


@pytest.mark.parametrize(("bad", "code"), [("missing.mp4", 3), ("text.mp4", 3), ("sound.wav", 4), ("directory", 4)])
def test_one_bad_clip_does_not_stop_the_others(inputs, out, tiny, bad, code):
    arguments = ("--json", "-", "--jsonl", out / "frames.jsonl", "--save-video", out / "seen")
    done = tellframe("video", tiny, bad, tiny, *arguments, cwd=inputs)
    assert [record["path"] for record in done.records()] == [str(tiny), str(tiny)]
    assert_refused_beside(done, code, bad)
    assert len(parsed((out / "frames.jsonl").read_text())) == 4
    assert [frames_in(video) for video in (out / "seen").iterdir()] == [2, 2]
    assert half_written(out) == []


def assert_refused_beside(done, code, name):
    assert done.code == code
    assert done.err.startswith(f"tellframe: {name}: ")
    assert len(done.err.splitlines()) == 1


def test_a_clip_that_breaks_off_is_judged_up_to_there(tmp_path, out, server):
    data = REAL.read_bytes()

    def serve(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[:150_000])
        request.wfile.flush()
        server.closing.wait(60)

    server.pages["/clip.mp4"] = serve
    done = tellframe("video", server.url("/clip.mp4", user="bob:pw@"), *outputs(out), cwd=tmp_path)
    assert done.code == 3
    assert "broke off" in done.err
    assert len(done.err.splitlines()) == 1
    assert "pw" not in done.err + done.out
    (record,) = parsed((out / "clips.jsonl").read_text())
    assert record["complete"] is False
    assert len(parsed((out / "frames.jsonl").read_text())) == record["frames"] > 0
    assert half_written(out) == []


@pytest.mark.slow
def test_a_stream_that_says_nothing_is_given_up(tmp_path, out, server):
    server.live("/silent.ts", [(b"", "stall")])
    assert_refused(tellframe("video", server.url("/silent.ts"), *outputs(out), cwd=tmp_path), 3)
    assert list(out.iterdir()) == []


def test_a_model_that_is_not_there(tmp_path, out, tiny):
    for name in ("nobody", "missing.onnx", "../models"):
        assert_refused(tellframe("video", tiny, "--model", name, *outputs(out), cwd=tmp_path), 5)
    assert list(out.iterdir()) == []


@pytest.fixture(scope="module")
def card():
    return min(MODELS.glob("*.json"), key=lambda path: json.loads(path.read_text())["bytes"])


@pytest.mark.parametrize("damage", ["a flipped byte", "cut short", "no card", "a card of nonsense"])
def test_a_damaged_model(tmp_path, out, tiny, card, damage):
    model = tmp_path / f"{card.stem}.onnx"
    data = bytearray(card.with_suffix(".onnx").read_bytes())
    shutil.copy(card, tmp_path)
    if damage == "a flipped byte":
        data[len(data) // 2] ^= 1
    elif damage == "cut short":
        del data[-1000:]
    elif damage == "no card":
        (tmp_path / card.name).unlink()
    else:
        (tmp_path / card.name).write_text('{"name": 1}')
    model.write_bytes(data)
    assert_refused(tellframe("video", tiny, "--model", model, *outputs(out), cwd=tmp_path), 5)
    assert list(out.iterdir()) == []


def test_a_model_of_ones_own_beside_its_card(tmp_path, tiny, card):
    shutil.copy(card, tmp_path)
    shutil.copy(card.with_suffix(".onnx"), tmp_path)
    done = tellframe("video", tiny, "--model", f"{card.stem}.onnx", "--json", "-", cwd=tmp_path)
    assert_quiet(done)
    assert done.records()[0]["model"]["sha256"] == json.loads(card.read_text())["sha256"]


def test_a_pipe_without_a_writer_can_be_left(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = started("video", "pipe", cwd=tmp_path)
    try:
        process.wait(4)
    except Exception:
        process.terminate()
    assert_quiet(finished(process), 143)
