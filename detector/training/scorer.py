"""A checkpoint as the run time sees a model: it is evaluated through the same pipeline before it is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from detector.card import ModelCard, Thresholds, checksum
from detector.training.backbone import PixelsToProbability, load_checkpoint
from detector.types import Float32Array, UInt8Array

RUN_TIME_MARGIN = 1.2
"""Crop margin of a model that has no card yet; training draws margins around it."""


class TorchScorer:
    """A state dict of the backbone (a :class:`~detector.types.Scorer`), with a card of what is known of it.

    Its thresholds are 0.5: it is not calibrated.

    Args:
        path: the checkpoint.
        size: side of the crops, px.
        threads: of torch, in this process; its choice when None.

    Raises:
        ModelError: it is missing, damaged, or of another architecture.
    """

    def __init__(self, path: Path, size: int = 256, threads: int | None = None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        backbone = load_checkpoint(path).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model = PixelsToProbability(backbone).eval()
        self._size = size
        self.card = ModelCard(
            name="checkpoint",
            kind="dense",
            file="checkpoint.onnx",
            sha256=checksum(path),
            bytes=path.stat().st_size,
            input_size=size,
            crop_margin=RUN_TIME_MARGIN,
            thresholds=Thresholds(0.5, 0.5),
            trained_on=(),
            measured={},
            policy={},
            licence="that of its data",
            origin=str(path),
        )

    def score(self, crops: UInt8Array) -> Float32Array:
        """p(fake), float32 (n,) in 0..1, of uint8 RGB ``crops`` (n, S, S, 3)."""
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (self._size, self._size, 3):
            raise ValueError(f"crops must be uint8 (n, {self._size}, {self._size}, 3), got {crops.dtype} {crops.shape}")
        with torch.inference_mode():
            p_fake: Float32Array = self._model(torch.from_numpy(crops)).numpy()
        return p_fake
