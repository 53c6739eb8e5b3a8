"""Averaging checkpoints: the mean of every weight, in a file that loads as a checkpoint."""

import subprocess
import sys

import torch

from detector.training.backbone import EfficientNetLite, load_checkpoint
from tests.commands import ROOT


def test_the_mean_of_two_checkpoints_loads_as_one(tmp_path):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = {k: v.half() if v.is_floating_point() else v for k, v in EfficientNetLite().state_dict().items()}
        torch.save(state, tmp_path / f"{seed}.pt")
        states.append(state)
    command = [sys.executable, "-m", "assets.average_checkpoints", tmp_path / "0.pt", tmp_path / "1.pt"]
    subprocess.run([*command, "--out", tmp_path / "mean.pt"], cwd=ROOT, check=True)
    for name, value in load_checkpoint(tmp_path / "mean.pt").state_dict().items():
        expected = (states[0][name].float() + states[1][name].float()) / 2
        torch.testing.assert_close(value.float(), expected, rtol=1e-3, atol=1e-5)
