"""HTTP/1.1 client: one request and its response, over a blocking socket or a trio stream, and TLS for https URLs.

`tunnel health` starts with this module, so nothing here loads trio or OpenSSL's bindings: the parser is shared, and each of
the two drivers is a loop of three lines.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import h11

from tunnel import __version__
from tunnel.errors import ConfigError, WireError, WireFault
from tunnel.ip_address import join_host_port
from tunnel.lazy_dataclass import dataclass, field

if TYPE_CHECKING:
    import trio

USER_AGENT = f"tunnel/{__version__}"
_MAX_HEADER = 64 * 1024  # bytes
_READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """An http or https URL; its text form has the port and no credentials."""

    text: str = field(repr=False)  # as given, credentials included
    is_secure: bool
    host: str  # also the name in the server's certificate
    port: int
    authority: str  # for the Host header: without a default port (RFC 9110, 7.2)
    target: str
    credentials: str = field(repr=False)

    def __str__(self) -> str:
        return f"{'https' if self.is_secure else 'http'}://{join_host_port(self.host, self.port)}{self.target}"


def parse_http_url(text: str) -> HttpUrl:
    """An absolute http or https URL in ASCII; raises ConfigError, whose message has no credentials."""
    shown = text.rpartition("@")[2]
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except (ValueError, UnicodeError) as error:
        raise ConfigError(f"{shown!a} is no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{shown!a} is no URL; expected http://HOST/PATH or https://HOST/PATH")
    is_secure = parts.scheme == "https"
    default_port = 443 if is_secure else 80
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    userinfo, _, netloc = parts.netloc.rpartition("@")
    authority = netloc.removesuffix(f":{default_port}")
    return HttpUrl(text, is_secure, host, port or default_port, authority, target, unquote(userinfo))


@dataclass(frozen=True, slots=True)
class ReceivedResponse:
    """A response that was received; `body` is limited by the exchange, and shorter if the connection was closed inside it."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class HttpExchange:
    """One request as bytes, and its response made from bytes; the connection is closed after it."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, max_body: int = 0) -> None:
        """A request with a Host among its headers; of the response's body at most `max_body` bytes are read."""
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADER)
        self._max_body = max_body
        self._head: h11.Response | None = None
        self._body = b""
        self._has_received = False
        length = {"Content-Length": str(len(body))} if body else {}
        every = {**headers, "User-Agent": USER_AGENT, "Accept": "*/*", **length, "Connection": "close"}
        events = (h11.Request(method=method, target=target, headers=list(every.items())), h11.Data(body), h11.EndOfMessage())
        self.request = b"".join(self._wire.send(event) or b"" for event in events)

    def feed(self, data: bytes) -> ReceivedResponse | None:
        """Return the response when it is complete; empty `data` is the end of the connection. Raises WireError."""
        self._has_received = self._has_received or bool(data)
        try:
            self._wire.receive_data(data)
            return self._next_response()
        except h11.RemoteProtocolError as error:
            if self._head is not None:
                return self._response(self._head)
            if not self._has_received:
                raise WireError(WireFault.TRUNCATED, "connection closed without a response") from None
            raise WireError(WireFault.MALFORMED, str(error)) from error

    def _next_response(self) -> ReceivedResponse | None:
        while self._head is None or len(self._body) < self._max_body:
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
        assert self._head is not None
        return self._response(self._head)

    def _response(self, head: h11.Response) -> ReceivedResponse:
        headers = {name.decode(): value.decode("latin-1") for name, value in reversed(head.headers)}
        return ReceivedResponse(head.status_code, headers, self._body[: self._max_body])


def request_url(method: str, url: HttpUrl, headers: Mapping[str, str] | None = None, body: bytes = b"") -> HttpExchange:
    """A request for a URL, with its credentials; the body of the response is not read."""
    every = {"Host": url.authority, **(headers or {})}
    if url.credentials:
        every["Authorization"] = f"Basic {base64.b64encode(url.credentials.encode()).decode()}"
    return HttpExchange(method, url.target, every, body)


def fetch_blocking(sock: socket.socket, exchange: HttpExchange, timeout: float) -> ReceivedResponse:
    """The response on a connected socket within `timeout` seconds; raises OSError and WireError."""
    deadline = monotonic() + timeout
    sock.settimeout(timeout)
    sock.sendall(exchange.request)
    while (response := exchange.feed(sock.recv(_READ_BYTES))) is None:
        if (left := deadline - monotonic()) <= 0:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        sock.settimeout(left)
    return response


async def fetch(stream: trio.abc.Stream, exchange: HttpExchange) -> ReceivedResponse:
    """The response on a connected stream; raises trio.BrokenResourceError and WireError."""
    await stream.send_all(exchange.request)
    while (response := exchange.feed(bytes(await stream.receive_some(_READ_BYTES)))) is None:
        pass
    return response


# -- TLS of web servers: certificates with host names, verified by the standard library and not by our engine


def start_https(stream: trio.abc.Stream, context: ssl.SSLContext, host: str) -> trio.abc.Stream:
    """The stream with TLS; the handshake takes place at the first write."""
    import trio  # loaded already: the stream is one of trio's

    return trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)


def system_context(cafile: str | None = None) -> ssl.SSLContext:
    """Verify certificates and host names with the certificates of a PEM file, or of the system; raises OSError."""
    return _require_1_2(ssl.create_default_context(cafile=cafile))


def empty_context() -> ssl.SSLContext:
    """Verify certificates and host names, with no trusted certificate loaded."""
    return _require_1_2(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def _require_1_2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set what the interpreter's build otherwise decides: Debian's allows every version that OpenSSL supports."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
