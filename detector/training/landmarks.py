"""The 468 points of a face, for training: where its parts are, so that pseudo-fakes can be cut along them.

MediaPipe's face mesh (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019)
through LiteRT. The only file that imports ``ai_edge_litert``.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from detector.silence import silent_stderr
from detector.types import Float32Array, ModelError, UInt8Array

POINTS = 468
_FILE = "face_landmark.tflite"
_SIDE = 192  # px: what the mesh model looks at
_CONTEXT = 1.5  # side of that square over the longer side of the face, as the model was trained
_RIGHT_EYE, _LEFT_EYE = (33, 133), (362, 263)  # corners, in the mesh; right and left are the person's own


class FaceMesh:
    """Finds the points of a face whose box is known.

    Args:
        folder: where the model lies; the shipped one when None.

    Raises:
        ModelError: LiteRT is not installed, or the model is missing or damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._mesh = _interpreter(folder)
        details = self._mesh.get_output_details()
        self._input = self._mesh.get_input_details()[0]["index"]
        self._points, self._presence = (details[i]["index"] for i in (0, 1))

    def find(self, rgb: UInt8Array, xyxy: Float32Array) -> tuple[Float32Array, float]:
        """Points float32 (468, 2) in pixels of ``rgb``, and how sure the model is that it sees a face, 0..1.

        A first pass on the box gives the roll of the head and a closer box; the second looks at the face upright.

        Args:
            rgb: uint8 (H, W, 3).
            xyxy: float32 (4,), about the face.
        """
        points, _ = self._look(rgb, xyxy[:2], xyxy[2:], roll=0.0)
        return self._look(rgb, points.min(axis=0), points.max(axis=0), roll_of(points))

    def _look(self, rgb: UInt8Array, low: Float32Array, high: Float32Array, roll: float) -> tuple[Float32Array, float]:
        """One pass over the square around ``low``..``high``, turned by ``roll`` radians."""
        scale = _SIDE / (_CONTEXT * max(float((high - low).max()), 1.0))
        turn = scale * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        shift = _SIDE / 2 - turn @ ((low + high) / 2)  # (2,)
        to_square = np.column_stack([turn, shift])
        square = cv2.warpAffine(rgb, to_square, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self._mesh.set_tensor(self._input, square.astype(np.float32)[None] / 255)
        self._mesh.invoke()
        in_square = self._mesh.get_tensor(self._points).reshape(POINTS, 3)[:, :2]  # (468, 2)
        logit = float(np.clip(self._mesh.get_tensor(self._presence).ravel()[0], -30, 30))
        points = (in_square - shift) @ np.linalg.inv(turn).T
        return cast(Float32Array, points.astype(np.float32)), float(1 / (1 + np.exp(-logit)))


def roll_of(points: Float32Array) -> float:
    """The angle of the line between the eyes, radians; 0 when they are level."""
    right, left = points[list(_RIGHT_EYE)].mean(axis=0), points[list(_LEFT_EYE)].mean(axis=0)
    return float(np.arctan2(left[1] - right[1], left[0] - right[0]))


def _interpreter(folder: Path | None) -> Any:
    """A LiteRT interpreter (untyped: it publishes no types) with the mesh model in it."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ModelError("LiteRT is not installed; pip install 'tellframe[train]'") from None
    with as_file(folder / _FILE if folder else files("assets") / "models" / "face" / _FILE) as path:
        try:
            content = path.read_bytes()
            with silent_stderr():
                mesh = Interpreter(model_content=content, num_threads=1)
                mesh.allocate_tensors()
        except FileNotFoundError:
            raise ModelError(f"{path}: the face model is not there; reinstall tellframe") from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: the face model is damaged ({error}); reinstall tellframe") from None
    return mesh
