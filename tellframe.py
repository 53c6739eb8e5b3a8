"""The front door: one command line. What a command needs is imported when it is used."""

from __future__ import annotations

import signal

# Before the slow imports: Ctrl-C just ends the program, until pipelines.interrupts watches over what is written.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import functools
import inspect
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from detector.models import DEFAULT_MODEL
from detector.types import OutputError, TellframeError, UsageError
from pipelines.exits import EXIT_INTERRUPTED, FailOn, complain
from pipelines.lines import abandon
from pipelines.training import cli as training

DEFAULT_THREADS = min(4, os.cpu_count() or 1)

app = typer.Typer(
    name="tellframe",
    help="Says frame by frame whether a face on video is real, fake, or not to be judged. Nothing leaves this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class PixelFormat(StrEnum):
    """Raw frames, or a stream that says itself what it is."""

    BGR24 = "bgr24"
    RGB24 = "rgb24"
    GRAY = "gray"
    YUV4MPEG = "yuv4mpeg"
    MJPEG = "mjpeg"
    AUTO = "auto"


Command = Callable[..., Any]

_MODEL_HELP = (
    "A name that `tellframe models` lists, or a .onnx file. Several with commas between them are a ladder for the "
    "governor, the most accurate first; one alone is never changed."
)


@dataclass(frozen=True, slots=True)
class _Common:
    """The options of every command that judges. Each field is one option; the names are pipelines.commands.Options'."""

    model: Annotated[str | None, typer.Option(help=_MODEL_HELP, show_default=DEFAULT_MODEL)] = None
    budget: Annotated[str, typer.Option(help="Time a frame may take: 33 (30 fps), 16 (60 fps), or a number of ms.")] = (
        "33"
    )
    json: Annotated[str | None, typer.Option(help="One JSON object a clip, to FILE or - (stdout).")] = None
    jsonl: Annotated[str | None, typer.Option(help="One JSON object a frame, to FILE or -.")] = None
    csv: Annotated[str | None, typer.Option(help="One row a frame and face, to FILE or -.")] = None
    save_video: Annotated[str | None, typer.Option(help="Annotated H.264 video; for several clips, a folder.")] = None
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop a clip after so many frames.")] = None
    stride: Annotated[
        int | None, typer.Option(min=1, help="Judge every n-th frame, carry verdicts over the others: a fixed pace.")
    ] = None
    governor: Annotated[
        bool | None,
        typer.Option(
            "--governor/--no-governor",
            help="Leave work out when the budget is not kept. The default: for live sources, without --stride.",
        ),
    ] = None
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the scorer.")] = DEFAULT_THREADS
    fail_on: Annotated[FailOn | None, typer.Option(help="Exit with 10 at this verdict (unsure: at FAKE too).")] = None


def _exits(command: Command) -> Command:
    """Turns what a command returns or raises into its exit code and one line on standard error."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            code = command(*args, **kwargs) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
        except TellframeError as error:
            _let_go_of_stdout()
            raise typer.Exit(complain(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output went away (`| head`): end as SIGPIPE would, without a word.
            abandon(sys.stdout)
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except OSError as error:
            abandon(sys.stdout)
            where = error.filename or "standard output"
            raise typer.Exit(complain(OutputError(f"{where}: {error.strerror}"))) from None
        raise typer.Exit(code)

    return wrapped


def _let_go_of_stdout() -> None:
    """Standard output may hold what could not be written: Python would try once more at exit, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        abandon(sys.stdout)


def _judging(sources: Command) -> Command:
    """Makes a command of a function that names sources: adds the common options, and judges what it names."""
    own = inspect.signature(sources, eval_str=True)
    common = inspect.signature(_Common, eval_str=True)

    @functools.wraps(sources)
    def command(**given: Any) -> int:
        from pipelines.commands import Options, judge

        options = Options(**{name: given.pop(name) for name in common.parameters}, show=given.pop("show", False))
        return judge(sources(**given), options)

    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in (*own.parameters.values(), *common.parameters.values())
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return _exits(command)


def main() -> None:
    """Runs the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what a terminal cannot show
    try:
        code = app(prog_name="tellframe", standalone_mode=False)
    except typer.TyperException as error:
        if len(sys.argv) == 1:  # what it would say is the whole help
            sys.exit(complain(UsageError("name a command, such as video or webcam; --help lists them")))
        code = complain(UsageError(error.format_message()))
    sys.exit(code)


@app.command()
@_judging
def video(
    inputs: Annotated[list[str], typer.Argument(metavar="PATH|URL|DIR|GLOB...", help="Clips, streams, folders.")],
    fps: Annotated[float, typer.Option(help="Frames a second of a folder of images.")] = 30,
) -> Any:
    """Judge video files, network streams, or folders of images."""
    from pipelines.inputs import expand_each

    return expand_each(inputs, fps)


@app.command()
@_judging
def webcam(
    device: Annotated[str, typer.Option(help="Number of the camera, or its path.")] = "0",
    size: Annotated[str, typer.Option(help="Picture to ask the camera for, WIDTHxHEIGHT.")] = "1280x720",
    fps: Annotated[float, typer.Option(help="Frames a second to ask the camera for.")] = 30,
    show: Annotated[bool, typer.Option("--show", help="Show the picture with its verdict; q quits.")] = False,  # noqa: ARG001
) -> Any:
    """Judge what a camera sees, until Ctrl-C."""
    from pipelines.sources import Webcam

    return [Webcam(device, size_wh=_size_wh(size), fps=fps)]


@app.command()
@_judging
def stream(
    width: Annotated[int | None, typer.Option(help="Width of raw frames in pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Height of raw frames in pixels.")] = None,
    pix_fmt: Annotated[PixelFormat, typer.Option(help="What comes in.")] = PixelFormat.BGR24,
    fps: Annotated[float, typer.Option(help="Frames a second of raw frames.")] = 30,
    live: Annotated[bool, typer.Option("--live", help="Judge the newest frame, drop what comes too fast.")] = False,
) -> Any:
    """Judge frames from standard input: raw, or a stream that carries its own format."""
    from pipelines.sources import EncodedStream, RawFrames

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("standard input holds no frames: pipe them into `tellframe stream`")
    stdin = sys.stdin.buffer
    if pix_fmt in (PixelFormat.BGR24, PixelFormat.RGB24, PixelFormat.GRAY):
        if width is None or height is None:
            raise UsageError(f"raw {pix_fmt.value} frames need --width and --height")
        return [RawFrames(stdin, width, height, pix_fmt=pix_fmt.value, fps=fps, live=live)]
    container = {PixelFormat.YUV4MPEG: "yuv4mpegpipe", PixelFormat.MJPEG: "mjpeg"}.get(pix_fmt)
    return [EncodedStream(stdin, format=container, live=live)]


@app.command()
@_exits
def models(
    json: Annotated[
        str | None, typer.Option(help="A JSON array with one object a model, to FILE or - (stdout).")
    ] = None,
) -> None:
    """List the models there are."""
    from pipelines.inventory import models_command

    models_command(json)


@app.command()
@_exits
def bench(
    clip: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="Clip to run; a shipped one when left out.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A name or a .onnx file; with --governor several, with commas.", show_default=DEFAULT_MODEL),
    ] = None,
    budget: Annotated[str, typer.Option(help="Time a frame may take: 33, 16, or a number of ms.")] = "33",
    frames: Annotated[int, typer.Option(min=20, help="Frames to measure, after the warm-up.")] = 1000,
    warm_up: Annotated[int, typer.Option(min=0, help="Frames before the first that is measured.")] = 50,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of the scorer.")] = DEFAULT_THREADS,
    json: Annotated[str | None, typer.Option(help="The figures as JSON, to FILE or - (stdout).")] = None,
    plot: Annotated[str | None, typer.Option(help="A plot, to FILE.png; needs the extra [train].")] = None,
    on_card: Annotated[str | None, typer.Option(help="Put the figures on the model's card, under this.")] = None,
    governor: Annotated[
        bool, typer.Option("--governor", help="Show the governor: frames as from a camera, a load in the middle third.")
    ] = False,
    load: Annotated[
        int | None, typer.Option(min=0, max=256, help="With --governor: busy processes; twice the cores if left out.")
    ] = None,
) -> None:
    """Measure the whole pipeline on this machine: latency, frames a second, memory."""
    if plot is not None:
        with training.needs_the_extra():
            from pipelines.benchplots import check_kind
        check_kind(plot)
    if not governor:
        if load is not None:
            raise UsageError("--load is of --governor; name both or none")
        from pipelines.bench import Plan, bench_command

        return bench_command(Plan(clip, model or DEFAULT_MODEL, budget, frames, warm_up, threads, on_card), json, plot)
    if on_card is not None:
        raise UsageError("--on-card takes figures of one model at full pace; leave out --governor")
    from pipelines.underload import LoadPlan, governor_command

    busy = 2 * (os.cpu_count() or 1) if load is None else load
    return governor_command(LoadPlan(clip, model, budget, frames, warm_up, threads, busy), json, plot)


@app.command("app")
@_exits
def web_app(
    model: Annotated[str | None, typer.Option(help=_MODEL_HELP, show_default=DEFAULT_MODEL)] = None,
    budget: Annotated[str, typer.Option(help="Time a frame may take: 33, 16, or a number of ms.")] = "33",
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads of a scorer, of which several may run.")] = 1,
    host: Annotated[str, typer.Option(help="Address to listen on; one that others can reach needs --auth.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; the first free one from 7860 if left out.")
    ] = None,
    auth: Annotated[str | None, typer.Option(help="FILE with one name:password a line: who may use the page.")] = None,
    certificate: Annotated[
        str | None, typer.Option(help="TLS certificate, a PEM file: cameras of other machines need https.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Its key, a PEM file.")] = None,
) -> int:
    """Open the web page: live, video, model, limits. On this machine only, unless --host says otherwise."""
    from webapp.app import Place, serve

    place = Place(host, port, *(None if file is None else Path(file) for file in (auth, certificate, key)))
    return serve(model, budget, threads, place)


@app.command()
@_exits
def doctor() -> int:
    """Check the install, the models, the cameras and the speed, and say what to fix."""
    from pipelines.doctor import doctor_command

    return doctor_command()


for _command in (
    training.prepare, training.train, training.compress, training.evaluate, training.compare, training.calibrate,
    training.export,
):  # fmt: skip
    app.command()(_exits(_command))


def _size_wh(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise UsageError(f"--size is WIDTHxHEIGHT such as 1280x720, got {text!r}")
    return int(width), int(height)


if __name__ == "__main__":
    main()
