"""Holding people out of training: nobody who is trained on is tested on. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detector.training.layouts import Medium
from detector.types import UsageError


@dataclass(frozen=True, slots=True)
class Split:
    """Media with nobody in ``train`` who is in ``held_out``; each by source and name.

    ``straddling`` has the media of people of both sides: they belong to neither.
    """

    train: tuple[Medium, ...]
    held_out: tuple[Medium, ...]
    straddling: tuple[Medium, ...]


def split_by_identity(media: Iterable[Medium], share: float, seed: int) -> Split:
    """Holds out ``share`` of the people of every source, rounded, and all that they are in.

    People who share fakes stay together where they are few (FaceForensics++ swaps in pairs): little straddles then.
    Where all are mixed with all (Celeb-DF, DFD) they are drawn one by one. Of a source with more than one person, at
    least one is wanted on either side. The draw depends on ``seed`` and the people, not on the order of ``media``.

    Args:
        media: of any number of sets; people are the same where they are called the same.
        share: 0..1, 1 excluded; 0 holds nobody out.
        seed: another one draws other people.

    Raises:
        UsageError: ``share`` is out of its range.
    """
    if not 0.0 <= share < 1.0:
        raise UsageError(f"the share of people to hold out is at least 0 and below 1, got {share:g}")
    ordered = sorted(media, key=lambda medium: (medium.source, medium.name, medium.path))
    held_out = _drawn(ordered, share, seed)
    sides: dict[frozenset[bool], list[Medium]] = defaultdict(list)
    for medium in ordered:
        sides[frozenset(person in held_out for person in medium.identities)].append(medium)
    train, out, both = (tuple(sides[frozenset(side)]) for side in ((False,), (True,), (False, True)))
    return Split(train, out, both)


def _drawn(media: Sequence[Medium], share: float, seed: int) -> set[str]:
    """The people to hold out."""
    circles = _circles(media)
    people_of: defaultdict[tuple[bool, str], set[str]] = defaultdict(set)
    for medium in media:
        people_of[not medium.fake, medium.source] |= medium.identities
    held_out: set[str] = set()
    decided: set[str] = set()
    # Fakes first: their people are the scarce ones, and the reals of a source may fill its share with others.
    for _, people in sorted(people_of.items()):
        wanted = min(max(int(share * len(people) + 0.5), 1), len(people) - 1) if share else 0
        missing = wanted - len(people & held_out)
        for together in sorted(_units(people, circles, decided, wanted), key=lambda unit: _lot(min(unit), seed)):
            if len(together & people) <= missing:
                missing -= len(together & people)
                held_out |= together
        decided |= people | held_out
    return held_out


def _units(people: set[str], circles: Mapping[str, set[str]], decided: set[str], wanted: int) -> list[set[str]]:
    """Who of ``people`` is drawn together: circles that fit and are all free still, or else one by one."""
    units: list[set[str]] = []
    for circle in {id(circle): circle for circle in map(circles.__getitem__, people)}.values():
        here = circle & people
        whole = len(here) <= wanted and not circle & decided
        units += [circle] if whole else [{person} for person in here - decided]
    return units


def _circles(media: Iterable[Medium]) -> dict[str, set[str]]:
    """Each person's circle: who shares a medium with them, or with one of the circle. One set for all of a circle."""
    circles: dict[str, set[str]] = {}
    for medium in media:
        met = {id(c): c for c in (circles.setdefault(person, {person}) for person in medium.identities)}.values()
        widest = max(met, key=len)
        for circle in met:
            if circle is not widest:
                widest |= circle
                circles.update(dict.fromkeys(circle, widest))
    return circles


def _lot(person: str, seed: int) -> bytes:
    """A place in the draw, the same on every machine."""
    return hashlib.blake2b(f"{seed}:{person}".encode(), digest_size=16).digest()
