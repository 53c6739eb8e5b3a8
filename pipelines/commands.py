"""What the commands that judge have in common: sources in, results out, one exit code. ``tellframe.py`` names them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression.budget import FrameBudget
from detector.models import StoredModel, ladder
from detector.types import FrameResult, FrameSource, OutputError, TellframeError, UsageError
from pipelines.annotated import AnnotatedVideo
from pipelines.atomic import refuse_input
from pipelines.exits import EXIT_FAIL_ON, EXIT_INTERRUPTED, FailOn, complain
from pipelines.inputs import Unusable
from pipelines.interrupts import Interrupts
from pipelines.lines import Lines, open_lines
from pipelines.report import clip_text, json_text
from pipelines.session import ClipResult, Session, Settings
from pipelines.sinks import Csv, JsonLines, MultiSink, Sink


@dataclass(frozen=True, slots=True)
class Options:
    """The options that the judging commands share; a file name of ``-`` is standard output.

    ``model`` None is the shipped ladder. ``governor`` None is yes for live sources, unless there is a ``stride``.
    """

    model: str | None = None
    budget: str = "33"
    json: str | None = None
    jsonl: str | None = None
    csv: str | None = None
    save_video: str | None = None
    max_frames: int | None = None
    stride: int | None = None
    governor: bool | None = None
    threads: int = 2
    fail_on: FailOn | None = None
    show: bool = False


def judge(sources: Sequence[FrameSource], options: Options) -> int:
    """Judges every source, one after the other, and writes what ``options`` ask for.

    A source that cannot be read gets its line on standard error and does not stop the others. Ctrl-C and end signals
    end the run between two frames: everything judged before is written and whole.

    Returns:
        The exit code: 128 + the signal's number after one; else the code of the first source that could not be read;
        else 10 when ``fail_on`` was met; else 0.

    Raises:
        TellframeError: nothing could be begun: usage, model or output.
        KeyboardInterrupt: the window was closed.
    """
    settings = _settings(options)
    _check_outputs(options, sources)
    with Interrupts() as interrupts:
        try:
            code = _judge_all(sources, options, settings, interrupts)
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        return interrupts.exit_code or code


def _judge_all(sources: Sequence[FrameSource], options: Options, settings: Settings, interrupts: Interrupts) -> int:
    if all(isinstance(source, Unusable) for source in sources):
        return _complain_of_all(sources)
    model, *cheaper = _models(options, settings, sources)
    failure, met = 0, False
    with ExitStack() as stack:
        summaries = stack.enter_context(_summaries(options.json)) if options.json else None
        sink = stack.enter_context(_sinks(options, model, settings.budget, sources))
        session = stack.enter_context(Session(model, settings, options.threads, interrupts, cheaper))
        for source in sources:
            try:
                with _progress(source) as watch:
                    result = session.judge(source, sink, watch)
            except TellframeError as error:
                complain(error)
                failure = failure or error.exit_code
                continue
            _tell(result, summaries, quiet="-" in (options.json, options.jsonl, options.csv))
            met = met or bool(options.fail_on and options.fail_on.hit(result.label))
            if isinstance(result.error, TellframeError):
                complain(result.error)
                failure = failure or result.error.exit_code
            elif result.error is not None:
                raise result.error
            if interrupts():
                break
    return failure or (EXIT_FAIL_ON if met else 0)


def _settings(options: Options) -> Settings:
    budget = FrameBudget.parse(options.budget)
    if options.stride is None:
        return Settings(budget, 1, options.max_frames, options.governor)
    return Settings(budget, options.stride, options.max_frames, options.governor or False)


def _models(options: Options, settings: Settings, sources: Sequence[FrameSource]) -> tuple[StoredModel, ...]:
    """The models to load: the ladder where a governor may step down it, else its first.

    Raises:
        ModelError: one is missing or damaged.
        UsageError: several are named, and nothing chooses between them.
    """
    models = ladder(options.model)
    if settings.governed or (settings.governed is None and any(source.live for source in sources)):
        return models
    if options.model is not None and len(models) > 1:
        raise UsageError("--model names several models, between which the governor chooses: add --governor")
    return models[:1]


def _complain_of_all(sources: Sequence[FrameSource]) -> int:
    errors = [source.error for source in sources if isinstance(source, Unusable)]
    for error in errors:
        complain(error)
    return errors[0].exit_code


def _check_outputs(options: Options, sources: Sequence[FrameSource]) -> None:
    """Refuses outputs that would take each other's place, or that of a clip.

    Raises:
        UsageError: two outputs are one file, or one has no name.
        OutputError: an output is an input.
    """
    named = {
        "--json": options.json,
        "--jsonl": options.jsonl,
        "--csv": options.csv,
        "--save-video": options.save_video,
    }
    taken: dict[str, str] = {}
    for option, target in named.items():
        if target is None:
            continue
        if not target or (option == "--save-video" and target == "-"):
            raise UsageError(f"{option} needs the name of a file, got {target!r}")
        place = target if target == "-" else os.path.realpath(target)
        if place in taken:
            both = f"{taken[place]} and {option}"
            raise UsageError(f"{both} would write to the same place, {target}; only one can: give the other a file")
        taken[place] = option
        if target != "-":
            for source in sources:
                refuse_input(target, source.info.name)


def _tell(result: ClipResult, summaries: Lines | None, *, quiet: bool) -> None:
    if summaries is not None:
        summaries.write(json_text(result.record))
    if not quiet:
        print(clip_text(result.record), flush=True)  # noqa: T201


@contextmanager
def _summaries(target: str) -> Iterator[Lines]:
    lines = open_lines(target)
    try:
        yield lines
    finally:
        lines.close()


def _sinks(options: Options, model: StoredModel, budget: FrameBudget, sources: Sequence[FrameSource]) -> MultiSink:
    sinks: list[Sink] = []
    if options.jsonl:
        sinks.append(JsonLines(options.jsonl))
    if options.csv:
        sinks.append(Csv(options.csv))
    real_below, fake_above = model.card.thresholds.real_below, model.card.thresholds.fake_above
    if options.save_video:
        if len(sources) > 1:
            _make_folder(options.save_video)
        names = [source.info.name for source in sources]
        sinks.append(AnnotatedVideo(options.save_video, budget.period_ms, real_below, fake_above, names))
    if options.show:
        from pipelines.window import Window

        sinks.append(Window(budget.period_ms, real_below, fake_above))
    return MultiSink(*sinks)


def _make_folder(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--save-video {path}: several clips need a folder, which cannot be made here ({error.strerror})"
        ) from None


@contextmanager
def _progress(source: FrameSource) -> Iterator[Callable[[FrameResult], None]]:
    """A bar with the time left on standard error, when that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[verdict]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(source.info.name, total=None, verdict="")

        def watch(result: FrameResult) -> None:
            # A container's count is a claim: a clip that holds more shows no end rather than a wrong one.
            claimed = source.info.frames
            total = claimed if claimed and claimed > result.frame.index else None
            progress.update(task, completed=result.frame.index + 1, total=total, verdict=result.verdict.label.value)

        yield watch
