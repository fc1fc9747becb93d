"""One HTTP request to the backend, whose final answer is to be 200.

Knows URLs, redirects and h11 on the client's side; must not know where connections go: whatever host a URL names, each is
opened by the caller, to the one target. The caller owns the time limit.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import unquote, urljoin, urlsplit

import h11
import trio

from tunnel.errors import ConfigError, TargetError, TargetFault
from tunnel.log import MAX_FOREIGN_TEXT, one_line

OpenStream = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10  # Go's limit
_MAX_HEAD = 64 * 1024
_PIECE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of an http or https URL that a request needs; `name` is what the server's certificate is to show."""

    text: str = field(repr=False)  # which may hold the credentials
    is_secure: bool
    host: str
    name: str
    target: str
    credentials: str = field(repr=False)


def parse_url(text: str) -> Url:
    """An absolute http or https URL; raises ConfigError, which shows no credentials."""
    shown = text.rpartition("@")[2]
    try:
        parts = urlsplit(text)
        name = parts.hostname or ""
        name.encode("idna")
        _port = parts.port  # looked at for the error that it raises
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"{shown!a} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not name or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{shown!a} is no URL to ask; http://HOST/PATH or https://HOST/PATH is wanted")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    userinfo, _, host = parts.netloc.rpartition("@")
    return Url(text, parts.scheme == "https", host, name, target, unquote(userinfo))


async def probe(url: Url, open_stream: OpenStream, trust: ssl.SSLContext, agent: str) -> None:
    """Ask until an answer is no redirect; raises TargetError unless it is exactly 200."""
    for _ in range(_MAX_REDIRECTS + 1):
        status, location = await _ask(url, open_stream, trust, agent)
        if status not in _REDIRECTS or not location:
            if status != HTTPStatus.OK:
                raise TargetError(TargetFault.UNREACHABLE, f"target returned status: {status}")
            return
        try:
            url = parse_url(urljoin(url.text, location))
        except (ConfigError, ValueError) as error:
            raise TargetError(
                TargetFault.UNREACHABLE, f"target redirects to what is no URL: {one_line(location, MAX_FOREIGN_TEXT)}"
            ) from error
    raise TargetError(TargetFault.UNREACHABLE, f"target redirects more than {_MAX_REDIRECTS} times")


async def _ask(url: Url, open_stream: OpenStream, trust: ssl.SSLContext, agent: str) -> tuple[int, str]:
    stream: trio.abc.Stream = await open_stream()
    if url.is_secure:
        stream = trio.SSLStream(stream, trust, server_hostname=url.name, https_compatible=True)
    try:
        return await _exchange(stream, url, agent)
    except h11.ProtocolError as error:
        raise TargetError(
            TargetFault.UNREACHABLE, f"target does not answer in HTTP: {one_line(str(error), MAX_FOREIGN_TEXT)}"
        ) from error
    except trio.BrokenResourceError as error:
        why = one_line(str(error.__cause__ or "connection reset"), MAX_FOREIGN_TEXT)
        raise TargetError(TargetFault.UNREACHABLE, f"target ended the connection: {why}") from error
    finally:
        await trio.aclose_forcefully(stream)


async def _exchange(stream: trio.abc.Stream, url: Url, agent: str) -> tuple[int, str]:
    """Send one request and read the head of its answer; the body is left where it is."""
    wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    headers = [("Host", url.host), ("User-Agent", agent), ("Accept", "*/*"), ("Connection", "close")]
    if url.credentials:
        headers.append(("Authorization", f"Basic {base64.b64encode(url.credentials.encode()).decode()}"))
    asked = wire.send(h11.Request(method="GET", target=url.target, headers=headers)) or b""
    await stream.send_all(asked + (wire.send(h11.EndOfMessage()) or b""))
    while not isinstance(event := wire.next_event(), h11.Response):
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some(_PIECE))
            if not data:
                raise TargetError(TargetFault.UNREACHABLE, "target ended the connection without an answer")
            wire.receive_data(data)
    location = next((value for name, value in event.headers if name == b"location"), b"")
    return event.status_code, location.decode("latin-1")
