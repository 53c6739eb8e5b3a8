"""Many people at once, and what is left of them when they are gone."""

import json
import re
import subprocess
import sys
import time
from hashlib import sha256

import av

from tests.webapp.browser.driver import ROOT, SAMPLES, tab
from tests.webapp.serving import served

MANY = 10
SCRIPTS = """
import json, sys
from gradio_client import Client, handle_file
address, *paths = sys.argv[1:]
clients = [Client(address, verbose=False, analytics_enabled=False) for _ in paths]
jobs = [client.submit(handle_file(path), 3, api_name="/judge") for client, path in zip(clients, paths)]
print("sent", flush=True)
print(json.dumps([json.loads(job.result()) for job in jobs]), flush=True)
"""


def short_clip(path, sample, frames):
    """The beginning of a sample, half as large: soon judged."""
    with av.open(str(path), "w") as out, av.open(str(SAMPLES / sample)) as clip:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 360, "yuv420p", 2_000_000
        for number, frame in enumerate(clip.decode(video=0)):
            if number == frames:
                break
            out.mux(stream.encode(frame.reformat(640, 360, "yuv420p")))
        out.mux(stream.encode())
    return path


def test_ten_uploads_and_three_cameras_at_once_each_get_their_own(browser, page_url, tmp_path):
    samples = ["fake.mp4", "real.mp4", "no_face.mp4"]
    frames = [(60, 60, 36)[i % 3] + i for i in range(MANY)]  # each its own; no_face.mp4 has 45
    paths = [short_clip(tmp_path / f"clip{i}.mp4", samples[i % 3], count) for i, count in enumerate(frames)]
    with tab(browser, page_url) as one, tab(browser, page_url) as two, tab(browser, page_url) as three:
        cameras = (one, two, three)
        for page in cameras:
            page.get_by_role("button", name="Start").click()
        for page in cameras:
            page.locator("tellframe-live[data-state=running]").wait_for()
        command = [sys.executable, "-c", SCRIPTS, page_url, *map(str, paths)]
        with (
            tab(browser, page_url) as late,
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as scripts,
        ):
            late.get_by_role("tab", name="Video").click()
            assert scripts.stdout.readline() == "sent\n"
            late.wait_for_timeout(1500)  # until most of them are in line
            late.locator("#tf-sample-real").click()
            line = late.locator("#tf-progress").get_by_text(re.compile(r"Waiting in line: [1-9]\d* ahead of real.mp4"))
            line.wait_for()
            records = json.loads(scripts.stdout.readline())
            late.locator(".tf-verdict").wait_for(timeout=120_000)
            assert "Real" in late.locator(".tf-verdict").inner_text()
        assert scripts.returncode == 0
        for number, (path, record) in enumerate(zip(paths, records, strict=True)):
            assert record["path"] == path.name
            assert record["file"]["sha256"] == sha256(path.read_bytes()).hexdigest()
            assert record["frames"] == frames[number]
            assert (record["verdict"] == "NO_FACE") == (samples[number % 3] == "no_face.mp4")
        for page in cameras:
            live = page.locator("tellframe-live")
            assert live.get_attribute("data-state") == "running"
            assert live.evaluate("live => live.figures().results") > 20


def test_a_closed_tab_leaves_nothing_behind(browser, tmp_path):
    with served(folder=tmp_path) as (url, _):
        (folder,) = tmp_path.glob("tellframe-*")
        results = folder / "results"
        with tab(browser, url) as page:
            page.get_by_role("tab", name="Video").click()
            page.locator("#tf-sample-real").click()
            page.locator(".tf-verdict").wait_for()
            assert len(list(results.iterdir())) == 1
        deadline = time.monotonic() + 60
        while list(results.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert list(results.iterdir()) == []
