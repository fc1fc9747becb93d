"""CONNECT and SOCKS5 exchanges with an outbound proxy, on the event loop. The owner sets the time limit."""

from __future__ import annotations

import socket

from tunnel.errors import TargetError, describe_os_error
from tunnel.relay.loop import Loop
from tunnel.relay.step import SendQueue, StepOwner
from tunnel.wire.outbound import Exchange, Reached, feed_exchange, proxy_closed

_READ_BYTES = 32 * 1024  # per read: bytes behind the answer must fit the handshake's inbox


class ProxyConnect:
    """A step that asks a proxy for the target; its result is the bytes that the target has sent already.

    It fails with TargetError.
    """

    __slots__ = ("_exchange", "_loop", "_name", "_owner", "_send_queue", "_socket")

    def __init__(self, loop: Loop, owner: StepOwner, sock: socket.socket, exchange: Exchange, name: str) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = sock
        self._exchange = exchange
        self._name = name
        self._send_queue = SendQueue(sock)

    def start(self) -> None:
        """Send the request."""
        self._loop.rewatch(self._socket, self.ready, self._owner)
        self._send_queue.send(self._exchange.start())
        self._loop.call_again(self._socket)  # an event may have come before the socket was watched by this handler

    def abandon(self) -> None:
        """Do nothing: the owner closes the socket."""

    def ready(self, _events: int) -> None:
        """Process events of the socket."""
        self._send_queue.send()
        try:
            reached = self._receive()
        except TargetError as error:
            self._owner.step_failed(error)
        else:
            if reached is not None:
                self._owner.step_done(reached.leftover)

    def _receive(self) -> Reached | None:
        """Read until the proxy has answered; the exchange bounds how much that is."""
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                raise proxy_closed(self._name, describe_os_error(error)) from error
            answer = feed_exchange(self._exchange, data, self._name)
            if isinstance(answer, Reached):
                return answer
            self._send_queue.send(answer)
