"""The tunnel that accepts connections, as their sessions use it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol, TypeVar

from tunnel.config.model import ListenerConfig
from tunnel.listener.connection_log import ConnectionLog
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.listener.generation import Generation
from tunnel.listener.peer_limits import ConnectionLimits
from tunnel.listener.plain_clients import PlainClients
from tunnel.listener.targets import Targets
from tunnel.listener.withdrawal import Withdrawal
from tunnel.relay.buffer_trimmer import BufferTrimmer
from tunnel.relay.handshake import Handshake, OpenEnd
from tunnel.relay.handshake_slots import HandshakeSlots
from tunnel.relay.loop import Loop
from tunnel.relay.step import StepOwner
from tunnel.status.counters import Counters
from tunnel.tls.records import Buffers

NewHandshake = Callable[[HandshakeSlots, StepOwner, socket.socket, OpenEnd, str], Handshake]  # of a server

S = TypeVar("S", contravariant=True)  # the type of its sessions


class Acceptor(Protocol[S]):
    """The tunnel that accepted a session."""

    loop: Loop
    config: ListenerConfig
    targets: Targets
    buffers: Buffers
    counters: Counters
    buffer_trimmer: BufferTrimmer
    handshakes: HandshakeSlots
    new_handshake: NewHandshake
    connection_log: ConnectionLog
    withdrawal: Withdrawal
    peer_limits: ConnectionLimits | None
    plain_clients: PlainClients
    name: str

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""

    def review(self) -> Generation | None:
        """The newest generation, or None if its identity is not valid now."""

    def count_crash(self, crash: Exception) -> None:
        """Log and count an unexpected exception."""

    def end_session(self, session: S, record: ConnectionRecord) -> None:
        """Record the end of a session and forget it."""
