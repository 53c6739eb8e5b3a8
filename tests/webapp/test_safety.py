"""Who may talk to the page: hosts, origins, headers, passwords, addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from detector.types import UsageError
from webapp.app import Place
from webapp.safety import LOOPBACK_NAMES, Guard, checks, is_loopback, read_passwords


def guarded(hosts=LOOPBACK_NAMES):
    async def echo(socket):
        await socket.accept()
        await socket.send_text("in")
        await socket.close()

    inner = Starlette(
        routes=[
            Route("/", lambda request: PlainTextResponse("inside"), methods=["GET", "POST"]),
            WebSocketRoute("/socket", echo),
        ]
    )
    return TestClient(Guard(inner, hosts), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860", "LOCALHOST"])
def test_a_loopback_server_answers_to_its_own_names(host):
    assert guarded().get("/", headers={"host": host}).text == "inside"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_a_loopback_server_answers_to_no_other_name(host):
    answer = guarded().get("/", headers={"host": host})
    assert answer.status_code == 403
    assert "inside" not in answer.text


def test_a_public_server_answers_to_any_name():
    assert guarded(hosts=None).get("/", headers={"host": "tellframe.example"}).text == "inside"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:7860"])
def test_what_another_sites_page_sends_is_refused(origin):
    assert guarded().post("/", headers={"origin": origin}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        guarded().websocket_connect("/socket", headers={"origin": origin}) as socket,
    ):
        socket.receive_text()


def test_what_its_own_page_or_a_program_sends_is_taken():
    assert guarded().post("/", headers={"origin": "http://127.0.0.1:7860"}).text == "inside"
    assert guarded().post("/").text == "inside"
    with guarded().websocket_connect("/socket", headers={"host": "127.0.0.1:7860"}) as socket:
        assert socket.receive_text() == "in"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "evil.example"])
def test_every_answer_tells_the_browser_to_talk_to_nobody_else(host):
    headers = guarded().get("/", headers={"host": host}).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["connect-src"] == "'self'"
    assert not any("http" in sources or "*" in sources for sources in policy.values())
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]"])
def test_loopback_addresses_are_known(host):
    assert is_loopback(host)
    Place(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_an_address_that_others_can_reach_needs_passwords(host, tmp_path):
    assert not is_loopback(host)
    with pytest.raises(UsageError, match="--auth"):
        Place(host)
    Place(host, auth=tmp_path / "passwords")


def test_a_certificate_and_its_key_go_together(tmp_path):
    certificate = tmp_path / "certificate.pem"
    certificate.touch()
    with pytest.raises(UsageError, match="go together"):
        Place(certificate=certificate)
    with pytest.raises(UsageError, match="no such file"):
        Place(certificate=certificate, key=tmp_path / "missing.pem")


def test_passwords_are_read(tmp_path):
    path = tmp_path / "passwords"
    path.write_text("# the desk\nanna:with:colons and spaces\n\nbo:12345678\n")
    known = checks(read_passwords(path))
    assert known("anna", "with:colons and spaces")
    assert known("bo", "12345678")
    assert not known("bo", "with:colons and spaces")
    assert not known("carl", "")
    assert not known("", "")


@given(name=st.text(), password=st.text())
def test_nobody_else_gets_in(name, password):
    users = {"anna": "a long password", "bö": "ünïcödé password"}
    assert checks(users)(name, password) == (users.get(name) == password)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no name:password line"),
        ("# nobody\n", "holds no name:password line"),
        ("anna\n", "line 1 is not name:password"),
        ("anna:long enough\n:long enough\n", "line 2 is not name:password"),
        ("anna:short\n", "at least 8 characters"),
        ("anna:long enough\nanna:long enough too\n", "line 2 names a user for the second time"),
    ],
)
def test_a_bad_file_of_passwords_is_refused_in_words(tmp_path, text, words):
    path = tmp_path / "passwords"
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as refusal:
        read_passwords(path)
    assert "long enough" not in str(refusal.value)  # no password on a screen


def test_an_unreadable_file_of_passwords_is_refused_in_words(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_passwords(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_passwords(tmp_path / "binary")
