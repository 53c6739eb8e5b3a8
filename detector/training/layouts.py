"""Which labelled media a folder holds and who is in them, for the ways in which data sets of deepfakes are laid out.

Layouts, and where they are documented:

- ``PLAIN``: ``real/`` and ``fake/``, as ImageFolder of torchvision wants it; with numbers in front (``0_real``) as in
  CNNDetection (Wang et al., "CNN-generated images are surprisingly easy to spot... for now", CVPR 2020).
- ``CSV``: a list of ours, see :func:`discover`.
- ``FFPP``: Rössler et al., "FaceForensics++", ICCV 2019; ``dataset/README.md`` of github.com/ondyari/FaceForensics.
- ``CELEB_DF``: Li et al., "Celeb-DF", CVPR 2020; github.com/yuezunli/celeb-deepfakeforensics.
- ``DFDC``: Dolhansky et al., "The DeepFake Detection Challenge (DFDC) Dataset", arXiv 2006.07397; the data page of the
  Kaggle competition describes ``metadata.json``.
- ``DFD``: Dufour and Gully, "Contributing data to deepfake detection research", Google AI blog, 2019; its names are
  explained by FaceForensics++, which hands it out.

Nothing is opened but lists: an empty ``.mp4`` counts as a video here.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any, NoReturn

from detector.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from detector.types import InputError, NothingToAnalyseError


class Kind(StrEnum):
    """What a file holds."""

    IMAGE = "image"
    VIDEO = "video"


class Layout(StrEnum):
    """How a data set lies on disk."""

    AUTO = "auto"
    PLAIN = "plain"
    CSV = "csv"
    FFPP = "ffpp"
    CELEB_DF = "celeb-df"
    DFDC = "dfdc"
    DFD = "dfd"


REAL = "real"
"""The method of what is not manipulated."""


@dataclass(frozen=True, slots=True)
class Medium:
    """One labelled picture or clip.

    Attributes:
        path: absolute.
        name: unique in its set: the path relative to the folder given, or as a list has it, with forward slashes.
        fake: whether it is manipulated or generated.
        method: "real", or what made it, in lower case: "deepfakes", "face2face", "stylegan2".
        source: the data set or sub-folder it comes from, in lower case: "ffpp-c23", "celeb-df-v2", "lfw".
        identities: who is in it, as "set/person"; itself, as "source/name", where that is not known. Never empty.
        kind: image or video.
    """

    path: Path
    name: str
    fake: bool
    method: str
    source: str
    identities: frozenset[str]
    kind: Kind

    def __post_init__(self) -> None:
        if not self.identities:
            raise ValueError(f"somebody is in every medium, got no identity for {self.name}")
        if (self.method == REAL) == self.fake:
            raise ValueError(f"method 'real' goes with what is not fake, got {self.method!r} for {self.name}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a folder holds.

    Attributes:
        media: by name.
        left_out: reason -> names of what looks like part of the set and is not used. Lists and notes (``.csv``,
            ``.json``, ``.txt``, ``.md``) are not counted.
    """

    media: tuple[Medium, ...]
    left_out: Mapping[str, tuple[str, ...]]


def counts(media: Iterable[Medium]) -> dict[str, int]:
    """How many are "real" and how many "fake"; both keys are always there."""
    fakes = Counter(medium.fake for medium in media)
    return {REAL: fakes[False], "fake": fakes[True]}


def discover(folder: Path, layout: Layout = Layout.AUTO) -> Found:
    """The labelled media of a data set.

    A list (``CSV``) has a column ``path`` or ``file``, and ``label`` (1 or fake, 0 or real); it may have ``method``,
    ``source``, and ``identity`` or ``person`` (several are parted by ``;``), whose ids are unique in the whole list.
    Paths are relative to the folder of the list's own name beside it (``videos/`` of ``videos.csv``), or else to the
    folder it lies in. It is ``<folder>.csv`` beside the folder, or ``labels.csv`` or the only such list in it.

    Args:
        folder: of the data set; or a ``.csv`` file. Of a list named here, only what it lists is looked at.
        layout: ``AUTO`` goes by the names of the folders in it.

    Raises:
        InputError: the folder is missing or cannot be read, or a list in it is broken.
        NothingToAnalyseError: no labelled medium is there, or the layout is not recognised.
    """
    place = _absolute(folder)
    if place.suffix.lower() == ".csv" and layout in (Layout.AUTO, Layout.CSV) and _is_file(place):
        return _listed(place)
    _check_folder(place)
    if layout is Layout.AUTO:
        layout = _recognise(place)
    match layout:
        case Layout.CSV:
            return _listed(_only_list(place), unlisted_in=place)
        case Layout.DFDC:
            return _dfdc(place)
        case Layout.PLAIN:
            return _plain(place, _classes(place))
        case _:
            return _by_path(place, _READERS[layout])


def plain(folder: Path, *, fake: bool) -> Found:
    """Every picture and clip below ``folder``, all of one class.

    The first level of sub-folders names the source, and the method of fakes. ``<folder>.csv`` beside the folder or
    ``labels.csv`` in it, with a column ``path`` or ``file``, may say ``identity`` or ``person``, ``source`` and
    ``method``. Without it everything has an identity of its own, frames cut from one clip too.

    Raises:
        InputError: the folder is missing or cannot be read, or its list is broken or says otherwise.
        NothingToAnalyseError: no picture and no clip is there.
    """
    place = _absolute(folder)
    _check_folder(place)
    return _plain(place, {"": fake})


# ---------------------------------------------------------------------------------------------------- gathering

_KINDS = dict.fromkeys(VIDEO_SUFFIXES, Kind.VIDEO) | dict.fromkeys(IMAGE_SUFFIXES, Kind.IMAGE)
_NOTES = frozenset({".csv", ".json", ".txt", ".md"})  # they say something of media and are none

_HIDDEN = "hidden"
_NO_MEDIUM = "neither a picture nor a video by its suffix"
_LINK_OUT = "a link that leads out of the folder"
_LINKED_FOLDER = "a link to a folder"
_NO_FILE = "not a file that can be read"
_MISSING = "listed, but not there"
_OUTSIDE = "listed by a path that is absolute or leads upwards"
_REPEATED = "listed twice"
_UNLISTED = "not listed"
_NO_CLASS = "in a folder that is named after neither class"
_MISPLACED = "not where the layout has media"
_NAMELESS = "a name that does not say who is in it, as those of the layout do"


@dataclass(frozen=True, slots=True)
class _Known:
    """What a path or a list says of a medium; nobody in ``people`` where it does not say."""

    fake: bool
    method: str
    source: str
    people: tuple[str, ...] = ()


_Reader = Callable[[PurePath], _Known | str]
"""The path of a medium, relative to its folder -> what it says, or why the medium is left out."""


class _Gathering:
    """What was found so far, and what was left out."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._media: dict[Path, Medium] = {}
        self._left_out: defaultdict[str, set[str]] = defaultdict(set)

    def add(self, path: Path, name: str, known: _Known) -> None:
        people = frozenset(known.people or (f"{known.source}/{name}",))
        kind = _KINDS[path.suffix.lower()]
        self._media[path] = Medium(path, name, known.fake, known.method, known.source, people, kind)

    def leave(self, reason: str, name: str) -> None:
        self._left_out[reason].add(name)

    def at(self, path: Path) -> Medium | None:
        return self._media.get(path)

    def found(self) -> Found:
        left_out = {reason: tuple(sorted(names)) for reason, names in sorted(self._left_out.items())}
        if not self._media:
            why = "; ".join(f"{len(names)} left out: {reason}" for reason, names in left_out.items())
            raise NothingToAnalyseError(
                f"{self._place}: no labelled picture or video there ({why or 'it is empty'}); check the path and layout"
            )
        return Found(tuple(sorted(self._media.values(), key=lambda medium: medium.name)), left_out)


def _by_path(place: Path, reader: _Reader, gathering: _Gathering | None = None) -> Found:
    """All media below ``place``, as their paths say, after those of ``gathering``."""
    gathering = gathering or _Gathering(place)
    for path in _walk(place, gathering):
        known = reader(path)
        if isinstance(known, str):
            gathering.leave(known, path.as_posix())
        else:
            gathering.add(place / path, path.as_posix(), known)
    return gathering.found()


def _walk(place: Path, gathering: _Gathering) -> Iterator[PurePath]:
    """Media below ``place``, relative to it. Links to folders are not followed: they may lead round in a circle."""
    for at, folders, files in os.walk(place, onerror=_unreadable):
        here = Path(at)
        for name in folders[:]:
            if name.startswith(".") or (here / name).is_symlink():
                folders.remove(name)  # keeps os.walk out of it
                reason = _HIDDEN if name.startswith(".") else _LINKED_FOLDER
                gathering.leave(reason, (here / name).relative_to(place).as_posix() + "/")
        for name in files:
            path = here / name
            if path.suffix.lower() in _NOTES:
                continue
            flaw = _HIDDEN if name.startswith(".") else _flaw(path, place)
            if flaw:
                gathering.leave(flaw, path.relative_to(place).as_posix())
            else:
                yield path.relative_to(place)


def _flaw(path: Path, place: Path) -> str | None:
    """Why ``path`` cannot be a medium of the set in ``place``."""
    if path.suffix.lower() not in _KINDS:
        return _NO_MEDIUM
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(place)):
        return _LINK_OUT
    return None if _is_file(path) else _NO_FILE


def _absolute(path: Path) -> Path:
    """``path`` from the root, without dots. A link keeps its own name, which names a source better than its target."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _check_folder(place: Path) -> None:
    try:
        there, is_folder = place.exists(), place.is_dir()
    except OSError as error:
        raise InputError(f"{place}: cannot be opened: {error.strerror}") from None
    if not there:
        raise InputError(f"{place}: no such file or folder; check the path")
    if not is_folder:
        raise InputError(f"{place}: not a folder; give one, or the list (.csv) of a data set")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, or in a folder that is closed to us
        return False


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None


# ---------------------------------------------------------------------------------------------------- recognition


def _recognise(place: Path) -> Layout:
    """The layout that the folders in ``place`` have the names of."""
    names = {_slug(path.name) for path in _folders(place)}
    for layout, marks in _MARKS.items():
        if names & marks:
            return layout
    if _lists(place):
        return Layout.CSV
    if _classes(place):
        return Layout.PLAIN
    if _metadata(place):
        return Layout.DFDC
    raise NothingToAnalyseError(
        f"{place}: not a layout of a data set that is known; looked in it for real/ and fake/, a list with path and "
        f"label ({place.name}.csv beside it or any .csv in it), {', '.join(sorted(set().union(*_MARKS.values())))}, "
        "and metadata.json; give one of these, or each class by itself"
    )


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        _unreadable(error)


def _slug(name: str) -> str:
    """Copies of one data set differ in case, and in blanks, hyphens and underscores."""
    return re.sub(r"[ -]", "_", name.strip().lower())


# ---------------------------------------------------------------------------------------------------- plain folders

_CLASSES = {
    **dict.fromkeys(("real", "reals", "original", "originals"), False),
    **dict.fromkeys(("fake", "fakes", "manipulated"), True),
}


def _classes(place: Path) -> dict[str, bool]:
    """The folders in ``place`` that are named after a class, and whether that is the fakes."""
    named = ((path.name, _class_of(path.name)) for path in _folders(place))
    return {name: fake for name, fake in named if fake is not None}


def _class_of(name: str) -> bool | None:
    """Whether a folder of this name holds fakes; None if it is named after neither class."""
    return _CLASSES.get(re.sub(r"^\d+_+", "", _slug(name)))


def _plain(place: Path, classes: Mapping[str, bool]) -> Found:
    """The media in ``classes``: sub-folder -> fake; the one sub-folder "" is ``place`` itself."""
    gathering = _Gathering(place)
    rows: dict[Path, _Row] = {}
    for name in dict.fromkeys(("", *classes)):  # what lies nearer the media knows better
        rows |= _facts(place / name, place.name.lower(), gathering)

    def reader(path: PurePath) -> _Known | str:
        top, *below = path.parts if "" not in classes else ("", *path.parts)
        if top not in classes:
            return _NO_CLASS
        known = _from_folders(place, below, classes[top])
        row = rows.get(place / path)
        return row.applied_to(known) if row else known

    return _by_path(place, reader, gathering)


def _from_folders(place: Path, below: Sequence[str], fake: bool) -> _Known:
    """What the folders ``below`` that of a class say; the last part is the file."""
    folder = below[0] if len(below) > 1 else ""
    if _class_of(folder) is (not fake):
        raise InputError(
            f"{place}: a folder {folder} among the {'fakes' if fake else 'reals'}; give each class by itself"
        )
    return _Known(fake, (folder.lower() or "fake") if fake else REAL, folder.lower() or place.name.lower())


def _facts(place: Path, home: str, gathering: _Gathering) -> dict[Path, _Row]:
    """What a list says of the files in ``place``; nothing if there is none."""
    for file in _usual_lists(place):
        if _is_file(file) and _PATHS & _columns(file):
            rows = [(_locate(row.path, file), row) for row in _rows(file, home)]
            for flaw, row in rows:
                if isinstance(flaw, str):
                    gathering.leave(flaw, row.path)
            return {path: row for path, row in rows if isinstance(path, Path)}
    return {}


# ---------------------------------------------------------------------------------------------------- lists

_PATHS = frozenset({"path", "file", "filename"})
_PEOPLE = frozenset({"identity", "person"})
_LABELS = {"1": True, "fake": True, "0": False, "real": False}


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a list: "" or None where it does not say."""

    where: str
    path: str
    fake: bool | None
    method: str
    source: str
    people: tuple[str, ...]

    def applied_to(self, known: _Known) -> _Known:
        """``known``, with what the row knows better.

        Raises:
            InputError: they contradict each other.
        """
        if self.fake not in (None, known.fake):
            label, folder = ("fake", "reals") if self.fake else (REAL, "fakes")
            raise InputError(f"{self.where}: the label is {label} in a folder of {folder}; correct one of them")
        if known.fake and self.method == REAL:
            raise InputError(f"{self.where}: a fake with the method 'real'; correct one of them")
        method = self.method or known.method if known.fake else REAL
        return replace(known, method=method, source=self.source or known.source, people=self.people)


def _usual_lists(place: Path) -> tuple[Path, Path]:
    return place.parent / f"{place.name}.csv", place / "labels.csv"


def _lists(place: Path) -> list[Path]:
    """The lists that label the media of ``place``: the one beside it or of the usual name, or else all in it."""
    for file in _usual_lists(place):
        if _is_file(file) and _labels_media(file):
            return [file]
    return [file for file in sorted(place.glob("*.csv")) if _is_file(file) and _labels_media(file)]


def _labels_media(file: Path) -> bool:
    columns = _columns(file)
    return "label" in columns and bool(_PATHS & columns)


def _only_list(place: Path) -> Path:
    lists = _lists(place)
    if not lists:
        raise NothingToAnalyseError(
            f"{place}: no list of its media; looked for {place.name}.csv beside it and any .csv in it with the columns "
            "path and label"
        )
    if len(lists) > 1:
        names = ", ".join(file.name for file in lists)
        raise InputError(f"{place}: several lists label media: {names}; give the path of one, or the layout")
    return lists[0]


def _listed(file: Path, unlisted_in: Path | None = None) -> Found:
    """The media of a list; those in ``unlisted_in`` that it does not list are left out."""
    if not _labels_media(file):
        raise InputError(f"{file}: needs the columns path and label, has {', '.join(sorted(_columns(file))) or 'none'}")
    home = (file.with_suffix("") if file.with_suffix("").is_dir() else file.parent).name.lower()
    gathering = _Gathering(file)
    for row in _rows(file, home):
        _add_row(row, file, home, gathering)
    if unlisted_in:
        for path in _walk(unlisted_in, gathering):
            if not gathering.at(unlisted_in / path):
                gathering.leave(_UNLISTED, path.as_posix())
    return gathering.found()


def _add_row(row: _Row, file: Path, home: str, gathering: _Gathering) -> None:
    """One row of ``file``, into ``gathering``."""
    if row.fake is None:
        raise InputError(f"{row.where}: no label; write 1 or fake, 0 or real")
    path = _locate(row.path, file)
    if isinstance(path, str):
        gathering.leave(path, row.path)
        return
    known = row.applied_to(_Known(row.fake, "fake" if row.fake else REAL, home))
    earlier = gathering.at(path)
    if earlier is None:
        gathering.add(path, PurePath(row.path).as_posix(), known)
    elif earlier.fake is not row.fake:
        raise InputError(f"{row.where}: {row.path} is real in one row and fake in another; correct one of them")
    else:
        gathering.leave(_REPEATED, row.path)


def _locate(written: str, file: Path) -> Path | str:
    """The medium that ``written`` in the list ``file`` names, or why there is none."""
    path = PurePath(written)
    if path.is_absolute() or ".." in path.parts:
        return _OUTSIDE
    for base in (file.with_suffix(""), file.parent):
        if _is_file(base / path):
            return _flaw(base / path, file.parent) or base / path
    return _MISSING


def _rows(file: Path, home: str) -> Iterator[_Row]:
    """The rows of a list; people are prefixed by ``home``, not by source: one person may be in several sources."""
    lines = _lines(file)
    header = [cell.lower() for cell in next(lines)[1]]
    for number, cells in lines:
        where = f"{file}, line {number}"
        if len(cells) != len(header):
            raise InputError(f"{where}: {len(cells)} cells, the header has {len(header)}; quote cells with commas")
        yield _row(where, dict(zip(header, cells, strict=True)), home)


def _row(where: str, cells: Mapping[str, str], home: str) -> _Row:
    path, people = (next((cells[name] for name in cells if name in names), "") for names in (_PATHS, _PEOPLE))
    label = cells.get("label", "").lower()
    if not path:
        raise InputError(f"{where}: no path; every row names a file")
    if label and label not in _LABELS:
        raise InputError(f"{where}: the label is {label!r}; write 1 or fake, 0 or real")
    return _Row(
        where,
        path,
        _LABELS.get(label),
        cells.get("method", "").lower(),
        cells.get("source", "").lower(),
        tuple(f"{home}/{person.strip()}" for person in people.split(";") if person.strip()),
    )


def _columns(file: Path) -> set[str]:
    return {cell.lower() for cell in next(_lines(file), (0, []))[1]}


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that hold anything, with their numbers, from 1."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file in UTF-8: {error}; save it as one") from None


# ---------------------------------------------------------------------------------------------------- FaceForensics++

_COMPRESSIONS = frozenset({"raw", "c0", "c23", "c40"})
_HOLDERS = frozenset({"videos", "images", "frames"})  # beside them lie masks and models
_FFPP_FOLDERS = {
    ("original_sequences", "youtube"): (False, "ffpp", REAL),
    ("original_sequences", "actors"): (False, "dfd", REAL),
    ("manipulated_sequences", "deepfakedetection"): (True, "dfd", "dfd"),
    **{
        ("manipulated_sequences", method): (True, "ffpp", method)
        for method in ("deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter")
    },
}
_NAMES = {
    ("ffpp", False): re.compile(r"(\d{3})"),
    ("ffpp", True): re.compile(r"(\d{3})_(\d{3})"),
    ("dfd", False): re.compile(r"(\d\d)__.+"),
    ("dfd", True): re.compile(r"(\d\d)_(\d\d)__.+"),
}


def _ffpp(path: PurePath) -> _Known | str:
    """``manipulated_sequences/Face2Face/c23/videos/000_003.mp4``, or frames in a folder of the clip's name.

    A fake is called after the clip that was changed and the clip whose face or expression it got. Clips count as
    people: who is in them is not published. All compressions share the people. The part DeepFakeDetection is DFD.
    """
    parts = [part.lower() for part in path.parts]
    if len(parts) < 5 or parts[2] not in _COMPRESSIONS or parts[3] not in _HOLDERS:
        return _MISPLACED
    if (parts[0], parts[1]) not in _FFPP_FOLDERS:
        return _MISPLACED
    fake, home, method = _FFPP_FOLDERS[parts[0], parts[1]]
    return _named(path, _NAMES[home, fake], home, _Known(fake, method, f"{home}-{parts[2]}"))


def _named(path: PurePath, pattern: re.Pattern[str], home: str, known: _Known) -> _Known | str:
    """``known``, with the people that the clip's name holds."""
    # Frames are numbered, and 000.png would pass for a clip: their folder has the clip's name.
    clip = path.stem if _KINDS[path.suffix.lower()] is Kind.VIDEO else path.parent.name
    match = pattern.fullmatch(clip)
    return replace(known, people=tuple(f"{home}/{who}" for who in match.groups())) if match else _NAMELESS


# ---------------------------------------------------------------------------------------------------- DeepFakeDetection

_DFD_FOLDERS = {"dfd_original_sequences": False, "dfd_manipulated_sequences": True}


def _dfd(path: PurePath) -> _Known | str:
    """``DFD_manipulated_sequences/01_02__walk_down_hall_angry__YVGY8LOK.mp4``, or its part of FaceForensics++."""
    fake = _DFD_FOLDERS.get(_slug(path.parts[0]))
    if fake is not None:
        return _named(path, _NAMES["dfd", fake], "dfd", _Known(fake, "dfd" if fake else REAL, "dfd"))
    known = _ffpp(path)
    return known if isinstance(known, str) or known.source.startswith("dfd-") else _MISPLACED


# ---------------------------------------------------------------------------------------------------- Celeb-DF

_CELEB_DF = {
    "celeb_real": (False, re.compile(r"(id\d+)_\d+")),
    "youtube_real": (False, re.compile(r"(\d+)")),
    "celeb_synthesis": (True, re.compile(r"(id\d+)_(id\d+)_\d+")),
}


def _celeb_df(path: PurePath) -> _Known | str:
    """``Celeb-synthesis/id0_id1_0000.mp4``; every clip of ``YouTube-real`` is a person of its own.

    ``List_of_testing_videos.txt`` is not read: the folders label everything (in the list, 1 is real), and people are
    held out here, not clips. The first version of the set has the same folders, and passes for the second.
    """
    if _slug(path.parts[0]) not in _CELEB_DF:
        return _MISPLACED
    fake, pattern = _CELEB_DF[_slug(path.parts[0])]
    return _named(path, pattern, "celeb-df-v2", _Known(fake, "celeb-synthesis" if fake else REAL, "celeb-df-v2"))


# ---------------------------------------------------------------------------------------------------- DFDC


def _dfdc(place: Path) -> Found:
    """Every part's ``metadata.json`` and the clips beside it.

    The original stands for the people in a fake: who acts in which original is not published, so one actor may count
    as several people. A fake without an original is a person of its own.
    """
    known = {path: clip for file in _metadata(place) for path, clip in _dfdc_part(file)}
    gathering = _Gathering(place)
    for path in _walk(place, gathering):
        clip = known.get(place / path)
        if clip:
            gathering.add(place / path, path.as_posix(), clip)
        else:
            gathering.leave(_UNLISTED, path.as_posix())
    for path in known:
        if not _is_file(path):
            gathering.leave(_MISSING, path.relative_to(place).as_posix())
    return gathering.found()


def _metadata(place: Path) -> list[Path]:
    """Parts lie side by side, and each zip of the competition holds a folder."""
    return sorted(file for depth in ("", "*/", "*/*/") for file in place.glob(f"{depth}metadata.json"))


def _dfdc_part(file: Path) -> Iterator[tuple[Path, _Known]]:
    """Clips of one part.

    Raises:
        InputError: the file or an entry is not as the competition describes it.
    """
    for name, entry in _json_object(file).items():
        if PurePath(name).name != name:
            raise InputError(f"{file}: {name!r} is not the name of a file beside it; unpack the part again")
        label = entry.get("label") if isinstance(entry, dict) else None
        if label not in ("REAL", "FAKE"):
            raise InputError(f"{file}: {name} has no label REAL or FAKE; unpack the part again")
        original = entry.get("original") or name
        if not isinstance(original, str):
            raise InputError(f"{file}: the original of {name} is {original!r}, not a name; unpack the part again")
        fake = label == "FAKE"
        yield file.parent / name, _Known(fake, "dfdc" if fake else REAL, "dfdc", (f"dfdc/{PurePath(original).stem}",))


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}; unpack the part again") from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: holds no JSON object of clips; unpack the part again")
    return value


_READERS: Mapping[Layout, _Reader] = {Layout.FFPP: _ffpp, Layout.CELEB_DF: _celeb_df, Layout.DFD: _dfd}
_MARKS = {
    Layout.FFPP: frozenset({"original_sequences", "manipulated_sequences"}),
    Layout.CELEB_DF: frozenset(_CELEB_DF),
    Layout.DFD: frozenset(_DFD_FOLDERS),
}
