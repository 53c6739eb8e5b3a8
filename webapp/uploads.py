"""Deletes what was uploaded, soon after it was taken over: Gradio keeps every upload until the page ends."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

_EVERY_S: Final = 10.0


class Uploads:
    """The folder that uploads arrive in; a context manager that sweeps it from a thread of its own.

    A clip that is judged has a link of its own to the file (:mod:`webapp.jobs`), so the upload itself is needed only
    until the click that follows it. It is not deleted at once: two people who upload the same bytes share one file.

    Args:
        folder: swept with all its sub-folders, but for ``spare``.
        spare: folders that are somebody else's to empty.
        after_s: files that nobody has written to, linked, or unlinked for this time go.
    """

    def __init__(self, folder: Path, *spare: Path, after_s: float = 60.0) -> None:
        self._folder = folder
        self._spare = spare
        self._after_s = after_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sweep_on, name="upload sweeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def sweep(self) -> None:
        """Deletes what is old now, and the folders that are empty then."""
        oldest = time.time() - self._after_s
        for where, folders, names in os.walk(self._folder, topdown=False):
            folder = Path(where)
            if any(folder.is_relative_to(spared) for spared in self._spare):
                continue
            for name in names:
                with suppress(FileNotFoundError):
                    if (folder / name).stat().st_ctime < oldest:
                        (folder / name).unlink()
            for name in folders:
                inner = folder / name
                with suppress(OSError):  # not empty, or gone
                    if inner not in self._spare and inner.stat().st_ctime < oldest:
                        inner.rmdir()

    def _sweep_on(self) -> None:
        while not self._ended.wait(min(_EVERY_S, self._after_s)):
            self.sweep()
