"""200 listeners in one process: one stream of the Workload API, and changes that the neighbours do not notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from OpenSSL import SSL

from tests.support.config_files import ServedFile
from tests.support.plain_backends import Backend, echo
from tests.support.processes import LIMIT, WORKERS, descriptors_of, eventually
from tests.support.tls_peer import TlsPeer
from tests.support.unix_status_port import status
from tests.support.workloads import CLIENT, SERVER, STRANGER, Workloads

COUNT = 200
CHANGED_NAME = "listener-77"
_CHUNK = 3000  # bytes: no chunk ends with a record


class Transfer:
    """Sends numbered chunks on many connections in turn, and checks every byte of the echo, until `stop`."""

    def __init__(self, peers: list[TlsPeer]) -> None:
        self._peers = peers
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0
        self.failures: list[str] = []

    def wait_for_round(self) -> None:
        """Wait until every connection has transferred a chunk that was begun after this call."""
        wanted = self.rounds + 2
        eventually(lambda: self.rounds >= wanted or bool(self.failures), "every connection has transferred")

    def __enter__(self) -> Transfer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join(LIMIT)

    def _run(self) -> None:
        while not self._is_over.is_set() and not self.failures:
            for number, peer in enumerate(self._peers):
                chunk = f"{number}/{self.rounds};".encode().ljust(_CHUNK, b"%d" % (number % 10))
                try:
                    peer.send(chunk)
                    if peer.receive_exactly(_CHUNK) != chunk:
                        self.failures.append(f"connection {number}: wrong bytes")
                except (OSError, SSL.Error) as error:
                    self.failures.append(f"connection {number}: {error!r}")
            self.rounds += 1


@pytest.fixture
def served(workloads: Workloads) -> ServedFile:
    """Servers with one echoing backend and different access lists, which are being served."""
    target = workloads.enter(Backend(echo)).target
    made = ServedFile(workloads)
    for number in range(COUNT):
        rules = f'[{{ allow = "spiffe://a.test/only/{number}" }}, {{ allow = "{CLIENT}" }}]'
        made.add(f"listener-{number}", target, access=rules)
    made.start()
    return made


@contextmanager
def transferring(served: ServedFile, names: list[str]) -> Iterator[Transfer]:
    """One connection per listener, on which bytes flow."""
    with ExitStack() as stack:
        peers = [stack.enter_context(served.connect(name)) for name in names]
        transfer = stack.enter_context(Transfer(peers))
        transfer.wait_for_round()
        yield transfer
        transfer.wait_for_round()
    assert not transfer.failures


def files(served: ServedFile) -> list[tuple[int, int]]:
    """What a new socket would change, of each listener."""
    return [(found.st_ino, found.st_ctime_ns) for found in (served.front(name).stat() for name in served.servers)]


def generations(served: ServedFile) -> list[int]:
    return [one["generation"] for one in status(served.status)[1]["listeners"]]


def count_descriptors(pid: int) -> int:
    """Count the descriptors of a process; with workers, without copies of sockets that are on their way to them."""
    found = descriptors_of(pid)
    if WORKERS == "1":
        return len(found)
    sockets = [one for one in found if one.startswith("socket:")]
    return len(found) - len(sockets) + len(set(sockets))


def test_a_reload_of_200_listeners_that_changes_one_disturbs_no_other(served: ServedFile) -> None:
    others = [name for name in served.servers if name != CHANGED_NAME]
    sockets, process = files(served), served.process
    with transferring(served, others) as transfer, served.connect(CHANGED_NAME) as cut:
        for allowed in (STRANGER, CLIENT, STRANGER):
            rules = f'[{{ allow = "{allowed}" }}]'
            served.servers[CHANGED_NAME] = served.servers[CHANGED_NAME].partition("\n")[0] + f"\naccess = {rules}"
            since = len(process.lines)
            assert served.reload() == (200, "reloaded\n")
            process.wait_for(f"configuration changed: added=0 changed=1 removed=0 unchanged={COUNT - 1} ", since)
            transfer.wait_for_round()
            assert served.is_admitted(CHANGED_NAME, allowed)
        assert cut.receive_all() == b"", "its peer is not admitted any more"
        assert not served.is_admitted(CHANGED_NAME)
    assert files(served) == sockets
    assert generations(served) == [1] * COUNT
    assert all(served.is_admitted(name) for name in others)
    assert served.workloads.api.stream_count(served.workloads.sockets[SERVER]) == 1


def test_a_rotation_reaches_200_listeners_by_one_stream_and_disturbs_no_connection(served: ServedFile) -> None:
    with transferring(served, list(served.servers)) as transfer:
        for number in (2, 3):
            served.workloads.api.rotate_svids()
            eventually(lambda number=number: generations(served) == [number] * COUNT, "all have the new SVID")  # type: ignore[misc]
            transfer.wait_for_round()
    assert all(served.is_admitted(name) for name in served.servers)
    assert served.workloads.api.stream_count(served.workloads.sockets[SERVER]) == 1


def test_200_listeners_leave_nothing_behind(served: ServedFile) -> None:
    """Neither do those that a reload removes and adds again."""
    process, servers = served.process, dict(served.servers)
    count = count_descriptors(process.pid)
    for kept in (1, COUNT, 1, COUNT):
        served.servers = dict(list(servers.items())[:kept])
        assert served.reload() == (200, "reloaded\n")
        assert sum(path.name.startswith("front-") for path in served.place.iterdir()) == kept
    assert all(served.is_admitted(name) for name in servers)
    eventually(lambda: count_descriptors(process.pid) == count, "the sockets of removed listeners are closed")
    assert process.stop() == 0
    assert not [path for path in served.place.iterdir() if path.name.startswith("front-")]
