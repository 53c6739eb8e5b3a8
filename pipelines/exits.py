"""How a run ends: exit codes that are no errors, and the line an error gets. Its code: :mod:`detector.types`."""

from __future__ import annotations

import sys
from enum import StrEnum

from detector.types import Label, TellframeError
from pipelines.text import on_one_line

EXIT_FAIL_ON = 10
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class FailOn(StrEnum):
    """Which verdicts a script wants to stop at."""

    FAKE = "fake"
    UNSURE = "unsure"

    def hit(self, label: Label) -> bool:
        """``fake`` by FAKE; ``unsure`` by UNSURE and by FAKE, which is worse."""
        return label is Label.FAKE or (self is FailOn.UNSURE and label is Label.UNSURE)


def complain(error: TellframeError) -> int:
    """Says ``error`` in one line on standard error; returns its exit code."""
    print(f"tellframe: {on_one_line(str(error))}", file=sys.stderr)  # noqa: T201
    return error.exit_code
