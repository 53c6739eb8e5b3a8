"""The Model tab: what it says is what the reports and cards say, whatever they say."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest

from compression.budget import FPS_30, FrameBudget
from detector.models import LADDER, StoredModel, available, ladder
from detector.types import ModelError
from tests.doubles import make_card
from tests.webapp.reading import rows_of, text_of
from webapp.heatmap import sensitivity_figure
from webapp.hqpreports import read_reports
from webapp.modelpage import arms_html, models_html, policy_html, shown_models, story_html

HQP = Path(__file__).parents[2] / "assets" / "hqp"


def changed(tmp_path, **changes):
    """The reports with a file of them changed: ``comparison``, ``report`` or ``policy``, a function of its JSON."""
    folder = shutil.copytree(HQP, tmp_path / "hqp")
    for name, change in changes.items():
        path = folder / f"{name}.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
    return read_reports(folder)


@pytest.fixture(scope="module")
def reports():
    return read_reports()


@pytest.fixture(scope="module")
def cards():
    by_name = {model.card.name: model.card for model in available()}
    return [by_name[name] for name in LADDER]


@pytest.fixture(scope="module")
def trials():
    with (HQP / "sensitivity.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_story_tells_the_figures_of_the_files(reports, cards):
    said = text_of(story_html(reports, cards))
    dense, _, small = json.loads((HQP / "comparison.json").read_text())["models"]
    ms = small["score_ms"]
    assert f"{small['bytes'] / 1e6:.1f} MB instead of {dense['bytes'] / 1e6:.1f} MB" in said
    assert f"{ms['p50_ms']:.1f} ms instead of {dense['score_ms']['p50_ms']:.1f} ms" in said
    assert f"{ms['ratio']:.1f} times faster ({ms['ratio_low']:.2f} to {ms['ratio_high']:.2f}" in said
    removed = json.loads((HQP / "policy.json").read_text())["removed_blocks"]
    assert f"{len(removed)} of 16 blocks wholly" in said
    auc = {card.name: card.measured["development clips"]["clips"] for card in cards}
    for name in (dense["name"], small["name"]):
        low, high = auc[name]["auc_interval"]
        assert f"{100 * auc[name]['auc']:.0f} ({100 * low:.0f} to {100 * high:.0f}" in said
    assert "36 fake and 27 real clips" in said


def test_the_story_does_not_hide_a_bound_that_was_missed(reports, cards, tmp_path):
    bound = json.loads((HQP / "report.json").read_text())["bounds"]["max_drop"]
    assert not bound["met"]
    said = text_of(story_html(reports, cards))
    assert f"allowed to lose 1 of 100 pairs and lost {100 * bound['got']:.1f}. That bound was missed." in said

    def keep(report):
        report["bounds"]["max_drop"] |= {"got": 0.004, "met": True}

    assert "lost 0.4. That bound was kept." in text_of(story_html(changed(tmp_path, report=keep), cards))


def test_the_story_follows_the_files_and_claims_nothing_that_no_card_measured(reports, tmp_path):
    def faster(comparison):
        comparison["models"][2]["score_ms"] |= {"ratio": 7.31, "ratio_low": 7.02, "ratio_high": 7.55}

    def unbounded(report):
        report["bounds"] = {}

    untested = [make_card(name=name) for name in LADDER]
    said = text_of(story_html(changed(tmp_path, comparison=faster, report=unbounded), untested))
    assert "7.3 times faster (7.02 to 7.55" in said
    assert "cost" not in said
    assert "pairs" not in said


def test_the_table_of_models_is_that_of_their_cards(cards):
    head, *rows = rows_of(models_html(cards, FPS_30))
    assert head[0] == "Model"
    assert [row[0] for row in rows] == list(LADDER)
    for card, row in zip(cards, rows, strict=True):
        test = card.measured["development clips"]["clips"]
        low, high = test["auc_interval"]
        took = card.measured["pipeline at 1280x720"]["total_ms"]
        assert row[3:6] == [f"{card.input_size} x {card.input_size} px", f"{card.bytes:,}", row[5]]
        assert row[5] == f"{test['auc']:.3f} ({low:.3f}-{high:.3f})"
        assert row[6].startswith(f"{took['p50']:.1f} / {took['p95']:.1f}")
    assert [row[2] for row in rows] == ["floating point", "8 bits", "8 bits"]


def test_a_mark_says_whether_a_model_keeps_the_budget_of_the_page(cards):
    def marks(budget):
        return [row[-1][-1] for row in rows_of(models_html(cards, budget))[1:]]

    p95 = [card.measured["pipeline at 1280x720"]["total_ms"]["p95"] for card in cards]
    for between in (min(p95) - 0.1, sorted(p95)[1] - 0.1, sorted(p95)[2] - 0.1, max(p95) + 0.1):
        assert marks(FrameBudget(between)) == ["✓" if each <= between else "✗" for each in p95]
    assert marks(FPS_30)[1] == "✓"


def test_a_model_that_was_never_measured_says_so(cards):
    row = rows_of(models_html([make_card(name="mine", measured={"noted": 3})], FPS_30))[1]
    assert (row[0], row[5], row[6]) == ("mine", "not measured", "not measured")


def test_the_table_of_arms_is_that_of_the_comparison(reports, cards):
    compared = json.loads((HQP / "comparison.json").read_text())["models"]
    rows = rows_of(arms_html(reports, cards))[1:]
    for model, row in zip(compared, rows, strict=True):
        frame, ms = model["whole_frame_ms"], model["score_ms"]
        assert row[0] == model["name"]
        assert row[2] == f"{ms['p50_ms']:.1f}"
        assert row[4:6] == [f"{model['bytes'] / 1e6:.2f}", f"{frame['p50']:.1f} / {frame['p95']:.1f}"]
        if row is not rows[0]:
            assert row[3] == f"{ms['ratio']:.2f} ({ms['ratio_low']:.2f}-{ms['ratio_high']:.2f})"
    assert rows[0][3] == "1"
    assert [row[6] for row in rows] == [row[5] for row in rows_of(models_html(cards, FPS_30))[1:]]


def test_a_comparison_without_whole_frames_is_shown_all_the_same(cards, tmp_path):
    def drop(comparison):
        for model in comparison["models"]:
            model["whole_frame_ms"] = None

    rows = rows_of(arms_html(changed(tmp_path, comparison=drop), cards))[1:]
    assert [row[5] for row in rows] == ["-", "-", "-"]


def cells(figure):
    """The cells of a heat map: column and row (a layer, shortened) -> log10, what hovering tells, what is written."""
    found = {}
    for trace in figure["data"]:
        for y, row in enumerate(trace["z"]):
            for x, z in enumerate(row):
                written, layer = trace["text"][y][x], figure["layout"]["yaxis"]["ticktext"][y]
                assert (z is None) == (written == "")
                if z is not None:
                    key = trace["xaxis"], trace["x"][x], layer
                    assert key not in found
                    found[key] = z, trace["customdata"][y][x], written
    return found


def test_the_heat_map_has_every_number_of_bits_in_its_place(reports, trials):
    found = cells(sensitivity_figure(reports))
    rounded = [trial for trial in trials if trial["kind"] == "bits"]
    assert sum(key[0] == "x2" for key in found) == len(rounded) >= 50  # layers
    for trial in rounded:
        z, hover, _ = found["x2", trial["option"], trial["name"].removeprefix("blocks.")]
        assert z == pytest.approx(math.log10(float(trial["divergence"])), abs=1e-3)
        assert f"{float(trial['divergence']):.3g}" in hover
        assert trial["name"] in hover


def test_the_heat_map_shows_of_every_ratio_the_trial_that_is_nearest_to_it(reports, trials):
    found = cells(sensitivity_figure(reports))
    for group in {trial["name"] for trial in trials if trial["kind"] == "pruning"}:
        tried = [t for t in trials if t["kind"] == "pruning" and t["name"] == group]
        for ratio in json.loads((HQP / "report.json").read_text())["recipe"]["ratios"]:
            some = [t for t in tried if t["option"] != "0"]
            nearest = min(some, key=lambda t: abs(float(t["share"]) - ratio))
            z, hover, _ = found["x", f"{100 * ratio:g}", group.removeprefix("blocks.")]
            assert z == pytest.approx(math.log10(float(nearest["divergence"])), abs=1e-3)
            assert f"{nearest['option']} channels" in hover
        gone = [t for t in tried if t["option"] == "0"]
        assert (("x", "none", group.removeprefix("blocks.")) in found) == bool(gone)


def test_the_rows_are_the_layers_in_order_and_a_depthwise_layer_shares_the_channels_before_it(reports, trials):
    figure = sensitivity_figure(reports)
    layers = list(dict.fromkeys(trial["name"] for trial in trials if trial["kind"] == "bits"))
    assert figure["layout"]["yaxis"]["ticktext"] == [layer.removeprefix("blocks.") for layer in layers]
    first, last = figure["layout"]["yaxis"]["range"]
    assert first > last  # the first layer is on top
    found = cells(figure)
    assert found["x", "50", "1.0.conv_dw"][0] == found["x", "50", "1.0.conv_pw"][0]
    assert ("x", "50", "1.0.conv_pwl") not in found  # its channels stay


def test_what_is_written_in_a_cell_can_be_read_on_its_colour(reports):
    figure = sensitivity_figure(reports)
    low, high = figure["data"][0]["zmin"], figure["data"][0]["zmax"]
    for trace in figure["data"]:
        shown = [z for row in trace["z"] for z in row if z is not None]
        levels = [(z - low) / (high - low) for z in shown]
        assert all((level < 0.45) == (trace["textfont"]["color"] == "#ffffff") for level in levels)
        assert not any("<" in text for row in trace["text"] for text in row)  # it would be read as markup


def test_the_policy_tells_what_became_of_every_block(reports):
    groups = json.loads((HQP / "report.json").read_text())["groups"]
    html = policy_html(reports)
    rows = {row[0]: row[1:] for row in rows_of(html)[1:]}
    for layer, group in groups.items():
        name = re.sub(r"^(blocks\.)?(\d+\.\d+)\..*", r"\2", layer)
        if group["kept"]:
            assert f"{group['kept']} of {group['channels']}" in rows[name][0]
        else:
            assert rows[name] == ["none: left out", "-"]
    assert rows["1.0"] == ["80 of 96 (83%)", "8 / 8 / 8"]
    assert rows["classifier"] == ["all", "float"]
    out = [re.sub(r"^blocks\.(\d+\.\d+)\..*", r"\1", layer) for layer, group in groups.items() if not group["kept"]]
    assert f"Left out whole: {', '.join(out)}." in text_of(html)
    assert 'style="width:83.3%"' in html


def test_bits_that_differ_from_layer_to_layer_are_told_one_by_one(tmp_path, cards):
    def fewer(report):
        report["bits"] |= {"blocks.1.0.conv_dw": 6}

    some = changed(tmp_path, report=fewer)
    assert {row[0]: row[2] for row in rows_of(policy_html(some))[1:]}["1.0"] == "8 / 6 / 8"
    assert "whole numbers of 8 and 6 bits" in text_of(story_html(some, cards))


@pytest.mark.parametrize("broken", ["comparison.json", "report.json", "policy.json", "sensitivity.csv"])
def test_a_damaged_install_is_told_in_words(broken, tmp_path):
    folder = shutil.copytree(HQP, tmp_path / "hqp")
    (folder / broken).unlink()
    with pytest.raises(ModelError, match="install again"):
        read_reports(folder)


def test_the_tab_is_about_the_shipped_models_and_those_of_ones_own(tmp_path):
    mine = StoredModel(make_card(name="mine"), tmp_path / "mine.onnx")
    assert [model.card.name for model in shown_models([mine])] == [*LADDER, "mine"]
    assert [model.card.name for model in shown_models(ladder())] == list(LADDER)
