"""Fake quantisation with learned step sizes, on a traced network.

Esser et al., "Learned Step Size Quantization", ICLR 2020 (LSQ): values are rounded to the grid that the int8 kernels
will use, the gradient passes straight through the rounding, and the step of every grid is trained with the weights.
Steps are kept as log2, which keeps them positive and makes an optimiser's stride a ratio.

The grids are those of the deployed form (U8S8): uint8 activations per tensor, weights symmetric per output channel.
Batch norm is folded from the start, as it will be: a folded convolution keeps its raw weight and a *gain* per output
channel beside it, so that training sees the scales that the weights had before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional

from compression.quantize import WEIGHT_LIMIT
from detector.types import NothingToAnalyseError, UsageError

LEVELS = {8: WEIGHT_LIMIT, 6: 31, 4: 7}
"""Largest absolute integer of a weight by its bit-width; 8 bits stop where no product saturates."""
FLOAT = 32
BIAS_LIMIT = 2**30
"""Largest integer of a bias: room for the sum of products beside it in 32 bits."""
TOP = 255
"""Largest integer of an activation; the smallest is 0."""

Bits = Mapping[str, int]


# --------------------------------------------------------------------------------------------------- rounding


class _Round(torch.autograd.Function):
    """Rounds to a grid; the gradient of the step is that of LSQ (section 2.1), summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: int, low: int, high: int) -> Tensor:
        """``x`` on the grid (q - zero) * step, q in low..high; ``step`` is one number or one a row of ``x``."""
        broad = step.view(-1, *[1] * (x.ndim - 1)) if step.ndim else step
        y = (x / broad).round_().clamp_(low - zero, high - zero).mul_(broad)
        ctx.save_for_backward(x, y, step)
        ctx.ends = low - zero, high - zero
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Straight through inside the range; the step gathers rounding errors inside, and ends outside."""
        (gradient,) = gradients
        x, y, step = ctx.saved_tensors
        if step.ndim:
            broad = step.view(-1, *[1] * (x.ndim - 1))
            to_x = gradient * ((x >= ctx.ends[0] * broad) & (x <= ctx.ends[1] * broad))
            return to_x, (gradient * y - to_x * x).flatten(1).sum(1) / step, None, None, None
        gradient = torch.empty_like(x).copy_(gradient) if gradient.stride() != x.stride() else gradient
        low, high = (end * float(step) for end in ctx.ends)
        to_x = torch.ops.aten.hardtanh_backward(gradient, x, low, high)  # 0 outside, in one pass
        to_step = None
        if ctx.needs_input_grad[1]:  # times step: inside (y - x), outside y
            to_step = (torch.dot(_flat(gradient), _flat(y)) - torch.dot(_flat(to_x), _flat(x))) / step
        return to_x, to_step, None, None, None

    @staticmethod
    def symbolic(g: Any, x: Any, step: Any, zero: int, low: int, _high: int) -> Any:
        """ONNX: QuantizeLinear and back. Weights (low < 0) are int8 along axis 0, activations uint8."""
        dtype = torch.int8 if low < 0 else torch.uint8
        zeros = torch.zeros(step.type().sizes(), dtype=dtype) if low < 0 else torch.tensor(zero, dtype=dtype)
        point = g.op("Constant", value_t=zeros)
        axis = {"axis_i": 0} if low < 0 else {}
        return g.op("DequantizeLinear", g.op("QuantizeLinear", x, step, point, **axis), step, point, **axis)


def _flat(x: Tensor) -> Tensor:
    """All values in the order of memory, without a copy."""
    return x.as_strided((x.numel(),), (1,))


def rounded(x: Tensor, step: Tensor, zero: int, low: int, high: int) -> Tensor:
    """``x`` rounded to (q - zero) * step with q in low..high, differentiable in both; see :class:`_Round`."""
    return cast(Tensor, _Round.apply(x, step, zero, low, high))  # type: ignore[no-untyped-call]


# --------------------------------------------------------------------------------------------------- modules


class FoldedConv2d(nn.Conv2d):
    """A convolution with its batch norm folded in: weight * gain, per output channel, rounded when it has steps.

    (n, in, h, w) -> (n, out, h', w'), float. Attributes beside those of a convolution:

    gain: float (out,): what the batch norm multiplied by.
    log2_step: float (out,): log2 of the weight's steps; None for float weights.
    bits: of the weight.
    exact: nothing is rounded; see :func:`without_rounding`.
    once: the rounded weight while :func:`weights_once` holds it.
    sources: what rounds its input, in a tuple, as it is no part of this layer; empty for float weights.
    """

    gain: nn.Parameter
    log2_step: nn.Parameter | None
    bits: int
    exact: bool
    once: Tensor | None
    sources: tuple[Activation, ...]

    @classmethod
    def of(cls, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, bits: int) -> FoldedConv2d:
        """What ``conv`` and the running statistics of ``norm`` compute together."""
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise UsageError(f"only zero padding by numbers is compressed, got {conv.padding_mode} {conv.padding}")
        gain, shift = torch.ones(conv.out_channels), torch.zeros(conv.out_channels)
        if norm is not None:
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight if norm.affine else torch.ones(conv.out_channels)
            gain = scale.detach() / (norm.running_var + norm.eps).sqrt()
            shift = (norm.bias.detach() if norm.affine else 0) - norm.running_mean * gain
        if conv.bias is not None:
            shift = shift + conv.bias.detach() * gain
        folded = cls(
            conv.in_channels,
            conv.out_channels,
            cast(Any, conv.kernel_size),
            cast(Any, conv.stride),
            cast(Any, conv.padding),
            cast(Any, conv.dilation),
            conv.groups,
        )
        folded.weight.data.copy_(conv.weight.detach())
        cast(nn.Parameter, folded.bias).data.copy_(shift)
        folded.gain = nn.Parameter(gain.clone())
        folded.bits, folded.exact = bits, False
        folded.once, folded.log2_step, folded.sources = None, None, ()
        if bits != FLOAT:
            folded.log2_step = nn.Parameter(weight_steps(folded.folded_weight().detach(), bits).log2())
        return folded

    def folded_weight(self) -> Tensor:
        """Float (out, in / groups, kh, kw), before rounding."""
        return self.weight * self.gain.view(-1, 1, 1, 1)

    def rounded_weight(self) -> Tensor:
        """Float (out, in / groups, kh, kw), as deployed."""
        weight = self.folded_weight()
        if self.log2_step is None:
            return weight
        return rounded(weight, self.log2_step.exp2(), 0, -LEVELS[self.bits], LEVELS[self.bits])

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.exact:
            return cast(Tensor, self._conv_forward(x, self.folded_weight(), self.bias))
        weight = self.rounded_weight() if self.once is None else self.once
        return cast(Tensor, self._conv_forward(x, weight, self.rounded_bias()))

    def rounded_bias(self) -> Tensor:
        """Float (out,): to units of input step x weight step, in which kernels add it; straight through."""
        bias = cast(Tensor, self.bias)
        if self.log2_step is None or not self.sources:
            return bias
        with torch.no_grad():
            unit = self.sources[0].step * self.log2_step.exp2()  # (out,)
            unit = torch.maximum(unit, bias.abs() / BIAS_LIMIT)
            error = (bias / unit).round() * unit - bias
        return bias + error


class Activation(nn.Module):
    """Rounds a tensor to uint8 with a learned step and a fixed zero point.

    Args:
        low, high: range that the tensor takes, low <= 0 <= high.
        limit: the largest value that can occur (6 after ReLU6): the range never grows past it.
        learned: False for a grid that is given, such as that of pixels.
    """

    def __init__(self, low: float, high: float, limit: float | None = None, *, learned: bool = True) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        high = min(high, limit) if limit is not None else high
        step = max(high - low, 1e-6) / TOP
        self.zero = round(-low / step)
        self.limit = limit
        self.exact = False
        self.log2_step = nn.Parameter(torch.tensor(step).log2(), requires_grad=learned)

    @property
    def step(self) -> Tensor:
        """The step, a number above 0."""
        step = self.log2_step.exp2()
        return step if self.limit is None else step.clamp(max=self.limit / TOP)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on the grid."""
        if self.exact:
            return x.clamp(-self.zero * self.step, (TOP - self.zero) * self.step)
        return rounded(x, self.step, self.zero, 0, TOP)


def weight_steps(weight: Tensor, bits: int) -> Tensor:
    """Steps, float (out,), that round ``weight`` (out, ...) with the least squared error, among shares of its range."""
    limit = LEVELS[bits]
    rows = weight.flatten(1)
    widest = rows.abs().amax(1).clamp(min=1e-8) / limit  # (out,)
    if bits == 8:
        return widest  # clipping buys nothing where there are enough levels
    best, least = widest, torch.full_like(widest, torch.inf)
    for share in torch.linspace(0.3, 1.0, 36):
        step = widest * share
        error = ((rows / step[:, None]).round().clamp(-limit, limit) * step[:, None] - rows).square().sum(1)
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    return best


@contextmanager
def without_rounding(model: nn.Module, off: bool = True) -> Iterator[None]:
    """Inside the block nothing is rounded, unless ``off`` is False; grids still clip, as ReLUs in their place did."""
    rounding = [m for m in model.modules() if isinstance(m, FoldedConv2d | Activation)] if off else []
    for module in rounding:
        module.exact = True
    try:
        yield
    finally:
        for module in rounding:
            module.exact = False


@contextmanager
def weights_once(model: nn.Module) -> Iterator[None]:
    """Rounds every weight once for all that goes through ``model`` inside the block; gradients come at its end.

    A batch that is cut into parts for the sake of the cache would else round all weights again for every part.
    """
    layers = [module for module in model.modules() if isinstance(module, FoldedConv2d)]
    weights = [layer.rounded_weight() for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        layer.once = weight.detach().requires_grad_(weight.requires_grad)
    try:
        yield
        used = [(w, layer.once.grad) for w, layer in zip(weights, layers, strict=True) if layer.once is not None]
        with_gradient = [(w, gradient) for w, gradient in used if gradient is not None]
        if with_gradient:
            torch.autograd.backward([w for w, _ in with_gradient], [gradient for _, gradient in with_gradient])
    finally:
        for layer in layers:
            layer.once = None


# --------------------------------------------------------------------------------------------------- preparing


def with_fake_quantisation(
    model: GraphModule, bits: Bits, batches: Iterable[Tensor], input_range: tuple[float, float] | None = None
) -> GraphModule:
    """A new network that rounds as the deployed one will.

    Convolutions with fewer than 32 bits get rounded weights; what goes into them, and what comes out of them (after a
    ReLU or ReLU6 that the kernel takes in), is rounded to uint8; so is the sum of two such tensors. All else is float.

    Args:
        model: traced, in eval mode (see :func:`compression.trace.traced`). It is not changed.
        bits: 32, 8, 6 or 4 by layer name; a layer that is not named has 8.
        batches: inputs, float (n, c, h, w), that the ranges of activations are taken from.
        input_range: of the network's input when it is known, with exactly 256 values (pixels); calibrated when None.

    Raises:
        NothingToAnalyseError: no batch at all.
    """
    model = copy.deepcopy(model)
    for layer, width in bits.items():
        if width != FLOAT and width not in LEVELS:
            raise UsageError(f"{layer} cannot have {width} bits; there are 32, 8, 6 and 4")
    _fold(model, bits)
    places = _places(model)
    ranges = _ranges(model, places, batches)
    for i, (node, limit) in enumerate(places.items()):
        given = input_range if node.op == "placeholder" else None
        low, high = given or ranges[node]
        model.add_module(f"activation_{i}", Activation(low, high, limit, learned=given is None))
        _insert_after(node, f"activation_{i}")
        if limit is not None:  # a grid that starts at 0 and ends at the limit does what the ReLU did
            node.replace_all_uses_with(cast(Node, node.args[0]))
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    _tell_sources(model)
    model.graph.lint()
    model.recompile()
    return model


def merge_activations(model: GraphModule) -> GraphModule:
    """``model``, changed in place, without roundings of what was rounded just before: a removed block leaves such."""
    modules = dict(model.named_modules())

    def is_rounding(node: object) -> bool:
        return isinstance(node, Node) and node.op == "call_module" and isinstance(modules[str(node.target)], Activation)

    for node in list(model.graph.nodes):
        if is_rounding(node) and is_rounding(node.args[0]):
            node.replace_all_uses_with(cast(Node, node.args[0]))
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    _tell_sources(model)
    model.recompile()
    return model


def _tell_sources(model: GraphModule) -> None:
    """Every rounding convolution learns what rounds its input, in place."""
    modules = dict(model.named_modules())
    for node in model.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, FoldedConv2d) and layer.bits != FLOAT:
            source = modules[str(cast(Node, node.args[0]).target)]
            layer.sources = (cast(Activation, source),)


def _fold(model: GraphModule, bits: Bits) -> None:
    """Convolutions become folded ones, in place; the norms after them go."""
    modules = dict(model.named_modules())
    for node in list(model.graph.nodes):
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d):
            continue
        norm, after = None, _only_user(node)
        if after is not None and after.op == "call_module":
            candidate = modules[str(after.target)]
            norm = candidate if isinstance(candidate, nn.BatchNorm2d) else None
        _put(model, str(node.target), FoldedConv2d.of(conv, norm, bits.get(str(node.target), 8)))
        if norm is not None and after is not None:
            after.replace_all_uses_with(node)
            model.graph.erase_node(after)
    model.delete_all_unused_submodules()
    model.recompile()


def _places(model: GraphModule) -> dict[Node, float | None]:
    """The nodes whose value is rounded, in order, and the largest value that each can take when that is known."""
    modules = dict(model.named_modules())
    places: dict[Node, float | None] = {}
    for node in model.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, FoldedConv2d) and layer.bits != FLOAT:
            source = cast(Node, node.args[0])
            places.setdefault(source, None)
            after = _only_user(node)
            limit = _ceiling(after, modules) if after is not None else None
            if after is not None and limit is not None:
                places[after] = limit
            else:
                places.setdefault(node, None)
        elif _is_add(node) and all(isinstance(arg, Node) and arg in places for arg in node.args[:2]):
            after = _only_user(node)
            limit = _ceiling(after, modules) if after is not None else None
            places.setdefault(after if after is not None and limit is not None else node, limit)
    order = {node: i for i, node in enumerate(model.graph.nodes)}
    return dict(sorted(places.items(), key=lambda item: order[item[0]]))


def _ceiling(node: Node, modules: Mapping[str, nn.Module]) -> float | None:
    """The largest value after ``node`` when it is a ReLU (infinite) or a ReLU6 (6), which kernels fuse; else None."""
    if node.op == "call_module":
        layer = modules[str(node.target)]
        return 6.0 if isinstance(layer, nn.ReLU6) else torch.inf if isinstance(layer, nn.ReLU) else None
    if node.op == "call_function" and node.target in (functional.relu, torch.relu):
        return torch.inf
    if node.op == "call_function" and node.target is functional.relu6:
        return 6.0
    return None


def _is_add(node: Node) -> bool:
    import operator

    return node.op == "call_function" and node.target in (operator.add, operator.iadd, torch.add)


def _only_user(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """``module`` in the place of the one called ``name``."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _insert_after(node: Node, name: str) -> None:
    graph = node.graph
    with graph.inserting_after(node):
        new = graph.call_module(name, (node,))
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


class _Watcher(torch.fx.Interpreter):
    """Runs a network and keeps the extremes of some of its values: the mean over samples of each sample's own."""

    def __init__(self, model: GraphModule, nodes: Iterable[Node]) -> None:
        super().__init__(model)
        self.sums: dict[Node, Tensor] = {node: torch.zeros(2, dtype=torch.float64) for node in nodes}
        self.samples = 0

    def run_node(self, n: Node) -> Any:
        """See :class:`torch.fx.Interpreter`."""
        value = super().run_node(n)
        if n in self.sums:
            flat = value.flatten(1)
            self.sums[n] += torch.stack([flat.amin(1).sum(), flat.amax(1).sum()]).double().cpu()
        return value


def _ranges(model: GraphModule, nodes: Iterable[Node], batches: Iterable[Tensor]) -> dict[Node, tuple[float, float]]:
    watcher = _Watcher(model, nodes)
    with torch.no_grad():
        for batch in batches:
            watcher.run(batch)
            watcher.samples += len(batch)
    if not watcher.samples:
        raise NothingToAnalyseError("calibration needs at least one batch of inputs, got none")
    means = {node: (total / watcher.samples).tolist() for node, total in watcher.sums.items()}
    return {node: (low, high) for node, (low, high) in means.items()}
