"""Dialling: one connection to the first endpoint of several that answers.

Knows non-blocking connect; must not know TLS or why we dial. The caller owns the time limit of the whole; each endpoint
gets an even share of what is left of it.
"""

from __future__ import annotations

import errno
import socket
from typing import Protocol

from tunnel.errors import TargetError
from tunnel.net.sockets import Endpoint, set_tcp_options, unreached
from tunnel.relay.loop import GONE, OUT, Loop, Owner, Timer


class DialOwner(Owner, Protocol):
    """Who wants the connection."""

    def dialled(self, sock: socket.socket, endpoint: Endpoint) -> None:
        """The connection is there."""

    def dial_failed(self, error: TargetError) -> None:
        """No endpoint answered; the error is the last one's."""


class Dial:
    """One attempt to reach one of several endpoints, in order."""

    __slots__ = ("_deadline", "_endpoint", "_loop", "_owner", "_rest", "_socket", "_timer")

    def __init__(self, loop: Loop, owner: DialOwner, endpoints: tuple[Endpoint, ...], deadline: float) -> None:
        self._loop = loop
        self._owner = owner
        self._rest = list(endpoints)
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._endpoint = endpoints[0]

    def start(self) -> None:
        """Try the next endpoint; the owner hears of the outcome, possibly before this returns."""
        self._endpoint = self._rest.pop(0)
        try:
            self._socket = sock = socket.socket(self._endpoint.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            set_tcp_options(sock)
            code = sock.connect_ex(self._endpoint.address)
        except OSError as error:
            code = error.errno or errno.EINVAL
        if code == 0:
            self._succeed()
        elif code == errno.EINPROGRESS:
            self._wait()
        else:  # EAGAIN is a Unix socket whose backlog is full: there is no event for room in it
            self._fail(code)

    def abandon(self) -> None:
        """Stop trying; the owner hears nothing more."""
        if self._timer is not None:
            self._loop.cancel(self._timer)
        if self._socket is not None:
            self._loop.retire(self._socket)
            self._socket = None

    def _wait(self) -> None:
        assert self._socket is not None
        self._loop.watch(self._socket, self._ready, self._owner)
        if self._rest:
            now = self._loop.clock()
            share = (self._deadline - now) / (len(self._rest) + 1)
            self._timer = self._loop.call_at(now + share, self._give_up, self._owner)

    def _ready(self, events: int) -> None:
        if self._socket is None or not events & (OUT | GONE):
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(code)
        else:
            self._succeed()

    def _give_up(self) -> None:
        self._fail(errno.ETIMEDOUT)

    def _succeed(self) -> None:
        if self._timer is not None:
            self._loop.cancel(self._timer)
        sock, self._socket = self._socket, None
        assert sock is not None
        self._owner.dialled(sock, self._endpoint)

    def _fail(self, code: int) -> None:
        self.abandon()
        if self._rest:
            self.start()
            return
        self._owner.dial_failed(unreached(self._endpoint, code))
