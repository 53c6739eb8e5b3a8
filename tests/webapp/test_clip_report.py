import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.explain import EXPLANATION
from detector.types import NS_PER_S, Label
from pipelines.evidence import explained
from pipelines.text import on_one_line
from pipelines.timeline import Timeline
from tests.doubles import make_card
from tests.pipelines.results import make_result
from tests.shipped import judged, model
from webapp.report import ClipFile, report_html
from webapp.report_timeline import timeline_svg
from webapp.view import LIMITS, clock, sentence

FILE = ClipFile("holiday.mp4", "ab" * 32, 1234567)
MADE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """What a browser makes of a report: its elements with attributes, its text, and whether every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report(name="fake.mp4", *, moments=(), **changes):
    """The report on the first frames of a sample."""
    sample = judged(name)
    arguments = {
        "record": sample.record,
        "card": model().card,
        "file": FILE,
        "settings": {"Settings": "one frame in 3"},
        "thumbnails": sample.evidence.thumbnails,
        "moments": moments,
        "timeline": sample.evidence.timeline,
        "made_at": MADE,
    }
    return report_html(**arguments | changes)


@pytest.fixture(scope="module")
def fake():
    """The report on the forged sample, with what drove its scores."""
    return report(moments=[explained(moment, model()) for moment in judged("fake.mp4").evidence.moments])


# ----------------------------------------------------------------------------------------------- what is in it


def test_the_report_says_what_was_judged_how_and_when(fake):
    text = Page(fake).text
    for words in (
        "holiday.mp4",
        FILE.sha256,
        "1,234,567 bytes",
        "one frame in 3",
        model().card.name,
        model().card.sha256,
        model().card.licence,
        "2026-03-04 05:06:07 UTC",
    ):
        assert words in text


@pytest.mark.parametrize("name", ["fake.mp4", "real.mp4", "two_faces.mp4", "no_face.mp4"])
def test_the_report_holds_the_sentence_to_quote_and_the_limits_of_every_verdict(name):
    text = Page(report(name)).text
    assert sentence(judged(name).record) in text
    assert LIMITS in text
    for words in ("Wholly generated faces", "Sound is not heard", "How well it judges others was not measured"):
        assert words in text


def test_the_report_shows_every_face_and_every_moment_with_its_explanation(fake):
    sample = judged("fake.mp4")
    page = Page(fake)
    assert len(page.all("img")) == len(sample.record["faces"]) + 2 * len(sample.evidence.moments)
    assert all(image["alt"] for image in page.all("img"))
    assert EXPLANATION in page.text
    for moment in sample.evidence.moments:
        assert clock(moment.pts_s) in page.text
        assert f"p(fake) {moment.p_frame:.2f}" in page.text


def test_a_clip_without_a_face_has_no_pictures_and_no_curve():
    page = Page(report("no_face.mp4"))
    assert page.all("img") == page.all("svg") == []


def test_the_figures_are_those_of_the_models_card():
    clips = model().card.measured["development clips"]["clips"]
    text = Page(report()).text
    for method in ("deepfakes", "dfd"):
        figures = clips["by_method"][method]
        low, high = figures["auc_interval"]
        assert f"{figures['auc']:.2f} ({low:.2f}-{high:.2f})" in text
        said = figures["fakes_said"]
        assert " / ".join(str(said.get(word, 0)) for word in ("FAKE", "UNSURE", "REAL")) in text
    thresholds = model().card.thresholds
    assert f"Below {thresholds.real_below:.2f}" in text
    assert f"Above {thresholds.fake_above:.2f}" in text


@pytest.mark.parametrize(
    ("measured", "tested"),
    [
        ({}, False),
        ({"x": 3}, False),
        ({"calibration": {"rule": 1}}, False),
        ({"x": {"clips": {"by_method": {"a": {}, "b": 1}, "reals_said": {}}}}, True),
    ],
)
def test_a_card_that_measured_little_makes_a_report_all_the_same(measured, tested):
    record = judged("fake.mp4").record
    card = make_card(sha256=record["model"]["sha256"], measured=measured)
    assert ("The model's card holds no test." in Page(report(card=card)).text) != tested


def test_frames_that_were_lost_and_other_models_are_owned_up_to():
    record = judged("fake.mp4").record
    models = [*record["models"], {"name": "small", "frames": 3}]
    text = Page(report(record=record | {"dropped": 4, "broken": 2, "models": models})).text
    assert ", 4 dropped, 2 broken" in text
    assert "small (scores brought onto the scale of" in text


def test_of_a_crowd_the_gravest_faces_are_shown_and_the_others_counted():
    record = judged("fake.mp4").record
    face = record["faces"][0]
    crowd = [face | {"track": i, "verdict": "REAL", "p_fake": i / 100} for i in range(1, 13)]
    crowd.append(face | {"track": 77, "verdict": "FAKE"})
    text = Page(report(record=record | {"faces": crowd})).text
    shown = [int(track) for track in re.findall(r"Face (\d+) ", text)]
    assert shown == [77, 12, 11, 10, 9, 8, 7, 6, 5]
    assert "4 more, less suspicious, are in the JSON file" in text


# ----------------------------------------------------------------------------------------------- one file, for good


@pytest.mark.parametrize("name", ["fake.mp4", "no_face.mp4"])
def test_the_report_is_one_file_that_asks_nothing_of_anybody(name, fake):
    html = fake if name == "fake.mp4" else report(name)
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "iframe",
        "object",
        "embed",
        "form",
        "video",
        "audio",
        "base",
    }
    for _, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "srcset", "action", "style"):
            assert attributes.get(key, "data:").startswith("data:")
    assert "@import" not in html
    assert "url(" not in html
    assert "//" not in re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", html)
    assert html.endswith("</html>\n")


def test_the_page_forbids_the_browser_to_fetch_anything(fake):
    (policy,) = (m["content"] for m in Page(fake).all("meta") if "http-equiv" in m)
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_times_are_text_where_there_is_no_player(fake):
    assert Page(fake).all("button") == []


# ----------------------------------------------------------------------------------------------- text from outside

HOSTILE = st.one_of(
    st.text(min_size=1, max_size=30),
    st.sampled_from(
        [
            "</title><script>alert(1)</script>",
            '"><img src=https://example.org/x.png>',
            "' onload='x",
            "&lt;b&gt; &amp;",
            "<!--",
            "a\nb\x1b[31m\x00",
            "\udcff.mp4",
            "]]></style><style>*{display:none}",
        ]
    ),
)


def everywhere(text):
    """A report with ``text`` in every place that takes one from outside."""
    record = judged("fake.mp4").record
    models = [*record["models"], {"name": text, "frames": 1}]
    tests = {"by_method": {text: {"fakes": 1, "reals": 2}}}
    card = make_card(sha256=record["model"]["sha256"], licence=text, measured={text: {"clips": tests}})
    return report(
        record=record | {"models": models},
        card=card,
        file=ClipFile(text, FILE.sha256, 1),
        settings={text: text},
    )  # fmt: skip


@given(HOSTILE)
@settings(max_examples=40)
def test_whatever_a_text_from_outside_holds_it_stays_text(text):
    page = Page(everywhere(text))
    assert page.elements == Page(everywhere("harmless")).elements
    shown = on_one_line(text)
    assert " ".join(page.text.split()).count(" ".join(shown.split())) >= 8


def test_a_hostile_name_makes_a_page_that_can_be_written():
    everywhere("\udcff<&>.mp4").encode("utf-8")


# ----------------------------------------------------------------------------------------------- the curve


def timeline_of(*scores, fps=10):
    timeline = Timeline(0.2, 0.6, columns=1000)
    for i, score in enumerate(scores):
        label = Label.NO_FACE if score is None else Label.FAKE if score > 0.6 else Label.REAL
        faces = None if score is None else (make_result(label).verdict.faces[0],)
        result = make_result(label, pts_ns=round(i / fps * NS_PER_S), faces=faces)
        timeline.add(result)
    return timeline


def drawing(timeline, segments=(), moments=()):
    return Page(timeline_svg(timeline, segments, moments))


def test_a_higher_score_is_drawn_higher_and_later_frames_further_right():
    low, high = drawing(timeline_of(0.1, 0.1)), drawing(timeline_of(0.9, 0.9))
    (below,), (above,) = low.all("polyline"), high.all("polyline")
    points = [tuple(map(float, point.split(","))) for point in above["points"].split()]
    assert sorted(points) == points
    assert max(y for _, y in points) < min(float(point.split(",")[1]) for point in below["points"].split())


def test_where_no_face_is_seen_the_curve_is_broken():
    page = drawing(timeline_of(*[0.1] * 20, *[None] * 20, *[0.9] * 20))
    assert len(page.all("polyline")) == 2


def test_a_single_scored_frame_is_a_dot():
    page = drawing(timeline_of(0.9))
    assert len(page.all("circle")) == 1


def test_stretches_moments_and_words_lie_where_their_time_is():
    page = drawing(timeline_of(*[0.1] * 50, *[0.9] * 50), [{"start_s": 5.0, "end_s": 9.9}], [7.5])
    stretch = next(rect for rect in page.all("rect") if rect["class"] == "stretch")
    bars = {rect["class"]: rect for rect in page.all("rect")}
    left, right = float(stretch["x"]), float(stretch["x"]) + float(stretch["width"])
    marker = next(float(path["d"][1:].split()[0]) for path in page.all("path") if path["class"] == "moment")
    assert left == pytest.approx(float(bars["tf-FAKE"]["x"]), abs=1)
    assert marker == pytest.approx((left + right) / 2, abs=5)
    assert float(bars["tf-FAKE"]["height"]) > float(bars["tf-REAL"]["height"])  # told by height too
    assert float(bars["tf-REAL"]["x"]) < left


@pytest.mark.parametrize("length_s", [0.1, 1, 7.9, 8, 61, 3600, 40_000])
def test_times_below_the_curve_are_few_round_and_in_order(length_s):
    timeline = Timeline(columns=1000)
    for at_s in (0, length_s):
        timeline.add(make_result(Label.NO_FACE, pts_ns=round(at_s * NS_PER_S)))
    ticks = [text for text in drawing(timeline).texts if ":" in text and text[0].isdigit()]
    assert 1 <= len(ticks) <= 8
    assert len(set(ticks)) == len(ticks)
    assert ticks[0] == "0:00"


def test_thresholds_that_there_are_none_of_are_not_drawn():
    assert all("threshold" not in path.get("class", "") for path in drawing(Timeline(columns=10)).all("path"))


# ----------------------------------------------------------------------------------------------- refusals


def test_a_card_of_another_model_is_refused():
    with pytest.raises(ValueError, match="but the card is of double"):
        report(card=make_card())


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="needs a time zone"):
        report(made_at=datetime(2026, 3, 4))
