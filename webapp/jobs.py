"""The line of clips: every user has one, they are judged one after the other, and nothing of them stays."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from compression.budget import FrameBudget
from detector.engine import Model
from detector.types import OutputError, TellframeError, UsageError
from webapp.job import Job, Limits, by_name, check

STRIDE: Final = 3
"""Of the usual pace: the one at which the accuracy of the shipped models was measured (docs/model-card.md)."""
_LOWER_PRIORITY = 5  # live sessions go first: a clip can wait, a camera cannot
_LEAVE_S = 5.0
"""How long to wait for a clip that was given up: it ends at its next frame."""


class Jobs:
    """The clips of all users, judged one after the other; a context manager that gives up all of them on exit.

    One user has one clip: with a new one the one before is given up, and what was made of it is deleted. One clip is
    judged at a time: two at once would each take twice as long, and live sessions need room.

    Args:
        folder: exists, and is private to this process.
        ladder: loaded models.
        limits: what a clip may be.
    """

    def __init__(self, folder: Path, ladder: Sequence[Model], limits: Limits) -> None:
        self.limits = limits
        self._folder = folder
        self._ladder = ladder
        self._users: dict[str, tuple[str, Job]] = {}  # by user: the id of the clip, and the clip
        self._line: deque[Job] = deque()  # the first is being judged
        self._changed = threading.Condition()  # guards the three above and the one below
        self._closed = False
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("jobs", self._judge_on), ("job sweeper", self._sweep_on))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            users = list(self._users)
        for user in users:
            self.forget(user)
        for thread in self._threads:
            thread.join(_LEAVE_S)

    def add(self, user: str, clip: Path, name: str, budget: FrameBudget, stride: int = STRIDE) -> str:
        """Takes a clip into the line; the id that :meth:`get` knows it by, which nobody can guess.

        Raises:
            InputError, NothingToAnalyseError: it cannot be read, or is more than the limits allow.
            OutputError: there is no room for it.
            UsageError: too many clips wait already; the user keeps the clip before.
        """
        name = _plain_name(name)
        try:
            check(clip, self.limits)
        except TellframeError as error:
            raise by_name(error, clip, name) from None
        ident = secrets.token_urlsafe(16)
        folder = self._folder / ident
        try:
            folder.mkdir(mode=0o700)
            mine = _own(clip, folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise OutputError(
                f"{name}: cannot be kept while it is judged: {error.strerror}; is the disk full?"
            ) from None
        job = Job(mine, name, folder, self._ladder, budget, stride, self.limits)
        with self._changed:
            full = self._closed or len(self._line) >= self.limits.jobs
            _, before = self._users.get(user, ("", None))
            if not full:
                self._users[user] = (ident, job)
                self._line.append(job)
                self._changed.notify_all()
        if full:
            shutil.rmtree(folder, ignore_errors=True)
            raise UsageError(f"{self.limits.jobs} clips are being judged or wait already; try again in a few minutes")
        if before is not None:
            self._delete(before)
        return ident

    def get(self, user: str, ident: str) -> Job | None:
        """The clip of that id, if it is this user's and still there."""
        known, job = self._users.get(user, ("", None))
        return job if known == ident else None

    def ahead(self, job: Job) -> int:
        """How many clips are judged before it; 0 when it is its turn, or past."""
        with self._changed:
            return self._line.index(job) if job in self._line else 0

    def cancel(self, user: str) -> None:
        """Gives up the user's clip, unless it has ended; whoever waits for it hears so."""
        _, job = self._users.get(user, ("", None))
        if job is not None:
            self._give_up(job)

    def forget(self, user: str) -> None:
        """Gives up the user's clip and deletes what was made of it; harmless when there is none."""
        with self._changed:
            _, job = self._users.pop(user, ("", None))
        if job is not None:
            self._delete(job)

    def _give_up(self, job: Job) -> None:
        job.cancel()
        with self._changed:
            waits = job in self._line and self._line[0] is not job
            if waits:
                self._line.remove(job)
        if waits:
            job.run()  # finds that it was given up: at once, not when it would have been its turn

    def _delete(self, job: Job) -> None:
        self._give_up(job)
        job.wait(_LEAVE_S)  # one that takes longer deletes its folder itself
        if job.ended:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _judge_on(self) -> None:
        _give_way()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._closed)
                if not self._line:
                    return
                job = self._line[0]
            job.run()
            with self._changed:
                self._line.popleft()

    def _sweep_on(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, timeout=min(30.0, self.limits.keep_s / 4)):
                    return
                old = [user for user, (_, job) in self._users.items() if job.age_s > self.limits.keep_s]
            for user in old:
                self.forget(user)


def _own(clip: Path, folder: Path) -> Path:
    """The clip under a name of its own: whoever uploaded the same file may delete theirs."""
    mine = folder / f"clip{clip.suffix.lower()[:8]}"
    try:
        os.link(clip, mine)
    except OSError:  # another file system, or another user's file
        shutil.copyfile(clip, mine)
    return mine


def _plain_name(name: str) -> str:
    """What a file is called, without folders, line breaks and what no screen shows."""
    return "".join(char for char in re.split(r"[/\\]", name)[-1] if char.isprintable())[:120] or "clip"


def _give_way() -> None:
    """Lowers the priority of this thread; what it starts inherits it. Linux counts it by thread, others by process."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWER_PRIORITY)
