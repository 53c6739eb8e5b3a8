"""One step of the optimiser: crops in, better weights out."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from detector.training.backbone import EfficientNetLite, normalise
from detector.training.pairs import KINDS
from detector.training.recipe import Recipe

PREFIX_BATCH = 2
"""Crops that pass frozen stages at once on a CPU: larger batches leave the cache and take twice as long a crop."""
_LARGEST_GRADIENT = 5.0


class Step:
    """What a step needs, prepared once.

    Args:
        recipe: how to train.
        backbone: what is trained, in place.
        average: follows it.
        optimiser: of the backbone's parameters.
        accelerator: puts everything on its device.
    """

    def __init__(
        self,
        recipe: Recipe,
        backbone: EfficientNetLite,
        average: AveragedModel,
        optimiser: Optimizer,
        accelerator: Accelerator,
    ) -> None:
        self._recipe, self._backbone, self._average, self._accelerator = recipe, backbone, average, accelerator
        self._prefix = _Prefix(backbone, recipe.frozen_stages, accelerator.device)
        self._rest, self._optimiser = accelerator.prepare(_Rest(backbone, recipe.frozen_stages), optimiser)
        self._loss = nn.BCEWithLogitsLoss(reduction="none")

    def __call__(self, number: int, pairs: Tensor, kinds: Tensor) -> dict[str, float]:
        """Learns, as step ``number`` from 0, from crops uint8 (n, 2, S, S, 3); what was measured on the way."""
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._recipe, number)
        crops = pairs.flatten(0, 1)  # (2n, S, S, 3): real, fake, real, fake ...
        fake = torch.tensor([0.0, 1.0], device=crops.device).repeat(len(pairs))  # (2n,)
        with torch.no_grad():
            features = self._prefix(crops)
        self._rest.train()
        losses, logits = self._backward(features, fake)
        if self._recipe.sam_rho:
            climbed = _climb(self._rest, self._recipe.sam_rho)
            with _statistics_as_they_are(self._rest):
                self._backward(features, fake)
            _descend(climbed)
        norm = self._accelerator.clip_grad_norm_(self._rest.parameters(), _LARGEST_GRADIENT)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._average.update_parameters(self._backbone)
        right = (logits > 0) == (fake > 0.5)
        by_kind = {
            f"accuracy_{KINDS[k]}": float(right[1::2][kinds == k].float().mean()) for k in sorted(set(kinds.tolist()))
        }
        return {
            "loss": float(losses.mean()),
            "accuracy": float(right.float().mean()),
            "accuracy_real": float(right[::2].float().mean()),
            "gradient_norm": float(norm if norm is not None else 0.0),
        } | by_kind

    def _backward(self, features: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Leaves gradients; losses and logits, (2n,) each, detached."""
        with self._accelerator.autocast():
            logits = self._rest(features)[:, 0].float()
        smooth = self._recipe.label_smoothing
        losses = self._loss(logits, fake * (1 - 2 * smooth) + smooth)
        self._optimiser.zero_grad()
        self._accelerator.backward(losses.mean())
        return losses.detach(), logits.detach()


class _Prefix:
    """The frozen stages: pixels in, features out, without gradients, as at run time (running statistics)."""

    def __init__(self, backbone: EfficientNetLite, stages: int, device: torch.device) -> None:
        self._layers: nn.Sequential | None = None
        self._batch = PREFIX_BATCH if device.type == "cpu" else 1 << 20
        if stages:
            layers = [backbone.conv_stem, backbone.bn1, backbone.act1, *list(backbone.blocks)[:stages]]
            frozen = copy.deepcopy(nn.Sequential(*layers)).to(device).eval()
            self._layers = frozen.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, crops: Tensor) -> Tensor:
        """uint8 (n, S, S, 3) -> features (n, c, h, w), channels last; normalised pixels when nothing is frozen."""
        pixels = normalise(crops).contiguous(memory_format=torch.channels_last)
        if self._layers is None:
            return pixels
        parts = [self._layers(part) for part in torch.split(pixels, self._batch)]
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)


class _Rest(nn.Module):
    """What follows the frozen stages: features -> logits. Its parameters are the backbone's own."""

    def __init__(self, backbone: EfficientNetLite, stages: int) -> None:
        super().__init__()
        head = [backbone.conv_head, backbone.bn2, backbone.act2, backbone.pool, nn.Flatten(1), backbone.classifier]
        stem = [] if stages else [backbone.conv_stem, backbone.bn1, backbone.act1]
        self.layers = nn.Sequential(*stem, *list(backbone.blocks)[stages:], *head)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.layers(features))


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of step ``step``, from 0: a linear rise, then half a cosine down to 0."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _climb(module: nn.Module, rho: float) -> list[tuple[nn.Parameter, Tensor]]:
    """Moves the weights ``rho`` up the gradient (Foret et al. 2021, equation 2); the weights as they were."""
    with torch.no_grad():
        moved = [p for p in module.parameters() if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in moved if p.grad is not None]).norm() + 1e-12
        before = [(p, p.detach().clone()) for p in moved]
        for p in moved:
            p.add_(cast(Tensor, p.grad), alpha=float(rho / norm))
    return before


@contextmanager
def _statistics_as_they_are(module: nn.Module) -> Iterator[None]:
    """Batch norms keep their running statistics: those of climbed weights are no part of the model."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _descend(before: list[tuple[nn.Parameter, Tensor]]) -> None:
    """Puts the weights back; the gradients stay those of the climbed place."""
    with torch.no_grad():
        for parameter, value in before:
            parameter.copy_(value)
