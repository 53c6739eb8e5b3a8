"""The shipped model on the sample clips, judged once for all tests that ask: real components, few frames."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compression.budget import FrameBudget
from detector.engine import Model
from detector.models import ladder
from detector.types import FrameResult
from pipelines.evidence import Evidence
from pipelines.session import Session, Settings, loaded
from pipelines.sinks import MultiSink
from pipelines.sources import VideoFile
from tests.doubles import ListSink

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"
BUDGET = FrameBudget.parse("33")


@dataclass(frozen=True)
class JudgedSample:
    """What came of the first frames of a sample."""

    record: dict[str, Any]
    results: list[FrameResult]
    evidence: Evidence


@cache
def model() -> Model:
    """The default model, loaded."""
    return loaded(ladder(None)[0], threads=1)


@cache
def judged(name: str, *, frames: int = 45, stride: int = 3) -> JudgedSample:
    """A sample by the name of its file; not to be changed."""
    evidence, kept = Evidence(model().card), ListSink()
    settings = Settings(BUDGET, stride, max_frames=frames)
    with MultiSink(evidence, kept) as sinks, Session(model(), settings, threads=1) as session:
        result = session.judge(VideoFile(SAMPLES / name), sinks)
    return JudgedSample(result.record, kept.results, evidence)
