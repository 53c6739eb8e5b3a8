"""What flows through Tellframe, the seams between its parts, and its errors.

``Frame -> Faces -> crops -> scores -> Verdict -> FrameResult``: frozen dataclasses, checked where they are made.
This module needs numpy only, so every other part can import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


# ---------------------------------------------------------------------------------------------------- errors


class TellframeError(Exception):
    """Something a person can act on. ``str(error)`` is one line: what came, and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(TellframeError):
    """An option or argument that makes no sense."""

    exit_code = 2


class InputError(TellframeError):
    """An input that cannot be opened or read."""

    exit_code = 3


class NothingToAnalyseError(TellframeError):
    """An input that can be read and holds nothing to judge: no video stream, no frames."""

    exit_code = 4


class ModelError(TellframeError):
    """A model, or its card, that is missing or damaged."""

    exit_code = 5


class OutputError(TellframeError):
    """A result that cannot be written."""

    exit_code = 6


# ---------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        bgr: uint8 (H, W, 3), blue-green-red, upright (rotation already applied).
        index: position in the source, from 0; frames that were dropped or broken count.
        pts_ns: presentation time in ns; strictly increasing within a source, 0 at its start.
        captured_ns: ``time.monotonic_ns()`` at the moment the frame was grabbed or decoded.
    """

    bgr: UInt8Array
    index: int
    pts_ns: int
    captured_ns: int

    def __post_init__(self) -> None:
        if self.bgr.dtype != np.uint8 or self.bgr.ndim != 3 or self.bgr.shape[2] != 3 or self.bgr.size == 0:
            raise ValueError(f"bgr must be uint8 (H, W, 3) and not empty, got {self.bgr.dtype} {self.bgr.shape}")
        if self.index < 0 or self.pts_ns < 0:
            raise ValueError(f"index and pts_ns must not be negative, got {self.index} and {self.pts_ns}")

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.bgr.shape[1], self.bgr.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of one frame, as a struct of arrays.

    Attributes:
        xyxy: float32 (n, 4), the landmark box (chin to hairline, ear to ear) in pixels of the frame;
            may reach past its edges.
        keypoints: float32 (n, 6, 2) in pixels: right eye, left eye, nose tip, mouth centre, right ear, left ear
            (right and left are the person's own).
        confidence: float32 (n,), 0..1, of the face finder.
    """

    xyxy: Float32Array
    keypoints: Float32Array
    confidence: Float32Array

    def __post_init__(self) -> None:
        n = len(self.confidence)
        for name, array, shape in (
            ("xyxy", self.xyxy, (n, 4)),
            ("keypoints", self.keypoints, (n, 6, 2)),
            ("confidence", self.confidence, (n,)),
        ):
            if array.dtype != np.float32 or array.shape != shape:
                raise ValueError(f"{name} must be float32 {shape}, got {array.dtype} {array.shape}")

    @classmethod
    def empty(cls) -> Self:
        """No face at all."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 6, 2), np.float32), np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.confidence)

    def __getitem__(self, which: BoolArray | IntArray | slice) -> Faces:
        """The faces picked by a mask, an index array or a slice."""
        return Faces(self.xyxy[which], self.keypoints[which], self.confidence[which])


class Label(StrEnum):
    """What is said of a face, a frame or a video."""

    REAL = "REAL"
    FAKE = "FAKE"
    UNSURE = "UNSURE"
    NO_FACE = "NO_FACE"


class Reason(StrEnum):
    """Why that is said; the text is shown to people and written to results."""

    BELOW_REAL = "score below the real threshold"
    ABOVE_FAKE = "score above the fake threshold"
    BETWEEN = "score between the thresholds"
    TOO_SMALL = "face too small"
    BLURRED = "blurred"
    DARK = "too dark"
    TURNED_AWAY = "turned away"
    TOO_FEW_FRAMES = "too few frames"
    DISAGREE = "scores disagree"
    NO_FACE = "no face found"


@dataclass(frozen=True, slots=True)
class FaceVerdict:
    """One followed face in one frame.

    Attributes:
        track: id of the face, from 1, unique within a source and never used again.
        xyxy: landmark box in pixels of the frame.
        label, reason: what is said of this face now.
        p_fake: smoothed over the recent scores of the track, 0..1; None without any.
        p_frame: the score of this very frame, 0..1; None when it was not scored in this frame.
        flaw: why the score of this very frame counts for nothing (too small, blurred ...); None when it counts.
    """

    track: int
    xyxy: tuple[float, float, float, float]
    label: Label
    reason: Reason
    p_fake: float | None
    p_frame: float | None
    flaw: Reason | None = None

    def __post_init__(self) -> None:
        for name, p in (("p_fake", self.p_fake), ("p_frame", self.p_frame)):
            if p is not None and not 0.0 <= p <= 1.0:
                raise ValueError(f"{name} must be in 0..1, got {p}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one frame: the word on its most suspicious face, and every face in it.

    ``p_fake`` is None exactly when no face has a score.
    """

    label: Label
    reason: Reason
    p_fake: float | None
    faces: tuple[FaceVerdict, ...] = ()

    def __post_init__(self) -> None:
        if self.p_fake is not None and not 0.0 <= self.p_fake <= 1.0:
            raise ValueError(f"p_fake must be in 0..1, got {self.p_fake}")
        if (self.label is Label.NO_FACE) != (not self.faces):
            raise ValueError(f"label NO_FACE goes with no faces, got {self.label} and {len(self.faces)} faces")


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one frame went, in ms. A stage that did not run took 0.

    ``total_ms`` is find + crop + score + everything between them (tracking, verdict); decoding runs beside it
    and is not in it.
    """

    find_ms: float
    crop_ms: float
    score_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the stages run, and which model scores.

    Attributes:
        find_every: faces are looked for in every n-th frame that reaches the detector; 1 is every frame.
        score_every: faces are scored in every n-th.
        score_phase: which of them, 0..``score_every`` - 1: another phase than finding's 0 keeps the two apart.
        rung: of the detector's ladder of models; 0 is the first.
    """

    find_every: int = 1
    score_every: int = 1
    score_phase: int = 0
    rung: int = 0

    def __post_init__(self) -> None:
        if self.find_every < 1 or self.score_every < 1:
            raise ValueError(f"a pace is at least 1, got find {self.find_every}, score {self.score_every}")
        if not 0 <= self.score_phase < self.score_every or self.rung < 0:
            raise ValueError(
                f"a phase is from 0 to below {self.score_every} and a rung at least 0, "
                f"got {self.score_phase} and {self.rung}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """A judged frame.

    Attributes:
        dropped: frames of the source lost between the previous result and this one.
        fresh: True when a face of this frame was scored in this frame, or was looked for and not found;
            False when the verdict is carried over from an earlier frame.
        model: name of the model in use for this frame.
        pace: how often the stages ran, and which model of the ladder that is.
    """

    frame: Frame
    verdict: Verdict
    timing: Timing
    dropped: int
    fresh: bool
    model: str
    pace: Pace = Pace()


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source when it is opened; None where it is not.

    Attributes:
        name: what the user called it.
        size_wh: upright width and height in pixels.
        fps: nominal frames a second.
        frames: how many are expected (a container's own claim: for progress bars, not for loops).
        duration_s: a container's own claim.
    """

    name: str
    size_wh: tuple[int, int] | None = None
    fps: float | None = None
    frames: int | None = None
    duration_s: float | None = None


@dataclass(slots=True)
class SourceCounts:
    """What went wrong in a source so far; grows while it is read.

    Attributes:
        broken: frames that could not be decoded and were skipped.
        reconnects: times a live source was lost and opened again.
    """

    broken: int = field(default=0)
    reconnects: int = field(default=0)


# ---------------------------------------------------------------------------------------------------- seams


class FaceFinder(Protocol):
    """Finds the faces of a frame."""

    def find(self, frame: Frame) -> Faces:
        """All faces of ``frame``, most confident first."""
        ...

    def restart(self) -> None:
        """Another source follows: forgets what was learnt from the frames of the last one."""
        ...

    def close(self) -> None:
        """Releases the models; safe to call twice."""
        ...


class Scorer(Protocol):
    """Turns face crops into probabilities."""

    def score(self, crops: UInt8Array) -> Float32Array:
        """p(fake), float32 (n,) in 0..1, of uint8 RGB ``crops`` (n, S, S, 3)."""
        ...


class FrameSource(Protocol):
    """A stream of frames: a context manager that opens on enter, iterates once, and closes on exit.

    Opening raises :class:`InputError` or :class:`NothingToAnalyseError`; so does iterating when the input fails
    later. ``stop()`` may be called from another thread: iteration then ends soon, without an error.
    """

    live: bool
    info: SourceInfo
    counts: SourceCounts

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:
        """Ends the iteration soon; safe from any thread, and twice."""
        ...
