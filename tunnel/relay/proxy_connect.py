"""Asking an outbound proxy for the target, on the event loop.

Knows how to carry an exchange over a connected socket; must not know which protocol it is. The caller owns the time limit.
What came behind the proxy's answer is the target's, and is handed on.
"""

from __future__ import annotations

import socket
from typing import Protocol

from tunnel.errors import TargetError, TargetFault, WireError, words_of
from tunnel.relay.loop import Loop, Owner
from tunnel.relay.outbox import Outbox
from tunnel.wire.outbound import Exchange, Reached

_READ_BYTES = 32 * 1024  # in one go: what the handshake takes over must fit its inbox


class ProxyConnectOwner(Owner, Protocol):
    """Who wants to go on through the proxy."""

    def proxy_connected(self, leftover: bytes) -> None:
        """From here on the socket is the target's; `leftover` are its first bytes."""

    def dial_failed(self, error: TargetError) -> None:
        """The proxy does not bring us to the target."""


class ProxyConnect:
    """One exchange with a proxy on a dialled socket."""

    __slots__ = ("_exchange", "_loop", "_name", "_outbox", "_owner", "_socket")

    def __init__(self, loop: Loop, owner: ProxyConnectOwner, sock: socket.socket, exchange: Exchange, name: str) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = sock
        self._exchange = exchange
        self._name = name
        self._outbox = Outbox(sock)

    def start(self) -> None:
        """We speak first."""
        self._loop.rewatch(self._socket, self.ready, self._owner)
        self._outbox.send(self._exchange.start())
        self._loop.call_again(self._socket)  # its end may have been announced before we listened

    def ready(self, _events: int) -> None:
        """Events of the socket."""
        self._outbox.send()
        try:
            reached = self._listen()
        except TargetError as error:
            self._owner.dial_failed(error)
        except WireError as error:
            self._owner.dial_failed(TargetError(TargetFault.PROXY_NOT_UNDERSTOOD, str(error)))
        else:
            if reached is not None:
                self._owner.proxy_connected(reached.leftover)

    def _listen(self) -> Reached | None:
        """Take all there is, which an exchange limits, up to the proxy's last word."""
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                raise self._closed(words_of(error)) from error
            if not data:
                raise self._closed("the connection was closed before the answer")
            answer = self._exchange.feed(data)
            if isinstance(answer, Reached):
                return answer
            self._outbox.send(answer)

    def _closed(self, why: str) -> TargetError:
        return TargetError(TargetFault.PROXY_CLOSED, f"{self._name}: {why}")
