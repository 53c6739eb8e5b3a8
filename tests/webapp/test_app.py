"""The page, served as a user serves it and called by a script through Gradio's own client."""

import json
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from hashlib import sha256

import pytest

from tests.commands import ROOT
from tests.test_docs import documented, keys, spelt_out, with_parents
from tests.webapp.serving import served

SAMPLES = ROOT / "assets" / "samples"
EXAMPLE = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "web.md").read_text(encoding="utf-8"), re.M | re.S)[0]

CLIENT = """
import json, sys
from gradio_client import Client, handle_file
address, path, *who = sys.argv[1:]
client = Client(address, verbose=False, analytics_enabled=False, auth=tuple(who) or None)
try:
    print(client.predict(handle_file(path), 6, api_name="/judge"))
except Exception as error:
    print(json.dumps(str(error)))
"""


def python(code, *arguments):
    """What a script prints; in a process of its own, as Gradio's client keeps threads."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)


def judged(address, path, *who):
    run = python(CLIENT, address, path, *who)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def get(address, **headers):
    """Status, headers and text of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, refusal.read().decode()


@pytest.fixture(scope="module")
def page():
    with served() as (address, _):
        yield address


def test_the_example_of_the_documents_runs(page):
    run = python(EXAMPLE.replace("http://127.0.0.1:7860/", page))
    assert run.returncode == 0, run.stderr
    verdict, p_fake, digest = run.stdout.splitlines()[0].split()
    assert (verdict, digest) == ("FAKE", sha256((SAMPLES / "fake.mp4").read_bytes()).hexdigest())
    assert 0.5 < float(p_fake) <= 1
    assert run.stdout.splitlines()[1].startswith("1 FAKE ")


def test_a_script_gets_the_record_that_the_documents_describe(page):
    record = judged(page, SAMPLES / "no_face.mp4")
    assert record["verdict"] == "NO_FACE"
    assert record["path"] == record["file"]["name"] == "no_face.mp4"
    assert record["file"]["bytes"] == (SAMPLES / "no_face.mp4").stat().st_size
    own = {key for key in keys(record) if key.partition(".")[0] == "file"}
    assert own == documented("The page's clip")
    assert keys(record) - own <= with_parents(set.union(*map(spelt_out, documented("Clip:"))))


def test_a_script_gets_one_plain_line_about_a_file_that_is_no_video(page, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video at all\n" * 100)
    said = judged(page, path)
    assert said.startswith("notes.mp4: cannot be read as video")
    assert "\n" not in said
    assert "/" not in said.partition(":")[0]


def test_nothing_else_is_offered_to_scripts(page):
    offered = json.loads(get(page + "gradio_api/info")[2])
    assert set(offered["named_endpoints"]) == {"/judge"}
    assert offered["unnamed_endpoints"] == {}


def test_every_answer_carries_the_guards_headers_and_foreign_names_get_none(page):
    for path in ("", "tellframe/static/style.css", "tellframe/plotly.min.js", "gradio_api/info"):
        status, headers, _ = get(page + path)
        assert status == 200, path
        assert "default-src 'self'" in headers["content-security-policy"]
    status, _, text = get(page, Host="evil.example")
    assert (status, "use 127.0.0.1" in text) == (403, True)


def test_the_page_names_no_other_host(page):
    _, _, text = get(page)
    config = json.loads(re.search(r"window\.gradio_config = (\{.*?\});</script>", text, re.S)[1])
    hosts = set(re.findall(r"(?:src|href)=[\"'](?:https?:)?//([^/\"']+)", text))
    assert hosts == set()
    assert config["analytics_enabled"] is False


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", str(ROOT / "pyproject.toml"), str(ROOT / "assets" / "models" / "efficientnet_lite0_256.json")],
)
def test_no_file_of_the_machine_is_served(page, path):
    assert get(f"{page}gradio_api/file={path}")[0] in (403, 404)


def test_files_are_private_while_it_runs_and_gone_after_it(tmp_path):
    with served(folder=tmp_path) as (address, _):
        judged(address, SAMPLES / "no_face.mp4")
        (own,) = tmp_path.glob("tellframe-*")
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert list((own / "results").iterdir()) == []  # the script has its answer
    assert not own.exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_their_code(sent, tmp_path):
    with served(folder=tmp_path) as (address, process):
        assert get(address)[0] == 200
        process.send_signal(sent)
        assert process.wait(20) == 128 + sent
    assert not [*tmp_path.glob("tellframe-*")]


def test_a_password_is_asked_for(tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("anna:correct horse\n")
    with served("--auth", str(passwords)) as (address, _):
        assert get(address + "gradio_api/info")[0] == 401
        assert "tellframe-live" not in get(address)[2]
        record = judged(address, SAMPLES / "no_face.mp4", "anna", "correct horse")
        assert record["verdict"] == "NO_FACE"
        assert python(CLIENT, address, SAMPLES / "no_face.mp4", "anna", "wrong horse").returncode != 0
        assert _socket_status(address) == "ticket"


def _socket_status(address):
    """What the live socket says to somebody with a ticket of their own making."""
    code = """
import asyncio, json, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1].replace("http", "ws") + "tellframe/live", proxy=None) as socket:
        await socket.send(json.dumps({"type": "start", "ticket": "guessed", "budget": "33"}))
        print(json.loads(await socket.recv())["code"])
asyncio.run(main())
"""
    run = python(code, address)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()
