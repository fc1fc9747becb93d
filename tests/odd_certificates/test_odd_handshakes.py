"""Odd certificates in real handshakes with a proxy: what is accepted gets its bytes through, what is refused gets none.

The peers are OpenSSL's, as Python's `ssl` module has it. A certificate that it cannot load is judged in
test_odd_certificates.py only.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.file_identities import FileIdentities
from tests.support.odd_certificates.cases import OK, Case
from tests.support.odd_certificates.factory import HOST, SPIFFE_ID, Made, Names
from tests.support.odd_certificates.keys import loaded
from tests.support.odd_certificates.peers import VERSIONS, peer_context, pem_of
from tests.support.odd_certificates.table import CASES, chain_of, is_expected
from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.processes import LIMIT, Proxy
from tests.support.workloads import SERVER, Workloads
from tunnel.devapi.api import SVIDS
from tunnel.errors import Denial
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, encode_x509_svid_response

HELLO = b"hello"
_ALERTS = {
    Denial.EXPIRED: "CERTIFICATE_EXPIRED",
    Denial.NOT_YET_VALID: "CERTIFICATE_EXPIRED",
    Denial.UNKNOWN_AUTHORITY: "UNKNOWN_CA",
}
# What OpenSSL refuses before our rules are asked, by the role of the proxy; docs/certificates.md has the reasons.
_NOT_DECODED = {f"dates: UTCTime without seconds in {position}" for position in ("leaf", "middle")}
_NO_SIGNER = ("no digitalSignature in leaf", "TLS 1.2")  # an EC certificate of a server
_FEWEST = 900  # cases that every OpenSSL can present
# Each case by one version of TLS, in turn, and every fourth case by both.
_PRESENTED = [
    (case, version)
    for number, case in enumerate(CASES)
    for turn, version in enumerate(VERSIONS)
    if number % 4 == 0 or number % 2 == turn or (case.name, version) == _NO_SIGNER
]
PRESENTED = pytest.mark.parametrize(
    ("case", "version"), _PRESENTED, ids=[f"{case.name}-{version}" for case, version in _PRESENTED]
)


class Field(NamedTuple):
    """The proxies, and what stands behind them."""

    server: Proxy
    spiffe: Proxy  # a server with an identity of a Workload API
    backend: Backend
    client: Proxy
    listener: socket.socket
    directory: Path


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("odd")
    trusted = directory / "trusted.pem"
    anchors = {one.der: one for case in CASES for one in chain_of(case).anchors}
    with (
        closing(FileIdentities(directory)) as file_identities,
        closing(Workloads(tmp_path_factory.mktemp("api"))) as workloads,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        listener.settimeout(LIMIT)
        trusted.write_text(pem_of(anchors.values()) + file_identities.pki.cacert.read_text())
        backend = file_identities.enter(Backend(echo))
        files = file_identities.server_files
        credentials = f"--cert={files.chain}", f"--key={files.key}", f"--cacert={trusted}", "--listen=127.0.0.1:0"
        server = file_identities.start("server", *credentials, f"--target={backend.target}", "--allow-all")
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        workloads.api.publish(workloads.sockets[SERVER], SVIDS, _update(anchors.values()))
        spiffe = workloads.server(backend.target, rules=("--allow-all",))
        client = file_identities.start("client", *credentials, f"--target={target}", f"--override-server-name={HOST}")
        yield Field(server, spiffe, backend, client, listener, directory)


def _update(anchors: Iterable[Made]) -> bytes:
    """A message of a Workload API: an SVID, and a bundle of all anchors and its own."""
    names = Names("our own SVID")
    root = names.root()
    svid = names.leaf(root)
    bundle = b"".join(one.der for one in (root, *anchors))
    key = loaded(svid.key).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encode_x509_svid_response(X509SvidResponse((SvidEntry(SPIFFE_ID, svid.der, key, bundle),)))


@PRESENTED
def test_a_client_with_odd_certificates_gets_the_verdict(field: Field, case: Case, version: str) -> None:
    context = peer_context(chain_of(case).sent, field.directory / "peer.pem", is_server=False, version=version)
    for role in ("server", "spiffe"):
        if context is None:  # no stock peer presents it: in process, then
            assert is_expected(case, role), role
        else:
            _check_verdict(field, context, case, role)


def _check_verdict(field: Field, context: ssl.SSLContext, case: Case, role: str) -> None:
    """A client gets its bytes back, or the alert of its refusal and no connection to the backend."""
    dialled, verdict = field.backend.accepted, getattr(case, role)
    alert = _echo_or_alert(getattr(field, role), context)
    if verdict == OK and case.name not in _NOT_DECODED:
        assert alert is None, role
    else:
        assert alert is not None, role
        assert not isinstance(verdict, Denial) or _ALERTS.get(verdict, "ALERT") in alert, role
        assert field.backend.accepted == dialled, role


def _echo_or_alert(proxy: Proxy, context: ssl.SSLContext) -> str | None:
    """The alert that a client gets, or None if its bytes come back."""
    with connect(proxy.address) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as peer:
                peer.sendall(HELLO)
                assert peer.recv(len(HELLO)) == HELLO
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
            return str(error)
    return None


@PRESENTED
def test_a_server_with_odd_certificates_gets_the_verdict(field: Field, case: Case, version: str) -> None:
    context = peer_context(chain_of(case).sent, field.directory / "peer.pem", is_server=True, version=version)
    if context is None:
        assert is_expected(case, "client")
        return
    is_accepted = case.client == OK and case.name not in _NOT_DECODED and (case.name, version) != _NO_SIGNER
    with connect(field.client.address) as plain:
        plain.sendall(HELLO)
        accepted, _ = field.listener.accept()
        got = _bytes_or_alert(accepted, context)
        assert got == HELLO if is_accepted else got != HELLO
        assert _receive(plain) == (HELLO if is_accepted else b"")


def _receive(plain: socket.socket) -> bytes:
    try:
        return receive_exactly(plain, len(HELLO))
    except ConnectionResetError:  # the proxy has not read what was sent
        return b""


def _bytes_or_alert(accepted: socket.socket, context: ssl.SSLContext) -> bytes | str:
    """What the proxy sends to a server that presents a chain, which sends it back; or the alert."""
    accepted.settimeout(LIMIT)
    try:
        with context.wrap_socket(accepted, server_side=True) as peer:
            got = peer.recv(len(HELLO))
            peer.sendall(got)
            return got
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError) as error:
        return str(error)
    finally:
        accepted.close()


def test_openssl_can_present_most_of_the_cases(field: Field) -> None:
    path = field.directory / "peer.pem"
    contexts = [peer_context(chain_of(case).sent, path, is_server=False, version="TLS 1.3") for case in CASES]
    assert len(contexts) - contexts.count(None) >= _FEWEST
