"""What goes wrong: one line on standard error, the right exit code, nothing half-written."""

import json
import os
import shutil

import pytest

from tests import clips
from tests.cli.run import (
    MODELS,
    REAL,
    SCRIPT,
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
    clips.write_audio(folder / "sound.wav")
    return folder


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing.mp4", 3),
        ("missing\nline.mp4", 3),
        ("empty.mp4", 3),
        ("text.mp4", 3),
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


def test_every_bad_input_has_its_line_and_the_first_its_exit_code(inputs, out):
    names = ["text.txt", "noise.mp4", "head.mp4", "/dev/null", "http://127.0.0.1:9/clip.mp4", "sound.wav", "empty.mp4"]
    done = tellframe("video", *names, *outputs(out)[:-2], "--save-video", out / "seen", cwd=inputs)
    assert [line.split(": ")[:2] for line in done.err.splitlines()] == [["tellframe", name] for name in names]
    assert (done.code, done.out) == (3, "")
    assert [path for path in out.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stride", "0"),
        ("--stride", "many"),
        ("--stride", "2", "--governor"),
        ("--model", "efficientnet_lite0_256,efficientnet_lite0_256_int8"),
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


def test_every_command_explains_itself(tmp_path):
    for command in ("video", "webcam", "stream", "models", "bench", "doctor"):
        done = tellframe(command, "--help", cwd=tmp_path, program=SCRIPT)
        assert_quiet(done)
        assert done.out.startswith(f"Usage: tellframe {command} ")


@pytest.mark.parametrize(
    ("option", "target"),
    [
        *((option, "missing/result") for option in ("--json", "--jsonl", "--csv", "--save-video")),
        ("--json", "folder"),
        ("--csv", "file/result"),
    ],
)
def test_an_output_that_cannot_be_written(tmp_path, tiny, option, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    assert_refused(tellframe("video", tiny, option, target, cwd=tmp_path), 6)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_several_clips_do_not_fit_in_one_video(tmp_path, tiny):
    (tmp_path / "seen.mp4").write_text("mine")
    assert_refused(tellframe("video", tiny, tiny, "--save-video", "seen.mp4", cwd=tmp_path), 6)
    assert (tmp_path / "seen.mp4").read_text() == "mine"


@pytest.mark.parametrize("arguments", [(), ("--json", "-")], ids=" ".join)
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


def test_a_server_that_stalls_is_given_up_and_what_came_before_is_judged(tmp_path, out, server):
    data = REAL.read_bytes()

    def serve(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[:150_000])
        request.wfile.flush()
        server.closing.wait(60)

    server.pages["/clip.mp4"] = serve
    server.live("/silent.ts", [(b"", "stall")])
    silent = started("video", server.url("/silent.ts"), "--json", "silent.jsonl", cwd=tmp_path)
    done = tellframe("video", server.url("/clip.mp4", user="bob:pw@"), *outputs(out), cwd=tmp_path)
    assert done.code == 3
    assert "broke off" in done.err
    assert len(done.err.splitlines()) == 1
    assert "pw" not in done.err + done.out
    (record,) = parsed((out / "clips.jsonl").read_text())
    assert record["complete"] is False
    assert len(parsed((out / "frames.jsonl").read_text())) == record["frames"] > 0
    assert_refused(finished(silent), 3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert half_written(out) == []


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
