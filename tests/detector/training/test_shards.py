"""Samples and shards: nothing changes on the way through a file, damage is told, crops are the run-time ones."""

import subprocess

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.crop import crop_faces
from detector.training.samples import FaceSample, SampleStore, cut_region, write_shard
from detector.training.validation import run_time_crop
from detector.types import InputError, NothingToAnalyseError
from tests.detector.training.made import make_origin, make_points, make_sample, write_store


def test_a_sample_comes_back_as_it_was(tmp_path):
    samples = [make_sample(i, medium=f"{i} é.png", who=("b", "a"), frame=i) for i in range(3)]
    assert write_shard(tmp_path / "a.tar", samples) == 3
    for ours, theirs in zip(samples, SampleStore(tmp_path), strict=True):
        np.testing.assert_array_equal(ours.rgb, theirs.rgb)
        np.testing.assert_array_equal(ours.xyxy, theirs.xyxy)
        np.testing.assert_array_equal(ours.points, theirs.points)
        assert ours.origin == theirs.origin


def test_points_alone_are_those_of_the_sample(tmp_path):
    store = SampleStore(write_store(tmp_path))
    for i in (0, 3):
        np.testing.assert_array_equal(store.points(i), store[i].points)


def test_any_tar_lists_a_shard(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample()])
    names = subprocess.run(["tar", "tf", tmp_path / "a.tar"], capture_output=True, text=True, check=True).stdout.split()
    assert names == ["000000.png", "000000.landmarks.npy", "000000.json"]


def test_a_failed_shard_leaves_nothing(tmp_path):
    def samples():
        yield make_sample()
        raise InputError("gone")

    with pytest.raises(InputError):
        write_shard(tmp_path / "a.tar", samples())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0.35, 0.7, 0.97])
def test_a_shard_cut_short_gives_its_whole_samples_and_is_named(tmp_path, keep):
    shard = tmp_path / "a.tar"
    write_shard(shard, [make_sample(i, medium=f"{i}.png") for i in range(4)])
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(keep * len(whole))])
    store = SampleStore(tmp_path)
    assert 1 <= len(store) <= 4
    assert [sample.origin.medium for sample in store] == [f"{i}.png" for i in range(len(store))]
    assert store.damaged
    assert all(damage.shard == shard and damage.reason for damage in store.damaged)


def test_a_shard_of_noise_is_named_and_the_others_are_read(tmp_path):
    write_store(tmp_path)
    (tmp_path / "shard-00002.tar").write_bytes(np.random.default_rng(0).bytes(4000))
    store = SampleStore(tmp_path)
    assert len(store) == 9
    assert [damage.shard.name for damage in store.damaged] == ["shard-00002.tar"]


@pytest.mark.parametrize("damage", ["a header", "a block of zeros"])
def test_what_follows_a_damaged_header_is_not_lost_in_silence(tmp_path, damage):
    shard = tmp_path / "a.tar"
    write_shard(shard, [make_sample(i, medium=f"{i}.png") for i in range(4)])
    data = bytearray(shard.read_bytes())
    at = data.index(b"000002.png")
    data[at : at + 512] = bytes(512) if damage == "a block of zeros" else data[at : at + 148] + b"x" * 364
    shard.write_bytes(data)
    store = SampleStore(tmp_path)
    assert [sample.origin.medium for sample in store] == ["0.png", "1.png"]
    assert [d.reason for d in store.damaged] == ["damaged after a whole sample; run `tellframe prepare` again"]


def test_a_damaged_picture_is_an_error_that_names_the_shard(tmp_path):
    shard = tmp_path / "a.tar"
    write_shard(shard, [make_sample()])
    data = bytearray(shard.read_bytes())
    data[512:600] = bytes(88)  # after the header of the first member: the head of the PNG
    shard.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar: sample 0 is damaged"):
        SampleStore(tmp_path)[0]


def test_no_folder_and_no_sample_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        SampleStore(tmp_path / "none")
    with pytest.raises(NothingToAnalyseError, match="no sample"):
        SampleStore(tmp_path)


@given(
    left=st.floats(-30, 330, width=32),
    top=st.floats(-30, 210, width=32),
    width=st.floats(20, 160, width=32),
    height=st.floats(20, 160, width=32),
    margin=st.sampled_from([1.05, 1.2, 1.3, 1.5]),
)
def test_training_and_run_time_cut_the_same_pixels(left, top, width, height, margin):
    """The region that a sample keeps gives the very crop that the whole picture gives, also at the picture's edges."""
    bgr = np.random.default_rng(3).integers(0, 256, (240, 360, 3), np.uint8)
    # To an eighth of a pixel, so that moving the box is exact and a difference is the geometry's.
    xyxy = np.round(np.array([left, top, left + width, top + height], np.float32) * 8) / 8
    if not ((xyxy[:2] < (355, 235)).all() and (xyxy[2:] > 5).all()):
        return  # no part of such a box is in the picture: no finder gives it
    rgb, moved = cut_region(bgr, xyxy)
    sample = FaceSample(rgb, moved, make_points(), make_origin())
    np.testing.assert_array_equal(run_time_crop(sample, 64, margin), crop_faces(bgr, xyxy[None], 64, margin))


def test_a_region_is_rgb():
    bgr = np.zeros((100, 100, 3), np.uint8)
    bgr[..., 0] = 200
    rgb, _ = cut_region(bgr, np.array([30, 30, 60, 60], np.float32))
    np.testing.assert_array_equal(rgb, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)[: len(rgb), : rgb.shape[1]])


@pytest.mark.parametrize(("name", "value"), [("xyxy", np.zeros(4)), ("points", np.zeros((3, 2), np.float32))])
def test_a_sample_is_checked_where_it_is_made(name, value):
    sample = make_sample()
    values = {"rgb": sample.rgb, "xyxy": sample.xyxy, "points": sample.points, "origin": sample.origin}
    with pytest.raises(ValueError, match=name):
        FaceSample(**values | {name: value})
