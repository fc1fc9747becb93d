"""Answers the probes of an ACME authority on a port of its own, while the tunnel does not listen there.

The server is a trio run in a thread, because the thread that requests the certificate is blocked until it has been issued.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue

import trio

from tunnel.errors import IdentityError, IdentityFault, TlsError, WireError, describe_os_error
from tunnel.net.accept import ConnectionHandler, accept_connections
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.client_hello import parse_client_hello
from tunnel.tls.records import Buffers
from tunnel.tls.stream import TlsStream

_log = logging.getLogger(__name__)  # a record gets into the log through LogCapture, from any thread
_MAX_CONNECTIONS = 16
_SECONDS = 10.0  # for one connection
_READ_BYTES = 16384


@contextmanager
def open_responder(challenges: AcmeChallenges, port: int) -> Iterator[None]:
    """Answer probes on a port of all addresses until the context is left; raises IdentityError."""
    with _listen(port) as listener:
        started: SimpleQueue[Callable[[], None]] = SimpleQueue()
        run = partial(trio.run, _serve, listener, challenges, started.put)
        thread = threading.Thread(target=run, name="acme-responder", daemon=True)
        thread.start()
        stop = started.get()
        try:
            yield
        finally:
            stop()
            thread.join()


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            listener = socket.create_server(("", port))
    except OSError as error:
        why = describe_os_error(error)
        raise IdentityError(IdentityFault.ACME, f"cannot listen on port {port} for the challenge: {why}") from error
    listener.setblocking(False)
    return listener


async def _serve(listener: socket.socket, challenges: AcmeChallenges, on_start: Callable[[Callable[[], None]], None]) -> None:
    """Serve until stopped; `on_start` receives the function that stops it, which any thread may call."""
    limiter = ConnectionLimiter(_MAX_CONNECTIONS)
    handler = ConnectionHandler(
        partial(_answer, challenges, limiter, Buffers()),
        on_crash=lambda peer, crash: _log.error("internal error: probe from %s", peer, exc_info=crash),
        on_accept_error=lambda _error, _pause: None,  # the authority reports a probe that failed
    )
    async with trio.open_nursery() as connections:
        token = trio.lowlevel.current_trio_token()
        on_start(partial(token.run_sync_soon, connections.cancel_scope.cancel))
        await accept_connections(listener, handler, limiter, connections)


async def _answer(
    challenges: AcmeChallenges, limiter: ConnectionLimiter, buffers: Buffers, transport: trio.SocketStream, _peer: str
) -> None:
    """A handshake with the challenge's certificate; a peer that is not a probe is closed without an alert."""
    deadline = trio.current_time() + _SECONDS
    with limiter.waiting(deadline), suppress(trio.BrokenResourceError, WireError, TlsError):
        data = b""
        while (hello := parse_client_hello(data)) is None:
            received = bytes(await transport.receive_some(_READ_BYTES))
            if not received:
                return
            data += received
        context = challenges.admit(hello)
        if context is not None:
            async with TlsStream(transport, context.open_end(buffers), buffers) as stream:
                await stream.handshake(data)
