"""The time a frame may take, whether it was kept, and who decides what to leave out when it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from detector.types import FrameResult, Pace, UsageError


@dataclass(frozen=True, slots=True)
class FrameBudget:
    """How long one frame may take, from finding faces to the verdict.

    Attributes:
        period_ms: time between two frames, above 0: 33.3 at 30 fps, 16.7 at 60.
        quantile: the share of frames that must be done within it, 0..1.
    """

    period_ms: float
    quantile: float = 0.95

    def __post_init__(self) -> None:
        if not 0.0 < self.period_ms < float("inf") or not 0.0 < self.quantile <= 1.0:
            raise UsageError(
                f"a frame budget is a time above 0 ms, got {self.period_ms}, kept by a share of the frames in 0..1"
            )

    @classmethod
    def parse(cls, text: str) -> FrameBudget:
        """The budget a user names: ``33`` (30 fps), ``16`` (60 fps), or any number of ms.

        Raises:
            UsageError: not a number above 0.
        """
        try:
            period_ms = float(text)
        except ValueError:
            raise UsageError(f"--budget is a number of ms such as 33 or 16, got {text!r}") from None
        return {33.0: FPS_30, 16.0: FPS_60}.get(period_ms) or cls(period_ms)


FPS_30 = FrameBudget(1000 / 30)
FPS_60 = FrameBudget(1000 / 60)


class Governor(Protocol):
    """Decides before each frame how much of the work is done; sees what the frame then took."""

    def pace(self) -> Pace:
        """What the next frame may leave out."""
        ...

    def observe(self, result: FrameResult) -> None:
        """Takes the frame that was just judged."""
        ...


class FixedPace:
    """A governor that never changes its mind.

    Args:
        stride: every ``stride``-th frame is judged; verdicts are carried over the others.
    """

    def __init__(self, stride: int = 1) -> None:
        if stride < 1:
            raise UsageError(f"--stride is at least 1, got {stride}")
        self._pace = Pace(find_every=stride, score_every=stride)

    def pace(self) -> Pace:
        """Always the same."""
        return self._pace

    def observe(self, result: FrameResult) -> None:
        """Changes nothing."""
