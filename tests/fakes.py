"""Test doubles: a scripted source, a camera that can be unplugged, a web server that misbehaves on request."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from detector.types import Frame, SourceCounts, SourceInfo


class FakeSource:
    """A source of ``count`` tiny frames; ``hooks[i]`` is called before frame i, ``error`` is raised after the last."""

    def __init__(self, count, *, live=False, hooks=None, error=None, open_error=None):
        self.live = live
        self.info = SourceInfo("fake")
        self.counts = SourceCounts()
        self.stopped = threading.Event()
        self.entered_in = self.closed_in = None
        self.given = 0
        self._count, self._hooks, self._error, self._open_error = count, hooks or {}, error, open_error

    def __enter__(self):
        self.entered_in = threading.current_thread()
        if self._open_error is not None:
            raise self._open_error
        return self

    def __exit__(self, *_):
        self.closed_in = threading.current_thread()

    def __iter__(self):
        for i in range(self._count):
            self._hooks.get(i, lambda: None)()
            if self.stopped.is_set():
                return
            self.given += 1
            yield Frame(np.zeros((2, 2, 3), np.uint8), index=i, pts_ns=i, captured_ns=time.monotonic_ns())
        if self._error is not None:
            raise self._error

    def stop(self):
        self.stopped.set()


class Camera:
    """A camera that films the clip ``path``, and can be unplugged and plugged in again from the test."""

    def __init__(self, path):
        self._path = str(path)
        self.plugged = True
        self.opened = []  # what was asked to be opened
        self.asked = []  # (property, value), in order

    def open(self, device):
        self.opened.append(device)
        return _Capture(self, cv2.VideoCapture(self._path if self.plugged else "", cv2.CAP_FFMPEG))


class _Capture:
    def __init__(self, camera, real):
        self._camera, self._real, self._alive = camera, real, True

    def isOpened(self):  # noqa: N802
        return self._real.isOpened()

    def read(self):
        self._alive = self._alive and self._camera.plugged  # plugging it in again needs opening it again
        return self._real.read() if self._alive else (False, None)

    def get(self, prop):
        return self._real.get(prop)

    def set(self, prop, value):
        self._camera.asked.append((prop, value))
        return False

    def release(self):
        self._real.release()


class WebServer:
    """Serves ``pages[path]``, functions of the request, on 127.0.0.1; ``closing`` is set when the test is over."""

    def __init__(self):
        self.pages = {}
        self.requests = []
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                try:
                    outer.pages[self.path](self)
                except KeyError:
                    self.send_error(404)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False

    def url(self, path, user=""):
        return f"http://{user}127.0.0.1:{self._server.server_address[1]}{path}"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def file(self, path, data, content_type="video/mp4"):
        """A file of known size, in whole or in part."""

        def serve(request):
            start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            request.send_response(206 if "Range" in request.headers else 200)
            request.send_header("Content-Type", content_type)
            request.send_header("Content-Length", str(len(data) - start))
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            request.send_header("Accept-Ranges", "bytes")
            request.end_headers()
            request.wfile.write(data[start:])

        self.pages[path] = serve

    def live(self, path, connections, content_type="video/mp2t"):
        """A stream without an end of its own: one entry of ``connections`` a request, the last one for ever.

        An entry is (bytes, what follows): "drop" closes the connection, "stall" keeps it and sends nothing.
        """
        turns = list(connections)

        def serve(request):
            data, then = turns.pop(0) if len(turns) > 1 else turns[0]
            request.send_response(200)
            request.send_header("Content-Type", content_type)
            request.end_headers()
            request.wfile.write(data)
            if then == "stall":
                request.wfile.flush()
                self.closing.wait(20)

        self.pages[path] = serve
