"""Writes a header to the target before any payload, on the event loop. The owner sets the time limit."""

from __future__ import annotations

import socket

from tunnel.errors import TargetError, TargetFault, describe_os_error
from tunnel.relay.loop import HANGUP, OUT, Loop
from tunnel.relay.step import StepOwner


class HeaderWriter:
    """A step that writes all of `data` to a socket; fails with TargetError."""

    __slots__ = ("_loop", "_name", "_owner", "_socket", "_unsent")

    def __init__(self, loop: Loop, owner: StepOwner, sock: socket.socket, data: bytes, name: str) -> None:
        self._loop = loop
        self._owner = owner
        self._socket = sock
        self._unsent = data
        self._name = name

    def start(self) -> None:
        """Write; usually the socket accepts all at once."""
        self._loop.rewatch(self._socket, self._ready, self._owner)
        self._send()

    def abandon(self) -> None:
        """Do nothing: the owner closes the socket."""

    def _ready(self, events: int) -> None:
        if events & (OUT | HANGUP):
            self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            why = describe_os_error(error)
            self._owner.step_failed(TargetError(TargetFault.CLOSED, f"{self._name}: {why}"))
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._owner.step_done(None)
