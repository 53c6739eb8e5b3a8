import dataclasses

import numpy as np
import pytest

from detector import types
from detector.types import (
    Faces,
    FaceVerdict,
    Frame,
    Label,
    Pace,
    Reason,
    TellframeError,
    Verdict,
)
from tests.doubles import make_faces, make_verdict, square

PICTURE = np.zeros((3, 5, 3), np.uint8)


def test_the_size_of_a_frame_is_width_then_height():
    assert Frame(PICTURE, 0, 0, 0).size_wh == (5, 3)


@pytest.mark.parametrize(
    "bgr",
    [
        np.zeros((3, 5, 3), np.float32),
        np.zeros((3, 5), np.uint8),
        np.zeros((3, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((1, 3, 5, 3), np.uint8),
    ],
)
def test_a_frame_refuses_what_is_no_picture_and_says_what_came(bgr):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\).*got") as refused:
        Frame(bgr, 0, 0, 0)
    assert str(bgr.shape) in str(refused.value)
    assert str(bgr.dtype) in str(refused.value)


@pytest.mark.parametrize(("index", "pts_ns"), [(-1, 0), (0, -1)])
def test_a_frame_has_no_negative_index_or_time(index, pts_ns):
    with pytest.raises(ValueError, match="negative"):
        Frame(PICTURE, index, pts_ns, 0)


def test_no_faces_have_the_shapes_of_faces():
    faces = Faces.empty()
    assert len(faces) == 0
    assert faces.xyxy.shape == (0, 4)
    assert faces.keypoints.shape == (0, 6, 2)


@pytest.mark.parametrize(
    "which",
    [np.array([True, False, True]), np.array([0, 2]), slice(0, None, 2)],
)
def test_faces_are_picked_by_mask_index_or_slice_all_fields_alike(which):
    faces = make_faces(square(0, 0), square(200, 0), square(400, 0))
    picked = faces[which]
    assert len(picked) == 2
    np.testing.assert_array_equal(picked.xyxy, faces.xyxy[[0, 2]])
    np.testing.assert_array_equal(picked.keypoints, faces.keypoints[[0, 2]])
    np.testing.assert_array_equal(picked.confidence, faces.confidence[[0, 2]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("xyxy", np.zeros((2, 4), np.float32)),
        ("xyxy", np.zeros((1, 4), np.float64)),
        ("keypoints", np.zeros((1, 5, 2), np.float32)),
        ("confidence", np.zeros((1,), np.float64)),
    ],
)
def test_faces_whose_arrays_do_not_fit_are_refused_by_the_name_of_the_array(name, value):
    with pytest.raises(ValueError, match=f"{name} must be float32"):
        dataclasses.replace(make_faces(square(0, 0)), **{name: value})


@pytest.mark.parametrize("p", [-0.01, 1.01, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(p):
    with pytest.raises(ValueError, match="p_fake must be in"):
        FaceVerdict(1, square(0, 0), Label.REAL, Reason.BELOW_REAL, p, None)
    with pytest.raises(ValueError, match="p_frame must be in"):
        FaceVerdict(1, square(0, 0), Label.REAL, Reason.BELOW_REAL, None, p)
    with pytest.raises(ValueError, match="p_fake must be in"):
        Verdict(Label.NO_FACE, Reason.NO_FACE, p)


def test_no_face_goes_with_no_faces_and_only_then():
    Verdict(Label.NO_FACE, Reason.NO_FACE, None)
    with pytest.raises(ValueError, match="NO_FACE"):
        Verdict(Label.NO_FACE, Reason.NO_FACE, None, (make_verdict(),))
    with pytest.raises(ValueError, match="NO_FACE"):
        Verdict(Label.REAL, Reason.BELOW_REAL, 0.1)


@pytest.mark.parametrize(("find", "score"), [(0, 1), (1, 0), (-1, 1)])
def test_a_pace_is_at_least_one(find, score):
    with pytest.raises(ValueError, match="at least 1"):
        Pace(find, score)


def test_values_do_not_change_once_made():
    frame = Frame(PICTURE, 0, 0, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.index = 1


def test_every_error_of_ours_ends_a_script_with_a_code_of_its_own():
    kinds = [kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, TellframeError)]
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert codes == {
        "TellframeError": 1,
        "UsageError": 2,
        "InputError": 3,
        "NothingToAnalyseError": 4,
        "ModelError": 5,
        "OutputError": 6,
    }


def test_labels_and_reasons_are_written_as_their_text():
    assert f"{Label.NO_FACE} {Reason.TOO_SMALL}" == "NO_FACE face too small"
