"""Live judging over a WebSocket: a real server with the real models, and clients that behave or do not."""

import asyncio
import json
import logging
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from compression.budget import FPS_60
from detector.models import ladder
from pipelines.session import loaded
from webapp.live import PATH, Limits, add_live, element
from webapp.seats import Place, Seats
from webapp.tickets import Tickets

SAMPLES = Path(__file__).parents[2] / "assets" / "samples"
PATIENT = Limits(idle_s=60)
SHORT = Limits(start_s=0.4, idle_s=0.6, max_bytes=200_000)


@pytest.fixture(scope="module")
def models():
    return [loaded(stored, threads=1) for stored in ladder()]


@contextmanager
def serving(models, seats=2, limits=PATIENT):
    """A server with a live endpoint and nothing else; what it leaves behind or complains of fails the test."""
    before = set(threading.enumerate())
    app, tickets = FastAPI(), Tickets()
    house = Seats(seats, line=2)
    add_live(app, models, tickets, house, limits)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Server(port, tickets, house, server)
    finally:
        server.should_exit = True
        thread.join(20)
    wait_for(lambda: not set(threading.enumerate()) - before)


class Server:
    def __init__(self, port, tickets, seats, uvicorn_server):
        self.host = f"127.0.0.1:{port}"
        self.tickets = tickets
        self.seats = seats
        self.uvicorn = uvicorn_server

    def connect(self, origin=None):
        return connect(f"ws://{self.host}{PATH}", origin=origin or f"http://{self.host}", proxy=None)

    def start(self, socket, budget="33"):
        socket.send(json.dumps({"type": "start", "ticket": self.tickets.issue("me"), "budget": budget}))


@pytest.fixture(scope="module")
def server(models):
    with serving(models) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records] == []


def wait_for(condition, limit_s=15.0):
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.005)


def pictures(name, count=1, width=640):
    """The first frames of a sample clip, as JPEG."""
    capture = cv2.VideoCapture(str(SAMPLES / name))
    made = []
    for _ in range(count):
        _, bgr = capture.read()
        height = round(bgr.shape[0] * width / bgr.shape[1])
        small = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA)
        made.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    capture.release()
    return made


def message(jpeg, sequence=0, captured_ms=0.0):
    return struct.pack("<IId", sequence, 0, captured_ms) + jpeg


def hear(socket, *kinds):
    """The next message, which is of one of these types."""
    said = json.loads(socket.recv(timeout=30))
    assert said["type"] in kinds, said
    return said


def judge(socket, jpegs):
    """Every picture's result; a picture is sent when the one before it was judged."""
    results = []
    for sequence, jpeg in enumerate(jpegs):
        socket.send(message(jpeg, sequence, sequence * 1000 / 30))
        results.append(hear(socket, "result"))
    return results


def farewell(socket):
    """The error that a connection ends with, and the code it is closed with."""
    said = hear(socket, "error")
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert said["message"].endswith(".")
    assert "Traceback" not in said["message"]
    return said["code"], closed.value.rcvd.code


# ------------------------------------------------------------------------------------------------ what is judged


def test_a_picture_comes_back_as_a_verdict_with_its_face(server):
    with server.connect() as socket:
        server.start(socket)
        ready = hear(socket, "ready")
        socket.send(message(pictures("real.mp4")[0], 7, 1234.5))
        result = hear(socket, "result")
    assert ready["budget_ms"] == pytest.approx(1000 / 30, abs=0.001)
    assert ready["models"][0] == result["model"]
    assert 0 < ready["real_below"] <= ready["fake_above"] < 1
    assert (result["sequence"], result["captured_ms"], result["size"]) == (7, 1234.5, [640, 360])
    (face,) = result["faces"]
    x1, y1, x2, y2 = face["xyxy"]
    assert -20 < x1 < x2 < 660
    assert -20 < y1 < y2 < 380
    timing = result["timing_ms"]
    assert timing["find"] + timing["crop"] + timing["score"] <= timing["total"]
    assert timing["decode"] + timing["total"] < timing["server"]
    assert (result["find_every"], result["score_every"], result["dropped"], result["broken"]) == (1, 1, 0, 0)


@pytest.mark.parametrize(("clip", "label"), [("real.mp4", "REAL"), ("fake.mp4", "FAKE"), ("no_face.mp4", "NO_FACE")])
def test_a_sample_clip_gets_its_word(server, clip, label):
    with server.connect() as socket:
        server.start(socket)
        hear(socket, "ready")
        results = judge(socket, pictures(clip, 12))
    assert results[-1]["verdict"] == label


def test_two_sessions_at_once_do_not_mix(server):
    with server.connect() as one, server.connect() as other:
        for socket in (one, other):
            server.start(socket)
            hear(socket, "ready")
        faces, nobody = pictures("two_faces.mp4", 6), pictures("no_face.mp4", 6)
        for sequence, (seen, unseen) in enumerate(zip(faces, nobody, strict=True)):
            one.send(message(seen, sequence, sequence * 33.0))
            other.send(message(unseen, 100 + sequence, sequence * 33.0))
            with_faces, without = hear(one, "result"), hear(other, "result")
            assert (with_faces["sequence"], without["sequence"]) == (sequence, 100 + sequence)
            assert {face["track"] for face in with_faces["faces"]} == {1, 2}
            assert without["faces"] == []


def test_pictures_that_come_too_fast_are_dropped_and_told_of(server):
    count = 60
    jpeg = pictures("real.mp4")[0]
    with server.connect() as socket:
        server.start(socket)
        hear(socket, "ready")
        for sequence in range(count):
            socket.send(message(jpeg, sequence, sequence * 5.0))
        results = []
        while not results or results[-1]["sequence"] < count - 1:
            results.append(hear(socket, "result"))
    sequences = [result["sequence"] for result in results]
    assert sequences == sorted(sequences)
    assert len(results) + sum(result["dropped"] for result in results) == count


def test_a_client_that_does_not_read_gets_the_newest_later(server):
    jpeg = pictures("no_face.mp4", width=64)[0]
    with server.connect() as socket:
        server.start(socket)
        hear(socket, "ready")
        for sequence in range(20):
            socket.send(message(jpeg, sequence, sequence * 33.0))
            time.sleep(0.01)
        while hear(socket, "result")["sequence"] < 19:
            pass


def test_a_damaged_picture_is_counted_and_the_session_goes_on(server):
    jpeg = pictures("real.mp4")[0]
    with server.connect() as socket:
        server.start(socket)
        hear(socket, "ready")
        socket.send(message(jpeg[: len(jpeg) // 2], 0, 0.0))
        time.sleep(0.3)
        socket.send(message(jpeg, 1, 33.0))
        result = hear(socket, "result")
    assert (result["sequence"], result["broken"]) == (1, 1)


# ------------------------------------------------------------------------------------------------ who may come in


def test_a_page_of_another_site_cannot_open_it(server):
    with pytest.raises(InvalidStatus) as refused, server.connect(origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    ("first", "code", "close_code"),
    [
        ({"type": "start", "ticket": "made up", "budget": "33"}, "ticket", 4401),
        ({"type": "start", "budget": "33"}, "ticket", 4401),
        ({"type": "start", "ticket": ["x"], "budget": "33"}, "ticket", 4401),
        ({"type": "stop"}, "start", 4400),
        ([], "start", 4400),
        ("x" * 10_000, "start", 4400),
    ],
)
def test_who_does_not_begin_as_agreed_is_told_and_sent_away(server, first, code, close_code):
    with server.connect() as socket:
        socket.send(json.dumps(first))
        assert farewell(socket) == (code, close_code)


@pytest.mark.parametrize("budget", ["", "soon", "nan", "0.1", "-33", "1e9", 33, None])
def test_a_budget_that_makes_no_sense_is_refused(server, budget):
    with server.connect() as socket:
        server.start(socket, budget)
        assert farewell(socket) == ("start", 4400)


def test_a_picture_as_the_first_message_is_refused(server):
    with server.connect() as socket:
        socket.send(message(pictures("real.mp4")[0]))
        assert farewell(socket) == ("start", 4400)


def test_a_ticket_that_was_revoked_opens_nothing(server):
    ticket = server.tickets.issue("somebody")
    server.tickets.revoke("somebody")
    with server.connect() as socket:
        socket.send(json.dumps({"type": "start", "ticket": ticket, "budget": "33"}))
        assert farewell(socket) == ("ticket", 4401)


# ------------------------------------------------------------------------------------------------ who is sent away


@pytest.mark.parametrize(
    "sent",
    [b"", b"short", message(b""), message(b"GIF89a"), message(b"\xff\xd8\xff" + bytes(5000))],
    ids=["nothing", "no header", "no picture", "GIF", "garbage"],
)
def test_garbage_instead_of_a_picture_ends_the_session_with_a_word(server, sent):
    with server.connect() as socket:
        server.start(socket)
        hear(socket, "ready")
        socket.send(sent)
        assert farewell(socket) == ("frame", 4422)


def test_who_sends_too_much_or_nothing_is_told_so(models):
    with serving(models, limits=SHORT) as server:
        with server.connect() as socket:
            server.start(socket)
            hear(socket, "ready")
            socket.send(message(pictures("real.mp4")[0] + bytes(200_000)))
            assert farewell(socket) == ("frame", 4422)
        with server.connect() as socket:
            server.start(socket)
            hear(socket, "ready")
            assert farewell(socket) == ("idle", 4410)
        with server.connect() as socket:
            assert farewell(socket) == ("late", 4408)


# ------------------------------------------------------------------------------------------------ seats


def test_a_full_house_lets_people_wait_and_seats_them_in_their_order(models):
    with serving(models, seats=1) as server, ExitStack() as stack:
        first, second, third, fourth = (stack.enter_context(server.connect()) for _ in range(4))
        server.start(first)
        hear(first, "ready")
        for ahead, socket in enumerate((second, third)):
            server.start(socket)
            assert hear(socket, "waiting")["ahead"] == ahead
        server.start(fourth)
        assert farewell(fourth) == ("full", 4429)
        first.close()
        hear(second, "ready")
        assert hear(third, "waiting")["ahead"] == 0
        second.send(json.dumps({"type": "stop"}))
        hear(third, "ready")
        assert judge(third, pictures("real.mp4"))[0]["faces"]
        third.close()
        wait_for(lambda: server.seats.taken == 0)


def test_who_leaves_the_line_lets_the_others_move_up(models):
    with serving(models, seats=1) as server, server.connect() as seated, server.connect() as last:
        server.start(seated)
        hear(seated, "ready")
        with server.connect() as impatient:
            server.start(impatient)
            hear(impatient, "waiting")
            server.start(last)
            assert hear(last, "waiting")["ahead"] == 1
        assert hear(last, "waiting")["ahead"] == 0


def test_a_client_that_vanishes_gives_its_seat_back(server):
    jpeg = pictures("real.mp4")[0]
    with server.connect() as socket:
        server.start(socket)
        hear(socket, "ready")
        for sequence in range(5):
            socket.send(message(jpeg, sequence, sequence * 33.0))
        socket.socket.close()  # no farewell at all
        wait_for(lambda: server.seats.taken == 0)


def test_a_server_that_stops_ends_its_sessions(models):
    with ExitStack() as stack:
        with serving(models) as server:
            socket = stack.enter_context(server.connect())
            server.start(socket)
            hear(socket, "ready")
            socket.send(message(pictures("real.mp4")[0]))
            hear(socket, "result")
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=10)


def test_a_place_is_told_of_every_move_and_of_its_seat():
    async def line():
        seats, heard = Seats(1), []

        async def come(name, leave):
            async with seats.place() as place:
                ahead = place.ahead
                while ahead is not None:
                    heard.append((name, ahead))
                    ahead = await place.moved(ahead)
                heard.append((name, "seat"))
                await leave.wait()

        leave = [asyncio.Event() for _ in range(3)]
        tasks = []
        for name in range(3):
            tasks.append(asyncio.create_task(come(name, leave[name])))
            await asyncio.sleep(0)
        for event in leave:
            await asyncio.sleep(0.01)
            event.set()
        await asyncio.gather(*tasks)
        return heard, seats.taken

    heard, taken = asyncio.run(line())
    assert heard == [(0, "seat"), (1, 0), (2, 1), (1, "seat"), (2, 0), (2, "seat")]
    assert taken == 0


def test_no_house_is_without_a_seat():
    with pytest.raises(ValueError, match="at least one"):
        Seats(0)
    assert asyncio.run(_ahead_of_a_new_place()) is None


async def _ahead_of_a_new_place():
    return Place().ahead


# ------------------------------------------------------------------------------------------------ tickets


def test_a_ticket_is_good_for_its_owner_until_it_has_rested_for_too_long():
    tickets = Tickets(idle_s=0.2)
    ticket = tickets.issue("Ada")
    for _ in range(3):
        time.sleep(0.1)
        assert tickets.check(ticket) == "Ada"
    time.sleep(0.25)
    assert tickets.check(ticket) is None


def test_tickets_are_many_different_and_not_kept_for_ever():
    tickets = Tickets(most=100)
    issued = [tickets.issue("Ada") for _ in range(150)]
    assert len(set(issued)) == 150
    assert min(map(len, issued)) >= 32
    assert [tickets.check(ticket) for ticket in issued] == [None] * 50 + ["Ada"] * 100


def test_the_element_carries_its_ticket_and_budget_as_html():
    made = element('a"b<c', FPS_60)
    assert made.startswith('<tellframe-live ticket="a&quot;b&lt;c" budget="16.667" budgets="[[&quot;33&quot;')
    assert made.endswith("></tellframe-live>")
