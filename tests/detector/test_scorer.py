from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compression.export import export_core, finish, halve, probe_crops, save
from detector.card import ModelCard, Thresholds, checksum
from detector.models import StoredModel, available, find
from detector.scorer import OnnxScorer
from detector.training.backbone import Architecture, EfficientNetLite, PixelsToProbability
from detector.types import ModelError

SIZE = 64


def store(folder: Path, name: str, content: bytes) -> Path:
    """A model file with a card beside it."""
    path = folder / f"{name}.onnx"
    path.write_bytes(content)
    card = ModelCard(
        name=name,
        kind="dense",
        file=path.name,
        sha256=checksum(path),
        bytes=len(content),
        input_size=SIZE,
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


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite(Architecture(width=0.25, head=64)).eval()


@pytest.fixture(scope="module")
def stored(backbone: EfficientNetLite, tmp_path_factory: pytest.TempPathFactory) -> StoredModel:
    folder = tmp_path_factory.mktemp("models")
    save(halve(finish(export_core(backbone.half(), SIZE, fold=False))), folder / "net.onnx")
    backbone.float()
    return find(store(folder, "net", (folder / "net.onnx").read_bytes()))


def test_scores_are_those_of_torch_for_any_number_of_crops(backbone: EfficientNetLite, stored: StoredModel) -> None:
    scorer = OnnxScorer(stored, threads=1)
    for n in (1, 2, 7, 12):
        crops = probe_crops(SIZE)[:n]
        with torch.inference_mode():
            expected = PixelsToProbability(backbone)(torch.from_numpy(crops)).numpy()
        scores = scorer.score(crops)
        assert scores.dtype == np.float32
        assert scores.shape == (n,)
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_no_crops_give_no_scores(stored: StoredModel) -> None:
    scores = OnnxScorer(stored).score(np.zeros((0, SIZE, SIZE, 3), np.uint8))
    assert scores.dtype == np.float32
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, 3, SIZE, SIZE), np.uint8),
        np.zeros((0, SIZE, 32, 3), np.uint8),
    ],
)
def test_other_crops_are_refused_with_what_came(stored: StoredModel, crops: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"uint8 \(n, 64, 64, 3\), got {crops.dtype} \(") as error:
        OnnxScorer(stored).score(crops)
    assert str(crops.shape) in str(error.value)


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded") as error:
        OnnxScorer(find(store(tmp_path, "junk", b"this is no model")))
    assert "\n" not in str(error.value)


def test_a_graph_that_is_not_what_its_card_says_is_refused(stored: StoredModel, tmp_path: Path) -> None:
    core = export_core(EfficientNetLite(Architecture(width=0.25, head=64)), SIZE, fold=True)
    for model in (core, finish(export_core(EfficientNetLite(Architecture(width=0.25, head=64)), 96, fold=True))):
        save(model, tmp_path / "net.onnx")
        path = store(tmp_path, "net", (tmp_path / "net.onnx").read_bytes())
        with pytest.raises(ModelError, match="a Tellframe model takes uint8 'crops'"):
            OnnxScorer(find(path))


def test_threads_and_providers_are_checked(stored: StoredModel) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        OnnxScorer(stored, threads=0)
    with pytest.raises(ModelError, match=r"has no WarpDrive; there are .*CPUExecutionProvider"):
        OnnxScorer(stored, providers=["WarpDrive"])


def test_loading_and_scoring_print_nothing(stored: StoredModel) -> None:
    code = f"""
from detector.models import find
from detector.scorer import OnnxScorer
OnnxScorer(find({str(stored.path)!r})).warm_up()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_every_shipped_model_scores_and_the_dense_and_int8_ones_agree() -> None:
    models = available()
    assert {stored.card.kind for stored in models} >= {"dense", "ptq"}
    for stored in models:
        scorer = OnnxScorer(stored)
        scorer.warm_up()
        scores = scorer.score(probe_crops(stored.card.input_size))
        assert np.isfinite(scores).all()
        assert ((scores >= 0) & (scores <= 1)).all()
        assert len(np.unique(scores)) > 6, "a detector must not give everything one score"
        assert checksum(stored.path) == stored.card.sha256
