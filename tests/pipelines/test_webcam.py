"""What is special about cameras: what is asked of them, being unplugged, not being there."""

import subprocess
import sys
import threading
import time
from itertools import islice, pairwise
from pathlib import Path

import cv2
import pytest

from detector.types import InputError, UsageError
from pipelines.sources import Webcam
from tests import clips
from tests.fakes import Camera

ROOT = Path(__file__).parents[2]


@pytest.fixture
def camera(clip):
    return Camera(clip)


def test_is_live(camera):
    assert Webcam(0, open_capture=camera.open).live is True


@pytest.mark.parametrize(("device", "opened"), [(2, 2), ("1", 1), ("/dev/video3", "/dev/video3")])
def test_opens_the_camera_that_was_named(camera, device, opened):
    with Webcam(device, open_capture=camera.open):
        assert camera.opened == [opened]


def test_asks_for_size_and_rate_and_for_jpeg_where_usb_is_too_slow_otherwise(camera):
    with Webcam(0, size_wh=(1280, 720), fps=30, open_capture=camera.open):
        assert camera.asked == [
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
            (cv2.CAP_PROP_FRAME_WIDTH, 1280),
            (cv2.CAP_PROP_FRAME_HEIGHT, 720),
            (cv2.CAP_PROP_FPS, 30),
        ]


def test_does_not_ask_a_small_picture_for_jpeg(camera):
    with Webcam(0, size_wh=(640, 480), open_capture=camera.open):
        assert [prop for prop, _ in camera.asked] == [cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT]


def test_says_what_the_camera_really_gives(camera):
    with Webcam(0, size_wh=(1280, 720), fps=60, open_capture=camera.open) as source:
        assert source.info.size_wh == clips.SIZE_WH
        assert source.info.fps == pytest.approx(30)


def test_times_are_those_of_arrival(camera):
    with Webcam(0, open_capture=camera.open) as source:
        frames = list(islice(source, 4))
    assert [f.pts_ns for f in frames] == [f.captured_ns - frames[0].captured_ns for f in frames]


def test_goes_on_when_it_is_plugged_in_again(camera):
    with Webcam(0, open_capture=camera.open, reconnect_s=5) as source:
        frames = iter(source)
        before = [next(frames), next(frames)]
        camera.plugged = False
        replug = threading.Timer(0.3, setattr, (camera, "plugged", True))
        replug.start()
        after = list(islice(frames, 3))
        replug.join()
    assert source.counts.reconnects == 1
    assert all(a.index + 1 == b.index and a.pts_ns < b.pts_ns for a, b in pairwise(before + after))
    assert after[-1].pts_ns - before[0].pts_ns > 0.3e9


def test_a_camera_that_stays_away_is_given_up_after_the_time_asked_for(camera):
    with Webcam(0, open_capture=camera.open, reconnect_s=0.2) as source:
        frames = iter(source)
        next(frames)
        camera.plugged = False
        start_s = time.monotonic()
        with pytest.raises(InputError, match=r"camera 0: gone, and not back within 0\.2 s"):
            next(frames)
        assert 0.2 <= time.monotonic() - start_s < 1


def test_stopping_ends_the_wait_for_it_to_come_back(camera):
    with Webcam(0, open_capture=camera.open, reconnect_s=30) as source:
        frames = iter(source)
        next(frames)
        camera.plugged = False
        stopper = threading.Timer(0.2, source.stop)
        stopper.start()
        start_s = time.monotonic()
        assert list(frames) == []
        assert time.monotonic() - start_s < 1
        stopper.join()


def test_a_camera_that_is_not_there_is_refused_with_those_that_are(camera):
    camera.plugged = False
    there = sorted(str(path) for path in Path("/dev").glob("video*"))
    with (
        pytest.raises(InputError, match="camera 7: no such camera") as caught,
        Webcam(7, open_capture=camera.open),
    ):
        pass
    assert all(name in str(caught.value) for name in there or ["no camera is connected"])


def test_a_camera_without_a_picture_is_refused(tmp_path, camera):
    class Dark:
        def isOpened(self):  # noqa: N802
            return True

        def read(self):
            return False, None

        def get(self, prop):
            return 0.0

        def set(self, prop, value):
            return False

        def release(self):
            pass

    with pytest.raises(InputError, match="gives no picture"), Webcam(0, open_capture=lambda device: Dark()):
        pass


@pytest.mark.parametrize("device", [-1, "front door", "", "-1", "video0"])
def test_what_names_no_camera_is_refused(device):
    with pytest.raises(UsageError, match="a camera"):
        Webcam(device)


@pytest.mark.parametrize("options", [{"size_wh": (0, 480)}, {"fps": 0}, {"fps": float("nan")}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError):
        Webcam(0, **options)


def test_opencv_stays_silent_about_a_camera_that_is_not_there():
    code = (
        "from pipelines.sources import Webcam\n"
        "for device in (97, '/dev/video98'):\n"
        "    try: Webcam(device).__enter__()\n"
        "    except Exception as error: print(type(error).__name__)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["InputError", "InputError"]
    assert run.stderr == ""
