import json
import shutil

import cv2
import pytest

from detector.models import DEFAULT_MODEL, find
from detector.types import InputError, ModelError, NothingToAnalyseError, OutputError, UsageError
from pipelines.evaluation.command import evaluate_command, gather, open_model
from pipelines.evaluation.results import SCHEMA
from pipelines.sources import VideoFile
from tests.commands import ROOT
from tests.pipelines.evaluation.made import make_plan

SAMPLES = ROOT / "assets" / "samples"


@pytest.fixture
def data(tmp_path):
    """Two of the sample clips, a frame of each as a picture, and a file that is neither."""
    for kind, name in (("real", "real"), ("fake", "fake")):
        folder = tmp_path / "data" / kind
        folder.mkdir(parents=True)
        shutil.copy(SAMPLES / f"{name}.mp4", folder)
        with VideoFile(SAMPLES / f"{name}.mp4") as source:
            cv2.imwrite(str(folder / "frame.png"), next(iter(source)).bgr)
    (tmp_path / "data" / "real" / "broken.mp4").write_text("no video")
    return tmp_path / "data"


def run(data, **changes):
    quick = {"model": DEFAULT_MODEL, "stride": 4, "max_frames": 24, "tiers": False, "robustness": False}
    evaluate_command(make_plan(data=(str(data),), **quick | changes))


def test_json_page_and_table_are_made_together(data, tmp_path, capsys):
    run(data, json=str(tmp_path / "out.json"), html=str(tmp_path / "out.html"), tiers=True)
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["schema"] == SCHEMA
    assert record["model"]["sha256"] == find(DEFAULT_MODEL).card.sha256
    assert record["settings"]["data"] == [str(data)]
    assert {(clip["name"], clip["fake"]) for clip in record["clips"]} == {
        ("real/real.mp4", False),
        ("fake/fake.mp4", True),
    }
    assert record["overall"]["video"]["auc"] == 1.0
    assert record["overall"]["image"]["fakes"] == 1
    assert [tier["tier"] for tier in record["tiers"]] == ["as it is", "768 px q60", "512 px q40"]
    (failure,) = [f for f in record["failures"] if "real/broken.mp4" in f["names"]]
    assert failure["count"] == 1
    assert "</html>" in (tmp_path / "out.html").read_text(encoding="utf-8")
    said = capsys.readouterr()
    assert said.out.startswith(f"{DEFAULT_MODEL}\n")
    assert "1 x cannot be read as video" in said.out
    assert said.err == ""


def test_json_on_standard_output_is_alone_there(data, capsys):
    run(data, json="-")
    assert json.loads(capsys.readouterr().out)["schema"] == SCHEMA


def test_folders_add_up_and_named_twice_count_once(data, tmp_path):
    more = tmp_path / "more" / "real"
    more.mkdir(parents=True)
    (more / "other.mp4").touch()
    (more / "strange.xyz").touch()
    once = gather([str(data)], "auto")
    assert gather([str(data), str(data)], "auto") == once
    both = gather([str(data), str(more.parent)], "plain")
    assert set(both.media) > set(once.media)
    assert len(both.media) == len(once.media) + 1
    assert "real/strange.xyz" in {name for names in both.left_out.values() for name in names}


def test_nothing_readable_is_an_error_and_leaves_no_file(tmp_path):
    for kind in ("real", "fake"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.mp4").write_text("no video")
    out = tmp_path / "out.json"
    with pytest.raises(NothingToAnalyseError, match="none of 2 media can be read; the first: cannot be read as video"):
        run(tmp_path, json=str(out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"data": ()}, UsageError, "name the data"),
        ({"layout": "heap"}, UsageError, "the layout is one of auto, .*, got 'heap'"),
        ({"html": "-"}, UsageError, "need the name of a file"),
        ({"html": ""}, UsageError, "need the name of a file"),
        ({"json": "x", "html": "./x"}, UsageError, "would write to the same place"),
        ({"json": "no/such/folder.json"}, OutputError, "its folder does not exist"),
        ({"data": ("nowhere",)}, InputError, "nowhere"),
        ({"model": "unheard_of"}, ModelError, "no model is called 'unheard_of'"),
        ({"model": "nowhere.pt"}, ModelError, "nowhere.pt"),
        ({"stride": 0}, UsageError, "--stride is at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_work(changes, error, complaint, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=complaint):
        evaluate_command(make_plan(**{"data": (str(data),), "model": DEFAULT_MODEL} | changes))


def test_a_result_does_not_take_the_place_of_a_clip(data):
    with pytest.raises(OutputError, match="it is the input itself"):
        run(data, json=str(data / "real" / "real.mp4"))


def test_what_was_left_out_is_reported_too(data, tmp_path):
    (data / "real" / "strange.xyz").touch()
    run(data, json=str(tmp_path / "out.json"))
    failures = json.loads((tmp_path / "out.json").read_text())["failures"]
    assert "real/strange.xyz" in {name for failure in failures for name in failure["names"]}


def test_a_model_comes_with_its_card():
    model = open_model(DEFAULT_MODEL, threads=1)
    assert model.card == find(DEFAULT_MODEL).card
