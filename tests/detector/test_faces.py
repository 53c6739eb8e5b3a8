import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import assets
from detector.faces import MediaPipeFaces
from detector.geometry import iou
from detector.types import NS_PER_S, Frame, ModelError
from pipelines.sources import VideoFile

ASSETS = Path(assets.__file__).parent
MODELS = ASSETS / "models" / "face"
CANVAS_WH = (1920, 1080)


@pytest.fixture(scope="module")
def finder():
    found = MediaPipeFaces()
    yield found
    found.close()


@pytest.fixture(scope="module")
def always_both():
    """Looks with the full-range model at every frame."""
    found = MediaPipeFaces(check_ms=0)
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _fresh(finder, always_both):
    finder.restart()
    always_both.restart()


def sample(name, step=1):
    with VideoFile(ASSETS / "samples" / f"{name}.mp4") as source:
        for frame in source:
            if frame.index % step == 0:
                yield frame


@pytest.fixture(scope="module")
def portrait():
    """The first picture of the real clip; its face is 230 px wide."""
    return next(sample("real")).bgr


def scene(*pictures):
    """A grey canvas of 1920 x 1080 with pictures at places: ``(bgr, scale, (x, y))``."""
    canvas = np.full((CANVAS_WH[1], CANVAS_WH[0], 3), 60, np.uint8)
    for bgr, scale, (x, y) in pictures:
        small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        part = canvas[y : y + len(small), x : x + small.shape[1]]
        part[:] = small[: len(part), : part.shape[1]]
    return canvas


def at(bgr, index, fps=30):
    return Frame(bgr, index, round(index * NS_PER_S / fps), 0)


def landmarks_box(bgr, near):
    """The box of the 468 landmarks that the mesh model sees around ``near`` (xyxy), xyxy float32 (4,)."""
    mesh = Interpreter(str(MODELS / "face_landmark.tflite"))
    mesh.allocate_tensors()
    for _ in range(2):  # a second pass on the box of the first is steadier
        side = 1.5 * (near[2:] - near[:2]).max()
        scale = 192 / side
        to_crop = np.column_stack([np.eye(2) * scale, 96 - scale * (near[:2] + near[2:]) / 2])
        rgb = cv2.cvtColor(cv2.warpAffine(bgr, to_crop, (192, 192)), cv2.COLOR_BGR2RGB)
        mesh.set_tensor(mesh.get_input_details()[0]["index"], np.float32(rgb)[None] / 255)
        mesh.invoke()
        seen = mesh.get_tensor(mesh.get_output_details()[0]["index"]).reshape(468, 3)[:, :2]
        points = (seen - to_crop[:, 2]) / scale
        near = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return near.astype(np.float32)


# ------------------------------------------------------------------------------------------------ on the sample clips


@pytest.mark.parametrize(("name", "faces"), [("real", 1), ("two_faces", 2), ("no_face", 0)])
def test_everybody_is_found_in_every_frame_and_nobody_where_nobody_is(finder, name, faces):
    assert {len(finder.find(frame)) for frame in sample(name)} == {faces}


@pytest.mark.parametrize("which", ["finder", "always_both"])
def test_a_box_is_that_of_the_468_landmarks(request, which):
    found_by = request.getfixturevalue(which)
    for frame in sample("real", step=15):
        box = found_by.find(frame).xyxy
        true = landmarks_box(frame.bgr, box[0])
        assert iou(box, true[None])[0, 0] > 0.75
        wh, true_wh = box[0, 2:] - box[0, :2], true[2:] - true[:2]
        np.testing.assert_allclose(wh, true_wh, rtol=0.15)


def test_the_box_of_a_far_face_is_nearly_that_of_the_468_landmarks(finder, portrait):
    """At 1920 x 1080 the full-range model sees a face of 124 x 141 px in 12 x 25 pixels of its own."""
    near = finder.find(at(portrait, 0)).xyxy[0]
    true = landmarks_box(portrait, near) * 0.5
    overlaps = []
    for x, y in ((300, 400), (305, 411), (700, 300), (1200, 100), (900, 600)):
        finder.restart()
        box = finder.find(at(scene((portrait, 0.5, (x, y))), 0)).xyxy
        overlaps.append(iou(box, np.float32(true + np.array([x, y, x, y]))[None])[0, 0])
    assert np.mean(overlaps) > 0.6
    assert min(overlaps) > 0.5


def test_keypoints_are_where_a_face_has_them(finder):
    for frame in sample("two_faces", step=15):
        faces = finder.find(frame)
        for box, (right_eye, left_eye, nose, mouth, right_ear, left_ear) in zip(
            faces.xyxy, faces.keypoints, strict=True
        ):
            assert right_ear[0] < right_eye[0] < left_eye[0] < left_ear[0]  # the person's right is our left
            near = 0.05 * (box[2] - box[0])  # a turned head has its nose before an eye
            assert right_eye[0] - near < nose[0] < left_eye[0] + near
            assert max(right_eye[1], left_eye[1]) < nose[1] < mouth[1]
            for point in (right_eye, left_eye, nose, mouth):
                assert (box[:2] < point).all()
                assert (point < box[2:]).all()


def test_the_most_confident_face_comes_first(always_both):
    for frame in sample("two_faces", step=15):
        confidence = always_both.find(frame).confidence
        assert (np.diff(confidence) <= 0).all()
        assert ((confidence >= 0.5) & (confidence <= 1)).all()


def test_a_picture_twice_as_large_has_the_same_faces_at_twice_the_place(always_both, portrait):
    small = always_both.find(at(portrait, 0)).xyxy
    always_both.restart()
    large = always_both.find(at(cv2.resize(portrait, None, fx=2, fy=2), 0)).xyxy
    assert iou(2 * small, large)[0, 0] > 0.85


# ---------------------------------------------------------------------------------------------------------- far faces


@pytest.mark.parametrize("scale", [0.4, 0.45, 0.5])  # faces of 92, 104 and 115 px
def test_a_far_face_that_short_range_misses_is_found_at_once_when_it_is_there_from_the_start(finder, portrait, scale):
    never_full = MediaPipeFaces(check_ms=1e9)
    try:
        never_full.find(at(scene(), 0))  # the one frame that full range looks at
        picture = scene((portrait, scale, (300, 400)))
        assert len(never_full.find(at(picture, 1))) == 0
    finally:
        never_full.close()
    assert [len(finder.find(at(picture, index))) for index in range(10)] == [1] * 10


@pytest.mark.parametrize("fps", [24, 25, 30, 60])
@pytest.mark.parametrize("beside", ["nothing", "a near face"])
@pytest.mark.parametrize("appears", [7, 8, 9])
def test_a_far_face_that_comes_in_is_found_within_a_quarter_of_a_second(finder, portrait, fps, beside, appears):
    near = () if beside == "nothing" else ((portrait, 1.0, (600, 0)),)
    before, after = scene(*near), scene(*near, (portrait, 0.5, (0, 680)))
    seen = [len(finder.find(at(before, index, fps))) for index in range(appears)]
    assert seen == [len(near)] * appears
    for index in range(appears, appears + fps):
        if len(finder.find(at(after, index, fps))) == len(near) + 1:
            assert (index - appears) / fps <= 0.25
            break
    else:
        pytest.fail("never found")
    later = [len(finder.find(at(after, index, fps))) for index in range(index + 1, index + 10)]
    assert later == [len(near) + 1] * 9


def test_a_face_that_leaves_is_gone_from_the_next_frame_on(finder, portrait):
    with_face, without = scene((portrait, 1.0, (600, 0))), scene()
    for index in range(8):
        finder.find(at(with_face, index))
    assert [len(finder.find(at(without, index))) for index in range(8, 14)] == [0] * 6


def test_restart_forgets_the_faces_and_the_clock_of_the_last_source(finder, portrait):
    far = scene((portrait, 0.5, (300, 400)))
    for index in range(300, 310):
        finder.find(at(far, index))
    finder.restart()
    assert len(finder.find(at(far, 0))) == 1  # the clock began again, and the first frame is looked at with both


def test_the_same_frames_give_the_same_faces_however_long_the_second_look_takes(finder, portrait):
    """Beside two other finders at work, and alone."""
    pictures = [scene((portrait, 1.0, (600, 0))), scene((portrait, 0.5, (0, 680))), scene()]
    frames = [at(pictures[index // 7 % 3], index) for index in range(42)]

    def boxes():
        finder.restart()
        return [finder.find(frame).xyxy.tolist() for frame in frames]

    alone = boxes()
    stop = threading.Event()
    rivals = [threading.Thread(target=_keep_busy, args=(stop, frames[0])) for _ in range(2)]
    for rival in rivals:
        rival.start()
    try:
        assert boxes() == alone
    finally:
        stop.set()
        for rival in rivals:
            rival.join()


def _keep_busy(stop, frame):
    rival = MediaPipeFaces(check_ms=0)
    while not stop.is_set():
        rival.find(frame)
    rival.close()


# ---------------------------------------------------------------------------------------------------- life and death


def test_no_thread_outlives_it():
    before = threading.active_count()
    MediaPipeFaces().close()
    assert threading.active_count() == before


def test_mediapipe_writes_nothing_on_stderr(capfd, portrait):
    finder = MediaPipeFaces()
    for index in range(6):
        finder.find(at(portrait, index))
    finder.close()
    finder.close()
    assert capfd.readouterr() == ("", "")


def test_what_others_write_on_stderr_afterwards_is_not_swallowed(capfd):
    MediaPipeFaces().close()
    sys.stderr.write("still here")
    assert capfd.readouterr().err == "still here"


def test_finders_made_in_several_threads_leave_stderr_alone():
    # A process of its own: what this breaks stays broken.
    script = """
import os, threading
from detector.faces import MediaPipeFaces
def make():
    for _ in range(5):
        MediaPipeFaces().close()
before = os.fstat(2)
MediaPipeFaces().close()
threads = [threading.Thread(target=make) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(os.path.samestat(before, os.fstat(2)))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ASSETS.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_process_without_a_standard_error_finds_faces_too():
    script = "from detector.faces import MediaPipeFaces; MediaPipeFaces().close(); print('made')"
    command = f'exec "{sys.executable}" -c "{script}" 2>&-'
    done = subprocess.run(["sh", "-c", command], cwd=ASSETS.parent, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "made\n")


def test_a_folder_without_the_models_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(ModelError, match=r"face_detection_short_range\.tflite.*not there"):
        MediaPipeFaces(folder=tmp_path)


def test_one_missing_model_is_an_error_and_leaves_nothing_open(tmp_path):
    shutil.copy(MODELS / "face_detection_short_range.tflite", tmp_path)
    with pytest.raises(ModelError, match=r"face_detection_full_range_sparse\.tflite"):
        MediaPipeFaces(folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model at all", bytes(5000)])
def test_a_damaged_model_is_an_error_that_names_the_file(tmp_path, capfd, content):
    for path in MODELS.glob("face_detection*"):
        (tmp_path / path.name).write_bytes(content)
    with pytest.raises(ModelError, match=r"face_detection_short_range\.tflite"):
        MediaPipeFaces(folder=tmp_path)
    assert capfd.readouterr().err == ""


def test_a_truncated_model_is_an_error_that_names_the_file(tmp_path):
    for path in MODELS.glob("face_detection*"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(ModelError, match=r"face_detection_short_range\.tflite"):
        MediaPipeFaces(folder=tmp_path)


def test_models_are_read_from_a_folder_with_any_name(tmp_path, portrait):
    folder = tmp_path / "gesichtsmodelle äöü 顔"
    shutil.copytree(MODELS, folder)
    finder = MediaPipeFaces(folder=folder)
    try:
        assert len(finder.find(at(portrait, 0))) == 1
    finally:
        finder.close()


def test_it_works_in_a_thread_that_did_not_make_it(finder, portrait):
    counts = []
    thread = threading.Thread(target=lambda: counts.append(len(finder.find(at(portrait, 0)))))
    thread.start()
    thread.join()
    assert counts == [1]


@pytest.mark.parametrize("size_wh", [(1, 1), (2, 2000), (3000, 3), (7, 5)])
def test_a_picture_of_any_shape_can_be_looked_at(always_both, size_wh):
    assert len(always_both.find(at(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), 0))) == 0
