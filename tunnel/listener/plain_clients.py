"""Plain TCP clients of a listener: from where they may connect, and which were seen."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator
from typing import Any

from tunnel.config.model import ListenerConfig, Plaintext
from tunnel.errors import Denial, PeerDenied
from tunnel.ip_address import parse_source
from tunnel.relay.loop import Loop
from tunnel.relay.step import Step, StepOwner
from tunnel.status.process_state import PlainSource, PlaintextState

MAX_SOURCES = 256  # in the table; one more forgets the one that was not seen for the longest time


class PlainClients:
    """The sources of permitted plain connections, the last one first, in a table with a limit."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sources: dict[str, PlainSource] = {}  # in the order in which they were seen
        self.forgotten = 0  # sources that had to leave the table

    def add(self, source: str) -> None:
        """Count a connection from `tcp:HOST:PORT` or `unix:PATH`."""
        address = parse_source(source)
        name = source if address is None else str(address)
        before = self._sources.pop(name, None)
        if before is None and len(self._sources) >= MAX_SOURCES:
            del self._sources[next(iter(self._sources))]
            self.forgotten += 1
        self._sources[name] = PlainSource(name, 1 if before is None else before.connections + 1, self._clock())

    def sources(self) -> tuple[PlainSource, ...]:
        """The table, the last source first."""
        return tuple(reversed(self._sources.values()))

    def state(self, opened: int, total: int) -> PlaintextState:
        """Return the state for the status document."""
        return PlaintextState(opened, total, self.sources(), self.forgotten)


def may_be_plain(plaintext: Plaintext | None, source: str) -> bool:
    """Whether a plain client from `tcp:HOST:PORT` or `unix:PATH` is permitted; a Unix socket is in no network."""
    if plaintext is None or not plaintext.sources:
        return plaintext is not None
    address = parse_source(source)
    return address is not None and any(address in network for network in plaintext.sources)


def check_plaintext(plaintext: Plaintext | None, source: str) -> None:
    """Raise PeerDenied if a plain client from this source is not permitted."""
    if plaintext is None:
        raise PeerDenied(Denial.PLAINTEXT, "this listener does not permit plaintext")
    if not may_be_plain(plaintext, source):
        raise PeerDenied(Denial.PLAINTEXT, "plaintext from an address that is in no permitted network")


def describe_plaintext(config: ListenerConfig) -> str:
    """Return the warning for a listener that permits plaintext, "" for any other."""
    if config.plaintext is None or not config.is_server:
        return ""
    sources = " ".join(map(str, config.plaintext.sources)) or "any address"
    return f"plaintext connections are permitted from {sources}, without authentication and encryption"


def is_plain_client(
    loop: Loop, owner: StepOwner, accepted: socket.socket, plaintext: Plaintext, source: str
) -> Generator[Step, Any, bool]:
    """Whether the client does not begin a TLS handshake; raises PeerDenied if that is not permitted from its address."""
    from tunnel.relay.first_bytes import FirstBytes

    silence = plaintext.silence if may_be_plain(plaintext, source) else 0.0
    is_tls = yield FirstBytes(loop, owner, accepted, silence)
    if not is_tls:
        check_plaintext(plaintext, source)
    return not is_tls
