import re
from html.parser import HTMLParser

import pytest

from pipelines.evaluation.html import page
from pipelines.evaluation.results import Judged
from pipelines.evaluation.run import Findings
from pipelines.evaluation.words import terminal_table
from tests.pipelines.evaluation.made import (
    make_clip,
    make_evaluation,
    make_findings,
    make_judged,
    make_plan,
    make_still,
    nobody_seen,
)

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Checks that elements nest, and gathers headings, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.headings, self.said, self.tags = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        self.said.append(data)


def only(clips=(), stills=()):
    """An evaluation of these alone, without tiers and robustness."""
    return make_evaluation(Findings(Judged(tuple(clips), tuple(stills)), {}, {}, {}))


@pytest.fixture(scope="module")
def evaluation():
    return make_evaluation()


@pytest.fixture(scope="module")
def text(evaluation):
    return page(evaluation)


def test_the_page_is_well_formed_and_has_every_section(text):
    assert Reader(text).headings == [
        "Figures",
        "By method",
        "By source",
        "Quality tiers",
        "Robustness",
        "Most wrong",
        "Trouble with the data",
        "How it was measured",
    ]
    assert text.count("<svg") == 7


def test_nothing_is_fetched(text):
    reader = Reader(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(reader.tags)
    for tag, name, value in reader.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#"), (tag, name, value)
    assert not re.findall(r"url\((?!['\"]?#)", text)
    assert "@import" not in text
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'") in reader.attributes


def test_ids_are_unique_and_lead_somewhere(text):
    ids = re.findall(r' id="([^"]+)"', text)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    assert used <= set(ids)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        own = re.findall(r' id="([^"]+)"', svg)
        assert len(own) == len(set(own))


def test_the_page_goes_with_light_and_dark_and_small_screens(text):
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    for svg in re.findall(r"<svg[^>]*>", text):
        assert "viewBox" in svg
        assert not re.search(r' (width|height)="', svg)
        assert 'role="img"' in svg
    assert "currentColor" in text
    assert "#010203" not in text


def test_figures_stand_there_with_their_intervals(text, evaluation):
    auc = evaluation.overall.video.metrics.auc
    assert f"{auc.value:.3f} ({auc.low:.3f}-{auc.high:.3f})" in text
    assert "95 %" in text


def test_what_a_file_is_called_is_text():
    nasty = "<script>alert(1)</script>\"'&\n$x_1$ \u96ea"
    judged = Judged(
        (
            make_clip(nasty, 0.9, fake=True, method=nasty, source=nasty),
            make_clip("r", 0.1, source=nasty),
            make_clip("r2", 0.6, source=nasty),
        )
    )
    text = page(make_evaluation(make_findings(judged, {nasty: (nasty,)}), make_plan(data=(nasty,))))
    reader = Reader(text)
    assert "script" not in reader.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;\\n$x_1$ \u96ea" in text


def test_troubles_are_listed_with_counts_and_names():
    names = tuple(f"bad{i}.mp4" for i in range(250))
    text = page(make_evaluation(make_findings(failures={"the file is empty": names})))
    assert "250 × the file is empty" in text
    assert "<li>bad0.mp4</li>" in text
    assert "<li>and 50 more</li>" in text


@pytest.mark.parametrize(
    "evaluation",
    [
        only(clips=[make_clip("a", 0.9, fake=True), make_clip("b", 0.2)]),
        only(stills=[make_still("a", 0.9, fake=True), make_still("b", 0.2)]),
        only(clips=[make_clip("a", 0.9, fake=True)]),
        only(clips=[make_clip("a")], stills=[make_still("b")]),
        only(clips=[nobody_seen("a", fake=True), nobody_seen("b", fake=False)]),
        make_evaluation(make_findings(make_judged(stills=0), {})),
    ],
    ids=["clips only", "pictures only", "one fake clip", "one class", "no faces", "no trouble"],
)
def test_any_mixture_makes_a_page_and_a_table(evaluation):
    assert Reader(page(evaluation)).headings[-1] == "How it was measured"
    assert terminal_table(evaluation).startswith("double\n")


def test_the_same_evaluation_makes_the_same_page(evaluation, text):
    assert page(evaluation) == text


def test_the_table_names_troubles_on_lines_of_their_own():
    findings = make_findings(failures={"empty": ("a", "b\x1b[2J", "c", "d")})
    assert terminal_table(make_evaluation(findings)).endswith("\n4 x empty: a, b\\x1b[2J, c, ...")


def test_the_table_is_narrow_and_plain(evaluation):
    table = terminal_table(evaluation)
    assert table.isascii()
    assert max(map(len, table.splitlines())) <= 100
