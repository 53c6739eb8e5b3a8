"""Still pictures as frames."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import cv2
import numpy as np

from detector.types import NS_PER_S, Frame, NothingToAnalyseError, SourceInfo, UInt8Array, UsageError
from pipelines.sources._base import Source
from pipelines.sources._quiet import quiet_opencv


class ImageFolder(Source):
    """Image files as frames, in natural order (``img2`` before ``img10``), upright as their EXIF data says.

    A file that cannot be read is skipped, counted in ``counts.broken`` and keeps its index. Sizes may differ.

    Args:
        paths: the files; need not be in one directory.
        fps: frames a second, for their times.
        name: what to call them; None is the first path.

    Raises:
        UsageError: ``fps`` is not above 0.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], *, fps: float = 30, name: str | None = None) -> None:
        self._paths = sorted((os.fspath(path) for path in paths), key=natural_key)
        name = name or (self._paths[0] if self._paths else "images")
        check_fps(fps, name)
        super().__init__(SourceInfo(name=name, fps=fps, frames=len(self._paths), duration_s=len(self._paths) / fps))
        self._period_ns = NS_PER_S / Fraction(fps)
        self._pictures: Iterator[UInt8Array] = iter(())
        self._first: UInt8Array | None = None

    def _open(self) -> None:
        self._pictures = self._readable()
        self._first = next(self._pictures, None)
        if self._first is None:
            raise NothingToAnalyseError(f"{self.info.name}: none of {len(self._paths)} images can be read")
        height, width = self._first.shape[:2]
        self.info = SourceInfo(self.info.name, (width, height), self.info.fps, self.info.frames, self.info.duration_s)

    def _frames(self) -> Iterator[Frame]:
        bgr, self._first = self._first, None
        while bgr is not None:
            yield self._timeline.frame(bgr, self._timeline.next_index * self._period_ns)
            bgr = next(self._pictures, None)

    def _readable(self) -> Iterator[UInt8Array]:
        for path in self._paths:
            if self._stopped.is_set():
                return
            bgr = read_image(path)
            if bgr is None:
                self.counts.broken += 1
            else:
                yield bgr


def read_image(path: str) -> UInt8Array | None:
    """An image file as uint8 (H, W, 3) BGR, upright; None when it cannot be read. Any file name works."""
    try:
        data = np.fromfile(path, np.uint8)
        with quiet_opencv():
            return cast("UInt8Array | None", cv2.imdecode(data, cv2.IMREAD_COLOR)) if data.size else None
    except (OSError, ValueError, cv2.error):  # OpenCV raises for what looks like an image too large to be one
        return None


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sorts runs of digits by their number, everything else by letter."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(part), "") if i % 2 else (0, part.casefold()) for i, part in enumerate(parts)]


def check_fps(fps: float, name: str) -> None:
    """Refuses a frame rate that times cannot be made from."""
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"{name}: frames a second must be above 0, got {fps:g}")
