"""Where a compression of the detector starts: the float weights of a checkpoint, or of one of our own ONNX files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from detector.card import ModelCard, checksum
from detector.models import find
from detector.training.backbone import EfficientNetLite, load_checkpoint
from detector.training.scorer import RUN_TIME_MARGIN
from detector.types import ModelError

_HALF = "_half"
"""What :func:`compression.export.halve` puts behind the names of weights that it stores as fp16."""


@dataclass(frozen=True, slots=True)
class Start:
    """The dense detector.

    Attributes:
        network: in eval mode.
        card: its card; None for a checkpoint.
        name: of its file.
        sha256: of its file.
    """

    network: EfficientNetLite
    card: ModelCard | None
    name: str
    sha256: str

    @property
    def margin(self) -> float:
        """Crop margin that it was made for."""
        return RUN_TIME_MARGIN if self.card is None else self.card.crop_margin


def dense_detector(start: str) -> Start:
    """The dense network that ``start`` names: a checkpoint (.pt), a float .onnx of ours, or a shipped model.

    Raises:
        ModelError: it is missing, damaged, quantised, or of another architecture.
    """
    if start.endswith((".pt", ".pth")):
        path = Path(start)
        return Start(load_checkpoint(path), None, path.name, checksum(path))
    stored = find(start)
    return Start(weights_of_onnx(stored.path), stored.card, stored.path.name, stored.card.sha256)


def weights_of_onnx(path: Path) -> EfficientNetLite:
    """The backbone whose weights are the initialisers of a float model that ``tellframe export`` wrote.

    Its temperature, which calibration puts in as a factor of the logit, is left out.

    Raises:
        ModelError: the file cannot be read, or its weights are not those of the backbone (folded, quantised).
    """
    try:
        initialisers = onnx.load(path).graph.initializer
    except Exception as error:  # protobuf's own
        raise ModelError(f"{path}: cannot be read as ONNX ({' '.join(str(error).split())})") from error
    stored = {t.name.removesuffix(_HALF): t for t in initialisers}
    network = EfficientNetLite()
    state: dict[str, Tensor] = {}
    for name, wanted in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in stored:
            raise ModelError(
                f"{path} has no weights called {name}: it is quantised, pruned or of another architecture; "
                "start from a float model of `tellframe export`, or from the checkpoint"
            )
        value = torch.from_numpy(np.array(numpy_helper.to_array(stored[name]), np.float32))
        if value.shape != wanted.shape or not torch.isfinite(value).all():
            raise ModelError(f"{path}: {name} is {tuple(value.shape)}, needs finite values {tuple(wanted.shape)}")
        state[name] = value
    network.load_state_dict(state, strict=False)
    return network.eval()
