"""Faces that nobody has: smooth pictures with a face mesh in the middle, as samples and shards."""

import cv2
import numpy as np

from detector.training.landmarks import POINTS
from detector.training.regions import BROWS, JAW, LIPS, OVAL
from detector.training.samples import FaceSample, Origin, write_shard


def make_points(centre_xy=(120.0, 120.0), side=120.0, seed=0):
    """468 points: the oval, brows, jaw and lips where a face has them, the rest scattered between, float32."""
    random = np.random.default_rng(seed)
    points = random.uniform(-0.3, 0.3, (POINTS, 2))
    angles = np.linspace(-np.pi / 2, 1.5 * np.pi, len(OVAL), endpoint=False)
    points[list(OVAL)] = 0.5 * np.stack([0.8 * np.cos(angles), np.sin(angles)], axis=1)
    points[list(JAW)] = 0.5 * np.stack(
        [0.8 * np.cos(np.linspace(0, np.pi, len(JAW))), np.sin(np.linspace(0, np.pi, len(JAW)))], axis=1
    )
    points[list(BROWS)] = np.stack([np.linspace(-0.3, 0.3, len(BROWS)), np.full(len(BROWS), -0.2)], axis=1)
    around = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    points[list(LIPS)] = np.stack([0.15 * np.cos(around), 0.25 + 0.07 * np.sin(around)], axis=1)
    return (points * side + centre_xy).astype(np.float32)


def make_rgb(size_wh=(240, 240), seed=0):
    """A smooth picture with some grain, uint8 RGB."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(40, 215, (6, 6, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)
    return (smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)


def make_origin(medium="a.png", *, fake=False, method=None, source="set", who=("p",), frame=0):
    return Origin(medium, frame, fake, method or ("swap" if fake else "real"), source, tuple(who))


def make_sample(seed=0, **origin):
    xyxy = np.array([60, 60, 180, 180], np.float32)
    return FaceSample(make_rgb(seed=seed), xyxy, make_points(seed=seed), make_origin(**origin))


def write_store(folder, reals=6, fakes=3):
    """Two shards: real faces of ``reals`` people, and fakes of the first of them."""
    real = [make_sample(i, medium=f"real{i}.png", who=(f"p{i}",), source="ab"[i % 2]) for i in range(reals)]
    fake = [make_sample(50 + i, medium=f"fake{i}.png", fake=True, who=(f"p{i}",)) for i in range(fakes)]
    write_shard(folder / "shard-00000.tar", real)
    if fake:
        write_shard(folder / "shard-00001.tar", fake)
    return folder
