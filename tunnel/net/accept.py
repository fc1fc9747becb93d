"""The accept loop of trio servers."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import trio

from tunnel.lazy_dataclass import dataclass
from tunnel.net.accept_backoff import AcceptBackoff
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.net.sockets import format_address


@dataclass(frozen=True, slots=True)
class ConnectionHandler:
    """What a server does with a connection (`serve` gets the peer's address as text), with a crash and with an accept error."""

    serve: Callable[[trio.SocketStream, str], Awaitable[None]]
    on_crash: Callable[[str, Exception], None]  # a bug in `serve`, which ends this connection only
    on_accept_error: Callable[[OSError, float], None]  # with the pause in seconds


async def accept_connections(
    listener: socket.socket, handler: ConnectionHandler, limiter: ConnectionLimiter, connections: trio.Nursery
) -> None:
    """Accept until cancelled, and serve each connection as a task in `connections`, within the limit."""
    backoff = AcceptBackoff()
    sock = trio.socket.from_stdlib_socket(listener)
    while True:
        await limiter.wait_for_slot()
        try:
            accepted, address = await sock.accept()
        except OSError as error:
            pause = backoff.pause_after(error)
            if pause is not None:
                handler.on_accept_error(error, pause)
                await trio.sleep(pause)
            continue
        backoff.reset()
        limiter.acquire()
        peer = format_address(accepted.family, address).removeprefix("tcp:")
        connections.start_soon(_serve, accepted, peer, handler, limiter)


async def _serve(sock: trio.socket.SocketType, peer: str, handler: ConnectionHandler, limiter: ConnectionLimiter) -> None:
    with ExitStack() as undo:
        undo.callback(limiter.release)
        undo.enter_context(sock)
        try:
            await handler.serve(trio.SocketStream(sock), peer)
        except Exception as crash:  # noqa: BLE001  # as in the event loop: a bug ends its own connection
            handler.on_crash(peer, crash)
