"""Finds faces with MediaPipe Tasks. The only file that imports mediapipe.

Two BlazeFace models share the work (Bazarevsky et al., "BlazeFace", 2019). The *short-range* one is quick and
finds faces within about two metres; the *full-range* one takes about twice as long and finds far faces too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.resources import as_file, files
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from detector.geometry import iou
from detector.silence import silent_stderr
from detector.types import NS_PER_MS, Faces, Float32Array, Frame, ModelError, UInt8Array


@dataclass(frozen=True, slots=True)
class _BoxShape:
    """From a model's square detection box to the landmark box, in units of the detection's width.

    Training crops are cut around the box of 468 face landmarks, which the detector was trained on; the two face
    models frame a face differently. Medians over 1,000 stills and 178 video frames of training data:
    ``python assets/measure_face_boxes.py``; the interquartile ranges are 0.03-0.10.
    """

    centre_dx: float
    centre_dy: float
    width: float
    height: float


_METRICS_HOST = "play.googleapis.com"
_WARM_UPS = 6
_TENSOR_BYTES = 300_000  # about what the models' input takes, so that malloc serves both from the same place
_ENOUGH = 560  # px: three times what the finer model looks at


class Range(Enum):
    """The two face models: file name and box shape."""

    SHORT = "face_detection_short_range.tflite", _BoxShape(0.00, -0.05, 0.92, 1.07)
    FULL = "face_detection_full_range_sparse.tflite", _BoxShape(0.00, 0.00, 0.88, 1.03)

    @property
    def file(self) -> str:
        """Name of the model's file."""
        return self.value[0]

    @property
    def shape(self) -> _BoxShape:
        """How the model frames a face."""
        return self.value[1]


class MediaPipeFaces:
    """Finds near faces quickly and far ones too (a :class:`~detector.types.FaceFinder`).

    The short-range model leads; every ``check_ms`` of *video* time the other one looks at the same frame too, in a
    thread beside it, and what it saw counts from the next call on (in the first frame at once: there it is waited for).
    So a frame pays for one model where a second core is free. Full range takes the lead while it sees a face that short
    range does not: far faces, behind which short range sometimes sees a large phantom; short range gets it back when it
    sees them all again.

    Args:
        min_confidence: detections below it are dropped, 0..1.
        check_ms: how long a face that only the other model sees may go unseen, ms of presentation time, and one call.
        folder: where the two ``.tflite`` files lie; the shipped ones when None.

    Raises:
        ModelError: a face model is missing or cannot be loaded.
    """

    def __init__(self, min_confidence: float = 0.5, check_ms: float = 125.0, folder: Path | None = None) -> None:
        self._short = _FaceModel(Range.SHORT, min_confidence, folder)
        self._full = _FaceModel(Range.FULL, min_confidence, folder)
        self._check_ns = round(check_ms * NS_PER_MS)
        self._beside = ThreadPoolExecutor(1, "second look")
        self._beside.submit(int).result()  # its thread is started here: no frame pays for that
        self._second: tuple[Faces, Future[Faces]] | None = None
        self.restart()

    def restart(self) -> None:
        """Another source follows: short range leads, nothing has been seen."""
        if self._second is not None:
            wait([self._second[1]])
        self._second = None
        self._short_leads = True
        self._checked_ns: int | None = None

    def find(self, frame: Frame) -> Faces:
        """All faces of ``frame``, most confident first; boxes are landmark boxes."""
        picture = _shrunk(frame.bgr)
        if self._second is not None:
            # Waited for, however long it takes: a clip gives the same result on any machine.
            self._settle(*self._second)
        if self._checked_ns is not None and frame.pts_ns - self._checked_ns < self._check_ns:
            return self._leader().find(picture)
        first, self._checked_ns = self._checked_ns is None, frame.pts_ns
        other = self._full if self._short_leads else self._short
        second = self._beside.submit(other.find, picture)
        faces = self._leader().find(picture)
        if first:
            return self._settle(faces, second)
        self._second = faces, second
        return faces

    def _leader(self) -> _FaceModel:
        return self._short if self._short_leads else self._full

    def _settle(self, faces: Faces, second: Future[Faces]) -> Faces:
        """Compares what the leader and the other model saw in one frame: the faces of who leads from now on."""
        self._second = None
        other = second.result()
        short, full = (faces, other) if self._short_leads else (other, faces)
        self._short_leads = _covers(short, full)
        return short if self._short_leads else full

    def close(self) -> None:
        """Releases both models; safe to call twice."""
        self._beside.shutdown()
        self._short.close()
        self._full.close()


@dataclass(frozen=True, slots=True)
class _Picture:
    """What the models look at: uint8 RGB (h, w, 3), of which one pixel is ``scale`` pixels of the frame."""

    rgb: UInt8Array
    scale: int


def _shrunk(bgr: UInt8Array) -> _Picture:
    """The frame for the models: every 2nd, 4th ... pixel of it, while that leaves it ``_ENOUGH`` wide or high.

    Turning a whole frame into RGB, copying that into MediaPipe and shrinking it there takes a millisecond or two more.
    Pixels are picked, not averaged, as MediaPipe picks them: on averaged ones short range saw 8 % more faces in
    development clips, phantoms; on picked ones the same as before, within a pixel.
    """
    scale = 1
    while max(bgr.shape[:2]) >= 2 * scale * _ENOUGH and min(bgr.shape[:2]) >= 2 * scale:
        scale *= 2
    if scale > 1:
        height, width = bgr.shape[0] // scale, bgr.shape[1] // scale
        whole = bgr[: scale * height, : scale * width]
        bgr = cast(UInt8Array, cv2.resize(whole, (width, height), interpolation=cv2.INTER_NEAREST))
    return _Picture(cast(UInt8Array, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)), scale)


class _FaceModel:
    """One MediaPipe face detector."""

    def __init__(self, which: Range, min_confidence: float, folder: Path | None) -> None:
        _keep_metrics_here()
        # Imported here, not above: it takes a second, which commands that judge nothing need not pay.
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self._shape = which.shape
        self._image = mediapipe.Image
        self._srgb = mediapipe.ImageFormat.SRGB
        with _model_file(which, folder) as path:
            # Bytes, not a path: MediaPipe fails on paths that its C++ side cannot decode.
            content = _content(path)
        with silent_stderr():
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_buffer=content),
                min_detection_confidence=min_confidence,
            )
            try:
                self._detector = vision.FaceDetector.create_from_options(options)
            except (RuntimeError, ValueError):
                raise ModelError(f"{which.file}: the face model is damaged; reinstall tellframe") from None
            # The first run builds kernels and logs about it: done here, so that no frame pays for it. The first tensor
            # that malloc does not align to 64 bytes is logged as well, once a process: what is held moves the next one.
            held = []
            for i in range(_WARM_UPS):
                self.find(_Picture(np.zeros((64, 64, 3), np.uint8), 1))
                held.append(np.empty(_TENSOR_BYTES + 16 * i, np.uint8))

    def find(self, picture: _Picture) -> Faces:
        """All faces of ``picture``, most confident first, in pixels of the frame."""
        rgb = picture.rgb
        found = self._detector.detect(self._image(image_format=self._srgb, data=rgb)).detections
        if not found:
            return Faces.empty()
        boxes = [detection.bounding_box for detection in found]
        square = np.array([(b.origin_x, b.origin_y, b.width, b.height) for b in boxes], np.float32)  # (n, 4)
        points = np.array([[(k.x, k.y) for k in detection.keypoints] for detection in found], np.float32)
        points *= np.array([rgb.shape[1], rgb.shape[0]], np.float32)  # (n, 6, 2)
        square, points = square * np.float32(picture.scale), points * np.float32(picture.scale)
        confidence = np.array([detection.categories[0].score for detection in found], np.float32)
        order = np.argsort(-confidence, kind="stable")
        return Faces(_landmark_boxes(square, self._shape), points, confidence)[order]

    def close(self) -> None:
        """Releases the model; left to the garbage collector at exit, MediaPipe raises."""
        with silent_stderr():
            self._detector.close()


def _landmark_boxes(square: Float32Array, shape: _BoxShape) -> Float32Array:
    """Detections as x, y, width, height (n, 4) -> landmark boxes xyxy (n, 4), both in pixels."""
    side = square[:, 2:].max(axis=1, keepdims=True)  # (n, 1)
    centre = square[:, :2] + square[:, 2:] / 2  # (n, 2)
    centre += side * np.array([shape.centre_dx, shape.centre_dy], np.float32)
    half = side * np.array([shape.width / 2, shape.height / 2], np.float32)
    return np.concatenate([centre - half, centre + half], axis=1)


def _covers(short: Faces, full: Faces) -> bool:
    """Whether short range sees every face that full range sees, at the same place."""
    if len(full) == 0:
        return True
    if len(short) == 0:
        return False
    return bool((iou(short.xyxy, full.xyxy).max(axis=0) > 0.4).all())


@contextmanager
def _model_file(which: Range, folder: Path | None) -> Iterator[Path]:
    """The file of a face model on disk, also when the package is installed as a zip."""
    if folder is None:
        with as_file(files("assets") / "models" / "face" / which.file) as path:
            yield _existing(path)
    else:
        yield _existing(folder / which.file)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"{path}: the face model is not there; reinstall tellframe or name the right folder")
    return path


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the face model cannot be read ({error.strerror}); reinstall tellframe") from None


def _keep_metrics_here() -> None:
    """Keeps MediaPipe from reporting its use to Google, which it does over HTTPS and has no switch for.

    Its libcurl goes through the proxy that this variable names, and nothing listens on port 9 (discard). Nothing else
    in this process uses the variable: FFmpeg reads ``http_proxy``. Exceptions from the proxy must not cover the host.
    """
    os.environ["https_proxy"] = "http://127.0.0.1:9"
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host.strip() for host in os.environ.get(name, "").split(",")]
        kept = [host for host in hosts if host and host != "*" and not _METRICS_HOST.endswith(host.lstrip("."))]
        if name in os.environ:
            os.environ[name] = ",".join(kept)
