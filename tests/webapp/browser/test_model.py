"""The Model and Limits tabs, used as a person uses them."""

import csv
import re

import pytest

from tests.webapp.browser.driver import ROOT, shoot, tab

PROGRESS = "#tf-measure-progress"


def opened(page, name="Model"):
    page.get_by_role("tab", name=name).click()
    return page


def wait_for(page, words):
    page.wait_for_function(f"/{words}/.test(document.querySelector('{PROGRESS}').innerText)")


def measuring(page):
    opened(page).locator("#tf-measure").click()
    wait_for(page, "Measuring efficientnet")


@pytest.mark.parametrize(
    ("panel", "columns", "kind", "words"),
    [(0, 6, "pruning", "16 channels"), (1, 3, "bits", "8 bits")],
    ids=["a bright cell", "a dark cell"],
)
def test_a_cell_of_the_sensitivity_map_tells_its_value_where_the_pointer_rests(
    browser, page_url, panel, columns, kind, words
):
    with (ROOT / "assets" / "hqp" / "sensitivity.csv").open(newline="") as file:
        first = next(row for row in csv.DictReader(file) if (row["kind"], row["name"]) == (kind, "conv_stem"))
    said = ("conv_stem", words, f"change {float(first['divergence']):.3g}")
    with tab(browser, page_url) as page:
        plot = opened(page).locator("#tf-sensitivity tellframe-plot[data-drawn]")
        plot.wait_for()
        plot.evaluate("plot => plot.scrollIntoView({block: 'start'})")  # it is higher than the window
        box = plot.locator(".nsewdrag").nth(panel).bounding_box()
        page.mouse.move(box["x"] + box["width"] / columns / 2, box["y"] + 6)  # first row, first column
        page.locator("#tf-sensitivity .hoverlayer .hovertext").wait_for()
        hover = page.locator("#tf-sensitivity .hoverlayer").text_content()
        assert all(words in hover for words in said), hover
        shoot(page, "model")


def test_measuring_here_shows_its_progress_and_then_a_table_and_a_figure(browser, page_url):
    with tab(browser, page_url) as page:
        measuring(page)
        assert page.locator(f"{PROGRESS} progress").is_visible()
        assert page.locator("#tf-measure").is_disabled()
        shoot(page, "model-measuring")
        wait_for(page, "Done")
        page.locator("#tf-measured-plot tellframe-plot[data-drawn]").wait_for()
        rows = page.locator("#tf-measured tbody tr")
        assert rows.count() == 3
        for row in rows.all_inner_texts():
            assert re.search(r"(✓ met|✗ not met) \(33\.3 ms\)", row)
            assert len(re.findall(r"[\d.]+ / [\d.]+ / [\d.]+", row)) == 4
        assert page.locator("#tf-measure").is_enabled()
        assert page.locator("#tf-measure-cancel").is_disabled()
        shoot(page, "model-measured")


def test_a_measurement_can_be_cancelled_and_others_are_told_that_it_runs(browser, page_url):
    with tab(browser, page_url) as one, tab(browser, page_url) as two:
        measuring(one)
        opened(two).locator("#tf-measure").click()
        wait_for(two, "Somebody else is measuring")
        assert two.locator("#tf-measure-cancel").is_disabled()
        one.locator("#tf-measure-cancel").click()
        wait_for(one, "Cancelled")
        assert one.locator("#tf-measured table").count() == 0
        measuring(two)  # their turn now
        two.locator("#tf-measure-cancel").click()
        wait_for(two, "Cancelled")


@pytest.mark.parametrize("name", ["Model", "Limits"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_can_read_it_without_scrolling_sideways(browser, page_url, name, scheme):
    size = {"width": 360, "height": 740, "is_mobile": True, "has_touch": True}
    with tab(browser, page_url, **size, color_scheme=scheme) as page:
        opened(page, name)
        page.locator(f"#tf-{'sensitivity' if name == 'Model' else 'limits'}").wait_for()
        if name == "Model":
            page.locator("#tf-sensitivity tellframe-plot[data-drawn]").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        shoot(page, f"{name.lower()}-phone-{scheme}")


def test_limits_are_told_in_words(browser, page_url):
    with tab(browser, page_url) as page:
        said = opened(page, "Limits").locator("#tf-limits").inner_text()
        assert "It is no proof, of either." in said
        assert "Scores disagree" in said
        shoot(page, "limits")
