"""What a person looks at after the verdict: a picture of every face, the most suspicious moments, the timeline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from detector.card import ModelCard
from detector.crop import crop_faces
from detector.engine import Model
from detector.explain import heat_picture, occlusion_map, region_name
from detector.types import NS_PER_S, FaceVerdict, Float32Array, FrameResult, SourceInfo, UInt8Array
from pipelines.sinks import Closing
from pipelines.timeline import Timeline

THUMBNAIL_PX: Final = 128
VIEW_PX: Final = 360
_THUMBNAIL_MARGIN: Final = 1.5  # side of the picture over the longer side of the face
_VIEW_MARGIN: Final = 2.4
_MOST_THUMBNAILS: Final = 64  # 3 MB; a crowd, or a face that is lost and found for hours, must not fill the memory
_CLEARLY_LARGER: Final = 1.2  # ... is worth a new thumbnail: so a face that comes nearer costs a few, not hundreds
_COLUMNS: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A suspicious moment of a clip.

    Attributes:
        pts_s: presentation time in seconds.
        track: id of the face.
        p_frame: its score in this very frame, 0..1.
        crop: uint8 RGB (S, S, 3), the face as the model saw it; S is the card's input size.
        view: uint8 RGB (h, w, 3), the face and what is around it; the longer side is :data:`VIEW_PX`.
    """

    pts_s: float
    track: int
    p_frame: float
    crop: UInt8Array
    view: UInt8Array


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """A suspicious moment, with what drove its score.

    Attributes:
        moment: when, who, how suspicious, and its pictures.
        heat: uint8 RGB (h, w, 3), the crop with the parts that drove the score (:func:`detector.explain.heat_picture`).
        region: the part that spoke most for fake, in words (:func:`detector.explain.region_name`).
    """

    moment: Moment
    heat: UInt8Array
    region: str


def explained(moment: Moment, model: Model) -> Explained:
    """What drove the score of a moment; takes as long as some 50 frames.

    Args:
        moment: of a clip that ``model`` scored.
        model: the very one.
    """
    heat = occlusion_map(model.scorer, moment.crop)
    return Explained(moment, heat_picture(moment.crop, heat), region_name(heat, model.card.crop_margin))


class Evidence(Closing):
    """Keeps what explains a clip, in memory that does not grow with its length. A :class:`~pipelines.sinks.Sink`.

    **Moments.** Of every whole second of the clip, the frame and face with the highest score of that very frame is a
    candidate (the earlier of equals); faces that were not scored in the frame, or with a flaw, are passed over. Of the
    candidates the highest are chosen, at least a second apart, whatever the verdict: of a clip called REAL they are
    the most suspicious moments all the same.

    **Thumbnails.** The face in a frame where it was scored without a flaw (so it is sharp, lit and turned to the
    camera), as large as it gets, within 20 %; where there is no such frame, in one where it was scored at all, or seen.

    A second clip takes the place of the first.

    Args:
        card: of the model that scores, or the first of several.
        moments: how many to choose, at least 1.

    Raises:
        ValueError: ``moments`` is below 1.
    """

    def __init__(self, card: ModelCard, moments: int = 3) -> None:
        if moments < 1:
            raise ValueError(f"moments is at least 1, got {moments}")
        self._card = card
        self._wanted = moments
        self._restart()

    def begin(self, path: str, info: SourceInfo) -> None:  # noqa: ARG002  (the seam's; nothing here has a name)
        """Forgets the clip before."""
        self._restart()

    def write(self, result: FrameResult) -> None:
        """Takes one result; what is kept of its frame is copied."""
        self._timeline.add(result)
        self._candidates.enter(result.frame.pts_ns // NS_PER_S)
        for face in result.verdict.faces:
            if face.p_frame is not None and face.flaw is None and self._candidates.wants(face.p_frame):
                self._candidates.take(self._moment(result, face, face.p_frame))
            self._show(result.frame.bgr, face)

    def close(self) -> None:
        """Nothing to commit: what was kept stays."""

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The most suspicious moments so far, in order of time."""
        return self._candidates.chosen()

    @property
    def thumbnails(self) -> dict[int, UInt8Array]:
        """By track, uint8 RGB (128, 128, 3); of at most 64 faces, the clearest."""
        return {track: picture for track, (_, picture) in sorted(self._thumbnails.items())}

    @property
    def timeline(self) -> Timeline:
        """p(fake) and label over the clip so far."""
        return self._timeline

    def _restart(self) -> None:
        thresholds = self._card.thresholds
        self._timeline = Timeline(thresholds.real_below, thresholds.fake_above, columns=_COLUMNS)
        self._candidates = _Candidates(self._wanted)
        self._thumbnails: dict[int, tuple[tuple[int, float], UInt8Array]] = {}

    def _moment(self, result: FrameResult, face: FaceVerdict, p_frame: float) -> Moment:
        bgr, box = result.frame.bgr, np.array([face.xyxy], np.float32)  # (1, 4)
        crop = crop_faces(bgr, box, self._card.input_size, self._card.crop_margin)[0]
        return Moment(result.frame.pts_ns / NS_PER_S, face.track, p_frame, crop, _view(bgr, box[0]))

    def _show(self, bgr: UInt8Array, face: FaceVerdict) -> None:
        """Makes this frame's picture of the face its thumbnail if it is clearly better than the one there is."""
        rank = _rank(face, bgr.shape[1], bgr.shape[0])
        if face.track in self._thumbnails:
            (kind, size), _ = self._thumbnails[face.track]
            if rank <= (kind, size * _CLEARLY_LARGER):
                return
        elif len(self._thumbnails) == _MOST_THUMBNAILS:
            worst = min(self._thumbnails, key=lambda track: self._thumbnails[track][0])
            if rank <= self._thumbnails[worst][0]:
                return
            del self._thumbnails[worst]
        box = np.array([face.xyxy], np.float32)
        self._thumbnails[face.track] = rank, crop_faces(bgr, box, THUMBNAIL_PX, _THUMBNAIL_MARGIN)[0]


class _Candidates:
    """The best moment of every second, as many of them as the choice can depend on.

    A chosen moment rules out at most two others, those of the seconds beside its own. So ``n`` choices depend on the
    best ``3 n - 2`` candidates only, and the result is the one that keeping all of them would give.
    """

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._kept: list[Moment] = []  # best first
        self._second = -1
        self._best: Moment | None = None  # of the second under way

    def enter(self, second: int) -> None:
        """The moments that follow are of this whole second of the clip."""
        if second != self._second:
            self._kept, self._second, self._best = self._ranked(), second, None

    def wants(self, p_frame: float) -> bool:
        """Whether a moment of the second under way with this score would be kept."""
        if self._best is not None:
            return p_frame > self._best.p_frame
        return len(self._kept) < 3 * self._wanted - 2 or p_frame > self._kept[-1].p_frame

    def take(self, moment: Moment) -> None:
        """Makes it the best of the second under way."""
        self._best = moment

    def chosen(self) -> tuple[Moment, ...]:
        """The highest, at least a second apart, in order of time."""
        chosen: list[Moment] = []
        for moment in self._ranked():
            apart_s = min((abs(moment.pts_s - other.pts_s) for other in chosen), default=math.inf)
            if len(chosen) < self._wanted and round(apart_s, 6) >= 1.0:
                chosen.append(moment)
        return tuple(sorted(chosen, key=lambda moment: moment.pts_s))

    def _ranked(self) -> list[Moment]:
        """Best first, the earlier of equals before the later."""
        every = self._kept if self._best is None else [*self._kept, self._best]
        return sorted(every, key=lambda moment: (-moment.p_frame, moment.pts_s))[: 3 * self._wanted - 2]


def _rank(face: FaceVerdict, width: int, height: int) -> tuple[int, float]:
    """How well a frame shows a face: how it was judged in it, then the side in px of what is inside the picture."""
    kind = 0 if face.p_frame is None else 1 if face.flaw is not None else 2
    left, top, right, bottom = face.xyxy
    inside = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(bottom, height) - max(top, 0.0))
    return kind, math.sqrt(inside)


def _view(bgr: UInt8Array, box: Float32Array) -> UInt8Array:
    """A face with what is around it, uint8 RGB, its longer side ``VIEW_PX``: a square, moved and cut to the picture."""
    height, width = bgr.shape[:2]
    side = max(1.0, _VIEW_MARGIN * float(max(box[2] - box[0], box[3] - box[1])))
    left, right = _span(float(box[0] + box[2]) / 2, side, width)
    top, bottom = _span(float(box[1] + box[3]) / 2, side, height)
    part = bgr[top:bottom, left:right]
    scale = VIEW_PX / max(part.shape[:2])
    size_wh = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    resized = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return cast(UInt8Array, cv2.cvtColor(resized, cv2.COLOR_BGR2RGB))


def _span(centre: float, side: float, limit: int) -> tuple[int, int]:
    """From and to, px in 0..``limit``: ``side`` long around ``centre``, moved inside, and cut if need be."""
    length = min(limit, max(1, round(side)))
    start = min(max(0, round(centre - length / 2)), limit - length)
    return start, start + length
