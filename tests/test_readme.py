"""Every command of the README is run as it stands there.

A line of a ```bash block is a command; a block with a multi-line string is one command. What a comment at its end says
is the rule: ``# exits with 3`` (or ``0 or 1``) names the exit codes, otherwise 0 is expected; ``# needs ffmpeg`` (a
camera, a browser) keeps a command from being run, and only its options are checked.
"""

import re
import shlex

import pytest
import typer.main

from detector import types
from pipelines.exits import EXIT_FAIL_ON, EXIT_INTERRUPTED
from tellframe import app
from tests.commands import ROOT, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:bash|console)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands_of(block):
    return [block.strip()] if block.count('"') % 2 == 0 and '"\n' in block else block.strip().splitlines()


COMMANDS = [command for block in BLOCKS for command in commands_of(block) if re.search(r"\btellframe [a-z]", command)]
RUN = [command for command in COMMANDS if "# needs " not in command]
CHECKED = [command for command in COMMANDS if "# needs " in command]


def exits(command):
    said = re.search(r"# exits with ([\d, or]+)", command)
    return tuple(map(int, re.findall(r"\d+", said[1]))) if said else (0,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the reader works; what one command writes is there for the next."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize("command", RUN)
def test_a_command_does_what_the_readme_says(command, folder):
    run(command, folder, exits(command))
    for written in re.findall(r"--(?:json|jsonl|csv|save-video) ([\w.]+)", command):
        assert (folder / written).stat().st_size > 0


@pytest.mark.parametrize("command", CHECKED)
def test_a_command_that_is_not_run_has_options_that_exist(command, folder):
    ours = command.partition("#")[0].rpartition("|")[2]
    run(f"{ours} --help", folder)  # an option that does not exist is refused before --help is looked at


def test_every_sub_command_has_an_example():
    shown = {word for command in COMMANDS for word in re.findall(r"\btellframe ([a-z]+)", command)}
    assert shown == set(typer.main.get_command(app).commands)


def test_every_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, document


def test_every_exit_code_is_in_the_table():
    errors = [types.TellframeError, *types.TellframeError.__subclasses__()]
    signals = {129, EXIT_INTERRUPTED, 143}
    codes = {0, EXIT_FAIL_ON, 141, *signals, *(error.exit_code for error in errors)}
    rows = re.findall(r"^\| (\d[\d, ]*) \|", README, re.MULTILINE)
    assert {int(code) for row in rows for code in row.split(",")} == codes


def test_the_packages_of_the_quick_start_are_those_that_are_checked():
    (line,) = re.findall(r"^apt-get .* install -y ([^#]*)", README, re.MULTILINE)
    check = (ROOT / ".ci" / "check-system").read_text(encoding="utf-8").replace('"$glib"', "libglib2.0-0")
    packages = set(re.findall(r"^(?: +|[^#\n]*\|\| )lacks .* (\S+)$", check, re.MULTILINE))
    assert set(shlex.split(line)) - {"git"} == packages
