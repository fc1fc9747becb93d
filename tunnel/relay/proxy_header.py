"""Builds the PROXY header of a connection and writes it to the target, on the event loop."""

from __future__ import annotations

import socket
from typing import Any

from tunnel.errors import TargetError, TargetFault, describe_os_error
from tunnel.relay.handshake import HandshakeResult
from tunnel.relay.loop import HANGUP, OUT, Loop
from tunnel.relay.step import StepOwner
from tunnel.wire.proxy_v2 import HeaderMode, TlsFacts, encode_header


def build_header(mode: HeaderMode, accepted: socket.socket, source: Any, handshake: HandshakeResult | None) -> bytes:
    """Return the header for an accepted connection from `source`; raises WireError if a field is too long.

    Without a handshake, the client is a plain one and the mode is `CONN`.
    """
    facts = TlsFacts("") if handshake is None else _facts(handshake)
    return encode_header(accepted.family, source, accepted.getsockname(), mode, facts)


def _facts(handshake: HandshakeResult) -> TlsFacts:
    end, peer = handshake.end, handshake.admitted.peer
    version = end.version().replace("TLSv", "TLS ")
    if peer is None:
        return TlsFacts(version, end.server_name(), end.alpn())
    return TlsFacts(
        version,
        end.server_name(),
        end.alpn(),
        common_name=peer.common_name,
        leaf=peer.leaf,
        spiffe_id=str(peer.spiffe_id or ""),
    )


class HeaderWriter:
    """A step that writes all of `data` to a connected socket; fails with TargetError. The owner sets the time limit."""

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
