"""Bytes and ends through real proxies: what goes in comes out, an end is an end and a failure a failure, within limits."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import selectors
import socket
import stat
import struct
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

import pytest

from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all, receive_exactly
from tests.support.processes import LIMIT, Proxy, eventually
from tests.support.requirements import program
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import ANY_PORT, CLIENT, SERVER, Workloads

MIB = 1024 * 1024
BULK = 256 * MIB
CROWD = 2000
CROWD_MEMORY = 80 * 1024  # bytes that a proxy may keep for each idle connection


def chain(workloads: Workloads, target: str, *flags: str) -> tuple[Proxy, Proxy]:
    """A client proxy and the server proxy behind it, in front of `target`."""
    server = workloads.server(target, *flags)
    return workloads.client(server.target, *flags), server


def tls(workloads: Workloads, proxy: Proxy) -> AbstractContextManager[TlsPeer]:
    return tls_connection(proxy.address, workloads.identity(CLIENT))


def reset(sock: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Outcome:
    """What a backend has seen, for the test to wait for."""

    def __init__(self) -> None:
        self.received = b""
        self.error: OSError | None = None
        self._is_known = threading.Event()

    def serve(self, connection: socket.socket) -> None:
        try:
            self.received = receive_all(connection)
        except OSError as error:
            self.error = error
        self._is_known.set()

    def wait(self) -> None:
        assert self._is_known.wait(LIMIT)


# -- bytes


def send_bulk(sock: socket.socket) -> str:
    """Send random bytes and the end; their digest."""
    digest = hashlib.sha256()
    for _ in range(BULK // MIB):
        block = os.urandom(MIB)
        digest.update(block)
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def receive_bulk(sock: socket.socket) -> str:
    digest = hashlib.sha256()
    while data := sock.recv(MIB):
        digest.update(data)
    return digest.hexdigest()


def test_bulk_passes_both_ways_at_once_unchanged(workloads: Workloads) -> None:
    with ThreadPoolExecutor() as threads:
        far: list[tuple[str, str]] = []

        def serve(connection: socket.socket) -> None:
            sent = threads.submit(send_bulk, connection)
            received = receive_bulk(connection)
            far.append((sent.result(), received))

        client, server = chain(workloads, workloads.enter(Backend(serve)).target)
        with connect(client.address) as plain:
            sent = threads.submit(send_bulk, plain)
            received = receive_bulk(plain)
            eventually(lambda: bool(far), "the backend is done")
            assert far == [(received, sent.result())]
        for proxy in (client, server):
            proxy.wait_for("closed pipe: .*forwarded 256.0 MiB, returned 256.0 MiB, .* end=closed$")


def test_single_bytes_pass_unchanged_and_in_order(workloads: Workloads) -> None:
    client, _ = chain(workloads, workloads.enter(Backend(echo)).target)
    data = os.urandom(2000)
    with connect(client.address) as plain:
        for byte in data:
            plain.sendall(bytes([byte]))
        assert receive_exactly(plain, len(data)) == data


def test_what_is_said_first_by_the_backend_arrives(workloads: Workloads) -> None:
    client, _ = chain(workloads, workloads.enter(Backend(lambda connection: connection.sendall(b"220 ready\r\n"))).target)
    with connect(client.address) as plain:
        assert receive_all(plain) == b"220 ready\r\n"


# -- ends


def test_an_answer_arrives_after_the_client_has_ended(workloads: Workloads) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"answer to " + receive_all(connection))

    client, server = chain(workloads, workloads.enter(Backend(serve)).target)
    with connect(client.address) as plain:
        plain.sendall(b"question")
        plain.shutdown(socket.SHUT_WR)
        assert receive_all(plain) == b"answer to question"
    for proxy in (client, server):
        proxy.wait_for("closed pipe: .* end=closed$")


def test_a_client_that_closes_without_reading_anything_loses_nothing(workloads: Workloads) -> None:
    """Session tickets that it had not read would make its kernel reset the connection and discard what is not sent yet."""
    outcome, may_read = Outcome(), threading.Event()

    def serve(connection: socket.socket) -> None:
        assert may_read.wait(LIMIT)
        outcome.serve(connection)

    proxy = workloads.server(workloads.enter(Backend(serve)).target)
    data = os.urandom(2 * MIB)
    with tls_connection(proxy.address, workloads.identity(CLIENT)) as peer:
        stream = peer.seal(data)
        peer.tls.shutdown()
        peer.socket.sendall(stream + peer.tls.bio_read(1000))
    may_read.set()
    outcome.wait()
    assert outcome.error is None
    assert (len(outcome.received), outcome.received == data) == (len(data), True)
    proxy.wait_for("closed pipe: .* end=closed$")


def test_a_client_may_go_on_after_the_backend_has_ended(workloads: Workloads) -> None:
    outcome = Outcome()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"enough")
        connection.shutdown(socket.SHUT_WR)
        outcome.serve(connection)

    client, _ = chain(workloads, workloads.enter(Backend(serve)).target)
    with connect(client.address) as plain:
        assert receive_all(plain) == b"enough"
        plain.sendall(b"but this as well")
        plain.shutdown(socket.SHUT_WR)
        outcome.wait()
    assert outcome.received == b"but this as well"


def test_close_notify_and_a_bare_fin_are_both_ends_and_counted_apart(workloads: Workloads) -> None:
    proxy = workloads.server(workloads.enter(Backend(echo)).target)
    with tls(workloads, proxy) as peer:
        peer.send(b"a")
        peer.end()
        assert peer.receive_all() == b"a"
        assert peer.has_ended
    with tls(workloads, proxy) as peer:
        peer.send(b"b")
        peer.fin()
        assert peer.receive_all() == b"b"
        assert peer.has_ended
    proxy.wait_for("closed pipe", count=2)
    proxy.stop()
    assert proxy.lines[-1].endswith("stopped accepted=2 relayed=2 close_notify=1 fin_without_close_notify=1")


@pytest.mark.parametrize("kept", [1, 5, 100])
def test_a_stream_cut_inside_a_record_reaches_the_backend_as_a_reset(workloads: Workloads, kept: int) -> None:
    outcome = Outcome()
    proxy = workloads.server(workloads.enter(Backend(outcome.serve)).target)
    with tls(workloads, proxy) as peer:
        peer.send(b"whole")
        peer.socket.sendall(peer.seal(bytes(200))[:kept])
        peer.fin()
        outcome.wait()
    assert isinstance(outcome.error, ConnectionResetError)
    proxy.wait_for("closed pipe: .* end=truncated$")
    proxy.stop()
    assert proxy.lines[-1].endswith("stopped accepted=1 relayed=1 truncated=1")


def test_a_reset_of_the_client_reaches_the_backend_as_a_reset(workloads: Workloads) -> None:
    outcome = Outcome()
    client, server = chain(workloads, workloads.enter(Backend(outcome.serve)).target)
    plain = connect(client.address)
    plain.sendall(b"half a")
    server.wait_for("opening pipe")
    reset(plain)
    outcome.wait()
    assert isinstance(outcome.error, ConnectionResetError)


def test_a_reset_of_the_backend_reaches_the_client_as_a_reset(workloads: Workloads) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        reset(connection)

    client, server = chain(workloads, workloads.enter(Backend(serve)).target)
    with connect(client.address) as plain:
        plain.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            plain.recv(1)
    server.wait_for("closed pipe: .* end=reset-by-plain-side$")
    client.wait_for("closed pipe: .* end=reset-by-peer$")


def wait_acknowledged(sock: socket.socket) -> None:
    """Until the other side's kernel has all that was sent."""

    def is_empty() -> bool:
        return not any(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))

    eventually(is_empty, "everything is acknowledged")


@pytest.mark.parametrize("is_chain", [False, True], ids=["TLS client", "two proxies"])
def test_a_backend_that_answers_and_resets_loses_nothing_to_a_slow_client(workloads: Workloads, is_chain: bool) -> None:
    answer = os.urandom(MIB)
    is_closed = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(answer)
        wait_acknowledged(connection)
        connection.close()  # with the rest of the request unread
        is_closed.set()

    client, server = chain(workloads, workloads.enter(Backend(serve)).target)
    if is_chain:
        with connect(client.address) as plain:
            plain.sendall(b"a request")
            assert is_closed.wait(LIMIT)
            server.wait_for("closed pipe: .* end=reset-by-plain-side$")
            assert receive_exactly(plain, len(answer)) == answer
        return
    with tls(workloads, server) as peer:
        peer.send(b"a request")
        assert is_closed.wait(LIMIT)
        server.wait_for("closed pipe: .* end=reset-by-plain-side$")
        assert peer.receive_exactly(len(answer)) == answer
        with pytest.raises(ConnectionResetError):
            peer.receive()
        assert not peer.has_ended


def test_a_client_that_uploads_and_resets_loses_nothing_to_a_slow_backend(workloads: Workloads) -> None:
    upload, received = os.urandom(MIB), bytearray()
    may_read, is_done = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        may_read.wait(LIMIT)
        with suppress(ConnectionResetError):
            while data := connection.recv(20_000):
                received.extend(data)
        is_done.set()

    server = workloads.server(workloads.enter(Backend(serve)).target)
    with tls(workloads, server) as peer:
        peer.send(upload)
        wait_acknowledged(peer.socket)
        reset(peer.socket)
    server.wait_for("closed pipe: .* end=reset-by-peer$")
    may_read.set()
    assert is_done.wait(LIMIT)
    assert received == upload


def test_a_unix_client_that_writes_and_closes_at_once_is_carried(workloads: Workloads) -> None:
    messages: list[bytes] = []
    path = workloads.directory / "plain"
    server = workloads.server(workloads.enter(Backend(lambda connection: messages.append(receive_all(connection)))).target)
    workloads.client(server.target, listen=f"unix:{path}").wait_for(f"listening for connections on unix:{path}$")
    for number in range(20):
        with connect(str(path)) as plain:
            plain.sendall(b"message %d" % number)
    eventually(lambda: len(messages) == 20, "every message has arrived")
    assert sorted(messages) == sorted(b"message %d" % number for number in range(20))


# -- limits


def test_a_reader_that_stands_still_stops_the_sender_and_costs_little_memory(workloads: Workloads) -> None:
    sent = 0
    is_stuck = threading.Event()

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        connection.settimeout(1)
        with suppress(TimeoutError):
            while True:
                sent += connection.send(bytes(65536))
        is_stuck.set()
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LIMIT)
        connection.recv(1)

    proxies = chain(workloads, workloads.enter(Backend(serve)).target)
    with connect(proxies[0].address) as plain:
        before = [proxy.resident_bytes for proxy in proxies]
        assert is_stuck.wait(LIMIT)
        grown = [proxy.resident_bytes - size for proxy, size in zip(proxies, before, strict=True)]
        assert max(grown) < 8 * MIB
        assert len(receive_all(plain)) == sent


def test_one_connection_too_many_waits_until_another_ends(workloads: Workloads) -> None:
    proxy = workloads.server(workloads.enter(Backend(echo)).target, "--max-concurrent-conns=2")
    with tls(workloads, proxy) as first, tls(workloads, proxy), connect(proxy.address) as waiting:
        waiting.settimeout(0.3)
        third = TlsPeer(waiting, workloads.identity(CLIENT))
        with pytest.raises(TimeoutError):
            third.shake_hands()
        first.end()
        assert first.receive_all() == b""
        waiting.settimeout(LIMIT)
        third.shake_hands()
        third.send(b"at last")
        assert third.receive_exactly(7) == b"at last"


def test_the_life_of_a_connection_has_a_limit(workloads: Workloads) -> None:
    proxy = workloads.server(workloads.enter(Backend(echo)).target, "--max-conn-lifetime=300ms")
    with tls(workloads, proxy) as peer:
        peer.send(b"x")
        with pytest.raises(ConnectionResetError):
            peer.receive_all()
    proxy.wait_for("closed pipe: .* end=max-conn-lifetime$")


def test_a_silent_client_is_closed_after_the_connect_timeout(workloads: Workloads) -> None:
    proxy = workloads.server("127.0.0.1:1", "--connect-timeout=200ms")
    with connect(proxy.address) as silent:
        assert silent.recv(1) == b""
    proxy.wait_for("error on TLS handshake from .*: exceeded the connect timeout of 0.2s")


def test_after_one_end_only_silence_has_a_limit(workloads: Workloads) -> None:
    pieces = 6

    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        receive_all(connection)
        for _ in range(pieces):  # together longer than the limit, each wait far below it
            time.sleep(0.4)
            connection.sendall(b"piece")
        done.wait(LIMIT)

    proxy = workloads.server(workloads.enter(Backend(serve)).target, "--close-timeout=2s")
    with tls(workloads, proxy) as peer:
        peer.end()
        assert peer.receive_exactly(5 * pieces) == b"piece" * pieces
        assert peer.receive() == b""
        assert not peer.has_ended  # a cut, not an end
    done.set()
    proxy.wait_for("no activity for 2s after half-close")
    proxy.wait_for("closed pipe: .* end=close-timeout$")


# -- targets


def test_a_client_whose_target_refuses_hears_an_orderly_end(workloads: Workloads) -> None:
    proxy = workloads.server(f"127.0.0.1:{free_port()}")
    with tls(workloads, proxy) as peer:
        assert peer.receive() == b""
        assert peer.has_ended
    proxy.wait_for(
        rf"error on dial: .*connection refused reason=connection-refused from=tcp:\S+ peer={CLIENT} rule=id:{CLIENT}$"
    )


def test_a_plain_client_whose_server_is_not_there_hears_an_end(workloads: Workloads) -> None:
    proxy = workloads.client(f"127.0.0.1:{free_port()}")
    with connect(proxy.address) as plain:
        assert plain.recv(1) == b""
    proxy.wait_for(r"error on dial: .*connection refused reason=connection-refused from=tcp:\S+$")


@contextmanager
def black_hole() -> Iterator[str]:
    """A port that answers nobody: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as queued:
        for _ in range(3):
            sock = queued.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_target_that_never_answers_is_given_up_after_the_connect_timeout(workloads: Workloads) -> None:
    with black_hole() as target:
        proxy = workloads.server(target, "--connect-timeout=500ms")
        with tls(workloads, proxy) as peer:
            assert peer.receive() == b""
        proxy.wait_for(rf"error on dial: .*exceeded the connect timeout of 0.5s reason=timeout from=tcp:\S+ peer={CLIENT} ")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_address_of_a_name_is_tried(workloads: Workloads, host: str) -> None:
    backend = workloads.enter(Backend(echo, host=host))
    proxy = workloads.server(f"localhost:{backend.port}")
    with tls(workloads, proxy) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


def test_unix_sockets_carry_on_both_sides(workloads: Workloads) -> None:
    path = workloads.directory / "plain"
    client, server = chain_of_unix(workloads, str(path))
    client.wait_for(f"listening for connections on unix:{path}$")
    with connect(str(path)) as plain:
        plain.sendall(b"there")
        plain.shutdown(socket.SHUT_WR)
        assert receive_all(plain) == b"there"
    server.wait_for(r"opening pipe: tcp:127\.0\.0\.1:\d+ \[.*\] <-> unix:.*backend \[no tls\]")
    client.wait_for("opening pipe: unix:@ ")
    assert stat.S_ISSOCK(path.stat().st_mode)


def chain_of_unix(workloads: Workloads, path: str) -> tuple[Proxy, Proxy]:
    backend = workloads.enter(Backend(echo, path=workloads.directory / "backend"))
    server = workloads.server(backend.target)
    return workloads.client(server.target, listen=f"unix:{path}"), server


# -- listening


def test_a_stale_unix_socket_is_replaced(workloads: Workloads) -> None:
    path = workloads.directory / "plain"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    workloads.client("127.0.0.1:1", listen=f"unix:{path}").wait_for(f"listening for connections on unix:{path}$")


def test_a_live_unix_socket_is_left_to_its_owner(workloads: Workloads) -> None:
    path = workloads.directory / "plain"
    with Backend(echo, path=path):
        proxy = workloads.client("127.0.0.1:1", listen=f"unix:{path}")
        assert proxy.exit_code() == 1
        assert proxy.reason() == f"error: cannot listen on unix:{path}: address already in use"
        with connect(str(path)) as plain:
            plain.sendall(b"x")
            assert plain.recv(1) == b"x"


def test_a_port_in_use_is_one_clear_line_and_exit_1(workloads: Workloads) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        proxy = workloads.server("127.0.0.1:1", listen=address)
        assert proxy.exit_code() == 1
        assert proxy.reason() == f"error: cannot listen on {address}: address already in use"


def test_two_proxies_share_a_port(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    first = workloads.server(backend.target)
    second = workloads.server(backend.target, listen=first.target)
    assert second.address == first.address
    assert first.stop() == 0
    with tls(workloads, second) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


# -- crowds


class Crowd:
    """Echoes to thousands of connections with one thread."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.target = "{}:{}".format(*self._listener.getsockname())
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake, self._waker = socket.socketpair()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waker.close()
        self._thread.join(LIMIT)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake:
                    return
                if key.fileobj is self._listener:
                    self._selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                else:
                    self._echo(key.fileobj)

    def _echo(self, sock: object) -> None:
        assert isinstance(sock, socket.socket)
        data = b""
        with suppress(OSError):
            data = sock.recv(65536)
            sock.sendall(data)
        if not data:
            self._selector.unregister(sock)
            sock.close()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many as may be had, for us who hold both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * CROWD:
        pytest.skip(f"the hard limit of descriptors is {hard}, {3 * CROWD} are wanted")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("burst", [1, 64 * 1024], ids=["idle", "after a burst"])
def test_a_crowd_of_connections_keeps_little_memory(workloads: Workloads, burst: int) -> None:
    proxies = chain(workloads, workloads.enter(Crowd()).target)
    address, data = proxies[0].address, bytes(burst)

    def join(stack: ExitStack) -> None:
        plain = stack.enter_context(connect(address))
        plain.sendall(data)
        assert receive_exactly(plain, burst) == data

    with ExitStack() as stack:
        for _ in range(10):  # what is made once is made
            join(stack)
        before = [proxy.resident_bytes for proxy in proxies]
        for _ in range(CROWD):
            join(stack)

        def each() -> list[float]:
            return [(proxy.resident_bytes - size) / CROWD for proxy, size in zip(proxies, before, strict=True)]

        eventually(lambda: max(each()) < CROWD_MEMORY, f"memory below {CROWD_MEMORY} bytes a connection")
        print(f"{', '.join(f'{size / 1024:.1f}' for size in each())} KiB a connection")
    for proxy in proxies:
        proxy.wait_for("closed pipe", count=CROWD + 10)


def test_a_proxy_out_of_descriptors_waits_and_recovers(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    flags = f"--listen={ANY_PORT}", f"--target={backend.target}", "--allow-id", CLIENT
    proxy = workloads.proxy("server", SERVER, *flags, before=(program("prlimit"), "--nofile=64:64"))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(proxy.address))
        proxy.wait_for("error accepting connection: accept tcp:.*: too many open files")
        before, lines = proxy.cpu_seconds, len(proxy.lines)
        time.sleep(1)
        assert proxy.cpu_seconds - before < 0.3
        assert len(proxy.lines) - lines < 20
    with tls(workloads, proxy) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"
