"""*Measure here*: the benchmark of the command line on the machine that serves the page, run by a button.

Every model in turn, in a process of its own: ``tellframe bench`` as a user would start it. So what the server does
beside it costs the measurement nothing but processor time, live sessions go first, and giving up takes no time.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from compression.budget import FrameBudget
from detector.models import StoredModel
from detector.types import TellframeError
from webapp.job import Cancelled
from webapp.measured import Figures, measured_html, measured_plot
from webapp.view import progress_html

FRAMES, WARM_UP = 120, 15  # of every model: its process then takes about four seconds on two cores
_GUESS_S = 5.0  # for a model, before one was measured
_LONGEST_S = 120.0  # for a model: something is wrong by then
_LOWER_PRIORITY = 10  # as nice counts it: below clips, which are below live sessions
_TELL_EVERY_S = 0.25
_ROOT = Path(__file__).parents[1]
"""Where this very tellframe lies: the process must not find another one in the folder it is started in."""
_READY = "Nothing was measured yet."
_GIVEN_UP = "Cancelled; nothing of it was kept."
_BUSY = (
    "Somebody else is measuring on this machine, and two measurements at once would spoil each other. "
    "Try again in half a minute."
)


@dataclass(frozen=True, slots=True)
class Progress:
    """What is going on, in words, and how much is done, 0..1: within a model that is an estimate."""

    words: str
    share: float


class Run:
    """One measurement of several models, in a thread of its own.

    Args:
        models: at least one, checked.
        budget: that a frame is held against.
        frames: of every model.
    """

    def __init__(self, models: Sequence[StoredModel], budget: FrameBudget, frames: int) -> None:
        self._models = models
        self._budget = budget
        self._frames = frames
        self._lock = threading.Lock()  # between starting a process and giving it up
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False
        self._outcome: list[Figures] | BaseException | None = None
        self._done = threading.Event()
        self._model = 0  # that is being measured
        self._began = time.monotonic()
        self._expected_s = _GUESS_S
        self._thread = threading.Thread(target=self._run, name="measure", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def cancel(self) -> None:
        """Gives it up at once; harmless when it has ended."""
        with self._lock:
            self._cancelled = True
            if self._process is not None:
                self._process.kill()  # it writes nothing that could be left half done

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it has ended, after at most so many seconds; None waits for its end."""
        return self._done.wait(seconds)

    @property
    def ended(self) -> bool:
        """Whether :meth:`result` has something to say."""
        return self._done.is_set()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        which, count = self._model, len(self._models)
        within = min(0.95, (time.monotonic() - self._began) / self._expected_s)
        words = f"Measuring {self._models[which].card.name} (model {which + 1} of {count}) ..."
        return Progress(words, (which + within) / count)

    def result(self) -> Sequence[Figures]:
        """The figures of every model, once it has ended.

        Raises:
            TellframeError: why there are none.
            Cancelled: it was given up.
        """
        if not isinstance(self._outcome, list):
            raise self._outcome or Cancelled
        return self._outcome

    def _run(self) -> None:
        atexit.register(self.cancel)  # a server that ends leaves no process behind
        try:
            self._outcome = [self._measure(which) for which in range(len(self._models))]
        except BaseException as error:  # every kind: somebody waits for the outcome
            self._outcome = error
        finally:
            atexit.unregister(self.cancel)
            self._done.set()

    def _measure(self, which: int) -> Figures:
        began = time.monotonic()
        self._model, self._began = which, began
        path = self._models[which].path
        command = [
            *(sys.executable, "-m", "tellframe", "bench", "--model", str(path.resolve()), "--threads", "1"),
            *("--frames", str(self._frames), "--warm-up", str(WARM_UP), "--budget", str(self._budget.period_ms)),
            *("--json", "-"),
        ]
        with self._begun(command) as process:
            try:
                said, complaint = process.communicate(timeout=_LONGEST_S)
            except subprocess.TimeoutExpired:
                process.kill()
                said, complaint = "", f"tellframe: no end after {_LONGEST_S:.0f} s; is the machine too busy?"
        self._expected_s = time.monotonic() - began
        if self._cancelled:
            raise Cancelled
        if process.returncode != 0:
            raise TellframeError(_in_words(complaint, path))
        figures: Figures = json.loads(said)
        return figures

    def _begun(self, command: Sequence[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._cancelled:
                raise Cancelled
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=_ROOT,
                )
            except OSError as error:
                raise TellframeError(f"the benchmark could not be started ({error.strerror})") from None
            if hasattr(os, "setpriority"):
                with suppress(OSError):  # it has ended already
                    os.setpriority(os.PRIO_PROCESS, process.pid, _LOWER_PRIORITY)
            self._process = process
            return process


def _in_words(complaint: str, model: Path) -> str:
    """The last line of what a command complained of; files of the server are called by their names only."""
    lines = complaint.strip().splitlines()
    words = lines[-1].removeprefix("tellframe: ") if lines else "it ended without a word"
    return f"{model.stem} could not be measured: {words.replace(f'{model.resolve().parent}{os.sep}', '')}"


class Bench:
    """Measures the models for whoever asks first; one measurement at a time, as two would spoil each other.

    Args:
        models: see :class:`Run`.
        budget: see :class:`Run`.
        frames: of every model.
    """

    def __init__(self, models: Sequence[StoredModel], budget: FrameBudget, frames: int = FRAMES) -> None:
        self._models = models
        self._budget = budget
        self._frames = frames
        self._lock = threading.Lock()
        self._user = ""
        self._run: Run | None = None

    def start(self, user: str) -> Run | None:
        """A measurement that has begun, for this user; None while one is under way already."""
        with self._lock:
            if self._run is not None and not self._run.ended:
                return None
            self._user, self._run = user, Run(self._models, self._budget, self._frames)
            self._run.start()
            return self._run

    def cancel(self, user: str) -> None:
        """Gives up the measurement if it is this user's."""
        with self._lock:
            if self._run is not None and self._user == user:
                self._run.cancel()


# ---------------------------------------------------------------------------------------------------- the page


def measure_part(bench: Bench) -> None:
    """The button, its progress and what comes of it, inside an open gr.Blocks."""
    with gr.Row(elem_id="tf-measure-row"):
        button = gr.Button("Measure here", variant="primary", min_width=150, scale=0, elem_id="tf-measure")
        progress = gr.HTML(progress_html(_READY, kind="idle"), elem_id="tf-measure-progress", scale=5)
        cancel = gr.Button("Cancel", interactive=False, min_width=110, scale=0, elem_id="tf-measure-cancel")
    table = gr.HTML(elem_id="tf-measured", visible=False)
    plot = gr.HTML(elem_id="tf-measured-plot", visible=False)
    quiet: Mapping[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    outputs = [button, progress, cancel, table, plot]
    button.click(_measure_with(bench), None, outputs, concurrency_limit=None, **quiet)
    cancel.click(_cancel_with(bench), None, [cancel], queue=False, **quiet)


def _measure_with(bench: Bench) -> Any:
    async def measure(request: gr.Request) -> AsyncIterator[list[Any]]:
        run = bench.start(str(request.session_hash))
        if run is None:
            yield [gr.skip(), progress_html(_BUSY, kind="idle"), gr.skip(), gr.skip(), gr.skip()]
            return
        off = gr.Button(interactive=False)
        while not run.ended:
            now = run.progress
            words = progress_html(now.words, now.share)
            yield [off, words, gr.Button(interactive=True), gr.skip(), gr.skip()]
            await asyncio.sleep(_TELL_EVERY_S)
        on = gr.Button(interactive=True)
        try:
            measured = run.result()
        except Cancelled:
            yield [on, progress_html(_GIVEN_UP, kind="idle"), off, gr.skip(), gr.skip()]
        except TellframeError as error:
            yield [on, progress_html(str(error), kind="error"), off, gr.skip(), gr.skip()]
        else:
            shown = gr.HTML(measured_html(measured), visible=True), gr.HTML(measured_plot(measured), visible=True)
            yield [on, progress_html("Done: measured on this machine.", kind="done"), off, *shown]

    return measure


def _cancel_with(bench: Bench) -> Any:
    def cancel(request: gr.Request) -> Any:
        bench.cancel(str(request.session_hash))
        return gr.Button(interactive=False)

    return cancel
