"""Stand-ins for the detector's seams, a few lines each, and the values that its tests are made of."""

import numpy as np

from detector.card import ModelCard, Thresholds
from detector.types import NS_PER_S, Faces, FaceVerdict, Frame, Label, Reason, SourceCounts, SourceInfo

THRESHOLDS = Thresholds(real_below=0.3, fake_above=0.7)

# Where a frontal face has its keypoints, in units of its box: eyes, nose tip, mouth centre, ears.
_FRONTAL = np.array([(0.3, 0.35), (0.7, 0.35), (0.5, 0.55), (0.5, 0.75), (0.05, 0.4), (0.95, 0.4)], np.float32)


def make_card(**changes):
    """A card of a small model that exists nowhere."""
    values = {
        "name": "double",
        "kind": "dense",
        "file": "double.onnx",
        "sha256": "0" * 64,
        "bytes": 1,
        "input_size": 64,
        "crop_margin": 1.3,
        "thresholds": THRESHOLDS,
        "trained_on": (),
        "measured": {},
        "policy": {},
        "licence": "Apache-2.0",
        "origin": "test",
    }
    return ModelCard(**values | changes)


def make_faces(*boxes):
    """Frontal faces with these landmark boxes (xyxy), equally sure."""
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    wh = xyxy[:, 2:] - xyxy[:, :2]
    keypoints = xyxy[:, None, :2] + _FRONTAL * wh[:, None]
    return Faces(xyxy, keypoints.astype(np.float32), np.full(len(xyxy), 0.9, np.float32))


def square(x, y, side=100.0):
    """A box by its top left corner."""
    return (x, y, x + side, y + side)


def make_frame(index, *, fps=30.0, bgr=None, pts_ns=None, size_wh=(640, 360)):
    """Frame ``index`` of a clip of noise: sharp and lit, so that no quality check objects."""
    if bgr is None:
        bgr = noise(size_wh)
    pts_ns = round(index * NS_PER_S / fps) if pts_ns is None else pts_ns
    return Frame(bgr, index, pts_ns, captured_ns=pts_ns)


def noise(size_wh=(640, 360), seed=0):
    """uint8 (H, W, 3), always the same."""
    return np.random.default_rng(seed).integers(60, 200, (size_wh[1], size_wh[0], 3), np.uint8)


def make_verdict(p_frame=0.5, *, track=1, label=Label.UNSURE, reason=Reason.BETWEEN, p_fake=None, flaw=None, box=None):
    """What is said of one face in one frame; ``p_fake`` is ``p_frame`` unless given."""
    p_fake = p_frame if p_fake is None else p_fake
    return FaceVerdict(track, box or square(10, 20), label, reason, p_fake, p_frame, flaw)


class ScriptedFinder:
    """Finds what ``script(frame)`` says: boxes, or Faces. Remembers the indices of the frames it was asked about."""

    def __init__(self, script):
        self._script = script
        self.asked = []

    def find(self, frame):
        self.asked.append(frame.index)
        found = self._script(frame)
        return found if isinstance(found, Faces) else make_faces(*found)

    def restart(self):
        self.asked.clear()

    def close(self):
        pass


class ScriptedScorer:
    """Gives every crop ``p``, a number or a function of the crop; remembers how many crops came each time."""

    def __init__(self, p=0.5):
        self._p = p if callable(p) else lambda _: p
        self.batches = []

    def score(self, crops):
        self.batches.append(len(crops))
        return np.array([self._p(crop) for crop in crops], np.float32)


class FilmSource:
    """A source of given frames; ``error`` is raised after the last one."""

    def __init__(self, frames, *, name="film", live=False, fps=30.0, error=None, open_error=None):
        self.live = live
        self.info = SourceInfo(name, fps=fps)
        self.counts = SourceCounts()
        self.stopped = False
        self.open = False
        self._frames, self._error, self._open_error = frames, error, open_error

    def __enter__(self):
        if self._open_error is not None:
            raise self._open_error
        self.open = True
        return self

    def __exit__(self, *_):
        self.open = False

    def __iter__(self):
        for frame in self._frames:
            if self.stopped:
                return
            yield frame
        if self._error is not None:
            raise self._error

    def stop(self):
        self.stopped = True


class ListSink:
    """Keeps what it is given; ``trouble(n)`` is called before the n-th result of all (from 1) is taken."""

    def __init__(self, trouble=lambda _: None):
        self.begun = []
        self.results = []
        self._trouble = trouble

    def begin(self, path, info):
        self.begun.append((path, info))

    def write(self, result):
        self._trouble(len(self.results) + 1)
        self.results.append(result)

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
