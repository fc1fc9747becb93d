"""Several worker processes: together they behave as one, and the end of one concerns its connections only."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.plain_backends import Backend, connect, echo, free_port
from tests.support.processes import Proxy, bare_environment, descriptors_of, eventually, tunnel_argv
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import CLIENT, SERVER, STRANGER, Identity, Workloads

WORKERS = "--workers=2"


@pytest.fixture
def backend(workloads: Workloads) -> str:
    return workloads.enter(Backend(echo)).target


class Front:
    """A server with two workers and a status port, and clients of it."""

    def __init__(self, workloads: Workloads, backend: str, *flags: str) -> None:
        self.workloads = workloads
        self.status = f"http://127.0.0.1:{free_port()}"
        self.proxy = workloads.server(backend, WORKERS, f"--status={self.status}", *flags)
        self.address = self.proxy.address
        self.clients = workloads.enter(ExitStack())
        self._identities: dict[str, Identity] = {}

    @property
    def workers(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.proxy.pid}/task/{self.proxy.pid}/children").read_text().split()]

    def connect(self, identity: str = CLIENT) -> TlsPeer:
        """A connection whose relay has begun."""
        if identity not in self._identities:  # written once: another thread may read the files
            self._identities[identity] = self.workloads.identity(identity)
        peer = self.clients.enter_context(tls_connection(self.address, self._identities[identity]))
        assert has_echo(peer)
        return peer

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.status}{path}") as response:
            return str(response.read().decode())

    def metric(self, name: str) -> float:
        """The value of a metric of our own; the sum of its series."""
        lines = [line for line in self.fetch("/metrics").splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def open_by_worker(self, count: int) -> dict[int, list[TlsPeer]]:
        """Open so many connections, and find out which worker has which."""
        owned: dict[int, list[TlsPeer]] = {worker: [] for worker in self.workers}
        for _ in range(count):
            peer = self.connect()
            accepted = f"socket:[{inode_of(peer.socket.getsockname()[1], self.address[1])}]"
            (owner,) = [worker for worker in owned if accepted in descriptors_of(worker)]
            owned[owner].append(peer)
        return owned


def inode_of(client_port: int, server_port: int) -> str:
    """The inode of the server's socket of a connection on the loopback interface (proc_net_tcp)."""
    ends = f":{server_port:04X}", f":{client_port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[3] == "01"]  # a connection before may have had the same ports
    # A set: the kernel can show a row twice if sockets are opened while the file is read.
    (inode,) = {row[9] for row in established if row[1].endswith(ends[0]) and row[2].endswith(ends[1])}
    return inode


def has_echo(peer: TlsPeer) -> bool:
    try:
        peer.send(b"hello")
        return peer.receive_exactly(5) == b"hello"
    except (SSL.Error, OSError):
        return False


def is_alive(pid: int) -> bool:
    """Whether a process runs: it may be a zombie that nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_connections_are_served_by_all_workers(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    owned = front.open_by_worker(6)
    assert len(owned) == 2
    assert all(owned.values()), "one after the other, they get connections in turn"
    assert front.metric("tunnel_connections_open") == 6
    assert front.metric("tunnel_connections_accepted_total") == 6
    front.clients.close()
    eventually(lambda: front.metric("tunnel_connections_open") == 0, "the end of all connections")
    assert front.proxy.stop() == 0
    assert front.proxy.matches(r"stopped accepted=6 relayed=6 ")
    assert len(front.proxy.matches("opening pipe:")) == len(front.proxy.matches("closed pipe:")) == 6


def test_ps_shows_which_process_is_a_worker(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    assert [Path(f"/proc/{worker}/comm").read_text() for worker in front.workers] == ["tunnel-worker\n"] * 2


def test_a_limit_of_connections_is_for_all_workers_together(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend, "--max-concurrent-conns=3")
    peers = [front.connect() for _ in range(3)]
    with connect(front.address) as waiting:
        late = TlsPeer(waiting, workloads.identity(CLIENT))
        with suppress(SSL.WantReadError):
            late.tls.do_handshake()
        late.flush()
        assert front.metric("tunnel_connections_accepted_total") == 3
        peers[0].socket.shutdown(socket.SHUT_RDWR)
        late.shake_hands()
        assert has_echo(late)


def test_refusals_are_limited_and_counted_as_with_one_process(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    for _ in range(12):
        with suppress(SSL.Error, OSError), tls_connection(front.address, workloads.identity(STRANGER)) as peer:
            peer.send(b"x")
            peer.receive()
    eventually(lambda: front.metric("tunnel_refusals_total") == 12, "all refusals")
    overview = json.loads(front.fetch("/_overview"))
    (refusal,) = overview["refusals"]
    assert (refusal["peer"], refusal["count"]) == (STRANGER, 12)
    assert len(front.proxy.matches("no-matching-rule")) == 5


def test_a_rotation_reaches_all_workers(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)

    def serials() -> set[int]:
        found = set()
        for _ in range(4):
            peer = front.connect()
            certificate = peer.tls.get_peer_certificate()
            assert certificate is not None
            found.add(certificate.get_serial_number())
        return found

    before = serials()
    assert len(before) == 1
    workloads.api.rotate_svids()
    front.proxy.wait_for("identity updated: .* generation=2 ")
    eventually(lambda: len(now := serials()) == 1 and now.isdisjoint(before), "the new certificate in all workers")


def test_connections_of_a_peer_that_is_no_longer_trusted_are_closed_in_all_workers(workloads: Workloads, backend: str) -> None:
    workloads.federate()
    front = Front(workloads, backend, "--allow-id=spiffe://b.test/client")
    foreign = [front.connect("spiffe://b.test/client") for _ in range(4)]
    ours = front.connect()
    workloads.separate()
    for peer in foreign:
        with suppress(SSL.Error, OSError):
            assert peer.receive() == b""
    assert has_echo(ours)
    front.proxy.wait_for("closing connection: .*reason=", count=4)


def test_a_killed_worker_loses_its_connections_only_and_is_replaced(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    owned = front.open_by_worker(6)
    assert front.metric("tunnel_connections_open") == 6
    victim, survivor = front.workers
    identity = workloads.identity(CLIENT)
    stop, failures = threading.Event(), []

    def load() -> None:
        while not stop.is_set():
            try:
                with tls_connection(front.address, identity) as peer:
                    failures.extend([] if has_echo(peer) else ["no echo"])
            except (SSL.Error, OSError) as error:
                failures.append(str(error))

    loader = threading.Thread(target=load)
    loader.start()
    try:
        os.kill(victim, signal.SIGKILL)
        front.proxy.wait_for(rf"error: worker ended: worker=\d pid={victim} SIGKILL connections=\d+")
        new = int(front.proxy.wait_for(r"worker started: worker=\d pid=(\d+)")[1])
        eventually(lambda: bool(front.open_by_worker(1)[new]), "a connection of the new worker")
    finally:
        stop.set()
        loader.join()
    assert len(failures) <= 1, "at most the connection that the worker had"
    assert all(has_echo(peer) for peer in owned[survivor])
    assert not any(has_echo(peer) for peer in owned[victim])
    assert set(front.workers) == {survivor, new}
    assert front.metric("tunnel_worker_restarts_total") == 1
    front.clients.close()
    assert front.proxy.stop() == 0
    assert front.proxy.matches("stopped accepted=.* worker_lost=")


def test_workers_that_end_again_and_again_end_the_program(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    killed: set[int] = set()

    def kill_all() -> bool:
        for worker in set(front.workers) - killed if front.proxy.is_running else ():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
                killed.add(worker)
        return not front.proxy.is_running

    def kill_safely() -> bool:
        with suppress(FileNotFoundError):
            return kill_all()
        return True

    eventually(kill_safely, "the end of the program")
    assert front.proxy.exit_code() == 1
    assert "workers in a row ended within 10s of their start" in front.proxy.reason()
    assert not any(map(is_alive, killed))


def test_workers_drain_and_exit_after_the_end_of_their_parent(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    owned = front.open_by_worker(4)
    front.proxy.signal(signal.SIGKILL)
    eventually(lambda: not is_listening_at(front.address), "the end of the listener")
    assert all(has_echo(peer) for peers in owned.values() for peer in peers)
    front.clients.close()
    eventually(lambda: not any(map(is_alive, owned)), "the end of the workers")


def test_a_second_signal_ends_the_workers_too(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    owned = front.open_by_worker(4)
    front.proxy.signal(signal.SIGTERM)
    front.proxy.wait_for("waiting for drain of 4 connections")
    assert all(has_echo(peer) for peers in owned.values() for peer in peers)
    front.proxy.signal(signal.SIGTERM)
    assert front.proxy.exit_code() == -signal.SIGTERM
    eventually(lambda: not any(map(is_alive, owned)), "the end of the workers, whose connections are open")


def is_listening_at(address: tuple[str, int]) -> bool:
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return True
    return True


def test_a_stop_waits_for_the_connections_of_all_workers(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    owned = front.open_by_worker(4)
    front.proxy.signal(signal.SIGTERM)
    front.proxy.wait_for("waiting for drain of 4 connections")
    eventually(lambda: not is_listening_at(front.address), "the end of the listener")
    assert all(has_echo(peer) for peers in owned.values() for peer in peers)
    front.clients.close()
    assert front.proxy.exit_code() == 0
    assert not any(map(is_alive, owned))


def test_connections_that_do_not_end_are_closed_and_the_exit_code_says_so(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend, "--shutdown-timeout=100ms")
    owned = front.open_by_worker(4)
    assert front.proxy.stop() == 1
    assert front.proxy.matches("graceful shutdown timeout: forcing exit connections=4")
    assert not any(map(is_alive, owned))
    assert front.proxy.matches("stopped accepted=4 relayed=4 .*shutdown=4")


def test_a_worker_has_its_key_from_memory_only(workloads: Workloads, backend: str) -> None:
    front = Front(workloads, backend)
    for worker in front.workers:
        for name in ("cmdline", "environ"):
            assert b"PRIVATE KEY" not in Path(f"/proc/{worker}/{name}").read_bytes()
        assert not [path for path in descriptors_of(worker) if path.startswith("/") and not path.startswith("/dev/")]


def test_limits_per_peer_are_for_all_workers_together(workloads: Workloads, backend: str, tmp_path: Path) -> None:
    config = tmp_path / "tunnel.toml"
    config.write_text(
        f"""workers = 2
[identity.default]
workload-api = "{workloads.sockets[SERVER]}"
[[server]]
name = "limited"
listen = "127.0.0.1:0"
target = "{backend}"
access = [{{ allow = "{CLIENT}" }}]
max-conns-per-peer = 3
"""
    )
    proxy = workloads.watch(Proxy(tunnel_argv("serve", str(config)), environ=bare_environment()))
    address = listening(proxy)
    with ExitStack() as clients:
        peers = [clients.enter_context(tls_connection(address, workloads.identity(CLIENT))) for _ in range(3)]
        assert all(map(has_echo, peers))
        for _ in range(3):
            refused = clients.enter_context(tls_connection(address, workloads.identity(CLIENT)))
            assert not has_echo(refused)
        proxy.wait_for("refused connection: peer has reached the limit of this listener: 3 open connections", count=3)
        peers[0].socket.close()
        eventually(lambda: is_admitted(workloads, address), "a place for one more")


def is_admitted(workloads: Workloads, address: tuple[str, int]) -> bool:
    with tls_connection(address, workloads.identity(CLIENT)) as peer:
        return has_echo(peer)


def listening(proxy: Proxy) -> tuple[str, int]:
    """The address of a proxy whose lines name the listener."""
    host, port = proxy.wait_for(r"listening for connections on (\S+):(\d+)\b").groups()
    return host, int(port)


def test_a_reload_adds_and_changes_listeners_in_all_workers(workloads: Workloads, backend: str, tmp_path: Path) -> None:
    config = tmp_path / "tunnel.toml"

    def write(*names: str, allow: str) -> None:
        tables = (
            f'[[server]]\nname = "{name}"\nlisten = "unix:{tmp_path}/{name}"\ntarget = "{backend}"\n'
            f'access = [{{ allow = "{allow}" }}]\n'
            for name in names
        )
        config.write_text(f'workers = 2\n[identity.default]\nworkload-api = "{workloads.sockets[SERVER]}"\n' + "".join(tables))

    def is_served(name: str, identity: str) -> bool:
        with socket.socket(socket.AF_UNIX) as sock, suppress(SSL.Error, OSError):
            sock.connect(f"{tmp_path}/{name}")
            peer = TlsPeer(sock, workloads.identity(identity))
            peer.shake_hands()
            return has_echo(peer)
        return False

    write("one", allow=CLIENT)
    proxy = workloads.watch(Proxy(tunnel_argv("serve", str(config)), environ=bare_environment()))
    proxy.wait_for("listening for connections")
    assert [is_served("one", CLIENT) for _ in range(4)] == [True] * 4
    write("one", "two", allow=STRANGER)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for("reloading configuration complete")
    assert [is_served("one", CLIENT) for _ in range(4)] == [False] * 4
    assert [is_served(name, STRANGER) for name in ("one", "two") for _ in range(4)] == [True] * 8
    write("two", allow=STRANGER)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for("reloading configuration complete", count=2)
    assert not is_served("one", STRANGER)
    assert is_served("two", STRANGER)
    assert proxy.stop() == 0


@pytest.mark.parametrize("text", ["0", "-1", "x", "257", ""])
def test_a_wrong_number_is_one_line(workloads: Workloads, backend: str, text: str) -> None:
    proxy = workloads.server(backend, f"--workers={text}")
    assert proxy.exit_code() == 1
    (line,) = proxy.complaints
    assert "--workers" in line
    assert "expected 1 to 256, or auto" in line


def test_auto_is_one_for_each_usable_core(workloads: Workloads, backend: str) -> None:
    proxy = workloads.proxy(
        "server",
        SERVER,
        "--listen=127.0.0.1:0",
        f"--target={backend}",
        f"--allow-id={CLIENT}",
        "--workers=auto",
        before=("taskset", "-c", str(min(os.sched_getaffinity(0)))),
    )
    proxy.wait_for("listening for connections")
    children = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
    assert not children, "one core is used by the process itself"


def notifications(manager: socket.socket) -> Iterator[bytes]:
    while True:
        yield manager.recv(4096)


def test_a_worker_that_hangs_ends_the_keep_alives_of_the_watchdog(workloads: Workloads, backend: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {**bare_environment(), "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        api = workloads.sockets[SERVER]
        argv = tunnel_argv(
            "server",
            WORKERS,
            f"--use-workload-api-addr={api}",
            "--listen=127.0.0.1:0",
            f"--target={backend}",
            f"--allow-id={CLIENT}",
        )
        proxy = workloads.watch(Proxy(argv, environ=environ))
        proxy.wait_for("listening for connections")
        (worker, _other) = Path(f"/proc/{proxy.pid}/task/{proxy.pid}/children").read_text().split()
        manager.settimeout(30)
        assert next(one for one in notifications(manager) if one == b"WATCHDOG=1")
        os.kill(int(worker), signal.SIGSTOP)
        try:
            manager.settimeout(3)
            with pytest.raises(TimeoutError):
                for _ in notifications(manager):
                    pass
        finally:
            os.kill(int(worker), signal.SIGCONT)
        manager.settimeout(30)
        assert next(one for one in notifications(manager) if one == b"WATCHDOG=1")
