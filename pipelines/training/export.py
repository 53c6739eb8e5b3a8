"""``tellframe export``: a checkpoint -> a float model with its card, checked against torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from compression.export import P_FAKE, export_core, finish, halve, verify
from detector.card import ModelCard, Thresholds, checksum
from detector.training.backbone import load_checkpoint
from detector.types import UsageError
from pipelines.atomic import refuse_input, writable
from pipelines.carded import card_path, write_model

UNCALIBRATED = Thresholds(0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked; see ``tellframe export --help``."""

    checkpoint: str
    out: str
    size: int
    margin: float
    trained_on: tuple[str, ...]
    licence: str


def export_command(plan: Plan) -> None:
    """Writes model and card, and says how far the model is from torch.

    Raises:
        UsageError: ``plan.out`` is no .onnx file name, or the size no multiple of 32.
        ModelError: the checkpoint is missing or damaged, or the exported model differs from it.
        OutputError: a file cannot be written.
    """
    out = Path(plan.out)
    if out.suffix != ".onnx":
        raise UsageError(f"--out is an .onnx file, got {plan.out!r}")
    if plan.size % 32:
        raise UsageError(f"--size is a multiple of 32, got {plan.size}")
    refuse_input(out, plan.checkpoint)
    for path in (out, card_path(out)):
        writable(path)
    backbone = load_checkpoint(Path(plan.checkpoint))
    model = halve(finish(export_core(backbone, plan.size, fold=False)))
    difference = verify(backbone, model, plan.size)
    content = model.SerializeToString(deterministic=True)
    card = ModelCard(
        name=re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_") or "model",
        kind="dense",
        file=out.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        input_size=plan.size,
        crop_margin=plan.margin,
        thresholds=UNCALIBRATED,
        trained_on=plan.trained_on,
        measured={
            "largest_difference_from_torch": {
                "crops": difference.crops,
                P_FAKE: difference.p_fake,
                "logit": difference.logit,
            }
        },
        policy={},
        licence=plan.licence,
        origin=f"tellframe export {Path(plan.checkpoint).name} (SHA-256 {checksum(Path(plan.checkpoint))}), "
        f"onnxruntime {version('onnxruntime')}",
    )
    write_model(out, content, card)
    print(f"{out}: {card.bytes / 1e6:.2f} MB, p(fake) within {difference.p_fake:.1e} of torch")  # noqa: T201
    print("its thresholds are 0.5 until `tellframe calibrate` sets them")  # noqa: T201
