"""A connection for checks and metric reports, without the data plane's loop.

The caller owns the time limit of the whole.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # what name resolution loads the first time, when there may be no descriptor left
from contextlib import ExitStack, closing

import trio

from tunnel.errors import TargetError, TargetFault
from tunnel.net.address import Address
from tunnel.net.race import PolledRace
from tunnel.net.sockets import resolve, resolve_now
from tunnel.wire.outbound import Exchange, OutboundProxy, Reached, open_exchange


async def open_target(address: Address) -> trio.SocketStream:
    """A stream to the first endpoint that answers; raises TargetError."""
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
    """A stream to the target through an outbound proxy; raises TargetError, or WireError for a proxy not understood."""
    exchange = open_exchange(proxy, host, port)
    stream = await open_target(proxy.address)
    with ExitStack() as undo:
        undo.callback(stream.socket.close)
        leftover = await _negotiate(stream, exchange, proxy)
        if leftover:
            raise TargetError(TargetFault.UNREACHABLE, "target speaks first, which no TLS server does")
        undo.pop_all()
    return stream


async def _negotiate(stream: trio.SocketStream, exchange: Exchange, proxy: OutboundProxy) -> bytes:
    said = exchange.start()
    try:
        while True:
            await stream.send_all(said)
            heard = bytes(await stream.receive_some())
            if not heard:
                break
            answer = exchange.feed(heard)
            if isinstance(answer, Reached):
                return answer.leftover
            said = answer
    except trio.BrokenResourceError:
        pass
    raise TargetError(TargetFault.PROXY_CLOSED, f"proxy {proxy} closed the connection without an answer")
