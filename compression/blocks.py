"""Where the blocks of a network begin and end: what lies between them is compared with the teacher, and stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx, nn

from compression.groups import ChannelGroup, is_addition
from detector.types import ModelError


@dataclass(frozen=True, slots=True)
class Landmarks:
    """What compression must leave where it is.

    Attributes:
        features: the convolution whose output is compared with the teacher's.
        fixed: groups that stay whole: those that lead from block to block, and that of ``features``.
        kept_blocks: groups whose residual block cannot be dropped, as ``features`` is in it.
    """

    features: str
    fixed: frozenset[str]
    kept_blocks: frozenset[str]


def landmarks(model: fx.GraphModule, groups: Sequence[ChannelGroup]) -> Landmarks:
    """The landmarks of ``model``, traced.

    A block is an instance of a class of modules, some of which add a residual. A group that is made in one block and
    read in another is part of a stream, be there an addition on it or not: pruning it would touch all that follows.
    ``features`` is the last convolution of a group that stays; where all could be pruned, the last convolution.

    Raises:
        ModelError: there is no convolution.
    """
    blocks = _blocks(model)
    fixed = {group.name for group in groups if group.prunable and _crosses(group, blocks)}
    order = [str(n.target) for n in model.graph.nodes if n.op == "call_module" and _is_conv(model, n)]
    if not order:
        raise ModelError(f"{type(model).__name__} has no convolution; there is nothing to compress")
    whole = {name for g in groups if not g.prunable or g.name in fixed for name in g.producers if name in order}
    features = max(whole, key=order.index, default=order[-1])
    fixed |= {group.name for group in groups if group.prunable and features in group.producers}
    kept_blocks = {group.name for group in groups if group.removable and features in group.consumers}
    return Landmarks(features, frozenset(fixed), frozenset(kept_blocks))


def _is_conv(model: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(model.get_submodule(str(node.target)), nn.Conv2d)


def _blocks(model: fx.GraphModule) -> dict[str, str]:
    """The block of every layer that is in one, by name."""
    stacks = {node: _stack(node) for node in model.graph.nodes}
    kinds = {stack[-1][1] for node, stack in stacks.items() if is_addition(node) and stack}
    found: dict[str, str] = {}
    for node, stack in stacks.items():
        inside = [path for path, kind in stack if kind in kinds]
        if node.op == "call_module" and inside:
            found[str(node.target)] = inside[-1]
    return found


def _stack(node: fx.Node) -> list[tuple[str, object]]:
    """Path and class of the modules that ``node`` was traced in, the innermost last."""
    return [(str(path), kind) for path, kind in node.meta.get("nn_module_stack", {}).values()]


def _crosses(group: ChannelGroup, blocks: dict[str, str]) -> bool:
    places = {blocks.get(name) for name in (*group.producers, *group.consumers)}
    return len(places) > 1
