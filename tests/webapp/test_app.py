"""The page, served as a user serves it and used through Gradio's own client."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"

CLIENT = """
import json, sys
from gradio_client import Client, handle_file
client = Client(sys.argv[1], verbose=False, analytics_enabled=False)
try:
    print(json.dumps(client.predict(handle_file(sys.argv[2]), api_name="/judge")))
except Exception as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def page():
    """The address of a running page."""
    command = [sys.executable, "-m", "tellframe", "app", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        server.terminate()
        assert "Traceback" not in server.stderr.read()


def judged(page, path):
    run = subprocess.run(
        [sys.executable, "-c", CLIENT, page, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(run.stdout)


def test_a_dropped_video_gets_a_verdict_its_faces_and_an_annotated_video(page):
    verdict, faces, video = judged(page, SAMPLES / "fake.mp4")
    assert verdict.startswith("## FAKE")
    assert faces["data"][0][:2] == [1, "FAKE"]
    assert Path(video).stat().st_size > 10_000


def test_a_file_that_is_no_video_gets_one_plain_line(page, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video at all\n" * 100)
    said = judged(page, path)
    assert said.startswith("notes.mp4:")
    assert "\n" not in said


def test_nothing_of_a_judged_video_stays_outside_the_cache(page):
    folder = Path(tempfile.gettempdir())
    before = set(folder.glob("tellframe-*"))
    judged(page, SAMPLES / "no_face.mp4")
    assert set(folder.glob("tellframe-*")) <= before
