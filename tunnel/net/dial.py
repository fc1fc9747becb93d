"""Connections as trio streams, for health checks and metric reports. The caller has the time limit."""

from __future__ import annotations

import encodings.idna  # noqa: F401  # loaded by the first name resolution, when there may be no descriptor left
from contextlib import ExitStack, closing

import trio

from tunnel.errors import TargetError, TargetFault
from tunnel.net.address import Address
from tunnel.net.race import PolledRace
from tunnel.net.sockets import resolve, resolve_now
from tunnel.wire.outbound import Exchange, OutboundProxy, Reached, feed_exchange, open_exchange, proxy_closed


async def open_target(address: Address) -> trio.SocketStream:
    """A stream to the first endpoint that accepts; raises TargetError."""
    await trio.lowlevel.checkpoint()
    endpoints = resolve_now(address)
    if endpoints is None:
        endpoints = await trio.to_thread.run_sync(resolve, address, abandon_on_cancel=True)
    with closing(PolledRace(endpoints)) as race:
        while (sock := race.begin()) is None:
            with trio.move_on_after(race.delay):
                await trio.lowlevel.wait_readable(race.fileno())
            race.settle()
        return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


async def open_through(proxy: OutboundProxy, host: str, port: int) -> trio.SocketStream:
    """A stream to the target through an outbound proxy; raises TargetError."""
    exchange = open_exchange(proxy, host, port)
    stream = await open_target(proxy.address)
    with ExitStack() as undo:
        undo.callback(stream.socket.close)
        if await _request_target(stream, exchange, f"proxy {proxy}"):
            raise TargetError(TargetFault.UNREACHABLE, "target sends data before the handshake: not a TLS server")
        undo.pop_all()
    return stream


async def _request_target(stream: trio.SocketStream, exchange: Exchange, proxy_name: str) -> bytes:
    """Perform the exchange; return what the target has sent already."""
    answer: bytes | Reached = exchange.start()
    try:
        while not isinstance(answer, Reached):
            await stream.send_all(answer)
            answer = feed_exchange(exchange, bytes(await stream.receive_some()), proxy_name)
    except trio.BrokenResourceError as error:
        raise proxy_closed(proxy_name, "connection reset before the response") from error
    return answer.leftover
