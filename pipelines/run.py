"""A source of frames in, a stream of results out."""

from __future__ import annotations

from collections.abc import Generator

from compression.budget import Governor
from detector.engine import Detector
from detector.types import FrameResult, FrameSource
from pipelines.handoff import reading


def run(source: FrameSource, detector: Detector, governor: Governor, depth: int = 4) -> Generator[FrameResult]:
    """Judges every frame of ``source``; decoding runs beside it.

    Close the generator (or exhaust it) to stop the source: :func:`contextlib.closing` does.

    Args:
        source: not entered yet.
        detector: new; it keeps what it knows of the faces of this source.
        governor: says before each frame what may be left out, and sees what it took.
        depth: decoded frames that may wait when the source is not live.

    Raises:
        InputError, NothingToAnalyseError: from the source, after the results of the frames before it.
    """
    with reading(source, depth=depth) as frames:
        for frame, dropped in frames:
            result = detector.judge(frame, dropped, governor.pace())
            governor.observe(result)
            yield result
