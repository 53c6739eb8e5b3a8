"""Measures the page as a user feels it: ``python -m tests.webapp.browser.measure [--seconds 30] [--clip-seconds 60]``.

One JSON object on standard output. The browser runs on the same machine and takes its share of the processor, as it
does for a user. Live: a fake camera that shows a sample clip at 640x480, 30 frames a second. Upload: a 1280x720 clip,
from the moment the file is chosen until the verdict is on screen, three times in one server.
"""

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import psutil

from pipelines.bench import cpu_name
from tests.webapp.browser.driver import SAMPLES, chromium, tab
from tests.webapp.browser.media import camera_file
from tests.webapp.serving import served

WARM_UP_S = 8


def live(seconds, budget):
    """What the page itself shows after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        flags = camera_file(Path(folder) / "camera.y4m", "fake.mp4")
        with served("--budget", budget) as (url, _), chromium(*flags) as browser, tab(browser, url) as page:
            clicked = time.monotonic()
            page.get_by_role("button", name="Start").click()
            element = page.locator("tellframe-live")
            page.locator("tellframe-live[data-state=running]").wait_for()
            started_s = time.monotonic() - clicked
            page.wait_for_timeout(1000 * WARM_UP_S)
            before, began = element.evaluate("live => live.figures()"), time.monotonic()
            page.wait_for_timeout(1000 * seconds)
            after, ended = element.evaluate("live => live.figures()"), time.monotonic()
            shown = {"mean_verdicts_per_s": (after["results"] - before["results"]) / (ended - began)}
            return {"budget": budget, "seconds": seconds, "started_s": started_s} | shown | after


def upload(clip_seconds, times=3):
    """Seconds from choosing a file to its verdict, and the server's resident memory, MB, at the end of each quarter."""
    with tempfile.TemporaryDirectory() as folder:
        clip = long_clip(Path(folder) / "long.mp4", clip_seconds)
        with served() as (url, process), chromium() as browser:
            spent, memory = [], []
            with _memory(process.pid) as samples:
                for _ in range(times):
                    with tab(browser, url) as page:
                        page.get_by_role("tab", name="Video").click()
                        began = time.monotonic()
                        page.locator("#tf-upload input[type=file]").set_input_files(clip)
                        page.locator(".tf-verdict").wait_for(timeout=600_000)
                        spent.append(time.monotonic() - began)
                    memory.append([samples[len(samples) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)])
                    samples.clear()
            speed = [clip_seconds / each for each in spent]
            return {
                "clip_seconds": clip_seconds,
                "spent_s": spent,
                "times_faster": speed,
                "memory_mb_by_quarter": memory,
            }


class _memory:  # noqa: N801  (used as a function)
    def __init__(self, pid):
        self._process, self._samples, self._ended = psutil.Process(pid), [], threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self):
        self._thread.start()
        return self._samples

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        while not self._ended.wait(0.25):
            self._samples.append(self._process.memory_info().rss / 1e6)


def long_clip(path, seconds):
    """The real sample over and over, 1280x720 at 30 frames a second, as H.264."""
    with av.open(str(path), "w") as out, av.open(str(SAMPLES / "real.mp4")) as clip:
        frames = [frame.reformat(1280, 720, "yuv420p") for frame in clip.decode(video=0)]
        stream = out.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number, frame in zip(range(30 * seconds), itertools.cycle(frames)):
            frame.pts, frame.time_base = number, 1 / stream.codec_context.framerate
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=30, help="of live judging that are counted")
    parser.add_argument("--clip-seconds", type=int, default=60, help="of the uploaded clip")
    options = parser.parse_args()
    measured = {
        "device": cpu_name(),
        "cores": psutil.cpu_count(),
        "load_before": psutil.getloadavg()[0],
        "live": [live(options.seconds, budget) for budget in ("33", "16")],
        "upload": upload(options.clip_seconds),
    }
    json.dump(measured, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
