"""Video files on this machine."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from detector.types import InputError, NothingToAnalyseError, SourceInfo
from pipelines.sources._decoded import DecodedSource
from pipelines.sources._decoder import Decoder, NoVideoError, UnreadableError


class VideoFile(DecodedSource):
    """The frames of a video file, upright, with exact times.

    Every container and codec that FFmpeg decodes. Quarter turns and mirrors of the container are applied; sizes and
    pixel formats may change on the way. Broken frames are skipped, counted in ``counts.broken`` and keep their
    index. The times are the container's, moved so that the first frame is at 0; a frame whose time does not
    increase gets the time of the one before it + 1 us.

    Only local files are opened: a playlist that points at the network fails.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        super().__init__(SourceInfo(name=self._path))

    def _open(self) -> None:
        _check_file(self._path)
        try:
            # `file:` keeps FFmpeg from reading a colon or a percent sign in the name as something else.
            self._begin(Decoder(f"file:{self._path}", options={"protocol_whitelist": "file"}))
        except NoVideoError:
            raise NothingToAnalyseError(f"{self._path}: holds no video stream; give a file with pictures") from None
        except UnreadableError as error:
            raise InputError(f"{self._path}: cannot be read as video: {error}; check that it plays") from None


def _check_file(path: str) -> None:
    """Says what FFmpeg would only call invalid."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to look into its directory") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a directory; give a video file")
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        raise InputError(f"{path}: is a device, not a file; cameras are opened as webcams")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise InputError(f"{path}: the file is empty; check that it was copied to its end")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: no permission to read it; change it with chmod")
