"""What a person writes on the command line, and the sources it stands for."""

from pathlib import Path

import pytest

from detector.types import InputError, NothingToAnalyseError, UsageError
from pipelines.inputs import expand, is_url
from pipelines.sources import ImageFolder, NetworkStream, VideoFile


@pytest.fixture
def folder(tmp_path):
    """Videos, images and other files; nothing is opened, so they may be empty."""
    for name in (
        "both/clip10.mp4",
        "both/clip2.MOV",
        "both/notes.txt",
        "both/photo.jpg",
        "both/.hidden.mp4",
        "both/deeper/clip3.mkv",
        "images/img10.png",
        "images/img2.JPG",
        "images/readme.md",
        "neither/notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def kinds(sources):
    return [(type(source), Path(source.info.name).name) for source in sources]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("rtsp://cam/1", True),
        ("HTTP://host/x.mp4", True),
        ("file:///x", True),
        ("clip.mp4", False),
        ("C:\\clips\\a.mp4", False),
        ("a/b://c", False),
        ("", False),
    ],
)
def test_tells_addresses_from_paths(argument, expected):
    assert is_url(argument) is expected


def test_an_address_is_a_network_stream():
    assert kinds(expand(["rtsp://cam/1"])) == [(NetworkStream, "1")]


def test_an_image_is_a_clip_of_one_frame_and_any_other_file_a_video(folder):
    sources = expand([str(folder / name) for name in ("both/photo.jpg", "both/notes.txt", "both/clip2.MOV")], fps=12)
    assert kinds(sources) == [(ImageFolder, "photo.jpg"), (VideoFile, "notes.txt"), (VideoFile, "clip2.MOV")]
    assert sources[0].info.frames == 1
    assert sources[0].info.fps == 12


def test_a_directory_is_its_videos_in_natural_order_without_hidden_or_deeper_ones(folder):
    assert kinds(expand([str(folder / "both")])) == [(VideoFile, "clip2.MOV"), (VideoFile, "clip10.mp4")]


def test_a_directory_of_images_is_one_clip(folder):
    (source,) = expand([str(folder / "images")], fps=5)
    assert kinds([source]) == [(ImageFolder, "images")]
    assert (source.info.frames, source.info.fps) == (2, 5)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("both/clip*.mp4", ["clip10.mp4"]),
        ("both/*", ["clip2.MOV", "clip10.mp4"]),
        ("**/clip*", ["clip2.MOV", "clip10.mp4", "clip3.mkv"]),
        ("both/clip[0-9].???", ["clip2.MOV"]),
    ],
)
def test_a_glob_is_the_videos_it_matches(folder, pattern, names):
    assert kinds(expand([str(folder / pattern)])) == [(VideoFile, name) for name in names]


def test_a_glob_that_matches_only_images_is_one_clip(folder):
    (source,) = expand([str(folder / "images" / "img*")])
    assert isinstance(source, ImageFolder)
    assert source.info.frames == 2


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path):
    (tmp_path / "clip[1].mp4").touch()
    (tmp_path / "clip1.mp4").touch()
    assert kinds(expand([str(tmp_path / "clip[1].mp4")])) == [(VideoFile, "clip[1].mp4")]


def test_arguments_keep_their_order(folder):
    sources = expand([str(folder / "images"), "udp://host:1", str(folder / "both" / "clip10.mp4")])
    assert [type(source) for source in sources] == [ImageFolder, NetworkStream, VideoFile]


def test_no_argument_is_no_source():
    assert expand([]) == []


@pytest.mark.parametrize("name", ["empty", "neither", "empty/*", "neither/*.mp4", "**/*.xyz"])
def test_a_directory_or_glob_without_video_or_image_is_nothing_to_analyse(folder, name):
    with pytest.raises(NothingToAnalyseError, match="no video and no image"):
        expand([str(folder / name)])


def test_a_path_that_does_not_exist_is_named(folder):
    with pytest.raises(InputError, match=r"nothing\.mp4: no such file"):
        expand([str(folder / "nothing.mp4")])


def test_a_path_that_is_too_long_to_exist_is_refused():
    with pytest.raises(InputError):
        expand(["x" * 5000])


@pytest.mark.parametrize("argument", ["", "  ", "gopher://host/x", "file:///etc/passwd"])
def test_what_makes_no_sense_is_refused(argument):
    with pytest.raises(UsageError):
        expand([argument])


def test_a_damaged_clip_does_not_keep_the_others_from_being_listed(folder):
    assert len(expand([str(folder / "both")])) == 2  # empty files: they fail when they are opened
