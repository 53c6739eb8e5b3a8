import json

import numpy as np
import pytest

from detector.training.metrics import measure
from detector.types import Label
from pipelines.evaluation.figures import by_method, by_source, lacking, part
from pipelines.evaluation.results import Judged
from tests.pipelines.evaluation.made import (
    make_clip,
    make_evaluation,
    make_findings,
    make_judged,
    make_still,
    nobody_seen,
)


def test_figures_of_clips_are_those_of_their_scores():
    judged = make_judged()
    p_fake = np.array([clip.p_fake for clip in judged.clips])
    fake = np.array([clip.fake for clip in judged.clips])
    assert part(judged).video.metrics == measure(p_fake, fake)


def test_frames_of_one_clip_are_drawn_together():
    judged = make_judged(clips=12)
    p_fake = np.array([p for clip in judged.clips for p in clip.frames])
    fake, clip = np.repeat([clip.fake for clip in judged.clips], 5), np.repeat(np.arange(12), 5)
    found = part(judged).frame.metrics
    assert found == measure(p_fake, fake, clip)
    alone = measure(p_fake, fake)
    assert found.auc.value == alone.auc.value
    assert found.auc.high - found.auc.low > 1.3 * (alone.auc.high - alone.auc.low)


def test_what_has_no_face_counts_as_a_half_and_is_counted():
    clips = (make_clip("f", 0.9, fake=True), make_clip("r", 0.4), nobody_seen("none", fake=True))
    stills = (make_still("f", 0.9, fake=True), make_still("r", None, faces=0))
    found = part(Judged(clips, stills))
    assert found.video.without_face == 1
    assert found.video.metrics.auc.value == 1.0  # 0.5 is above the real clip's 0.4
    assert found.frame.without_face == 2
    assert found.image.without_face == 1
    assert found.image.metrics.auc.value == 1.0


def test_a_class_without_a_sample_leaves_counts_and_no_metrics():
    found = part(Judged((make_clip("a", fake=True), make_clip("b", fake=True))))
    assert (found.video.fakes, found.video.reals, found.video.metrics) == (2, 0, None)
    assert (found.image.fakes, found.image.reals, found.image.metrics) == (0, 0, None)
    assert found.reals.called_fake is None


def test_verdicts_are_counted_by_class():
    clips = (
        *(make_clip(f"r{i}", 0.1) for i in range(19)),
        make_clip("alarm", 0.9),
        make_clip("f", 0.9, fake=True),
        make_clip("unsure", 0.5, fake=True),
    )
    found = part(Judged(clips))
    assert found.reals.counts == {Label.REAL: 19, Label.FAKE: 1}
    assert found.reals.called_fake.value == 0.05
    assert found.fakes.counts == {Label.FAKE: 1, Label.UNSURE: 1}
    assert found.fakes.called_fake.value == 0.5


def test_each_method_is_measured_against_all_reals():
    judged = make_judged()
    found = by_method(judged)
    assert list(found) == ["reenact", "swap"]
    for method, figures in found.items():
        assert figures.video.fakes == sum(clip.method == method for clip in judged.clips)
        assert figures.video.reals == sum(not clip.fake for clip in judged.clips)


def test_each_source_is_measured_by_itself():
    judged = make_judged()
    found = by_source(judged)
    assert list(found) == ["set", "set 0", "set 1"]
    assert sum(figures.video.fakes + figures.video.reals for figures in found.values()) == len(judged.clips)
    assert found["set"].image.fakes + found["set"].image.reals == len(judged.stills)


def test_rows_without_another_class_are_named():
    judged = Judged((make_clip("a", fake=True), make_clip("b", fake=True)), (make_still("c"),))
    assert lacking(judged) == {
        "no real clip to compare with": ("a", "b"),
        "no fake picture to compare with": ("c",),
    }
    assert lacking(make_judged()) == {}


def test_the_record_is_one_line_of_ascii_and_holds_every_row():
    evaluation = make_evaluation()
    text = evaluation.to_json()
    assert text.isascii()
    assert text.endswith("\n")
    assert text.count("\n") == 1
    record = json.loads(text)
    assert [clip["name"] for clip in record["clips"]] == [clip.name for clip in evaluation.judged.clips]
    assert record["overall"]["video"]["auc"] == pytest.approx(evaluation.overall.video.metrics.auc.value, abs=1e-6)
    assert record["failures"] == [{"reason": "cannot be read", "count": 1, "names": ["bad.mp4"]}]
    assert len(record["robustness"]) == 51
    assert len(record["tiers"]) == 3


def test_names_that_no_encoding_takes_are_spelt_out():
    judged = Judged((make_clip("caf\udce9.mp4", fake=True), make_clip("b.mp4")))
    evaluation = make_evaluation(make_findings(judged, {"bad": ("x\udce9",)}))
    assert "caf\\udce9.mp4" in json.loads(evaluation.to_json())["clips"][0]["name"]
