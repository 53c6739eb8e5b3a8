"""Judged frames for tests of what is written from them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from detector.types import FaceVerdict, Frame, FrameResult, Label, Reason, Timing, Verdict

REASONS = {
    Label.REAL: Reason.BELOW_REAL,
    Label.FAKE: Reason.ABOVE_FAKE,
    Label.UNSURE: Reason.BETWEEN,
    Label.NO_FACE: Reason.NO_FACE,
}
SCORES = {Label.REAL: 0.08, Label.FAKE: 0.91, Label.UNSURE: 0.47}


def make_face(
    track: int = 1,
    label: Label = Label.REAL,
    xyxy: tuple[float, float, float, float] = (10.0, 20.0, 50.0, 70.0),
    p_fake: float | None = None,
) -> FaceVerdict:
    """A face whose score, unless given, suits its label."""
    score = SCORES[label] if p_fake is None else p_fake
    return FaceVerdict(track, xyxy, label, REASONS[label], score, score)


def make_picture(width: int = 128, height: int = 96, shade: int = 90) -> np.ndarray:
    """A plain picture, uint8 (height, width, 3)."""
    return np.full((height, width, 3), shade, np.uint8)


def make_result(
    label: Label = Label.NO_FACE,
    *,
    index: int = 0,
    pts_ns: int | None = None,
    bgr: np.ndarray | None = None,
    faces: tuple[FaceVerdict, ...] | None = None,
    timing: Timing | None = None,
    dropped: int = 0,
) -> FrameResult:
    """A result at 25 frames a second; ``label`` is the frame's, and its one face's unless ``faces`` are given."""
    if faces is None:
        faces = () if label is Label.NO_FACE else (make_face(label=label),)
    scores = [face.p_fake for face in faces if face.p_fake is not None]
    frame = Frame(
        make_picture() if bgr is None else bgr,
        index,
        index * 40_000_000 if pts_ns is None else pts_ns,
        captured_ns=1_000 + index,
    )
    verdict = Verdict(label, REASONS[label], max(scores, default=None), faces)
    return FrameResult(frame, verdict, timing or Timing(8.0, 0.5, 3.5, 12.4), dropped, fresh=True, model="lite0-int8")


@contextmanager
def file_limit(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow past the limit: the nearest thing to a full disk that needs no disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
