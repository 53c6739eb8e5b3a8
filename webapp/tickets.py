"""Who may open a live connection: the page hands out tickets, the connection shows one."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict

from detector.types import NS_PER_S


class Tickets:
    """Who may open a live connection: unguessable strings, forgotten when they have not been used for a while.

    Safe from any thread.

    Args:
        idle_s: seconds after which a ticket that nobody has shown expires.
        most: tickets at once; beyond that the one that was not shown for longest is forgotten.
    """

    def __init__(self, idle_s: float = 12 * 3600, most: int = 10_000) -> None:
        self._idle_ns = round(idle_s * NS_PER_S)
        self._most = most
        self._tickets: OrderedDict[str, tuple[str, int]] = OrderedDict()  # owner, last shown; the latter in order
        self._lock = threading.Lock()

    def issue(self, owner: str) -> str:
        """A new ticket for ``owner``, whatever the caller knows them by."""
        ticket = secrets.token_urlsafe(32)
        with self._lock:
            self._forget_old()
            self._tickets[ticket] = owner, time.monotonic_ns()
            if len(self._tickets) > self._most:
                self._tickets.popitem(last=False)
        return ticket

    def check(self, ticket: str) -> str | None:
        """The owner of a ticket, which is good for longer now; None for one that was never issued or has expired."""
        with self._lock:
            self._forget_old()
            known = self._tickets.get(ticket)
            if known is None:
                return None
            self._tickets[ticket] = known[0], time.monotonic_ns()
            self._tickets.move_to_end(ticket)
            return known[0]

    def revoke(self, owner: str) -> None:
        """Forgets all tickets of an owner; a session that has begun goes on."""
        with self._lock:
            for ticket in [ticket for ticket, (whose, _) in self._tickets.items() if whose == owner]:
                del self._tickets[ticket]

    def _forget_old(self) -> None:
        oldest_ns = time.monotonic_ns() - self._idle_ns
        while self._tickets and next(iter(self._tickets.values()))[1] < oldest_ns:
            self._tickets.popitem(last=False)
