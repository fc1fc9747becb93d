"""Whether the backend answers: what `/_status` asks, at most once in a second.

Knows the three ways of asking and their one time limit; must not know HTTP's server side, and touches no metric. A check is
one connection of its own, opened as tunnelled ones are and closed at once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from tunnel.errors import TargetError, TargetFault, TlsError, TunnelError
from tunnel.log import MAX_FOREIGN_TEXT, one_line
from tunnel.status.probe import OpenStream, Url, probe
from tunnel.status.trust import system_context
from tunnel.tls.stream import TlsSource, TlsStream, connect_tls

_LEAVE = 0.25  # seconds for the other side to end, once we have

Check = Callable[[], Awaitable[None]]  # raises TunnelError when the backend does not answer as it should


def check_by_connecting(open_stream: OpenStream, limit: float) -> Check:
    """Connect and close: the check of a server."""

    async def connect() -> None:
        stream = await open_stream()
        await trio.aclose_forcefully(stream)

    return _limited(connect, limit)


def check_by_handshake(open_stream: OpenStream, source: TlsSource, limit: float, leave: float = _LEAVE) -> Check:
    """Connect, shake hands, judge the server as any other connection's, and close: the check of a client.

    A server that refuses us may say so after the handshake: it has `leave` seconds for that.
    """

    async def shake_hands() -> None:
        transport = await open_stream()
        try:
            await _take_leave(await connect_tls(transport, source), transport, leave)
        except trio.BrokenResourceError as error:
            why = one_line(str(error.__cause__ or "connection reset"), MAX_FOREIGN_TEXT)
            raise TargetError(TargetFault.UNREACHABLE, f"target ended the connection: {why}") from error
        finally:
            await trio.aclose_forcefully(transport)

    return _limited(shake_hands, limit)


def check_by_request(open_stream: OpenStream, url: Url, limit: float, agent: str) -> Check:
    """GET a URL over connections to the target and want 200: the check that `--target-status` asks for.

    The system's roots are read now, and later only by starting again.
    """
    trust = system_context()

    async def request() -> None:
        await probe(url, open_stream, trust, agent)

    return _limited(request, limit)


def share(check: Check, lasts: float = 1.0) -> Check:
    """The same check, whose outcome is that of everybody who asks until it is `lasts` seconds old."""
    lock = trio.Lock()
    error: TunnelError | None = None
    ends = -math.inf

    async def ask() -> None:
        nonlocal error, ends
        async with lock:  # who waits here finds the outcome, or checks if the one before was cancelled
            if trio.current_time() >= ends:
                try:
                    await check()
                    error = None
                except TunnelError as failure:
                    error = failure
                ends = trio.current_time() + lasts
        if error is not None:
            raise error.with_traceback(None)

    return ask


async def _take_leave(stream: TlsStream, transport: trio.abc.HalfCloseableStream, limit: float) -> None:
    """Close in good order: over what has not been read it would be a reset, which the server takes for a failure.

    Raises TlsError for a server that refuses us: in TLS 1.3 it says so when our handshake is over (RFC 8446, 4.4.2.4).
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


def _limited(ask: Check, limit: float) -> Check:
    async def check() -> None:
        try:
            with trio.fail_after(limit):
                await ask()
        except trio.TooSlowError as error:
            raise TargetError(TargetFault.TIMEOUT, f"no answer from the target within {limit:g}s") from error

    return check
