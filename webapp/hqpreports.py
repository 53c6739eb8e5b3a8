"""The reports of the compression that made the shipped HQP model (assets/hqp), read and put in order."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from detector.types import ModelError

_BLOCK = re.compile(r"blocks\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Trial:
    """One change to the dense network, and what it did.

    Attributes:
        layer: that was changed; of a group of layers that lose a channel together, the one the group is named after.
        amount: channels that were kept (0: the whole block left out), or bits of the weights.
        share: of the channels kept, 0..1; of 32 bits.
        divergence: mean squared difference of the logit from the dense network's.
    """

    layer: str
    amount: int
    share: float
    divergence: float


@dataclass(frozen=True)
class Block:
    """What became of a block of the network.

    Attributes:
        name: such as "blocks.1.0", or of the layer where it stands alone.
        channels: of every group in it that may lose some: how many it keeps, of how many. The bits of its layers.
        bits: of the weights of every layer that is left.
        removed: whether all of it was left out.
    """

    name: str
    channels: Sequence[tuple[int, int]]
    bits: Sequence[int]
    removed: bool

    @property
    def kept_share(self) -> float:
        """Of its channels, 0..1; 1 when none of them may go."""
        return (
            sum(kept for kept, _ in self.channels) / sum(every for _, every in self.channels) if self.channels else 1.0
        )


@dataclass(frozen=True)
class Reports:
    """What the files say.

    Attributes:
        comparison: schema ``tellframe.comparison/1``: all models on one machine in one run, the dense one first.
        report: schema ``tellframe.compression/1``: what the compression made.
        policy: schema ``tellframe.policy/1``: what it was asked to make.
        pruned, rounded: the trials of the sensitivity map, layer by layer in the order of computation.
    """

    comparison: Mapping[str, Any]
    report: Mapping[str, Any]
    policy: Mapping[str, Any]
    pruned: Sequence[Trial]
    rounded: Sequence[Trial]

    @cached_property
    def layers(self) -> Sequence[str]:
        """Names of the dense network's convolutions, in the order of computation."""
        return tuple(dict.fromkeys(trial.layer for trial in self.rounded))

    @cached_property
    def blocks(self) -> Sequence[Block]:
        """The network from end to end, in blocks."""
        names = dict.fromkeys(map(block_of, self.layers))
        return tuple(self._block(name) for name in names)

    def arm(self, kind: str) -> Mapping[str, Any]:
        """The first compared model of that kind: "dense", "ptq" or "hqp".

        Raises:
            ModelError: there is none.
        """
        for row in self.comparison["models"]:
            if row["kind"] == kind:
                found: Mapping[str, Any] = row
                return found
        raise ModelError(f"assets/hqp/comparison.json compares no model of the kind {kind!r}; install tellframe again")

    def _block(self, name: str) -> Block:
        groups, bits = self.report["groups"], self.report["bits"]
        channels = [(group["kept"], group["channels"]) for layer, group in groups.items() if block_of(layer) == name]
        left = [bits[layer] for layer in self.layers if block_of(layer) == name and layer in bits]
        return Block(name, channels, left, name in self.policy["removed_blocks"])


def block_of(layer: str) -> str:
    """The block that a layer belongs to, or the layer itself when it stands alone."""
    found = _BLOCK.match(layer)
    return found[0] if found else layer


def read_reports(folder: Traversable | None = None) -> Reports:
    """The reports in ``folder``, those of the shipped model when None.

    Raises:
        ModelError: a file is missing or damaged.
    """
    folder = folder or files("assets") / "hqp"
    try:
        trials = _trials((folder / "sensitivity.csv").read_text(encoding="utf-8"))
        comparison, report, policy = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("comparison", "report", "policy")
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: the reports of the compression cannot be read ({error}); install again") from None
    return Reports(comparison, report, policy, trials["pruning"], trials["bits"])


def _trials(text: str) -> Mapping[str, Sequence[Trial]]:
    """By kind: pruning, bits."""
    trials: dict[str, list[Trial]] = {"pruning": [], "bits": []}
    for row in csv.DictReader(text.splitlines()):
        trial = Trial(row["name"], int(row["option"]), float(row["share"]), float(row["divergence"]))
        trials[row["kind"]].append(trial)
    return trials
