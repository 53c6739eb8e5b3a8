"""Serves the page: one process, on the loopback address unless told otherwise; nothing is fetched from another host."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

# Before gradio is imported: it reads this once, and would otherwise call home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from compression.budget import FrameBudget
from detector.models import ladder
from detector.types import UsageError
from pipelines.interrupts import Interrupts
from pipelines.memory import share_one_heap
from pipelines.session import loaded
from webapp.job import Limits
from webapp.jobs import Jobs
from webapp.live import add_live
from webapp.page import Parts, build
from webapp.safety import LOOPBACK_NAMES, Guard, checks, is_loopback, read_passwords
from webapp.seats import Seats
from webapp.tickets import Tickets
from webapp.uploads import Uploads

_FIRST_PORT, _LAST_PORT = 7860, 7959
_LEAVE_S: Final = 3
_LIVE: Final = 4  # sessions at once: with more, each would see less than a verdict in three frames on two cores
_STATIC = Path(str(files("webapp") / "static"))
_STYLES: Final = ("style.css", "live.css", "model.css")
_SCRIPTS: Final = ("plot.js", "player.js", "upload.js", "live.js")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is served, and to whom.

    Attributes:
        host: address to listen on.
        port: None for the first free one from 7860.
        auth: file with name:password lines; None lets everybody in, which is for loopback addresses only.
        certificate, key: files of a TLS certificate; both or none.

    Raises:
        UsageError: the address is public and there is no ``auth``, or one of two TLS files is missing.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.auth is None:
            raise UsageError(f"--host {self.host} can be reached by others: name a file of passwords with --auth")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("--certificate and --key go together; name both files or none")
        for option, path in (("--certificate", self.certificate), ("--key", self.key)):
            if path is not None and not path.is_file():
                raise UsageError(f"{option} {path}: no such file")

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Names that requests may be addressed to; None for any: whoever binds a public address knows its names."""
        return LOOPBACK_NAMES if is_loopback(self.host) else None


def serve(model: str | None, budget: str, threads: int, place: Place, limits: Limits = Limits()) -> int:  # noqa: B008  (frozen)
    """Serves the page until Ctrl-C or a signal that ends programs; then deletes whatever is private.

    Returns:
        The exit code: 128 + the signal's number.

    Args:
        model: a name that ``tellframe models`` lists, or the path of an .onnx file, or several with commas between
            them for the governor of live sessions; None for the shipped ladder.
        budget: what a frame may take, as on the command line.
        threads: of the scorer.
        place: where.
        limits: what a clip may be.

    Raises:
        ModelError: a model is missing or damaged.
        UsageError: the budget makes no sense, the port is taken, or the passwords cannot be read.
    """
    frame_budget = FrameBudget.parse(budget)
    auth = None if place.auth is None else checks(read_passwords(place.auth))
    stored = ladder(model)
    share_one_heap()
    with Interrupts() as interrupts, _listening(place) as sock, _private_folder() as folder:
        models = [loaded(each, threads) for each in stored]
        tickets, seats = Tickets(), Seats(_LIVE)
        results = folder / "results"
        with Jobs(results, models, limits) as jobs, Uploads(folder, results):
            parts = Parts(stored, models, jobs, tickets, frame_budget)
            app = assemble(parts, seats, place.hosts, auth)
            scheme = "http" if place.certificate is None else "https"
            host = f"[{place.host}]" if ":" in place.host else place.host
            greeting = f"Tellframe is at {scheme}://{host}:{sock.getsockname()[1]}/ (Ctrl-C to stop)"
            _run(app, sock, place, greeting, interrupts)
    return interrupts.exit_code or 0


def assemble(
    parts: Parts, seats: Seats, hosts: Sequence[str] | None, auth: Callable[[str, str], bool] | None = None
) -> Guard:
    """The whole application: the page, its static files, the live endpoint, and what guards them.

    Args:
        parts: what the page works with.
        seats: of live sessions.
        hosts: see :class:`webapp.safety.Guard`.
        auth: says whether a name and a password belong together; None lets everybody in.
    """
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    plotly = Path(str(files("plotly") / "package_data" / "plotly.min.js"))
    outer.add_api_route("/tellframe/plotly.min.js", lambda: FileResponse(plotly, media_type="text/javascript"))
    outer.mount("/tellframe/static", StaticFiles(directory=_STATIC))
    add_live(outer, parts.ladder, parts.tickets, seats)
    gr.mount_gradio_app(
        outer,
        build(parts),
        path="/",
        auth=auth,
        auth_message="Tellframe: who are you?" if auth else None,
        max_file_size=parts.jobs.limits.bytes,
        # The default themes fetch fonts from the web; these are the system's own.
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        head=_head(parts.jobs.limits.bytes),
        favicon_path=str(_STATIC / "icon.svg"),
        footer_links=[],
        run_history=False,
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    return Guard(outer, None if hosts is None else tuple(hosts))


def _head(upload_bytes: int) -> str:
    """What is ours in the page's head."""
    return "".join(
        (
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta name="tellframe-upload-bytes" content="{upload_bytes}">',
            *(f'<link rel="stylesheet" href="/tellframe/static/{name}">' for name in _STYLES),
            *(f'<script type="module" src="/tellframe/static/{name}"></script>' for name in _SCRIPTS),
        )
    )


def _run(app: Guard, sock: socket.socket, place: Place, greeting: str, interrupted: Callable[[], bool]) -> None:
    tls: Mapping[str, Any] = (
        {} if place.certificate is None else {"ssl_certfile": place.certificate, "ssl_keyfile": place.key}
    )
    config = uvicorn.Config(
        app,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=_LEAVE_S,
        server_header=False,
        ws_per_message_deflate=False,  # a camera's pictures are compressed already
        **tls,
    )
    _Server(config, greeting, interrupted).run(sockets=[sock])


class _Server(uvicorn.Server):
    """Says where it is once it answers, and stops when told, by a signal that uvicorn does not watch for too."""

    def __init__(self, config: uvicorn.Config, greeting: str, interrupted: Callable[[], bool]) -> None:
        super().__init__(config)
        self._greeting = greeting
        self._interrupted = interrupted

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._interrupted()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._greeting, flush=True)  # noqa: T201


@contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """A socket on the address; taken before anything slow is begun.

    Raises:
        UsageError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    for port in range(_FIRST_PORT, _LAST_PORT + 1) if place.port is None else (place.port,):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((place.host.strip("[]"), port))
        except OSError as error:
            sock.close()
            if place.port is None and error.errno == errno.EADDRINUSE:
                continue
            raise UsageError(f"--host {place.host} --port {port}: {error.strerror}; choose another") from None
        with sock:
            yield sock
        return
    raise UsageError(f"every port from {_FIRST_PORT} to {_LAST_PORT} is taken; choose another with --port")


@contextmanager
def _private_folder() -> Iterator[Path]:
    """Where uploads and results lie: readable by this user only, and gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tellframe-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    (folder / "results").mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
