"""A source of frames in, a stream of results out."""

from __future__ import annotations

from collections.abc import Callable, Generator

from compression.budget import Governor
from detector.engine import Detector
from detector.types import FrameResult, FrameSource
from pipelines.handoff import reading


def run(
    source: FrameSource,
    detector: Detector,
    governor: Governor,
    *,
    depth: int = 4,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[FrameResult]:
    """Judges every frame of ``source``; decoding runs beside it.

    Close the generator (or exhaust it) to stop the source: :func:`contextlib.closing` does.

    Args:
        source: not entered yet.
        detector: new; it keeps what it knows of the faces of this source.
        governor: says before each frame what may be left out, and sees what it took.
        depth: decoded frames that may wait when the source is not live.
        stopped: asked before every frame; the results end once it says yes.

    Raises:
        InputError, NothingToAnalyseError: from the source, after the results of the frames before it.
    """
    with reading(source, depth=depth, stopped=stopped) as frames:
        for frame, dropped in frames:
            result = detector.judge(frame, dropped, governor.pace())
            governor.observe(result)
            yield result
