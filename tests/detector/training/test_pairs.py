"""Pairs: one number, one pair; people and sources as asked; damage is replaced and named."""

import numpy as np
import pytest

from detector.training import pairs
from detector.training.pairs import KINDS, Mix, PairMaker
from detector.training.samples import SampleStore, write_shard
from detector.training.validation import run_time_crop
from detector.types import NothingToAnalyseError, UsageError
from tests.detector.training.made import make_points, make_sample, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return SampleStore(write_store(tmp_path_factory.mktemp("store")))


def make(store, seed=0, **mix):
    return PairMaker(store, Mix(**{"size": 64} | mix), seed, 100)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_is_a_real_crop_and_a_fake_one(store, kind):
    pair = make(store, kinds={kind: 1.0})[3]
    assert pair.crops.shape == (2, 64, 64, 3)
    assert pair.crops.dtype == np.uint8
    assert KINDS[pair.kind] == kind
    assert pair.failed == ()
    assert (pair.crops[0] != pair.crops[1]).any()


def test_a_number_gives_one_pair_whoever_makes_it(store):
    ours, theirs = make(store), make(store)
    for number in (7, 2, 7):
        np.testing.assert_array_equal(ours[number].crops, theirs[number].crops)
    assert (ours[7].crops != ours[8].crops).any()
    assert (ours[7].crops != make(store, seed=1)[7].crops).any()


def test_without_processing_a_reenacted_pair_has_an_untouched_real(store):
    """The real half is then, to the last bit, the run-time crop of a sample or its mirror image."""
    maker = make(store, kinds={"reenact": 1.0}, processing=0.0, margin=(1.2, 1.2), shift=0.0)
    crops = [crop for sample in store if not sample.origin.fake for crop in run_time_crop(sample, 64, 1.2)]
    for number in range(5):
        real, fake = maker[number].crops
        assert sum((real == crop).all() or (real == crop[:, ::-1]).all() for crop in crops) == 1
        assert not any((fake == crop).all() or (fake == crop[:, ::-1]).all() for crop in crops)


def test_a_paste_leaves_its_real_half_and_what_lies_around_the_face(store):
    """But for the shrinking and the JPEG, which both halves go through."""
    maker = make(store, kinds={"paste": 1.0}, processing=0.0, margin=(1.2, 1.2), shift=0.0)
    crops = [crop for sample in store if not sample.origin.fake for crop in run_time_crop(sample, 64, 1.2)]
    mirrored = np.stack([view for crop in crops for view in (crop, crop[:, ::-1])]).astype(int)
    for number in range(12):
        real, fake = maker[number].crops.astype(int)
        nearest, second = np.sort(np.abs(mirrored - real).mean(axis=(1, 2, 3)))[:2]
        assert nearest < 6
        assert second > 4 * nearest
        changed = np.abs(real - fake)
        assert changed[24:40, 24:40].mean() > 8
        for corner in (np.s_[:5, :5], np.s_[:5, -5:], np.s_[-5:, :5], np.s_[-5:, -5:]):
            assert changed[corner].mean() < 1


def test_both_halves_of_a_paste_have_a_face_of_the_size_in_a_group(store):
    maker = make(store, kinds={"paste": 1.0})
    for seed in range(12):
        forged = maker._forge(seed % 6, "paste", np.random.default_rng(seed))
        np.testing.assert_array_equal(forged.real_xyxy, forged.fake_xyxy)
        assert forged.real.shape == forged.fake.shape
        side = np.ptp(forged.real_xyxy.reshape(2, 2), axis=0).max()
        assert 70 <= side <= 120  # the samples' own size
        assert side * (1.05 + 0.04) <= max(forged.real.shape) + 1  # the picture was shrunk with its box


def test_about_half_of_the_pasted_faces_are_fakes_of_the_nearest_shape(store):
    maker = make(store, kinds={"paste": 1.0}, fake_donors=0.0)
    donors = [maker._paste_donor(2, np.random.default_rng(seed)) for seed in range(300)]
    fakes = [donor for donor in donors if store.origins[donor].fake]
    assert len(fakes) / len(donors) == pytest.approx(0.55, abs=0.09)
    assert not any("p2" in store.origins[donor].identities for donor in donors if donor not in fakes)
    ours = pairs._shape(store.points(2))
    nearest = min(maker._given, key=lambda i: ((pairs._shape(store.points(int(i))) - ours) ** 2).sum())
    assert fakes.count(nearest) / len(fakes) > 0.95  # 12 draws of 3 seldom miss one


@pytest.mark.parametrize(("kind", "gentle", "share"), [("swap", 0.3, 0.3), ("given", 1.0, 1.0), ("paste", 0.0, 0.8)])
def test_a_share_of_the_pairs_is_processed_at_a_quarter_of_the_strength(store, kind, gentle, share):
    maker = make(store, gentle=gentle, processing=0.8)
    rng = np.random.default_rng(0)
    strengths = [maker._strength(kind, rng) for _ in range(2000)]
    assert set(strengths) <= {0.8, 0.2}
    assert strengths.count(0.2) / len(strengths) == pytest.approx(share, abs=0.04)


def test_without_gentle_pairs_nothing_is_drawn_for_them(store):
    """So that a recipe gives the pairs that it gave before there were any."""
    rng, untouched = np.random.default_rng(0), np.random.default_rng(0)
    assert make(store)._strength("swap", rng) == 1.0
    assert rng.bit_generator.state == untouched.bit_generator.state


def test_gentle_pairs_stay_nearer_to_the_samples(store):
    def distance(**mix):
        """From the same crops without any processing."""
        plain, maker = (make(store, kinds={"reenact": 1.0}, **each) for each in ({"processing": 0.0}, mix))
        return np.mean([np.abs(plain[i].crops[0].astype(int) - maker[i].crops[0]).mean() for i in range(25)])

    assert distance(gentle=1.0) < 0.6 * distance(gentle=0.0)


def test_sources_weigh_what_they_are_given(store):
    maker = make(store, sources={"a": 1.0, "b": 0.0})
    drawn = {store.origins[maker._real[int(i)]].source for i in np.flatnonzero(maker._odds)}
    assert drawn == {"a"}


def test_a_donor_is_another_person(store):
    maker = make(store, kinds={"swap": 1.0}, fake_donors=0.0)
    for index in range(6):
        for seed in range(10):
            donor = maker._donor(index, np.random.default_rng(seed))
            ours, theirs = (store.origins[i].identities for i in (maker._real[index], donor))
            assert not set(ours) & set(theirs)


@pytest.mark.parametrize("kind", ["swap", "paste"])
def test_one_person_alone_is_not_swapped(tmp_path, kind):
    write_shard(tmp_path / "a.tar", [make_sample(i, medium=f"{i}", who=("same",)) for i in range(3)])
    store = SampleStore(tmp_path)
    maker = make(store, kinds={kind: 0.8, "given": 0.1, "self_blend": 0.1})
    assert {KINDS[maker[i].kind] for i in range(10)} == {"self_blend"}
    with pytest.raises(UsageError, match=f"hold nothing that {kind} can be made of"):
        make(store, kinds={kind: 1.0})


def test_without_fakes_in_the_shards_another_person_is_pasted(tmp_path):
    store = SampleStore(write_store(tmp_path, fakes=0))
    maker = make(store, kinds={"paste": 1.0})
    assert KINDS[maker[0].kind] == "paste"
    assert 2 not in {maker._paste_donor(2, np.random.default_rng(seed)) for seed in range(20)}


def test_a_shape_is_free_of_place_size_and_roll():
    points = make_points()
    turn = 1.7 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    np.testing.assert_allclose(pairs._shape((points @ turn.T + 9).astype(np.float32)), pairs._shape(points), atol=1e-4)


def test_a_given_fake_is_of_the_same_person_where_there_is_one(tmp_path):
    real = [make_sample(0, medium="r", who=("x",))]
    fake = [make_sample(1, medium="x", fake=True, who=("x", "y")), make_sample(2, medium="z", fake=True, who=("z",))]
    write_shard(tmp_path / "a.tar", [*real, *fake])
    maker = make(SampleStore(tmp_path), kinds={"given": 1.0}, processing=0.0, margin=(1.2, 1.2), shift=0.0)
    expected = run_time_crop(fake[0], 64, 1.2)[0]
    for number in range(6):
        crop = maker[number].crops[1]
        assert (crop == expected).all() or (crop == expected[:, ::-1]).all()


def test_without_fakes_in_the_shards_the_other_kinds_share_the_weight(tmp_path):
    maker = make(SampleStore(write_store(tmp_path, fakes=0)), kinds={"given": 0.9, "reconstruct": 0.1})
    assert {KINDS[maker[i].kind] for i in range(6)} == {"reconstruct"}


@pytest.mark.parametrize("part", [0, 1, 2], ids=["picture", "landmarks", "description"])
def test_a_damaged_sample_is_replaced_and_named(tmp_path, part):
    folder = write_store(tmp_path, reals=4, fakes=0)
    shard = folder / "shard-00000.tar"
    store = SampleStore(folder)
    offset, size = store._entries[1].spans[part]
    data = bytearray(shard.read_bytes())
    data[offset : offset + size] = bytes(size)
    shard.write_bytes(data)
    maker = make(store, kinds={"self_blend": 0.5, "swap": 0.25, "paste": 0.25})
    made = [maker[i] for i in range(20)]
    assert all(pair.crops.shape == (2, 64, 64, 3) for pair in made)
    named = {name for pair in made for name in pair.failed}
    assert named == {f"{shard}: sample 1 is damaged; run `tellframe prepare` again"}


def test_shards_without_a_real_face_are_refused(tmp_path):
    write_shard(tmp_path / "a.tar", [make_sample(fake=True)])
    with pytest.raises(NothingToAnalyseError, match="no real face"):
        make(SampleStore(tmp_path))


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"kinds": {"magic": 1.0}}, "no kind of fake is called magic; there are: self_blend"),
        ({"kinds": {"swap": 0.0}}, "not be negative, nor all 0"),
        ({"margin": (0.9, 1.2)}, "margin must be a range from 1 up"),
        ({"gentle": 1.1}, "gentle must be in 0..1, got 1.1"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(mix, message):
    with pytest.raises(UsageError, match=message):
        Mix(**mix)


def test_a_source_that_is_not_there_is_named(store):
    with pytest.raises(UsageError, match="no real faces come from nowhere; there are: a, b"):
        make(store, sources={"nowhere": 1.0})
