"""How much every channel matters: the Fisher information of a gate on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compression.groups import ChannelGroup
from detector.types import Float32Array, NothingToAnalyseError, UsageError

NO_BATCH = "there is no batch of inputs and targets; give a list or a DataLoader, which can be read more than once"

Batch = tuple[Tensor, Tensor]
"""Inputs, float (n, c, h, w), normalised; and targets, (n,)."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (n, outputs), targets (n,)) -> float (n,), one value a sample."""


def fisher(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Batch], loss: Loss
) -> dict[str, Float32Array]:
    """The empirical Fisher information of a gate on every channel, float32 (channels,) by group name.

    A gate g = 1 multiplies channel c in what *all* consumers of its group read; then dL/dg of one sample is the sum,
    over consumers and positions, of a * dL/da, and the Fisher information is the mean of its square over samples
    (Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018; gates shared by coupled
    layers: Liu et al., "Group Fisher Pruning", ICML 2021). The losses of a batch are summed, so each sample's
    gradient is its own. The model runs in eval mode, where samples do not mix.

    Args:
        model: any module that has the layers of ``groups``; its weights and modes are as before afterwards.
        groups: those whose consumers do not read the channels one by one (an output, a flatten) are left out.
        batches: see :data:`Batch`.
        loss: see :data:`Loss`.

    Raises:
        NothingToAnalyseError, UsageError: no batch, or one of a wrong shape or type.
    """
    groups = [group for group in groups if _is_read_channel_by_channel(model, group)]
    sums = {group.name: torch.zeros(group.channels, dtype=torch.float64) for group in groups}
    samples = 0
    with _in_eval_mode(model), _reads(model, groups) as reads:
        for inputs, targets in map(checked, batches):
            reads.clear()
            losses = _losses(loss, model(inputs), targets)
            gradients = torch.autograd.grad(losses.sum(), [a for _, a in reads])
            gates: dict[str, Tensor] = {}
            for (name, a), gradient in zip(reads, gradients, strict=True):
                gate = (a.detach() * gradient).flatten(2).sum(2) if a.dim() > 2 else a.detach() * gradient  # (n, c)
                gates[name] = gates[name] + gate if name in gates else gate
            for name, gate in gates.items():
                sums[name] += gate.double().square().sum(0).cpu()
            samples += len(inputs)
    if not samples:
        raise NothingToAnalyseError(NO_BATCH)
    return {name: (total / samples).numpy().astype(np.float32) for name, total in sums.items()}


def _is_read_channel_by_channel(model: nn.Module, group: ChannelGroup) -> bool:
    """Whether the inputs of the consumers of ``group`` are its channels; False without consumers."""
    layers = [model.get_submodule(name) for name in group.consumers]
    counts = {layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels for layer in layers}
    return counts == {group.channels}


@contextmanager
def _reads(model: nn.Module, groups: Sequence[ChannelGroup]) -> Iterator[list[tuple[str, Tensor]]]:
    """While it is open, a forward pass appends (group name, what a consumer of it reads) to the list.

    Every consumer reads a copy of its own, so that the gradient of the copy is that through this consumer alone.
    """
    reads: list[tuple[str, Tensor]] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def read(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            own = inputs[0].clone() if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
            reads.append((name, own))
            return (own, *inputs[1:])

        return read

    with ExitStack() as stack:
        for group in groups:
            for consumer in group.consumers:
                handle = model.get_submodule(consumer).register_forward_pre_hook(watch(group.name))
                stack.callback(handle.remove)
        yield reads


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode with gradients; the modes of all modules are as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _losses(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    losses = loss(logits, targets)
    if losses.shape != (len(logits),):
        raise UsageError(f"loss must give one value a sample, ({len(logits)},), got {tuple(losses.shape)}")
    return losses


def checked(batch: object) -> Batch:
    """``batch`` as a pair of tensors of the right kind and shape; UsageError when it is not one."""
    if not (isinstance(batch, Sequence) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise UsageError(f"a batch is a pair of tensors, inputs and targets, got {type(batch).__name__}")
    inputs, targets = batch
    if not inputs.is_floating_point() or inputs.dim() != 4 or not len(inputs):
        raise UsageError(f"inputs must be float (n, c, h, w), normalised, got {inputs.dtype} {tuple(inputs.shape)}")
    if targets.shape[:1] != inputs.shape[:1]:
        raise UsageError(f"targets must be ({len(inputs)},) as the inputs, got {tuple(targets.shape)}")
    return inputs, targets
