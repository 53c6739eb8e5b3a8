"""The page: four tabs. Wiring only; what is shown comes from the modules beside it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from compression.budget import FrameBudget
from detector.engine import Model
from detector.models import StoredModel
from detector.types import TellframeError, UsageError
from pipelines.report import json_text
from webapp import limitspage, modelpage, view
from webapp.job import Cancelled, Job, Judged
from webapp.jobs import STRIDE, Jobs
from webapp.live import element
from webapp.plots import plot_html, timeline_figure
from webapp.tickets import Tickets

_TELL_EVERY_S = 0.25
_LONGEST_STRIDE = 1000
_SAMPLES = (("A real clip", "real.mp4"), ("A forged clip", "fake.mp4"), ("Two people", "two_faces.mp4"))
_PACES = ((f"One frame in {STRIDE} (usual)", STRIDE), ("Every frame (slower)", 1))
_READY = "Drop a video, or try a sample. It is judged on this computer, and deleted afterwards."


@dataclass(frozen=True, slots=True)
class Parts:
    """What the page works with.

    Attributes:
        stored: the models there are on the ladder, the one that judges clips first.
        ladder: the same, loaded.
        jobs: where clips are judged.
        tickets: for live sessions.
        budget: the usual one.
    """

    stored: Sequence[StoredModel]
    ladder: Sequence[Model]
    jobs: Jobs
    tickets: Tickets
    budget: FrameBudget


def build(parts: Parts) -> gr.Blocks:
    """The page, not served.

    Args:
        parts: see :class:`Parts`.
    """
    page: gr.Blocks = gr.Blocks(title="Tellframe", analytics_enabled=False, fill_width=True)
    with page:
        gr.HTML(
            '<header class="tf-header"><h1>Tellframe</h1><p>Is the face in this video real? '
            "It is judged here, on this computer.</p></header>"
        )
        with gr.Tabs():
            with gr.Tab("Live", id="live"):
                live = gr.HTML(elem_id="tf-live")
            with gr.Tab("Video", id="video"):
                _video_tab(parts)
            with gr.Tab("Model", id="model"):
                modelpage.model_tab(parts.stored, parts.budget)
            with gr.Tab("Limits", id="limits"):
                gr.HTML(limitspage.limits_html(parts.stored[0].card), elem_id="tf-limits")
        page.load(_live_with(parts), None, [live], queue=False, show_progress="hidden", api_visibility="private")
        page.unload(_forget_with(parts))
        _scripts_api(parts)
    return page


def _user(request: gr.Request) -> str:
    """Who asks: one browser tab is one user."""
    return str(request.session_hash)


def _live_with(parts: Parts) -> Any:
    def live(request: gr.Request) -> str:
        return element(parts.tickets.issue(_user(request)), parts.budget)

    return live


def _forget_with(parts: Parts) -> Any:
    def forget(request: gr.Request) -> None:
        parts.jobs.forget(_user(request))
        parts.tickets.revoke(_user(request))

    return forget


def _video_tab(parts: Parts) -> None:
    ident = gr.State("")
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280):
            upload = gr.File(label="Video file", height=140, elem_id="tf-upload")
        with gr.Column(scale=1, min_width=240):
            gr.HTML("<p>No video at hand? Try a sample:</p>")
            with gr.Row():
                samples = [
                    gr.Button(words, size="sm", min_width=60, elem_id=f"tf-sample-{name.partition('.')[0]}")
                    for words, name in _SAMPLES
                ]
            pace = gr.Dropdown(choices=[*_PACES], value=STRIDE, label="How closely to look", elem_id="tf-pace")
    with gr.Row(equal_height=True, elem_id="tf-progress-row"):
        progress = gr.HTML(view.progress_html(_READY, kind="idle"), elem_id="tf-progress", scale=5)
        cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=110, elem_id="tf-cancel")
    with gr.Column(visible=False, elem_id="tf-result") as result:
        shown = _result_parts()
    outputs = [progress, cancel, result, *shown]
    start = _start_with(parts)
    follow = _follow_with(parts, len(shown))
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    begun = [
        upload.upload(start, [upload, pace], [ident, progress, cancel, result], queue=False, **quiet),
        *(
            button.click(
                _start_sample_with(start, name), [pace], [ident, progress, cancel, result], queue=False, **quiet
            )
            for button, (_, name) in zip(samples, _SAMPLES, strict=True)
        ),
    ]
    for event in begun:
        event.then(follow, [ident], outputs, concurrency_limit=None, **quiet)
    cancel.click(_cancel_with(parts), None, [cancel], queue=False, **quiet)
    upload.clear(_clear_with(parts), None, [progress, cancel, result], queue=False, **quiet)


def _result_parts() -> list[Any]:
    """The components that show a judged clip, in the order of :func:`_shown`."""
    verdict = gr.HTML(elem_id="tf-verdict")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            gr.HTML("<h3>Over time</h3><p>Click in the plot, or on a time, and the player goes there.</p>")
            timeline = gr.HTML(elem_id="tf-timeline")
            video = gr.Video(
                label="The video with its verdicts", interactive=False, elem_id="tf-player", height=420, buttons=[],
                show_label=False,
            )  # fmt: skip
        with gr.Column(scale=2, min_width=300):
            gr.HTML("<h3>Faces</h3>")
            faces = gr.HTML(elem_id="tf-faces")
            gr.HTML("<h3>Suspicious stretches</h3>")
            segments = gr.HTML(elem_id="tf-segments")
    gr.HTML("<h3>The most suspicious frames</h3>")
    moments = gr.HTML(elem_id="tf-moments")
    gr.HTML("<h3>To keep</h3>")
    with gr.Row():
        downloads = [
            gr.DownloadButton(words, min_width=130, elem_id=f"tf-get-{kind}")
            for words, kind in (
                ("Report (HTML)", "report"),
                ("Annotated video (MP4)", "video"),
                ("Frames (CSV)", "csv"),
                ("Result (JSON)", "json"),
            )
        ]
    return [verdict, timeline, video, faces, segments, moments, *downloads]


def _shown(judged: Judged) -> list[Any]:
    """The values of :func:`_result_parts`."""
    record = judged.record
    figure = timeline_figure(judged.timeline, record["segments"])
    moments = [
        view.moment_html(m.moment.pts_s, m.moment.track, m.moment.p_frame, m.moment.view, m.heat, m.region)
        for m in judged.moments
    ]
    return [
        view.verdict_html(record, view.sentence(record)),
        plot_html(figure, "p(fake) over the seconds of the video", height_px=220, seeks=True),
        str(judged.video),
        view.faces_html(record["faces"], judged.thumbnails),
        view.segments_html(record["segments"]),
        view.moments_html(moments),
        *(str(path) for path in (judged.report, judged.video, judged.csv, judged.json)),
    ]


def _start_with(parts: Parts) -> Any:
    """What takes a clip: checks it at once, so that nobody waits in line to hear that it is no video."""

    def start(path: str | None, stride: int, request: gr.Request) -> tuple[Any, ...]:
        if path is None:
            return "", view.progress_html(_READY, kind="idle"), gr.Button(interactive=False), gr.Column(visible=False)
        try:
            ident = parts.jobs.add(_user(request), Path(path), Path(path).name, parts.budget, int(stride))
        except TellframeError as error:
            words = view.progress_html(str(error), kind="error")
            return "", words, gr.Button(interactive=False), gr.Column(visible=False)
        waiting = view.progress_html("Waiting for its turn ...")
        return ident, waiting, gr.Button(interactive=True), gr.Column(visible=False)

    return start


def _start_sample_with(start: Any, name: str) -> Any:
    path = str(files("assets") / "samples" / name)

    def start_sample(stride: int, request: gr.Request) -> tuple[Any, ...]:
        return start(path, stride, request)  # type: ignore[no-any-return]

    return start_sample


def _follow_with(parts: Parts, count: int) -> Any:
    """What follows the clip of an id to its end, and shows what came of it."""
    nothing = [gr.skip()] * count

    async def follow(ident: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        job = parts.jobs.get(_user(request), ident) if ident else None
        if job is None:  # it was refused, or another took its place
            yield [gr.skip(), gr.skip(), gr.skip(), *nothing]
            return
        said = ""
        while not job.ended:
            words = _progress_html(job, parts.jobs.ahead(job))
            if words != said:
                yield [words, gr.skip(), gr.skip(), *nothing]
            said = words
            await asyncio.sleep(_TELL_EVERY_S)
        off = gr.Button(interactive=False)
        try:
            judged = job.result()
        except Cancelled:
            words = view.progress_html("Cancelled; nothing of it was kept.", kind="idle")
            yield [words, off, gr.Column(visible=False), *nothing]
        except TellframeError as error:
            yield [view.progress_html(str(error), kind="error"), off, gr.Column(visible=False), *nothing]
        else:
            done = view.progress_html(f"Done: {job.name}", kind="done")
            yield [done, off, gr.Column(visible=True), *_shown(judged)]

    return follow


def _progress_html(job: Job, ahead: int) -> str:
    now = job.progress
    if ahead:
        return view.progress_html(f"Waiting in line: {ahead} ahead of {job.name}")
    if now.explaining:
        return view.progress_html("Looking at what drove the score ...", 1.0)
    left = "" if now.eta_s is None else f", about {now.eta_s:.0f} s to go"
    of = "" if now.expected is None else f" of {now.expected}"
    return view.progress_html(f"Judging {job.name}: frame {now.frames}{of}{left}", now.share)


def _cancel_with(parts: Parts) -> Any:
    def cancel(request: gr.Request) -> Any:
        parts.jobs.cancel(_user(request))
        return gr.Button(interactive=False)

    return cancel


def _clear_with(parts: Parts) -> Any:
    def clear(request: gr.Request) -> tuple[Any, ...]:
        parts.jobs.forget(_user(request))
        return view.progress_html(_READY, kind="idle"), gr.Button(interactive=False), gr.Column(visible=False)

    return clear


def _scripts_api(parts: Parts) -> None:
    """What a script calls: a clip in, its record out (schema ``tellframe.clip/1``). Nothing of it is seen.

    Components, and not ``gr.api``: a File takes what was uploaded through the page, and no other path of this machine.
    The record goes out as text: in an object with a ``path`` Gradio's client would see a file to download.
    """

    async def judge(video: str | None, every: float) -> str:
        user = f"script {secrets.token_hex(8)}"
        try:
            if video is None:
                raise UsageError("no video was sent; give a file")
            stride = int(every)
            if stride != every or not 1 <= stride <= _LONGEST_STRIDE:
                raise UsageError(f"every is {every:g}; give a whole number from 1 to {_LONGEST_STRIDE}")
            clip = Path(video)
            ident = await asyncio.to_thread(parts.jobs.add, user, clip, clip.name, parts.budget, stride)
            job = parts.jobs.get(user, ident)
            assert job is not None
            while not job.ended:
                await asyncio.sleep(_TELL_EVERY_S)
            return json_text(dict(job.result().record))
        except TellframeError as error:
            raise gr.Error(str(error), print_exception=False) from None
        finally:
            await asyncio.to_thread(parts.jobs.forget, user)

    with gr.Row(visible=False):
        inputs = [gr.File(label="video"), gr.Number(value=STRIDE, label="every")]
        gr.Button().click(judge, inputs, gr.Textbox(label="record"), api_name="judge", concurrency_limit=None)
