"""Backend health: whether the target accepts connections, completes a handshake, or returns 200 for a URL.

A check is a connection of its own, opened as the tunnel opens them and closed at once; `/_status` makes at most one a second.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urljoin

import trio

from tunnel.errors import ConfigError, TargetError, TargetFault, TlsError, TunnelError, WireError, WireFault
from tunnel.http.client import HttpUrl, ReceivedResponse, fetch, parse_http_url, request_url, start_https, system_context
from tunnel.log import MAX_FOREIGN_TEXT, one_line
from tunnel.tls.stream import TlsSource, TlsStream, connect_tls

_CLOSE_WAIT = 0.25  # seconds for the server to close, after we have
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10  # Go's limit

OpenStream = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]
Check = Callable[[], Awaitable[None]]  # raises TunnelError if the backend is not healthy


def check_by_connecting(open_stream: OpenStream, limit: float) -> Check:
    """Connect and close: the check of a server."""

    async def connect() -> None:
        stream = await open_stream()
        await trio.aclose_forcefully(stream)

    return _limited(connect, limit)


def check_by_handshake(open_stream: OpenStream, source: TlsSource, limit: float, close_wait: float = _CLOSE_WAIT) -> Check:
    """Connect, complete a handshake with the verification of every connection, and close: the check of a client.

    A server can refuse us after the handshake: it has `close_wait` seconds for that.
    """

    async def handshake() -> None:
        transport = await open_stream()
        try:
            await _close_cleanly(await connect_tls(transport, source), transport, close_wait)
        except trio.BrokenResourceError as error:
            raise _closed_by_target(error) from error
        finally:
            await trio.aclose_forcefully(transport)

    return _limited(handshake, limit)


def check_by_request(open_stream: OpenStream, url: HttpUrl, limit: float) -> Check:
    """GET a URL over connections to the target and require 200: the check of `--target-status`.

    The system's root certificates are read once, when the check is created.
    """
    trusted = system_context()
    return _limited(lambda: _require_ok(url, open_stream, trusted), limit)


def share(check: Check, lasts: float = 1.0) -> Check:
    """The same check, whose outcome is shared by all callers until it is `lasts` seconds old."""
    lock = trio.Lock()
    error: TunnelError | None = None
    ends = -math.inf

    async def check_once() -> None:
        nonlocal error, ends
        async with lock:  # a caller that waits here finds the outcome, or checks if the one before was cancelled
            if trio.current_time() >= ends:
                try:
                    await check()
                    error = None
                except TunnelError as failure:
                    error = failure
                ends = trio.current_time() + lasts
        if error is not None:
            raise error.with_traceback(None)

    return check_once


async def _close_cleanly(stream: TlsStream, transport: trio.abc.HalfCloseableStream, limit: float) -> None:
    """Close after reading what has come: with unread data the server would get a reset, and report a failure.

    Raises TlsError if the server refuses us: in TLS 1.3 its alert follows our handshake (RFC 8446, 4.4.2.4).
    """
    try:
        with trio.move_on_after(limit):
            await stream.send_eof()
            await transport.send_eof()
            while await stream.receive_some():
                pass
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, TlsError):
            raise error.__cause__ from None
    finally:
        await stream.aclose()


async def _require_ok(url: HttpUrl, open_stream: OpenStream, trusted: ssl.SSLContext) -> None:
    """Follow redirects, each over a new connection to the same target; raises TargetError unless the status is exactly 200."""
    for _ in range(_MAX_REDIRECTS + 1):
        response = await _get(url, open_stream, trusted)
        location = response.headers.get("location", "")
        if response.status not in _REDIRECTS or not location:
            if response.status != HTTPStatus.OK:
                raise _unhealthy(f"target returned status: {response.status}")
            return
        try:
            url = parse_http_url(urljoin(url.text, location))
        except (ConfigError, ValueError) as error:
            raise _unhealthy(f"target redirects to an invalid URL: {one_line(location, MAX_FOREIGN_TEXT)}") from error
    raise _unhealthy(f"target redirects more than {_MAX_REDIRECTS} times")


async def _get(url: HttpUrl, open_stream: OpenStream, trusted: ssl.SSLContext) -> ReceivedResponse:
    stream: trio.abc.Stream = await open_stream()
    if url.is_secure:
        stream = start_https(stream, trusted, url.host)
    try:
        return await fetch(stream, request_url("GET", url))
    except WireError as error:
        if error.reason is WireFault.TRUNCATED:
            raise _unhealthy("target closed the connection without a response") from error
        raise _unhealthy(f"response of the target is not HTTP: {one_line(str(error), MAX_FOREIGN_TEXT)}") from error
    except trio.BrokenResourceError as error:
        raise _closed_by_target(error) from error
    finally:
        await trio.aclose_forcefully(stream)


def _unhealthy(message: str) -> TargetError:
    return TargetError(TargetFault.UNREACHABLE, message)


def _closed_by_target(error: trio.BrokenResourceError) -> TargetError:
    return _unhealthy(f"target closed the connection: {one_line(str(error.__cause__ or 'connection reset'), MAX_FOREIGN_TEXT)}")


def _limited(check: Check, limit: float) -> Check:
    async def check_in_time() -> None:
        try:
            with trio.fail_after(limit):
                await check()
        except trio.TooSlowError as error:
            raise TargetError(TargetFault.TIMEOUT, f"no answer from the target within {limit:g}s") from error

    return check_in_time
