import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.budget import FPS_30, FrameBudget
from detector.clip import ClipJudge
from detector.types import Label, Pace, SourceCounts, SourceInfo, Timing
from pipelines.report import json_text
from pipelines.summary import Summary
from tests.doubles import THRESHOLDS, make_card, make_verdict
from tests.pipelines.results import make_face, make_result

INFO = SourceInfo("clip.mp4", fps=25.0)
KEYS = [
    "schema",
    "path",
    "verdict",
    "reason",
    "p_fake",
    "frames",
    "frames_scored",
    "duration_s",
    "fps",
    "faces",
    "segments",
    "latency_ms",
    "budget",
    "pace",
    "dropped",
    "broken",
    "reconnects",
    "complete",
    "model",
    "models",
]


def summed(results, budget=FPS_30, path="clip.mp4"):
    summary = Summary(path, make_card(), budget)
    for result in results:
        summary.add(result)
    return summary


def record(results, *, info=INFO, counts=None, complete=True, **options):
    return summed(results, **options).record(info, counts or SourceCounts(), complete=complete)


def of_label(label, count=30, **changes):
    return [make_result(label, index=i, **changes) for i in range(count)]


def taking(*totals_ms):
    return [make_result(Label.REAL, index=i, timing=Timing(0, 0, 0, ms)) for i, ms in enumerate(totals_ms)]


# --------------------------------------------------------------------------------------------------------- the record


def test_the_keys_and_their_order_are_those_of_the_schema():
    said = record(of_label(Label.FAKE))
    assert list(said) == KEYS
    assert said["schema"] == "tellframe.clip/1"
    assert list(said["faces"][0]) == ["track", "verdict", "reason", "p_fake", "frames", "first_s", "last_s"]
    assert list(said["segments"][0]) == ["start_s", "end_s", "p_fake"]
    assert list(said["latency_ms"]) == ["find", "crop", "score", "total"]
    assert list(said["latency_ms"]["find"]) == ["p50", "p95", "p99"]
    assert list(said["budget"]) == ["period_ms", "over", "met"]
    assert list(said["model"]) == ["name", "sha256"]


def test_the_verdict_is_that_of_the_clip_judge():
    results = of_label(Label.FAKE)
    judge = ClipJudge(THRESHOLDS)
    for result in results:
        judge.add(result)
    clip, said = judge.verdict(), record(results)
    assert (said["verdict"], said["reason"]) == ("FAKE", clip.reason.value)
    assert said["p_fake"] == pytest.approx(clip.p_fake, abs=1e-6)
    assert said["faces"] == [
        {
            "track": 1,
            "verdict": "FAKE",
            "reason": clip.reason.value,
            "p_fake": pytest.approx(0.91),
            "frames": 30,
            "first_s": 0.0,
            "last_s": 1.16,
        }
    ]
    assert said["segments"] == [{"start_s": 0.0, "end_s": 1.16, "p_fake": pytest.approx(0.91)}]


def test_without_a_face_the_score_is_null():
    said = record(of_label(Label.NO_FACE))
    assert (said["verdict"], said["p_fake"], said["faces"], said["segments"]) == ("NO_FACE", None, [], [])
    assert said["frames_scored"] == 0


def test_the_model_and_what_the_source_says_of_itself_are_told():
    said = record(of_label(Label.REAL), counts=SourceCounts(broken=3, reconnects=2), path="my clip.mp4")
    assert (said["path"], said["fps"], said["broken"], said["reconnects"]) == ("my clip.mp4", 25.0, 3, 2)
    assert said["model"] == {"name": "double", "sha256": "0" * 64}
    assert said["complete"] is True
    assert record([], complete=False)["complete"] is False


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Label)),
            st.integers(0, 5),
            st.floats(0, 200),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_everything_is_counted_exactly_and_is_json(frames):
    results = []
    for i, (label, dropped, total_ms, scored) in enumerate(frames):
        faces = None if label is Label.NO_FACE else (make_verdict(0.5 if scored else None, label=label),)
        results.append(
            make_result(label, index=i, dropped=dropped, timing=Timing(total_ms / 2, 0, 0, total_ms), faces=faces)
        )
    said = record(results)
    assert json.loads(json_text(said)) == said
    assert said["frames"] == len(frames)
    assert said["dropped"] == sum(dropped for _, dropped, _, _ in frames)
    assert said["frames_scored"] == sum(scored and label is not Label.NO_FACE for label, _, _, scored in frames)
    assert said["budget"]["over"] == sum(total_ms > FPS_30.period_ms for _, _, total_ms, _ in frames)


def test_a_clip_of_no_frames_is_json_too():
    said = record([], info=SourceInfo("empty"))
    assert json.loads(json_text(said)) == said
    assert (said["frames"], said["duration_s"], said["fps"], said["p_fake"]) == (0, 0.0, None, None)
    assert set(said["latency_ms"]["total"].values()) == {None}


def test_a_name_that_is_no_utf_8_can_be_written_and_read():
    text = json_text(record(of_label(Label.REAL), path="\udcff.mp4"))
    assert text.isascii()
    json.loads(text)


# ------------------------------------------------------------------------------------------------------- time and rate


def test_a_clip_lasts_to_the_end_of_its_last_frame():
    assert record(of_label(Label.REAL, 50))["duration_s"] == 2.0


def test_a_rate_that_the_source_does_not_know_is_measured():
    said = record(of_label(Label.REAL, 50), info=SourceInfo("live"))
    assert said["fps"] == pytest.approx(25.0)
    assert said["duration_s"] == pytest.approx(2.0)


def test_dropped_frames_do_not_slow_a_source_down():
    results = [make_result(Label.REAL, index=2 * i, pts_ns=i * 80_000_000, dropped=min(i, 1)) for i in range(50)]
    assert record(results, info=SourceInfo("live"))["fps"] == pytest.approx(25.0, rel=0.01)


def test_one_picture_of_unknown_rate_has_no_rate():
    said = record(of_label(Label.REAL, 1), info=SourceInfo("still"))
    assert (said["fps"], said["duration_s"]) == (None, 0.0)


# -------------------------------------------------------------------------------------------------- latency and budget


def test_latencies_are_the_quantiles_of_the_frames_within_one_percent():
    rng = np.random.default_rng(3)
    totals = rng.lognormal(2.5, 0.5, 500)
    said = record(taking(*totals))
    for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert said["latency_ms"]["total"][name] == pytest.approx(np.quantile(totals, q), rel=0.01)


def test_a_stage_that_did_not_run_says_nothing_of_what_it_costs():
    results = [
        make_result(Label.REAL, index=i, timing=Timing(10.0 if i % 5 == 0 else 0.0, 1.0, 0.0, 15.0)) for i in range(50)
    ]
    said = record(results)["latency_ms"]
    assert said["find"] == {"p50": 10.0, "p95": 10.0, "p99": 10.0}
    assert said["score"] == {"p50": None, "p95": None, "p99": None}
    assert summed(results).latency_ms("find", 0.5) == 10.0


def test_a_frame_that_takes_exactly_its_time_is_in_time():
    said = record(taking(20.0, 20.0, 20.1), budget=FrameBudget(20.0, 1.0))["budget"]
    assert (said["over"], said["met"], said["period_ms"]) == (1, False, 20.0)


@pytest.mark.parametrize(("late", "met"), [(0, True), (4, True), (6, False), (100, False)])
def test_a_budget_is_met_when_its_share_of_the_frames_is_in_time(late, met):
    said = record(taking(*[10.0] * (100 - late), *[50.0] * late))["budget"]
    assert (said["over"], said["met"]) == (late, met)


@pytest.mark.parametrize(("period_ms", "takes_ms"), [(1000 / 30, 33.42), (25.0, 25.05)])
def test_a_budget_is_not_met_when_nearly_all_frames_are_over_it_by_little(period_ms, takes_ms):
    said = record(taking(1.0, *[takes_ms] * 200, 100.0), budget=FrameBudget(period_ms))["budget"]
    assert (said["over"], said["met"]) == (201, False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=60))
def test_met_and_over_never_contradict_each_other(totals):
    summary = summed(taking(*totals))
    if summary.over == 0:
        assert summary.budget_met()
    if summary.over == summary.frames:
        assert not summary.budget_met()


# -------------------------------------------------------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_length_of_a_clip():
    summary = Summary("long", make_card(), FPS_30)
    picture = np.zeros((4, 4, 3), np.uint8)
    faces = (make_face(1, Label.REAL), make_face(2, Label.FAKE))
    results = [make_result(Label.FAKE, index=i, faces=faces, bgr=picture) for i in range(6000)]
    for result in results[:1000]:
        summary.add(result)
    tracemalloc.start()
    try:
        for result in results[1000:]:
            summary.add(result)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 20_000
    assert summary.frames == 6000


def test_pictures_are_not_kept():
    summary = Summary("clip", make_card(), FPS_30)
    tracemalloc.start()
    try:
        for i in range(20):
            summary.add(make_result(Label.REAL, index=i, bgr=np.zeros((500, 500, 3), np.uint8)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 500_000


# ---------------------------------------------------------------------------------------------- what was left out


def test_a_clip_at_full_pace_says_that_nothing_was_left_out():
    said = record(of_label(Label.REAL))
    assert said["pace"] == {"steps": 0, "find_every": 1, "score_every": 1}
    assert said["models"] == [{"name": "lite0-int8", "frames": 30}]


def test_every_change_of_pace_is_counted_and_the_rarest_work_is_told():
    paces = [Pace(1, 1), Pace(1, 1), Pace(4, 2, 1), Pace(2, 1), Pace(2, 1)]
    results = [replace(make_result(Label.REAL, index=i), pace=pace) for i, pace in enumerate(paces)]
    assert record(results)["pace"] == {"steps": 2, "find_every": 4, "score_every": 2}


def test_every_model_is_named_with_its_frames():
    results = [replace(make_result(Label.REAL, index=i), model=name) for i, name in enumerate("aabba")]
    assert record(results)["models"] == [{"name": "a", "frames": 3}, {"name": "b", "frames": 2}]
