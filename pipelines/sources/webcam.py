"""Cameras on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, cast

import cv2

from detector.types import Frame, InputError, SourceInfo, UInt8Array, UsageError
from pipelines.sources._base import Source
from pipelines.sources._quiet import quiet_opencv
from pipelines.sources.images import natural_key

# Uncompressed pictures above this rate do not fit through USB 2: ask the camera for JPEG.
_RAW_PIXELS_PER_S = 640 * 480 * 30

_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that a webcam needs."""

    def isOpened(self) -> bool:  # noqa: N802
        """Whether there is a camera."""
        ...

    def read(self) -> tuple[bool, UInt8Array | None]:
        """Whether there is a picture, and the picture: uint8 (H, W, 3) BGR."""
        ...

    def get(self, prop: int, /) -> float:
        """A ``cv2.CAP_PROP_*``; 0 when unknown."""
        ...

    def set(self, prop: int, value: float, /) -> bool:
        """Asks for a ``cv2.CAP_PROP_*``; False when refused."""
        ...

    def release(self) -> None:
        """Lets the camera go."""
        ...


def open_camera(device: int | str) -> Capture:
    """Opens a camera with OpenCV, which is kept from writing to stderr meanwhile."""
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    with quiet_opencv():
        return cast(Capture, cv2.VideoCapture(device, backend))


class Webcam(Source):
    """The frames of a camera, timed by their arrival.

    What the camera really gives, which may differ from what is asked for, is in ``info``. A camera that is unplugged
    is opened again when it is back; ``counts.reconnects`` says how often, and indices and times go on.

    Args:
        device: number of the camera (an int or its digits), or a path such as ``/dev/video0``.
        size_wh: width and height to ask for, in pixels; None leaves it to the camera.
        fps: frames a second to ask for; None leaves it to the camera.
        reconnect_s: how long to wait for a camera that was unplugged.
        open_capture: opens the camera ``device``; for tests.

    Raises:
        UsageError: an argument makes no sense.
    """

    live = True

    def __init__(
        self,
        device: int | str = 0,
        *,
        size_wh: tuple[int, int] | None = None,
        fps: float | None = None,
        reconnect_s: float = 10.0,
        open_capture: Callable[[int | str], Capture] = open_camera,
    ) -> None:
        self._device = _checked_device(device)
        name = f"camera {self._device}" if isinstance(self._device, int) else self._device
        super().__init__(SourceInfo(name=name))
        if size_wh is not None and min(size_wh) < 1:
            raise UsageError(f"{name}: a picture is at least 1x1 pixels, got {size_wh[0]}x{size_wh[1]}")
        if fps is not None and not 0 < fps <= 1000:
            raise UsageError(f"{name}: frames a second must be above 0 and at most 1000, got {fps:g}")
        self._size_wh = size_wh
        self._fps = fps
        self._reconnect_s = reconnect_s
        self._open_capture = open_capture
        self._capture: Capture | None = None
        self._first: UInt8Array | None = None

    def _open(self) -> None:
        if not self._connect():
            raise InputError(f"{self.info.name}: {self._missing()}; {_cameras_there()}")

    def _frames(self) -> Iterator[Frame]:
        bgr = self._first
        while not self._stopped.is_set():
            if bgr is None:
                self._reconnect()
                bgr = self._first
            else:
                now_ns = time.monotonic_ns()
                yield self._timeline.frame(bgr, now_ns, now_ns)
                bgr = self._read()

    def _connect(self) -> bool:
        """Opens the camera and reads a picture: some devices open and never give one."""
        self._close()
        self._capture = self._open_capture(self._device)
        if not self._capture.isOpened():
            return False
        self._ask(self._capture)
        self._first = self._read()
        if self._first is None:
            return False
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        size_wh = (self._first.shape[1], self._first.shape[0])
        self.info = SourceInfo(name=self.info.name, size_wh=size_wh, fps=fps if fps > 0 else None)
        self._timeline.set_rate(self.info.fps)
        return True

    def _ask(self, capture: Capture) -> None:
        if self._size_wh is not None:
            width, height = self._size_wh
            if width * height * (self._fps or 30) > _RAW_PIXELS_PER_S:
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        if self._fps is not None:
            capture.set(cv2.CAP_PROP_FPS, self._fps)

    def _read(self) -> UInt8Array | None:
        if self._capture is None:
            return None
        there, bgr = self._capture.read()
        return bgr if there else None

    def _reconnect(self) -> None:
        """Waits for the camera to come back, or until somebody stops it."""
        deadline_s = time.monotonic() + self._reconnect_s
        attempt = 0
        while not self._stopped.wait(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]):
            attempt += 1
            if self._connect():
                self.counts.reconnects += 1
                return
            if time.monotonic() >= deadline_s:
                raise InputError(
                    f"{self.info.name}: gone, and not back within {self._reconnect_s:g} s; {_cameras_there()}"
                )

    def _missing(self) -> str:
        if self._capture is not None and self._capture.isOpened():
            return "opens but gives no picture; is another program using it?"
        return "no such camera, or it cannot be opened"

    def _close(self) -> None:
        self._first = None
        if self._capture is not None:
            self._capture.release()
            self._capture = None


def _checked_device(device: int | str) -> int | str:
    if isinstance(device, str) and device.isascii() and device.isdigit():
        device = int(device)
    if isinstance(device, int) and device < 0:
        raise UsageError(f"a camera's number is at least 0, got {device}")
    if isinstance(device, str) and not device.startswith("/dev/"):
        raise UsageError(f"a camera is a number or a path such as /dev/video0, got {device!r}")
    return device


def _cameras_there() -> str:
    there = sorted((str(path) for path in Path("/dev").glob("video*")), key=natural_key)
    return f"cameras there: {', '.join(there)}" if there else "no camera is connected"
