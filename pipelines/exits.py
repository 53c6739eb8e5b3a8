"""Exit codes that are no errors. The codes of errors stand with the errors, in :mod:`detector.types`."""

from __future__ import annotations

from enum import StrEnum

from detector.types import Label

EXIT_FAIL_ON = 10
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class FailOn(StrEnum):
    """Which verdicts a script wants to stop at."""

    FAKE = "fake"
    UNSURE = "unsure"

    def hit(self, label: Label) -> bool:
        """``fake`` by FAKE; ``unsure`` by UNSURE and by FAKE, which is worse."""
        return label is Label.FAKE or (self is FailOn.UNSURE and label is Label.UNSURE)
