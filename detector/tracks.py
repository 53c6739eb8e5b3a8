"""Follows faces from frame to frame: which box is which person, and where a face is between two looks. Pure.

Boxes are matched by overlap with where each track is expected (constant velocity), greedily from the best pair, as
in IoU tracking (Bochinski et al., "High-speed tracking-by-detection without using image information", 2017); two
people's boxes rarely overlap, so an optimal assignment buys nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.geometry import iou
from detector.types import NS_PER_MS, NS_PER_S, Faces, Float32Array, IntArray

_MIN_IOU = 0.3  # a box that overlaps less with where a track is expected is another face
_SURE_IOU = 0.8  # a prediction this good needs no look at every frame
_SURE_AFTER = 3  # ... once it has been so good this many looks in a row
_GLIDE_NS = 150 * NS_PER_MS  # how long a velocity is trusted without a look
_SETTLE_S = 1 / 15  # looks this far apart make half of the velocity; nearer ones less: their jitter weighs more
_LONGEST_NS = 5 * NS_PER_S  # whoever sits there after that need not be the same person, however rare the looks


@dataclass(slots=True)
class _Track:
    """One followed face; ``velocity`` is of the box's four sides in px a second."""

    id: int
    xyxy: Float32Array
    keypoints: Float32Array
    confidence: float
    seen_ns: int
    velocity: Float32Array
    good_predictions: int = 0

    def expected_at(self, pts_ns: int) -> Float32Array:
        """Where the box should be at ``pts_ns``, xyxy float32 (4,)."""
        ahead_s = min(pts_ns - self.seen_ns, _GLIDE_NS) / NS_PER_S
        return self.xyxy + self.velocity * np.float32(ahead_s)

    def see(self, face: Faces, pts_ns: int) -> None:
        """Moves the track onto ``face`` (one face)."""
        xyxy = face.xyxy[0]
        good = iou(self.expected_at(pts_ns)[None], xyxy[None])[0, 0] >= _SURE_IOU
        self.good_predictions = self.good_predictions + 1 if good else 0
        elapsed_s = max(pts_ns - self.seen_ns, 1) / NS_PER_S
        # The box of a still face jitters by a few px from look to look: a new velocity counts for half at the most.
        share = min(0.5, elapsed_s / _SETTLE_S)
        self.velocity += np.float32(share) * ((xyxy - self.xyxy) / np.float32(elapsed_s) - self.velocity)
        self.xyxy, self.keypoints = xyxy, face.keypoints[0]
        self.confidence, self.seen_ns = float(face.confidence[0]), pts_ns


class Tracker:
    """Gives every face an id that lasts.

    Args:
        forget_ms: a track that looks have missed for longer (presentation time) is over; its id is never used again.
        look_ms: with sure tracks, how long :meth:`needs_look` lets the face finder rest. A new face is found within
            this time plus a frame.
    """

    def __init__(self, forget_ms: float = 600.0, look_ms: float = 100.0) -> None:
        self._forget_ns = round(forget_ms * NS_PER_MS)
        self._look_ns = round(look_ms * NS_PER_MS)
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._looked_ns: int | None = None

    def needs_look(self, pts_ns: int) -> bool:
        """Whether the face finder must run on the frame at ``pts_ns``: unless every track is sure and a look recent."""
        if self._looked_ns is None or not self._tracks or pts_ns - self._looked_ns >= self._look_ns:
            return True
        return any(t.good_predictions < _SURE_AFTER or t.seen_ns != self._looked_ns for t in self._tracks)

    def update(self, faces: Faces, pts_ns: int) -> IntArray:
        """Takes what was found at ``pts_ns``; returns the track id of each face, int64 (n,)."""
        # A track that the last look saw has missed nothing, however long ago that was.
        self._tracks = [
            t
            for t in self._tracks
            if pts_ns - t.seen_ns <= (_LONGEST_NS if t.seen_ns == self._looked_ns else self._forget_ns)
        ]
        self._looked_ns = pts_ns
        ids = np.zeros(len(faces), np.int64)
        for track, face in _pairs(self._tracks, faces, pts_ns):
            track.see(faces[face : face + 1], pts_ns)
            ids[face] = track.id
        for new in np.flatnonzero(ids == 0).tolist():
            ids[new] = self._begin(faces[new : new + 1], pts_ns)
        return ids

    def expected(self, pts_ns: int) -> tuple[Faces, IntArray]:
        """Without a look: the faces of the last look where they should be now, and their track ids, int64 (n,)."""
        current = [t for t in self._tracks if t.seen_ns == self._looked_ns]
        if not current:
            return Faces.empty(), np.zeros(0, np.int64)
        xyxy = np.stack([t.expected_at(pts_ns) for t in current])
        shift = [(box - t.xyxy).reshape(2, 2).mean(axis=0) for box, t in zip(xyxy, current, strict=True)]
        keypoints = np.stack([t.keypoints + move for t, move in zip(current, shift, strict=True)])
        confidence = np.array([t.confidence for t in current], np.float32)
        faces = Faces(xyxy.astype(np.float32), keypoints.astype(np.float32), confidence)
        return faces, np.array([t.id for t in current], np.int64)

    def alive(self) -> frozenset[int]:
        """Ids of the tracks that may still be seen again."""
        return frozenset(t.id for t in self._tracks)

    def _begin(self, face: Faces, pts_ns: int) -> int:
        track = _Track(
            self._next_id, face.xyxy[0], face.keypoints[0], float(face.confidence[0]), pts_ns, np.zeros(4, np.float32)
        )
        self._tracks.append(track)
        self._next_id += 1
        return track.id


def _pairs(tracks: list[_Track], faces: Faces, pts_ns: int) -> list[tuple[_Track, int]]:
    """Greedy one-to-one matches of tracks and faces, best overlap first."""
    if not tracks or not len(faces):
        return []
    expected = np.stack([t.expected_at(pts_ns) for t in tracks])  # (t, 4)
    overlap = iou(expected, faces.xyxy)  # (t, n)
    pairs = []
    while overlap.max() >= _MIN_IOU:
        track, face = divmod(int(overlap.argmax()), len(faces))
        pairs.append((tracks[track], face))
        overlap[track, :] = 0
        overlap[:, face] = 0
    return pairs
