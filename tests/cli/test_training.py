"""A researcher's way from clips to a calibrated model, and what each command says when something is wrong."""

import json
import shutil
import sys

import pytest

from detector.models import find
from tests.cli.run import FAKE, REAL, SAMPLES, tellframe

RECIPE = """
steps = 2
pairs = 2
sam_rho = 0.0
frozen_stages = 3
validate_every = 1
[mix]
size = 64
[mix.kinds]
self_blend = 0.5
reenact = 0.5
"""


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """The whole way, once: what every command said, in the folder of its files."""
    folder = tmp_path_factory.mktemp("way")
    for label, clips in (("real", (REAL, SAMPLES / "two_faces.mp4")), ("fake", (FAKE,))):
        (folder / "data" / label).mkdir(parents=True)
        for clip in clips:
            shutil.copy(clip, folder / "data" / label)
    (folder / "recipe.toml").write_text(RECIPE)
    said = {}

    def do(name, *arguments):
        said[name] = tellframe(name, *arguments, cwd=folder)
        assert said[name].code == 0, said[name].err

    do("prepare", "data", "--out", "shards", "--frames", 3, "--workers", 1)
    run = ("--data", "shards", "--validation", "shards", "--out", "run", "--recipe", "recipe.toml")
    do("train", *run, "--workers", 0, "--threads", 1)
    do("export", "run/final.pt", "--out", "model.onnx", "--size", 64, "--trained-on", "three clips")
    before = find(folder / "model.onnx").card
    # Two real clips promise little: that half of them pass.
    rule = ("--real-passes", 0.5, "--fake-caught", 0.5)
    do("calibrate", "--model", "model.onnx", "--data", "data", "--stride", 4, *rule)
    files = ("--json", "evaluation.json", "--html", "evaluation.html", "--on-card", "three clips")
    do("evaluate", "--data", "data", "--model", "model.onnx", "--stride", 4, "--no-tiers", *files)
    return folder, said, before


def test_faces_are_counted(way):
    _, said, _ = way
    assert "2 real, 1 fake" in said["prepare"].out
    assert said["prepare"].err == ""


def test_training_tells_what_it_does(way):
    folder, said, _ = way
    lines = said["train"].err.splitlines()
    assert lines[0] == "9 samples; 2 steps of 2 pairs on cpu, from 0"
    assert lines[-1].startswith("done: run/final.pt; best validation AUC")
    assert {"best.pt", "final.pt", "last.pt", "log.csv", "log.png"} <= {
        path.name for path in (folder / "run").iterdir()
    }


def test_the_model_judges_a_clip(way):
    folder, _, before = way
    assert before.trained_on == ("three clips",)
    done = tellframe("video", FAKE, "--model", "model.onnx", "--max-frames", 8, "--json", "-", cwd=folder)
    assert done.code == 0
    assert done.records()[0]["model"]["name"] == "model"


def test_calibration_is_in_the_model_and_on_its_card(way):
    folder, said, before = way
    after = find(folder / "model.onnx").card  # which checks the file against the card
    assert after.sha256 != before.sha256
    note = after.measured["calibration"]
    assert (note["real_clips"], note["fake_clips"]) == (2, 1)
    assert set(note["real_called_fake"]) == {"as it is", "768 px q60", "512 px q40"}
    assert "real clips above the FAKE threshold, 512 px q40" in said["calibrate"].out


def test_a_dry_run_changes_nothing(way):
    folder, _, _ = way
    before = (folder / "model.onnx").read_bytes(), (folder / "model.json").read_bytes()
    rule = ("--real-passes", 0.5, "--fake-caught", 0.5, "--stride", 8, "--dry-run")
    assert tellframe("calibrate", "--model", "model.onnx", "--data", "data", *rule, cwd=folder).code == 0
    assert before == ((folder / "model.onnx").read_bytes(), (folder / "model.json").read_bytes())


def test_evaluation_writes_figures_and_a_page_and_a_note_on_the_card(way):
    folder, _, _ = way
    figures = json.loads((folder / "evaluation.json").read_text())
    noted = find(folder / "model.onnx").card.measured["three clips"]["clips"]
    assert (noted["reals"], noted["fakes"]) == (2, 1)
    assert noted["auc"] == round(figures["overall"]["video"]["auc"], 3)
    assert figures["schema"] == "tellframe.evaluation/1"
    assert {clip["name"] for clip in figures["clips"]} == {"real/real.mp4", "real/two_faces.mp4", "fake/fake.mp4"}
    assert (folder / "evaluation.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("prepare",), 2, "name the data"),
        (("prepare", "nowhere"), 3, "nowhere"),
        (("train", "--data", "nowhere", "--out", "run"), 3, "no such directory; make shards"),
        (("train", "--data", ".", "--out", "run"), 4, "no sample in any shard"),
        (("train", "--data", ".", "--out", "run", "--recipe", "none.toml"), 2, "no recipe at none.toml"),
        (("export", "none.pt", "--out", "m.onnx"), 5, "no checkpoint at none.pt"),
        (("export", "none.pt", "--out", "m.bin"), 2, "--out is an .onnx file"),
        (("export", "none.pt", "--out", "m.onnx", "--size", "100"), 2, "multiple of 32"),
        (("calibrate", "--model", "a_name", "--data", "."), 2, "give the path of an .onnx file"),
        (("calibrate", "--model", "none.onnx", "--data", "."), 5, "no model at none.onnx"),
        (("compress", "--data", "nowhere", "--out", "small"), 3, "no such directory; make shards"),
        (("compress", "--data", ".", "--out", "small", "--recipe", "none.toml"), 2, "no recipe at none.toml"),
        (("compress", "--data", ".", "--out", "small", "--policy", "none.json"), 3, "none.json: cannot be read"),
        (("evaluate", "--data", "nowhere"), 3, "nowhere"),
        (("bench", "--on-card", " "), 2, "needs a heading"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, code, message, tmp_path):
    done = tellframe(*arguments, cwd=tmp_path)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def without(package):
    """The program on an install that lacks ``package``."""
    return sys.executable, "-c", f"import sys; sys.modules[{package!r}] = None; import tellframe; tellframe.main()"


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("torch", ("train", "--data", ".", "--out", "run")),
        ("accelerate", ("train", "--data", ".", "--out", "run")),
        ("torch_pruning", ("compress", "--data", ".", "--out", "small")),
        ("onnx", ("calibrate", "--model", "m.onnx", "--data", ".")),
        ("torch", ("export", "a.pt", "--out", "m.onnx")),
        ("torch", ("evaluate", "--data", str(SAMPLES.parent), "--model", "a.pt")),
        ("matplotlib", ("evaluate", "--data", ".", "--html", "a.html")),
    ],
)
def test_a_missing_package_of_the_extra_is_named(package, arguments, tmp_path):
    for label, clip in (("real", REAL), ("fake", FAKE)):
        (tmp_path / label).mkdir()
        shutil.copy(clip, tmp_path / label)
    arguments = tuple("." if a == str(SAMPLES.parent) else a for a in arguments)
    done = tellframe(*arguments, cwd=tmp_path, program=without(package))
    assert done.code == 2
    assert f"needs {package}, which is not installed; pip install 'tellframe[train]'" in done.err
    assert done.err.count("\n") == 1
