"""What is compressed: a dense network, what it learns from, and where its channels may go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compression.blocks import Landmarks, landmarks
from compression.examples import Batch, Examples
from compression.groups import ChannelGroup, channel_groups
from compression.joint import DenseTeacher, parts
from compression.replay import settled
from compression.sensitivity import options
from compression.trace import traced
from compression.workspace import digest
from detector.types import Float32Array, NothingToAnalyseError, UsageError

_PART = 4
"""Inputs that go through a network at once: few, so that they stay in the cache."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A dense network and its data; see :meth:`of`.

    Attributes:
        network: traced, in eval mode, batch norm not folded.
        examples: by input size in px, as the network takes them; the first size is where sensitivity is measured.
        groups: all channel groups.
        marks: what stays where it is.
        input_range: of the inputs when they have exactly 256 values (pixels); None when it must be calibrated.
    """

    network: GraphModule
    examples: Mapping[int, Examples]
    groups: tuple[ChannelGroup, ...]
    marks: Landmarks
    input_range: tuple[float, float] | None = None
    _digests: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        examples: Mapping[int, Examples],
        input_range: tuple[float, float] | None = None,
    ) -> Subject:
        """What is to be compressed, checked.

        Args:
            model: float (n, c, S, S) -> logits (n, outputs), any S of ``examples``; it is not changed.
            examples: see the class.
            input_range: see the class.

        Raises:
            ModelError: ``model`` cannot be traced, or does not take the examples.
            UsageError: examples of a wrong shape or type.
            NothingToAnalyseError: there are none.
        """
        example = _example(_check(examples))
        network = traced(model, example)
        groups = tuple(channel_groups(network, example))
        return cls(network, examples, groups, landmarks(network, groups), input_range)

    def with_examples(self, examples: Mapping[int, Examples]) -> Subject:
        """The same network with other examples; see :meth:`of`, which checks them alike."""
        _check(examples)
        return replace(self, examples=examples, _digests={})

    @property
    def first_size(self) -> int:
        """Where sensitivity is measured, px."""
        return next(iter(self.examples))

    def example(self, size: int) -> Tensor:
        """Two inputs, float (2, c, size, size)."""
        return _example(next(self.examples[size].batches(0)))

    def batches(self, size: int, images: int) -> Iterator[Batch]:
        """The first ``images`` examples, a few at a time."""
        left = images
        for batch in self.examples[size].batches(0):
            for part in parts(batch, _PART):
                cut = next(parts(part, left))
                yield cut
                left -= len(cut.inputs)
                if not left:
                    return

    def inputs(self, size: int, images: int) -> list[Tensor]:
        """The inputs of :meth:`batches`."""
        return [batch.inputs for batch in self.batches(size, images)]

    def array(self, size: int, images: int) -> Float32Array:
        """The inputs of :meth:`batches` in one array, float32 (images, c, size, size)."""
        return np.ascontiguousarray(torch.cat(self.inputs(size, images)).numpy())

    def choices(self, ratios: tuple[float, ...]) -> dict[str, list[int]]:
        """The counts that may be kept of every group that may be pruned."""
        return {
            group.name: [n for n in options(group, ratios) if n or group.name not in self.marks.kept_blocks]
            for group in self.groups
            if group.prunable and group.name not in self.marks.fixed
        }

    @property
    def channels(self) -> dict[str, int]:
        """Of every group, unpruned."""
        return {group.name: group.channels for group in self.groups}

    def teacher(self) -> DenseTeacher:
        """The dense network, with features after batch norm, as the student has them."""
        return DenseTeacher(settled(self.network), self.marks.features)

    def identity(self) -> str:
        """A digest of the network and of the first batch of every size."""
        if "all" not in self._digests:
            firsts = [part for size, each in self.examples.items() for part in (size, next(each.batches(0)).inputs)]
            self._digests["all"] = digest(self.network, *firsts)
        return self._digests["all"]


def _example(batch: Batch) -> Tensor:
    """Two inputs of ``batch``; tracing wants two."""
    return (batch.inputs if len(batch.inputs) > 1 else batch.inputs.repeat(2, 1, 1, 1))[:2]


def _check(examples: Mapping[int, Examples]) -> Batch:
    """The first batch of the first size, after a look at the first of each."""
    if not examples:
        raise UsageError("a compression needs examples of one input size at least, got none")
    firsts = [_checked(next(each.batches(0), None), size) for size, each in examples.items()]
    return firsts[0]


def _checked(batch: Batch | None, size: int) -> Batch:
    if batch is None:
        raise NothingToAnalyseError(f"the examples of {size} px give no batch; there is nothing to calibrate on")
    inputs, targets = batch.inputs, batch.targets
    if not inputs.is_floating_point() or inputs.dim() != 4 or inputs.shape[2:] != (size, size) or not len(inputs):
        raise UsageError(
            f"examples must be float (n, c, {size}, {size}), n at least 1, got {inputs.dtype} {tuple(inputs.shape)}"
        )
    if targets.shape != (len(inputs),):
        raise UsageError(f"targets must be ({len(inputs)},) as the inputs, got {tuple(targets.shape)}")
    if not torch.isfinite(inputs).all():
        raise UsageError("examples hold values that are not finite")
    return batch
