"""Makes the sample clips of ``assets/samples``: ``python assets/make_samples.py --out assets/samples``.

Still photographs in the public domain, which Python packages ship, are filmed by a simulated hand-held camera:

* ``real.mp4``: one person, untouched.
* ``fake.mp4``: the very same frames, and in each the face is exchanged for another person's, as a swap tool does it:
  landmarks found in that frame, similarity alignment, colour match, feathered blend of a 256 px face.
* ``two_faces.mp4``: two people in the tiles of a video call, to follow both at once.
* ``no_face.mp4``: a cup of coffee.

The pixels before encoding depend on nothing but the seeds here and the versions of the libraries; the encoded bytes
also depend on the version of the encoder. Needs the packages of the extras ``[dev]`` and ``[train]``, but not torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import mediapipe as mp
import numpy as np
import skimage.data
from ai_edge_litert.interpreter import Interpreter
from matplotlib import cbook
from mediapipe.tasks.python import BaseOptions, vision
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]

SIZE_WH = (1280, 720)
FPS = 30
FACE_MODELS = Path(__file__).parent / "models" / "face"

# Indices in MediaPipe's 468-point face mesh; right and left are the person's own.
BROWS = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
JAW = [454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234]
HULL = BROWS + JAW  # what the 68-point masks of common swap tools cover: brows to chin, no forehead
EYES_NOSE_MOUTH = [33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 61, 291]
ANCHORS = [*EYES_NOSE_MOUTH, 152, 234, 454]  # with chin and both ears

GENERATED_PX = 256  # side of the face a swap model of the FaceShifter generation puts out
INSET, FEATHER = 0.02, 0.012  # of the blend mask, as fractions of the face's height
ALIGN_JITTER_PX = 0.7  # what is left of landmark noise when a tool does not smooth over time


# ------------------------------------------------------------------------------------------------- photographs


def astronaut() -> UInt8Array:
    """Eileen Collins, photographed by NASA: uint8 RGB (512, 512, 3). Public domain; shipped by scikit-image."""
    load: Callable[[], UInt8Array] = skimage.data.astronaut  # the package has no type of its own for it
    return load()


def hopper() -> UInt8Array:
    """Grace Hopper, photographed for the US Navy: uint8 RGB (600, 512, 3). Public domain; shipped by matplotlib."""
    return _rgb(Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))))


def coffee() -> UInt8Array:
    """A cup of coffee by Rachel Michetti: uint8 RGB (400, 600, 3). CC0; shipped by scikit-image."""
    load: Callable[[], UInt8Array] = skimage.data.coffee
    return load()


def _rgb(path: Path) -> UInt8Array:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FileNotFoundError(f"{path} is not a picture OpenCV can read")
    return np.asarray(bgr[:, :, ::-1], np.uint8)


# ------------------------------------------------------------------------------------------------------ camera


@dataclass(frozen=True, slots=True)
class Shot:
    """A photograph and how it is filmed.

    Attributes:
        photo: name of one of the functions above, so that a shot is a plain value.
        centre_xy: the point of the photograph, in its pixels, that lies at the centre of a still frame.
        scale: pixels of the frame per pixel of the photograph.
        size_wh: of the frame.
        seed: of camera motion, light and noise.
        shake: 1 is an ordinary hand.
    """

    photo: str
    centre_xy: tuple[float, float]
    scale: float
    size_wh: tuple[int, int]
    seed: int
    shake: float = 1.0


def wander(t_s: float, seed: int, size: int) -> FloatArray:
    """``size`` independent smooth random walks at time ``t_s``, each about -1..1: sums of slow sines."""
    rng = np.random.default_rng(seed)
    hz = np.array([0.23, 0.61, 1.37, 2.9])
    weight = np.array([0.55, 0.3, 0.12, 0.05])
    phase = rng.uniform(0, 2 * np.pi, (size, len(hz)))
    return np.asarray(np.sin(2 * np.pi * hz * t_s + phase) @ weight, np.float64)


def camera(shot: Shot, index: int) -> FloatArray:
    """The affine (2, 3) that takes pixels of the photograph to pixels of frame ``index``: pan, zoom and roll."""
    pan_x, pan_y, zoom, roll = shot.shake * wander(index / FPS, shot.seed, 4)
    scale = shot.scale * (1 + 0.03 * zoom)
    angle = np.deg2rad(1.2 * roll)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(shot.size_wh) / 2 + [22 * pan_x, 14 * pan_y]
    return np.column_stack([turn, middle - turn @ np.array(shot.centre_xy)])


def light(shot: Shot, index: int) -> FloatArray:
    """Gain of red, green and blue in frame ``index``, (3,): brightness drifts by some 6 %, warmth by some 2 %."""
    bright, warm = wander(index / FPS, shot.seed + 1, 2)
    gain: FloatArray = (1 + 0.06 * bright) * np.array([1 + 0.02 * warm, 1, 1 - 0.02 * warm])
    return gain


def noise(shot: Shot, index: int) -> Float32Array:
    """Sensor noise of frame ``index`` in grey levels, (H, W, 3): mostly luma, a little colour, no memory."""
    width, height = shot.size_wh
    rng = np.random.default_rng([shot.seed, index])
    luma = rng.standard_normal((height, width, 1), np.float32)
    colour = rng.standard_normal((height, width, 3), np.float32)
    return np.float32(1.6) * luma + np.float32(0.6) * colour


def film(shot: Shot, index: int) -> UInt8Array:
    """Frame ``index`` of ``shot``: uint8 RGB (H, W, 3)."""
    photo = PHOTOS[shot.photo]()
    seen = cv2.warpAffine(
        photo, camera(shot, index), shot.size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    lit = seen * light(shot, index).astype(np.float32) + noise(shot, index)  # float32 (H, W, 3)
    return lit.round().clip(0, 255).astype(np.uint8)


# -------------------------------------------------------------------------------------------------------- swap


class Landmarker:
    """Finds the 468 face-mesh points of the most confident face. A context manager: MediaPipe must be closed."""

    def __init__(self, models: Path = FACE_MODELS) -> None:
        options = vision.FaceDetectorOptions(
            base_options=BaseOptions(model_asset_path=str(models / "face_detection_short_range.tflite"))
        )
        self._detector = vision.FaceDetector.create_from_options(options)
        self._mesh = Interpreter(str(models / "face_landmark.tflite"))
        self._mesh.allocate_tensors()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._detector.close()

    def __call__(self, rgb: UInt8Array) -> FloatArray:
        """Points (468, 2) in pixels of ``rgb``; a second pass on the box of the first makes them steadier."""
        found = self._detector.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb)))
        if not found.detections:
            raise ValueError(f"no face in a picture of {rgb.shape[1]} x {rgb.shape[0]}; film it larger")
        box = found.detections[0].bounding_box
        low = np.array([box.origin_x, box.origin_y], np.float64)
        first = self._refine(rgb, low, low + np.array([box.width, box.height]))
        return self._refine(rgb, first.min(axis=0), first.max(axis=0))

    def _refine(self, rgb: UInt8Array, low: FloatArray, high: FloatArray) -> FloatArray:
        """Points seen in a square around the box ``low``..``high``, 1.5 times as large, as the mesh model wants."""
        side = 1.5 * (high - low).max()
        scale = 192 / side
        to_crop = np.column_stack([np.eye(2) * scale, 96 - scale * (low + high) / 2])
        crop = cv2.warpAffine(rgb, to_crop, (192, 192), flags=cv2.INTER_LINEAR)
        self._mesh.set_tensor(self._mesh.get_input_details()[0]["index"], np.asarray(crop, np.float32)[None] / 255)
        self._mesh.invoke()
        points = self._mesh.get_tensor(self._mesh.get_output_details()[0]["index"])
        in_crop = points.reshape(468, 3)[:, :2].astype(np.float64)
        in_frame: FloatArray = (in_crop - to_crop[:, 2]) / scale
        return in_frame


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face to put on others: ``rgb`` uint8 (GENERATED_PX, GENERATED_PX, 3) and its ``points`` (468, 2) in it."""

    rgb: UInt8Array
    points: FloatArray


def cut_face(photo: UInt8Array, points: FloatArray) -> Face:
    """The face of ``photo`` at the resolution of a swap model's output."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 2 * GENERATED_PX / (1.2 * (high - low).max())
    to_patch = np.column_stack([np.eye(2) * scale, GENERATED_PX - scale * (low + high) / 2])
    twice = cv2.warpAffine(photo, to_patch, (2 * GENERATED_PX, 2 * GENERATED_PX), flags=cv2.INTER_LINEAR)
    small = cv2.resize(twice, (GENERATED_PX, GENERATED_PX), interpolation=cv2.INTER_AREA)
    return Face(np.asarray(small, np.uint8), (points * scale + to_patch[:, 2]) / 2)


def similarity(source: FloatArray, target: FloatArray) -> FloatArray:
    """The rotation, scale and shift (2, 3) that best takes ``source`` to ``target``, both (n, 2) (Umeyama 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    power = (a**2).sum()
    cos = (a * b).sum() / power
    sin = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / power
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, target.mean(axis=0) - turn @ source.mean(axis=0)])


def hull(points: FloatArray, size_wh: tuple[int, int]) -> UInt8Array:
    """255 inside the face from brows to chin, 0 outside: uint8 (H, W)."""
    mask = np.zeros((size_wh[1], size_wh[0]), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points[HULL].round().astype(np.int32)), 255)
    return mask


def blend_mask(old: FloatArray, new: FloatArray, size_wh: tuple[int, int]) -> FloatArray:
    """How much of the new face shows, 0..1 (H, W, 1): where both meshes (468, 2) have skin, shrunk and feathered."""
    both = cv2.bitwise_and(hull(old, size_wh), hull(new, size_wh))
    height = float(np.ptp(old[:, 1]))
    inset = 2 * round(INSET * height) + 1
    inner = cv2.erode(both, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (inset, inset)))
    soft = cv2.GaussianBlur(inner, (0, 0), FEATHER * height)
    return np.asarray(soft, np.float64)[:, :, None] / 255


def match_colour(face: UInt8Array, like: UInt8Array, mask: FloatArray) -> UInt8Array:
    """``face`` with the mean and, within limits, the spread that ``like`` has under ``mask``, in CIELAB."""
    where = mask[:, :, 0] > 0.5
    lab = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2LAB), np.float64)
    own = lab[where]
    wanted = np.asarray(cv2.cvtColor(like, cv2.COLOR_RGB2LAB), np.float64)[where]
    gain = (wanted.std(axis=0) / own.std(axis=0)).clip(0.8, 1.1)
    matched = (lab - own.mean(axis=0)) * gain + wanted.mean(axis=0)
    return np.asarray(cv2.cvtColor(matched.round().clip(0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)


def swap(frame: UInt8Array, points: FloatArray, face: Face) -> UInt8Array:
    """``frame`` with ``face`` in the place of the one whose mesh is ``points`` (468, 2); both uint8 RGB (H, W, 3)."""
    size_wh = (frame.shape[1], frame.shape[0])
    place = similarity(face.points[ANCHORS], points[ANCHORS])
    pasted = np.asarray(cv2.warpAffine(face.rgb, place, size_wh, flags=cv2.INTER_LINEAR), np.uint8)
    mask = blend_mask(points, face.points @ place[:, :2].T + place[:, 2], size_wh)
    matched = match_colour(pasted, frame, mask)
    return (mask * matched + (1 - mask) * frame).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------------------- clips

PHOTOS: dict[str, Callable[[], UInt8Array]] = {"astronaut": astronaut, "hopper": hopper, "coffee": coffee}

PORTRAIT = Shot("astronaut", (256, 141), 2.66, SIZE_WH, seed=7)
TABLE = Shot("coffee", (300, 200), 2.3, SIZE_WH, seed=11)
TILES = (
    Shot("astronaut", (224, 172), 1.9, (636, 720), seed=21, shake=0.7),
    Shot("hopper", (258, 285), 1.3, (636, 720), seed=22, shake=0.7),
)


def real_frames() -> Iterator[UInt8Array]:
    """Four seconds of one person."""
    for index in range(4 * FPS):
        yield film(PORTRAIT, index)


def fake_frames() -> Iterator[UInt8Array]:
    """The frames of :func:`real_frames`, with another person's face swapped in one by one."""
    with Landmarker() as landmarks:
        source = hopper()
        face = cut_face(source, landmarks(source))
        for index, frame in enumerate(real_frames()):
            jitter = np.random.default_rng([PORTRAIT.seed, index, 1]).normal(0, ALIGN_JITTER_PX, 2)
            yield swap(frame, landmarks(frame) + jitter, face)


def two_faces_frames() -> Iterator[UInt8Array]:
    """Two and a half seconds of two people, each in a tile with a camera of its own."""
    for index in range(5 * FPS // 2):
        frame = np.full((SIZE_WH[1], SIZE_WH[0], 3), 24, np.uint8)
        frame[:, : TILES[0].size_wh[0]] = film(TILES[0], index)
        frame[:, -TILES[1].size_wh[0] :] = film(TILES[1], index)
        yield frame


def no_face_frames() -> Iterator[UInt8Array]:
    """A second and a half of a scene without anybody."""
    for index in range(3 * FPS // 2):
        yield film(TABLE, index)


LABEL = "Sample of Tellframe; photographs in the public domain, simulated camera."
FAKE_LABEL = f"{LABEL} MANIPULATED: the face was swapped for another person's."

CLIPS: dict[str, Callable[[], Iterator[UInt8Array]]] = {
    "real": real_frames,
    "fake": fake_frames,
    "two_faces": two_faces_frames,
    "no_face": no_face_frames,
}


def encode(frames: Iterator[UInt8Array], path: Path, comment: str) -> None:
    """Writes RGB ``frames`` to ``path`` as H.264 in MP4 that plays in a browser; one thread, so bytes repeat."""
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        options = {"crf": "22", "preset": "slow", "threads": "1", "g": str(2 * FPS)}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        container.metadata["comment"] = comment
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make the sample clips.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "samples", help="folder to write to")
    parser.add_argument("--only", choices=sorted(CLIPS), help="make one clip")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else CLIPS:
        path = arguments.out / f"{name}.mp4"
        encode(CLIPS[name](), path, FAKE_LABEL if name == "fake" else LABEL)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
