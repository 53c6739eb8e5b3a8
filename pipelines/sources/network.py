"""Streams and files on the network."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from urllib.parse import urlsplit

from detector.types import Frame, InputError, NothingToAnalyseError, SourceInfo, UsageError
from pipelines.sources._base import Source
from pipelines.sources._decoder import Decoder, NoVideoError, Picture, UnreadableError

SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "udp", "rtp", "tcp"})
"""What an address may begin with."""

# What FFmpeg may open on the way, a playlist's entries included: no file, pipe, data or concat.
_PROTOCOLS = "http,https,httpproxy,tcp,tls,crypto,udp,rtp,rtmp,rtmps"

_LONGEST_PAUSE_S = 8.0

_SECRET_PARAMETER = re.compile(r"(?i)([?&;][^=&;]*(?:pass|pwd|token|secret|key|auth|sig|user)[^=&;]*=)[^&;#]*")


class NetworkStream(Source):
    """The frames of a network stream (RTSP, RTMP, HLS, HTTP, MPEG-TS over UDP ...), the latest as soon as it is there.

    A live stream that stalls or drops is opened again, with growing pauses; ``counts.reconnects`` says how often.
    Indices and times go on over a reconnect (by the time that passed), also when the size changes. An HTTP(S)
    address with a known end, such as an mp4, is not live: ``live`` is False once it is open, every frame is
    delivered, and its end is the end. Only :data:`SCHEMES` are opened, and a playlist from the network cannot point
    at files of this machine. Passwords never appear in ``info.name`` or in messages.

    ``stop()`` works between packets: while nothing arrives at all, iteration ends at the read time-out.

    Args:
        url: the address.
        open_timeout_s: how long connecting may take, and how long a stream may send without one picture.
        read_timeout_s: how long a stream may be silent.
        reconnects: attempts in a row before a lost stream is given up.
        pause_s: the pause before the first attempt; doubles from one to the next, up to 8 s.
        rtsp_transport: ``tcp``, which loses nothing, or ``udp``.

    Raises:
        UsageError: the address is none, or not of an allowed kind; an option out of range.
    """

    live = True

    def __init__(
        self,
        url: str,
        *,
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        reconnects: int = 6,
        pause_s: float = 0.5,
        rtsp_transport: str = "tcp",
    ) -> None:
        super().__init__(SourceInfo(name=mask(url)))
        self._scheme = _checked_scheme(url, self.info.name)
        if not (open_timeout_s > 0 and read_timeout_s > 0 and pause_s > 0 and reconnects >= 0):
            raise UsageError("time-outs and pauses are seconds above 0, reconnects a count from 0")
        if rtsp_transport not in ("tcp", "udp"):
            raise UsageError(f"rtsp_transport is tcp or udp, got {rtsp_transport!r}")
        self._url = url
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._reconnects = reconnects
        self._pause_s = pause_s
        self._rtsp_transport = rtsp_transport
        self._decoder: Decoder | None = None
        self._has_clock = True
        self._pictures: Iterator[Picture] = iter(())

    def _open(self) -> None:
        name = self.info.name
        try:
            self._connect()
        except NoVideoError:
            raise NothingToAnalyseError(f"{name}: sends no video stream; give an address with pictures") from None
        except UnreadableError as error:
            raise InputError(f"{name}: cannot be opened: {error}; check the address and the sender") from None

    def _frames(self) -> Iterator[Frame]:
        while not self._stopped.is_set():
            lost = "the sender closed it"
            try:
                for picture in self._pictures:
                    yield self._timeline.frame(
                        picture.bgr, picture.stamp_ns if self._has_clock else time.monotonic_ns()
                    )
                if not self.live:
                    return
            except UnreadableError as error:
                lost = str(error)
                if not self.live:
                    raise InputError(f"{self.info.name}: broke off: {lost}; try again") from None
            if not self._stopped.is_set():
                self._reconnect(lost)

    def _connect(self) -> None:
        """Opens the stream and waits for its first picture."""
        self._close()
        self._decoder = Decoder(
            self._url,
            options=self._options(),
            timeouts_s=(self._open_timeout_s, self._read_timeout_s),
        )
        self.live = not (self._scheme in ("http", "https") and self._decoder.has_known_end)
        self._has_clock = not self.live or self._decoder.has_clock
        if self.live:
            self._decoder.hurry()
        pictures = self._watched(self._decoder)
        first = next(pictures, None)
        if first is None:
            raise UnreadableError("it ended before its first picture")
        info = self._decoder.describe(self.info.name, (first.bgr.shape[1], first.bgr.shape[0]))
        self.info = replace(info, frames=None, duration_s=None) if self.live else info
        self._timeline.set_rate(self.info.fps)
        self._pictures = chain([first], pictures)

    def _watched(self, decoder: Decoder) -> Iterator[Picture]:
        """The pictures of one connection; a stream that sends none for too long counts as silent."""
        last_s = time.monotonic()
        for picture in decoder.pictures(self.counts, tolerant=not self.live):
            if self._stopped.is_set():
                return
            if picture is not None:
                yield picture
                last_s = time.monotonic()
            elif time.monotonic() - last_s > self._open_timeout_s:
                raise UnreadableError("it sends, but no picture that can be decoded")

    def _reconnect(self, lost: str) -> None:
        """Tries until the stream is back, the attempts are used up, or somebody stops it."""
        cause = lost
        for attempt in range(self._reconnects):
            if self._stopped.wait(min(self._pause_s * 2**attempt, _LONGEST_PAUSE_S)):
                return
            try:
                self._connect()
            except UnreadableError as error:
                cause = str(error)
                continue
            self.counts.reconnects += 1
            self._timeline.resume()
            return
        raise InputError(
            f"{self.info.name}: lost ({lost}) and not back after {self._reconnects} attempts ({cause}); "
            "check the sender"
        )

    def _options(self) -> dict[str, str]:
        options = {"protocol_whitelist": _PROTOCOLS, "max_delay": "500000"}
        if self._scheme in ("rtsp", "rtsps"):
            options |= {"rtsp_transport": self._rtsp_transport}
        if self._scheme == "udp":
            options |= {"overrun_nonfatal": "1"}
        if self._scheme in ("http", "https"):
            # FFmpeg itself goes on where a file broke off; it cannot do that for a live stream.
            options |= {"reconnect": "1", "reconnect_delay_max": "2"}
        return options

    def _close(self) -> None:
        self._pictures = iter(())
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


def mask(url: str) -> str:
    """``url`` fit to be shown: user, password and parameters that sound secret become ``***``."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if "@" in host:
        host = "***@" + host.rpartition("@")[2]
    return _SECRET_PARAMETER.sub(r"\1***", scheme + separator + host + slash + path)


def _checked_scheme(url: str, name: str) -> str:
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError(f"{name}: not an address; expected something like rtsp://host/path") from None
    scheme = parts.scheme.lower()
    if scheme not in SCHEMES:
        raise UsageError(f"{name}: cannot open {scheme or 'this'} addresses; use one of {', '.join(sorted(SCHEMES))}")
    if not parts.netloc or not port_is_fine:
        raise UsageError(f"{name}: the address has no host; expected something like {scheme}://host/path")
    return scheme
