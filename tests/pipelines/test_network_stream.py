"""What is special about network streams, against a web server of the test's own."""

import socket
import threading
import time
from itertools import islice, pairwise

import cv2
import pytest

from detector.types import InputError, NothingToAnalyseError, UsageError
from pipelines.sources import NetworkStream
from pipelines.sources.network import mask
from tests import clips

QUICK = {"open_timeout_s": 3.0, "read_timeout_s": 0.4, "pause_s": 0.02}


@pytest.fixture(scope="session")
def other_size(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "other.ts"
    return clips.write_clip(path, 90, size_wh=(96, 64), codec_options={"g": "10"}).read_bytes()


def multipart(count):
    """An MJPEG camera's answer: one JPEG a part."""
    parts = []
    for i in range(count):
        jpeg = cv2.imencode(".jpg", clips.picture(i))[1].tobytes()
        parts.append(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg))
    return b"".join(parts)


def refusal(url, error=InputError, **options):
    with pytest.raises(error) as caught, NetworkStream(url, **(QUICK | options)) as source:
        list(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def increasing(frames):
    return all(a.index < b.index and a.pts_ns < b.pts_ns for a, b in pairwise(frames))


# ------------------------------------------------------------------------------------------------ files


def test_a_file_on_a_web_server_is_not_live_and_ends(server, clip):
    server.file("/clip.mp4", clip.read_bytes())
    with NetworkStream(server.url("/clip.mp4"), **QUICK) as source:
        assert source.live is False
        assert source.info.frames == 6
        assert len(list(source)) == 6
    assert source.counts.reconnects == 0


def test_an_hls_playlist_with_an_end_is_not_live(server, transport_stream):
    server.file("/part.ts", transport_stream, "video/mp2t")
    server.file("/list.m3u8", playlist("part.ts"), "application/vnd.apple.mpegurl")
    with NetworkStream(server.url("/list.m3u8"), **QUICK) as source:
        assert source.live is False
        assert len(list(source)) == 90


def playlist(entry, end="#EXT-X-ENDLIST\n"):
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:3,\n{entry}\n{end}".encode()


def test_an_hls_playlist_without_an_end_is_live(server, transport_stream):
    server.file("/part.ts", transport_stream, "video/mp2t")
    server.file("/list.m3u8", playlist("part.ts", end=""), "application/vnd.apple.mpegurl")
    with NetworkStream(server.url("/list.m3u8"), **QUICK) as source:
        assert source.live is True
        assert len(list(islice(source, 20))) == 20


@pytest.mark.parametrize("entry", ["file://{}", "{}", "concat:{}", "subfile,,start,0,end,0,,:{}"])
def test_a_playlist_from_the_network_cannot_read_files_of_this_machine(server, tmp_path, entry):
    path = clips.write_clip(tmp_path / "private.ts", 30)
    server.file("/list.m3u8", playlist(entry.format(path)), "application/vnd.apple.mpegurl")
    refusal(server.url("/list.m3u8"), reconnects=0)


# ------------------------------------------------------------------------------------------------ live


def test_a_stream_that_drops_is_opened_again_also_with_another_size(server, transport_stream, other_size):
    server.live("/live", [(transport_stream, "drop"), (other_size, "stall")])
    with NetworkStream(server.url("/live"), **QUICK) as source:
        frames = list(islice(source, 120))
    assert source.live is True
    assert source.counts.reconnects == 1
    assert {frame.size_wh for frame in frames} == {(64, 48), (96, 64)}
    assert increasing(frames)
    assert source.info.size_wh == (96, 64)


def test_a_stream_that_stalls_is_opened_again_after_the_read_time_out(server, transport_stream):
    server.live("/live", [(transport_stream, "stall")])
    with NetworkStream(server.url("/live"), **QUICK) as source:
        frames = list(islice(source, 200))
    assert source.counts.reconnects == 2
    assert increasing(frames)


def test_the_clock_goes_on_by_the_time_that_passed(server, transport_stream):
    server.live("/live", [(transport_stream, "stall")])
    with NetworkStream(server.url("/live"), **(QUICK | {"pause_s": 0.3})) as source:
        last, first = list(islice(source, 91))[-2:]  # of the two connections
    assert first.pts_ns - last.pts_ns == first.captured_ns - last.captured_ns
    assert first.pts_ns - last.pts_ns > 0.25e9


def test_an_mjpeg_camera_is_timed_by_arrival(server):
    pictures = multipart(6)

    def serve(request):
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        request.end_headers()
        for _ in range(4):
            request.wfile.write(pictures)
            request.wfile.flush()
            server.closing.wait(0.15)
        server.closing.wait(20)

    server.pages["/camera"] = serve
    with NetworkStream(server.url("/camera"), **QUICK) as source:
        frames = list(islice(source, 20))
    assert source.live is True
    assert clips.quadrants(frames[0].bgr) == clips.UPRIGHT
    assert increasing(frames)
    for frame in frames:
        assert abs((frame.pts_ns - frames[0].pts_ns) - (frame.captured_ns - frames[0].captured_ns)) < 50e6


def test_a_stream_that_never_comes_back_is_given_up(server, transport_stream):
    def gone(request):
        request.send_error(503)

    server.live("/live", [(transport_stream, "drop")])
    with NetworkStream(server.url("/live"), **QUICK, reconnects=2) as source:
        server.pages["/live"] = gone
        frames = iter(source)
        assert len(list(islice(frames, 90))) == 90
        with pytest.raises(InputError, match=r"lost \(.+\) and not back after 2 attempts \(.*HTTP 5xx"):
            next(frames)
    assert source.counts.reconnects == 0
    assert server.requests == ["/live"] * 3


def test_stopping_ends_the_pauses_between_attempts(server, transport_stream):
    server.live("/live", [(transport_stream, "drop")])
    with NetworkStream(server.url("/live"), **(QUICK | {"pause_s": 30.0})) as source:
        stopper = threading.Timer(0.3, source.stop)
        stopper.start()
        start_s = time.monotonic()
        assert len(list(source)) > 0
        assert time.monotonic() - start_s < 1.3
        stopper.join()


# ------------------------------------------------------------------------------------------------ refusals


def test_an_address_where_nobody_listens_is_refused(server):
    server_url = server.url("/")
    port = int(server_url.rsplit(":", 1)[1].strip("/"))
    # A port that was just given out and closed again; nobody else in this test asks for one.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
    assert unused != port
    assert "connection refused" in refusal(f"http://127.0.0.1:{unused}/x.mp4")


def test_a_page_that_is_not_there_is_refused(server):
    assert "not found (HTTP 404)" in refusal(server.url("/nothing.mp4"))


def test_a_server_that_never_answers_is_refused_after_the_open_time_out(server):
    server.pages["/silent"] = lambda request: server.closing.wait(20)
    start_s = time.monotonic()
    assert "no answer in time" in refusal(server.url("/silent"), open_timeout_s=0.3)
    assert time.monotonic() - start_s < 2


def test_a_web_page_is_no_stream(server):
    server.file("/page", b"<html>" + b"hello world " * 500, "text/html")
    refusal(server.url("/page"))


def test_sound_only_is_nothing_to_analyse(server, tmp_path):
    server.file("/sound.wav", clips.write_audio(tmp_path / "sound.wav").read_bytes(), "audio/wav")
    assert "no video stream" in refusal(server.url("/sound.wav"), NothingToAnalyseError)


def test_passwords_are_never_shown(server):
    url = server.url("/nothing.mp4?token=t0psecret&size=3", user="admin:t0psecret@")
    source = NetworkStream(url, **QUICK)
    assert "t0psecret" not in source.info.name
    assert "t0psecret" not in refusal(url)
    assert "t0psecret" not in refusal(url.replace("http", "gopher"), UsageError)
    assert "t0psecret" not in refusal("http://admin:t0psecret@host:port/", UsageError)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:pa@ss@cam/1", "rtsp://***@cam/1"),
        ("rtsp://cam:554/1?user=a&password=b#c", "rtsp://cam:554/1?user=***&password=***#c"),
        ("http://host/a@b?size=3", "http://host/a@b?size=3"),
        ("http://host?access_token=x", "http://host?access_token=***"),
        ("rtsp://user@cam", "rtsp://***@cam"),
    ],
)
def test_an_address_is_masked(url, shown):
    assert mask(url) == shown


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "pipe://0", "concat://a", "data://x", "ftp://host/x", "rtsp://", "http:///x", "nonsense"],
)
def test_other_kinds_of_address_are_refused_at_once(url):
    with pytest.raises(UsageError):
        NetworkStream(url)


@pytest.mark.parametrize(
    "options", [{"read_timeout_s": 0}, {"open_timeout_s": -1}, {"reconnects": -1}, {"rtsp_transport": "pigeon"}]
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError):
        NetworkStream("rtsp://cam/1", **options)
