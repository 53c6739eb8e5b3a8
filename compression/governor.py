"""The governor: leaves work out while frames are late, and takes it up again when there is room. Pure; no clock.

It knows what frames took and nothing else: neither why they took it, nor what another setting would take. So it tries:
one step down when the budget's quantile of the recent frames is over the budget; one step up after enough frames within
it. A step up that fails is not tried again for twice as long (as Ethernet backs off; Metcalfe and Boggs, 1976), until
the work itself has become clearly lighter: so it neither oscillates under a steady load nor stays down without one.
docs/decisions/0008-governor.md has the reasons.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from compression.budget import FrameBudget
from detector.types import FrameResult, Pace, Timing, UsageError

STRIDES = ((1, 1), (2, 1), (4, 1), (4, 2), (4, 4))
"""(find_every, score_every) of every model, finest first: looking rests before scoring does."""
LAST_STRIDES = ((8, 8), (24, 24))
"""... and of the cheapest one. At 24 all work falls into one frame of 24: it may be late, as one in twenty may. Five
scores, which a verdict needs, still fall into the five seconds that a score counts for, at 30 frames a second."""
WINDOW = 60
"""Frames that the quantile is taken of."""
PATIENCE = 90
"""Frames within the budget before a step up, when none has failed."""
ROOM = 0.75
"""Clear headroom: the quantile is below this share of the budget. Without it a step up takes twice the patience."""
_LOOK_EVERY = 10  # frames: whether there is room is not asked at each of them
_LIGHTER = 0.7  # of the work at which a step up failed: then it may be tried as if it never had
_MOST_FAILURES = 5  # that count: 2**5 * PATIENCE frames are a minute and a half at 30 frames a second


@dataclass(frozen=True, slots=True)
class Setting:
    """A place on the ladder: which model, 0 the most accurate, and which of its strides, 0 the finest."""

    rung: int
    stride: int

    def pace(self) -> Pace:
        """What the detector is told. Where both stages rest, they do not wake in the same frame, but in the last."""
        strides = (*STRIDES, *LAST_STRIDES)
        find_every, score_every = strides[self.stride]
        apart = find_every > 1 and score_every > 1 and self.stride + 1 < len(strides)
        return Pace(find_every, score_every, score_every // 2 if apart else 0, self.rung)


@dataclass(slots=True)
class _Gate:
    """The way up into a setting: how often it has failed, and how heavy the work was then, ms (None: not yet known)."""

    failures: int = 0
    effort_ms: float | None = None

    def patience(self, effort_ms: float) -> int:
        """Frames to wait before it is tried."""
        lighter = self.effort_ms is not None and effort_ms < _LIGHTER * self.effort_ms
        return PATIENCE if lighter else PATIENCE << self.failures

    def failed(self, held: int) -> None:
        """Takes note of a fall out of the setting, which had held for so many frames."""
        held_long = held >= PATIENCE << self.failures
        self.failures = max(1, self.failures - 1) if held_long else min(self.failures + 1, _MOST_FAILURES)
        self.effort_ms = None


class LoadGovernor:
    """Keeps ``budget`` by leaving out work (a :class:`~compression.budget.Governor`).

    Order of the steps down: looking for faces rests, then scoring rests, then the next cheaper model scores, and with
    the last one both rest for long. From any model the way back leads to the next better one first, at the strides
    that were left last, and then to finer strides.

    Args:
        budget: what a frame may take, and the share of frames that must keep to it.
        rungs: models of the detector's ladder, at least 1.
    """

    def __init__(self, budget: FrameBudget, rungs: int = 1) -> None:
        if rungs < 1:
            raise UsageError(f"a governor needs at least one model, got {rungs}")
        self._budget = budget
        self._rungs = rungs
        self._late_allowed = math.floor((1 - budget.quantile) * WINDOW + 1e-9)
        self._gates: dict[Setting, _Gate] = {}
        self._recent: deque[Timing] = deque(maxlen=WINDOW)
        self._late = 0  # of the recent frames
        self._held = 0  # frames in this setting
        self._roomy = 0  # of them, frames in a row with clear headroom
        self._raised_from: Setting | None = None
        self.setting = Setting(0, 0)

    def pace(self) -> Pace:
        """What the next frame may leave out."""
        return self.setting.pace()

    def observe(self, result: FrameResult) -> None:
        """Takes the frame that was just judged, and moves on if it must."""
        if len(self._recent) == WINDOW:
            self._late -= self._is_late(self._recent[0])
        self._recent.append(result.timing)
        self._late += self._is_late(result.timing)
        self._held += 1
        if self._late > self._late_allowed:
            self._step_down()
        elif self._held >= WINDOW and self._held % _LOOK_EVERY == 0:
            self._look_up()

    def _is_late(self, timing: Timing) -> bool:
        return timing.total_ms > self._budget.period_ms

    def _level_ms(self) -> float:
        """The budget's quantile of the recent frames."""
        return sorted(timing.total_ms for timing in self._recent)[-1 - self._late_allowed]

    def _effort_ms(self) -> float:
        """How heavy the work is, whatever the strides: the slower of the two stages when it runs, median."""
        looks = sorted(timing.find_ms for timing in self._recent if timing.find_ms > 0)
        scores = sorted(timing.crop_ms + timing.score_ms for timing in self._recent if timing.score_ms > 0)
        return max(stage[len(stage) // 2] if stage else 0.0 for stage in (looks, scores))

    def _step_down(self) -> None:
        coarser = self._coarser()
        if coarser is None:
            return
        self._gate(self.setting).failed(self._held)
        self._move(coarser)

    def _coarser(self) -> Setting | None:
        """Where the way down leads; None from the last setting."""
        if self._raised_from is not None and self._held < PATIENCE:
            return self._raised_from
        rung, stride = self.setting.rung, self.setting.stride
        if stride + 1 < len(STRIDES) or rung + 1 == self._rungs:
            lasts = len(STRIDES) + len(LAST_STRIDES)
            return Setting(rung, stride + 1) if stride + 1 < lasts else None
        return Setting(rung + 1, len(STRIDES) - 1)

    def _look_up(self) -> None:
        """Steps up once a way up has been waited for long enough, if the slower stage by itself is not too slow."""
        effort_ms = self._effort_ms()
        if effort_ms > self._budget.period_ms and self._late_allowed < WINDOW // max(LAST_STRIDES[0]):
            return  # it runs too often in every setting but the last
        roomy = self._level_ms() <= ROOM * self._budget.period_ms
        self._roomy = max(WINDOW, self._roomy + _LOOK_EVERY) if roomy else 0
        for target in self._ways_up():
            gate = self._gate(target)
            if gate.effort_ms is None:
                gate.effort_ms = effort_ms
            patience = gate.patience(effort_ms)
            if self._roomy >= patience or self._held >= 2 * patience:
                self._move(target, raised_from=self.setting)
                return

    def _ways_up(self) -> list[Setting]:
        """The better model first, at the strides from which it was left; then finer strides."""
        rung, stride = self.setting.rung, self.setting.stride
        better = [Setting(rung - 1, len(STRIDES) - 1)] if rung and stride < len(STRIDES) else []
        return better + ([Setting(rung, stride - 1)] if stride else [])

    def _move(self, setting: Setting, raised_from: Setting | None = None) -> None:
        self.setting, self._raised_from = setting, raised_from
        self._recent.clear()
        self._late = self._held = self._roomy = 0

    def _gate(self, setting: Setting) -> _Gate:
        return self._gates.setdefault(setting, _Gate())
