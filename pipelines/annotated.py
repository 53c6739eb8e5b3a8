"""The annotated video: every judged frame with its verdict on it, as an MP4."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from detector.types import FrameResult, SourceInfo, UsageError
from pipelines.atomic import refuse_input, writable
from pipelines.overlay import draw
from pipelines.sinks import Closing
from pipelines.timeline import Timeline
from pipelines.videofile import VideoFile

# Frames that wait to be drawn: enough to even out a slow one, and 100 MB at 4K.
_WAITING: Final = 4


class AnnotatedVideo(Closing):
    """One MP4 a clip (H.264, variable frame rate: every frame at its own time), drawn by :mod:`pipelines.overlay`.

    Drawing and encoding run beside the caller, in a thread of their own. When they fall behind, :meth:`write` waits:
    no frame that was judged is missing in the video. An interrupted run leaves a whole, shorter video; a clip without
    results leaves no file.

    Args:
        path: the file of the one clip, or a folder that is there already: then every clip gets
            ``<its name>.annotated.mp4`` in it.
        budget_ms: what a frame may take, to be shown; None for no budget.
        real_below, fake_above: the thresholds of the detector, to be drawn; None for none.
        protected: files whose place no video may take: the clips that are still to be judged.

    Raises:
        OutputError: the path cannot be written; found at once, not after the analysis.
    """

    def __init__(
        self,
        path: str | Path,
        budget_ms: float | None = None,
        real_below: float | None = None,
        fake_above: float | None = None,
        protected: Sequence[str] = (),
    ) -> None:
        self._protected = protected
        self._path = Path(path)
        self._budget_ms = budget_ms
        self._thresholds = (real_below, fake_above)
        self._clip: _Clip | None = None
        self._closed = False
        self._made: list[Path] = []
        self._folder = self._path.is_dir()
        writable(self._path / "clip.annotated.mp4" if self._folder else self._path)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file of every clip begun so far, in order; one without results does not exist."""
        return tuple(self._made)

    def begin(self, path: str, info: SourceInfo) -> None:
        """Finishes the clip before and starts the next.

        Raises:
            UsageError: a second clip, and one file only.
            OutputError: the video before could not be finished, or the next would take the place of its own clip.
        """
        if self._closed:
            raise ValueError(f"{self._path} is closed")
        if self._made and not self._folder:
            raise UsageError(f"{self._path} can hold one clip only: name an existing folder for several")
        self._finish()
        target = self._target(path)
        for source in (path, *self._protected):
            refuse_input(target, source)
        self._clip = _Clip(target, info.fps, self._budget_ms, Timeline(*self._thresholds))
        self._made.append(target)

    def write(self, result: FrameResult) -> None:
        """Queues one frame; waits while too many are queued.

        Raises:
            OutputError: this frame or an earlier one could not be written.
        """
        if self._clip is None:
            # Without a word on the clip there is one, of unknown name.
            self.begin("clip", SourceInfo("clip"))
        assert self._clip is not None
        self._clip.write(result)

    def close(self) -> None:
        """Draws and encodes what is queued, and puts the video in its place.

        Raises:
            OutputError: it could not be written, and :meth:`write` has not said so before.
        """
        self._closed = True
        self._finish()

    def _finish(self) -> None:
        if self._clip is not None:
            clip, self._clip = self._clip, None
            clip.close()

    def _target(self, clip: str) -> Path:
        if not self._folder:
            return self._path
        # A clip may be an address or a camera: what is left must be a plain file name.
        stem = re.sub(r"[^\w.-]+", "-", Path(clip).stem).strip(".-")[:80] or "clip"
        target = self._path / f"{stem}.annotated.mp4"
        number = 2
        while target in self._made:
            target = self._path / f"{stem}-{number}.annotated.mp4"
            number += 1
        return target


class _Clip:
    """One video, and the thread that draws and encodes it."""

    def __init__(self, path: Path, fps: float | None, budget_ms: float | None, timeline: Timeline) -> None:
        self._video = VideoFile(path, fps)
        self._budget_ms = budget_ms
        self._timeline = timeline
        self._waiting: queue.Queue[FrameResult | None] = queue.Queue(_WAITING)
        self._hurry = threading.Event()
        self._error: BaseException | None = None
        self._told = False
        # A daemon: a caller that forgets to close must still be able to exit.
        self._thread = threading.Thread(target=self._work, name="annotated-video", daemon=True)
        self._thread.start()

    def write(self, result: FrameResult) -> None:
        self._raise_error()
        self._waiting.put(result)

    def close(self) -> None:
        """Drains, then joins. Interrupted meanwhile, it drops what is queued and finishes at once."""
        try:
            self._waiting.put(None)
            self._thread.join()
        except BaseException:
            self._hurry.set()
            self._waiting.put(None)
            self._thread.join()
            raise
        if not self._told:
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            self._told = True
            raise self._error

    def _work(self) -> None:
        """Runs in the thread. After an error it goes on emptying the queue, so that nobody waits for it for ever."""
        while (result := self._waiting.get()) is not None:
            if self._error is None and not self._hurry.is_set():
                self._attempt(result)
        if self._error is None:
            self._attempt(None)

    def _attempt(self, result: FrameResult | None) -> None:
        """Adds one frame, or finishes the video; an error is kept for the caller."""
        try:
            if result is None:
                self._video.close()
                return
            self._timeline.add(result)
            picture = draw(result.frame.bgr, result, self._timeline, self._budget_ms)
            self._video.write(picture, result.frame.pts_ns)
        except BaseException as error:
            self._error = error
            self._video.discard()
