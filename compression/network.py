"""Reads off a traced network what a policy decides about: its convolutions, and the channel groups that they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from compression.groups import ChannelGroup, is_depthwise
from compression.policy import Group, Layer, Network

_FLOAT_BYTES = 4


def network_of(
    model: fx.GraphModule, example: Tensor, groups: Sequence[ChannelGroup], options: Mapping[str, Collection[int]]
) -> Network:
    """The convolutions and groups of a traced ``model``.

    Args:
        model: see :func:`compression.trace.traced`; batch norm folded or not (it will be). It is not changed.
        example: an input of it, float (n, c, S, S).
        groups: from :func:`compression.groups.channel_groups`.
        options: the counts that may be kept, by group; the full count is added. Groups that are not named, or that
            cannot be pruned, stay whole, and are not in the result.
    """
    shapes = _output_shapes(model, example)
    chosen = [group for group in groups if group.prunable and group.name in options]
    made = {name: group.name for group in chosen for name in (*group.producers, *group.depthwise)}
    read = {name: group.name for group in chosen for name in (*group.consumers, *group.depthwise)}
    feeds = _feeds(model, list(shapes))
    return Network(
        layers=tuple(
            _layer(name, model.get_submodule(name), shape, read.get(name), made.get(name), feeds[name])
            for name, shape in shapes.items()
        ),
        groups=tuple(_group(group, options[group.name], shapes.keys()) for group in chosen),
        input_size=int(example.shape[-1]),
        other_bytes=_FLOAT_BYTES * sum(_values(module) for module in model.modules()),
    )


def _layer(
    name: str, conv: nn.Module, shape: torch.Size, in_group: str | None, out_group: str | None, feeds: Collection[str]
) -> Layer:
    assert isinstance(conv, nn.Conv2d)
    depthwise = is_depthwise(conv)
    return Layer(
        name=name,
        inputs=conv.in_channels if depthwise else conv.in_channels // conv.groups,
        outputs=conv.out_channels,
        taps=conv.weight.shape[2] * conv.weight.shape[3],
        depthwise=depthwise,
        in_group=in_group,
        out_group=out_group,
        feeds=tuple(sorted(feeds)),
        output_elements=shape[1:].numel(),
    )


def _group(group: ChannelGroup, options: Collection[int], convolutions: Collection[str]) -> Group:
    counts = tuple(sorted({group.channels, *options}))
    return Group(group.name, group.channels, counts, tuple(name for name in group.layers if name in convolutions))


def _values(module: nn.Module) -> int:
    """How many values of its own ``module`` has, when it is no convolution and no norm that is folded into one."""
    folded = isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    return 0 if folded else sum(p.numel() for p in module.parameters(recurse=False))


def _output_shapes(model: fx.GraphModule, example: Tensor) -> dict[str, torch.Size]:
    """The shape of what every convolution makes, by name, in the order in which they run."""
    shapes: dict[str, torch.Size] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: shapes.update({name: output.shape}))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _feeds(model: fx.GraphModule, convolutions: Sequence[str]) -> dict[str, set[str]]:
    """The convolutions that use what each one makes; see :attr:`compression.policy.Layer.feeds`."""
    feeds: dict[str, set[str]] = {name: set() for name in convolutions}
    order = {name: i for i, name in enumerate(convolutions)}
    maker: dict[fx.Node, str] = {}  # of each node, the last convolution that it is made by
    for node in model.graph.nodes:
        makers = {maker[operand] for operand in node.all_input_nodes if operand in maker}
        if node.op == "call_module" and node.target in order:
            maker[node] = str(node.target)
        elif makers:
            maker[node] = max(makers, key=order.__getitem__)
        for name in makers - {maker.get(node)}:
            feeds[name].add(maker[node])
    return feeds
