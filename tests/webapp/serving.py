"""Starts the page as a user does."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

from tests.commands import ROOT


@contextmanager
def served(*options, folder=None):
    """The address of a page and its process, while the block runs; it must have said nothing alarming by then.

    ``folder`` takes its temporary files; the system's own does when it is None.
    """
    environment = os.environ | ({} if folder is None else {"TMPDIR": str(folder)})
    command = [sys.executable, "-m", "tellframe", "app", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) as process:
        greeting = process.stdout.readline()
        try:
            address = re.search(r"https?://[^ ]+/", greeting)
            assert address is not None, greeting + process.stderr.read()
            yield address[0], process
        finally:
            process.terminate()
            _, said = process.communicate(timeout=30)
        assert said == "", said
