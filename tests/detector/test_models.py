from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from detector.card import ModelCard, Thresholds, checksum
from detector.models import DEFAULT_MODEL, LADDER, available, find, ladder
from detector.types import ModelError


def store(folder: Path, name: str, content: bytes = b"weights") -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    card = ModelCard(
        name=name,
        kind="dense",
        file=path.name,
        sha256=checksum(path),
        bytes=len(content),
        input_size=64,
        crop_margin=1.3,
        thresholds=Thresholds(0.3, 0.7),
        trained_on=(),
        measured={},
        policy={},
        licence="Apache-2.0",
        origin="test",
    )
    path.with_suffix(".json").write_text(card.to_json())
    return path


def test_models_are_listed_by_name(tmp_path: Path) -> None:
    store(tmp_path, "b"), store(tmp_path, "a")
    assert [stored.card.name for stored in available(tmp_path)] == ["a", "b"]
    assert [stored.path.name for stored in available(tmp_path)] == ["a.onnx", "b.onnx"]


def test_a_model_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    path = store(tmp_path, "a")
    assert find("a", tmp_path).path == path
    assert find(path) == find(str(path)) == find("a", tmp_path)


def test_an_unknown_name_lists_the_names_there_are(tmp_path: Path) -> None:
    store(tmp_path, "b"), store(tmp_path, "a")
    with pytest.raises(ModelError, match="no model is called 'c'; there are: a, b;"):
        find("c", tmp_path)
    with pytest.raises(ModelError, match="none in"):
        find("c", tmp_path / "nowhere")


def test_a_path_without_a_model_or_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        find(tmp_path / "x.onnx")
    with pytest.raises(ModelError, match="no model at"):
        find(tmp_path)
    (tmp_path / "x.onnx").write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"no model card at .*x\.json"):
        find(tmp_path / "x.onnx")


def test_a_card_of_another_model_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, "a")
    renamed = path.rename(tmp_path / "b.onnx")
    path.with_suffix(".json").rename(tmp_path / "b.json")
    path.write_bytes(renamed.read_bytes())
    with pytest.raises(ModelError, match=r"speaks of a\.onnx, not of b\.onnx"):
        find(renamed)


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path, "a")
    path.write_bytes(b"weighty")
    with pytest.raises(ModelError, match="SHA-256"):
        find("a", tmp_path)


def test_every_shipped_model_matches_its_card() -> None:
    names = [stored.card.name for stored in available()]
    assert DEFAULT_MODEL in names
    for stored in available():
        assert find(stored.card.name) == stored
        assert stored.path.stem == stored.card.name
        assert stored.card.bytes < 8_000_000


# ------------------------------------------------------------------------------------------------------- the ladder


def test_every_model_of_the_ladder_is_shipped_and_the_default_is_one_of_them() -> None:
    assert set(LADDER) <= {stored.card.name for stored in available()}
    assert DEFAULT_MODEL in LADDER
    assert len(set(LADDER)) == len(LADDER)


def test_each_model_of_the_ladder_costs_less_than_the_one_before() -> None:
    """By what the cards say of the score stage, where two were measured on one machine."""
    measured = [find(name).card.measured.get("pipeline at 1280x720") for name in LADDER]
    for one, next_one in pairwise(measured):
        if one and next_one and one["device"] == next_one["device"]:
            assert next_one["score_ms"]["p50"] < one["score_ms"]["p50"]


def test_without_a_name_the_ladder_begins_with_the_default() -> None:
    names = [stored.card.name for stored in ladder()]
    assert names[0] == DEFAULT_MODEL
    assert tuple(names) == LADDER[-len(names) :]


def test_a_ladder_is_named_with_commas_in_its_order() -> None:
    one, two = "efficientnet_lite0_256", "efficientnet_lite0_256_int8"
    assert [stored.card.name for stored in ladder(f"{two}, {one}")] == [two, one]
    assert [stored.card.name for stored in ladder(one)] == [one]


def test_a_path_with_a_comma_in_it_is_one_model(tmp_path: Path) -> None:
    folder = tmp_path / "x, y"
    folder.mkdir()
    assert [stored.card.name for stored in ladder(str(store(folder, "b")))] == ["b"]


def test_a_model_named_twice_is_refused() -> None:
    with pytest.raises(ModelError, match="named twice"):
        ladder(f"{DEFAULT_MODEL},{DEFAULT_MODEL}")


@pytest.mark.parametrize("names", [f"{DEFAULT_MODEL},", f"{DEFAULT_MODEL},nobody", ","])
def test_a_ladder_with_a_model_that_is_not_there_is_refused(names: str) -> None:
    with pytest.raises(ModelError, match="no model"):
        ladder(names)
