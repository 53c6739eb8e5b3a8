"""`tellframe bench`."""

import json

import pytest

from tests.cli.run import REAL, assert_quiet, assert_refused, tellframe

SHORT = ("bench", "--frames", 40, "--warm-up", 5)


def test_the_figures_are_json_and_agree_with_themselves(tmp_path):
    done = tellframe(*SHORT, "--json", "-", cwd=tmp_path)
    assert_quiet(done)
    (figures,) = done.records()
    assert (figures["plan"]["frames"], figures["plan"]["warm_up"], figures["plan"]["clip"]) == (40, 5, "real.mp4")
    assert set(figures["latency_ms"]) == {"find", "crop", "score", "total"}
    for stage in figures["latency_ms"].values():
        assert 0 < stage["p50"] <= stage["p95"] <= stage["p99"]
        for quantile in ("p50", "p95", "p99"):
            low, high = stage[f"{quantile}_interval"]
            assert low <= high
    budget = figures["budget"]
    assert budget["met"] == (budget["upper_ms"] <= budget["period_ms"])
    assert 0 <= budget["over"] <= 40
    assert figures["frames_a_second"] > 0
    assert figures["memory_mb"]["peak"] >= figures["memory_mb"]["start"] > 0
    assert len(figures["model"]["sha256"]) == 64


def test_people_get_a_table_beside_the_file(tmp_path, tiny):
    done = tellframe(*SHORT[:1], tiny, "--frames", 20, "--warm-up", 0, "--json", "bench.json", cwd=tmp_path)
    assert_quiet(done)
    assert "frames a second" in done.out
    assert json.loads((tmp_path / "bench.json").read_text())["latency_ms"]["score"] == {"runs": 0}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("missing.mp4",), 3),
        (("--model", "nobody"), 5),
        (("--budget", "nan"), 2),
        (("--frames", "19"), 2),
        (("--json", "missing/bench.json"), 6),
        ((str(REAL), "--json", str(REAL)), 6),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path, arguments, code):
    (tmp_path / "notes.txt").write_text("no video")
    if str(REAL) in arguments:
        (tmp_path / "clip.mp4").write_bytes(REAL.read_bytes())
        arguments = ("clip.mp4", "--json", "clip.mp4")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = tellframe(*SHORT, *arguments, cwd=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert_refused(done, code)
