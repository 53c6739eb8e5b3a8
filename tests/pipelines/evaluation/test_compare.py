import json
from dataclasses import replace

import pytest

from detector.types import Label, UsageError
from pipelines.evaluation.compare import Plan, accuracy, compare_command, markdown
from pipelines.evaluation.results import Judged
from tests.pipelines.evaluation.made import make_clip, make_evaluation, make_findings

PLAN = Plan(("efficientnet_lite0_256", "efficientnet_lite0_256_int8"), (), "auto", 1, 30, 0, None, None)


def seen(*clips):
    return make_evaluation(make_findings(clean=Judged(clips)))


def test_drops_are_in_points_of_auc_and_the_worst_method_is_named():
    reals = [make_clip(f"r{i}.mp4", 0.1 * i) for i in range(4)]  # 0 .. 0.3
    good = [make_clip("s.mp4", 0.9, fake=True, method="swap"), make_clip("t.mp4", 0.9, fake=True, method="talk")]
    worse = [make_clip("s.mp4", 0.9, fake=True, method="swap"), make_clip("t.mp4", 0.15, fake=True, method="talk")]
    found = accuracy(seen(*reals, *worse), seen(*reals, *good))
    assert found["video_auc"] == 0.75
    assert found["drop_points"] == 25.0
    assert found["methods"] == [
        {"method": "swap", "clips": 1, "drop_points": 0.0},
        {"method": "talk", "clips": 1, "drop_points": 50.0},
    ]


def test_verdicts_that_changed_are_counted_and_those_that_turned_round_among_them():
    before = [make_clip(f"{i}.mp4", 0.5, fake=i > 2, label=Label.REAL) for i in range(5)]
    labels = [Label.REAL, Label.UNSURE, Label.FAKE, Label.NO_FACE, Label.FAKE]
    after = [replace(clip, label=label) for clip, label in zip(before, labels, strict=True)]
    found = accuracy(seen(*after), seen(*before))
    assert (found["clips"], found["changed"], found["reversed"]) == (5, 4, 2)


def test_two_models_are_timed_in_turns_and_the_first_is_the_measure(tmp_path):
    compare_command(replace(PLAN, json=str(tmp_path / "c.json"), markdown=str(tmp_path / "c.md")))
    comparison = json.loads((tmp_path / "c.json").read_text())
    dense, int8 = comparison["models"]
    assert (dense["name"], int8["name"]) == PLAN.models
    assert dense["score_ms"]["ratio"] == dense["bytes_ratio"] == 1.0
    assert int8["bytes_ratio"] == round(int8["bytes"] / dense["bytes"], 4)
    assert int8["score_ms"]["ratio_low"] <= int8["score_ms"]["ratio"] <= int8["score_ms"]["ratio_high"]
    assert dense["macs"] == int8["macs"]
    assert dense["whole_frame_ms"] is None
    table = (tmp_path / "c.md").read_text()
    assert table == markdown(comparison)
    assert table.count("| `efficientnet_lite0_256") == 2
    assert len({line.count("|") for line in table.splitlines()[:4]}) == 1, "every row has every column"


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        (PLAN.models[:1], "at least two models"),
        ((PLAN.models[0], PLAN.models[0]), "two models are called efficientnet_lite0_256"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, complaint):
    with pytest.raises(UsageError, match=complaint):
        compare_command(replace(PLAN, models=models))
