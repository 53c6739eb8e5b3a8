"""Which layers share their channels, so that a channel leaves all of them or none.

torch-pruning's dependency graph finds the layers that are coupled; this file says what each of them is in its group,
and whether the group can be pruned at all. The only file that imports torch_pruning.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch_pruning
from torch import Tensor, fx, nn

from compression.trace import first_line
from detector.types import ModelError

DEPTHWISE_MULTIPLE = 16
"""ONNX Runtime's x86 depthwise kernels have their fast path at multiples of 16 channels: 208 run faster than 200."""
MULTIPLE = 8
"""Its other convolutions want output channels in multiples of 8, and input channels in multiples of 4."""

_LAYERS = nn.Conv2d | nn.Linear
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that several layers share.

    Attributes:
        name: its first producing layer, in the order of computation: "blocks.1.0.conv_pw".
        channels: how many there are.
        producers: dense convolutions and linear layers whose output channels these are.
        carriers: depthwise convolutions, norms and other layers with values per channel that pass them on.
        consumers: dense convolutions and linear layers whose input channels these are.
        depthwise: those of the carriers that are convolutions.
        multiple: kept counts should be multiples of it, or the device runs fewer channels more slowly.
        removable: with none of its channels kept, its whole residual block can go: see :func:`residual_branch`.
        prunable: whether channels can be removed.
        reason: why not; "" when they can.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    carriers: tuple[str, ...]
    consumers: tuple[str, ...]
    multiple: int
    removable: bool
    prunable: bool
    reason: str
    depthwise: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Its convolutions and linear layers: producers, depthwise carriers, consumers."""
        return (*self.producers, *self.depthwise, *self.consumers)


@dataclass(frozen=True, slots=True)
class Branch:
    """What a residual block adds to its input.

    Attributes:
        addition: the node where branch and input meet.
        tail: the branch's last node: a module, so that it can be silenced.
        skip: the node that holds the block's input.
    """

    addition: fx.Node
    tail: fx.Node
    skip: fx.Node


def channel_groups(model: fx.GraphModule, example: Tensor, *, streams: bool = False) -> list[ChannelGroup]:
    """The channel groups of ``model``, in the order of computation; one for every output of a dense layer.

    Args:
        model: see :func:`compression.trace.traced`; it is not changed. Layers may be classes of their own, derived
            from those of torch.nn; modules of other kinds may stand between layers (fake quantisation) when they
            leave channels apart, which is tried out.
        example: an input of it, float (n, ...); its values should not be constant.
        streams: whether residual streams (several producers, joined by an addition) count as prunable.

    Raises:
        ModelError: the model does not take ``example``.
    """
    plain = copy.deepcopy(model).eval()
    values = _node_values(plain, example)
    flow = _Flow(plain, values)
    coupled = _coupled_layers(_stand_in(plain, flow).to(example.device), example)
    return [flow.group(layers, streams) for layers in sorted(coupled, key=flow.first_call) if flow.known(layers)]


def is_depthwise(module: nn.Module) -> bool:
    """Whether every output channel of ``module`` comes from the input channel of the same index alone."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels == module.out_channels


def is_dense(module: nn.Module) -> bool:
    """Whether ``module`` mixes all its input channels: a linear layer, or a convolution in one group."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def residual_branch(model: fx.GraphModule, producers: tuple[str, ...], consumers: tuple[str, ...]) -> Branch | None:
    """The residual branch that ends with the consumers of a group, when it can be removed whole; None otherwise.

    It can when a consumer, through its norm and the like, feeds an addition whose other operand is the very tensor that
    the first producer reads, and nothing inside the branch is read from outside it. The addition is then replaced by
    that other operand; an activation after the addition stays, so the result is exactly that of a branch of zeros.
    """
    calls = {node.target: node for node in model.graph.nodes if node.op == "call_module"}
    skip = calls[producers[0]].all_input_nodes[0]
    for consumer in consumers:
        tail = _end_of_chain(model, calls[consumer])
        addition = next(iter(tail.users), None)
        if addition is None or len(tail.users) != 1 or not is_addition(addition):
            continue
        other = [operand for operand in addition.all_input_nodes if operand is not tail]
        if other == [skip] and _closed(skip, tail, addition):
            return Branch(addition, tail, skip)
    return None


def is_addition(node: fx.Node) -> bool:
    """Whether ``node`` adds two tensors of the graph, and nothing else."""
    return node.target in _ADDITIONS and not node.kwargs and all(isinstance(operand, fx.Node) for operand in node.args)


def _end_of_chain(model: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The last of the modules after ``node`` that are no layers with weights of their own, each the only reader."""
    while len(node.users) == 1:
        follower = next(iter(node.users))
        if follower.op != "call_module" or isinstance(model.get_submodule(str(follower.target)), _LAYERS):
            break
        node = follower
    return node


def _closed(skip: fx.Node, tail: fx.Node, addition: fx.Node) -> bool:
    """Whether the nodes between ``skip`` and ``tail`` read nothing but ``skip``, and only ``addition`` reads them."""
    inside: set[fx.Node] = set()
    waiting = [tail]
    while waiting:
        node = waiting.pop()
        if node is skip or node in inside:
            continue
        if node.op in ("placeholder", "output"):
            return False
        inside.add(node)
        waiting += node.all_input_nodes
    readers = {reader for node in inside if node.op != "get_attr" for reader in node.users}
    return readers <= inside | {addition}


# ---------------------------------------------------------------------------------------------- what is coupled


def _coupled_layers(model: nn.Module, example: Tensor) -> list[dict[str, bool]]:
    """For every channel group of ``model``, its layers by name: True where the channels go in, False where they are
    made or passed on.
    """
    for parameter in model.parameters():  # it follows gradients
        parameter.requires_grad_(True)
    names = {module: name for name, module in model.named_modules()}
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(model, example, verbose=False)
        found = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
    groups: list[dict[str, bool]] = []
    for group in found:
        layers: dict[str, bool] = {}
        for dependency, _ in group:
            module = dependency.target.module
            if isinstance(module, nn.Module) and module in names:
                goes_in = is_dense(module) and graph.is_in_channel_pruning_fn(dependency.handler)
                layers[names[module]] = layers.get(names[module], False) or goes_in
        groups.append(layers)
    return groups


def _stand_in(model: fx.GraphModule, flow: _Flow) -> fx.GraphModule:
    """``model`` with plain layers for derived ones, whose own operations torch-pruning would take for the network's."""
    model = copy.deepcopy(model)
    for node in model.graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            model.set_submodule(node.target, _plain(module, apart=flow.keeps_apart.get(node.name, False)))
    return model


def _plain(module: nn.Module, *, apart: bool) -> nn.Module:
    """A layer of torch.nn like ``module``; an identity for an unknown one that keeps channels ``apart``."""
    if type(module).__module__.startswith("torch.nn."):
        return module
    if isinstance(module, nn.Conv2d):
        return nn.Conv2d(
            module.in_channels, module.out_channels, cast(Any, module.kernel_size), cast(Any, module.stride),
            cast(Any, module.padding), cast(Any, module.dilation), module.groups, module.bias is not None,
            dtype=module.weight.dtype,
        )  # fmt: skip
    if isinstance(module, nn.Linear):
        return nn.Linear(module.in_features, module.out_features, module.bias is not None, dtype=module.weight.dtype)
    if isinstance(module, nn.BatchNorm2d):
        return nn.BatchNorm2d(module.num_features, affine=module.affine, dtype=module.weight.dtype).eval()
    return nn.Identity() if apart else module


# ---------------------------------------------------------------------------------------------- where channels go


class _Flow:
    """Where the channels of every dense layer go in a graph, and what happens to them on the way."""

    def __init__(self, model: fx.GraphModule, values: Mapping[fx.Node, Any]) -> None:
        self._model = model
        self._values = values
        self._calls: dict[str, list[fx.Node]] = {}
        for node in model.graph.nodes:
            if node.op == "call_module":
                self._calls.setdefault(str(node.target), []).append(node)
        self._order = {node: i for i, node in enumerate(model.graph.nodes)}
        self.keeps_apart: dict[str, bool] = {
            node.name: self._keeps_apart(node) for node in model.graph.nodes if self._passes(node)
        }

    def known(self, layers: Mapping[str, bool]) -> bool:
        """Whether the group has a producer that is called."""
        return bool(self._producers(layers))

    def first_call(self, layers: Mapping[str, bool]) -> int:
        """Where in the order of computation the group begins."""
        return min((self._position(name) for name in self._producers(layers)), default=-1)

    def group(self, layers: Mapping[str, bool], streams: bool) -> ChannelGroup:
        """What the coupled ``layers`` are as a group."""
        producers = self._producers(layers)
        carried = self._reached(producers)
        modules = {str(n.target): self._module(n) for n in carried if n.op == "call_module"}
        channels = _outputs_of(self._model.get_submodule(producers[0]))
        carriers = tuple(n for n, m in modules.items() if n not in producers and _has_values_per_channel(m, channels))
        consumers = self._in_order(name for name, goes_in in layers.items() if goes_in)
        depthwise = tuple(name for name in carriers if is_depthwise(modules[name]))
        reason = self._obstacle(carried, consumers)
        if not reason and not streams and len(producers) > 1 and any(map(is_addition, carried)):
            reason = "residual stream"
        return ChannelGroup(
            name=producers[0],
            channels=channels,
            producers=producers,
            carriers=carriers,
            consumers=consumers,
            multiple=DEPTHWISE_MULTIPLE if depthwise else MULTIPLE,
            removable=not reason and residual_branch(self._model, producers, consumers) is not None,
            prunable=not reason,
            reason=reason,
            depthwise=depthwise,
        )

    def _producers(self, layers: Mapping[str, bool]) -> tuple[str, ...]:
        made = (name for name, goes_in in layers.items() if not goes_in)
        return self._in_order(n for n in made if n in self._calls and self._makes_channels(self._calls[n][0]))

    def _in_order(self, names: Iterator[str]) -> tuple[str, ...]:
        return tuple(sorted(names, key=self._position))

    def _position(self, name: str) -> int:
        return self._order[self._calls[name][0]]

    def _module(self, node: fx.Node) -> nn.Module:
        return self._model.get_submodule(str(node.target))

    def _makes_channels(self, node: fx.Node) -> bool:
        """Whether the output channels of ``node`` are new ones: a convolution, but for a depthwise one, or linear."""
        if node.op != "call_module":
            return False
        module = self._module(node)
        return isinstance(module, _LAYERS) and not is_depthwise(module)

    def _passes(self, node: fx.Node) -> bool:
        """Whether ``node`` may pass channels on: an operation that is not a dense layer, tensors in, a tensor out."""
        is_operation = node.op in ("call_module", "call_function", "call_method")
        return is_operation and not self._makes_channels(node) and isinstance(self._values.get(node), Tensor)

    def _reached(self, producers: tuple[str, ...]) -> list[fx.Node]:
        """The nodes that hold channels of ``producers``, in the order of computation."""
        reached: set[fx.Node] = set()
        waiting = [call for name in producers for call in self._calls[name]]
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.add(node)
                waiting += [user for user in node.users if self._passes(user)]
        return sorted(reached, key=self._order.__getitem__)

    def _keeps_apart(self, node: fx.Node) -> bool:
        """Whether output channel c of ``node`` depends on input channels c alone: tried out on the example.

        Values of the odd channels are changed; those of the even ones must stay as they are, and keep their places.
        """
        before = self._values[node]
        inputs = [n for n in node.all_input_nodes if isinstance(self._values.get(n), Tensor) and n.op != "get_attr"]
        counts = {self._values[n].shape[1] for n in inputs if self._values[n].dim() > 1}
        if before.dim() < 2 or counts != {before.shape[1]}:
            return False
        changed = dict(self._values)
        for operand in inputs:
            changed[operand] = self._values[operand].clone()
            changed[operand][:, 1::2] = changed[operand][:, 1::2] * -1.5 + 0.7
        after = _run_node(self._model, node, changed)
        # All but equal: a local response norm, at its defaults, mixes no more than 1e-5 of a value.
        return torch.allclose(after[:, ::2], before[:, ::2], rtol=1e-6, atol=1e-7)

    def _obstacle(self, carried: list[fx.Node], consumers: tuple[str, ...]) -> str:
        """Why channels cannot be removed from the group that the nodes ``carried`` hold; "" when they can."""
        readers = [user for node in carried for user in node.users]
        if any(user.op == "output" for user in readers):
            return "touches the model's output"
        for node in (*carried, *readers):
            if node.op == "call_module" and (reason := self._layer_obstacle(node)):
                return reason
        for node in carried:
            if not self._makes_channels(node) and (reason := self._operation_obstacle(node, carried)):
                return reason
        reading = {str(user.target) for user in readers if self._makes_channels(user)}
        if not reading:
            return "nothing reads them"
        return "" if reading == set(consumers) else f"{min(reading ^ set(consumers))} reads a part of them"

    def _layer_obstacle(self, node: fx.Node) -> str:
        """Why the module called by ``node`` cannot hold or read fewer channels."""
        module = self._module(node)
        if isinstance(module, nn.Conv2d) and not is_dense(module) and not is_depthwise(module):
            return f"{node.target} is a grouped convolution"
        if isinstance(module, nn.Linear) and self._values[node.all_input_nodes[0]].dim() > 2:
            return f"{node.target} takes more than one position at a time"
        if len(self._calls[str(node.target)]) > 1 and next(iter(module.state_dict()), None) is not None:
            return f"{node.target} is used more than once"
        return ""

    def _operation_obstacle(self, node: fx.Node, carried: list[fx.Node]) -> str:
        """Why ``node``, which passes channels on, cannot pass on fewer."""
        if not self.keeps_apart[node.name]:
            return f"{self._describe(node)} does not keep the channels apart"
        if any(n.op == "get_attr" for n in node.all_input_nodes):
            return f"{self._describe(node)} reads a parameter that is part of no layer"
        tensors = [n for n in node.all_input_nodes if isinstance(self._values.get(n), Tensor)]
        return "" if set(tensors) <= set(carried) else f"{self._describe(node)} joins them with other channels"

    def _describe(self, node: fx.Node) -> str:
        """What a person calls ``node``."""
        if node.op == "call_module":
            return f"{node.target} ({type(self._module(node)).__name__})"
        operation = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
        shapes = [tuple(self._values[n].shape[1:]) for n in node.all_input_nodes if isinstance(self._values[n], Tensor)]
        extent = " with spatial extent" if operation in ("flatten", "view", "reshape") and shapes else ""
        return f"{operation}{extent}"


def _outputs_of(module: nn.Module) -> int:
    return cast(int, module.out_features if isinstance(module, nn.Linear) else module.out_channels)


def _has_values_per_channel(module: nn.Module, channels: int) -> bool:
    """Whether ``module`` holds a tensor whose first dimension counts the channels."""
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return is_depthwise(module) or any(t.dim() > 0 and t.shape[0] == channels > 1 for t in tensors)


# ---------------------------------------------------------------------------------------------- values in a graph


def _node_values(model: fx.GraphModule, example: Tensor) -> dict[fx.Node, Any]:
    """What every node of ``model`` computes from ``example``."""
    values: dict[fx.Node, Any] = {}
    recorder = _Recorder(model, values)
    try:
        with torch.no_grad():
            recorder.run(example)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"the model does not take an input of {example.dtype} {tuple(example.shape)}: {first_line(error)}"
        ) from error
    return values


class _Recorder(fx.Interpreter):
    """Keeps the value of every node."""

    def __init__(self, model: fx.GraphModule, values: dict[fx.Node, Any]) -> None:
        super().__init__(model, garbage_collect_values=False)
        self._values = values

    def run_node(self, n: fx.Node) -> Any:
        """As in the base class; the value is kept, whatever an in-place operation does to it later."""
        value = super().run_node(n)
        self._values[n] = value.clone() if isinstance(value, Tensor) else value
        return value


def _run_node(model: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Tensor:
    """What ``node`` computes from ``values`` of the nodes that it reads."""
    interpreter = fx.Interpreter(model, garbage_collect_values=False)
    interpreter.env = dict(values)
    with torch.no_grad():
        return cast(Tensor, interpreter.run_node(node))
