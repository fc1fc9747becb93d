"""Revocation in real processes: the revoked client is refused from the next reload or update on, and its neighbour is not."""

from __future__ import annotations

import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.cert_factory import MadeCertificate, authority, key_of, leaf
from tests.support.certificate_files import HOUR, Files
from tests.support.file_identities import FileIdentities
from tests.support.openssl_command import alert_of, s_client
from tests.support.plain_backends import Backend, echo
from tests.support.processes import LIMIT, Proxy
from tests.support.requirements import program
from tests.support.revocation_lists import encode_list
from tests.support.tls_peer import tls_connection
from tests.support.workloads import SERVER, Identity, Workloads
from tunnel.devapi.api import SVIDS
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, encode_x509_svid_response

RELOADED = "reloading configuration complete"
CERTIFICATE_REVOKED, BAD_CERTIFICATE = 44, 42


def assert_serves(proxy: Proxy, who: Identity) -> None:
    with tls_connection(proxy.address, who) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


def reload(proxy: Proxy) -> None:
    before = len(proxy.matches(RELOADED))
    proxy.signal(signal.SIGHUP)
    proxy.wait_for(RELOADED, count=before + 1)


class Listed:
    """A server proxy with the lists of both authorities, and two clients."""

    def __init__(self, made: FileIdentities, *flags: str) -> None:
        self._made, self.pki = made, made.pki
        self.lists = self.pki.revocation_list("root", self.pki.root), self.pki.revocation_list("middle", self.pki.middle)
        self.good, self.bad = made.client_files, self.pki.leaf("revoked")
        named = [f"--crl={path}" for path in self.lists]
        self.proxy = made.serve(made.enter(Backend(echo)).target, *named, *flags)
        assert self.proxy.address

    def alert(self, who: Identity) -> int:
        """The alert with which a client is refused."""
        return alert_of(s_client(self._made, self.proxy.address, who))

    def revoke(self, *clients: Files, ends_in: timedelta = HOUR) -> None:
        """Replace the list of the issuer, and reload."""
        self.pki.revocation_list("middle", self.pki.middle, *(one.leaf for one in clients), ends_in=ends_in)
        reload(self.proxy)


def test_a_revoked_client_is_refused_after_a_reload_and_its_neighbour_is_not(file_identities: FileIdentities) -> None:
    listed = Listed(file_identities)
    for who in (listed.good, listed.bad):
        assert_serves(listed.proxy, who)
    with tls_connection(listed.proxy.address, listed.good) as neighbour:
        listed.revoke(listed.bad)
        assert listed.alert(listed.bad) == CERTIFICATE_REVOKED
        listed.proxy.wait_for("revoked: certificate 1 of the path .*CN=revoked.* reason=revoked")
        neighbour.send(b"still")
        assert neighbour.receive_exactly(5) == b"still"
    assert_serves(listed.proxy, listed.good)
    listed.revoke()  # for example, a certificate that was on hold
    assert_serves(listed.proxy, listed.bad)


def test_an_expired_list_refuses_every_peer_or_is_accepted_with_a_warning(file_identities: FileIdentities) -> None:
    strict, lenient = Listed(file_identities), Listed(file_identities, "--crl-missing=accept")
    for listed in (strict, lenient):
        listed.revoke(listed.bad, ends_in=-HOUR)
        listed.proxy.wait_for("warning: revocation list of 'CN=pki intermediate' expired at ")
    assert strict.alert(strict.good) == BAD_CERTIFICATE
    strict.proxy.wait_for("reason=no-revocation-list")
    assert_serves(lenient.proxy, lenient.good)
    lenient.proxy.wait_for("warning: certificate accepted without a valid revocation list: ")
    assert lenient.alert(lenient.bad) == CERTIFICATE_REVOKED


def test_metrics_have_the_time_when_the_first_list_expires(file_identities: FileIdentities) -> None:
    path = file_identities.directory / "status"
    listed = Listed(file_identities, f"--status=unix:{path}")
    argv = [program("curl"), "-sS", "--unix-socket", str(path), "http://status/_metrics/prometheus"]
    text = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("ghostunnel_revocation_expiry_timestamp_seconds")]
    left = float(line.split()[-1]) - datetime.now(UTC).timestamp()
    assert 0 < left < HOUR.total_seconds()
    assert listed.proxy.address


def test_a_broken_list_keeps_the_previous_ones(file_identities: FileIdentities) -> None:
    listed = Listed(file_identities)
    listed.revoke(listed.bad)
    listed.lists[1].write_bytes(b"rubbish")
    reload(listed.proxy)
    listed.proxy.wait_for("error reloading TLS configuration: .*middle.crl.*keeping the previous configuration")
    assert listed.alert(listed.bad) == CERTIFICATE_REVOKED
    assert_serves(listed.proxy, listed.good)


class Agent:
    """A trust domain whose agent sends revocation lists."""

    def __init__(self, workloads: Workloads) -> None:
        self._workloads = workloads
        now = datetime.now(UTC)
        self._dates = {"start": now - HOUR, "end": now + HOUR}
        self._root = authority(key=key_of("p256", 560), **self._dates)
        self._server = leaf(SERVER, issuer=self._root, **self._dates)

    def client(self, name: str) -> tuple[MadeCertificate, Identity]:
        made = leaf(f"spiffe://a.test/{name}", issuer=self._root, **self._dates)
        return made, self._workloads._write(name, made.certificate.pem, made.key_pem)

    def send(self, *revoked: MadeCertificate) -> None:
        """Publish the SVID of the server with a new list, and with one that cannot be read."""
        serials = [one.certificate.serial_number for one in revoked]
        lists = (b"noise", encode_list(self._root, *serials, begin=self._dates["start"], end=self._dates["end"]))
        entry = SvidEntry(SERVER, self._server.der, self._server.key_der, self._root.der)
        message = encode_x509_svid_response(X509SvidResponse((entry,), lists))
        self._workloads.api.publish(self._workloads.sockets[SERVER], SVIDS, message)


def test_a_revoked_client_is_refused_after_an_update_and_its_neighbour_is_not(workloads: Workloads, tmp_path: Path) -> None:
    agent = Agent(workloads)
    (_, good), (revoked, bad) = agent.client("good"), agent.client("bad")
    agent.send()
    proxy = workloads.server(workloads.enter(Backend(echo)).target, rules=("--allow-trust-domain", "a.test"))
    for who in (good, bad):
        assert_serves(proxy, who)
    agent.send(revoked)
    proxy.wait_for("revocation lists updated: .* generation=2 ")
    assert alert_of(s_client(workloads, proxy.address, bad)) == CERTIFICATE_REVOKED
    proxy.wait_for("reason=revoked")
    assert_serves(proxy, good)
    assert len(proxy.matches("warning: revocation list 1 of 2 skipped: not a revocation list")) == 1
