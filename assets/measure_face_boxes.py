"""Measures how the face models frame a face against the box of its 468 landmarks: the constants of detector/faces.py.

    python assets/measure_face_boxes.py PICTURE_OR_CLIP [...]

Takes pictures, and the first frame of clips, with one face each. Prints, for each face model, median and interquartile
range of the landmark box's centre and size, relative to the centre and the width of the model's square detection.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from assets.make_samples import FACE_MODELS, Landmarker
from detector.faces import Range
from detector.types import UInt8Array

COLUMNS = ("centre_dx", "centre_dy", "width", "height")


def first_picture(path: str) -> UInt8Array | None:
    """A picture, or the first frame of a clip, uint8 RGB (H, W, 3); None when it cannot be read."""
    bgr = cv2.imread(path)
    if bgr is None:
        bgr = cv2.VideoCapture(path).read()[1]
    return None if bgr is None else np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def relative_box(rgb: UInt8Array, model: vision.FaceDetector, landmarks: Landmarker) -> list[float] | None:
    """The landmark box in units of the detection (see COLUMNS); None unless just one face is found."""
    found = model.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb)).detections
    if len(found) != 1:
        return None
    try:
        points = landmarks(rgb)  # (468, 2)
    except ValueError:
        return None
    square = found[0].bounding_box
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2 - (square.origin_x + square.width / 2, square.origin_y + square.height / 2)
    return [float(value) / square.width for value in (*centre, *(high - low))]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("media", nargs="+")
    media = parser.parse_args().media
    with Landmarker() as landmarks:
        for which in Range:
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_path=str(Path(FACE_MODELS) / which.file))
            )
            with vision.FaceDetector.create_from_options(options) as model:
                pictures = (rgb for rgb in map(first_picture, media) if rgb is not None)
                boxes = [box for rgb in pictures if (box := relative_box(rgb, model, landmarks))]
            low, median, high = np.percentile(boxes, [25, 50, 75], axis=0)
            print(f"{which.name.lower()}: {len(boxes)} faces")
            for name, m, spread in zip(COLUMNS, median, high - low, strict=True):
                print(f"  {name:<10} {m:6.3f}  (interquartile range {spread:.3f})")


if __name__ == "__main__":
    main()
