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
    governor: Governor | Callable[[FrameSource], Governor],
    *,
    depth: int = 4,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[FrameResult]:
    """Judges every frame of ``source``; decoding runs beside it.

    Close the generator (or exhaust it) to stop the source: :func:`contextlib.closing` does.

    Args:
        source: not entered yet.
        detector: new; it keeps what it knows of the faces of this source.
        governor: says before each frame what may be left out, and sees what it took; or what makes one for the
            source once that is open: only then is it certain whether it is live.
        depth: decoded frames that may wait when the source is not live.
        stopped: asked before every frame; the results end once it says yes.

    Raises:
        InputError, NothingToAnalyseError: from the source, after the results of the frames before it.
    """
    with reading(source, depth=depth, stopped=stopped) as frames:
        decides = governor(source) if callable(governor) else governor
        for frame, dropped in frames:
            result = detector.judge(frame, dropped, decides.pace())
            decides.observe(result)
            yield result
