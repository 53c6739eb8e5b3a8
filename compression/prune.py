"""Removes channels from a network: for good, in a new one, or for a while, with masks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.hooks import RemovableHandle

from compression.groups import ChannelGroup, channel_groups, is_dense, residual_branch
from compression.trace import first_line
from detector.types import ModelError, UsageError

Kept = Mapping[str, Sequence[int]]
"""Group name -> the indices of the channels that stay, ascending; groups that are not named stay whole."""


def keep_channels(model: fx.GraphModule, example: Tensor, kept: Kept) -> fx.GraphModule:
    """A new model in which every group named in ``kept`` has only the channels listed.

    An empty list takes the residual block of a removable group out of the graph, with the layers that then have no
    use. Layers keep their classes, attributes and modes; of derived layers, every parameter and buffer whose first
    dimension counts the output channels is cut with them.

    Args:
        model: see :func:`compression.trace.traced`; it is not changed.
        example: an input of it, float (n, ...).
        kept: see :data:`Kept`. Residual streams may be named too.

    Raises:
        UsageError: no such group, one that cannot be pruned, or indices that are not its channels in order.
        ModelError: the model does not take ``example``, before or after.
    """
    groups = {group.name: group for group in channel_groups(model, example, streams=True)}
    for name, indices in kept.items():
        _check(groups, name, indices)
    smaller = copy.deepcopy(model)
    for name, indices in kept.items():
        if len(indices):
            _cut(smaller, groups[name], torch.tensor([int(i) for i in indices]))
    emptied = [groups[name] for name, indices in kept.items() if not len(indices)]
    if emptied:
        _remove_blocks(smaller, emptied)
    _check_runs(smaller, example)
    return smaller


@contextmanager
def mask_channels(model: fx.GraphModule, groups: Sequence[ChannelGroup], kept: Kept) -> Iterator[None]:
    """While it is open, ``model`` computes what :func:`keep_channels` would, in its old shapes.

    What consumers read from a removed channel is 0; the branch of a group with nothing kept adds 0.

    Args:
        model: the model that ``groups`` are of; its weights are not touched.
        groups: from :func:`compression.groups.channel_groups`.
        kept: see :data:`Kept`.

    Raises:
        UsageError: as for :func:`keep_channels`.
    """
    by_name = {group.name: group for group in groups}
    with ExitStack() as stack:
        for name, indices in kept.items():
            _check(by_name, name, indices)
            for handle in _masks(model, by_name[name], indices):
                stack.callback(handle.remove)
        yield


def _check(groups: Mapping[str, ChannelGroup], name: str, indices: Sequence[int]) -> None:
    """Raises UsageError unless ``indices`` can be kept of group ``name``."""
    group = groups.get(name)
    if group is None:
        raise UsageError(f"there is no channel group {name!r}; there are {', '.join(groups) or 'none'}")
    if not group.prunable:
        raise UsageError(f"{name} cannot be pruned: {group.reason}")
    if not len(indices) and not group.removable:
        raise UsageError(f"{name} has no residual block that could go with it; keep at least {group.multiple} channels")
    ascending = all(a < b for a, b in pairwise(indices))
    if len(indices) and not (ascending and indices[0] >= 0 and indices[-1] < group.channels):
        raise UsageError(f"kept channels of {name} must be ascending and within 0..{group.channels - 1}")


# ------------------------------------------------------------------------------------------------------ for good


def _cut(model: fx.GraphModule, group: ChannelGroup, indices: Tensor) -> None:
    """Leaves ``group`` only the channels ``indices``, int64 (kept,), in place."""
    for name in (*group.producers, *group.carriers):
        _cut_outputs(model.get_submodule(name), group.channels, indices)
    for name in group.consumers:
        layer = model.get_submodule(name)
        weight = _parameter(layer, "weight")
        layer.weight = nn.Parameter(weight.detach()[:, indices].clone(), weight.requires_grad)
        setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(indices))


def _cut_outputs(layer: nn.Module, channels: int, indices: Tensor) -> None:
    """Cuts every tensor of ``layer`` whose first dimension counts its channels, and the attributes that count them."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        if parameter.dim() > 0 and parameter.shape[0] == channels:
            setattr(layer, name, nn.Parameter(parameter.detach()[indices].clone(), parameter.requires_grad))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        if buffer.dim() > 0 and buffer.shape[0] == channels:
            setattr(layer, name, buffer[indices].clone())
    counts = ["out_channels", "out_features", "num_features", "num_parameters"]
    if isinstance(layer, nn.Conv2d) and not is_dense(layer):
        counts += ["in_channels", "groups"]
    for name in counts:
        if getattr(layer, name, None) == channels:
            setattr(layer, name, len(indices))


def _remove_blocks(model: fx.GraphModule, groups: Sequence[ChannelGroup]) -> None:
    """Takes the residual branches of ``groups`` out of the graph, in place."""
    for group in groups:
        branch = residual_branch(model, group.producers, group.consumers)
        assert branch is not None  # _check has seen that the group is removable
        branch.addition.replace_all_uses_with(branch.skip)
        model.graph.erase_node(branch.addition)
    model.graph.eliminate_dead_code()
    model.delete_all_unused_submodules()
    model.graph.lint()
    model.recompile()


def _check_runs(model: fx.GraphModule, example: Tensor) -> None:
    """Raises ModelError when ``model`` counts channels in operations of its own, which no longer fit."""
    try:
        with torch.no_grad():
            copy.deepcopy(model).eval()(example)
    except RuntimeError as error:
        raise ModelError(
            f"the pruned model does not run: {first_line(error)}; write channel counts in forward() as -1 or x.shape[1]"
        ) from error


def _parameter(layer: nn.Module, name: str) -> nn.Parameter:
    return dict(layer.named_parameters(recurse=False))[name]


# ---------------------------------------------------------------------------------------------------- for a while


def _masks(model: fx.GraphModule, group: ChannelGroup, indices: Sequence[int]) -> list[RemovableHandle]:
    """Hooks that make ``group`` act as if only the channels ``indices`` were there."""
    if not len(indices):
        branch = residual_branch(model, group.producers, group.consumers)
        assert branch is not None  # _check has seen that the group is removable
        return [model.get_submodule(str(branch.tail.target)).register_forward_hook(_silence)]
    mask = torch.zeros(group.channels, dtype=torch.bool)
    mask[[int(i) for i in indices]] = True
    hide = _hider(mask)
    return [model.get_submodule(name).register_forward_pre_hook(hide) for name in group.consumers]


def _hider(mask: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook that zeroes the input channels outside ``mask``, bool (channels,)."""

    def hide(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]  # (n, channels) or (n, channels, h, w)
        shaped = mask.to(x.device).view(1, -1, *(1,) * (x.dim() - 2))
        return (torch.where(shaped, x, torch.zeros((), dtype=x.dtype, device=x.device)), *inputs[1:])

    return hide


def _silence(_layer: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return torch.zeros_like(output)
