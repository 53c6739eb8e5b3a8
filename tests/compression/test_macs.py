from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compression.calibrate import PIXEL_RANGE
from compression.export import export_core, finish, halve
from compression.fakequant import with_fake_quantisation
from compression.macs import macs
from compression.qdq import pack, quantised_core
from compression.trace import traced
from detector.training.backbone import Architecture, EfficientNetLite
from tests.compression.networks import picture, settle

SIZE = 64


@pytest.fixture(scope="module")
def backbone() -> nn.Module:
    torch.manual_seed(0)
    return settle(EfficientNetLite(Architecture(width=0.5, depth=0.6, head=64)))


def counted(model: nn.Module, x: Tensor) -> int:
    """By the definition: every output value of a layer takes as many products as one filter has weights."""
    total = 0

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        total += output[0].numel() * weight[0].numel()

    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return total


def test_they_are_those_of_the_definition_in_every_form_of_a_model(backbone: nn.Module) -> None:
    x = picture(SIZE)
    expected = counted(backbone, x)
    rounding = with_fake_quantisation(traced(backbone, x), {"conv_head": 4}, [x], PIXEL_RANGE)
    int8 = finish(quantised_core(rounding, SIZE))
    dense = finish(export_core(backbone, SIZE, fold=False))
    assert [macs(model) for model in (dense, halve(dense), int8, pack(int8, {"conv_head": 4}))] == [expected] * 4


def test_the_lite0_of_the_papers_has_its_known_number() -> None:
    model = finish(export_core(EfficientNetLite().eval(), 224, fold=True))
    assert macs(model) == pytest.approx(385e6, rel=0.01)  # timm lists 0.40 G with its classifier of 1,000 classes
