"""The Live tab, used as a person uses it, with a camera that shows a sample clip."""

import re

import pytest

from tests.webapp.browser.driver import chromium, shoot, tab
from tests.webapp.browser.media import camera_file

ALLOWED, FAKE_CAMERA = "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"
SEATS = 4
START_LIMIT_S = 3
# What another person's browser does until it has a seat; `seats` keeps the connections.
TAKE_SEATS = """
async (count) => {
  const ticket = document.querySelector("tellframe-live").getAttribute("ticket");
  window.seats = [];
  for (let i = 0; i < count; i++) {
    const socket = new WebSocket(`ws://${location.host}/tellframe/live`);
    await new Promise((resolve) => {
      socket.onopen = () => socket.send(JSON.stringify({ type: "start", ticket, budget: "33" }));
      socket.onmessage = ({ data }) => JSON.parse(data).type === "ready" && resolve();
    });
    window.seats.push(socket);
  }
}
"""


@pytest.fixture(scope="module")
def browser(request, tmp_path_factory):
    """A browser with the camera that the test asks for: a sample, "none", or one that is refused."""
    flags = {"none": (ALLOWED,), "refused": ("--deny-permission-prompts", FAKE_CAMERA)}.get(request.param)
    if flags is None:
        flags = camera_file(tmp_path_factory.mktemp("camera") / "camera.y4m", request.param)
    with chromium(*flags) as running:
        yield running


def with_camera(name):
    return pytest.mark.parametrize("browser", [name], indirect=True)


def live(page):
    return page.locator("tellframe-live")


def start(page):
    page.get_by_role("button", name="Start").click()


def in_state(page, state):
    live(page).and_(page.locator(f"[data-state={state}]")).wait_for()


def said(page):
    return live(page).get_by_role("status").inner_text()


def has_word(page, word):
    live(page).locator(".tfl-word").get_by_text(word).wait_for()


def camera_is_on(page):
    return page.evaluate("window.given.some((stream) => stream.active)")


@pytest.fixture
def page(browser, page_url):
    """A page that keeps the streams it was given, in `given`."""
    watch = """
    window.given = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wanted) => {
      const stream = await ask(wanted);
      window.given.push(stream);
      return stream;
    };
    """
    with tab(browser, page_url) as page:
        live(page).wait_for()
        page.evaluate(f"() => {{ {watch} }}")
        yield page


@with_camera("fake.mp4")
def test_a_forged_face_is_called_fake_with_its_reason_and_figures(page):
    shoot(page, "live-idle")
    start(page)
    has_word(page, "Fake")
    page.wait_for_function("document.querySelector('tellframe-live').figures().results > 40")
    shoot(page, "live-fake")
    assert "score above the fake threshold" in live(page).locator(".tfl-verdict").inner_text()
    live(page).locator("[aria-live]").get_by_text("Fake").wait_for()  # said when the word has settled
    figures = live(page).evaluate("live => live.figures()")
    assert figures["verdicts_per_s"] > 0
    assert figures["server_p95_ms"] > 0
    assert 0 < figures["round_trip_p50_ms"] <= figures["round_trip_p95_ms"]
    shown = live(page).get_by_label("Measurements").inner_text()
    for name in ("Find faces", "Cut them out", "Score them", "In all"):
        assert re.search(rf"{name}\s+\d+\.\d ms", shown), shown
    assert re.search(r"Round trip, camera to screen\s+\d[\d.]* ms, 95 % within", shown)
    assert re.search(r"(Within|Over) the budget of 33.3 ms", shown)
    assert re.search(r"Frames dropped\s+\d+ of \d+", shown)
    assert "efficientnet" in shown
    page.locator(".tfl-plot[data-drawn]").wait_for()


@with_camera("fake.mp4")
def test_boxes_are_drawn_on_the_picture(page):
    start(page)
    has_word(page, "Fake")
    coloured = """canvas => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, at) => at % 4 === 3 && value).length;
    }"""
    assert page.locator(".tfl-stage canvas").evaluate(coloured) > 1000


@with_camera("fake.mp4")
def test_the_first_verdict_comes_soon_after_the_click(page):
    spent_ms = live(page).evaluate(
        """live => new Promise((resolve) => {
          const clicked = performance.now();
          const look = () => live.figures().results ? resolve(performance.now() - clicked) : setTimeout(look, 10);
          live.querySelector(".tfl-go").click();
          look();
        })"""
    )
    assert spent_ms < START_LIMIT_S * 1000


@with_camera("fake.mp4")
def test_stop_turns_the_camera_off_and_start_turns_it_on_again(page):
    start(page)
    in_state(page, "running")
    assert camera_is_on(page)
    page.get_by_role("button", name="Stop").click()
    in_state(page, "stopped")
    assert not camera_is_on(page)
    assert "camera is off" in said(page)
    shoot(page, "live-stopped")
    start(page)
    in_state(page, "running")


@with_camera("fake.mp4")
def test_it_pauses_while_another_tab_of_the_page_is_open_and_goes_on_after(page):
    start(page)
    in_state(page, "running")
    page.get_by_role("tab", name="Video").click()
    page.locator("tellframe-live[data-state=away]").wait_for(state="attached")
    assert not camera_is_on(page)
    page.get_by_role("tab", name="Live").click()
    in_state(page, "running")


@with_camera("fake.mp4")
def test_another_budget_is_measured_against_at_once(page):
    start(page)
    in_state(page, "running")
    page.get_by_label("Time for a frame", exact=True).select_option("16")
    live(page).get_by_text("the budget of 16.7 ms").wait_for()


@with_camera("fake.mp4")
def test_a_camera_that_is_unplugged_goes_on_when_it_is_back(page):
    start(page)
    in_state(page, "running")
    page.evaluate("window.given[0].getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    in_state(page, "unplugged")
    assert "unplugged" in said(page)
    shoot(page, "live-unplugged")
    page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
    in_state(page, "running")


@with_camera("fake.mp4")
def test_a_lost_connection_is_opened_again(page):
    lost = []

    def lose_the_first(socket):
        server = socket.connect_to_server()
        if not lost:
            lost.append(socket)
            server.on_message(lambda message: socket.close() if "result" in message else socket.send(message))

    page.route_web_socket("**/tellframe/live", lose_the_first)
    start(page)
    in_state(page, "lost")
    assert "trying again (1 of" in said(page)
    in_state(page, "running")


@with_camera("fake.mp4")
def test_who_comes_to_a_full_house_waits_and_is_told_so(page):
    page.evaluate(TAKE_SEATS, SEATS)
    start(page)
    in_state(page, "waiting")
    assert "You are next" in said(page)
    shoot(page, "live-waiting")
    page.evaluate("window.seats[0].close()")
    in_state(page, "running")


@with_camera("fake.mp4")
def test_a_page_that_the_server_does_not_know_offers_to_reload(page):
    live(page).evaluate("live => live.setAttribute('ticket', 'made up')")
    start(page)
    in_state(page, "stale")
    assert "too old" in said(page)
    with page.expect_navigation():
        page.get_by_role("button", name="Reload").click()
    in_state(page, "idle")


@with_camera("fake.mp4")
def test_nothing_moves_while_it_streams(page):
    start(page)
    has_word(page, "Fake")
    tops = "live => [...live.querySelectorAll('section > *, .tfl-figures > div')].map(part => part.offsetTop)"
    seen = set()
    for _ in range(10):
        seen.add(str(live(page).evaluate(tops)))
        page.wait_for_timeout(200)
    assert len(seen) == 1


@with_camera("fake.mp4")
def test_it_works_without_a_mouse(page):
    page.get_by_label("Camera", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    in_state(page, "running")
    page.keyboard.press("Space")
    in_state(page, "stopped")


@with_camera("fake.mp4")
def test_a_phone_shows_it_without_scrolling_sideways(browser, page_url):
    with tab(browser, page_url, width=360, height=740, is_mobile=True, has_touch=True) as page:
        start(page)
        has_word(page, "Fake")
        page.locator(".tfl-plot[data-drawn]").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        shoot(page, "live-phone")


@with_camera("fake.mp4")
def test_a_page_from_an_address_without_cameras_says_so(browser, page_url):
    with tab(browser, page_url) as page:
        page.add_init_script("Object.defineProperty(Navigator.prototype, 'mediaDevices', { get: () => undefined })")
        page.reload()
        in_state(page, "insecure")
        assert "https://" in said(page)
        assert page.get_by_role("button", name="Start").is_disabled()


@with_camera("real.mp4")
def test_an_untouched_face_is_called_real(page):
    start(page)
    live(page).get_by_text("Real: score below the real threshold").first.wait_for()
    page.wait_for_timeout(3000)
    shoot(page, "live-real")
    has_word(page, "Real")  # still


@with_camera("no_face.mp4")
def test_a_picture_without_a_face_is_no_face(page):
    start(page)
    has_word(page, "No face")
    shoot(page, "live-no-face")


@with_camera("two_faces.mp4")
def test_two_faces_are_both_followed(page):
    start(page)
    live(page).get_by_text("2 faces, the most suspicious counts").wait_for()
    page.wait_for_timeout(2000)
    shoot(page, "live-two-faces")


@with_camera("refused")
def test_a_refused_camera_is_told_beside_the_button(page):
    start(page)
    in_state(page, "refused")
    assert "refused" in said(page)
    assert page.get_by_role("button", name="Start").is_enabled()
    shoot(page, "live-refused")


@with_camera("none")
def test_a_computer_without_a_camera_is_told_so(page):
    start(page)
    in_state(page, "missing")
    assert "No camera was found" in said(page)
