"""The shipped face models and sample clips are what assets/README.md says, and the script that makes them repeats."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import mediapipe as mp
import numpy as np
import pytest
from mediapipe.tasks.python import BaseOptions, vision

from assets import make_samples

ASSETS = Path(make_samples.__file__).parent
FACE_MODELS = ASSETS / "models" / "face"
SHORT_RANGE = "face_detection_short_range.tflite"
FULL_RANGE = "face_detection_full_range_sparse.tflite"
DURATIONS_S = {"real": 4.0, "fake": 4.0, "two_faces": 2.5, "no_face": 1.5}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def decode(name: str) -> Iterator[np.ndarray]:
    with av.open(str(ASSETS / "samples" / f"{name}.mp4")) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


@contextmanager
def face_counter(model: str):
    """Counts faces; closed explicitly because MediaPipe raises when it is left to the garbage collector."""
    options = vision.FaceDetectorOptions(base_options=BaseOptions(model_asset_path=str(FACE_MODELS / model)))
    with vision.FaceDetector.create_from_options(options) as detector:
        yield lambda rgb: len(detector.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb)).detections)


@pytest.fixture(scope="module")
def swapped():
    """A frame, its landmarks, and the same frame with the other person's face."""
    with make_samples.Landmarker() as landmarks:
        photo = make_samples.hopper()
        face = make_samples.cut_face(photo, landmarks(photo))
        frame = make_samples.film(make_samples.PORTRAIT, 0)
        points = landmarks(frame)
    return frame, points, make_samples.swap(frame, points, face)


# --------------------------------------------------------------------------------------------------- face models


def test_every_face_model_has_the_checksum_written_beside_it():
    lines = (FACE_MODELS / "SHA256SUMS").read_text().splitlines()
    written = {name: digest for digest, name in (line.split() for line in lines)}
    assert written == {path.name: sha256(path) for path in FACE_MODELS.glob("*.tflite")}
    assert len(written) == 3


# --------------------------------------------------------------------------------------------------------- clips


@pytest.mark.parametrize("name", DURATIONS_S)
def test_clip_has_the_documented_size_rate_length_and_format(name):
    with av.open(str(ASSETS / "samples" / f"{name}.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (1280, 720)
        assert stream.average_rate == 30
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        times = [frame.time for frame in container.decode(video=0)]
    assert len(times) == DURATIONS_S[name] * 30
    np.testing.assert_allclose(times, np.arange(len(times)) / 30, atol=1e-3)


@pytest.mark.parametrize("name", DURATIONS_S)
def test_clip_can_start_before_it_is_wholly_downloaded(name):
    content = (ASSETS / "samples" / f"{name}.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_the_fake_says_in_its_own_metadata_that_it_is_one():
    for name in DURATIONS_S:
        with av.open(str(ASSETS / "samples" / f"{name}.mp4")) as container:
            assert ("MANIPULATED" in container.metadata["comment"]) == (name == "fake")


def test_readme_tells_the_size_and_checksum_of_every_clip_and_face_model():
    readme = (ASSETS / "README.md").read_text()
    written = {
        name: (int(size.replace(",", "")), digest)
        for name, size, digest in re.findall(
            r"^\| `(?:\w+/)*([\w.]+)` \|.*\| ([\d,]+) \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE
        )
    }
    shipped = [*(ASSETS / "samples").glob("*.mp4"), *FACE_MODELS.glob("*.tflite")]
    assert written == {path.name: (path.stat().st_size, sha256(path)) for path in shipped}


def test_clips_together_stay_small():
    assert sum(path.stat().st_size for path in (ASSETS / "samples").iterdir()) < 2_500_000


@pytest.mark.parametrize(("name", "faces"), [("real", 1), ("fake", 1), ("two_faces", 2)])
def test_every_person_is_found_in_almost_every_frame(name, faces):
    with face_counter(SHORT_RANGE) as count:
        counts = [count(rgb) for rgb in decode(name)]
    assert np.mean(np.array(counts) == faces) >= 0.95


@pytest.mark.parametrize("model", [SHORT_RANGE, FULL_RANGE])
def test_nobody_is_found_in_no_face(model):
    with face_counter(model) as count:
        assert not any(count(rgb) for rgb in decode("no_face"))


def test_the_face_stays_wholly_inside_the_frame_and_200_to_300_pixels_tall():
    with make_samples.Landmarker() as landmarks:
        for name in ("real", "fake"):
            for rgb in itertools.islice(decode(name), 0, None, 10):
                points = landmarks(rgb)
                assert points.min() > 0
                assert (points < (1280, 720)).all()
                assert 200 <= np.ptp(points[:, 1]) <= 300


# ---------------------------------------------------------------------------------------------- how they are made


@pytest.mark.parametrize("name", make_samples.CLIPS)
def test_pixels_before_encoding_repeat(name):
    once, again = (list(itertools.islice(make_samples.CLIPS[name](), 2)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once[0], once[1])


def test_clip_on_disk_shows_what_the_script_makes():
    made = next(make_samples.fake_frames()).astype(float)
    shown = next(decode("fake")).astype(float)
    assert np.abs(made - shown).mean() < 4


def test_camera_moves_smoothly():
    shot = make_samples.PORTRAIT
    middle = np.array([*shot.centre_xy, 1])
    path = np.array([make_samples.camera(shot, index) @ middle for index in range(120)])
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert 0 < steps.max() < 8
    assert (np.abs(path - np.array(shot.size_wh) / 2) < 40).all()


def test_swap_changes_the_face_and_nothing_around_it(swapped):
    frame, points, fake = swapped
    changed = (frame != fake).any(axis=2)
    ys, xs = np.nonzero(changed)
    low, high = points.min(axis=0), points.max(axis=0)
    assert (low <= (xs.min(), ys.min())).all()
    assert ((xs.max(), ys.max()) <= high).all()
    assert changed.sum() > 0.4 * np.prod(high - low)


def test_similarity_recovers_a_known_turn_scale_and_shift():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(20, 2))
    known = np.array([[1.2 * np.cos(0.3), -1.2 * np.sin(0.3), 5], [1.2 * np.sin(0.3), 1.2 * np.cos(0.3), -7]])
    found = make_samples.similarity(source, source @ known[:, :2].T + known[:, 2])
    np.testing.assert_allclose(found, known, atol=1e-12)


def test_a_picture_without_a_face_is_refused():
    with make_samples.Landmarker() as landmarks, pytest.raises(ValueError, match="no face"):
        landmarks(make_samples.film(make_samples.TABLE, 0))
