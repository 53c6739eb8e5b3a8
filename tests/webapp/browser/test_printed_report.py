"""The report, opened as a file and printed: it must do without the server, without scripts, and on one sheet."""

import re
from datetime import UTC, datetime

import pytest

from pipelines.evidence import explained
from tests.shipped import judged, model
from tests.webapp.browser.driver import shoot
from webapp.report import ClipFile, report_html

NAMES = ("fake.mp4", "two_faces.mp4", "no_face.mp4")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Addresses of the reports on the samples, by name."""
    folder, addresses = tmp_path_factory.mktemp("reports"), {}
    for name in NAMES:
        sample = judged(name, frames=75)
        path = folder / f"{name}.html"
        path.write_text(
            report_html(
                sample.record,
                model().card,
                file=ClipFile(name, "ab" * 32, 500_000),
                settings={"Settings": "one frame in 3 judged, verdicts carried over; budget of a frame 33.3 ms"},
                thumbnails=sample.evidence.thumbnails,
                moments=[explained(moment, model()) for moment in sample.evidence.moments],
                timeline=sample.evidence.timeline,
                made_at=datetime.now(UTC),
            ),
            encoding="utf-8",
        )
        addresses[name] = path.as_uri()
    return addresses


@pytest.fixture
def opened(browser):
    """Opens a report; nothing but the file may be asked for, and the browser may complain of nothing."""
    asked, complaints, contexts = [], [], []

    def open_(address, width=1280, **context):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **context))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in asked) == len(contexts)
    assert complaints == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [360, 1280, 1920])
def test_a_report_is_as_wide_as_the_window(opened, reports, name, width):
    page = opened(reports[name], width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    shoot(page, f"report-{name.partition('.')[0]}-{width}")


def test_the_letters_of_the_curve_can_be_read_on_a_phone(opened, reports):
    page = opened(reports["fake.mp4"], 360)
    heights = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
    )
    assert min(heights) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_a_report_is_printed_on_one_sheet(opened, reports, name):
    pdf = opened(reports[name]).pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


@pytest.mark.parametrize(("scheme", "dark"), [("dark", True), ("light", False)])
def test_a_report_follows_the_readers_scheme(opened, reports, scheme, dark):
    page = opened(reports["fake.mp4"], color_scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(part) for part in re.findall(r"\d+", background)[:3]) < 60) == dark
