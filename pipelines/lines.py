"""Whole lines of text, into a file or a stream."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

from detector.types import OutputError
from pipelines.atomic import PartFile, is_special, output_error, refuse_input


class Lines(Protocol):
    """Takes text in whole lines."""

    def refuse_input(self, source: str) -> None:
        """Raises OutputError when ``source`` is the file these lines go to."""
        ...

    def write(self, text: str) -> None:
        """Writes ``text``, one or more whole lines that belong together, in one go."""
        ...

    def close(self) -> None:
        """Finishes; safe to call twice."""
        ...


def open_lines(target: str | Path | TextIO) -> Lines:
    """Where lines go: ``"-"`` is standard output; a device or a pipe is written into; any other path is a new file.

    Raises:
        OutputError: the path cannot be written.
    """
    if not isinstance(target, str | Path):
        return LineStream(target, "the output stream")
    if str(target) == "-":
        if sys.stdout is None:
            raise OutputError("standard output is closed; name a file instead of -")
        return LineStream(sys.stdout, "standard output")
    if not is_special(target):
        return LineFile(target)
    try:
        return LineStream(Path(target).open("w", encoding="utf-8"), str(target), owned=True)
    except OSError as error:
        raise output_error(target, error) from error


class LineFile:
    """A file that appears at ``path`` on close, holding whole lines only, whatever happened before.

    Nothing written means no file: an earlier one stays as it was.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._part = PartFile(path)
        # Unbuffered, so that after a full disk or Ctrl-C it is known which bytes are there.
        self._file: io.FileIO | None = io.FileIO(self._part.part, "w")
        self._whole = 0  # bytes up to the end of the last whole line

    def refuse_input(self, source: str) -> None:
        """Raises OutputError when ``source`` is the file these lines go to."""
        refuse_input(self._path, source)

    def write(self, text: str) -> None:
        """Appends whole lines.

        Raises:
            OutputError: the disk is full, or the like. The lines before are safe.
        """
        if self._file is None:
            raise ValueError(f"{self._path} is closed")
        rest = memoryview(text.encode("utf-8"))
        size = len(rest)
        try:
            # A nearly full disk may take a part of a line; and what an earlier failure left must not stay in between.
            self._file.seek(self._whole)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise output_error(self._path, error) from error
        self._whole += size

    def close(self) -> None:
        """Cuts off what is not whole and commits.

        Raises:
            OutputError: the file could not be put in its place.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.truncate(self._whole)
            file.close()
        except OSError as error:
            self._part.discard()
            raise output_error(self._path, error) from error
        if self._whole:
            self._part.commit()
        self._part.discard()


class LineStream:
    """A text stream, flushed after every write so that a reader sees whole lines at once.

    A reader that goes away (``| head``) shows as :class:`BrokenPipeError` from :meth:`write`, on purpose: it is no
    failure, and whoever runs the loop should end it quietly (see :func:`abandon`). :meth:`close` is silent then.
    """

    def __init__(self, stream: TextIO, name: str, *, owned: bool = False) -> None:
        self._stream = stream
        self._name = name
        self._owned = owned
        self._gone = False
        self._closed = False

    def refuse_input(self, source: str) -> None:
        """A stream takes no file's place."""

    def write(self, text: str) -> None:
        """Writes and flushes whole lines.

        Raises:
            BrokenPipeError: nobody reads any more.
            OutputError: the stream leads to a full disk, or the like.
        """
        if self._closed:
            raise ValueError(f"{self._name} is closed")
        try:
            self._stream.write(self._encodable(text))
            self._stream.flush()
        except BrokenPipeError:
            self._gone = True
            raise
        except OSError as error:
            self._gone = True
            raise output_error(self._name, error) from error

    def close(self) -> None:
        """Closes a stream that was opened here; leaves any other open."""
        if self._closed:
            return
        self._closed = True
        if self._owned:
            # After a failed write the stream still holds that text, and closing would fail on it once more.
            with suppress(*((OSError,) if self._gone else ())):
                self._stream.close()

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)


def abandon(stream: TextIO) -> None:
    """Sends what ``stream`` still holds to nowhere.

    For standard output after a :class:`BrokenPipeError`: Python flushes it at exit and would complain there.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
