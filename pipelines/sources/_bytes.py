"""Reads a byte stream so that another thread can end a read that waits."""

from __future__ import annotations

import io
import os
import select
import socket
import threading
from typing import BinaryIO


class ByteReader:
    """Bytes of ``stream``; :meth:`stop` ends a read that waits for a silent pipe, socket or terminal.

    A stream over a real file descriptor is read from the descriptor, after what Python has buffered of it. Any other
    stream is read through its own methods, which cannot be interrupted: fine for memory, where nothing waits.
    The stream is never closed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.received = 0  # bytes
        self._stream = stream
        self._stopped = False
        self._fd = _descriptor(stream)
        self._pending = b""
        self._pipe: tuple[int, int] | None = None  # a byte in it wakes the reader
        self._lock = threading.Lock()  # nobody writes to the pipe while it is closed

    def open(self) -> None:
        """Takes what reading needs; call it once, before the first read."""
        if self._fd is not None:
            self._pending = _buffered(self._stream, self._fd)
            with self._lock:
                self._pipe = os.pipe()

    def readinto(self, view: memoryview) -> int:
        """Fills the front of ``view``; returns how many bytes came: 0 at the end or when stopped."""
        if self._stopped:
            return 0
        if self._pending:
            got = min(len(view), len(self._pending))
            view[:got] = self._pending[:got]
            self._pending = self._pending[got:]
        elif self._fd is not None:
            got = os.readv(self._fd, [view]) if self._wait(self._fd) else 0
        else:
            got = self._stream.readinto(view) or 0  # type: ignore[attr-defined]  # every binary stream of Python has it
        self.received += got
        return got

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; empty at the end or when stopped."""
        buffer = bytearray(size)
        with memoryview(buffer) as view:
            got = self.readinto(view)
        return bytes(buffer[:got])

    def stop(self) -> None:
        """Ends the read in progress and every later one; from any thread."""
        with self._lock:
            already, self._stopped = self._stopped, True
            if self._pipe is not None and not already:
                os.write(self._pipe[1], b"x")

    def close(self) -> None:
        """Gives back what the reader took; the stream stays open. Safe to call twice."""
        with self._lock:
            for end in self._pipe or ():
                os.close(end)
            self._pipe = None

    def _wait(self, fd: int) -> bool:
        """Waits until there is something to read; False when stopped first."""
        if self._pipe is None:
            return False
        poll = select.poll()
        poll.register(self._pipe[0], select.POLLIN)
        poll.register(fd, select.POLLIN)
        poll.poll()
        return not self._stopped


def _descriptor(stream: BinaryIO) -> int | None:
    """The descriptor the bytes come from. A wrapper's (gzip, for one) carries other bytes: not that one."""
    raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
    return raw.fileno() if isinstance(raw, io.FileIO | socket.SocketIO) else None


def _buffered(stream: BinaryIO, fd: int) -> bytes:
    """What Python has read ahead, without waiting for more."""
    if not isinstance(stream, io.BufferedReader):
        return b""
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        return stream.read1(-1) or b""
    finally:
        os.set_blocking(fd, blocking)
