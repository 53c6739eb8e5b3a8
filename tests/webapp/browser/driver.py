"""A browser on the page."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.commands import ROOT

SAMPLES = ROOT / "assets" / "samples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A test machine has no GPU, runs as root, and no other host is there to be asked for updates.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def chromium(*flags):
    """A browser with more command-line flags."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        yield browser
        browser.close()


@contextmanager
def tab(browser, url, *, width=1280, height=900, **context):
    """A page of its own user at ``url``; nothing may be asked of another host, and no script may fail."""
    own = browser.new_context(viewport={"width": width, "height": height}, **context)
    page = own.new_page()
    page.set_default_timeout(60_000)
    strangers, failures = [], []
    ours = urlsplit(url).netloc

    def note(request):
        asked = urlsplit(request.url)
        if asked.scheme not in ("data", "blob") and asked.netloc != ours:
            strangers.append(request.url)

    page.on("request", note)
    page.on("pageerror", lambda error: failures.append(str(error)))
    try:
        page.goto(url)
        page.get_by_role("tab", name="Video").wait_for()
        yield page
    finally:
        own.close()
    assert strangers == []
    assert failures == []


def shoot(page, name):
    """Keeps a picture of the page in the folder that TELLFRAME_SHOTS names, if it names one."""
    if folder := os.environ.get("TELLFRAME_SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
