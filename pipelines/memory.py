"""Keeps the memory of a long run flat."""

from __future__ import annotations

import ctypes
import sys

_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> None:
    """Makes glibc serve all threads from one heap; elsewhere does nothing. Call before threads are started.

    By default every thread gets a heap of its own. Pictures are made in the reading thread and let go in another, and
    what lies between them keeps whole heaps from shrinking: 80 MB more after 10,000 frames at 1280x720, against 10 MB
    with one heap, at the same speed.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
