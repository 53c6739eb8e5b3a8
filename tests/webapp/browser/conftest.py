"""A real browser on the page, as a user serves it. Skipped, with the reason, where there is no Chromium.

Both end with the module that uses them: Playwright holds an event loop, which other tests must not meet.
"""

from pathlib import Path

import pytest

from tests.webapp.browser.driver import CHROMIUM, chromium
from tests.webapp.serving import served


def pytest_collection_modifyitems(items):
    if CHROMIUM is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="there is no Chromium here: apt-get install chromium"))


@pytest.fixture(scope="module")
def page_url():
    """The address of a page that the tests of a module share."""
    with served() as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser():
    """A browser that lets every page use a camera that shows a test picture."""
    with chromium("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as running:
        yield running
