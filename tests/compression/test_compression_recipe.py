"""Recipes of a compression: what stands in the file is what is done, and what makes no sense is named."""

import dataclasses
import re
from pathlib import Path

import pytest

from compression.joint import JointRecipe
from compression.recipe import FASTER, DetectorRecipe, Recipe, Targets
from detector.types import UsageError

DOCUMENT = Path(__file__).parents[2] / "docs" / "compression.md"


def test_every_key_has_a_default_and_can_be_written(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'start = "a.pt"\nsizes = [192, 224]\nratios = [0.5]\nbits = [32, 8]\nseed = 3\n'
        "[bounds]\nlatency_ms = 5\nmax_drop = 0.02\n[joint]\nsteps = 7\nmilestones = 1\n[mix]\nmargin = [1.1, 1.3]\n"
    )
    recipe = DetectorRecipe.read(path)
    assert (recipe.start, recipe.sizes, recipe.ratios, recipe.bits, recipe.seed) == (
        "a.pt", (192, 224), (0.5,), (32, 8), 3,
    )  # fmt: skip
    assert recipe.bounds == Targets(latency_ms=5, max_drop=0.02)
    assert recipe.joint == JointRecipe(steps=7, milestones=1)
    assert recipe.mix.margin == (1.1, 1.3)
    path.write_text("")
    assert DetectorRecipe.read(path) == DetectorRecipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sises = [224]", "unknown key sises; there are: ratios, bits"),
        ("[bounds]\nlatency = 5", "bounds: unknown key latency; there are: latency_ms, frame_ms"),
        ("[joint]\nstep = 5", "joint: unknown key step; there are: steps"),
        ("[mix]\nsise = 5", "mix: unknown key sise"),
        ("bounds = 3", "bounds must be a table, got 3"),
        ("sizes = 224", "sizes must be a list of whole numbers, got 224"),
        ("sizes = [224.5]", "sizes must be a list of whole numbers"),
        ("ratios = ['half']", "ratios must be a list of numbers"),
        ("sizes = [200]", r"sizes are multiples of 32, 32..1024 px, got 200"),
        ("sizes = []", "sizes must name at least one"),
        ("sizes = [64, 64]", "sizes must differ"),
        ("ratios = [1.5]", "ratios must be in 0..1"),
        ("bits = [8, 7]", "bits must be among 32, 8, 6, 4, got "),
        ("rounds = 0", "rounds must be at least 1, got 0"),
        ("runs = 3", "runs must be at least 30, got 3"),
        ("swaps = -1", "swaps must not be negative, got -1"),
        ("sensitivity_images = 0", "sensitivity_images must be at least 1"),
        ("calibration_images = 0", "calibration_images must be at least 1"),
        ("pairs = 0", "pairs must be at least 1"),
        ("pool_pairs = 2", "pool_pairs must be at least a batch of 16, got 2"),
        ("seed = -1", "seed must not be negative"),
        ("[bounds]\nlatency_ms = -5", "bounds: latency_ms must be above 0, got -5"),
        ("[bounds]\nlatency_ms = 'fast'", "bounds: latency_ms must be a number, got 'fast'"),
        ("[bounds]\nfaster = 0.5", "bounds: faster is how many times faster, above 1, got 0.5"),
        ("[bounds]\nshare = 1.5", "bounds: share is a share of the dense network's bytes"),
        ("[bounds]\nmax_drop = 0", "bounds: max_drop must be above 0"),
        ("[joint]\nsteps = 0", "joint: steps must be at least 1"),
        ("steps = ", "not a TOML recipe"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        DetectorRecipe.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no recipe at .*r\.toml"):
        DetectorRecipe.read(tmp_path / "r.toml")


def test_without_a_bound_some_speed_is_asked_for():
    assert Recipe().bounds.asked_faster == FASTER
    assert Targets(share=0.2).asked_faster is None
    assert Targets(share=0.2, faster=3.0).asked_faster == 3.0


def test_the_document_lists_every_key():
    kinds = {"": DetectorRecipe, "bounds.": Targets, "joint.": JointRecipe}
    tables = {"bounds", "joint", "mix"}
    wanted = {p + f.name for p, kind in kinds.items() for f in dataclasses.fields(kind) if f.name not in tables}
    rows = re.findall(r"^\| (`[a-z_.`, ]+`) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`([a-z_.]+)`", row)} == wanted | {"mix"}
