"""Strangers, relics and odd peers meet a real proxy: each is told no in the right words, and nothing is forwarded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.openssl_command import alert_of, s_client, s_server
from tests.support.plain_backends import Backend, connect, echo, receive_all
from tests.support.processes import Process, Proxy, eventually
from tests.support.tls_peer import tls_connection
from tests.support.workloads import CLIENT, FOREIGNER, SERVER, STRANGER, Workloads

VERSIONS = ["-tls1_2", "-tls1_3"]
BAD_CERTIFICATE, CERTIFICATE_EXPIRED, HANDSHAKE_FAILURE, UNKNOWN_CA, PROTOCOL_VERSION, CERTIFICATE_REQUIRED = (
    42,
    45,
    40,
    48,
    70,
    116,
)


class GuardedServer:
    """A server proxy that admits the client, and the backend behind it."""

    def __init__(self, workloads: Workloads) -> None:
        self.workloads = workloads
        self.backend = workloads.enter(Backend(echo))
        self.proxy = workloads.server(self.backend.target)

    def client(self, who: str | None, *flags: str) -> Process:
        """openssl at the gate, with the SVID of a workload or without any."""
        return s_client(self.workloads, self.proxy.address, self.workloads.identity(who) if who else None, *flags)

    def generation(self) -> int:
        return len(self.proxy.matches("identity updated: .* generation="))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    with closing(Workloads(tmp_path_factory.mktemp("guarded"))) as workloads:
        yield GuardedServer(workloads)


@pytest.fixture
def guarded(shared: GuardedServer) -> Iterator[GuardedServer]:
    """A gate that serves its client after each test as well as before."""
    yield shared
    with tls_connection(shared.proxy.address, shared.workloads.identity(CLIENT)) as peer:
        peer.send(b"still")
        assert peer.receive_exactly(5) == b"still"


def converse(client: Process) -> None:
    """Something there and back, then a good end."""
    client.say("ping")
    client.wait_for("^ping$")
    client.say("Q")
    assert client.exit_code() == 0


def assert_full_handshake(client: Process) -> None:
    """A client that offered an old session is served, but not by that."""
    converse(client)
    assert client.matches("^New, TLSv1")
    assert not client.matches("^Reused")


# -- sessions


@pytest.mark.parametrize("is_rotated", [False, True])
def test_a_tls_1_3_session_is_never_resumed(guarded: GuardedServer, tmp_path: Path, is_rotated: bool) -> None:
    session = tmp_path / "session"
    converse(guarded.client(CLIENT, "-tls1_3", "-sess_out", str(session)))
    assert session.stat().st_size
    if is_rotated:
        number = guarded.generation()
        guarded.workloads.api.rotate_svids()
        guarded.proxy.wait_for(f"generation={number + 1} ")
    assert_full_handshake(guarded.client(CLIENT, "-tls1_3", "-sess_in", str(session)))


def test_a_tls_1_2_session_cannot_even_be_kept(guarded: GuardedServer, tmp_path: Path) -> None:
    session = tmp_path / "session"
    client = guarded.client(CLIENT, "-tls1_2", "-sess_out", str(session))
    converse(client)
    assert client.matches(r"Session-ID: $")
    assert not session.exists()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_of_another_server_is_a_full_handshake(guarded: GuardedServer, tmp_path: Path, version: str) -> None:
    session = tmp_path / "session"
    _, port = s_server(guarded.workloads, guarded.workloads.identity(SERVER))
    other = s_client(
        guarded.workloads, ("127.0.0.1", port), guarded.workloads.identity(CLIENT), version, "-sess_out", str(session)
    )
    eventually(lambda: session.exists() and session.stat().st_size > 0, "a session is saved")
    other.say("Q")
    assert_full_handshake(guarded.client(CLIENT, version, "-sess_in", str(session)))


def test_renegotiation_is_refused(guarded: GuardedServer) -> None:
    client = guarded.client(CLIENT, "-tls1_2")
    client.say("ping")
    client.wait_for("^ping$")
    client.say("R")
    client.wait_for("RENEGOTIATING")
    assert client.exit_code() != 0
    assert client.matches("no renegotiation")


# -- who is refused, and by which alert


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_an_old_protocol_is_refused(guarded: GuardedServer, version: str) -> None:
    assert alert_of(guarded.client(CLIENT, version, "-cipher", "ALL@SECLEVEL=0")) == PROTOCOL_VERSION


@pytest.mark.parametrize(("version", "alert"), [("-tls1_2", HANDSHAKE_FAILURE), ("-tls1_3", CERTIFICATE_REQUIRED)])
def test_a_client_without_a_certificate_is_refused(guarded: GuardedServer, version: str, alert: int) -> None:
    dialled, since = guarded.backend.accepted, len(guarded.proxy.lines)
    assert alert_of(guarded.client(None, version)) == alert
    guarded.proxy.wait_for("error on TLS handshake from 127.0.0.1:.*certificate", since)
    assert guarded.backend.accepted == dialled


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stranger_is_refused_and_named_in_the_log(guarded: GuardedServer, version: str) -> None:
    dialled, since = guarded.backend.accepted, len(guarded.proxy.lines)
    assert alert_of(guarded.client(STRANGER, version)) == BAD_CERTIFICATE
    guarded.proxy.wait_for(rf"error on TLS handshake from 127\.0\.0\.1:\d+: .*{STRANGER}.* reason=no-matching-rule$", since)
    assert guarded.backend.accepted == dialled


@pytest.mark.parametrize("version", VERSIONS)
def test_an_svid_of_an_unknown_trust_domain_is_refused(guarded: GuardedServer, version: str) -> None:
    since = len(guarded.proxy.lines)
    assert alert_of(guarded.client(FOREIGNER, version)) == UNKNOWN_CA
    guarded.proxy.wait_for(r"b\.test.* reason=unknown-trust-domain$", since)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_svid_of_an_impostor_of_our_trust_domain_is_refused(guarded: GuardedServer, tmp_path: Path, version: str) -> None:
    since = len(guarded.proxy.lines)
    with closing(Workloads(tmp_path, agent=False)) as impostor:
        assert alert_of(s_client(guarded.workloads, guarded.proxy.address, impostor.identity(CLIENT), version)) == UNKNOWN_CA
    guarded.proxy.wait_for(" reason=unknown-authority$", since)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_expired_svid_is_refused(guarded: GuardedServer, version: str) -> None:
    since = len(guarded.proxy.lines)
    expired = guarded.workloads.odd_identity(age=timedelta(hours=2))
    assert alert_of(s_client(guarded.workloads, guarded.proxy.address, expired, version)) == CERTIFICATE_EXPIRED
    guarded.proxy.wait_for(" reason=expired$", since)


def test_plain_http_is_closed_at_once(guarded: GuardedServer) -> None:
    dialled, since = guarded.backend.accepted, len(guarded.proxy.lines)
    with connect(guarded.proxy.address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(receive_all(sock)) <= 7  # an alert at most
    guarded.proxy.wait_for("error on TLS handshake from 127.0.0.1:.*http request", since)
    assert guarded.backend.accepted == dialled


def test_connecting_and_closing_is_counted_and_not_reported(workloads: Workloads) -> None:
    guarded = GuardedServer(workloads)
    with connect(guarded.proxy.address):
        pass
    converse(guarded.client(CLIENT))  # accepted later, so the other one is over
    assert guarded.proxy.stop() == 0
    assert guarded.proxy.lines[-1].endswith("stopped accepted=2 relayed=1 closed_without_data=1 close_notify=1")
    assert not guarded.proxy.matches("error")


@pytest.mark.parametrize("hostile", ["evil\n[1] a second line", "\x1b[31mred", "tab\there", "back\\slash", "[x]"])
def test_hostile_text_in_a_subject_stays_one_harmless_line(guarded: GuardedServer, hostile: str) -> None:
    since = len(guarded.proxy.lines)
    odd = guarded.workloads.odd_identity(dns_names=(hostile,))
    converse(s_client(guarded.workloads, guarded.proxy.address, odd))
    guarded.proxy.wait_for("closed pipe: .*CN=", since)
    assert len(guarded.proxy.matches("(opening|closed) pipe: .*CN=", since)) == 2
    new = guarded.proxy.lines[since:]
    assert all(line.isprintable() and hostile not in line and line.startswith(f"[{guarded.proxy.pid}] ") for line in new)


# -- the client proxy as the one who looks


def test_a_wrong_server_gets_an_alert_and_not_a_byte(workloads: Workloads) -> None:
    server, port = s_server(workloads, workloads.identity(STRANGER))
    proxy = workloads.client(f"127.0.0.1:{port}")
    with connect(proxy.address) as plain:
        plain.sendall(b"secret")
        with pytest.raises(ConnectionResetError):
            plain.recv(1)
    proxy.wait_for(
        rf"error on dial: TLS handshake with tcp:127\.0\.0\.1:{port}: .*{STRANGER} reason=no-matching-rule from=tcp:"
    )
    server.wait_for(f"SSL alert number {BAD_CERTIFICATE}")
    assert not server.matches("secret")


@pytest.mark.parametrize(("host", "is_sent"), [("localhost", True), ("127.0.0.1", False)])
def test_the_server_name_is_sent_if_it_is_a_name(workloads: Workloads, host: str, is_sent: bool) -> None:
    server, port = s_server(workloads, workloads.identity(SERVER), "-tlsextdebug")
    proxy = workloads.client(f"{host}:{port}")
    with connect(proxy.address) as plain:
        plain.sendall(b"hello\n")
        server.wait_for("hello")
    assert bool(server.matches('TLS client extension "server name"')) == is_sent
    assert bool(server.matches("localhost")) == is_sent  # in the extension's dump


def test_a_client_proxy_that_is_refused_says_so_and_resets_its_plain_side(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    server = workloads.server(backend.target, rules=("--allow-id", STRANGER))
    client = workloads.client(server.target)
    with connect(client.address) as plain, pytest.raises(ConnectionResetError):
        plain.recv(1)
    client.wait_for(r"error during copy: the peer refused us: .*bad certificate")
    client.wait_for(r"closed pipe: .* end=refused-by-peer$")
    server.wait_for(rf"error on TLS handshake from .*{CLIENT} reason=no-matching-rule$")
    assert backend.accepted == 0


def test_a_server_that_its_client_refuses_has_dialled_nothing(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(echo))
    server: Proxy = workloads.server(backend.target)
    client = workloads.client(server.target, rules=("--verify-id", STRANGER))
    with connect(client.address) as plain:
        assert plain.recv(1) == b""
    server.wait_for("error on TLS handshake from .*alert bad certificate")
    assert backend.accepted == 0
