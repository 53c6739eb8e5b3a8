"""Ctrl-C and the signals that end a program, as a flag that is looked at between frames.

A handler that raises can do so inside a lock or a queue, and leave it locked for good; a flag cannot.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Watches for the signals while it is entered, in the main thread; call it to ask whether one came.

    After the first signal, more of them change nothing, also after leaving: what is being written is finished.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        if self._number is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether to stop."""
        return self._number is not None

    @property
    def exit_code(self) -> int | None:
        """128 + the signal's number, as shells say it; None without a signal."""
        return None if self._number is None else 128 + self._number

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._number is None:
            self._number = number
