"""Keeps C++ libraries from writing to standard error, which belongs to what a person should read."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_stderr_lock = threading.Lock()


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Sends file descriptor 2 to nowhere: the C++ of face models logs there whatever its log level says."""
    if sys.stderr is None:  # a process that was started without one
        yield
        return
    with _stderr_lock:  # two at once would leave it nowhere for good
        sys.stderr.flush()
        saved = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)
