"""What a dialled connection hears from us before the payload: all of it, or the connection is given up.

Knows how to write until there is nothing left; must not know what is written. The caller owns the time limit.
"""

from __future__ import annotations

import socket
from typing import Protocol

from tunnel.errors import TargetError, TargetFault, words_of
from tunnel.relay.loop import GONE, OUT, Loop, Owner


class HeaderWriterOwner(Owner, Protocol):
    """Who wants it said."""

    def header_sent(self) -> None:
        """All has been said."""

    def header_failed(self, error: TargetError) -> None:
        """The other side does not take it."""


class HeaderWriter:
    """Some bytes on their way to a socket that nobody else writes to meanwhile."""

    __slots__ = ("_loop", "_name", "_owner", "_socket", "_unsent")

    def __init__(self, loop: Loop, owner: HeaderWriterOwner, sock: socket.socket, data: bytes, name: str) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = sock
        self._unsent = data
        self._name = name

    def start(self) -> None:
        """Mostly there is room for all, and the owner hears of it before this returns."""
        self._loop.rewatch(self._socket, self._ready, self._owner)
        self._send()

    def _ready(self, events: int) -> None:
        if events & (OUT | GONE):
            self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            why = words_of(error)
            self._owner.header_failed(TargetError(TargetFault.CLOSED, f"{self._name}: {why}"))
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._owner.header_sent()
