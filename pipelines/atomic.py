"""Files that appear whole or not at all.

A result is written to a private file beside its place and moved there in one step when it is whole. A reader never
sees half a file, and an earlier result survives until a new one is ready to take its place.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from detector.types import OutputError

_ADVICE = {
    errno.ENOENT: "its folder does not exist; create the folder or choose another path",
    errno.ENOTDIR: "a part of its path is not a folder; choose another path",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.EACCES: "no permission; choose a folder you may write to",
    errno.EPERM: "no permission; choose a folder you may write to",
    errno.EROFS: "the disk is read-only; choose a folder you may write to",
    errno.ENOSPC: "the disk is full; free some space or choose another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another disk",
    errno.EFBIG: "the file would grow past the limit for a file; raise it (ulimit -f) or write less",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}

# Reading the umask means setting it, and it belongs to the whole process.
_umask_lock = threading.Lock()


def output_error(path: str | Path, error: Exception) -> OutputError:
    """What to tell a person about ``error``, met while writing ``path``: one line with what to do."""
    # FFmpeg's errors carry these two like OSError, but not all of them are one.
    code = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    advice = _ADVICE.get(code or 0, f"{reason}; choose another path")
    return OutputError(f"cannot write {_shown(path)}: {' '.join(advice.split())}")


def writable(path: str | Path) -> None:
    """Checks that ``path`` can be written, by trying, and leaves nothing behind.

    Call it before the work starts, so that a mistyped path does not cost an hour. An existing file is not touched.

    Raises:
        OutputError: the folder is missing or closed to us, or ``path`` is a folder, a device or write-protected.
    """
    PartFile(path).discard()


def refuse_input(output: str | Path, source: str) -> None:
    """Makes sure that a result does not take the place of the very clip it is about.

    Raises:
        OutputError: ``output`` and ``source`` are one file.
    """
    # A source may be a camera or an address and the output need not exist yet: then they are not one file.
    with suppress(OSError, ValueError):
        if Path(output).samefile(source):
            raise OutputError(f"cannot write {_shown(output)}: it is the input itself; choose another path")


class PartFile:
    """A file on its way: written under a hidden name, then moved to ``path`` or removed.

    The part file lies in the folder of ``path`` (a move within one file system is one step), ends in ``.part`` and
    is readable by its owner only; the finished file has the usual permissions. A symbolic link is written through.

    Attributes:
        path: where the file will be.
        part: where it is written until then.

    Raises:
        OutputError: ``path`` cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            # pathlib would follow the link too, but raises RuntimeError on a loop of links.
            self._target = Path(os.path.realpath(path))
            _check_target(self.path, self._target)
            # A name may be as long as the file system allows: the part file's own must not be longer.
            prefix = f".{self._target.name[:40]}."
            handle, name = tempfile.mkstemp(suffix=".part", prefix=prefix, dir=self._target.parent)
        except (OSError, ValueError) as error:
            raise output_error(path, error) from error
        os.close(handle)
        self.part = Path(name)
        self._open = True

    def commit(self) -> None:
        """Moves the part file to its place; does nothing when it was committed or discarded before.

        Raises:
            OutputError: it could not be moved; it is removed then.
        """
        if not self._open:
            return
        try:
            with self.part.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
            self.part.chmod(0o666 & ~_umask())
            self.part.replace(self._target)
        except OSError as error:
            self.discard()
            raise output_error(self.path, error) from error
        self._open = False

    def discard(self) -> None:
        """Removes the part file; does nothing when it was committed or discarded before."""
        if self._open:
            self._open = False
            self.part.unlink(missing_ok=True)


@contextmanager
def atomic_writer(
    path: str | Path, mode: Literal["w", "wb"] = "w", *, keep_if_interrupted: bool = False
) -> Iterator[IO[Any]]:
    r"""A file that appears at ``path`` when the block ends, and only if something was written.

    Text is UTF-8 with ``\n`` line ends.

    Args:
        path: where the file will be.
        mode: ``"w"`` for text, ``"wb"`` for bytes.
        keep_if_interrupted: commits what was written also when the block raises. For data that is whole at any
            moment; without it an exception leaves ``path`` as it was.

    Raises:
        OutputError: ``path`` cannot be written, or the disk is full.
    """
    part = PartFile(path)
    try:
        text = {"encoding": "utf-8", "newline": ""} if mode == "w" else {}
        with open(part.part, mode, **text) as file:  # type: ignore[call-overload]  # noqa: PTH123
            yield file
    except BaseException as error:
        if keep_if_interrupted:
            _commit_if_useful(part)
        part.discard()
        # Only the file's own errors are about the output: others that pass through keep their meaning.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise output_error(path, error) from error
        raise
    _commit_if_useful(part)


def _commit_if_useful(part: PartFile) -> None:
    if part.part.stat().st_size > 0:
        part.commit()
    part.discard()


def is_special(path: str | Path) -> bool:
    """Whether ``path`` is a device, a pipe or a socket: something to write into, never to replace."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_target(path: Path, target: Path) -> None:
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if is_special(path):
        raise OSError(0, "it is a device or a pipe, not a file", str(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise OSError(0, "it is write-protected", str(path))


def _umask() -> int:
    with _umask_lock:
        mask = os.umask(0o077)  # a file that another thread makes in this moment is too private, not too public
        os.umask(mask)
    return mask


def _shown(path: str | Path) -> str:
    return str(path) if str(path).isprintable() and str(path) else repr(str(path))
