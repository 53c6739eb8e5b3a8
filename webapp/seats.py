"""How many live sessions run at once, and the line of those who wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Place:
    """A place in the line for a seat."""

    def __init__(self) -> None:
        self._ahead: int | None = None
        self._moved = asyncio.Event()

    @property
    def ahead(self) -> int | None:
        """How many wait in front; None once seated."""
        return self._ahead

    async def moved(self, seen: int) -> int | None:
        """The next value of ``ahead`` after ``seen``, waited for."""
        while self._ahead == seen:
            self._moved.clear()
            await self._moved.wait()
        return self._ahead

    def _move(self, ahead: int | None) -> None:
        if ahead != self._ahead:
            self._ahead = ahead
            self._moved.set()


class Seats:
    """At most so many live sessions at once; who comes first is seated first. For one event loop.

    Args:
        count: sessions at once, at least 1. Each takes up to a core.
        line: how many may wait.
    """

    def __init__(self, count: int = 2, line: int = 50) -> None:
        if count < 1:
            raise ValueError(f"at least one must have a seat, got {count}")
        self._count = count
        self._longest = line
        self._seated: set[Place] = set()
        self._line: list[Place] = []

    @property
    def taken(self) -> int:
        """Sessions now."""
        return len(self._seated)

    @property
    def is_full(self) -> bool:
        """Whether nobody more may even wait."""
        return len(self._seated) == self._count and len(self._line) >= self._longest

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place in the line, and the seat that it leads to; both are given up on leaving the block."""
        place = Place()
        self._line.append(place)
        self._fill()
        try:
            yield place
        finally:
            self._seated.discard(place)
            with suppress(ValueError):
                self._line.remove(place)
            self._fill()

    def _fill(self) -> None:
        while self._line and len(self._seated) < self._count:
            place = self._line.pop(0)
            self._seated.add(place)
            place._move(None)
        for ahead, place in enumerate(self._line):
            place._move(ahead)
