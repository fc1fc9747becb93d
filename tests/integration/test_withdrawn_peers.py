"""A peer that transfers is cut when its access is withdrawn, by real processes; its neighbours lose no byte."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.certificate_files import Pki, replace
from tests.support.config_files import ServedFile
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, Proxy
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import CLIENT, FOREIGNER, SERVER, STRANGER, Identity, Workloads

CHUNK = bytes(range(256)) * 16


class Transfer:
    """A connection through a proxy that sends all the time, and compares what an echoing target returns."""

    def __init__(self, peer: TlsPeer | socket.socket) -> None:
        self._peer = peer
        self.rounds = 0
        self.is_wrong = self.is_cut = False
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while not self._is_stopping.is_set():
                data = self._exchange()
                if len(data) < len(CHUNK):
                    break
                self.is_wrong = self.is_wrong or data != CHUNK
                self.rounds += 1
        self.is_cut = not self._is_stopping.is_set()

    def _exchange(self) -> bytes:
        if isinstance(self._peer, TlsPeer):
            self._peer.send(CHUNK)
            return self._peer.receive_exactly(len(CHUNK))
        self._peer.sendall(CHUNK)
        data = b""
        while len(data) < len(CHUNK) and (piece := self._peer.recv(len(CHUNK))):
            data += piece
        return data

    def wait_until_cut(self) -> None:
        self._thread.join(LIMIT)
        assert self.is_cut, "the transfer goes on"

    def assert_continues(self) -> None:
        self._is_stopping.set()
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()
        assert (self.is_cut, self.is_wrong) == (False, False)
        assert self.rounds

    def close(self) -> None:
        self._is_stopping.set()
        self._thread.join(LIMIT)


@contextmanager
def transferring(proxy: Proxy, identity: Identity | None) -> Iterator[Transfer]:
    """A transfer by a TLS client, or by a plain program if it has no identity."""
    if identity is None:
        with connect(proxy.address) as sock:
            transfer = Transfer(sock)
            try:
                yield transfer
            finally:
                transfer.close()
        return
    with tls_connection(proxy.address, identity) as peer:
        transfer = Transfer(peer)
        try:
            yield transfer
        finally:
            transfer.close()


@pytest.fixture
def target(workloads: Workloads) -> str:
    return workloads.enter(Backend(echo)).target


def test_a_client_whose_trust_domain_is_withdrawn_is_cut_and_its_neighbour_is_not(workloads: Workloads, target: str) -> None:
    workloads.federate()
    proxy = workloads.server(target, rules=["--allow-id", FOREIGNER, "--allow-id", CLIENT])
    with (
        transferring(proxy, workloads.identity(FOREIGNER)) as foreigner,
        transferring(proxy, workloads.identity(CLIENT)) as neighbour,
    ):
        proxy.wait_for("opening pipe", count=2)
        workloads.separate()
        foreigner.wait_until_cut()
        proxy.wait_for(f"closing connection: .* peer={FOREIGNER} rule=id:{FOREIGNER} reason=unknown-trust-domain$")
        proxy.wait_for(f"closed pipe: .* peer={FOREIGNER} .* end=withdrawn$")
        neighbour.assert_continues()


def test_a_server_whose_trust_domain_is_withdrawn_is_cut(workloads: Workloads, target: str) -> None:
    workloads.federate()
    flags = "--listen=127.0.0.1:0", f"--target={target}", "--disable-authentication"  # else the server may cut it first
    server = workloads.proxy("server", FOREIGNER, *flags)
    proxy = workloads.client(f"127.0.0.1:{server.address[1]}", rules=["--verify-id", FOREIGNER])
    with transferring(proxy, None) as transfer:
        proxy.wait_for("opening pipe")
        workloads.separate()
        transfer.wait_until_cut()
        proxy.wait_for(f"closing connection: .* peer={FOREIGNER} rule=id:{FOREIGNER} reason=unknown-trust-domain$")


def test_a_rotation_cuts_nobody(workloads: Workloads, target: str) -> None:
    proxy = workloads.server(target)
    with transferring(proxy, workloads.identity(CLIENT)) as transfer:
        proxy.wait_for("opening pipe")
        workloads.api.rotate_svids()
        proxy.wait_for(f"identity updated: spiffe_id={SERVER} generation=2")
        transfer.assert_continues()


def test_a_client_whose_authority_is_removed_from_the_file_is_cut(file_identities: FileIdentities) -> None:
    place = file_identities.directory
    other = Pki(place, "other")
    cacert = place / "both.pem"
    ours = file_identities.pki.cacert.read_bytes()
    replace(cacert, ours + other.cacert.read_bytes())
    echoing = file_identities.enter(Backend(echo)).target
    files = file_identities.server_files
    flags = "--listen=127.0.0.1:0", f"--target={echoing}", f"--cert={files.chain}", f"--key={files.key}", f"--cacert={cacert}"
    proxy = file_identities.start("server", *flags, "--allow-all")
    with (
        transferring(proxy, other.leaf("stranger")) as stranger,
        transferring(proxy, file_identities.client_files) as neighbour,
    ):
        proxy.wait_for("opening pipe", count=2)
        replace(cacert, ours)
        proxy.signal(signal.SIGHUP)
        stranger.wait_until_cut()
        proxy.wait_for("closing connection: .* reason=unknown-authority$")
        neighbour.assert_continues()


def test_a_client_whose_certificate_is_revoked_is_cut(file_identities: FileIdentities) -> None:
    pki, stranger = file_identities.pki, file_identities.pki.leaf("stranger")
    lists = pki.revocation_list("root", pki.root), pki.revocation_list("middle", pki.middle)
    proxy = file_identities.serve(file_identities.enter(Backend(echo)).target, *(f"--crl={path}" for path in lists))
    with (
        transferring(proxy, stranger) as revoked,
        transferring(proxy, file_identities.client_files) as neighbour,
    ):
        proxy.wait_for("opening pipe", count=2)
        pki.revocation_list("middle", pki.middle, stranger.leaf)
        proxy.signal(signal.SIGHUP)
        revoked.wait_until_cut()
        proxy.wait_for("closing connection: .* reason=revoked$")
        neighbour.assert_continues()


def test_a_client_whose_rule_is_removed_from_the_configuration_file_is_cut(workloads: Workloads, target: str) -> None:
    served = ServedFile(workloads)
    both = f'[{{ allow = "{STRANGER}" }}, {{ allow = "{CLIENT}" }}]'
    served.add("one", target, access=both)
    served.add("lenient", target, 'on-withdrawal = "keep"', access=both)
    process = served.start()
    with (
        served.connect("one", STRANGER) as stranger,
        served.connect("one") as neighbour,
        served.connect("lenient", STRANGER) as kept,
    ):
        transfers = [Transfer(peer) for peer in (stranger, neighbour, kept)]
        try:
            process.wait_for("opening pipe", count=3)
            for name in served.servers:
                served.servers[name] = served.servers[name].replace(f'{{ allow = "{STRANGER}" }}, ', "")
            served.write()
            process.signal(signal.SIGHUP)
            transfers[0].wait_until_cut()
            process.wait_for(f"closing connection: .* peer={STRANGER} rule=id:{STRANGER} reason=no-matching-rule listener=one$")
            for transfer in transfers[1:]:
                transfer.assert_continues()
        finally:
            for transfer in transfers:
                transfer.close()
