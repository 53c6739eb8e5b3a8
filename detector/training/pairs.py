"""Shards -> pairs of a real face and a fake of it, ready for the network.

Pair number ``i`` is a function of the seed and ``i`` alone, whichever worker makes it: a run that was stopped goes on
with exactly the pairs that it had not yet seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, cast

import cv2
import numpy as np

from detector.crop import crop_faces
from detector.training.codec import jpeg
from detector.training.landmarks import POINTS, roll_of
from detector.training.processing import Processing
from detector.training.pseudofakes import FROM_ONE_FACE, FROM_TWO_FACES
from detector.training.samples import CONTEXT, FaceSample, SampleStore
from detector.types import Float32Array, NothingToAnalyseError, TellframeError, UInt8Array, UsageError

KINDS = (*FROM_ONE_FACE, "swap", "given", "paste")
"""How a fake comes about; ``given``: it is in the shards as it is. Logs go by the order: new ones come last."""
_CANDIDATES = 24  # faces among which a swap takes the donor whose shape is nearest
_LARGEST_FACE_PX = 300.0
"""A face is shrunk to at most this before it is forged: crops show it at about 210 px, and the work grows with area."""
_GENTLE = 0.25
"""What is left of the strength of camera and platform where they are gentle."""

# A paste is made as the pictures of OpenForensics are: photographs of groups, hardly processed, published as JPEG.
_PASTE_GENTLE = 0.8  # share that is processed gently
_PASTE_FAKE_DONORS = 0.55  # share whose donor is the fake face of the nearest shape among a few
_PASTE_CANDIDATES = 12  # these few
_PASTE_FACE_PX = (70.0, 200.0)  # a face in a group
_PASTE_JPEG = 0.8  # share that ends as a JPEG
_PASTE_JPEG_QUALITY = (60, 95)


@dataclass(frozen=True, slots=True)
class Mix:
    """What pairs are made of.

    Attributes:
        size: side of the crops, px.
        margin: range of the crop margin; the run-time one lies inside.
        shift: largest shift of the crop, as a share of the face.
        kinds: weight of each way to a fake (:data:`KINDS`); missing ones are not used.
        sources: weight of each source of real faces; a source that is not named weighs as many as its samples.
        fake_donors: the share of swaps whose donor is one of the fakes in the shards (generated faces, say), 0..1.
        processing: strength of camera and platform, 0..1.
        gentle: the share of pairs that camera and platform process at a quarter of that strength, 0..1; of ``paste``
            it is always four fifths.
    """

    size: int = 256
    margin: tuple[float, float] = (1.05, 1.45)
    shift: float = 0.06
    kinds: Mapping[str, float] = field(
        default_factory=lambda: {"self_blend": 0.5, "swap": 0.2, "reenact": 0.2, "reconstruct": 0.05, "given": 0.05}
    )
    sources: Mapping[str, float] = field(default_factory=dict)
    fake_donors: float = 0.2
    processing: float = 1.0
    gentle: float = 0.0

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(KINDS)
        if unknown:
            raise UsageError(f"no kind of fake is called {', '.join(sorted(unknown))}; there are: {', '.join(KINDS)}")
        if not sum(self.kinds.values()) > 0 or min(self.kinds.values()) < 0:
            raise UsageError(f"the weights of the kinds of fakes must not be negative, nor all 0, got {self.kinds}")
        widest = CONTEXT / 2 - self.shift  # further out a sample holds nothing
        if len(self.margin) != 2 or not 1.0 <= self.margin[0] <= self.margin[1] <= 2 * widest:
            raise UsageError(
                f"margin must be a range from 1 up, to {2 * widest:g} with a shift of {self.shift:g}, got {self.margin}"
            )
        for name, high in (("shift", 0.4), ("fake_donors", 1.0), ("processing", 1.0), ("gentle", 1.0)):
            if not 0.0 <= getattr(self, name) <= high:
                raise UsageError(f"{name} must be in 0..{high:g}, got {getattr(self, name)}")
        if not 32 <= self.size <= 1024:
            raise UsageError(f"size must be in 32..1024 px, got {self.size}")


class Pair(NamedTuple):
    """A real face and a fake: crops uint8 RGB (2, S, S, 3), real first; how it was made; the samples it failed on."""

    crops: UInt8Array
    kind: int
    failed: tuple[str, ...]


class PairMaker:
    """Makes pairs (a map-style data set for torch's loaders, without needing torch).

    Args:
        store: the samples; fakes among them are used as ``given``.
        mix: what to make.
        seed: of all draws.
        length: how many pairs there are.

    Raises:
        NothingToAnalyseError: there is no real face.
    """

    def __init__(self, store: SampleStore, mix: Mix, seed: int, length: int) -> None:
        self._store, self._mix, self._seed, self._length = store, mix, seed, length
        fake = np.array([origin.fake for origin in store.origins])
        self._real, self._given = np.flatnonzero(~fake), np.flatnonzero(fake)
        if not len(self._real):
            raise NothingToAnalyseError("the shards hold no real face; pseudo-fakes are made from real faces")
        self._odds = _source_odds([store.origins[i].source for i in self._real], mix.sources)
        self._kinds = [k for k in mix.kinds if mix.kinds[k] > 0 and (k != "given" or len(self._given))]
        if len({origin.identities for origin in store.origins}) < 2:  # one person is nobody's donor
            self._kinds = [kind for kind in self._kinds if kind not in FROM_TWO_FACES]
        if not self._kinds:
            raise UsageError(f"the shards hold nothing that {', '.join(mix.kinds)} can be made of; name other kinds")
        weights = np.array([mix.kinds[kind] for kind in self._kinds])
        self._kind_odds = weights / weights.sum()
        self._shapes = self._shapes_of(self._real) if not FROM_TWO_FACES.keys().isdisjoint(self._kinds) else None
        self._fake_shapes = self._shapes_of(self._given) if "paste" in self._kinds and len(self._given) else None
        self._given_by: dict[str, list[int]] = {}
        for i in self._given:
            for person in store.origins[i].identities:
                self._given_by.setdefault(person, []).append(int(i))

    def __len__(self) -> int:
        return self._length

    def _shapes_of(self, indices: Iterable[int]) -> Float32Array:
        """The shapes of some samples, float32 (n, 52, 2)."""
        return np.stack([self._shape_of(int(i)) for i in indices])

    def _shape_of(self, index: int) -> Float32Array:
        """See :func:`_shape`; of a damaged sample, which is told when it is drawn, a shape like no other."""
        try:
            return _shape(self._store.points(index))
        except TellframeError:
            return np.full((len(range(0, POINTS, 9)), 2), 1e3, np.float32)

    def __getitem__(self, number: int) -> Pair:
        """Pair ``number``. A damaged sample is replaced by another, and named in ``failed``."""
        return self.at_sizes(number, (self._mix.size,))[0]

    def at_sizes(self, number: int, sizes: Sequence[int]) -> list[Pair]:
        """Pair ``number``, forged once, as crops of each of ``sizes`` px: what networks of several inputs see of it."""
        rng = np.random.default_rng([self._seed, number])
        failed: list[str] = []
        while True:
            index = int(rng.choice(len(self._real), p=self._odds))
            kind = self._kinds[int(rng.choice(len(self._kinds), p=self._kind_odds))]
            try:
                forged = self._forge(index, kind, rng)
            except TellframeError as error:
                failed.append(str(error))
                if len(failed) >= 20:
                    raise
            else:
                return [Pair(forged.crops(size), KINDS.index(kind), tuple(failed)) for size in sizes]

    def _forge(self, index: int, kind: str, rng: np.random.Generator) -> _Forged:
        """Real sample ``index`` (among the real ones) and a fake of it, both after camera and platform."""
        sample = self._store[int(self._real[index])]
        view = _View.draw(self._mix, rng)
        window = view.window(sample)
        fake_xyxy = window.xyxy
        if kind in FROM_TWO_FACES:
            donor_index = self._paste_donor(index, rng) if kind == "paste" else self._donor(index, rng)
            donor = view.window(self._store[donor_index])
            real, fake = FROM_TWO_FACES[kind](window.rgb, window.points, donor.rgb, donor.points, rng)
        elif kind == "given":
            given = view.window(self._store[self._given_for(sample, rng)])
            real, fake, fake_xyxy = window.rgb, given.rgb, given.xyxy
        else:
            real, fake = FROM_ONE_FACE[kind](window.rgb, window.points, rng)
        forged = _Forged(view, real, window.xyxy, fake, fake_xyxy)
        if kind == "paste":
            forged = forged.shrunk(float(rng.uniform(*_PASTE_FACE_PX)))
        forged = forged.through(Processing.draw(rng, self._strength(kind, rng)).apply)
        if kind == "paste" and rng.random() < _PASTE_JPEG:
            quality = int(rng.integers(*_PASTE_JPEG_QUALITY, endpoint=True))
            forged = forged.through(partial(jpeg, quality=quality))
        return forged

    def _strength(self, kind: str, rng: np.random.Generator) -> float:
        """How strongly camera and platform process a pair. Without gentle ones nothing is drawn."""
        gentle = _PASTE_GENTLE if kind == "paste" else self._mix.gentle
        return self._mix.processing * (_GENTLE if gentle and rng.random() < gentle else 1.0)

    def _paste_donor(self, index: int, rng: np.random.Generator) -> int:
        """In about half of the pastes the fake face of the most similar shape among a few, else as for a swap."""
        assert self._shapes is not None  # made when swaps or pastes are in the mix
        if self._fake_shapes is not None and rng.random() < _PASTE_FAKE_DONORS:
            some = rng.choice(len(self._given), _PASTE_CANDIDATES)
            return int(self._given[some[_nearest(self._shapes[index], self._fake_shapes[some])]])
        return self._donor(index, rng)

    def _donor(self, index: int, rng: np.random.Generator) -> int:
        """Another person, whose face has the most similar shape among a few (as in Face X-ray); or a fake face."""
        assert self._shapes is not None  # made when swaps or pastes are in the mix
        if len(self._given) and rng.random() < self._mix.fake_donors:
            return int(rng.choice(self._given))
        ours = set(self._store.origins[self._real[index]].identities)
        candidates = rng.choice(len(self._real), _CANDIDATES, p=self._odds)
        others = self._others(candidates, ours) or self._others(range(len(self._real)), ours)
        if not others:
            return int(rng.choice(self._given)) if len(self._given) else int(self._real[index])
        return int(self._real[others[_nearest(self._shapes[index], self._shapes[others])]])

    def _others(self, candidates: Iterable[int], people: set[str]) -> list[int]:
        """Those of ``candidates`` (among the real ones) who are none of ``people``."""
        return [i for i in candidates if people.isdisjoint(self._store.origins[self._real[i]].identities)]

    def _given_for(self, sample: FaceSample, rng: np.random.Generator) -> int:
        """A fake of the same person where there is one, else any."""
        same = [self._given_by[p] for p in sample.origin.identities if p in self._given_by]
        return int(rng.choice([i for fakes in same for i in fakes] or self._given))


def _source_odds(sources: Sequence[str], weights: Mapping[str, float]) -> Float32Array:
    """The odds of every real sample, float64 (n,): a source shares its weight among its samples.

    Raises:
        UsageError: a weight names a source that is not there.
    """
    counts = Counter(sources)
    unknown = set(weights) - set(counts)
    if unknown:
        raise UsageError(
            f"no real faces come from {', '.join(sorted(unknown))}; there are: {', '.join(sorted(counts))}"
        )
    total = {name: weights.get(name, float(count)) for name, count in counts.items()}
    if not sum(total.values()) > 0 or min(total.values()) < 0:
        raise UsageError(f"the weights of the sources must not be negative, nor all 0, got {dict(weights)}")
    odds = np.array([total[name] / counts[name] for name in sources], np.float64)
    return cast(Float32Array, odds / odds.sum())


def _shape(points: Float32Array) -> Float32Array:
    """A face mesh without place, size and roll, for comparing shapes: every ninth point, float32 (52, 2)."""
    roll = roll_of(points)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]], np.float32)
    few = points[::9] @ turn
    centred = few - few.mean(axis=0)
    return cast(Float32Array, centred / np.sqrt((centred**2).sum()))


def _nearest(shape: Float32Array, others: Float32Array) -> int:
    """Which of ``others`` (k, 52, 2) is most like ``shape`` (52, 2)."""
    distance = ((others - shape) ** 2).sum(axis=(1, 2))  # (k,)
    return int(distance.argmin())


def _scaled(rgb: UInt8Array, scale: float) -> UInt8Array:
    return cast(UInt8Array, cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


class _Window(NamedTuple):
    """The part of a sample that is forged: pixels, box and points, after flip and scale."""

    rgb: UInt8Array
    xyxy: Float32Array
    points: Float32Array


@dataclass(frozen=True, slots=True)
class _View:
    """How both halves of a pair are looked at."""

    margin: float
    shift_xy: tuple[float, float]
    flip: bool

    @classmethod
    def draw(cls, mix: Mix, rng: np.random.Generator) -> _View:
        shift = rng.uniform(-mix.shift, mix.shift, 2)
        return cls(float(rng.uniform(*mix.margin)), (float(shift[0]), float(shift[1])), bool(rng.random() < 0.5))

    def window(self, sample: FaceSample) -> _Window:
        """The square around the face that the crop will need, mirrored and shrunk as the view says."""
        rgb, xyxy, points = sample.rgb, sample.xyxy.copy(), sample.points.copy()
        side = float((xyxy[2:] - xyxy[:2]).max())
        half = side * (self.margin / 2 + max(map(abs, self.shift_xy)) + 0.02)
        centre = (xyxy[:2] + xyxy[2:]) / 2
        low = np.maximum(np.floor(centre - half), 0).astype(int)
        high = np.ceil(centre + half).astype(int)
        rgb = rgb[low[1] : high[1], low[0] : high[0]]
        points = points - low.astype(np.float32)
        xyxy = xyxy - np.tile(low, 2).astype(np.float32)
        if self.flip:
            rgb, points = rgb[:, ::-1], points.copy()
            points[:, 0] = rgb.shape[1] - points[:, 0]
            xyxy = xyxy[[2, 1, 0, 3]] * (-1, 1, -1, 1) + (rgb.shape[1], 0, rgb.shape[1], 0)
        if side > _LARGEST_FACE_PX:
            scale = _LARGEST_FACE_PX / side
            rgb, points, xyxy = _scaled(rgb, scale), points * scale, xyxy * scale
        return _Window(np.ascontiguousarray(rgb), xyxy.astype(np.float32), points.astype(np.float32))

    def crop(self, rgb: UInt8Array, xyxy: Float32Array, size: int) -> UInt8Array:
        """uint8 RGB (1, size, size, 3), cut as at run time."""
        side = float((xyxy[2:] - xyxy[:2]).max())
        moved = xyxy + np.float32(side) * np.tile(np.array(self.shift_xy, np.float32), 2)
        bgr = cast(UInt8Array, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        return crop_faces(bgr, moved[None], size, self.margin)


@dataclass(frozen=True, slots=True)
class _Forged:
    """A real picture and its fake, uint8 RGB, with the face boxes, and how both are looked at."""

    view: _View
    real: UInt8Array
    real_xyxy: Float32Array
    fake: UInt8Array
    fake_xyxy: Float32Array

    def through(self, way: Callable[[UInt8Array], UInt8Array]) -> _Forged:
        """Both halves after the same processing."""
        return replace(self, real=way(self.real), fake=way(self.fake))

    def shrunk(self, face_px: float) -> _Forged:
        """With a real face of at most so many px, and the fake smaller by as much."""
        side = float((self.real_xyxy[2:] - self.real_xyxy[:2]).max())
        if side <= face_px:
            return self
        scale = face_px / side
        smaller = self.through(partial(_scaled, scale=scale))
        return replace(smaller, real_xyxy=self.real_xyxy * scale, fake_xyxy=self.fake_xyxy * scale)

    def crops(self, size: int) -> UInt8Array:
        """uint8 RGB (2, size, size, 3), real first."""
        real = self.view.crop(self.real, self.real_xyxy, size)
        return np.concatenate([real, self.view.crop(self.fake, self.fake_xyxy, size)])
