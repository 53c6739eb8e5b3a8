"""``tellframe train``: the command around the training loop."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from detector.training.recipe import Recipe
from detector.training.train import Places, train
from pipelines.text import on_one_line


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked; None leaves the recipe, or the library, its choice."""

    data: tuple[str, ...]
    validation: tuple[str, ...]
    out: str
    recipe: str | None
    start: str | None
    steps: int | None
    workers: int
    threads: int | None


def train_command(plan: Plan) -> None:
    """Trains; what happens is told on standard error, line by line."""
    recipe = Recipe.read(Path(plan.recipe)) if plan.recipe is not None else Recipe()
    if plan.start is not None:
        recipe = replace(recipe, start=plan.start)
    if plan.steps is not None:
        recipe = replace(recipe, steps=plan.steps)
    data, validation = tuple(map(Path, plan.data)), tuple(map(Path, plan.validation))
    places = Places(data, validation, Path(plan.out), plan.workers, plan.threads)
    train(recipe, places, tell=lambda line: print(on_one_line(line), file=sys.stderr, flush=True))  # noqa: T201
