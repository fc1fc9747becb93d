"""A tunnel in memory, with clocks that stand still, and the peers and programs on its two sides."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import listener_config
from tests.support.socket_pairs import Clock, received
from tests.support.tls_ends import TLS12, TLS13, Identity, Side, admit_all, context, identity, lasting_authority
from tunnel.authz.rules import AnyRule, Rule
from tunnel.config.model import Access
from tunnel.errors import TargetError
from tunnel.identity.credentials import SvidCredentials, X509Svid
from tunnel.listener.access_log import AccessLog
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.listener.generation import Generation, GenerationConfig, build_generation
from tunnel.listener.shared_resources import open_shared_resources
from tunnel.listener.targets import Resolved
from tunnel.listener.tunnel import Tunnel
from tunnel.log import Category
from tunnel.net.address import TargetAddress, TcpAddress, UnixAddress
from tunnel.net.cached_name import Timed
from tunnel.net.listen import Successor, open_listener
from tunnel.relay.loop import Loop
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

HOME = TrustDomain("a.test")
ROOT = lasting_authority()
OURS = identity("spiffe://a.test/ours", root=ROOT)
PEER = identity("spiffe://a.test/peer", root=ROOT)
ANYONE: tuple[Rule, ...] = (AnyRule(),)
PEER_CONTEXTS = {
    (is_server, version): context(PEER, admit_all, is_server=is_server, version=version)
    for is_server in (True, False)
    for version in (TLS12, TLS13)
}
WALL = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NAMED = TcpAddress("db.example", "5432")
Answer = Callable[[tuple[Any, ...] | TargetError], None]


class RecordedLog:
    """A log in memory."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.quiet: set[Category] = set()

    def is_enabled(self, category: Category) -> bool:
        return category not in self.quiet

    def write(self, message: str, category: Category = Category.OTHER, **_facts: Any) -> None:
        if self.is_enabled(category):
            self.lines.append(message)

    def info(self, message: str) -> None:
        self.write(message)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


def generation(
    number: int = 1,
    *,
    is_server: bool = True,
    rules: tuple[Rule, ...] = ANYONE,
    lasts: float = 3600,
    bundles: BundleSet | None = None,
) -> Generation:
    """Our generation, valid for so many seconds from `WALL`."""
    not_after = WALL + timedelta(seconds=lasts)
    svid = X509Svid(parse_spiffe_id("spiffe://a.test/ours"), "", OURS.chain, OURS.leaf.key, not_after)
    bundles = bundles or BundleSet({HOME: TrustBundle(HOME, (ROOT.certificate,))})
    return build_generation(number, SvidCredentials(svid, bundles), GenerationConfig(is_server, Access(rules)))


CALLER = " from=unix:@"  # the source in a line about a failure


KNOWN = f"{CALLER} peer=spiffe://a.test/peer rule=any"  # once the peer is admitted


class TunnelHarness:
    """A tunnel whose wall clock and loop clock only the test advances."""

    def __init__(
        self,
        place: Path,
        *,
        target: TargetAddress | None = None,
        is_server: bool = True,
        only_user: int | None = None,
        access_log: AccessLog | None = None,
        **fields: Any,
    ) -> None:
        self.place = place
        self.clock = Clock()
        self.wall = WALL.timestamp()
        self.loop = Loop(self.clock)
        self.log = RecordedLog()
        self.is_server = is_server
        self.asked: list[tuple[TargetAddress, Answer]] = []
        self._opened: list[Any] = []
        self.backend = self._listen("backend")
        self.shared = open_shared_resources(self.loop, self.log, access_log=access_log)  # type: ignore[arg-type]
        given = fields if "targets" in fields else {"target": target or UnixAddress(str(place / "backend")), **fields}
        self.tunnel = Tunnel(
            self.shared,
            listener_config(is_server=is_server, **given),
            self._resolve_later,
            lambda: self.wall,
        )
        self.tunnel.only_user = only_user
        self.loop.on_unowned_crash = self.tunnel.count_crash

    def _resolve_later(self, address: TargetAddress, answer: Callable[[Resolved], object]) -> None:
        """Let the test answer; each connection asks again."""

        def take(found: tuple[Any, ...] | TargetError) -> None:
            answer(found if isinstance(found, TargetError) else Timed(found, 0))

        self.asked.append((address, take))

    def serve(self, **fields: Any) -> TunnelHarness:
        """Set an identity and accept connections."""
        self.tunnel.swap(generation(is_server=self.is_server, **fields))
        return self.accept()

    def accept(self) -> TunnelHarness:
        self.tunnel.open(open_listener(UnixAddress(str(self.place / "front"))))
        return self

    def _listen(self, name: str) -> socket.socket:
        sock = self.opened(socket.socket(socket.AF_UNIX))
        sock.bind(str(self.place / name))
        sock.listen(8)
        sock.setblocking(False)
        return sock

    def opened(self, sock: socket.socket) -> socket.socket:
        self._opened.append(sock)
        return sock

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.loop.turn(0)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turn()

    def connect(self) -> socket.socket:
        """Connect to the tunnel and run its turns."""
        sock = self.opened(socket.socket(socket.AF_UNIX))
        sock.connect(str(self.place / "front"))
        sock.setblocking(False)
        self.turn()
        return sock

    def accepted_by_backend(self) -> socket.socket | None:
        try:
            sock, _ = self.backend.accept()
        except BlockingIOError:
            return None
        sock.setblocking(False)
        return self.opened(sock)

    def close(self) -> None:
        self.tunnel.drain()
        self.tunnel.abort()
        self.later(100)  # for those that linger
        self.loop.close()
        for sock in self._opened:
            sock.close()


class Peer:
    """A TLS client or server on a socket, driven by the turns of the harness."""

    def __init__(
        self,
        harness: TunnelHarness,
        sock: socket.socket,
        *,
        is_server: bool = False,
        who: Identity = PEER,
        version: int = TLS13,
    ):
        made = (
            PEER_CONTEXTS[is_server, version] if who is PEER else context(who, admit_all, is_server=is_server, version=version)
        )
        self.harness, self.socket, self.side = harness, sock, Side(made)

    def shake(self) -> Peer:
        """Exchange all flights."""
        flight = b"" if self.side.is_server else self.side.shake()
        for _ in range(4):
            if flight:
                self.socket.sendall(flight)
            self.harness.turn()
            flight = self.side.shake(received(self.socket))
        return self

    def say(self, data: bytes) -> None:
        self.socket.sendall(self.side.seal(data))
        self.harness.turn()

    def hear(self) -> bytes:
        return self.side.open(received(self.socket))

    def end(self) -> None:
        """Close with close_notify."""
        self.socket.sendall(self.side.end.close_notify())
        self.harness.turn()


Harnesses = Callable[..., TunnelHarness]


def carried(harness: TunnelHarness, **fields: Any) -> tuple[Peer, socket.socket]:
    """A peer whose connection has reached the backend."""
    peer = Peer(harness, harness.connect(), **fields).shake()
    backend = harness.accepted_by_backend()
    assert backend is not None, harness.log.lines
    return peer, backend


def hang_up(harness: TunnelHarness, peer: Peer, backend: socket.socket) -> None:
    peer.end()
    backend.close()
    harness.turn()


def records_of(harness: TunnelHarness) -> list[ConnectionRecord]:
    """The records of all ended connections."""
    found: list[ConnectionRecord] = []
    write = harness.tunnel.connection_log.write_end

    def record(one: ConnectionRecord) -> None:
        found.append(one)
        write(one)

    harness.tunnel.connection_log.write_end = record  # type: ignore[method-assign]
    return found


class FakeListener:
    """A listener whose `accept` returns the given results and is always readable."""

    def __init__(self, *answers: int | socket.socket) -> None:
        self.answers = list(answers)
        self.attempts: list[float] = []
        self.clock: Callable[[], float] = lambda: 0.0
        self._fd = os.eventfd(1)
        self.is_closed = False
        self.successor = Successor.NONE
        self.replaced_pid: int | None = None

    def __str__(self) -> str:
        return "tcp:127.0.0.1:8443"

    @property
    def socket(self) -> FakeListener:
        return self

    def fileno(self) -> int:
        return self._fd

    def accept(self) -> tuple[socket.socket, Any]:
        self.attempts.append(self.clock())
        answer = self.answers.pop(0) if self.answers else errno.EAGAIN
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))  # which makes a BlockingIOError of EAGAIN
        answer.setblocking(False)
        return answer, ""

    def find_successor(self, _ports: object = None) -> Successor:
        return self.successor

    def close(self) -> None:
        if not self.is_closed:
            os.close(self._fd)
        self.is_closed = True


def with_listener(harness: TunnelHarness, *answers: int | socket.socket) -> FakeListener:
    listener = FakeListener(*answers)
    listener.clock = harness.clock
    harness.tunnel.swap(generation())
    harness.tunnel.open(listener)  # type: ignore[arg-type]
    return listener


def dialled(harness: TunnelHarness, **fields: Any) -> tuple[socket.socket, Peer]:
    """A plain program, and the TLS server that the tunnel dialled for it."""
    program = harness.connect()
    accepted = harness.accepted_by_backend()
    assert accepted is not None
    return program, Peer(harness, accepted, is_server=True, **fields)


@pytest.fixture(name="harnesses")
def make_harnesses(tmp_path: Path) -> Iterator[Harnesses]:
    """Create harnesses, and close them after the test."""
    made: list[TunnelHarness] = []

    def make(**fields: Any) -> TunnelHarness:
        place = tmp_path / str(len(made))
        place.mkdir()
        made.append(TunnelHarness(place, **fields))
        return made[-1]

    yield make
    for harness in made:
        harness.close()
