"""Where results go: JSON lines, CSV, several at once. The annotated video is in :mod:`pipelines.annotated`."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

from detector.types import FrameResult, SourceInfo
from pipelines.lines import open_lines
from pipelines.records import CSV_HEADER, csv_lines, csv_rows, json_line


class Sink(Protocol):
    """Takes results, clip after clip; a context manager that closes on exit, also after an error or Ctrl-C.

    ``begin`` is called before the first result of every clip. ``close`` commits what is whole, and may be called
    twice. Any of them raises :class:`~detector.types.OutputError` when a result cannot be written; ``write`` lets
    :class:`BrokenPipeError` through when the reader of a stream went away.
    """

    def begin(self, path: str, info: SourceInfo) -> None:
        """The results that follow are of the clip ``path``."""
        ...

    def write(self, result: FrameResult) -> None:
        """Takes one result."""
        ...

    def close(self) -> None:
        """Commits what was written."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Closing:
    """The context manager of every sink: close, whatever happened."""

    def close(self) -> None:
        """Commits; every sink has its own way."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _LineSink(Closing):
    """What the sinks of text share: one target for all clips."""

    def __init__(self, target: str | Path | TextIO) -> None:
        self._lines = open_lines(target)
        self._path = ""

    def begin(self, path: str, info: SourceInfo) -> None:  # noqa: ARG002  (the seam's; a line needs the name only)
        """Names the clip of the results that follow. OutputError when it is the output file itself."""
        self._lines.refuse_input(path)
        self._path = path

    def close(self) -> None:
        """Commits the whole frames written so far."""
        self._lines.close()


class JsonLines(_LineSink):
    """One JSON object a line and frame: :func:`pipelines.records.frame_record`. Clips share the file.

    Args:
        target: a path (the file appears whole on close; no result, no file), a device or pipe, ``"-"`` for standard
            output, or an open text stream, which is not closed.

    Raises:
        OutputError: the path cannot be written; found at once, not after the analysis.
    """

    def write(self, result: FrameResult) -> None:
        """Writes one whole line."""
        self._lines.write(json_line(result, self._path))


class Csv(_LineSink):
    """One row a face, and one for a frame without any; columns: :data:`pipelines.records.CSV_HEADER`. Clips share it.

    Args:
        target: as for :class:`JsonLines`.

    Raises:
        OutputError: the path cannot be written; found at once, not after the analysis.
    """

    def __init__(self, target: str | Path | TextIO) -> None:
        super().__init__(target)
        self._started = False

    def write(self, result: FrameResult) -> None:
        """Writes the rows of one frame together, so that an interrupted file ends with a whole frame."""
        # The header comes with the first row: a run without results leaves no file that looks like one.
        header = [] if self._started else [list(CSV_HEADER)]
        self._lines.write(csv_lines(header + csv_rows(result, self._path)))
        self._started = True


class MultiSink(Closing):
    """Hands every result to several sinks, and closes all of them even when one fails."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def begin(self, path: str, info: SourceInfo) -> None:
        """Begins the clip in every sink."""
        for sink in self._sinks:
            sink.begin(path, info)

    def write(self, result: FrameResult) -> None:
        """Writes to every sink in turn; the first error ends it."""
        for sink in self._sinks:
            sink.write(result)

    def close(self) -> None:
        """Closes every sink, then raises the first error, with the others as its notes."""
        first: BaseException | None = None
        for sink in self._sinks:
            try:
                sink.close()
            except BaseException as error:
                if first is None:
                    first = error
                else:
                    first.add_note(str(error))
        if first is not None:
            raise first
