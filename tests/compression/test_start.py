"""The dense network comes back from its own files, exactly."""

import pytest
import torch

from compression.export import export_core, finish, halve, save, scale_logit
from compression.start import dense_detector, weights_of_onnx
from detector.models import find
from detector.training.backbone import EfficientNetLite
from detector.types import ModelError
from tests.compression.networks import settle

SHIPPED = "efficientnet_lite0_256"


def test_weights_come_back_from_a_calibrated_file_that_stores_them_as_halves(tmp_path):
    network = settle(EfficientNetLite())
    halves = {k: v.half().float() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    network.load_state_dict(halves)
    save(scale_logit(halve(finish(export_core(network, 64, fold=False))), 0.9), tmp_path / "a.onnx")
    found = weights_of_onnx(tmp_path / "a.onnx").state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(found[name], value), name


def test_a_shipped_model_is_taken_by_name_with_its_card():
    start = dense_detector(SHIPPED)
    assert start.card == find(SHIPPED).card
    assert (start.margin, start.name, start.sha256) == (start.card.crop_margin, f"{SHIPPED}.onnx", start.card.sha256)


def test_what_holds_no_dense_weights_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"no weights called .*: it is quantised, pruned or of another"):
        dense_detector(f"{SHIPPED}_int8")
    with pytest.raises(ModelError, match=r"no checkpoint at .*none\.pt"):
        dense_detector(str(tmp_path / "none.pt"))
    with pytest.raises(ModelError, match="no model is called 'none'"):
        dense_detector("none")
    (tmp_path / "a.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        weights_of_onnx(tmp_path / "a.onnx")
