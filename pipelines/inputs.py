"""What a person writes on the command line -> sources of frames."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detector.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from detector.types import (
    Frame,
    FrameSource,
    InputError,
    NothingToAnalyseError,
    SourceInfo,
    TellframeError,
    UsageError,
)
from pipelines.sources import ImageFolder, NetworkStream, VideoFile
from pipelines.sources._base import Source
from pipelines.sources.images import natural_key

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(argument: str) -> bool:
    """Whether ``argument`` is an address, such as ``rtsp://host/path``, rather than a path."""
    return _URL.match(argument) is not None


def expand(arguments: Sequence[str], fps: float = 30) -> list[FrameSource]:
    """The sources that ``arguments`` name, in their order; none of them is opened yet.

    An address is a network stream; an image file a clip of one frame; any other file a video; a directory every
    video in it (not below it), or else its images as one clip. A glob (``*``, ``?``, ``[]``, ``**``) stands for what it
    matches, unless a file has that very name.

    Args:
        arguments: addresses, paths, directories, globs.
        fps: frames a second of images.

    Raises:
        UsageError: an empty argument, an address of a kind that is not opened, ``fps`` not above 0.
        InputError: a path that does not exist.
        NothingToAnalyseError: a directory or glob without a video or image.
    """
    return [source for argument in arguments for source in _expand_one(argument, fps)]


class Unusable(Source):
    """What a person named and cannot be used: opening it raises ``error``, so that the others are judged."""

    def __init__(self, name: str, error: TellframeError) -> None:
        super().__init__(SourceInfo(name))
        self.error = error

    def _open(self) -> None:
        raise self.error

    def _frames(self) -> Iterator[Frame]:
        return iter(())


def expand_each(arguments: Sequence[str], fps: float = 30) -> list[FrameSource]:
    """As :func:`expand`, but an argument that cannot be used becomes an :class:`Unusable` source in its place.

    Raises:
        UsageError: as :func:`expand`.
    """
    sources: list[FrameSource] = []
    for argument in arguments:
        try:
            sources += _expand_one(argument, fps)
        except (InputError, NothingToAnalyseError) as error:
            sources.append(Unusable(argument, error))
    return sources


def _expand_one(argument: str, fps: float) -> list[FrameSource]:
    if not argument.strip():
        raise UsageError("an input is empty; give a file, a directory, a glob or an address")
    if is_url(argument):
        return [NetworkStream(argument)]
    path = Path(argument)
    try:
        if path.is_dir():
            return _group((str(entry) for entry in path.iterdir() if not entry.name.startswith(".")), argument, fps)
        if path.exists():
            return [ImageFolder([argument], fps=fps) if _is_image(argument) else VideoFile(argument)]
    except OSError as error:
        raise InputError(f"{argument}: cannot be opened: {error.strerror}") from None
    if glob.has_magic(argument):
        matches = glob.glob(argument, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute pattern
        return _group(matches, argument, fps)
    raise InputError(f"{argument}: no such file or directory; check the path")


def _group(paths: Iterable[str], argument: str, fps: float) -> list[FrameSource]:
    """Every video a source of its own; where there is none, all images together one source."""
    files = sorted((path for path in paths if Path(path).is_file()), key=natural_key)
    videos = [path for path in files if Path(path).suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        return [VideoFile(path) for path in videos]
    images = [path for path in files if _is_image(path)]
    if images:
        return [ImageFolder(images, fps=fps, name=argument)]
    raise NothingToAnalyseError(f"{argument}: no video and no image there; give files, or another directory or glob")


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES
