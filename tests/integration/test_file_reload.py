"""Certificates on disk are renewed while a proxy serves: all at once or not at all, told everywhere, and under load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from tests.support.certificate_files import Pki, replace
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, eventually
from tests.support.requirements import program
from tests.support.tls_peer import TlsPeer, tls_connection

SIGNALS = [signal.SIGHUP, signal.SIGUSR1]
DONE = "reloading configuration complete"


class Renewed:
    """A server proxy whose files the test replaces, and its status port."""

    def __init__(self, file_identities: FileIdentities, *flags: str) -> None:
        self.file_identities = file_identities
        self.path = file_identities.directory / "status"
        self.count = 0
        self.files = file_identities.pki.leaf("server", dns=("localhost",), ips=("127.0.0.1",), file="live")
        self.backend = file_identities.enter(Backend(echo))
        self.proxy = file_identities.serve(self.backend.target, *flags, f"--status=unix:{self.path}", files=self.files)
        assert self.proxy.address

    def renew(self) -> int:
        """Replace chain and key by new ones; the new serial number."""
        self.count += 1
        files = self.file_identities.pki.leaf("server", dns=("localhost",), ips=("127.0.0.1",), file=f"new-{self.count}")
        replace(self.files.key, files.key.read_bytes())
        replace(self.files.chain, files.chain.read_bytes())
        return files.leaf.serial_number

    def reload(self, number: signal.Signals = signal.SIGHUP) -> None:
        """Ask for a reload and wait until it is over."""
        before = len(self.proxy.matches(DONE))
        self.proxy.signal(number)
        self.proxy.wait_for(DONE, count=before + 1)

    def serial(self) -> int:
        """Of the certificate that a new connection sees."""
        with tls_connection(self.proxy.address, self.file_identities.client_files) as peer:
            peer.send(b"x")
            assert peer.receive_exactly(1) == b"x"
            return serial_of(peer)

    def status(self) -> dict[str, Any]:
        return json.loads(self.ask("_status"))

    def has_moved(self, last_reload: str) -> bool:
        return bool(self.status()["last_reload"] != last_reload)

    def metric(self, name: str) -> float:
        lines = self.ask("_metrics/prometheus").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def ask(self, path: str) -> str:
        argv = [program("curl"), "-sS", "--unix-socket", str(self.path), f"http://status/{path}"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=True).stdout


def serial_of(peer: TlsPeer) -> int:
    leaf = peer.tls.get_peer_certificate(as_cryptography=True)
    assert leaf is not None
    return leaf.serial_number


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_brings_the_new_certificate_and_leaves_open_connections_alone(
    file_identities: FileIdentities, number: signal.Signals
) -> None:
    live = Renewed(file_identities)
    with tls_connection(live.proxy.address, file_identities.client_files) as old:
        first = live.status()
        assert first["last_reload"] == "0001-01-01T00:00:00Z"
        wanted = live.renew()
        assert live.serial() != wanted
        live.reload(number)
        assert live.serial() == wanted
        second = live.status()
        assert (second["certificate_reload"], second["message"], second["generation"]) == ("ok", "listening", 2)
        assert second["last_reload"] > first["time"]
        old.send(b"still")
        assert old.receive_exactly(5) == b"still"
    assert live.proxy.matches("loaded certificate: CN=server$")


def test_last_reload_moves_when_the_new_certificate_is_live(file_identities: FileIdentities) -> None:
    """As scripts do: wait for a change, and connect at once."""
    live = Renewed(file_identities)
    before = live.status()["last_reload"]
    for _ in range(3):
        wanted = live.renew()
        live.proxy.signal(signal.SIGHUP)
        eventually(partial(live.has_moved, before), "last_reload moves")
        assert live.serial() == wanted
        before = live.status()["last_reload"]


def test_a_timer_reloads_without_being_asked(file_identities: FileIdentities) -> None:
    live = Renewed(file_identities, "--timed-reload=200ms")
    wanted = live.renew()
    eventually(lambda: live.serial() == wanted, "the new certificate is live")
    assert not live.proxy.matches("received")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    replace(path, path.read_bytes().replace(b"M", b"?", 3))


def exchange_for_another(path: Path) -> None:
    replace(path, path.with_name("server-p256.key").read_bytes())


BREAKAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("chain", empty),
    ("chain", garble),
    ("chain", Path.unlink),
    ("key", empty),
    ("key", exchange_for_another),
    ("cacert", empty),
    ("cacert", garble),
    ("cacert", Path.unlink),
]


def test_whatever_is_broken_keeps_everything_old_and_is_told_everywhere(file_identities: FileIdentities) -> None:
    live = Renewed(file_identities)
    old = live.serial()
    for failures, (name, damage) in enumerate(BREAKAGES, 1):
        path = file_identities.pki.cacert if name == "cacert" else getattr(live.files, name)
        kept = {each: each.read_bytes() for each in (live.files.chain, live.files.key, file_identities.pki.cacert)}
        if name == "cacert":
            live.renew()  # is good, and not used either
        before = live.status()["last_reload"]
        damage(path)
        live.reload()
        assert live.serial() == old, (name, damage)
        document = live.status()
        assert document["ok"]
        assert document["certificate_reload"].startswith("failed: "), (name, damage)
        assert path.name in document["certificate_reload"]
        assert document["last_reload"] > before
        assert len(live.proxy.matches("error reloading TLS configuration: .*; keeping the previous configuration")) == failures
        for each, text in kept.items():
            replace(each, text)
    wanted = live.renew()
    live.reload()
    assert live.serial() == wanted
    assert live.status()["certificate_reload"] == "ok"
    counts = [live.metric(f'ghostunnel_reload_{what}_total{{what="certificates"}}') for what in ("successes", "failures")]
    assert counts == [2, len(BREAKAGES)]


def test_authorities_are_reloaded_with_the_certificate(file_identities: FileIdentities) -> None:
    live = Renewed(file_identities)
    other = file_identities.pki.authority("another root", None)
    newcomer = file_identities.pki.leaf("client", issuer=other, file="newcomer")
    with pytest.raises(SSL.Error), tls_connection(live.proxy.address, newcomer) as peer:
        peer.receive()
    file_identities.pki.bundle("ca", other)
    live.reload()
    with tls_connection(live.proxy.address, newcomer) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"
    with pytest.raises(SSL.Error), tls_connection(live.proxy.address, file_identities.client_files) as peer:
        peer.receive()


def test_a_mounted_secret_is_followed_as_kubernetes_swaps_it(file_identities: FileIdentities) -> None:
    """Files are links into `..data`, a link that is renamed over."""
    mount = file_identities.directory / "mount"
    mount.mkdir()

    def put(number: int) -> int:
        files = file_identities.pki.leaf("server", ips=("127.0.0.1",), file=f"secret-{number}")
        place = mount / f"..{number}"
        place.mkdir()
        (place / "tls.crt").write_bytes(files.chain.read_bytes())
        (place / "tls.key").write_bytes(files.key.read_bytes())
        (mount / "..tmp").symlink_to(place.name)
        (mount / "..tmp").rename(mount / "..data")
        return files.leaf.serial_number

    first = put(1)
    for name in ("tls.crt", "tls.key"):
        (mount / name).symlink_to(f"..data/{name}")
    target = file_identities.enter(Backend(echo)).target
    flags = f"--cert={mount}/tls.crt", f"--key={mount}/tls.key", f"--cacert={file_identities.pki.cacert}", "--allow-all"
    proxy = file_identities.start("server", "--listen=127.0.0.1:0", f"--target={target}", *flags)

    def serial() -> int:
        with tls_connection(proxy.address, file_identities.client_files) as peer:
            return serial_of(peer)

    assert serial() == first
    second = put(2)
    proxy.signal(signal.SIGHUP)
    proxy.wait_for(DONE)
    assert serial() == second


def test_a_client_shows_its_new_certificate(file_identities: FileIdentities) -> None:
    server = file_identities.serve(file_identities.enter(Backend(echo)).target)
    files = file_identities.pki.leaf("first", file="mine")
    client = file_identities.call(server.target, files=files)
    for name in ("first", "second"):
        renewed = file_identities.pki.leaf(name, file=f"mine-{name}")
        replace(files.combined, renewed.combined.read_bytes())
        replace(files.key, renewed.key.read_bytes())
        replace(files.chain, renewed.chain.read_bytes())
        assert client.address
        client.signal(signal.SIGHUP)
        client.wait_for(DONE, count=1 if name == "first" else 2)
        with connect(client.address) as plain:
            plain.sendall(b"x")
            assert plain.recv(1) == b"x"
        server.wait_for(rf"opening pipe: .*\[CN={name}\]")


@pytest.mark.parametrize(
    "flags", [[], ["-legacy", "-descert"], ["-keypbe", "NONE", "-certpbe", "NONE"]], ids=["aes", "legacy", "bare"]
)
@pytest.mark.parametrize("password", ["", "secret"])
def test_a_keystore_is_a_certificate_too(file_identities: FileIdentities, flags: list[str], password: str) -> None:
    store = file_identities.server_files.pkcs12(password, *flags)
    target = file_identities.enter(Backend(echo)).target
    line = f"--keystore={store}", f"--storepass={password}", f"--cacert={file_identities.pki.cacert}", "--allow-all"
    proxy = file_identities.start("server", "--listen=127.0.0.1:0", f"--target={target}", *line)
    with tls_connection(proxy.address, file_identities.client_files) as peer:
        assert serial_of(peer) == file_identities.server_files.leaf.serial_number
        assert len(peer.tls.get_peer_cert_chain(as_cryptography=True) or ()) == 2


def test_twenty_reloads_lose_nothing_while_twenty_connections_pump(file_identities: FileIdentities) -> None:
    live = Renewed(file_identities)
    stop, failures, totals = threading.Event(), [], []
    block = os.urandom(16384)

    def pump() -> None:
        total = 0
        try:
            with tls_connection(live.proxy.address, file_identities.client_files) as peer:
                while not stop.is_set():
                    peer.send(block)
                    assert peer.receive_exactly(len(block)) == block
                    total += 1
                peer.end()
                assert peer.receive_all() == b""
                assert peer.has_ended
        except (OSError, SSL.Error, AssertionError) as error:
            failures.append(error)
        totals.append(total)

    threads = [threading.Thread(target=pump) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        live.proxy.wait_for("opening pipe", count=20)
        began = time.monotonic()
        for number in range(20):
            wanted = live.renew()
            live.reload(SIGNALS[number % 2])
            assert live.serial() == wanted
            stop.wait(max(0.0, began + (number + 1) * 0.25 - time.monotonic()))  # the pace, where the machine is fast enough
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT)
    assert failures == []
    assert min(totals) > 0
    assert live.proxy.stop() == 0
    assert live.proxy.matches("stopped accepted=40 relayed=40 ")


def test_a_reload_that_landlock_denies_names_it_and_the_path(
    file_identities: FileIdentities, tmp_path_factory: pytest.TempPathFactory
) -> None:
    live = Renewed(file_identities)
    if not live.proxy.matches("setting up landlock") or live.proxy.matches("unable to set up landlock"):
        pytest.skip("no Landlock here")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "new.pem"
    elsewhere.write_bytes(live.files.chain.read_bytes())
    live.files.chain.unlink()
    live.files.chain.symlink_to(elsewhere)
    live.reload()
    (line,) = live.proxy.matches("error reloading TLS configuration: ")
    assert (
        f"permission denied; Landlock denies '{elsewhere.resolve()}', which was not part of the configuration at start" in line
    )
    assert "Landlock" in live.status()["certificate_reload"]
    assert live.serial()


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["tls12", "tls13"])
def test_a_peer_that_a_reload_in_its_handshake_excludes_is_refused(file_identities: FileIdentities, version: int) -> None:
    backend = file_identities.enter(Backend(echo))
    proxy = file_identities.serve(backend.target)
    other = Pki(file_identities.directory, "other")
    with connect(proxy.address) as sock:
        peer = TlsPeer(sock, file_identities.client_files, version=version)
        peer.begin_handshake()
        replace(file_identities.pki.cacert, other.cacert.read_bytes())
        proxy.signal(signal.SIGHUP)
        proxy.wait_for(DONE)
        with suppress(SSL.Error):
            peer.shake_hands()
            assert peer.receive() == b"", "nothing is relayed"
    proxy.wait_for("error on TLS handshake from .* reason=unknown-authority$")
    assert backend.accepted == 0
