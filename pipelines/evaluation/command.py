"""``tellframe evaluate``: labelled data and a model in, JSON, a page and a table out."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from detector.card import ModelCard
from detector.engine import Model
from detector.faces import MediaPipeFaces
from detector.models import StoredModel, find
from detector.scorer import OnnxScorer
from detector.training.layouts import Found, Layout, Medium, discover
from detector.training.metrics import DRAWS
from detector.training.perturb import PERTURBATIONS, TIERS
from detector.types import NothingToAnalyseError, UsageError
from pipelines.atomic import is_special, refuse_input, writable
from pipelines.carded import can_note, card_path, note
from pipelines.evaluation.figures import by_method, by_source, lacking, part
from pipelines.evaluation.results import UNCHANGED, Evaluation, Part, PerturbedPart, Settings, TierPart
from pipelines.evaluation.run import ROBUSTNESS_FRAMES, ROBUSTNESS_STRIDE, Findings, Options, run_all
from pipelines.evaluation.summary import summary
from pipelines.evaluation.words import terminal_table
from pipelines.lines import open_lines
from pipelines.memory import share_one_heap
from pipelines.text import on_one_line

Names = Mapping[str, tuple[str, ...]]
"""A reason, and the names of what it befell."""
CHECKPOINT = ".pt"
CHECKPOINT_SIZE = 256
"""Side in px of the crops a torch checkpoint is fed: that of every model so far; a state dict does not say."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked.

    Attributes:
        model: name of a shipped model, or the path of an .onnx with its card, or of a torch checkpoint (.pt).
        data: folders of labelled media, or CSV files.
        layout: theirs, a value of :class:`~detector.training.layouts.Layout`.
        json: a file, or ``-`` for standard output; None for neither.
        html: a file; None for no page.
        stride: every n-th frame of a clip is judged.
        tiers: whether to measure the quality tiers.
        robustness: whether to measure perturbed media.
        max_frames: of a clip; None for all.
        threads: of the scorer.
        on_card: heading under which the main figures go onto the model's card; None leaves the card alone.
    """

    model: str
    data: tuple[str, ...]
    layout: str
    json: str | None
    html: str | None
    stride: int
    tiers: bool
    robustness: bool
    max_frames: int | None
    threads: int
    on_card: str | None = None


def evaluate_command(plan: Plan) -> None:
    """Measures, writes what was asked for, and prints the main figures.

    Raises:
        TellframeError: nothing could be begun, or none of the media could be read.
    """
    options = Options(plan.stride, plan.max_frames, plan.tiers, plan.robustness)
    page = _page_maker() if plan.html is not None else None
    found = gather(plan.data, plan.layout)
    _check_outputs(plan, found.media)
    stored = _stored(plan)
    evaluation = evaluate(plan, found, options)
    if plan.json is not None:
        _write(plan.json, evaluation.to_json())
    if plan.html is not None and page is not None:
        _write(plan.html, page(evaluation))
    if stored is not None and plan.on_card is not None:
        note(stored, plan.on_card, summary(evaluation))
    if plan.json != "-":
        print(terminal_table(evaluation))  # noqa: T201


def _stored(plan: Plan) -> StoredModel | None:
    """The model whose card takes a note; None when none is to.

    Raises:
        UsageError: a checkpoint has no card, or there is no heading.
        OutputError: the card cannot be written.
    """
    if plan.on_card is None:
        return None
    if plan.model.endswith(CHECKPOINT):
        raise UsageError(f"--on-card needs a model with a card; {plan.model} is a checkpoint: export it first")
    stored = find(plan.model)
    can_note(stored, plan.on_card)
    return stored


def gather(data: Sequence[str], layout: str) -> Found:
    """All labelled media of all folders.

    Raises:
        UsageError: no folder, or no such layout.
        InputError, NothingToAnalyseError: a folder cannot be read or holds nothing.
    """
    if not data:
        raise UsageError("name the data: folders of labelled media, or CSV files")
    if layout not in list(Layout):
        raise UsageError(f"the layout is one of {', '.join(Layout)}, got {layout!r}")
    return together([discover(Path(folder), Layout(layout)) for folder in dict.fromkeys(data)])


def together(founds: Sequence[Found]) -> Found:
    """All that was found; a medium that was named twice counts once.

    Raises:
        UsageError: a medium was named as real and as fake.
    """
    media: dict[Path, Medium] = {}
    for medium in (medium for found in founds for medium in found.media):
        if media.setdefault(medium.path, medium).fake != medium.fake:
            raise UsageError(f"{medium.path}: is named as real and as fake; name it once")
    return Found(tuple(media.values()), _together(*(found.left_out for found in founds)))


def _together(*troubles: Names) -> dict[str, tuple[str, ...]]:
    """All names of each reason."""
    names: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for trouble in troubles:
        for reason, befallen in trouble.items():
            names[reason] += befallen
    return dict(names)


def evaluate(plan: Plan, found: Found, options: Options) -> Evaluation:
    """Judges everything and works out the figures.

    Raises:
        NothingToAnalyseError: none of the media could be read.
    """
    share_one_heap()
    model = open_model(plan.model, plan.threads)
    steps = len(found.media) * options.passes
    with closing(MediaPipeFaces()) as finder, watching(steps) as (watched, step):
        findings = run_all(watched(found.media), model, finder, options, step)
    if not findings.clean.rows():
        reason = next(iter(findings.failures), "no media")
        raise NothingToAnalyseError(f"none of {len(found.media)} media can be read; the first: {reason}")
    return conclude(model.card, plan, findings, found.left_out)


def open_model(name: str, threads: int) -> Model:
    """The scorer of a shipped model, an .onnx or a torch checkpoint, with its card.

    Raises:
        ModelError: it is missing or damaged.
    """
    if name.endswith(CHECKPOINT):
        # Imported here, not above: torch takes seconds, and comes with the extra [train] only.
        with _from_the_extra("torch", "a .pt checkpoint"):
            from detector.training.scorer import TorchScorer
        checkpoint = TorchScorer(Path(name), CHECKPOINT_SIZE, threads)
        return Model(checkpoint.card, checkpoint)
    stored = find(name)
    return Model(stored.card, OnnxScorer(stored, threads))


def conclude(card: ModelCard, plan: Plan, findings: Findings, left_out: Names, draws: int = DRAWS) -> Evaluation:
    """The figures of ``findings``; ``left_out`` are reasons with the names that were not even tried."""
    settings = Settings(
        data=plan.data,
        layout=plan.layout,
        stride=plan.stride,
        max_frames=plan.max_frames,
        threads=plan.threads,
        draws=draws,
        robustness_frames=ROBUSTNESS_FRAMES,
        robustness_stride=ROBUSTNESS_STRIDE,
    )
    return Evaluation(
        card=card,
        settings=settings,
        judged=findings.clean,
        overall=part(findings.clean, draws),
        methods=by_method(findings.clean, draws),
        sources=by_source(findings.clean, draws),
        tiers=tuple(_tier(name, part(judged, draws)) for name, judged in findings.tiers.items()),
        robustness=tuple(
            _perturbed(*condition, part(judged, draws)) for condition, judged in findings.robustness.items()
        ),
        failures=_together(left_out, findings.failures, lacking(findings.clean)),
    )


def _tier(name: str, figures: Part) -> TierPart:
    limits = TIERS[name]
    if limits is None:
        return TierPart(name, None, None, figures)
    return TierPart(name, limits.longer_side, limits.quality, figures)


def _perturbed(name: str, level: int, figures: Part) -> PerturbedPart:
    if name == UNCHANGED:
        return PerturbedPart(name, level, None, None, figures)
    kind = PERTURBATIONS[name]
    return PerturbedPart(name, level, kind.parameter, kind.values[level - 1], figures)


def _page_maker() -> Callable[[Evaluation], str]:
    """Makes the page; asked for before the work, as what it draws with may be missing."""
    with _from_the_extra("matplotlib", "--html"):
        from pipelines.evaluation.html import page
    return page


@contextmanager
def _from_the_extra(package: str, what: str) -> Iterator[None]:
    """Says what to install when ``package`` is missing; another missing module is a fault of ours."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise UsageError(f"{what} needs {package}, which is not installed; pip install 'tellframe[train]'") from None


def _check_outputs(plan: Plan, media: Sequence[Medium]) -> None:
    """Finds out now, not after the work, what cannot be written.

    Raises:
        UsageError: both outputs are one file, or the page has no file.
        OutputError: an output cannot be written, or is one of the media.
    """
    if plan.html == "-" or "" in (plan.html, plan.json):
        raise UsageError("--html and --json need the name of a file (--json also takes - for standard output)")
    targets = [target for target in (plan.json, plan.html) if target not in (None, "-")]
    if len({os.path.realpath(target) for target in targets}) < len(targets):
        raise UsageError(f"--json and --html would write to the same place, {targets[0]}; name two files")
    model = [str(path) for path in _files_of(plan.model)]
    for target in targets:
        for source in (*plan.data, *model, *(str(medium.path) for medium in media)):
            refuse_input(target, source)
        if not is_special(target):
            writable(target)


def _files_of(model: str) -> tuple[Path, ...]:
    """The files of a model that was named by its path: no result may take their place."""
    path = Path(model)
    return (path, card_path(path)) if path.suffix in (CHECKPOINT, ".onnx") else ()


def _write(target: str, text: str) -> None:
    with closing(open_lines(target)) as lines:
        lines.write(text)


Watched = Callable[[Sequence[Medium]], Iterator[Medium]]


@contextmanager
def watching(steps: int) -> Iterator[tuple[Watched, Callable[[], None]]]:
    """A bar with the time left on standard error, when that is a terminal: what names a medium, what counts a step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("", total=steps)

        def watched(media: Sequence[Medium]) -> Iterator[Medium]:
            for medium in media:
                progress.update(bar, description=on_one_line(medium.name))
                yield medium

        yield watched, lambda: progress.advance(bar)
