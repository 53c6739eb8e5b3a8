"""The Limits tab: every word and every reason is explained, and its figures are those of the card."""

import re

import pytest

from detector.card import Thresholds
from detector.models import available, ladder
from detector.types import Label, Reason
from tests.doubles import make_card
from webapp.limitspage import limits_html
from webapp.view import WORDS

CARDS = [model.card for model in available()]
NOT_UNSURE = {Reason.BELOW_REAL, Reason.ABOVE_FAKE, Reason.NO_FACE}


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def section(html, title):
    return text_of(re.search(rf"<h3>{re.escape(title)}</h3>(.*?)</section>", html, re.DOTALL)[1])


@pytest.fixture(scope="module")
def page():
    return limits_html(ladder()[0].card)


@pytest.mark.parametrize("label", Label)
def test_every_word_of_a_verdict_is_explained_with_its_name_in_results(page, label):
    words = section(page, "What the words mean")
    assert f"{WORDS[label]} {label.value} " in words


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_thresholds_are_those_of_the_card(card):
    words = section(limits_html(card), "What the words mean")
    assert f"below {card.thresholds.real_below:.2f}." in words
    assert f"above {card.thresholds.fake_above:.2f}." in words


def test_other_thresholds_are_told_as_they_are():
    words = section(limits_html(make_card(thresholds=Thresholds(0.12, 0.87))), "What the words mean")
    assert "below 0.12." in words
    assert "above 0.87." in words


@pytest.mark.parametrize("reason", set(Reason) - NOT_UNSURE)
def test_every_reason_for_not_being_sure_is_there_with_what_would_help(page, reason):
    row = re.search(rf">{reason.value.capitalize()}</th><td>([^<]+)</td><td>([^<]+)</td>", page)
    assert row[1].startswith("The face ")
    assert len(row[2]) > 20


def test_there_are_no_other_reasons_in_the_table(page):
    table = page[page.index('aria-label="Reasons"') :]
    assert table[: table.index("</table>")].count("<tr>") == 1 + len(Reason) - len(NOT_UNSURE)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_method_is_there_with_its_number_of_clips_and_what_was_said(card):
    said = section(limits_html(card), "What it catches")
    test = card.measured["development clips"]["clips"]
    for value in test["by_method"].values():
        counts = " / ".join(str(value["fakes_said"].get(word, 0)) for word in ("FAKE", "UNSURE", "REAL"))
        low, high = value["auc_interval"]
        figures = f"{value['fakes']} / {value['reals']} clips {counts} {value['auc']:.2f} ({low:.2f}-{high:.2f})"
        assert figures in said
    for value in card.measured["held out of training"]["pictures"]["by_method"].values():
        assert f"{value['fakes']} / {value['reals']} pictures - {value['auc']:.2f}" in said


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_what_was_said_of_forged_and_real_clips_is_told_in_words(card):
    said = section(limits_html(card), "What it catches")
    test = card.measured["development clips"]["clips"]
    fakes, reals = test["fakes_said"], test["reals_said"]
    assert f"tried on {test['fakes']} forged and {test['reals']} real clips" in said
    assert (
        f"Of the forged ones it called {fakes['FAKE']} fake and {fakes['REAL']} real, "
        f"and of {fakes['UNSURE']} it was not sure."
    ) in said
    assert f"called none fake and {reals['REAL']} real, and of {reals['UNSURE']} it was not sure." in said


def test_a_model_that_was_never_tested_claims_nothing():
    html = limits_html(make_card(name="mine", measured={"noted": 3}))
    assert section(html, "What it catches") == "The card of mine holds no test: how well it detects is not known."
    assert "alarm" not in html
    assert "AUC" not in html


def test_false_alarms_are_as_many_as_the_threshold_allows():
    measured = {"calibration": {"rule": {"real_passes": 0.97}, "real_clips": 120}}
    said = section(limits_html(make_card(measured=measured)), "What a verdict is not")
    assert "at most 3% of 120 real test clips" in said
    assert "Of 1,000 real videos that may be 30:" in said


def test_it_says_that_a_verdict_is_no_proof_and_what_becomes_of_a_video(page):
    assert "It is no proof, of either." in text_of(page)
    kept = section(limits_html(ladder()[0].card, keep_s=600), "What happens to your video")
    assert "after 10 minutes in any case" in kept
    assert "None is stored." in kept


def test_what_a_card_says_cannot_become_markup():
    measured = {"test": {"clips": {"by_method": {"<b>x</b>": {"fakes": 1, "reals": 1}}}}}
    html = limits_html(make_card(measured=measured))
    assert "<b>x" not in html
    assert "&lt;b&gt;x" in html
