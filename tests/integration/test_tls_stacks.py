"""Every byte arrives and every end is passed on, with peers of five TLS libraries in both roles and both versions."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import struct
import termios
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import connect
from tests.support.processes import LIMIT, Proxy, eventually
from tests.support.tls_stack_peers import STACKS, Result, StackPeer, start_peer
from tunnel.lazy_dataclass import dataclass, replace

BIG, ANSWER = 2_000_003, 300_007
HELD = 200_000  # bytes that a proxy takes from a sender while their reader reads nothing


@dataclass(frozen=True)
class Scenario:
    """What the TLS peer and the plain program do, in the words of `tls_stacks/peer.py`, and what each of them must receive."""

    peer: str
    plain: str
    peer_gets: tuple[int, str]
    plain_gets: tuple[int, str]


# More steps of the program: `ready` waits for the peer's `wait` and `go` ends it, `over` waits for the peer's result, `sent`
# and `peer-sent` wait until the proxy's socket has everything that the program or the peer has sent.
SCENARIOS = {
    "upload, close": Scenario(f"send:{BIG} close", "recv close", (0, "none"), (BIG, "eof")),
    "upload, close, slow program": Scenario(f"send:{BIG} close", "slow recv close", (0, "none"), (BIG, "eof")),
    "download, close": Scenario("recv close", f"send:{BIG} close", (BIG, "eof"), (0, "none")),
    "download, close, slow peer": Scenario("slow recv close", f"send:{BIG} close", (BIG, "eof"), (0, "none")),
    "peer half-closes": Scenario(f"send:{BIG} half recv close", f"recv send:{ANSWER} close", (ANSWER, "eof"), (BIG, "eof")),
    "peer half-closes, slow program": Scenario(
        f"send:{BIG} half recv close", f"slow recv send:{ANSWER} close", (ANSWER, "eof"), (BIG, "eof")
    ),
    "peer half-closes, slow peer": Scenario(
        f"send:{ANSWER} half slow recv close", f"recv send:{BIG} close", (BIG, "eof"), (ANSWER, "eof")
    ),
    "program half-closes": Scenario(f"recv send:{ANSWER} close", f"send:{BIG} half recv close", (BIG, "eof"), (ANSWER, "eof")),
    "program half-closes, slow program": Scenario(
        f"recv send:{BIG} close", f"send:{ANSWER} half slow recv close", (ANSWER, "eof"), (BIG, "eof")
    ),
    "program half-closes, slow peer": Scenario(
        f"slow recv send:{ANSWER} close", f"send:{BIG} half recv close", (BIG, "eof"), (ANSWER, "eof")
    ),
    "peer resets": Scenario(f"send:{BIG} wait reset", f"recv:{BIG} ready go recv", (0, "none"), (BIG, "reset")),
    "peer resets, slow program": Scenario(
        f"send:{HELD} wait reset", "slow ready peer-sent go over recv", (0, "none"), (HELD, "reset")
    ),
    "program resets": Scenario(f"recv:{BIG} wait recv", f"send:{BIG} ready reset go", (BIG, "cut"), (0, "none")),
    "program resets, slow peer": Scenario("slow wait recv", f"ready send:{HELD} sent reset go", (HELD, "cut"), (0, "none")),
}


# Java answers close_notify in TLS 1.2 with its own at once, as RFC 5246, 7.2.1 requires, and can then send nothing more.
WITHOUT_HALF_CLOSE = {("java", "1.2")}


def scenario_of(stack: str, version: str, what: str) -> Scenario:
    """The scenario as far as the stack supports it."""
    scenario = SCENARIOS[what]
    if (stack, version) not in WITHOUT_HALF_CLOSE or not what.startswith("program half-closes"):
        return scenario
    steps = [step for step in scenario.peer.split() if not step.startswith("send")]
    return replace(scenario, peer=" ".join(steps), plain_gets=(0, "eof"))


BYTES = bytes((at ^ at >> 8 ^ at >> 16) & 255 for at in range(BIG))  # what every side sends
DIGESTS = {size: hashlib.sha256(BYTES[:size]).hexdigest() for size in (0, ANSWER, HELD, BIG)}


class Program:
    """The plain side of one connection."""

    def __init__(self, sock: socket.socket, peer: StackPeer, tls_port: int) -> None:
        self._socket = sock
        self._peer = peer
        self._tls_port = tls_port
        self._is_slow = False
        self._received = hashlib.sha256()
        self._count = 0
        self._end = "none"
        self.peer_result: Result | None = None

    def close(self) -> None:
        self._socket.close()

    def run(self, steps: str) -> Result:
        """Do all steps; what was received."""
        for step in steps.split():
            name, _, size = step.partition(":")
            self._step(name, int(size or -1))
        return Result(self._count, self._received.hexdigest(), self._end)

    def _step(self, name: str, size: int) -> None:
        match name:
            case "send":
                self._socket.sendall(BYTES[:size])
            case "recv":
                self._receive(size)
            case "slow":
                self._is_slow = True
            case "half":
                self._socket.shutdown(socket.SHUT_WR)
            case "close":
                self._socket.close()
            case "reset":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._socket.close()
            case "ready":
                self._peer.wait_ready()
            case "go":
                self._peer.go_on()
            case "over":
                self.peer_result = self._peer.result()
            case "sent":
                eventually(lambda: unsent_of(self._socket) == 0, "everything is with the proxy")
            case "peer-sent":
                eventually(lambda: unsent(self._tls_port) == 0, "everything is with the proxy")

    def _receive(self, size: int) -> None:
        if self._is_slow:
            time.sleep(0.05)
        try:
            while self._count != size:
                data = self._socket.recv(8192 if self._is_slow else 65536)
                if not data:
                    self._end = "eof"
                    return
                self._count += len(data)
                self._received.update(data)
                if self._is_slow:
                    time.sleep(0.0005)
        except ConnectionResetError:
            self._end = "reset"


def unsent(port: int) -> int:
    """Bytes that are on their way from or to a port (proc_net_tcp in the kernel's documentation)."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    ends = f":{port:04X}"
    return sum(int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(ends) or row[2].endswith(ends))


def unsent_of(sock: socket.socket) -> int:
    """Bytes that a socket has taken and the other side's kernel has not (tcp(7), SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


class StackPeers:
    """One authority, the proxies, and each peer, started at its first use."""

    def __init__(self, directory: Path) -> None:
        self.file_identities = FileIdentities(directory)
        self._peers: dict[tuple[str, str], StackPeer] = {}
        self._proxies: dict[int, Proxy] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LIMIT)

    def close(self) -> None:
        self.file_identities.close()
        self._listener.close()

    def peer(self, stack: str, role: str) -> StackPeer:
        """The peer of one kind."""
        if (stack, role) not in self._peers:
            files = self.file_identities.client_files if role == "client" else self.file_identities.server_files
            self._peers[stack, role] = start_peer(self.file_identities, stack, role, files, self.file_identities.pki.cacert)
        return self._peers[stack, role]

    def forget(self, stack: str, role: str) -> None:
        """Stop this peer; the next use starts a new one."""
        self._peers.pop((stack, role)).process.close()

    def _proxy(self, target_port: int) -> Proxy:
        """In front of the program's listener a server, else a client."""
        if target_port not in self._proxies:
            is_server = target_port == self._listener.getsockname()[1]
            start = self.file_identities.serve if is_server else self.file_identities.call
            self._proxies[target_port] = start(f"127.0.0.1:{target_port}")
        return self._proxies[target_port]

    def join(self, peer: StackPeer, version: str, steps: str) -> Program:
        """Let a peer begin, and the program on the other side of the proxy."""
        proxy = self._proxy(peer.port or self._listener.getsockname()[1])
        peer.begin(version, proxy.address[1], steps)
        if peer.port:
            return Program(connect(proxy.address), peer, peer.port)
        sock, _ = self._listener.accept()
        sock.settimeout(LIMIT)
        return Program(sock, peer, proxy.address[1])


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPeers]:
    with closing(StackPeers(tmp_path_factory.mktemp("stacks"))) as peers:
        yield peers


@pytest.mark.parametrize("what", SCENARIOS)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("stack", STACKS)
def test_every_byte_and_end_arrives(peers: StackPeers, stack: str, role: str, version: str, what: str) -> None:
    scenario = scenario_of(stack, version, what)
    peer = peers.peer(stack, role)
    try:
        with closing(peers.join(peer, version, scenario.peer)) as program:
            got = program.run(scenario.plain)
            theirs = program.peer_result or peer.result()
    except BaseException:
        peers.forget(stack, role)
        raise
    assert got == expected(scenario.plain_gets, got)
    assert theirs == expected(scenario.peer_gets, theirs)


def expected(gets: tuple[int, str], got: Result) -> Result:
    """What one side should receive; a FIN without close_notify says the same as a reset."""
    count, end = gets
    is_same = {end, got.end} == {"cut", "reset"}
    return Result(count, DIGESTS[count], got.end if is_same else end)
