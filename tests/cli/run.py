"""Runs the command line as a stranger does: in a process of its own, with a time-out."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import av

SAMPLES = Path(str(files("assets") / "samples"))
MODELS = Path(str(files("assets") / "models"))
REAL, FAKE, NO_FACE = SAMPLES / "real.mp4", SAMPLES / "fake.mp4", SAMPLES / "no_face.mp4"
PATIENCE_S = 90
_COMMAND = (sys.executable, "-m", "tellframe")
SCRIPT = (str(Path(sys.executable).with_name("tellframe")),)


@dataclass(frozen=True)
class Done:
    """What is left of a run: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def records(self):
        """Standard output as one JSON value a line; nothing else may stand there."""
        return parsed(self.out)


def tellframe(*arguments, cwd, stdin=b"", stdout=None, env=None, program=_COMMAND):
    """Runs ``tellframe`` to its end. ``stdin`` is bytes; ``stdout`` a path to send standard output to."""
    with Path(stdout or os.devnull).open("wb") as target:
        done = subprocess.run(
            command(*arguments, program=program),
            cwd=cwd,
            input=stdin,
            stdout=target if stdout else subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            timeout=PATIENCE_S,
            check=False,
        )
    return Done(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())


def started(*arguments, cwd, **pipes):
    """``tellframe``, running; its pipes are those of :class:`subprocess.Popen`."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    return subprocess.Popen(command(*arguments), cwd=cwd, env=environment(), **pipes)


def finished(process, within_s=PATIENCE_S):
    """Waits for a started one."""
    try:
        out, err = process.communicate(timeout=within_s)
    finally:
        process.kill()
    return Done(process.returncode, (out or b"").decode(), (err or b"").decode())


def command(*arguments, program=_COMMAND):
    return [*program, *map(os.fspath, map(_text, arguments))]


def environment(changes=None):
    return os.environ | {"LC_ALL": "C.UTF-8"} | (changes or {})


def _text(argument):
    return argument if isinstance(argument, str | bytes | Path) else str(argument)


def parsed(text):
    """JSON a line; NaN and Infinity are no JSON, nor are halves of a character."""
    assert text == "" or text.endswith("\n")
    lines = [json.loads(line, parse_constant=_refuse) for line in text.split("\n")[:-1]]
    json.dumps(lines, ensure_ascii=False).encode()
    return lines


def _refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def assert_refused(done, code):
    """It ended with ``code``, one line to a person and nothing to a script."""
    assert "Traceback" not in done.err
    assert done.code == code, done.err
    assert done.err.startswith("tellframe: ")
    assert len(done.err.splitlines()) == 1, done.err
    assert done.out == ""


def assert_quiet(done, code=0):
    """It ended with ``code`` and had nothing to complain of."""
    assert done.err == ""
    assert done.code == code


def untimed(records):
    """Frame records without what differs from run to run, and without the name of the clip."""
    return [{key: value for key, value in record.items() if key not in ("timing_ms", "path")} for record in records]


def half_written(folder):
    """The files under ``folder`` that should not be there: parts, and empty ones."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return [path.name for path in files if path.name.endswith(".part") or not path.stat().st_size]


def outputs(folder):
    """Arguments that ask for one file of every kind in ``folder``."""
    return [
        *("--json", folder / "clips.jsonl", "--jsonl", folder / "frames.jsonl"),
        *("--csv", folder / "frames.csv", "--save-video", folder / "seen.mp4"),
    ]


def frames_in(path):
    """How many pictures a video holds."""
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def pictures(path, count):
    """The first ``count`` pictures of a clip as raw bgr24."""
    with av.open(path) as container:
        decoded = (frame.to_ndarray(format="bgr24") for frame in container.decode(video=0))
        return b"".join(bgr.tobytes() for bgr, _ in zip(decoded, range(count), strict=False))


def looped(path, target, times):
    """Writes a clip that is ``path`` over and over, without encoding it again."""
    with av.open(path) as source, av.open(target, "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        span = stream.duration
        for turn in range(times):
            source.seek(0)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.pts, packet.dts = packet.pts + turn * span, packet.dts + turn * span
                    packet.stream = copy
                    container.mux(packet)
    return target


def wait_until_written(folder, frames, process):
    """Returns when about so many frames have gone to the JSON lines that are being written in ``folder``."""
    deadline_s = time.monotonic() + PATIENCE_S
    while sum(path.read_bytes().count(b"\n") for path in Path(folder).glob(".frames.jsonl.*.part")) < frames:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def insist(process, number, every_s):
    """Sends a signal again and again until the process is gone."""
    deadline_s = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline_s:
        process.send_signal(number)
        time.sleep(every_s)


# The exit code of a run that a signal ended.
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
