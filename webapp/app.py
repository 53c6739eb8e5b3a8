"""The page: drop a video, see its verdict. Wiring only; loopback, no telemetry, nothing fetched from another host."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

# Before gradio is imported: it reads this once, and would otherwise call home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from compression.budget import FrameBudget
from detector.models import StoredModel, find
from detector.types import TellframeError, UsageError
from pipelines.annotated import AnnotatedVideo
from pipelines.session import Session, Settings
from pipelines.sources import VideoFile
from webapp.view import face_rows, verdict_markdown

MAX_UPLOAD = "200mb"
_KEEP_S = 3600  # uploads and results are deleted after this time
_FACE_COLUMNS = ["track", "verdict", "reason", "p(fake)", "frames", "first s", "last s"]


def build(model: str, budget: str, threads: int) -> gr.Blocks:
    """The page, not launched.

    Args:
        model: a name that ``tellframe models`` lists, or the path of an .onnx file.
        budget: what a frame may take, as on the command line.
        threads: of the scorer.

    Raises:
        ModelError: the model is missing or damaged.
        UsageError: the budget makes no sense.
    """
    stored, settings = find(model), Settings(FrameBudget.parse(budget))

    def judge(path: str | None) -> Iterator[tuple[str, list[list[Any]], str]]:
        if path is None:
            raise gr.Error("Choose a video first.", print_exception=False)
        # A generator: Gradio takes its own copy of the video at the yield; then ours goes.
        with tempfile.TemporaryDirectory(prefix="tellframe-") as folder:
            video = Path(folder) / "annotated.mp4"
            try:
                record = _judge(Path(path), video, stored, settings, threads)
            except TellframeError as error:
                said = str(error).replace(str(Path(path).parent) + os.sep, "")
                raise gr.Error(said, print_exception=False) from None
            yield verdict_markdown(record), face_rows(record), str(video)

    samples = Path(str(files("assets") / "samples"))
    page: gr.Blocks = gr.Blocks(title="Tellframe", analytics_enabled=False, delete_cache=(_KEEP_S, _KEEP_S))
    with page:
        gr.Markdown("# Tellframe\nIs the face in this video real? Nothing you drop here leaves this machine.")
        upload = gr.Video(label="Video", sources=["upload"])
        gr.Examples([[str(samples / name)] for name in ("real.mp4", "fake.mp4")], [upload], label="Samples")
        button = gr.Button("Judge", variant="primary")
        verdict = gr.Markdown(label="Verdict")
        faces = gr.Dataframe(headers=_FACE_COLUMNS, label="Faces", interactive=False)
        annotated = gr.Video(label="Annotated video", interactive=False)
        button.click(judge, [upload], [verdict, faces, annotated], concurrency_limit=1, api_name="judge")
    return page


def serve(model: str, budget: str, threads: int, port: int | None) -> None:
    """Serves the page on this machine's loopback address until Ctrl-C.

    Args:
        model: see :func:`build`.
        budget: see :func:`build`.
        threads: see :func:`build`.
        port: to listen on; the first free one from 7860 when None.

    Raises:
        UsageError: the port is taken.
    """
    # The default themes fetch fonts from the web; these are the system's own.
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page = build(model, budget, threads)
    try:
        _, url, _ = page.launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            max_file_size=MAX_UPLOAD,
            theme=theme,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        raise UsageError(f"--port {port} is taken; choose another, or leave it out") from None
    print(f"Tellframe is at {url} (Ctrl-C to stop)", flush=True)  # noqa: T201
    page.block_thread()


def _judge(path: Path, video: Path, model: StoredModel, settings: Settings, threads: int) -> dict[str, Any]:
    """The record of the clip at ``path``; its annotated video goes to ``video``."""
    thresholds = model.card.thresholds
    sink = AnnotatedVideo(video, settings.budget.period_ms, thresholds.real_below, thresholds.fake_above)
    with sink, Session(model, settings, threads) as session:
        result = session.judge(VideoFile(path), sink)
    if result.error is not None:
        raise result.error
    return result.record
