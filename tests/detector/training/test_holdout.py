"""Holding people out: nobody on both sides, everything accounted for, every source gives its share."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.training.holdout import Split, split_by_identity
from detector.training.layouts import Kind, Medium, counts, discover
from detector.types import UsageError
from tests.detector.training.test_layouts import touch, write


def medium(name: str, fake: bool, source: str, who: Iterable[str]) -> Medium:
    method = "swap" if fake else "real"
    return Medium(Path("/") / source / name, name, fake, method, source, frozenset(who), Kind.VIDEO)


def in_(media: Iterable[Medium]) -> set[str]:
    return {person for here in media for person in here.identities}


@st.composite
def sets(draw: st.DrawFn) -> list[Medium]:
    """Media of a few sources, with people of their own and people they share."""
    who = st.sets(st.integers(0, 25).map("p{}".format), min_size=1, max_size=3)
    rows = draw(st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), who), max_size=40))
    return [medium(f"{i}.mp4", *row) for i, row in enumerate(rows)]


SHARES = st.floats(0, 1, exclude_max=True)


@given(sets(), SHARES, st.integers(0, 99))
def test_nobody_is_on_both_sides_and_every_medium_is_somewhere(media: list[Medium], share: float, seed: int) -> None:
    split = split_by_identity(media, share, seed)
    assert not in_(split.train) & in_(split.held_out)
    everything = [*split.train, *split.held_out, *split.straddling]
    assert len(everything) == len(media)
    assert set(everything) == set(media)
    assert all(len(here.identities) > 1 for here in split.straddling)
    if share == 0:
        assert set(split.train) == set(media)


@given(sets(), SHARES, st.integers(0, 99), st.randoms())
def test_the_order_of_the_media_does_not_matter(
    media: list[Medium], share: float, seed: int, chance: random.Random
) -> None:
    shuffled = chance.sample(media, len(media))
    assert split_by_identity(shuffled, share, seed) == split_by_identity(media, share, seed)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
)
def test_of_people_in_one_medium_each_every_source_gives_its_share(
    sizes: dict[str, int], share: float, seed: int
) -> None:
    media = [medium(f"{i}.jpg", False, source, {f"{source}/{i}"}) for source, n in sizes.items() for i in range(n)]
    split = split_by_identity(media, share, seed)
    for source, size in sizes.items():
        held_out = sum(here.source == source for here in split.held_out)
        assert abs(held_out - share * size) <= 1
        assert held_out < size
        assert held_out >= 1 or size == 1


def ffpp(compressions: tuple[str, ...] = ("c23",)) -> list[Medium]:
    """FaceForensics++ as published: 1000 originals, each swapped with one partner, both ways."""
    media = []
    for c in compressions:
        for i in range(1000):
            media.append(medium(f"{c}/{i:03d}.mp4", False, f"ffpp-{c}", {f"ffpp/{i:03d}"}))
            pair = {f"ffpp/{i:03d}", f"ffpp/{i ^ 1:03d}"}
            media.append(medium(f"{c}/{i:03d}_{i ^ 1:03d}.mp4", True, f"ffpp-{c}", pair))
    return media


def sizes_of(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.held_out), len(split.straddling)


def test_people_swapped_in_pairs_are_held_out_in_pairs() -> None:
    assert sizes_of(split_by_identity(ffpp(), 0.14, 0)) == (1720, 280, 0)
    assert sizes_of(split_by_identity(ffpp(), 0.2, 3)) == (1600, 400, 0)


def test_every_compression_of_a_clip_is_on_the_same_side() -> None:
    split = split_by_identity(ffpp(("c23", "c40")), 0.2, 0)
    assert sizes_of(split) == (3200, 800, 0)
    held_out = [{here.name[4:] for here in split.held_out if here.name.startswith(c)} for c in ("c23", "c40")]
    assert held_out[0] == held_out[1]


def test_where_all_are_swapped_with_all_both_sides_get_fakes() -> None:
    """Celeb-DF: 59 celebrities, and 300 clips of others, who must not use up the share."""
    stars = [f"id{i}" for i in range(59)]
    media = [medium(f"{a}.mp4", False, "celeb-df-v2", {a}) for a in stars]
    media += [medium(f"{a}_{b}.mp4", True, "celeb-df-v2", {a, b}) for a in stars for b in stars if a != b]
    media += [medium(f"{i:05d}.mp4", False, "celeb-df-v2", {f"{i:05d}"}) for i in range(300)]
    split = split_by_identity(media, 0.2, 0)
    stars_out = len(in_(split.held_out) & set(stars))
    assert stars_out == 12
    assert counts(split.held_out) == {"real": 72, "fake": 12 * 11}
    assert counts(split.train) == {"real": 287, "fake": 47 * 46}
    assert counts(split.straddling) == {"real": 0, "fake": 2 * 12 * 47}


def test_another_seed_draws_other_people() -> None:
    media = [medium(f"{i}.jpg", False, "lfw", {f"lfw/{i}"}) for i in range(200)]
    drawn = [in_(split_by_identity(media, 0.1, seed).held_out) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_out_of_its_range_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="at least 0 and below 1, got"):
        split_by_identity([], share, 0)


def test_a_data_set_on_disk_is_split_without_a_person_on_both_sides(tmp_path: Path) -> None:
    names = [f"real/{i}_{k}.jpg" for i in range(20) for k in range(3)]
    touch(tmp_path / "set", *names, "fake/gan/x.jpg", "fake/gan/y.jpg")
    write(tmp_path / "set/real.csv", "path,person\n" + "".join(f"{n[5:]},{n[5:].split('_')[0]}\n" for n in names))
    split = split_by_identity(discover(tmp_path / "set").media, 0.25, 5)
    assert counts(split.held_out) == {"real": 15, "fake": 1}
    assert counts(split.train) == {"real": 45, "fake": 1}
