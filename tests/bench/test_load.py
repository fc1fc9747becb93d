"""The load generator believes nothing: one byte that is wrong on the way ends the run.

Runs it through a small TLS relay of the standard library that can be told to spoil what it carries.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.generator import Generator, compile_load
from bench.identity import Identity, open_identity
from bench.processes import BenchError

Spoil = Callable[[bytes], bytes]


def _missing() -> str:
    """What the load generator cannot be compiled without, if it is not there."""
    compiler = shutil.which("cc")
    if not compiler:
        return "there is no C compiler"
    probe = [compiler, "-fsyntax-only", "-x", "c", "-"]
    source = b"#include <openssl/ssl.h>\n"
    return "" if subprocess.run(probe, input=source, capture_output=True).returncode == 0 else "there is no libssl-dev"


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing() or "all is there")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    directory = tmp_path_factory.mktemp("load")
    binary = compile_load(directory)  # with -Wall -Wextra -Werror
    with open_identity(directory) as identity:
        yield Generator(binary, identity, [0])


@dataclass(frozen=True)
class Relay:
    """A TLS relay, one thread per connection; each piece of a direction goes through its function."""

    context: ssl.SSLContext
    backend: int
    to_client: Spoil
    to_backend: Spoil

    def serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                accepted, _ = listener.accept()
                threading.Thread(target=self.carry, args=(accepted,), daemon=True).start()

    def carry(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            accepted.settimeout(20)
            with (
                self.context.wrap_socket(accepted, server_side=True) as tls,
                socket.create_connection(("127.0.0.1", self.backend), timeout=20) as plain,
            ):
                self.relay(tls, plain)
                tls.unwrap()

    def relay(self, tls: ssl.SSLSocket, plain: socket.socket) -> None:
        sources: list[socket.socket] = [tls, plain]
        while True:
            ready = [tls] if tls in sources and tls.pending() else select.select(sources, [], [], 20)[0]
            if tls in ready:
                if data := tls.recv(16384):
                    plain.sendall(self.to_backend(data))
                else:
                    plain.shutdown(socket.SHUT_WR)
                    sources.remove(tls)
            if plain in ready:
                if not (data := plain.recv(16384)):
                    return
                tls.sendall(self.to_client(data))


def honest(data: bytes) -> bytes:
    return data


def flipped(data: bytes) -> bytes:
    """One bit of the last byte is wrong."""
    return data[:-1] + bytes([data[-1] ^ 1])


def flipped_when_large(data: bytes) -> bytes:
    """The same, but what is as short as a head or an answer stays whole."""
    return flipped(data) if len(data) > 1000 else data


def shortened(data: bytes) -> bytes:
    return data[:-1] if len(data) > 1000 else data


def swapped(data: bytes) -> bytes:
    """All bytes are there, two of them in each other's place."""
    return data[1::-1] + data[2:] if len(data) > 1 else data


@contextlib.contextmanager
def relay(identity: Identity, backend: int, *, to_client: Spoil = honest, to_backend: Spoil = honest) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(identity.server_chain, identity.server_key)
    context.load_verify_locations(identity.authorities)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve = Relay(context, backend, to_client, to_backend).serve
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@contextlib.contextmanager
def refusing_after(generator: Generator, count: int) -> Iterator[int]:
    """A relay in front of the backend that closes every second connection at once after so many."""
    with (
        generator.backend() as backend,
        relay(generator.identity, backend) as port,
        socket.create_server(("127.0.0.1", 0)) as front,
    ):

        def serve() -> None:
            with contextlib.suppress(OSError):
                for number in itertools.count():
                    accepted, _ = front.accept()
                    if number >= count and number % 2:
                        accepted.close()
                    else:
                        threading.Thread(target=splice, args=(accepted, port), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield front.getsockname()[1]
        finally:
            front.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def splice(accepted: socket.socket, port: int) -> None:
    """Relay bytes between a connection and a port until either side has ended both ways."""
    with accepted, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as other:
        peers = {accepted: other, other: accepted}
        while peers:
            for source in select.select(list(peers), [], [], 20)[0]:
                if data := source.recv(16384):
                    peers[source].sendall(data)
                else:
                    peers.pop(source).shutdown(socket.SHUT_WR)


COUNTS = {"handshakes": (20, 4), "echo": (500, 8, 64), "upload": (300_000,), "download": (300_000,), "bulk": (300_000, 6)}


def run(generator: Generator, mode: str, port: int) -> list[str]:
    """What the load generator answers at the end; raises BenchError with its complaint."""
    with generator.client(mode, port, COUNTS[mode]) as client:
        assert client.expect("READY")[:3] == ["TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519"]
        client.tell("go")
        return client.expect("DONE")


def run_idle(generator: Generator, port: int) -> list[str]:
    with generator.client("idle", port) as client:
        for count in (3, 12):
            client.tell(str(count))
            assert client.expect("OPEN") == [str(count)]
        client.hang_up()
        return client.expect("DONE")


@pytest.mark.parametrize("mode", COUNTS)
def test_right_bytes_are_counted(generator: Generator, mode: str) -> None:
    with generator.backend() as backend, relay(generator.identity, backend) as port:
        assert run(generator, mode, port)[0] == str(COUNTS[mode][0])


@pytest.mark.parametrize("mode", COUNTS)
def test_the_same_load_is_put_on_a_relay_without_tls(generator: Generator, mode: str) -> None:
    with generator.backend() as backend, generator.client(mode, backend, COUNTS[mode], is_plain=True) as client:
        assert client.expect("READY") == ["TCP"]
        client.tell("go")
        assert client.expect("DONE")[0] == str(COUNTS[mode][0])


def test_each_unit_has_a_time_and_percentiles_are_in_order(generator: Generator) -> None:
    with generator.backend() as backend, relay(generator.identity, backend) as port:
        units, seconds, *percentiles, failed = map(float, run(generator, "handshakes", port))
        assert 0 < percentiles[0] <= percentiles[1] <= percentiles[2] <= percentiles[3] <= seconds * 1000
        assert (units, failed) == (20, 0)


def test_a_message_of_a_whole_record_comes_back(generator: Generator) -> None:
    with (
        generator.backend() as backend,
        relay(generator.identity, backend) as port,
        generator.client("echo", port, (40, 2, 16384)) as client,
    ):
        client.expect("READY")
        client.tell("go")
        assert client.expect("DONE")[0] == "40"


def test_connections_that_end_early_are_counted_as_failed(generator: Generator) -> None:
    with refusing_after(generator, 40) as port, generator.client("handshakes", port, (60, 1)) as client:
        client.expect("READY")
        client.tell("go")
        units, _seconds, *_percentiles, failed = client.expect("DONE")
        assert units == "60"
        assert int(failed) > 0


def test_a_late_relay_is_seen_in_all_that_was_due_meanwhile(generator: Generator) -> None:
    """At 500 messages per second a pause of 0.5 s delays 250 of them, by 0.25 s in the middle."""
    paused, pause = threading.Event(), 0.5

    def slow(data: bytes) -> bytes:
        if not paused.is_set() and len(data) == 64:
            paused.set()
            time.sleep(pause)
        return data

    with (
        generator.backend() as backend,
        relay(generator.identity, backend, to_client=slow) as port,
        generator.client("paced", port, (1, 1, 0, 500)) as client,
    ):
        client.expect("READY")
        assert paused.wait(20)
        late_ones: list[float] = []
        while not late_ones:  # the first report after the pause
            time.sleep(0.05)
            client.tell("report")
            _late, _failed, *values = client.expect("PACED")
            late_ones = [float(value) for value in values[6:]] if int(values[5]) > 10 else []
        median, *_rest, longest = late_ones
        assert longest >= pause * 1000 * 0.9
        assert longest / 4 <= median  # not only the one message that was under way


def test_idle_connections_are_opened_and_tried_again(generator: Generator) -> None:
    with generator.backend() as backend, relay(generator.identity, backend) as port:
        assert run_idle(generator, port)[0] == "12"


def run_paced(generator: Generator, port: int) -> None:
    """Wait until a new connection and a message on an open one were answered."""
    with generator.client("paced", port, (1, 1, 50, 50)) as client:
        assert client.expect("READY") == ["1"]
        opened = echoed = 0
        while not (opened and echoed):
            time.sleep(0.05)
            client.tell("report")
            _late, failed, *values = client.expect("PACED")
            opened, echoed = opened + int(values[0]), echoed + int(values[5])
            assert failed == "0"


def test_new_connections_and_messages_are_counted_at_a_fixed_rate(generator: Generator) -> None:
    with generator.backend() as backend, relay(generator.identity, backend) as port:
        run_paced(generator, port)


def test_a_wrong_byte_ends_the_load_at_a_fixed_rate(generator: Generator) -> None:
    with (
        generator.backend() as backend,
        relay(generator.identity, backend, to_client=swapped) as port,
        pytest.raises(BenchError, match="wrong bytes came back"),
    ):
        run_paced(generator, port)


@pytest.mark.parametrize(
    ("mode", "to_client", "to_backend", "complaint"),
    [
        ("handshakes", flipped, honest, "wrong byte"),
        ("handshakes", honest, flipped, "wrong byte"),
        ("echo", flipped, honest, "wrong byte"),
        ("echo", swapped, honest, "wrong bytes came back"),
        ("upload", honest, flipped_when_large, "the backend saw wrong bytes, 300000 of 300000"),
        ("upload", honest, shortened, "of 300000"),
        ("upload", flipped, honest, "the backend saw"),
        ("download", flipped_when_large, honest, "download: wrong bytes"),
        ("download", shortened, honest, "download: "),
    ],
)
def test_a_wrong_byte_ends_the_run(
    generator: Generator, mode: str, to_client: Spoil, to_backend: Spoil, complaint: str
) -> None:
    with (
        generator.backend() as backend,
        relay(generator.identity, backend, to_client=to_client, to_backend=to_backend) as port,
        pytest.raises(BenchError, match=complaint),
    ):
        run(generator, mode, port)


def test_an_idle_connection_that_answers_wrongly_ends_the_run(generator: Generator) -> None:
    with (
        generator.backend() as backend,
        relay(generator.identity, backend, to_client=flipped) as port,
        pytest.raises(BenchError, match="wrong byte: sent 0x61, got 0x60 back"),
    ):
        run_idle(generator, port)


def test_a_server_of_another_authority_is_refused(generator: Generator, tmp_path: Path) -> None:
    with (
        open_identity(tmp_path) as stranger,
        generator.backend() as backend,
        relay(stranger, backend) as port,
        pytest.raises(BenchError, match="certificate verify failed"),
    ):
        run(generator, "handshakes", port)


def test_a_header_before_the_first_byte_is_passed_over_however_it_is_cut(generator: Generator) -> None:
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(range(0x61, 0x6D))
    with generator.backend() as port:
        for cut in range(len(header) + 2):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
                for piece in filter(None, ((header + b"ab")[:cut], (header + b"ab")[cut:])):
                    plain.sendall(piece)
                    time.sleep(0.01)  # so that mostly it is read in two pieces; it must be right in any case
                plain.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda plain=plain: plain.recv(100), b"")) == b"ab"  # type: ignore[misc]
