"""Nothing leaves the machine: MediaPipe's usage metrics are kept here too."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

MEDIAPIPE_ALONE = """
import sys, time
import numpy as np
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision
model = open("assets/models/face/face_detection_short_range.tflite", "rb").read()
options = vision.FaceDetectorOptions(base_options=BaseOptions(model_asset_buffer=model))
with vision.FaceDetector.create_from_options(options) as detector:
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.zeros((64, 64, 3), np.uint8))
    detector.detect(image)
    time.sleep(1)
"""
OURS = """
import time
from contextlib import closing
import numpy as np
from detector.faces import MediaPipeFaces
from detector.types import Frame
with closing(MediaPipeFaces()) as finder:
    finder.find(Frame(np.zeros((64, 64, 3), np.uint8), 0, 0, 0))
    time.sleep(1)
"""


@contextmanager
def proxy():
    """A proxy that answers nobody: (its address, and how to learn whether anybody came)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def asked_for():
            try:
                caller, _ = server.accept()
            except TimeoutError:
                return None
            with caller:
                return caller.recv(200).decode().split("\r\n")[0]

        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked_for


def run(code, address, **more):
    environment = {key: value for key, value in os.environ.items() if key.lower() != "no_proxy"}
    environment |= {"https_proxy": address, **more}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True, timeout=60)


def test_mediapipe_alone_reports_through_the_proxy_of_the_environment():
    """If this fails MediaPipe reports in another way, or no longer: look before trusting the next test."""
    with proxy() as (address, asked_for):
        run(MEDIAPIPE_ALONE, address)
        assert asked_for() == "CONNECT play.googleapis.com:443 HTTP/1.1"


def test_finding_faces_reports_nothing():
    with proxy() as (address, asked_for):
        run(OURS, address)
        assert asked_for() is None


def test_an_exception_from_the_proxy_lets_no_report_through():
    code = OURS + "\nimport os\nassert os.environ['no_proxy'] == 'example.org'"
    with proxy() as (address, asked_for):
        run(code, address, no_proxy="*, example.org, .googleapis.com")
        assert asked_for() is None
