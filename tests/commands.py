"""Runs commands as a reader of the documents would: in a shell, beside the assets."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(script, folder, exits=(0,)):
    """Runs a bash ``script`` in ``folder``, with the repository's assets in it and this Python's programs first.

    Returns:
        The finished process; its exit code is one of ``exits``, or the test fails with what it said.
    """
    assets = folder / "assets"
    if not assets.exists():
        assets.symlink_to(ROOT / "assets")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode in exits, f"{script}\nexited with {process.returncode}:\n{process.stdout}{process.stderr}"
    return process
