import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from detector.types import Label, OutputError, SourceInfo
from pipelines.lines import LineFile
from pipelines.records import CSV_HEADER
from pipelines.sinks import Csv, JsonLines, MultiSink
from tests.pipelines.results import file_limit, make_face, make_result

ROOT = Path(__file__).parents[2]
INFO = SourceInfo("clip")
TWO_FACES = (make_face(1, Label.FAKE), make_face(2, Label.REAL))


def read_json(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sink_type", [JsonLines, Csv])
class TestEverySinkOfLines:
    def test_the_file_appears_on_close_and_close_may_be_repeated(self, tmp_path, sink_type):
        path = tmp_path / "out"
        sink = sink_type(path)
        sink.begin("a.mp4", INFO)
        sink.write(make_result())
        assert not path.exists()
        sink.close()
        sink.close()
        assert names(tmp_path) == ["out"]

    def test_no_result_leaves_no_file_and_the_earlier_one_alone(self, tmp_path, sink_type):
        (tmp_path / "out").write_text("earlier")
        with sink_type(tmp_path / "out") as sink:
            sink.begin("a.mp4", INFO)
        assert names(tmp_path) == ["out"]
        assert (tmp_path / "out").read_text() == "earlier"

    def test_ctrl_c_keeps_what_was_written(self, tmp_path, sink_type):
        def run():
            with sink_type(tmp_path / "out") as sink:
                sink.write(make_result(Label.REAL))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run()
        assert "REAL" in (tmp_path / "out").read_text()

    def test_a_bad_path_is_found_at_once(self, tmp_path, sink_type):
        with pytest.raises(OutputError, match="create the folder"):
            sink_type(tmp_path / "missing" / "out")

    def test_the_clip_itself_is_refused_as_output(self, tmp_path, sink_type):
        clip = tmp_path / "clip.mp4"
        clip.write_bytes(b"precious")
        with pytest.raises(OutputError, match="input itself"), sink_type(clip) as sink:
            sink.begin(str(clip), INFO)
        assert clip.read_bytes() == b"precious"

    def test_a_stream_gets_every_frame_at_once_and_stays_open(self, sink_type):
        stream = io.StringIO()
        with sink_type(stream) as sink:
            sink.write(make_result(Label.FAKE, faces=TWO_FACES))
            assert stream.getvalue().endswith("\n")
        assert not stream.closed

    def test_a_pipe_is_written_into_and_not_replaced(self, tmp_path, sink_type):
        os.mkfifo(tmp_path / "pipe")
        read = []
        reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
        reader.start()
        with sink_type(tmp_path / "pipe") as sink:
            sink.write(make_result(Label.REAL))
        reader.join()
        assert "REAL" in read[0]
        assert (tmp_path / "pipe").is_fifo()

    def test_a_full_device_is_an_output_error_and_closing_is_silent_after_it(self, sink_type):
        with sink_type("/dev/full") as sink, pytest.raises(OutputError, match="disk is full"):
            sink.write(make_result())

    def test_a_closed_sink_refuses_results(self, tmp_path, sink_type):
        for target in (tmp_path / "out", io.StringIO()):
            sink = sink_type(target)
            sink.close()
            with pytest.raises(ValueError, match="closed"):
                sink.write(make_result())

    def test_a_full_disk_keeps_the_whole_frames_before_it(self, tmp_path, sink_type):
        written = []
        sink = sink_type(tmp_path / "out")

        def fill():
            for index in range(1000):
                sink.write(make_result(Label.FAKE, index=index, faces=TWO_FACES))
                written.append(index)

        with file_limit(5_000), pytest.raises(OutputError, match="cannot write"):
            fill()
        sink.close()
        text = (tmp_path / "out").read_text()
        assert text.endswith("\n")
        lines = 1 + 2 * len(written) if sink_type is Csv else len(written)
        assert text.count("\n") == lines > 5


def test_several_clips_share_one_json_file(tmp_path):
    with JsonLines(tmp_path / "out.jsonl") as sink:
        for clip in ("a.mp4", "ü.mp4"):
            sink.begin(clip, INFO)
            for index in range(2):
                sink.write(make_result(index=index))
    records = read_json(tmp_path / "out.jsonl")
    assert [(r["path"], r["index"]) for r in records] == [("a.mp4", 0), ("a.mp4", 1), ("ü.mp4", 0), ("ü.mp4", 1)]


def test_csv_has_one_header_for_all_clips(tmp_path):
    with Csv(tmp_path / "out.csv") as sink:
        for clip in ("a, b.mp4", "c.mp4"):
            sink.begin(clip, INFO)
            sink.write(make_result(Label.FAKE, faces=TWO_FACES))
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    assert tuple(rows[0]) == CSV_HEADER
    assert [row[0] for row in rows[1:]] == ["a, b.mp4"] * 2 + ["c.mp4"] * 2


def test_a_stream_that_cannot_spell_a_name_gets_it_escaped():
    raw = io.BytesIO()
    with Csv(io.TextIOWrapper(raw, encoding="ascii")) as sink:
        sink.begin("ü.mp4", INFO)
        sink.write(make_result())
        assert b"\\xfc.mp4" in raw.getvalue()


def test_lines_after_a_failure_follow_the_last_whole_one(tmp_path):
    lines = LineFile(tmp_path / "out")
    lines.write("one\n")
    with file_limit(10), pytest.raises(OutputError):
        lines.write("too long for the disk\n")
    lines.write("two\n")
    lines.close()
    assert (tmp_path / "out").read_text() == "one\ntwo\n"


class Failing(JsonLines):
    def close(self):
        super().close()
        raise OutputError("cannot write this one")


def test_all_sinks_are_closed_even_when_some_fail_and_the_first_error_is_raised(tmp_path):
    sinks = [Failing(tmp_path / "1"), JsonLines(tmp_path / "2"), Failing(tmp_path / "3"), Csv(tmp_path / "4")]
    sink = MultiSink(*sinks)
    sink.begin("a.mp4", INFO)
    sink.write(make_result())
    with pytest.raises(OutputError, match="this one") as caught:
        sink.close()
    assert names(tmp_path) == ["1", "2", "3", "4"]
    assert caught.value.__notes__ == ["cannot write this one"]


WRITER = """
import sys
from pipelines.lines import abandon
from pipelines.sinks import JsonLines
from tests.pipelines.results import make_result
result = make_result()
with JsonLines(sys.argv[1]) as sink:
    try:
        print("ready", file=sys.stderr, flush=True)
        while True:
            sink.write(result)
    except BrokenPipeError:
        abandon(sys.stdout)
    except KeyboardInterrupt:
        pass
"""


def start_writer(target, **pipes):
    command = [sys.executable, "-c", WRITER, str(target)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, **pipes)


def test_a_reader_that_goes_away_ends_the_program_quietly():
    with start_writer("-", stdout=subprocess.PIPE) as writer:
        first = writer.stdout.readline()
        writer.stdout.close()
        assert writer.stderr.read() == b"ready\n"
    assert writer.returncode == 0
    assert json.loads(first)["verdict"] == "NO_FACE"


def test_a_real_ctrl_c_in_the_middle_leaves_whole_lines(tmp_path):
    with start_writer(tmp_path / "out.jsonl") as writer:
        assert writer.stderr.readline() == b"ready\n"
        writer.send_signal(signal.SIGINT)
        assert writer.stderr.read() == b""
    assert writer.returncode == 0
    assert names(tmp_path) in ([], ["out.jsonl"])
    if names(tmp_path):
        assert (tmp_path / "out.jsonl").read_text().endswith("\n")
        read_json(tmp_path / "out.jsonl")
