"""What lies between the blocks of a network stays whole, and so does what is compared with the teacher."""

import pytest

from compression.blocks import landmarks
from compression.groups import channel_groups
from compression.trace import traced
from detector.training.backbone import EfficientNetLite
from tests.compression.networks import MobileNetV3Small, ResNet18, ResNeXt, Vgg, picture, settle


@pytest.mark.parametrize(
    ("model", "size", "features", "fixed", "kept_blocks"),
    [
        (EfficientNetLite, 64, "blocks.6.0.conv_pwl", {"blocks.0.0.conv_pw", "blocks.6.0.conv_pwl"}, set()),
        (lambda: ResNet18(8, 3), 64, "layer4.1.conv2", set(), {"layer4.1.conv1"}),
        (lambda: MobileNetV3Small(2), 64, "blocks.10.project.0", {"stem.0", "blocks.0.project.0"},
         {"blocks.10.expand.0"}),
        (Vgg, 16, "features.6", set(), set()),
        (ResNeXt, 32, "restore.0", set(), set()),
    ],
)  # fmt: skip
def test_landmarks(model, size, features, fixed, kept_blocks):
    network = traced(settle(model()), picture(size))
    found = landmarks(network, channel_groups(network, picture(size)))
    assert (found.features, found.fixed, found.kept_blocks) == (features, fixed, kept_blocks)
