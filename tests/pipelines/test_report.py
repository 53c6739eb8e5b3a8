import json

import pytest

from compression.budget import FPS_30
from detector.types import Label, SourceCounts, SourceInfo, Timing
from pipelines.report import clip_text, json_text
from pipelines.summary import Summary
from tests.doubles import make_card
from tests.pipelines.results import make_result


def record(label=Label.FAKE, *, count=50, path="clip.mp4", fps=25.0, complete=True, counts=None, dropped=0):
    """The record of a clip of 2 s."""
    summary = Summary(path, make_card(), FPS_30)
    for i in range(count):
        summary.add(make_result(label, index=i, timing=Timing(8.0, 0.0, 3.5, 12.0), dropped=dropped))
    return summary.record(SourceInfo(path, fps=fps), counts or SourceCounts(), complete=complete)


def test_what_a_person_reads():
    assert clip_text(record()).splitlines() == [
        "clip.mp4: FAKE (score above the fake threshold), p(fake) 0.91",
        "  50 frames at 25 fps, 2.0 s; 50 scored",
        "  face 1: FAKE (score above the fake threshold), p(fake) 0.91, 50 frames, 0.0-2.0 s",
        "  suspicious: 0.0-2.0 s",
        "  latency ms      p50     p95     p99",
        "  find            8.0     8.0     8.0",
        "  crop              -       -       -",
        "  score           3.5     3.5     3.5",
        "  total          12.0    12.0    12.0",
        "  budget 33.3 ms: met, 0 of 50 frames over",
    ]


def test_without_a_face_there_is_no_score_to_read():
    text = clip_text(record(Label.NO_FACE))
    assert text.startswith("clip.mp4: NO_FACE (no face found), no score\n")
    assert "suspicious" not in text
    assert "face 1" not in text


def test_what_was_lost_is_told_and_only_then():
    assert "dropped" not in clip_text(record())
    text = clip_text(record(dropped=2, counts=SourceCounts(broken=3, reconnects=1), complete=False))
    assert "; 100 dropped; 3 broken; 1 reconnects; cut short\n" in text


def test_a_rate_nobody_knows_is_left_out():
    assert "1 frames, 0.0 s" in clip_text(record(count=1, fps=None))


def test_a_budget_that_was_missed_stands_out():
    late = record()
    late["budget"] |= {"met": False, "over": 50}
    assert clip_text(late).endswith("budget 33.3 ms: NOT met, 50 of 50 frames over")


def test_the_text_has_no_line_end_of_its_own_and_the_json_one():
    assert not clip_text(record()).endswith("\n")
    assert json_text(record()).count("\n") == 1
    assert json_text(record()).endswith("\n")


def test_json_reads_back_as_the_record():
    assert json.loads(json_text(record())) == record()


def test_a_number_that_is_no_json_is_an_error_and_not_written():
    with pytest.raises(ValueError, match="JSON"):
        json_text({"p_fake": float("nan")})


def test_a_name_that_is_no_utf_8_can_be_printed():
    assert "mp4: FAKE" in clip_text(record(path="\udcff.mp4")).encode("utf-8").decode("utf-8")


@pytest.mark.parametrize("name", ["a.mp4: REAL (fine), p(fake) 0.01\n  x.mp4", "a\x1b[2J.mp4", "a\r.mp4"])
def test_a_name_cannot_add_lines_or_move_the_cursor(name):
    text = clip_text(record(path=name))
    assert len(text.split("\n")) == 10
    assert "\x1b" not in text
    assert "\r" not in text


def test_what_the_governor_did_is_said_when_it_did_something():
    said = record()
    said["pace"] = {"steps": 3, "find_every": 4, "score_every": 2}
    said["models"] = [{"name": "large", "frames": 40}, {"name": "small", "frames": 10}]
    assert clip_text(said).splitlines()[-2:] == [
        "  governor: 3 changes of pace; at the least, faces looked for in one frame of 4 and scored in one of 2",
        "  models: large for 40 frames, small for 10 frames",
    ]
