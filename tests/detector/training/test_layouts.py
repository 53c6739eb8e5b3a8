"""Which labelled media a folder holds, and who is in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from detector.training.layouts import Found, Kind, Layout, Medium, counts, discover, plain
from detector.types import InputError, NothingToAnalyseError


def touch(folder: Path, *names: str) -> Path:
    """Empty files: nothing is opened but lists."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def named(found: Found) -> dict[str, Medium]:
    return {medium.name: medium for medium in found.media}


def said(found: Found) -> dict[str, tuple[bool, str, str]]:
    return {medium.name: (medium.fake, medium.method, medium.source) for medium in found.media}


def people(found: Found) -> dict[str, set[str]]:
    return {medium.name: set(medium.identities) for medium in found.media}


def test_no_training_package_is_needed() -> None:
    code = "import sys, detector.training.layouts; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# ---------------------------------------------------------------------------------------------------- plain folders


def test_sub_folders_of_a_class_name_the_source_and_the_method_of_fakes(tmp_path: Path) -> None:
    touch(
        tmp_path / "Set", "real/LFW/a.jpg", "real/b.mp4", "fake/StyleGAN2/c.PNG", "fake/StyleGAN2/x/c.png", "fake/d.mkv"
    )
    found = discover(tmp_path / "Set")
    assert said(found) == {
        "real/LFW/a.jpg": (False, "real", "lfw"),
        "real/b.mp4": (False, "real", "set"),
        "fake/StyleGAN2/c.PNG": (True, "stylegan2", "stylegan2"),
        "fake/StyleGAN2/x/c.png": (True, "stylegan2", "stylegan2"),
        "fake/d.mkv": (True, "fake", "set"),
    }
    assert counts(found.media) == {"real": 2, "fake": 3}
    assert named(found)["fake/d.mkv"].kind is Kind.VIDEO
    assert named(found)["fake/StyleGAN2/c.PNG"].kind is Kind.IMAGE
    assert named(found)["real/LFW/a.jpg"].path == tmp_path / "Set/real/LFW/a.jpg"
    assert not found.left_out


def test_nobody_known_is_a_person_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path / "set", "real/lfw/a.jpg", "real/lfw/b.jpg", "fake/a.jpg")
    assert people(discover(tmp_path / "set")) == {
        "real/lfw/a.jpg": {"lfw/real/lfw/a.jpg"},
        "real/lfw/b.jpg": {"lfw/real/lfw/b.jpg"},
        "fake/a.jpg": {"set/fake/a.jpg"},
    }


@pytest.mark.parametrize(
    ("real", "fake"), [("0_real", "1_fake"), ("original", "manipulated"), ("Reals", "fakes"), ("ORIGINALS", "Fake")]
)
def test_classes_go_by_several_names(tmp_path: Path, real: str, fake: str) -> None:
    touch(tmp_path, f"{real}/a.jpg", f"{fake}/b.jpg")
    found = discover(tmp_path)
    assert {medium.name: medium.fake for medium in found.media} == {f"{real}/a.jpg": False, f"{fake}/b.jpg": True}


def test_a_class_may_be_missing_and_counts_say_so(tmp_path: Path) -> None:
    assert counts(discover(touch(tmp_path, "real/a.jpg")).media) == {"real": 1, "fake": 0}
    assert counts([]) == {"real": 0, "fake": 0}


def test_what_is_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "far.jpg")
    folder = touch(
        tmp_path / "set",
        *("real/a.jpg", "real/.hidden.jpg", "real/.cache/b.jpg", "real/weights.bin", "real_video/c.mp4", "top.jpg"),
        *("README.md", "real/notes.txt"),
    )
    (folder / "real/out.jpg").symlink_to(tmp_path / "elsewhere/far.jpg")
    (folder / "real/broken.jpg").symlink_to(folder / "real/nothing.jpg")
    (folder / "real/circle").symlink_to(folder)
    (folder / "real/again.jpg").symlink_to(folder / "real/a.jpg")
    (folder / "real/folder.jpg").mkdir()
    found = discover(folder)
    assert list(named(found)) == ["real/a.jpg", "real/again.jpg"]
    assert found.left_out == {
        "a link that leads out of the folder": ("real/out.jpg",),
        "a link to a folder": ("real/circle/",),
        "hidden": ("real/.cache/", "real/.hidden.jpg"),
        "in a folder that is named after neither class": ("real_video/c.mp4", "top.jpg"),
        "neither a picture nor a video by its suffix": ("real/weights.bin",),
        "not a file that can be read": ("real/broken.jpg",),
    }


def test_a_folder_of_one_class(tmp_path: Path) -> None:
    folder = touch(tmp_path / "synthetic", "SD3/a.png", "b.png")
    assert said(plain(folder, fake=True)) == {
        "SD3/a.png": (True, "sd3", "sd3"),
        "b.png": (True, "fake", "synthetic"),
    }
    assert said(plain(folder, fake=False)) == {
        "SD3/a.png": (False, "real", "sd3"),
        "b.png": (False, "real", "synthetic"),
    }


def test_a_folder_of_one_class_that_holds_the_other_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg", "fake/b.jpg")
    with pytest.raises(InputError, match="a folder real among the fakes; give each class by itself"):
        plain(tmp_path, fake=True)


@pytest.mark.parametrize("place", ["clips.csv", "clips/labels.csv"])
def test_a_list_says_who_is_in_a_plain_folder_and_where_it_is_from(tmp_path: Path, place: str) -> None:
    folder = touch(tmp_path / "clips", "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    write(tmp_path / place, "file,source,person,licence\na.mp4,GRID,s1,\nb.mp4,LRS,s1,x\nc.mp4,,,\nlost.mp4,,s2,\n")
    found = plain(folder, fake=False)
    assert people(found) == {
        "a.mp4": {"clips/s1"},
        "b.mp4": {"clips/s1"},  # one person, whatever the source
        "c.mp4": {"clips/c.mp4"},
        "d.mp4": {"clips/d.mp4"},
    }
    assert [medium.source for medium in found.media] == ["grid", "lrs", "clips", "clips"]
    assert found.left_out == {"listed, but not there": ("lost.mp4",)}


def test_lists_of_both_classes_talk_of_the_same_people(tmp_path: Path) -> None:
    touch(tmp_path / "set", "real/a.mp4", "fake/b.mp4")
    write(tmp_path / "set/real.csv", "path,identity\na.mp4,7\n")
    write(tmp_path / "set/fake/labels.csv", "path,identity,method\nb.mp4,7;9,Wav2Lip\n")
    found = discover(tmp_path / "set")
    assert people(found) == {"real/a.mp4": {"set/7"}, "fake/b.mp4": {"set/7", "set/9"}}
    assert named(found)["fake/b.mp4"].method == "wav2lip"


def test_a_label_that_contradicts_its_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "clips", "a.mp4")
    write(tmp_path / "clips.csv", "path,label\na.mp4,fake\n")
    with pytest.raises(InputError, match=r"clips\.csv, line 2: the label is fake in a folder of reals"):
        plain(tmp_path / "clips", fake=False)


# ---------------------------------------------------------------------------------------------------- lists


def test_a_list_is_found_by_its_own_path_and_by_its_folder(tmp_path: Path) -> None:
    """As shared/data/dev/videos.csv: rows are relative to videos/ beside it."""
    folder = touch(tmp_path / "videos", "fake/a.mp4", "real/b.mp4", "real/extra.mp4")
    write(tmp_path / "videos.csv", "path,label,method,source\nfake/a.mp4,1,Deepfakes,FFPP\nreal/b.mp4,0,real,stock\n")
    by_list, by_folder = discover(tmp_path / "videos.csv"), discover(folder)
    assert said(by_list) == said(by_folder)
    assert said(by_list) == {
        "fake/a.mp4": (True, "deepfakes", "ffpp"),
        "real/b.mp4": (False, "real", "stock"),
    }
    assert named(by_list)["fake/a.mp4"].path == folder / "fake/a.mp4"
    assert not by_list.left_out
    assert by_folder.left_out == {"not listed": ("real/extra.mp4",)}


def test_a_list_in_the_folder_and_paths_relative_to_its_own_folder(tmp_path: Path) -> None:
    touch(tmp_path / "set", "x/a.jpg", "y/b.jpg")
    write(tmp_path / "set/all.csv", "\ufeffFile, Label ,Person\nx/a.jpg,FAKE,1 ; 2\n\n./y/b.jpg,Real,1\n")
    write(tmp_path / "set/scores.csv", "name,score\nx,1\n")
    for found in (discover(tmp_path / "set"), discover(tmp_path / "set/all.csv", Layout.CSV)):
        assert said(found) == {"x/a.jpg": (True, "fake", "set"), "y/b.jpg": (False, "real", "set")}
        assert people(found) == {"x/a.jpg": {"set/1", "set/2"}, "y/b.jpg": {"set/1"}}


def test_rows_that_name_no_medium_are_left_out_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "far.jpg", "set/a.jpg", "set/b.bin")
    rows = ["a.jpg", "a.jpg", "lost.jpg", "../far.jpg", str(tmp_path / "far.jpg"), "b.bin", "x" * 5000 + ".jpg"]
    write(tmp_path / "set/labels.csv", "path,label\n" + "".join(f"{row},1\n" for row in rows))
    found = discover(tmp_path / "set")
    assert list(named(found)) == ["a.jpg"]
    assert found.left_out == {
        "listed twice": ("a.jpg",),
        "listed, but not there": ("lost.jpg", "x" * 5000 + ".jpg"),
        "listed by a path that is absolute or leads upwards": tuple(sorted(["../far.jpg", str(tmp_path / "far.jpg")])),
        "neither a picture nor a video by its suffix": ("b.bin",),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,1\na.jpg,maybe\n", r"line 3: the label is 'maybe'; write 1 or fake, 0 or real"),
        ("path,label\na.jpg,\n", r"line 2: no label"),
        ("path,label\n,1\n", r"line 2: no path"),
        ("path,label\na.jpg,1,2\n", r"line 2: 3 cells, the header has 2"),
        ("path,label\na.jpg\n", r"line 2: 1 cells, the header has 2"),
        ("path,label,method\na.jpg,1,real\n", r"line 2: a fake with the method 'real'"),
        ("path,label\na.jpg,1\na.jpg,0\n", r"line 3: a\.jpg is real in one row and fake in another"),
        ("path,score\na.jpg,1\n", r"needs the columns path and label, has path, score"),
        ("", r"needs the columns path and label, has none"),
        ('path,label\n"a.jpg,1\n', r"not a CSV file in UTF-8"),
    ],
)
def test_a_broken_list_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match=message) as caught:
        discover(write(tmp_path / "list.csv", text))
    assert "list.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\ncaf\xe9.jpg,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        discover(tmp_path / "list.csv")


def test_of_several_lists_one_has_to_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path / "train.csv", "path,label\na.jpg,1\n")
    write(tmp_path / "test.csv", "path,label\nb.jpg,0\n")
    with pytest.raises(InputError, match=r"several lists label media: test\.csv, train\.csv; give the path of one"):
        discover(tmp_path)
    assert list(named(discover(tmp_path / "test.csv"))) == ["b.jpg"]


def test_a_list_that_is_asked_for_and_not_there_is_missed(tmp_path: Path) -> None:
    touch(tmp_path / "set", "real/a.jpg")
    with pytest.raises(NothingToAnalyseError, match=r"no list of its media; looked for set\.csv beside it"):
        discover(tmp_path / "set", Layout.CSV)


# ---------------------------------------------------------------------------------------------------- published sets


def test_faceforensics(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "original_sequences/youtube/c23/videos/003.mp4",
        "original_sequences/youtube/c40/videos/003.mp4",
        "original_sequences/youtube/raw/images/003/000.png",
        "original_sequences/actors/c23/videos/01__walking_outside.mp4",
        "manipulated_sequences/Face2Face/c23/videos/000_003.mp4",
        "manipulated_sequences/NeuralTextures/c40/frames/003_000/012.png",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking_outside__YVGY8LOK.mp4",
        "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/trailer.mp4",
        "downloaded_videos/abc.mp4",
    )
    found = discover(tmp_path)
    actors = "original_sequences/actors/c23/videos/01__walking_outside.mp4"
    swapped = "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking_outside__YVGY8LOK.mp4"
    assert said(found) == {
        "original_sequences/youtube/c23/videos/003.mp4": (False, "real", "ffpp-c23"),
        "original_sequences/youtube/c40/videos/003.mp4": (False, "real", "ffpp-c40"),
        "original_sequences/youtube/raw/images/003/000.png": (False, "real", "ffpp-raw"),
        actors: (False, "real", "dfd-c23"),
        "manipulated_sequences/Face2Face/c23/videos/000_003.mp4": (True, "face2face", "ffpp-c23"),
        "manipulated_sequences/NeuralTextures/c40/frames/003_000/012.png": (True, "neuraltextures", "ffpp-c40"),
        swapped: (True, "dfd", "dfd-c23"),
    }
    who = people(found)
    assert who.pop(actors) == {"dfd/01"}
    assert who.pop(swapped) == {"dfd/01", "dfd/02"}
    # The same people in every compression: a c40 copy of a training clip must not be held out.
    assert all(here == ({"ffpp/003"} if "youtube" in name else {"ffpp/000", "ffpp/003"}) for name, here in who.items())
    assert found.left_out == {
        "a name that does not say who is in it, as those of the layout do": (
            "manipulated_sequences/Deepfakes/c23/videos/trailer.mp4",
        ),
        "not where the layout has media": (
            "downloaded_videos/abc.mp4",
            "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",
        ),
    }
    only_dfd = discover(tmp_path, Layout.DFD)
    assert set(named(only_dfd)) == {actors, swapped}


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("DFD_original_sequences", "DFD_manipulated_sequences"),
        ("DFD_original sequences", "DFD_manipulated_sequences/DFD_manipulated_sequences"),
    ],
)
def test_deepfakedetection_alone(tmp_path: Path, real: str, fake: str) -> None:
    touch(tmp_path, f"{real}/28__hugging_happy.mp4", f"{fake}/01_28__hugging_happy__0123ABCD.mp4")
    found = discover(tmp_path)
    assert said(found) == {
        f"{real}/28__hugging_happy.mp4": (False, "real", "dfd"),
        f"{fake}/01_28__hugging_happy__0123ABCD.mp4": (True, "dfd", "dfd"),
    }
    assert list(people(found).values()) == [{"dfd/01", "dfd/28"}, {"dfd/28"}]


@pytest.mark.parametrize("youtube", ["YouTube-real", "Youtube-real"])
def test_celeb_df(tmp_path: Path, youtube: str) -> None:
    touch(
        tmp_path,
        "Celeb-real/id0_0000.mp4",
        "Celeb-synthesis/id0_id16_0003.mp4",
        f"{youtube}/00170.mp4",
        "Celeb-synthesis/id0_0003.mp4",
    )
    write(tmp_path / "List_of_testing_videos.txt", "1 YouTube-real/00170.mp4\n")
    found = discover(tmp_path)
    assert people(found) == {
        "Celeb-real/id0_0000.mp4": {"celeb-df-v2/id0"},
        "Celeb-synthesis/id0_id16_0003.mp4": {"celeb-df-v2/id0", "celeb-df-v2/id16"},
        f"{youtube}/00170.mp4": {"celeb-df-v2/00170"},
    }
    assert {medium.method for medium in found.media if medium.fake} == {"celeb-synthesis"}
    assert {medium.source for medium in found.media} == {"celeb-df-v2"}
    assert list(found.left_out.values()) == [("Celeb-synthesis/id0_0003.mp4",)]


def dfdc(part: Path, entries: dict[str, object]) -> None:
    write(part / "metadata.json", json.dumps(entries))


def test_dfdc(tmp_path: Path) -> None:
    one, two = tmp_path / "dfdc_train_part_0", tmp_path / "dfdc_train_part_01/dfdc_train_part_1"
    touch(one, "fake.mp4", "real.mp4", "stray.mp4")
    touch(two, "other.mp4")
    fake = {"label": "FAKE", "split": "train", "original": "real.mp4"}
    dfdc(one, {"fake.mp4": fake, "lost.mp4": fake, "real.mp4": {"label": "REAL", "split": "train", "original": None}})
    dfdc(two, {"other.mp4": {"label": "FAKE", "split": "train"}})
    found = discover(tmp_path)
    assert said(found) == {
        "dfdc_train_part_0/fake.mp4": (True, "dfdc", "dfdc"),
        "dfdc_train_part_0/real.mp4": (False, "real", "dfdc"),
        "dfdc_train_part_01/dfdc_train_part_1/other.mp4": (True, "dfdc", "dfdc"),
    }
    assert list(people(found).values()) == [{"dfdc/real"}, {"dfdc/real"}, {"dfdc/other"}]
    assert found.left_out == {
        "not listed": ("dfdc_train_part_0/stray.mp4",),
        "listed, but not there": ("dfdc_train_part_0/lost.mp4",),
    }
    assert set(named(discover(one))) == {"fake.mp4", "real.mp4"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds no JSON object"),
        ('{"a.mp4": {"split": "train"}}', r"a\.mp4 has no label REAL or FAKE"),
        ('{"a.mp4": "FAKE"}', r"a\.mp4 has no label REAL or FAKE"),
        ('{"a.mp4": {"label": "FAKE", "original": 7}}', r"the original of a\.mp4 is 7"),
        ('{"../a.mp4": {"label": "FAKE"}}', r"'\.\./a\.mp4' is not the name of a file beside it"),
    ],
)
def test_a_broken_metadata_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.mp4")
    write(tmp_path / "metadata.json", text)
    with pytest.raises(InputError, match=rf"metadata\.json: .*{message}"):
        discover(tmp_path)


# ---------------------------------------------------------------------------------------------------- nothing there


def test_a_layout_that_is_not_known_is_told_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path / "set", "left/a.jpg")
    with pytest.raises(NothingToAnalyseError, match=r"real/ and fake/.*set\.csv.*celeb_synthesis.*metadata\.json"):
        discover(tmp_path / "set")


def test_a_layout_that_is_asked_for_and_holds_nothing_says_why(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    with pytest.raises(NothingToAnalyseError, match="1 left out: not where the layout has media"):
        discover(tmp_path, Layout.FFPP)
    (tmp_path / "empty/real").mkdir(parents=True)
    with pytest.raises(NothingToAnalyseError, match="it is empty"):
        discover(tmp_path / "empty")


@pytest.mark.parametrize("name", ["nothing", "nothing.csv", "x" * 5000])
def test_what_does_not_exist_cannot_be_opened(tmp_path: Path, name: str) -> None:
    for search in (discover, lambda folder: plain(folder, fake=True)):
        with pytest.raises(InputError, match=r"no such file or folder|cannot be opened"):
            search(tmp_path / name)


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(InputError, match=r"a\.mp4: not a folder"):
        discover(tmp_path / "a.mp4")


def test_a_medium_is_checked_where_it_is_made() -> None:
    for method, who in (("real", {"x"}), ("deepfakes", set())):
        with pytest.raises(ValueError, match=r"got .* for a\.mp4"):
            Medium(Path("/a.mp4"), "a.mp4", True, method, "s", frozenset(who), Kind.VIDEO)
