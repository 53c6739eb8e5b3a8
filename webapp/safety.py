"""Who may talk to the page, and what a browser may do with it.

Three things guard it. *Hosts*: a server on the loopback address answers to its own names only, or any web site could
have its name resolve to 127.0.0.1 and read the answers (DNS rebinding). *Origins*: what another site's page sends is
refused, as a browser sends it with the user's cookies. *Content-Security-Policy*: the browser itself refuses to load
anything from, or to send anything to, another host.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from detector.types import UsageError

# 'unsafe-inline' and 'unsafe-eval' are Gradio's: its page starts with inline scripts and compiles its event handlers.
# They let no other host in, which is what this is for.
CONTENT_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
_SHORTEST_PASSWORD = 8


class Guard:
    """ASGI middleware: refuses other hosts and other origins, and adds :data:`HEADERS` to every answer.

    Args:
        app: what answers.
        hosts: names that a request may be addressed to, without port; None for any.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await PlainTextResponse(refusal, 403)(scope, receive, _with_headers(send))
        else:
            await WebSocketClose(1008, refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return f"this is not {_name(host) or 'a host without a name'}; use {self._hosts[0]}"
        reads = scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS")
        if not reads and not is_same_site(headers):
            return "requests from other sites are refused"
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return sending


def _name(host: str) -> str:
    """The host without its port; an IPv6 address keeps its brackets."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def is_same_site(headers: Headers) -> bool:
    """Whether a page of this very server sends a request; browsers always say who does, other programs need not.

    Browsers let any page open a WebSocket to any host, and send the user's cookies with it.
    """
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_passwords(path: Path) -> Mapping[str, str]:
    """User names and passwords, one ``name:password`` a line; empty lines and lines that begin with # are skipped.

    A file, not an option: what stands on a command line can be read by every user of the machine.

    Raises:
        UsageError: it cannot be read, holds none, names a user twice, or a password has under 8 characters.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"--auth {path}: {reason}; give a file with one name:password a line") from None
    users: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not colon or not name or len(password) < _SHORTEST_PASSWORD:
            raise UsageError(
                f"--auth {path}: line {number} is not name:password with a password of at least "
                f"{_SHORTEST_PASSWORD} characters"
            )
        if name in users:
            raise UsageError(f"--auth {path}: line {number} names a user for the second time")
        users[name] = password
    if not users:
        raise UsageError(f"--auth {path}: holds no name:password line")
    return users


def checks(users: Mapping[str, str]) -> Callable[[str, str], bool]:
    """What says whether a name and a password belong together, in a time that tells nothing of either."""

    def known(name: str, password: str) -> bool:
        expected = users.get(name, "")
        same = secrets.compare_digest(password.encode(), expected.encode())
        return same and name in users

    return known
