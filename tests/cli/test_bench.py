"""`tellframe bench`."""

import json

import cv2
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


# ------------------------------------------------------------------------------------------------------------- plots


def test_the_latencies_are_plotted(tmp_path):
    done = tellframe(*SHORT, "--plot", "latency.png", cwd=tmp_path)
    assert_quiet(done)
    assert cv2.imread(str(tmp_path / "latency.png")).std() > 10


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--plot", "latency.mp4"), 2), (("--plot", "missing/latency.png"), 6), (("--plot", "plot"), 2)],
)
def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, arguments, code):
    assert_refused(tellframe(*SHORT, *arguments, cwd=tmp_path), code)


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('gone', name='matplotlib')")
    done = tellframe(*SHORT, "--plot", "latency.png", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert_refused(done, 2)
    assert "pip install 'tellframe[train]'" in done.err


# --------------------------------------------------------------------------------------------------------- the governor


def test_the_governor_is_shown_under_a_load(tmp_path):
    models = "efficientnet_lite0_256,efficientnet_lite0_256_int8"
    files = ("--json", "-", "--plot", "governor.png")
    asked = ("--governor", "--load", 2, "--model", models, "--budget", 16, "--frames", 90, "--warm-up", 3)
    done = tellframe("bench", *asked, *files, cwd=tmp_path)
    assert_quiet(done)
    (figures,) = done.records()
    thirds = figures["thirds"]
    assert [third["frames"] for third in thirds] == [30, 30, 30]
    line = figures["timeline"]
    assert {len(values) for values in line.values()} == {90}
    assert sum(third["over"] for third in thirds) == sum(ms > figures["budget"]["period_ms"] for ms in line["total_ms"])
    for i, model in enumerate(figures["models"]):
        assert model["frames"] == line["model"].count(i)
    assert cv2.imread(str(tmp_path / "governor.png")).std() > 10


def test_people_get_a_table_of_the_thirds(tmp_path):
    done = tellframe("bench", "--governor", "--load", 0, "--frames", 20, "--warm-up", 0, cwd=tmp_path)
    assert_quiet(done)
    assert "settled p95" in done.out


@pytest.mark.parametrize("arguments", [("--load", 1), ("--governor", "--on-card", "here")])
def test_options_that_do_not_go_together_are_refused(tmp_path, arguments):
    assert_refused(tellframe(*SHORT, *arguments, cwd=tmp_path), 2)
