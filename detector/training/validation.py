"""How good a network is while it trains: scores on prepared faces that training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.crop import crop_faces
from detector.training.backbone import PixelsToProbability
from detector.training.samples import FaceSample, SampleStore
from detector.types import NothingToAnalyseError, UInt8Array


@dataclass(frozen=True, slots=True)
class Score:
    """One look at one validation set; a medium is a picture or a clip, with the mean log-odds of its faces.

    Attributes:
        auc: of media: the probability that a fake scores above a real one.
        real_mean, fake_mean: mean p(fake) of media, 0..1.
    """

    auc: float
    real_mean: float
    fake_mean: float


class ValidationSet:
    """Crops of prepared faces, in memory.

    Attributes:
        name: of its folder.
        damaged: shards that could not be read to their end.

    Args:
        folder: of shards.
        size: side of the crops, px.
        margin: of the crops.

    Raises:
        NothingToAnalyseError: a class has no samples.
    """

    def __init__(self, folder: Path, size: int, margin: float) -> None:
        store = SampleStore(folder)
        self.name = str(folder)
        self.damaged = store.damaged
        fake = np.array([origin.fake for origin in store.origins])
        if fake.all() or not fake.any():
            raise NothingToAnalyseError(
                f"{folder}: holds {'no real' if fake.all() else 'no fake'} face; validation needs both"
            )
        self._crops = np.concatenate([run_time_crop(sample, size, margin) for sample in store])
        names = [f"{origin.fake}/{origin.method}/{origin.source}/{origin.medium}" for origin in store.origins]
        _, first, self._medium = np.unique(names, return_index=True, return_inverse=True)
        self._fake = fake[first]  # (media,)

    def score(self, backbone: nn.Module, device: torch.device, batch: int) -> Score:
        """What ``backbone`` makes of the set."""
        logits = logits_of(backbone, self._crops, device, batch)
        media = np.bincount(self._medium, logits) / np.bincount(self._medium)  # (media,)
        real, fake = media[~self._fake], media[self._fake]
        above = (fake[:, None] > real).mean() + 0.5 * (fake[:, None] == real).mean()
        return Score(float(above), float(_sigmoid(real).mean()), float(_sigmoid(fake).mean()))


def run_time_crop(sample: FaceSample, size: int, margin: float) -> UInt8Array:
    """The crop of a sample as the detector cuts it at run time: uint8 RGB (1, size, size, 3)."""
    bgr = cast(UInt8Array, cv2.cvtColor(sample.rgb, cv2.COLOR_RGB2BGR))
    return crop_faces(bgr, sample.xyxy[None], size, margin)


def logits_of(backbone: nn.Module, crops: UInt8Array, device: torch.device, batch: int) -> NDArray[np.float64]:
    """The logits, float64 (n,), of uint8 RGB crops (n, S, S, 3); ``backbone`` is left in the mode it was in."""
    was_training = backbone.training
    backbone.eval()
    model = PixelsToProbability(backbone)
    parts: list[Tensor] = []
    with torch.inference_mode():
        for at in range(0, len(crops), batch):
            parts.append(model.logit(torch.from_numpy(crops[at : at + batch]).to(device)).float().cpu())
    backbone.train(was_training)
    return torch.cat(parts).numpy().astype(np.float64)


def mean_auc(scores: Sequence[Score]) -> float:
    """What the best checkpoint is chosen by: the mean over validation sets, each of which counts alike."""
    return float(np.mean([score.auc for score in scores]))


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logit)), np.float64)
