"""Preparing: what is cut is what the detector is fed, nothing is done twice, nothing is lost without a word."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.engine import Detector, Model
from detector.faces import MediaPipeFaces
from detector.training.samples import SampleStore
from detector.training.validation import run_time_crop
from detector.types import Frame, NothingToAnalyseError, UsageError
from pipelines.sources import VideoFile
from pipelines.training.prepare import Plan, prepare_command
from tests.cli.run import FAKE, NO_FACE, REAL
from tests.doubles import make_card


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with two clips and a picture of real people, a fake, and four kinds of trouble."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("real", "fake"):
        (folder / name).mkdir()
    shutil.copy(REAL, folder / "real/a.mp4")
    shutil.copy(FAKE, folder / "fake/b.mp4")
    shutil.copy(NO_FACE, folder / "real/coffee.mp4")
    with VideoFile(REAL) as clip:
        picture = next(iter(clip)).bgr
    cv2.imwrite(str(folder / "real/portrait.png"), picture)
    (folder / "real/broken.jpg").write_bytes(b"no picture")
    (folder / "fake/broken.mp4").write_bytes(b"no clip")
    (folder / "fake/notes.doc").write_bytes(b"notes")
    return folder


def plan(folder, out, **changes):
    values = {
        "data": (str(folder),),
        "layout": "auto",
        "real": (),
        "fake": (),
        "out": str(out),
        "frames": 3,
        "hold_out": 0.0,
        "workers": 1,
        "seed": 0,
    }
    return Plan(**values | changes)


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "shards"
    prepare_command(plan(data, out))
    return out


def test_every_face_is_there_with_its_label_and_origin(shards):
    store = SampleStore(shards)
    found = sorted((origin.medium, origin.fake) for origin in store.origins)
    assert found == sorted([("real/a.mp4", False)] * 3 + [("fake/b.mp4", True)] * 3 + [("real/portrait.png", False)])
    assert sorted(o.frame for o in store.origins if o.medium == "real/a.mp4") == [20, 60, 100]


def test_landmarks_lie_on_the_face(shards):
    for sample in SampleStore(shards):
        low, high = sample.points.min(axis=0), sample.points.max(axis=0)
        box = np.concatenate([low, high])
        side = (sample.xyxy[2:] - sample.xyxy[:2]).max()
        assert np.abs(box - sample.xyxy).max() < 0.2 * side


class Recorder:
    """A scorer that keeps what it is fed."""

    def __init__(self):
        self.crops = []

    def score(self, crops):
        self.crops.append(crops.copy())
        return np.full(len(crops), 0.5, np.float32)


def test_training_validation_and_run_time_see_the_same_pixels(shards, data):
    """The crop of a prepared picture is, to the last bit, what the detector feeds its model for that picture."""
    sample = next(s for s in SampleStore(shards) if s.origin.medium == "real/portrait.png")
    bgr = cv2.imread(str(data / "real/portrait.png"))
    scorer, finder = Recorder(), MediaPipeFaces()
    card = make_card(input_size=256, crop_margin=1.2)
    try:
        Detector(finder, Model(card, scorer)).judge(Frame(bgr, 0, 0, 0))
    finally:
        finder.close()
    np.testing.assert_array_equal(run_time_crop(sample, 256, 1.2), scorer.crops[0])


def test_what_was_left_out_is_named(data, tmp_path, capsys):
    prepare_command(plan(data, tmp_path / "out"))
    out = capsys.readouterr().out
    assert re.search(r"left out, no face found of 48 px .*: 1: real/coffee\.mp4", out)
    assert "left out, cannot be read as a picture; check that it opens in a viewer: 1: real/broken.jpg" in out
    assert re.search(r"left out, cannot be read as video: .*: 1: fake/broken\.mp4", out)
    assert "fake/notes.doc" in out
    names = [name for names in json.loads((tmp_path / "out/left_out.json").read_text()).values() for name in names]
    assert sorted(names) == ["fake/broken.mp4", "fake/notes.doc", "real/broken.jpg", "real/coffee.mp4"]
    assert "4 real, 2 fake" in out


def test_a_second_run_does_nothing_again(data, shards):
    def times():
        return {path: path.stat().st_mtime_ns for path in shards.glob("shard-*")}

    before = times()
    prepare_command(plan(data, shards))
    assert times() == before


def test_a_shard_that_is_missing_or_cut_short_is_made_again_the_same(data, shards, tmp_path):
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    shard = next(copy.glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1000])
    prepare_command(plan(data, copy, workers=2))
    assert shard.read_bytes() == whole


def test_shards_of_other_settings_are_not_mixed(data, shards):
    with pytest.raises(UsageError, match="holds shards of other data or settings"):
        prepare_command(plan(data, shards, frames=5))


def test_a_label_that_changed_is_not_ignored(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(REAL, data / "a.mp4")
    (data / "list.csv").write_text("path,label\na.mp4,0\n")
    prepare_command(plan(data, tmp_path / "out", frames=1))
    (data / "list.csv").write_text("path,label\na.mp4,1\n")
    with pytest.raises(UsageError, match="holds shards of other data or settings"):
        prepare_command(plan(data, tmp_path / "out", frames=1))


def test_a_medium_is_not_real_and_fake(data, tmp_path):
    with pytest.raises(UsageError, match="is named as real and as fake"):
        prepare_command(plan("", tmp_path, data=(), real=(str(data / "real"),), fake=(str(data / "real"),)))


def test_names_that_are_not_text_are_taken_and_shown(tmp_path, capsys):
    data = tmp_path / "data/real"
    data.mkdir(parents=True)
    shutil.copy(REAL, os.fsencode(data) + b"/a\xff\n.mp4")
    (data / os.fsdecode(b"b\xff.mp4")).write_bytes(b"no clip")
    prepare_command(plan(data.parent, tmp_path / "out", frames=1))
    assert SampleStore(tmp_path / "out").origins[0].medium == os.fsdecode(b"real/a\xff\n.mp4")
    assert "real/b\\udcff.mp4" in capsys.readouterr().out


def test_people_are_held_out(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    for name in ("real", "fake"):
        (data / name).mkdir(parents=True)
    for i in range(3):
        shutil.copy(REAL, data / f"real/{i}.mp4")
        shutil.copy(FAKE, data / f"fake/{i}.mp4")
    prepare_command(plan(data, out, frames=1, hold_out=0.34))
    sides = [{(o.source, o.medium) for o in SampleStore(out / side).origins} for side in ("train", "held_out")]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [4, 2]


def test_plain_folders_of_one_class_need_no_layout(data, tmp_path):
    real, fake = str(data / "real"), str(data / "fake")
    prepare_command(plan(data, tmp_path / "out", data=(), real=(real,), fake=(fake,), frames=1))
    assert {o.fake for o in SampleStore(tmp_path / "out").origins} == {True, False}


def test_data_without_a_face_is_refused(tmp_path):
    data = tmp_path / "data/real"
    data.mkdir(parents=True)
    shutil.copy(NO_FACE, data / "a.mp4")
    with pytest.raises(NothingToAnalyseError, match="no face was found in any of 1"):
        prepare_command(plan(Path(data).parent, tmp_path / "out"))


def test_nothing_named_is_refused(tmp_path):
    with pytest.raises(UsageError, match="name the data"):
        prepare_command(plan("", tmp_path, data=()))
