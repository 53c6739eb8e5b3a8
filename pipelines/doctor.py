"""Checks what a run needs, one line each, and says what to fix."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import as_file, files
from pathlib import Path

from detector.types import TellframeError

_PYTHONS = ((3, 11), (3, 14))  # from, below
_DISTRIBUTIONS = ("numpy", "opencv-python", "mediapipe", "onnxruntime", "av", "gradio", "typer")


class _FixError(Exception):
    """A check found something wrong; the text says what, and what to do."""


def doctor_command() -> int:
    """Runs every check; 0 when nothing needs fixing, 1 otherwise (5 when it is a model)."""
    worst = 0
    for name, check in _checks():
        try:
            mark, said = "ok ", check()
        except _FixError as error:
            mark, said, worst = "FIX", str(error), worst or 1
        except TellframeError as error:
            mark, said, worst = "FIX", str(error), error.exit_code
        print(f"{mark}  {name:<9} {said}")  # noqa: T201
    return worst


def _checks() -> Iterator[tuple[str, Callable[[], str]]]:
    yield "python", _python
    yield "packages", _packages
    yield "opencv", _opencv
    yield "video", _video
    yield "faces", _faces
    yield "models", _models
    yield "threads", _threads
    yield "cameras", _cameras
    yield "speed", _speed


def _python() -> str:
    low, high = _PYTHONS
    if not low <= sys.version_info[:2] < high:
        raise _FixError(f"Python {platform.python_version()}: use {low[0]}.{low[1]} up to {high[0]}.{high[1] - 1}")
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    found = []
    for name in _DISTRIBUTIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            raise _FixError(f"{name} is not installed: pip install --force-reinstall tellframe") from None
    return ", ".join(found)


def _opencv() -> str:
    plain, contrib = version("opencv-python"), version("opencv-contrib-python")
    if plain != contrib:
        raise _FixError(
            f"opencv-python {plain} and opencv-contrib-python {contrib} overwrite one another's cv2 folder: "
            f"pip install --force-reinstall opencv-python=={plain} opencv-contrib-python=={plain}"
        )
    import cv2

    return f"one cv2, {cv2.__version__}"


def _video() -> str:
    from pipelines.sources import VideoFile

    with _sample() as path, VideoFile(path) as clip:
        frames = sum(1 for _ in clip)
    import av

    if "libx264" not in av.codecs_available:
        raise _FixError("this PyAV cannot write H.264, so --save-video fails: pip install --force-reinstall av")
    return f"decoded {frames} frames of the sample; H.264 can be written"


def _faces() -> str:
    from detector.faces import MediaPipeFaces
    from pipelines.sources import VideoFile

    with _sample() as path, VideoFile(path) as clip, closing(MediaPipeFaces()) as finder:
        found = len(finder.find(next(iter(clip))))
    if found != 1:
        raise _FixError(f"{found} faces found in the sample, which has one: pip install --force-reinstall mediapipe")
    return "the face in the sample is found"


def _models() -> str:
    from detector.models import available, find

    names = [model.card.name for model in available()]
    for name in names:
        find(name)
    return f"checksums agree: {', '.join(names)}"


def _threads() -> str:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    if usable < 2:
        raise _FixError(f"{usable} of {cores} cores may be used: decoding runs beside scoring and wants a second one")
    return f"{usable} of {cores} cores may be used"


def _cameras() -> str:
    cameras = sorted(Path("/dev").glob("video*"))
    closed = [str(camera) for camera in cameras if not os.access(camera, os.R_OK | os.W_OK)]
    if closed:
        raise _FixError(f"no permission for {', '.join(closed)}: sudo usermod -aG video $USER, then log in again")
    return ", ".join(map(str, cameras)) or "none (needed by `tellframe webcam` only)"


def _speed() -> str:
    from detector.models import DEFAULT_MODEL
    from pipelines.bench import Plan, measure

    figures = measure(Plan(None, DEFAULT_MODEL, "33", frames=90, warm_up=30, threads=1))
    p95 = figures["latency_ms"]["total"]["p95"]
    rate = figures["frames_a_second"]
    said = f"{rate:.0f} frames a second at 1280x720, p95 {p95:.1f} ms"
    if not figures["budget"]["met"]:
        raise _FixError(f"{said}: too slow for 30 fps now; close other programs, or use --stride 2")
    return f"{said}: keeps 30 fps"


def _sample() -> AbstractContextManager[Path]:
    return as_file(files("assets") / "samples" / "real.mp4")
