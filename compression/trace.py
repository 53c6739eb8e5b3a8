"""A network as a graph of its operations: what pruning and sensitivity analysis work on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from detector.types import ModelError

_CONTAINERS = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict)


def traced(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """A copy of ``model``, in eval mode, as a graph whose submodules and parameters have the names of the model's.

    Layers of ``torch.nn`` and of classes derived from them stay whole; everything else becomes operations. What a
    forward() decides by ``self.training`` is decided as in eval mode, for good; modules keep their own modes.

    Args:
        model: one tensor in, one tensor out; it is not changed. A graph is copied as it is.
        example: an input of it, to check that the graph computes what the model computes.

    Raises:
        ModelError: an operation that depends on values cannot be traced, or the graph computes something else.
    """
    model = copy.deepcopy(model).eval()
    expected = _outputs(model, example)
    if isinstance(model, fx.GraphModule):
        return model
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
    except Exception as error:  # whatever a forward() raises when it is given something that is not a tensor
        raise ModelError(
            f"{tracer.where(model)} cannot be traced: {first_line(error)}; "
            "keep decisions about tensor values and shapes out of its forward()"
        ) from error
    module = fx.GraphModule(model, graph, type(model).__name__).eval()
    if not torch.allclose(_outputs(module, example), expected, rtol=1e-4, atol=1e-5):
        raise ModelError(
            f"the graph of {type(model).__name__} computes something else than the model; "
            "a forward() that draws random numbers or changes itself cannot be traced"
        )
    return module


class _Tracer(fx.Tracer):
    """Keeps derived layers whole, and remembers where it is for the message when it fails."""

    def __init__(self) -> None:
        super().__init__()
        self._inside: list[tuple[str, str]] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        """True for layers of torch.nn, and for classes derived from one, which forward() must not look into."""
        layers = [base for base in type(m).__mro__ if base.__module__.startswith("torch.nn")]
        return any(base not in _CONTAINERS for base in layers)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """As in the base class; the module stays noted when it fails."""
        self._inside.append((self.path_of_module(m), type(m).__name__))
        result = super().call_module(m, forward, args, kwargs)
        self._inside.pop()
        return result

    def where(self, model: nn.Module) -> str:
        """The innermost module that was being traced."""
        if not self._inside:
            return type(model).__name__
        name, kind = self._inside[-1]
        return f"{name} ({kind})"


def _outputs(model: nn.Module, example: Tensor) -> Tensor:
    """What ``model`` makes of ``example``, checked to be one tensor."""
    try:
        with torch.no_grad():
            outputs = model(example)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{type(model).__name__} does not take an input of {example.dtype} {tuple(example.shape)}: "
            f"{first_line(error)}"
        ) from error
    if not isinstance(outputs, Tensor):
        raise ModelError(f"{type(model).__name__} returns {type(outputs).__name__}; wrap it to return one tensor")
    return outputs


def first_line(error: Exception) -> str:
    """The first line of what ``error`` says, or its class."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
