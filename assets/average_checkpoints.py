"""Averages the weights of checkpoints that come from one start: better on unseen data than any of them, often.

    python -m assets.average_checkpoints A.pt B.pt [...] --out X.pt

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022 (the uniform soup). All are state dicts of one architecture, written by ``tellframe train``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from detector.training.backbone import load_checkpoint


def average(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every float tensor, fp16; counters are those of the first."""
    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0).half() if first.is_floating_point() else first
        for name, first in states[0].items()
    }


def main() -> None:
    """Reads, averages, writes."""
    parser = argparse.ArgumentParser(description="Averages the weights of checkpoints that come from one start.")
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.save(average([load_checkpoint(path).state_dict() for path in given.checkpoints]), given.out)


if __name__ == "__main__":
    main()
