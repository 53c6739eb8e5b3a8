from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector.training.backbone import (
    Architecture,
    EfficientNetLite,
    PixelsToProbability,
    imagenet_backbone,
    imagenet_weights,
    load_checkpoint,
    normalise,
    round_channels,
)
from detector.types import ModelError


def multiply_adds(model: nn.Module, size: int) -> int:
    """Multiply-adds of all convolutions and linear layers, counted from the shapes that flow through."""
    total = 0

    def count(layer: nn.Conv2d | nn.Linear, _: object, y: torch.Tensor) -> None:
        nonlocal total
        total += y[0].numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


def test_parameters_and_multiply_adds_are_those_published() -> None:
    """4.7 M and 407 M at 224 px with 1000 classes: the table of the EfficientNet-Lite release (Google, 2020)."""
    model = EfficientNetLite(Architecture(outputs=1000)).eval()
    assert sum(p.numel() for p in model.parameters()) == 4_652_008
    # Convolutions and the linear layer only: 385 M. The published figure does not say what else it counts.
    assert multiply_adds(model, 224) == pytest.approx(407e6, rel=0.06)


def test_lite1_has_the_size_published() -> None:
    """5.4 M parameters: width 1.0, depth 1.1, stem, head, first and last stage unscaled."""
    model = EfficientNetLite(Architecture(depth=1.1, outputs=1000))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(5.4e6, rel=0.01)


def test_key_names_are_those_of_the_checkpoints() -> None:
    keys = list(EfficientNetLite().state_dict())
    assert len(keys) == 296
    assert keys[0] == "conv_stem.weight"
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert keys[-8:-2] == ["conv_head.weight", *(f"bn2.{key}" for key in norm)]
    assert keys[-2:] == ["classifier.weight", "classifier.bias"]
    block = [k.removeprefix("blocks.5.3.") for k in keys if k.startswith("blocks.5.3.") and k.endswith("weight")]
    assert block == ["conv_pw.weight", "bn1.weight", "conv_dw.weight", "bn2.weight", "conv_pwl.weight", "bn3.weight"]
    assert "blocks.0.0.conv_dw.weight" in keys
    assert "blocks.0.0.conv_pwl.weight" not in keys


def test_the_output_shrinks_by_32_and_any_such_size_works() -> None:
    model = EfficientNetLite(Architecture(width=0.25, head=64)).eval()
    for size in (64, 96):
        assert model(torch.zeros(2, 3, size, size)).shape == (2, 1)
        assert model.blocks(model.conv_stem(torch.zeros(1, 3, size, size))).shape[2:] == (size // 32, size // 32)


def test_expansion_widths_can_be_set_per_block() -> None:
    model = EfficientNetLite(Architecture(expanded={"blocks.3.1": 208}))
    assert model.state_dict()["blocks.3.1.conv_dw.weight"].shape == (208, 1, 3, 3)
    assert model.state_dict()["blocks.3.2.conv_dw.weight"].shape == (480, 1, 3, 3)


def test_rounding_never_loses_a_tenth() -> None:
    for channels in np.arange(4, 400, 0.7):
        rounded = round_channels(float(channels))
        assert rounded % 8 == 0
        assert rounded >= 0.9 * channels
        assert abs(rounded - channels) <= 8


def test_pixels_are_normalised_as_in_training() -> None:
    crops = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).repeat(1, 1, 1, 3)
    planes = normalise(crops)
    assert planes.shape == (1, 3, 16, 16)
    expected = (np.arange(256, dtype=np.float64) - 127) / 128
    np.testing.assert_array_equal(planes[0, 1].flatten().numpy(), expected.astype(np.float32))


def test_the_scorer_gives_one_probability_a_crop() -> None:
    model = PixelsToProbability(EfficientNetLite(Architecture(width=0.25, head=64)).eval())
    p_fake = model(torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8))
    assert p_fake.shape == (3,)
    assert ((p_fake >= 0) & (p_fake <= 1)).all()


def test_imagenet_weights_fill_everything_but_the_classifier() -> None:
    weights = imagenet_weights()
    assert len(weights) == 294
    assert not any(key.startswith("classifier") for key in weights)
    model = imagenet_backbone()
    for key, value in model.state_dict().items():
        if key in weights:
            assert torch.equal(value, weights[key]), key


def test_a_checkpoint_of_half_precision_loads_in_full(tmp_path: Path) -> None:
    architecture = Architecture(width=0.25, head=64)
    model = EfficientNetLite(architecture)
    torch.save(model.half().state_dict(), tmp_path / "x.pt")
    loaded = load_checkpoint(tmp_path / "x.pt", architecture)
    assert not loaded.training
    for key, value in loaded.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.equal(value, model.state_dict()[key].to(value.dtype)), key


def test_what_is_not_a_fitting_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(ModelError, match="no checkpoint at"):
        load_checkpoint(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="not a checkpoint that torch can load safely"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds list, not a state dict"):
        load_checkpoint(path)
    state = EfficientNetLite().state_dict()
    torch.save({**state, "extra": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match="0 tensors missing, 1 unknown; one is extra"):
        load_checkpoint(path)
    torch.save(state | {"classifier.weight": torch.zeros(2, 1280)}, path)
    with pytest.raises(ModelError, match=re.escape("classifier.weight is (2, 1280), needs (1, 1280)")):
        load_checkpoint(path)
    torch.save(state | {"classifier.bias": torch.tensor([float("nan")])}, path)
    with pytest.raises(ModelError, match=r"classifier\.bias holds values that are not finite"):
        load_checkpoint(path)
