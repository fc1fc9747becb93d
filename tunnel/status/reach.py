"""A connection to the target, for checks alone.

Knows how each endpoint of an address is tried in its share of the time; must not know what the connection is for. The
caller owns the time limit of the whole. Tunnelled connections are dialled elsewhere, by plain functions.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  # what `connect` loads the first time, when there may be no descriptor left for it
import errno
import math
import socket
from contextlib import ExitStack

import trio

from tunnel.errors import TargetError, TargetFault
from tunnel.net.address import Address
from tunnel.net.sockets import Endpoint, resolve, resolve_now, unreached
from tunnel.wire.exchange import open_exchange
from tunnel.wire.outbound import Exchange, OutboundProxy, Reached


async def open_target(address: Address) -> trio.SocketStream:
    """A stream to the first endpoint that answers, in order; raises TargetError, the last endpoint's."""
    endpoints = resolve_now(address)
    if endpoints is None:
        endpoints = await trio.to_thread.run_sync(resolve, address, abandon_on_cancel=True)
    failure = TargetError(TargetFault.RESOLVE, f"{address}: no address")
    deadline = trio.current_effective_deadline()
    for at, endpoint in enumerate(endpoints):
        left = deadline - trio.current_time()
        share = left / (len(endpoints) - at) if math.isfinite(left) else math.inf
        try:
            with trio.move_on_after(max(share, 0)):
                return await _connect(endpoint)
            await trio.lowlevel.checkpoint_if_cancelled()  # it was the whole time, not this endpoint's share
            failure = unreached(endpoint, errno.ETIMEDOUT)
        except OSError as error:
            failure = unreached(endpoint, error.errno or errno.EINVAL)
    raise failure


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


async def _connect(endpoint: Endpoint) -> trio.SocketStream:
    with ExitStack() as undo:
        sock = undo.enter_context(trio.socket.socket(endpoint.family, socket.SOCK_STREAM))
        await sock.connect(endpoint.address)
        undo.pop_all()
        return trio.SocketStream(sock)
