"""Clips in, results out: opens each source, judges it, writes what was asked for, keeps what is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self

from compression.budget import FixedPace, FrameBudget, Governor
from compression.governor import LoadGovernor
from detector.engine import Detector, Model
from detector.faces import MediaPipeFaces
from detector.models import StoredModel
from detector.scorer import OnnxScorer
from detector.types import FaceFinder, FrameResult, FrameSource, Label, NothingToAnalyseError, UsageError
from pipelines.memory import share_one_heap
from pipelines.run import run
from pipelines.sinks import Sink
from pipelines.summary import Summary


@dataclass(frozen=True, slots=True)
class Settings:
    """How clips are judged.

    Attributes:
        budget: what a frame may take.
        stride: every n-th frame is judged.
        max_frames: stop a clip after so many results; None for all of it.
        governed: whether work is left out to keep the budget; None for live sources only, as frames of others wait.
    """

    budget: FrameBudget
    stride: int = 1
    max_frames: int | None = None
    governed: bool | None = False

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"--max-frames is at least 1, got {self.max_frames}")
        FixedPace(self.stride)  # refuses what is no stride
        if self.governed is not False and self.stride > 1:
            raise UsageError("--stride is a fixed pace, and the governor changes it; leave one of them out")

    def governor(self, rungs: int, *, live: bool) -> Governor:
        """What decides the pace of a source, with so many models to choose from."""
        governed = live if self.governed is None else self.governed
        return LoadGovernor(self.budget, rungs) if governed else FixedPace(self.stride)


@dataclass(frozen=True, slots=True)
class ClipResult:
    """A judged clip: its summary, the JSON object of it, and what cut it short."""

    summary: Summary
    record: dict[str, Any]
    error: BaseException | None

    @property
    def label(self) -> Label:
        """The verdict."""
        return self.summary.verdict().label


class Session:
    """The models, loaded once, for any number of clips; a context manager.

    Args:
        model: what scores; one that is loaded already is shared with whoever loaded it.
        settings: how clips are judged.
        threads: of the scorers that are loaded here.
        stopped: asked before every frame; a clip ends where it says yes.
        cheaper: models that the governor may use instead, the most accurate first.
    """

    def __init__(
        self,
        model: StoredModel | Model,
        settings: Settings,
        threads: int,
        stopped: Callable[[], bool] = lambda: False,
        cheaper: Sequence[StoredModel | Model] = (),
    ) -> None:
        share_one_heap()
        self._stopped = stopped
        self._ladder = [each if isinstance(each, Model) else loaded(each, threads) for each in (model, *cheaper)]
        self._settings = settings
        self._finder: FaceFinder = MediaPipeFaces()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._finder.close()

    def judge(
        self, source: FrameSource, sink: Sink, watch: Callable[[FrameResult], None] = lambda _: None
    ) -> ClipResult:
        """Judges one clip to its end, its limit, or what stops it.

        Every result goes to ``sink`` and ``watch``. An error after the first frame does not lose what was judged
        before: it comes back in the result, for the caller to raise once that is written. Before the first frame it
        is raised; so is BrokenPipeError at any time, as nobody reads the results any more.

        Raises:
            KeyboardInterrupt: it was stopped before the first frame.
        """
        self._finder.restart()
        path = source.info.name
        model, *cheaper = self._ladder
        summary = Summary(path, model.card, self._settings.budget)
        stopped: BaseException | None = None
        more = False
        try:
            detector = Detector(self._finder, model, cheaper=cheaper)
            with closing(run(source, detector, self._governor, stopped=self._stopped)) as results:
                for result in results:
                    if summary.frames == self._settings.max_frames:
                        more = True
                        break
                    if not summary.frames:
                        sink.begin(path, source.info)
                    summary.add(result)
                    sink.write(result)
                    watch(result)
        except BrokenPipeError:
            raise  # nobody reads the results any more
        except BaseException as error:
            if not summary.frames:
                raise
            stopped = error
        if self._stopped() and not summary.frames:
            raise KeyboardInterrupt
        if not summary.frames:
            raise NothingToAnalyseError(f"{path}: no frame could be decoded; is it a video?")
        complete = stopped is None and not more and not self._stopped() and not _ended_early(source, summary)
        return ClipResult(summary, summary.record(source.info, source.counts, complete=complete), stopped)

    def _governor(self, source: FrameSource) -> Governor:
        return self._settings.governor(len(self._ladder), live=source.live)


def loaded(stored: StoredModel, threads: int) -> Model:
    """A model ready to score: no frame pays for loading it, or for its first run."""
    scorer = OnnxScorer(stored, threads=threads)
    scorer.warm_up()
    return Model(stored.card, scorer)


def _ended_early(source: FrameSource, summary: Summary) -> bool:
    """Whether a container promised clearly more frames than came: a file that was cut off. Its count is an estimate."""
    promised = 0 if source.live else source.info.frames or 0
    return summary.frames + source.counts.broken < 0.9 * promised
