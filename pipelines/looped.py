"""A video file round and round: a source without an end, for measuring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from detector.types import NS_PER_S, Frame, SourceCounts, SourceInfo
from pipelines.sources import VideoFile


class Looped:
    """Plays a clip again and again; index and time go on (a :class:`~detector.types.FrameSource`).

    Args:
        path: of a video file.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clip = VideoFile(path)
        self._stopped = False
        self.info = SourceInfo(str(path))
        self.counts = SourceCounts()

    def __enter__(self) -> Self:
        self._clip.__enter__()
        self.info = replace(self._clip.info, frames=None, duration_s=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clip.__exit__(kind, error, traceback)

    def __iter__(self) -> Iterator[Frame]:
        period_ns = round(NS_PER_S / (self.info.fps or 30))
        index, start_ns = 0, 0
        while True:
            pts_ns = 0
            for frame in self._clip:
                pts_ns = start_ns + frame.pts_ns
                yield replace(frame, index=index, pts_ns=pts_ns)
                index += 1
            if self._stopped:
                return
            start_ns = pts_ns + period_ns
            self._clip.__exit__(None, None, None)
            self._clip = VideoFile(self._path)
            self._clip.__enter__()

    def stop(self) -> None:
        """Ends the iteration."""
        self._stopped = True
        self._clip.stop()
