"""Networks that round: the one that the joint stage begins with, and those that a policy would lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from onnx import ModelProto
from torch import nn
from torch.fx import GraphModule

from compression.fakequant import with_fake_quantisation
from compression.policy import Policy
from compression.prune import keep_channels
from compression.qdq import quantised_core
from compression.subject import Subject
from detector.types import UsageError


@dataclass(frozen=True, slots=True)
class Student:
    """A network with fake quantisation, and its int8 core."""

    network: GraphModule
    core: ModelProto


def rounding(subject: Subject, policy: Policy, images: int) -> GraphModule:
    """The whole network with the bits of ``policy``: what the joint stage begins with.

    Layers in blocks that ``policy`` drops have 8 bits until they go.

    Args:
        subject: the dense network.
        policy: bits and input size.
        images: examples that the ranges of activations are taken from.
    """
    check_policy(subject, policy)
    batches = subject.inputs(policy.input_size, images)
    student = with_fake_quantisation(subject.network, policy.bits, batches, subject.input_range)
    return student.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def rounded_and_pruned(
    subject: Subject, policy: Policy, kept: Mapping[str, Sequence[int]] | None = None, images: int = 16
) -> Student:
    """What ``policy`` leads to when nothing adapts: for timing, and for comparing policies.

    Args:
        subject: the dense network.
        policy: counts, bits and input size.
        kept: the channels to keep of every group; the first ones when None, which is as fast.
        images: as for :func:`rounding`.
    """
    check_policy(subject, policy)
    size = policy.input_size
    whole = subject.channels
    chosen = {name: list((kept or {}).get(name, range(n))) for name, n in policy.kept.items() if n < whole[name]}
    pruned = keep_channels(subject.network, subject.example(size), chosen) if chosen else subject.network
    network = with_fake_quantisation(pruned, policy.bits, subject.inputs(size, images), subject.input_range)
    channels = int(subject.example(size).shape[1])
    return Student(network.eval(), quantised_core(network, size, channels))


def check_policy(subject: Subject, policy: Policy) -> None:
    """Raises UsageError unless ``policy`` is one of this network, at a size there are examples of."""
    if policy.input_size not in subject.examples:
        sizes = ", ".join(map(str, subject.examples))
        raise UsageError(f"the policy is for {policy.input_size} px, there are examples of {sizes} px")
    groups = {group.name: group for group in subject.groups}
    for name, count in policy.channels.items():
        if name not in groups or groups[name].channels != count:
            there = f"has {groups[name].channels} channels" if name in groups else "is not a group of it"
            raise UsageError(f"the policy is of another network: {name} ({count} channels) {there}")
    convolutions = {name for name, m in subject.network.named_modules() if isinstance(m, nn.Conv2d)}
    if unknown := sorted(policy.bits.keys() - convolutions):
        raise UsageError(f"the policy is of another network: it has no convolution {unknown[0]}")
