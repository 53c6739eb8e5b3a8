"""docs/results.md names every key that the program writes, and no other; links in the documents lead somewhere."""

import csv
import json
import re

import pytest
import typer.main

from detector.types import Label, Reason
from tellframe import app
from tests.commands import ROOT, run
from tests.pipelines.evaluation.made import make_evaluation

RESULTS = ROOT / "docs" / "results.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "assets" / "README.md"])
CLIP = "assets/samples/fake.mp4"
PARTS = ("overall", "methods[]", "sources[]", "tiers[]", "robustness[]")  # of an evaluation


def documented(heading):
    """The first cells of the table under ``## heading``: what it documents."""
    sections = re.split(r"^## ", RESULTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(heading)]
    return set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))


def keys(value, prefix=""):
    """Paths of everything in ``value``: ``a.b`` for objects in objects, ``a[].b`` for objects in lists."""
    if isinstance(value, dict):
        return {path for key, inner in value.items() for path in keys(inner, f"{prefix}.{key}".lstrip("."))} | (
            {prefix} - {""}
        )
    if isinstance(value, list):
        return {prefix}.union(*(keys(inner, f"{prefix}[]") - {f"{prefix}[]"} for inner in value))
    return {prefix}


def with_parents(paths):
    """``paths`` and the objects that they are in: a table need not name an object that has nothing but its keys."""
    return {".".join(parts[: n + 1]) for parts in (path.split(".") for path in paths) for n in range(len(parts))}


STARS = {  # what they stand for, the longest first
    "latency_ms.*": [f"latency_ms.{stage}" for stage in ("find", "crop", "score", "total")],
    "*.*": [f"{part}.{level}" for part in PARTS for level in ("video", "frame", "image")],
    "*": PARTS,
}


def spelt_out(key):
    """The keys that a key with stars stands for."""
    for star, meanings in STARS.items():
        if key.startswith(star):
            return {key.replace(star, meaning, 1) for meaning in meanings}
    return {key}


def assert_documented(written, heading):
    table = set.union(*map(spelt_out, documented(heading)))
    assert written - with_parents(table) == set(), "written, but not in docs/results.md"
    assert table - written == set(), "in docs/results.md, but not written"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of what one run writes: clip.json, frames.jsonl, frames.csv."""
    folder = tmp_path_factory.mktemp("written")
    files = f"--json {folder}/clip.json --jsonl {folder}/frames.jsonl --csv {folder}/frames.csv"
    run(f"tellframe video {CLIP} --max-frames 40 {files}", folder)
    return folder


def test_the_keys_of_a_clip_are_documented(written):
    assert_documented(keys(json.loads((written / "clip.json").read_text())), "Clip:")


def test_the_keys_of_a_comparison_are_documented(tmp_path):
    names = "--model efficientnet_lite0_256_int8 --model efficientnet_lite0_256"
    run(
        f"tellframe compare {names} --data assets/samples --stride 30 --runs 30 --frames 90 --json {tmp_path}/c.json",
        tmp_path,
    )
    assert_documented(keys(json.loads((tmp_path / "c.json").read_text())), "Comparison:")


def test_the_keys_of_a_frame_are_documented(written):
    frames = [json.loads(line) for line in (written / "frames.jsonl").read_text().splitlines()]
    assert_documented(set.union(*map(keys, frames)), "Frame:")


def test_the_columns_of_the_csv_are_documented(written):
    with (written / "frames.csv").open(newline="") as file:
        assert_documented(set(next(csv.reader(file))), "Columns")


def test_the_keys_of_a_benchmark_are_documented(tmp_path):
    said = run("tellframe bench --frames 20 --warm-up 0 --json -", tmp_path).stdout
    assert_documented(keys(json.loads(said)), "Benchmark:")


def test_the_keys_of_the_governor_under_a_load_are_documented(tmp_path):
    said = run("tellframe bench --governor --load 1 --frames 20 --warm-up 0 --json -", tmp_path).stdout
    assert_documented(keys(json.loads(said)), "The governor")


def test_the_keys_of_an_evaluation_are_documented():
    assert_documented(keys(json.loads(make_evaluation().to_json())), "Evaluation:")


def test_the_keys_of_the_models_are_documented(tmp_path):
    said = run("tellframe models --json -", tmp_path).stdout
    assert_documented(set.union(*map(keys, json.loads(said))), "Models")


@pytest.mark.parametrize("word", [*Label, *Reason])
def test_every_verdict_and_reason_is_documented(word):
    assert f"`{word.value}`" in RESULTS.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(document):
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_that_are_named_exist(document):
    """Every ``--option`` in backquotes that stands beside a ``tellframe`` command."""
    commands = typer.main.get_command(app).commands
    known = {option for command in commands.values() for param in command.params for option in param.opts}
    for said in re.findall(r"`(tellframe [^`]+)`", document.read_text(encoding="utf-8")):
        assert set(re.findall(r"--[a-z][a-z-]+", said)) <= known | {"--help"}, said
        assert set(re.findall(r"^tellframe ([a-z]+)", said)) <= set(commands), said


def test_every_decision_has_its_parts():
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", page.name)
        text = page.read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        assert headings == ["Context", "Decision", "Consequences"], page.name
