"""What the commands that judge have in common: sources in, results out, one exit code. ``tellframe.py`` names them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compression.budget import FrameBudget
from detector.models import StoredModel, find
from detector.types import FrameResult, FrameSource, TellframeError, UsageError
from pipelines.annotated import AnnotatedVideo
from pipelines.exits import EXIT_FAIL_ON, FailOn
from pipelines.lines import Lines, open_lines
from pipelines.report import clip_text, json_text
from pipelines.session import ClipResult, Session, Settings
from pipelines.sinks import Csv, JsonLines, MultiSink, Sink


@dataclass(frozen=True, slots=True)
class Options:
    """The options that the judging commands share; a file name of ``-`` is standard output."""

    model: str
    budget: str = "33"
    json: str | None = None
    jsonl: str | None = None
    csv: str | None = None
    save_video: Path | None = None
    max_frames: int | None = None
    stride: int = 1
    threads: int = 2
    fail_on: FailOn | None = None
    show: bool = False


def judge(sources: Sequence[FrameSource], options: Options) -> int:
    """Judges every source, one after the other, and writes what ``options`` ask for.

    A source that cannot be read gets its line on standard error and does not stop the others.

    Returns:
        The exit code: the first source's that could not be read; else 10 when ``fail_on`` was met; else 0.

    Raises:
        TellframeError: nothing could be begun: usage, model or output.
        BaseException: Ctrl-C or an end signal; everything judged before it is written and whole.
    """
    settings = Settings(FrameBudget.parse(options.budget), options.stride, options.max_frames)
    to_stdout = [name for name in ("json", "jsonl", "csv") if getattr(options, name) == "-"]
    if len(to_stdout) > 1:
        raise UsageError(f"only one of --{' and --'.join(to_stdout)} can go to standard output; give the others a file")
    model = find(options.model)
    failure, met = 0, False
    with ExitStack() as stack:
        summaries = stack.enter_context(_summaries(options.json)) if options.json else None
        sink = stack.enter_context(_sinks(options, model, settings.budget, several=len(sources) > 1))
        session = stack.enter_context(Session(model, settings, options.threads))
        for source in sources:
            try:
                result = _judge_one(session, source, sink)
            except TellframeError as error:
                complain(error)
                failure = failure or error.exit_code
                continue
            _tell(result, summaries, quiet=bool(to_stdout))
            met = met or bool(options.fail_on and options.fail_on.hit(result.label))
            if isinstance(result.error, TellframeError):
                complain(result.error)
                failure = failure or result.error.exit_code
            elif result.error is not None:
                raise result.error
    return failure or (EXIT_FAIL_ON if met else 0)


def complain(error: TellframeError) -> None:
    """One line on standard error."""
    print(f"tellframe: {error}", file=sys.stderr)  # noqa: T201


def _judge_one(session: Session, source: FrameSource, sink: Sink) -> ClipResult:
    with _progress(source) as watch:
        return session.judge(source, sink, watch)


def _tell(result: ClipResult, summaries: Lines | None, *, quiet: bool) -> None:
    if summaries is not None:
        summaries.write(json_text(result.record))
    if not quiet:
        print(clip_text(result.record), flush=True)  # noqa: T201


@contextmanager
def _summaries(target: str) -> Iterator[Lines]:
    lines = open_lines(sys.stdout if target == "-" else target)
    try:
        yield lines
    finally:
        lines.close()


def _sinks(options: Options, model: StoredModel, budget: FrameBudget, *, several: bool) -> MultiSink:
    sinks: list[Sink] = []
    if options.jsonl:
        sinks.append(JsonLines(sys.stdout if options.jsonl == "-" else options.jsonl))
    if options.csv:
        sinks.append(Csv(sys.stdout if options.csv == "-" else options.csv))
    thresholds = model.card.thresholds
    if options.save_video:
        if several:
            _make_folder(options.save_video)
        sinks.append(AnnotatedVideo(options.save_video, budget.period_ms, thresholds.real_below, thresholds.fake_above))
    if options.show:
        from pipelines.window import Window

        sinks.append(Window(budget.period_ms, thresholds.real_below, thresholds.fake_above))
    return MultiSink(*sinks)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
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
