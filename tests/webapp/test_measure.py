"""Measure here: the real benchmark, one measurement at a time, that can be given up; and how its figures are shown."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from compression.budget import FPS_30, FrameBudget
from detector.models import StoredModel, available, ladder
from detector.types import TellframeError
from tests.webapp.reading import rows_of, text_of
from webapp.job import Cancelled
from webapp.measure import Bench, Run
from webapp.measured import STAGES, measured_figure, measured_html

HQP = next(model for model in available() if model.card.kind == "hqp")
FEW = 20  # frames: the least that the benchmark takes


def children():
    """Benchmarks that this process runs now: id and niceness."""
    ours = f"{os.getpid()}"
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if stat[1] == ours and b"bench" in words:
            found[int(entry.name)] = int(stat[16])
    return found


def until(happens, seconds=60.0):
    """What it gives, once that is something."""
    end = time.monotonic() + seconds
    while not (result := happens()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return result


@pytest.fixture(scope="module")
def measured():
    """The figures of two models, measured for real."""
    run = Bench(ladder(), FrameBudget(250.0), FEW).start("somebody")
    assert run.wait(120)
    return run.result()


def test_every_model_is_measured_by_the_benchmark(measured):
    assert [figures["model"]["sha256"] for figures in measured] == [model.card.sha256 for model in ladder()]
    for figures in measured:
        assert figures["schema"] == "tellframe.bench/1"
        assert figures["plan"] | {"frames": FEW, "budget": "250.0", "threads": 1} == figures["plan"]
        assert figures["latency_ms"]["score"]["runs"] == FEW
        assert figures["budget"]["period_ms"] == 250.0


def test_it_gives_way_to_the_server_and_tells_how_far_it_is():
    run = Run([HQP, HQP], FPS_30, FEW)
    run.start()
    until(lambda: list(children().values()) == [10])
    shares, words = [], set()
    while not run.ended:
        shares.append(run.progress.share)
        words.add(run.progress.words)
        time.sleep(0.02)
    assert words == {f"Measuring {HQP.card.name} (model {which} of 2) ..." for which in (1, 2)}
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1] < 1.0
    assert len(run.result()) == 2


def test_one_measurement_at_a_time_whoever_asks():
    bench = Bench([HQP], FPS_30, 100_000)
    run = bench.start("one")
    assert bench.start("two") is None
    assert bench.start("one") is None
    bench.cancel("two")  # not theirs
    time.sleep(0.2)
    assert not run.ended
    bench.cancel("one")
    assert run.wait(10)
    after = bench.start("two")
    assert after is not None
    after.cancel()
    assert after.wait(10)


def test_giving_up_ends_the_process_at_once():
    run = Run([HQP, HQP], FPS_30, 100_000)
    run.start()
    (child,) = until(children)
    began = time.monotonic()
    run.cancel()
    assert run.wait(5)
    assert time.monotonic() - began < 2
    assert child not in children()
    with pytest.raises(Cancelled):
        run.result()
    run.cancel()  # once more changes nothing


def test_what_was_given_up_before_it_began_starts_nothing():
    run = Run([HQP], FPS_30, FEW)
    run.cancel()
    run.start()
    assert run.wait(5)
    assert not children()
    with pytest.raises(Cancelled):
        run.result()


def test_a_model_that_is_gone_is_told_in_words_without_the_folders_of_the_server(tmp_path):
    for kind in (".onnx", ".json"):
        shutil.copy(HQP.path.with_suffix(kind), tmp_path)
    mine = tmp_path / HQP.path.name
    mine.write_bytes(b"not a model")
    run = Run([StoredModel(HQP.card, mine)], FPS_30, FEW)
    run.start()
    assert run.wait(60)
    with pytest.raises(TellframeError, match=r"^efficientnet_lite0_256_hqp could not be measured: ") as error:
        run.result()
    assert "11 bytes" in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_it_does_not_hold_up_the_thread_that_starts_it():
    bench = Bench([HQP], FPS_30, FEW)
    began = time.monotonic()
    run = bench.start("one")
    assert time.monotonic() - began < 0.5
    assert threading.current_thread() is threading.main_thread()
    run.cancel()
    run.wait(10)


def test_the_table_shows_every_quantile_of_every_stage(measured):
    html = measured_html(measured)
    head, *rows = rows_of(html)
    assert head[3:] == [f"{words}, ms" for words in STAGES.values()]
    for figures, row in zip(measured, rows, strict=True):
        assert row[0] == figures["model"]["name"]
        assert row[1] == f"{figures['frames_a_second']:.1f}"
        for stage, cell in zip(STAGES, row[3:], strict=True):
            took = figures["latency_ms"][stage]
            assert cell == " / ".join(f"{took[q]:.1f}" for q in ("p50", "p95", "p99"))
    device = measured[0]["device"]
    assert f"Measured on {device['cpu']}, {device['cores']} cores" in text_of(html)
    assert f"{FEW} frames of 1280x720" in text_of(html)


def test_the_table_says_whether_the_budget_was_met_in_a_word(measured):
    one, two = ({**figures} for figures in measured)
    one["budget"] = one["budget"] | {"met": True, "period_ms": 33.333}
    two["budget"] = two["budget"] | {"met": False, "period_ms": 33.333}
    assert [row[2] for row in rows_of(measured_html([one, two]))[1:]] == ["✓ met (33.3 ms)", "✗ not met (33.3 ms)"]


def test_the_figure_sets_p50_and_p95_of_every_stage_against_the_budget(measured):
    figure = measured_figure(measured)
    for figures, bars in zip(measured, figure["data"], strict=True):
        took = [figures["latency_ms"][stage] for stage in STAGES]
        assert bars["name"] == figures["model"]["name"]
        assert bars["y"] == [each["p50"] for each in took]
        whiskers = [y + above for y, above in zip(bars["y"], bars["error_y"]["array"], strict=True)]
        assert whiskers == pytest.approx([each["p95"] for each in took], abs=1e-3)
    (line,) = figure["layout"]["shapes"]
    assert line["y0"] == line["y1"] == 250.0
    assert figure["layout"]["yaxis"]["range"][1] > 250.0
    assert len({bars["marker"]["pattern"]["shape"] for bars in figure["data"]}) == len(measured)  # not by colour alone


def test_a_stage_that_never_ran_is_no_zero(measured):
    figures = {**measured[0], "latency_ms": measured[0]["latency_ms"] | {"crop": {"runs": 0}}}
    assert rows_of(measured_html([figures]))[1][4] == "did not run"
    assert len(measured_figure([figures])["data"][0]["y"]) == len(STAGES) - 1
