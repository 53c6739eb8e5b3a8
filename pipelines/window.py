"""A window on the desktop that shows what is judged, as it is judged."""

from __future__ import annotations

import cv2

from detector.types import FrameResult, OutputError, SourceInfo
from pipelines.overlay import draw
from pipelines.sinks import Closing
from pipelines.timeline import Timeline

_TITLE = "Tellframe (q to quit)"


class Window(Closing):
    """Shows annotated frames (OpenCV); ``q``, Escape or closing the window ends the run like Ctrl-C.

    Args:
        budget_ms: what a frame may take, to be shown.
        real_below: threshold of the detector, to be drawn.
        fake_above: threshold of the detector, to be drawn.
    """

    def __init__(self, budget_ms: float, real_below: float, fake_above: float) -> None:
        self._budget_ms = budget_ms
        self._thresholds = (real_below, fake_above)
        self._history = Timeline(*self._thresholds)
        self._shown = False

    def begin(self, path: str, info: SourceInfo) -> None:  # noqa: ARG002  (the seam's)
        """Starts with an empty timeline."""
        self._history = Timeline(*self._thresholds)

    def write(self, result: FrameResult) -> None:
        """Shows one result.

        Raises:
            OutputError: there is no display.
            KeyboardInterrupt: the user wants to stop.
        """
        self._history.add(result)
        picture = draw(result.frame.bgr, result, self._history, self._budget_ms)
        try:
            closed = self._shown and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
            cv2.imshow(_TITLE, picture)
            key = cv2.waitKey(1) & 0xFF
        except cv2.error:
            raise OutputError("--show needs a desktop and there is none here; use --save-video FILE") from None
        self._shown = True
        if closed or key in (ord("q"), 27):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Closes the window."""
        if self._shown:
            self._shown = False
            cv2.destroyWindow(_TITLE)
