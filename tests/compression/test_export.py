from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper

from compression.export import (
    compare,
    export_core,
    finish,
    halve,
    probe_crops,
    run_logits,
    save,
    scale_logit,
    verify,
)
from compression.quantize import optimised
from detector.training.backbone import Architecture, EfficientNetLite, imagenet_backbone
from detector.types import ModelError

SIZE = 64


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite:
    """ImageNet features and a random classifier, rounded to fp16 as checkpoints are."""
    torch.manual_seed(0)
    return imagenet_backbone().half().float().eval()


@pytest.fixture(scope="module")
def dense(backbone: EfficientNetLite) -> ModelProto:
    return finish(export_core(backbone, SIZE, fold=False))


@pytest.mark.parametrize("fold", [False, True])
def test_an_exported_model_computes_what_torch_computes(backbone: EfficientNetLite, fold: bool) -> None:
    difference = verify(backbone, finish(export_core(backbone, SIZE, fold=fold)), SIZE)
    assert difference.crops == 12
    assert difference.p_fake < 1e-5
    assert difference.logit < 1e-4


def test_storing_half_precision_weights_as_half_loses_nothing(dense: ModelProto) -> None:
    crops = probe_crops(SIZE)
    halved = halve(dense)
    np.testing.assert_array_equal(run_logits(halved, crops), run_logits(dense, crops))
    assert halved.ByteSize() < 0.51 * dense.ByteSize()
    assert halved.ByteSize() < 8_000_000


def test_the_halved_model_runs_as_plain_fused_float_convolutions(dense: ModelProto) -> None:
    plain, halved = (Counter(n.op_type for n in optimised(model).graph.node) for model in (dense, halve(dense)))
    assert plain == halved
    assert halved["Conv"] + halved["FusedConv"] == 49
    assert not {"Cast", "BatchNormalization", "Clip", "Relu", "Add"} & halved.keys()


def test_a_weight_too_large_for_half_precision_is_refused(dense: ModelProto) -> None:
    model = ModelProto()
    model.CopyFrom(dense)
    weight = next(t for t in model.graph.initializer if t.name == "conv_stem.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full(weight.dims, 1e5, np.float32), weight.name))
    with pytest.raises(ModelError, match=r"conv_stem\.weight holds values too large for fp16"):
        halve(model)


def test_the_graph_takes_pixels_and_gives_one_probability_and_logit_each(dense: ModelProto) -> None:
    (crops,) = dense.graph.input
    assert crops.name == "crops"
    assert crops.type.tensor_type.elem_type == TensorProto.UINT8
    assert [d.dim_value or d.dim_param for d in crops.type.tensor_type.shape.dim] == ["n", SIZE, SIZE, 3]
    assert [o.name for o in dense.graph.output] == ["p_fake", "logit"]
    assert "Constant" not in {n.op_type for n in dense.graph.node}


def test_a_batch_scores_as_its_crops_do_alone(dense: ModelProto) -> None:
    crops = probe_crops(SIZE)
    np.testing.assert_allclose(run_logits(dense, crops, batch=5), run_logits(dense, crops, batch=1), atol=1e-5)


def test_a_model_that_differs_from_torch_is_refused(backbone: EfficientNetLite, dense: ModelProto) -> None:
    other = EfficientNetLite(Architecture())
    other.load_state_dict({**backbone.state_dict(), "classifier.bias": torch.tensor([1.0])})
    with pytest.raises(ModelError, match=r"differs from torch by 0\.\d+ in p\(fake\)"):
        verify(other.eval(), dense, SIZE)
    other.classifier.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="differs from torch by nan"):
        verify(other, dense, SIZE)


def test_exporting_leaves_the_backbone_as_it_was(backbone: EfficientNetLite) -> None:
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    export_core(backbone, SIZE, fold=True)
    assert all(p.requires_grad for p in backbone.parameters())
    assert backbone.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_differences_are_the_largest_ones() -> None:
    difference = compare(np.array([0.0, 2.0], np.float32), np.array([0.5, 2.0], np.float32))
    assert difference.logit == 0.5
    assert difference.p_fake == pytest.approx(1 / (1 + np.exp(-0.5)) - 0.5)


def test_a_model_is_written_whole_or_not_at_all(dense: ModelProto, tmp_path: Path) -> None:
    save(dense, tmp_path / "new" / "net.onnx")
    assert (tmp_path / "new" / "net.onnx").read_bytes() == dense.SerializeToString(deterministic=True)
    (tmp_path / "taken.onnx").mkdir()
    with pytest.raises(OSError, match="taken"):
        save(dense, tmp_path / "taken.onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"new", "taken.onnx"}


def test_a_scaled_logit_is_the_logit_times_the_factor() -> None:
    torch.manual_seed(0)
    model = finish(export_core(EfficientNetLite().eval(), 64, fold=True))
    crops = probe_crops(64)
    before = run_logits(model, crops)
    once = scale_logit(model, 0.5)
    twice = scale_logit(once, 3.0)
    np.testing.assert_allclose(run_logits(once, crops), 0.5 * before, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run_logits(twice, crops), 1.5 * before, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run_logits(model, crops), before)
    assert len(twice.graph.node) == len(once.graph.node) == len(model.graph.node) + 1


def test_only_a_finished_model_has_a_logit_to_scale() -> None:
    with pytest.raises(ModelError, match="has no 'logit'"):
        scale_logit(export_core(EfficientNetLite().eval(), 64, fold=True), 0.5)
    with pytest.raises(ValueError, match="factor must be above 0"):
        scale_logit(finish(export_core(EfficientNetLite().eval(), 64, fold=True)), 0.0)
