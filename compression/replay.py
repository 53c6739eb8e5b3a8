"""Runs a network again and again from the middle: what changes late need not be computed from the start."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}


class Replay:
    """A network that was run whole once, and then runs from any of a few layers on.

    Args:
        model: in the form of :func:`settled`; layers may be given hooks or other weights between runs, as long as
            everything that changes is at or after the layer that the run starts from.
        layers: the layers to start from, where each is first called.
    """

    def __init__(self, model: fx.GraphModule, layers: Iterable[str]) -> None:
        self._model = model
        self._nodes = list(model.graph.nodes)
        calls: dict[str, int] = {}
        for i, node in enumerate(self._nodes):
            if node.op == "call_module":
                calls.setdefault(node.target, i)
        self._starts = {name: calls[name] for name in layers}
        self._needed = {name: self._crossing(start) for name, start in self._starts.items()}
        self._wanted = {node for needed in self._needed.values() for node in needed}
        self._values: dict[fx.Node, Any] = {}

    def run(self, inputs: Tensor) -> Tensor:
        """The output for ``inputs``; what later runs start from is kept."""
        interpreter = _Keeper(self._model, self._wanted)
        outputs = interpreter.run(inputs)
        self._values = interpreter.kept
        return cast(Tensor, outputs)

    def input_of(self, layer: str) -> Tensor:
        """What ``layer`` read in the last whole run."""
        return cast(Tensor, self._values[self._nodes[self._starts[layer]].all_input_nodes[0]])

    def run_from(self, layer: str) -> Tensor:
        """The output for the inputs of the last whole run, computed anew from ``layer`` on."""
        interpreter = fx.Interpreter(self._model)
        interpreter.env = {node: self._values[node] for node in self._needed[layer]}
        for node in self._nodes[self._starts[layer] :]:
            interpreter.env[node] = interpreter.run_node(node)
            for unused in interpreter.user_to_last_uses.get(node, []):
                interpreter.env.pop(unused, None)
        return cast(Tensor, interpreter.env[self._nodes[-1]])

    def _crossing(self, start: int) -> list[fx.Node]:
        """The nodes before position ``start`` that nodes at or after it read."""
        early = set(self._nodes[:start])
        return [node for node in dict.fromkeys(n for late in self._nodes[start:] for n in late.all_input_nodes)
                if node in early]  # fmt: skip


class _Keeper(fx.Interpreter):
    """Keeps the values of some nodes."""

    def __init__(self, model: fx.GraphModule, wanted: set[fx.Node]) -> None:
        super().__init__(model)
        self._wanted = wanted
        self.kept: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """As in the base class."""
        value = super().run_node(n)
        if n in self._wanted:
            self.kept[n] = value
        return value


def settled(model: fx.GraphModule) -> fx.GraphModule:
    """A copy of ``model`` for looking at: eval mode, batch norms folded into their convolutions, nothing in place.

    Folding makes it faster, and makes a layer's weights and outputs those that will be quantised.
    """
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    _leave_inputs_alone(model)
    calls = Counter(node.target for node in model.graph.nodes if node.op == "call_module")
    for node in list(model.graph.nodes):
        if calls[node.target] == 1:
            _fold_next_norm(model, node)
    model.graph.lint()
    model.recompile()
    return model


def _leave_inputs_alone(model: fx.GraphModule) -> None:
    """Makes operations return new tensors: values that are kept must not change."""
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    for node in model.graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
        if node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            node.target = node.target[:-1]
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}


def _fold_next_norm(model: fx.GraphModule, node: fx.Node) -> None:
    """Folds the batch norm that alone reads the convolution called by ``node`` into it, in place."""
    follower = next(iter(node.users), None)
    if node.op != "call_module" or len(node.users) != 1 or follower is None or follower.op != "call_module":
        return
    conv, norm = model.get_submodule(str(node.target)), model.get_submodule(str(follower.target))
    if type(conv) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_mean is None:
        return
    model.set_submodule(str(node.target), fuse_conv_bn_eval(conv, norm))
    follower.replace_all_uses_with(node)
    model.graph.erase_node(follower)
