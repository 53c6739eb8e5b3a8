"""Live judging for a browser: camera pictures in over a WebSocket, verdicts out.

Text messages are JSON objects with a ``type``. A client sends ``start`` (with its ticket and its budget in ms, as a
text), then one binary message a picture, then ``stop`` or nothing. It hears ``waiting`` while all seats are
taken, ``ready`` when pictures may come, ``result`` for a judged picture, and ``error`` before the connection is closed
for a reason. A picture is 16 bytes, little-endian (uint32 sequence, uint32 0, float64 ms on the client's clock), and a
baseline JPEG. Only the newest picture counts: one that a newer one overtakes gets no result and is counted as dropped.
"""

from __future__ import annotations

import asyncio
import html
import json
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from compression.budget import FPS_30, FrameBudget
from compression.governor import LoadGovernor
from detector.engine import Detector, Model
from detector.faces import MediaPipeFaces
from detector.types import NS_PER_MS, FrameResult, InputError, TellframeError, UsageError
from pipelines.memory import share_one_heap
from pipelines.records import frame_record
from pipelines.run import run
from pipelines.sources.pushed import Origin, PushedFrames
from webapp.safety import is_same_site
from webapp.seats import Seats
from webapp.tickets import Tickets

PATH: Final = "/tellframe/live"
BUDGETS: Final = (("33", "30 frames a second"), ("16", "60 frames a second"))
"""What the page offers: frame budgets as on the command line, and their names."""

_BUDGET_MS: Final = (1, 1000)
_HEADER: Final = struct.Struct("<IId")
_NORMAL: Final = 1000
_GONE: Final = 1006
_CLOSE_CODES: Final = {"start": 4400, "ticket": 4401, "late": 4408, "idle": 4410, "frame": 4422, "full": 4429}
_SERVER: Final = 4500
_FAREWELL_S: Final = 10.0  # how long a client that does not read may delay its own end
_KEPT_RESULTS: Final = 8  # for a client that reads more slowly than results come


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may do.

    Attributes:
        start_s: until its first message.
        idle_s: between two pictures, once it may send them.
        max_bytes: of a picture.
        max_side: of a picture, in pixels.
    """

    start_s: float = 10.0
    idle_s: float = 15.0
    max_bytes: int = 1_048_576
    max_side: int = 1280


def add_live(
    app: Starlette,
    models: Sequence[Model],
    tickets: Tickets,
    seats: Seats,
    limits: Limits = Limits(),
) -> None:
    """Adds the WebSocket at :data:`PATH` to ``app`` (a FastAPI application is one of Starlette).

    Args:
        app: where; before it answers its first request, and before anything is mounted at "/".
        models: loaded, most accurate first; every session's governor chooses among them, and all sessions share them.
        tickets: who may come.
        seats: how many at once.
        limits: of one connection.
    """
    share_one_heap()

    async def live(socket: WebSocket) -> None:
        if not is_same_site(socket.headers):
            await socket.close(_CLOSE_CODES["ticket"])  # before it is accepted: the browser hears 403
            return
        await socket.accept()
        await _Connection(socket, models, tickets, seats, limits).serve()

    app.router.routes.append(WebSocketRoute(PATH, live, name="live"))


def element(ticket: str, budget: FrameBudget = FPS_30) -> str:
    """The HTML of the live view, whose script is ``webapp/static/live.js``; ``budget`` is chosen at first."""
    attributes = {"ticket": ticket, "budget": f"{budget.period_ms:.3f}", "budgets": json.dumps(BUDGETS)}
    written = " ".join(f'{name}="{html.escape(value, quote=True)}"' for name, value in attributes.items())
    return f"<tellframe-live {written}></tellframe-live>"


class _Over(Exception):  # noqa: N818  (an end, not an error)
    """The connection ends: with a word on why, or as the client wished (no code)."""

    def __init__(self, code: str | None = None, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Connection:
    """One client, from its first message to its last.

    Three tasks: one hears the client, one waits for a seat and sends what a thread judges, one watches for silence.
    The first that ends ends the others.
    """

    def __init__(
        self, socket: WebSocket, models: Sequence[Model], tickets: Tickets, seats: Seats, limits: Limits
    ) -> None:
        self._socket = socket
        self._models = models
        self._tickets = tickets
        self._seats = seats
        self._limits = limits
        self._source = PushedFrames("live camera", max_bytes=limits.max_bytes, max_side=limits.max_side)
        self._ready = False
        self._heard_s = 0.0

    async def serve(self) -> None:
        """Until the client goes, is sent away, or the server stops."""
        try:
            await self._session(await self._start())
        except _Over as over:
            await self._say_goodbye(over)
        except WebSocketDisconnect:
            pass  # gone without a word: nobody is left to tell
        except Exception:
            await self._say_goodbye(_Over("server", "Something went wrong on the server; start again."))
            raise

    async def _session(self, budget: FrameBudget) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hear())
                tasks.create_task(self._watch())
                tasks.create_task(self._judge(budget))
        except BaseExceptionGroup as group:
            raise _first_of(group) from None

    async def _say_goodbye(self, over: _Over) -> None:
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # RuntimeError: it is closed already
            async with asyncio.timeout(_FAREWELL_S):
                if over.code is not None:
                    await self._send({"type": "error", "code": over.code, "message": over.message})
                await self._socket.close(_NORMAL if over.code is None else _CLOSE_CODES.get(over.code, _SERVER))

    async def _start(self) -> FrameBudget:
        """The budget of a client that may come in."""
        try:
            async with asyncio.timeout(self._limits.start_s):
                said = self._read(await self._receive())
        except TimeoutError:
            raise _Over("late", "Nothing came after the connection was opened; connect again.") from None
        if said.get("type") != "start":
            raise _Over("start", "The first message must be of the type start; reload the page.")
        ticket, budget = said.get("ticket"), said.get("budget")
        if not isinstance(ticket, str) or self._tickets.check(ticket) is None:
            raise _Over("ticket", "This page is too old or is not known here; reload it.")
        allowed = _budget(budget)
        if allowed is None:
            low, high = _BUDGET_MS
            raise _Over(
                "start", f"A budget is a text with a number of ms from {low} to {high}, such as 33; choose one."
            )
        if self._seats.is_full:
            raise _Over("full", "All seats are taken and the line is full; try again in a few minutes.")
        return allowed

    # ------------------------------------------------------------------------------------- what comes in

    async def _receive(self) -> str | bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", _NORMAL))
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    def _read(self, message: str | bytes) -> dict[str, Any]:
        """A text message."""
        if isinstance(message, bytes) or len(message) > 4096:
            raise _Over("start", "A short text message was expected; reload the page.")
        try:
            said = json.loads(message)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise _Over("start", "A text message was no JSON object; reload the page.")
        return said

    async def _hear(self) -> None:
        while True:
            message = await self._receive()
            if isinstance(message, str):
                if self._read(message).get("type") == "stop":
                    raise _Over
            elif self._ready:  # before that there is nobody to judge it
                self._push(message)

    def _push(self, message: bytes) -> None:
        self._heard_s = time.monotonic()
        if len(message) < _HEADER.size:
            raise _Over("frame", f"A picture of {len(message)} bytes is too short; reload the page.")
        sequence, _, captured_ms = _HEADER.unpack_from(message)
        try:
            self._source.push(message[_HEADER.size :], sequence, captured_ms)
        except InputError as error:
            raise _Over("frame", f"{error}.") from None

    async def _watch(self) -> None:
        """Ends a connection that holds a seat and sends nothing."""
        idle_s = self._limits.idle_s
        while True:
            left_s = self._heard_s + idle_s - time.monotonic() if self._ready else idle_s
            if left_s <= 0:
                raise _Over("idle", f"No picture came for {idle_s:g} s, so the seat was given up; start again.")
            await asyncio.sleep(left_s)

    # ------------------------------------------------------------------------------------- what goes out

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            await self._socket.send_text(json.dumps(message, allow_nan=False, separators=(",", ":")))
        except RuntimeError:  # the server closed the connection meanwhile, as nothing answered its pings
            raise WebSocketDisconnect(_GONE) from None

    async def _judge(self, budget: FrameBudget) -> None:
        async with self._seats.place() as place:
            ahead = place.ahead
            while ahead is not None:
                await self._send({"type": "waiting", "ahead": ahead})
                ahead = await place.moved(ahead)
            outbox = _Outbox()
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1, "live") as thread:
                judging = loop.run_in_executor(thread, self._work, budget, _from_thread(loop, outbox.put))
                judging.add_done_callback(lambda _: outbox.end())
                try:
                    await self._deliver(outbox)
                    await judging
                finally:
                    self._source.stop()
                    await asyncio.wait([judging])

    async def _deliver(self, outbox: _Outbox) -> None:
        while (message := await outbox.take()) is not None:
            if message["type"] == "ready":
                self._ready, self._heard_s = True, time.monotonic()
            else:
                arrived_ns = message.pop("arrived_ns")
                message["timing_ms"]["server"] = round((time.monotonic_ns() - arrived_ns) / NS_PER_MS, 3)
            await self._send(message)

    def _work(self, budget: FrameBudget, put: Callable[[dict[str, Any]], None]) -> None:
        """Judges what is pushed, in a thread of its own, with a face finder and a governor of its own."""
        finder = MediaPipeFaces()
        try:
            put(self._welcome(budget))
            detector = Detector(finder, self._models[0], cheaper=self._models[1:])
            governor = LoadGovernor(budget, len(self._models))
            with closing(run(self._source, detector, governor)) as results:
                for result in results:
                    put(result_message(result, self._source.origin(result.frame.index), self._source.counts.broken))
        except TellframeError as error:
            raise _Over("server", f"{error}.") from None
        finally:
            finder.close()

    def _welcome(self, budget: FrameBudget) -> dict[str, Any]:
        thresholds = self._models[0].card.thresholds
        return {
            "type": "ready",
            "budget_ms": round(budget.period_ms, 3),
            "models": [model.card.name for model in self._models],
            "real_below": thresholds.real_below,
            "fake_above": thresholds.fake_above,
        }


class _Outbox:
    """Messages on their way to a client; one that reads slowly gets the newest. For one event loop."""

    def __init__(self) -> None:
        self._messages: deque[dict[str, Any]] = deque()
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, message: dict[str, Any]) -> None:
        self._messages.append(message)
        if len(self._messages) > _KEPT_RESULTS:
            lost = self._messages.popleft()
            self._messages[0]["dropped"] += lost["dropped"] + 1
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def take(self) -> dict[str, Any] | None:
        """The next message, waited for; None after the last."""
        while not self._messages and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft() if self._messages else None


def _budget(text: object) -> FrameBudget | None:
    """The budget that a client asks for; None when it makes no sense."""
    try:
        budget = FrameBudget.parse(text) if isinstance(text, str) else None
    except UsageError:
        return None
    low, high = _BUDGET_MS
    return budget if budget is not None and low <= budget.period_ms <= high else None


def _from_thread(
    loop: asyncio.AbstractEventLoop, call: Callable[[dict[str, Any]], None]
) -> Callable[[dict[str, Any]], None]:
    """``call`` for another thread; it then runs in ``loop``, if that still runs."""

    def calling(message: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the server stopped: nobody is left to tell
            loop.call_soon_threadsafe(call, message)

    return calling


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What a connection ended with: what nobody expected goes before an end of the usual kinds."""
    return min(group.exceptions, key=lambda error: isinstance(error, _Over | WebSocketDisconnect))


def result_message(result: FrameResult, origin: Origin, broken: int) -> dict[str, Any]:
    """The ``result`` of one picture, as sent but for ``arrived_ns``, which becomes ``timing_ms.server`` then."""
    record = frame_record(result, "")
    timing_ms = {"decode": round(origin.decode_ms, 3), **record["timing_ms"]}
    return {
        "type": "result",
        "sequence": origin.sequence,
        "captured_ms": origin.captured_ms,
        "size": list(result.frame.size_wh),
        **{key: value for key, value in record.items() if key not in ("schema", "path")},
        "timing_ms": timing_ms,
        "dropped": record["dropped"] + origin.replaced,
        "broken": broken,
        "arrived_ns": origin.arrived_ns,
    }
