from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.card import KINDS, SCHEMA, ModelCard, Thresholds, checksum, read, verify
from detector.types import ModelError

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=8), json_values, max_size=3)
thresholds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: Thresholds(min(pair), max(pair)))
cards = st.builds(
    ModelCard,
    name=st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True),
    kind=st.sampled_from(KINDS),
    file=st.from_regex(r"[a-z0-9_]{1,20}\.onnx", fullmatch=True),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    bytes=st.integers(1, 10**9),
    input_size=st.integers(32, 1024),
    crop_margin=st.floats(1, 4),
    thresholds=thresholds,
    trained_on=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    measured=json_objects,
    policy=json_objects,
    licence=st.text(max_size=20),
    origin=st.text(max_size=20),
)


def card_data(**changes: Any) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "name": "net",
        "kind": "dense",
        "file": "net.onnx",
        "sha256": "0" * 64,
        "bytes": 3,
        "input_size": 256,
        "crop_margin": 1.3,
        "thresholds": {"real_below": 0.3, "fake_above": 0.7},
        "trained_on": ["faces"],
        "measured": {},
        "policy": {},
        "licence": "Apache-2.0",
        "origin": "test",
    } | changes


def write_model(folder: Path, content: bytes = b"abc", **changes: Any) -> Path:
    (folder / "net.onnx").write_bytes(content)
    facts = {"bytes": len(content), "sha256": checksum(folder / "net.onnx")} | changes
    path = folder / "net.json"
    path.write_text(json.dumps(card_data(**facts)))
    return path


@given(cards)
def test_a_card_survives_writing_and_reading(card: ModelCard) -> None:
    text = card.to_json()
    assert ModelCard.from_json(text) == card
    assert ModelCard.from_json(text).to_json() == text


def test_a_card_is_written_in_the_order_of_its_class_with_a_newline_at_the_end() -> None:
    text = ModelCard.from_json(json.dumps(card_data())).to_json()
    assert text.endswith("}\n")
    assert text.startswith(f'{{\n  "schema": "{SCHEMA}",\n  "name": "net"')
    assert list(json.loads(text)) == list(card_data())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "tellframe.model-card/9"}, "card/9' is unknown; this version reads tellframe.model-card/1"),
        ({"colour": 1}, "unknown .'colour'"),
        ({"name": "Net 1"}, "name must be"),
        ({"kind": "sparse"}, "kind must be one of dense, ptq, hqp, got 'sparse'"),
        ({"file": "../net.onnx"}, "plain .onnx file name"),
        ({"file": "a\\net.onnx"}, "plain .onnx file name"),
        ({"file": "/net.onnx"}, "plain .onnx file name"),
        ({"file": "..onnx"}, "plain .onnx file name"),
        ({"file": "net.onnx\n"}, "plain .onnx file name"),
        ({"sha256": "abc"}, "64 lower-case hex digits"),
        ({"sha256": 7}, "64 lower-case hex digits"),
        ({"bytes": 0}, "above 0"),
        ({"bytes": True}, "above 0"),
        ({"bytes": 3.0}, "above 0"),
        ({"input_size": "256"}, "32..1024 px, got '256'"),
        ({"input_size": 8}, "32..1024 px, got 8"),
        ({"crop_margin": 0.5}, "crop_margin must be a number, 1..4, got 0.5"),
        ({"crop_margin": float("nan")}, "crop_margin must be a number"),
        ({"thresholds": [0.3, 0.7]}, "thresholds must be a JSON object, got list"),
        ({"thresholds": {"real_below": 0.3}}, "thresholds lacks .'fake_above'"),
        ({"thresholds": {"real_below": 0.8, "fake_above": 0.7}}, "real_below <= fake_above"),
        ({"thresholds": {"real_below": -0.1, "fake_above": 0.7}}, "real_below <= fake_above"),
        ({"thresholds": {"real_below": 0.1, "fake_above": float("nan")}}, "fake_above must be a number"),
        ({"thresholds": {"real_below": True, "fake_above": 1}}, "real_below must be a number"),
        ({"trained_on": "faces"}, "list of texts"),
        ({"trained_on": [1]}, "list of texts"),
        ({"measured": []}, "measured must be a JSON object"),
        ({"policy": None}, "policy must be a JSON object"),
        ({"licence": None}, "licence must be a text"),
        ({"origin": 3}, "origin must be a text"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused_with_what_came(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        ModelCard.from_json(json.dumps(card_data(**changes)))
    assert "\n" not in str(error.value)


def test_every_missing_key_is_named() -> None:
    for key in card_data():
        data = card_data()
        del data[key]
        with pytest.raises(ModelError, match="schema None is unknown" if key == "schema" else f"lacks .'{key}'"):
            ModelCard.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_not_a_card_at_all_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="model card"):
        ModelCard.from_json(text)


def test_a_number_that_is_not_finite_cannot_enter_the_free_fields() -> None:
    card = ModelCard.from_json(json.dumps(card_data()))
    with pytest.raises(ModelError, match="finite"):
        ModelCard(**{f: getattr(card, f) for f in card.__slots__} | {"measured": {"auc": float("nan")}})


def test_a_model_is_verified_against_its_card(tmp_path: Path) -> None:
    assert verify(write_model(tmp_path)).name == "net"


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"abd")
    with pytest.raises(ModelError, match="SHA-256"):
        verify(path)
    (tmp_path / "net.onnx").write_bytes(b"ab")
    with pytest.raises(ModelError, match="has 2 bytes, its card says 3"):
        verify(path)
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(ModelError, match="is missing"):
        verify(path)


def test_a_missing_or_unreadable_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model card at .*net\.json"):
        read(tmp_path / "net.json")
    (tmp_path / "net.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"net\.json: cannot be read"):
        read(tmp_path / "net.json")
    (tmp_path / "net.json").write_text("{}")
    with pytest.raises(ModelError, match=r"net\.json: model card: schema None"):
        read(tmp_path / "net.json")
