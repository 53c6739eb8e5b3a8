"""The Video tab, used as a person uses it."""

import csv
import json
import re
from hashlib import sha256

import av
import numpy as np
import pytest

from tests.webapp.browser.driver import SAMPLES, shoot, tab

VERDICT = ".tf-verdict"


def upload(page, path):
    page.get_by_role("tab", name="Video").click()
    page.locator("#tf-upload input[type=file]").set_input_files(path)


def progress(page):
    return page.locator("#tf-progress .tf-progress")


def long_clip(path, repeats):
    """The forged sample over and over: a clip that takes a while."""
    with av.open(str(path), "w") as out, av.open(str(SAMPLES / "fake.mp4")) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
        stream = out.add_stream("mpeg4", rate=30)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        for _ in range(repeats):
            for frame in frames:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def judged(browser, page_url):
    """A page that shows the forged sample, judged."""
    with tab(browser, page_url) as page:
        upload(page, SAMPLES / "fake.mp4")
        page.locator(VERDICT).wait_for()
        page.locator("#tf-player video").wait_for()
        page.locator("#tf-timeline tellframe-plot[data-drawn]").wait_for()
        shoot(page, "video-fake")
        yield page


def test_an_uploaded_clip_gets_its_verdict_in_words(judged):
    said = judged.locator(VERDICT).inner_text()
    assert "Fake" in said
    assert "evidence, not proof" in said
    assert "Face 1" in judged.locator("#tf-faces").inner_text()
    assert judged.locator(".tf-moment img").count() >= 2


def test_a_click_in_the_timeline_moves_the_player(judged):
    video = judged.locator("#tf-player video")
    video.evaluate("v => { v.currentTime = 0; }")
    plot = judged.locator("#tf-timeline tellframe-plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    judged.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    judged.wait_for_function("document.querySelector('#tf-player video').currentTime > 2")
    assert video.evaluate("v => v.currentTime") == pytest.approx(2.95, abs=0.4)


def test_a_time_is_a_button_that_moves_the_player(judged):
    button = judged.locator("#tf-segments [data-seek]").first
    start = float(button.get_attribute("data-seek"))
    button.focus()
    judged.keyboard.press("Enter")
    judged.wait_for_function(f"Math.abs(document.querySelector('#tf-player video').currentTime - {start}) < 0.1")


def test_what_can_be_downloaded_holds_what_was_judged(judged, tmp_path):
    def got(kind):
        with judged.expect_download() as waiting:
            judged.locator(f"#tf-get-{kind}").click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    digest = sha256((SAMPLES / "fake.mp4").read_bytes()).hexdigest()
    record = json.loads(got("json").read_text())
    assert (record["verdict"], record["path"], record["file"]["sha256"]) == ("FAKE", "fake.mp4", digest)
    rows = list(csv.DictReader(got("csv").read_text().splitlines()))
    assert len({row["index"] for row in rows}) == record["frames"]
    with av.open(str(got("video"))) as video:
        assert sum(1 for _ in video.decode(video=0)) == record["frames"]
    report = got("report").read_text()
    assert digest in report
    assert "fake.mp4" in report
    assert not re.search(r"(src|href)=.https?:", report)


def test_a_sample_is_one_click_away(browser, page_url):
    with tab(browser, page_url) as page:
        page.get_by_role("tab", name="Video").click()
        shoot(page, "video-empty")
        page.locator("#tf-sample-real").click()
        page.locator(VERDICT).wait_for()
        assert "Real" in page.locator(VERDICT).inner_text()
        shoot(page, "video-real")


def test_a_clip_without_a_face_is_told_so(browser, page_url):
    with tab(browser, page_url) as page:
        upload(page, SAMPLES / "no_face.mp4")
        page.locator(VERDICT).wait_for()
        assert "No face" in page.locator(VERDICT).inner_text()
        shoot(page, "video-no-face")


def test_a_file_that_is_no_video_is_refused_in_words_where_it_was_dropped(browser, page_url, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video at all\n" * 100)
    with tab(browser, page_url) as page:
        upload(page, path)
        page.locator("#tf-progress [role=alert]").wait_for()
        said = progress(page).inner_text()
        assert "notes.mp4: cannot be read as video" in said
        assert "/tmp" not in said
        shoot(page, "video-error")


def test_a_file_of_another_kind_is_refused_in_words_too(browser, page_url, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing to see\n")
    with tab(browser, page_url) as page:
        upload(page, path)
        page.locator("#tf-progress [role=alert]").wait_for()
        assert "notes.txt: cannot be read as video" in progress(page).inner_text()


def test_a_file_that_is_too_large_is_refused_before_it_is_sent(browser, page_url, tmp_path):
    path = tmp_path / "holiday.mp4"
    with path.open("wb") as file:
        file.truncate(501_000_000)  # sparse: it takes no room
    with tab(browser, page_url) as page:
        sent = []
        page.on("request", lambda request: sent.append(request.url))
        upload(page, path)
        page.locator("#tf-progress [role=alert]").wait_for()
        assert "holiday.mp4: has 501 MB; at most 500 MB are taken" in progress(page).inner_text()
        assert not any("/upload" in url for url in sent)
        page.locator("#tf-sample-real").click()  # and the page goes on
        page.locator(VERDICT).wait_for()
        assert page.locator("#tf-progress [role=alert]").count() == 0


def test_a_running_clip_can_be_cancelled(browser, page_url, tmp_path):
    clip = long_clip(tmp_path / "long.mp4", 12)
    with tab(browser, page_url) as page:
        upload(page, clip)
        page.wait_for_function("/frame [1-9]/.test(document.querySelector('#tf-progress').innerText)")
        shoot(page, "video-running")
        assert "to go" in progress(page).inner_text() or "frame" in progress(page).inner_text()
        page.locator("#tf-cancel").click()
        page.wait_for_function("/Cancelled/.test(document.querySelector('#tf-progress').innerText)")
        assert not page.locator(VERDICT).is_visible()


def test_two_people_do_not_see_each_others_clips(browser, page_url):
    with tab(browser, page_url) as one, tab(browser, page_url) as two:
        upload(one, SAMPLES / "fake.mp4")
        upload(two, SAMPLES / "real.mp4")
        one.locator(VERDICT).wait_for()
        two.locator(VERDICT).wait_for()
        assert "fake.mp4" in progress(one).inner_text()
        assert "Fake" in one.locator(VERDICT).inner_text()
        assert "real.mp4" in progress(two).inner_text()
        assert "Real" in two.locator(VERDICT).inner_text()


def test_a_phone_can_read_it(browser, page_url):
    with tab(browser, page_url, width=360, height=740, is_mobile=True, has_touch=True) as page:
        upload(page, SAMPLES / "fake.mp4")
        page.locator(VERDICT).wait_for()
        page.locator("#tf-timeline tellframe-plot[data-drawn]").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        shoot(page, "video-phone")


def test_the_dark_page_is_dark(browser, page_url):
    with tab(browser, page_url, color_scheme="dark") as page:
        upload(page, SAMPLES / "fake.mp4")
        page.locator(VERDICT).wait_for()
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert np.mean([int(part) for part in re.findall(r"\d+", background)[:3]]) < 60
        shoot(page, "video-dark")
