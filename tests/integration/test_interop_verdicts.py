"""Who passes with certificates on disk, and what a peer is told who does not: rules, pins, anchors, names and alerts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.certificate_files import FOR_CLIENTS, FOR_SERVERS, HOUR, Files, Pki, Signer
from tests.support.file_identities import FileIdentities
from tests.support.openssl_command import alert_of, s_client, s_server
from tests.support.plain_backends import Backend, connect, echo, receive_exactly
from tests.support.processes import Proxy
from tests.support.tls_peer import TlsPeer
from tests.support.workloads import Identity

BAD_CERTIFICATE, CERTIFICATE_EXPIRED, HANDSHAKE_FAILURE, UNKNOWN_CA, CERTIFICATE_REQUIRED = 42, 45, 40, 48, 116
VERSIONS = ["-tls1_2", "-tls1_3"]
LONG_AGO = {"start": datetime.now(UTC) - 48 * HOUR, "end": datetime.now(UTC) - 24 * HOUR}
LATER = {"start": datetime.now(UTC) + 24 * HOUR, "end": datetime.now(UTC) + 48 * HOUR}


class GuardedServer(FileIdentities):
    """A server proxy that admits every certificate of the authority, peers good and bad, and the backend behind."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.backend = self.enter(Backend(echo))
        self.other = Pki(directory, "other")
        self.proxy = self.serve(self.backend.target)

    def peer(self, what: str) -> Files | None:
        """A client's certificate with one thing wrong."""
        make: dict[str, Callable[[], Files | None]] = {
            "nobody": lambda: None,
            "a stranger": lambda: self.other.leaf("client"),
            "self-signed": lambda: self.pki.leaf("client", is_self_signed=True, file="self-signed"),
            "expired": lambda: self.pki.leaf("client", file="expired", **LONG_AGO),
            "from the future": lambda: self.pki.leaf("client", file="future", **LATER),
            "a server's only": lambda: self.pki.leaf("client", purposes=FOR_SERVERS, file="server-only"),
            "without its intermediate": lambda: self.pki.shown_with(self.client_files, "lonely"),
            "of an expired intermediate": lambda: self.pki.leaf(
                "client", issuer=self.pki.authority("expired", self.pki.root, **LONG_AGO), file="of-expired"
            ),
            "of a leaf": lambda: self.pki.leaf(
                "client", issuer=Signer(self.client_files.leaf, self.key_of(self.client_files), self.chain()), file="of-leaf"
            ),
        }
        return make[what]()

    def chain(self) -> tuple:
        return (self.client_files.leaf, self.pki.middle.certificate)

    @staticmethod
    def key_of(files: Files) -> object:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        return load_pem_private_key(files.key.read_bytes(), None)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    with closing(GuardedServer(tmp_path_factory.mktemp("guarded"))) as guarded:
        yield guarded


def is_admitted(proxy: Proxy, identity: Identity | None) -> bool:
    """Whether a client gets an echo; if not, that its handshake failed, and nothing else."""
    with connect(proxy.address) as sock:
        peer = TlsPeer(sock, identity)
        try:
            peer.shake_hands()
            peer.send(b"x")
            return peer.receive_exactly(1) == b"x"
        except SSL.Error:
            return False


def is_over(plain: socket.socket) -> bool:
    """Whether a plain connection ends without a byte; what it has said may be unread, and then the kernel resets it."""
    try:
        return plain.recv(1) == b""
    except ConnectionResetError:
        return True


# -- alerts


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("what", "alert", "reason"),
    [
        ("nobody", None, "no-certificate"),
        ("a stranger", UNKNOWN_CA, "unknown-authority"),
        ("self-signed", UNKNOWN_CA, "unknown-authority"),
        ("without its intermediate", UNKNOWN_CA, "unknown-authority"),
        ("expired", CERTIFICATE_EXPIRED, "expired"),
        ("from the future", CERTIFICATE_EXPIRED, "not-yet-valid"),
        ("of an expired intermediate", CERTIFICATE_EXPIRED, "expired"),
        ("a server's only", BAD_CERTIFICATE, "bad-extended-key-usage"),
        ("of a leaf", BAD_CERTIFICATE, "issuer-is-not-ca"),
    ],
)
def test_who_may_not_pass_is_told_why_by_an_alert(
    guarded: GuardedServer, what: str, alert: int | None, reason: str, version: str
) -> None:
    if alert is None:
        alert = CERTIFICATE_REQUIRED if version == "-tls1_3" else HANDSHAKE_FAILURE
    dialled, since = guarded.backend.accepted, len(guarded.proxy.lines)
    assert alert_of(s_client(guarded, guarded.proxy.address, guarded.peer(what), version)) == alert
    guarded.proxy.wait_for(rf"error on TLS handshake from 127\.0\.0\.1:\d+: .* reason={reason}$", since)
    assert guarded.backend.accepted == dialled


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", ["a stranger", "self-signed", "expired", "a client's only", "of another name"])
def test_our_client_tells_every_bad_server_the_same(guarded: GuardedServer, what: str, version: str) -> None:
    names = {"dns": ("localhost",)}
    make: dict[str, Callable[[], Files]] = {
        "a stranger": lambda: guarded.other.leaf("server", **names),
        "self-signed": lambda: guarded.pki.leaf("server", is_self_signed=True, file="server-self-signed", **names),
        "expired": lambda: guarded.pki.leaf("server", file="server-expired", **names, **LONG_AGO),
        "a client's only": lambda: guarded.pki.leaf("server", purposes=FOR_CLIENTS, file="client-only", **names),
        "of another name": lambda: guarded.pki.leaf("localhost", dns=("localhost.other",), file="other-name"),
    }
    server, port = s_server(guarded, make[what](), version)
    proxy = guarded.call(f"localhost:{port}")
    with connect(proxy.address) as plain:
        plain.sendall(b"secret")
        assert is_over(plain)
    server.wait_for(f"SSL alert number {BAD_CERTIFICATE}")
    assert not server.matches("secret")
    proxy.wait_for("error on dial: TLS handshake with ")


# -- what a server asks for


def authorities_asked_for(proxy: Proxy, identity: Identity) -> list[str]:
    with connect(proxy.address) as sock:
        peer = TlsPeer(sock, identity)
        peer.shake_hands()
        return [str(name.CN) for name in peer.tls.get_client_ca_list()]


def test_a_server_names_the_authorities_it_takes(guarded: GuardedServer) -> None:
    assert authorities_asked_for(guarded.proxy, guarded.client_files) == ["pki root"]


def test_a_server_with_pins_names_no_authority(guarded: GuardedServer) -> None:
    proxy = guarded.serve(guarded.backend.target, rules=(f"--allow-spki-pin={guarded.client_files.pin()}",))
    assert authorities_asked_for(proxy, guarded.client_files) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_without_authentication_no_certificate_is_asked_for(guarded: GuardedServer, version: str) -> None:
    proxy = guarded.serve(guarded.backend.target, rules=("--disable-authentication",))
    client = s_client(guarded, proxy.address, None, version)
    client.say("ping")
    client.wait_for("^ping$")
    client.say("Q")
    assert client.exit_code() == 0
    assert client.matches("No client certificate CA names sent")
    assert not client.matches("[Cc]lient [Cc]ertificate [Tt]ypes|Requested Signature Algorithms")
    proxy.wait_for(r"opening pipe: tcp:\S+ \[no cert\] ")


def test_our_client_without_authentication_shows_no_certificate_but_looks_at_the_servers(guarded: GuardedServer) -> None:
    server, port = s_server(guarded, guarded.server_files, "-verify", "9")
    flags = f"--cacert={guarded.pki.cacert}", "--disable-authentication"
    proxy = guarded.start("client", "--listen=127.0.0.1:0", f"--target=localhost:{port}", *flags)
    with connect(proxy.address) as plain:
        plain.sendall(b"ping\n")
        server.wait_for("^ping$")
    assert not server.matches("subject=|depth=0")
    bad = guarded.other.leaf("server", dns=("localhost",), file="bad-server")
    _, port = s_server(guarded, bad, "-verify", "9")
    proxy = guarded.start("client", "--listen=127.0.0.1:0", f"--target=localhost:{port}", *flags)
    with connect(proxy.address) as plain:
        assert is_over(plain)
    proxy.wait_for("error on dial: .*reason=unknown-authority")


def test_our_client_shows_its_certificate_whatever_authorities_are_named(guarded: GuardedServer) -> None:
    server, port = s_server(guarded, guarded.server_files, "-CAfile", str(guarded.other.cacert))
    proxy = guarded.call(f"localhost:{port}")
    with connect(proxy.address) as plain:
        plain.sendall(b"ping\n")
        server.wait_for("^ping$")
    assert server.matches("CN *= *client")


# -- rules


ADMITTING = [
    "--allow-cn=client",
    "--allow-ou=second",
    "--allow-dns=client.test",
    "--allow-ip=::ffff:10.0.0.7",
    "--allow-ip-san=fd00::7",
    "--allow-uri=spiffe://x.test/a/*",
    "--allow-uri-san=urn:thing:7",
]
REFUSING = [
    "--allow-cn=Client",
    "--allow-cn=second",
    "--allow-ou=client",
    "--allow-dns=CLIENT.test",
    "--allow-dns=client",
    "--allow-ip=127.0.0.1",
    "--allow-uri=spiffe://x.test/*",
    "--allow-uri=spiffe://x.test/a",
]


@pytest.fixture(scope="module")
def known(guarded: GuardedServer) -> Files:
    return guarded.pki.leaf(
        "client",
        units=("first", "second"),
        dns=("client.test",),
        ips=("10.0.0.7", "fd00::7"),
        uris=("spiffe://x.test/a/b", "urn:thing:7"),
        file="known",
    )


@pytest.mark.parametrize("rule", ADMITTING)
def test_a_rule_admits_by_what_the_certificate_says(guarded: GuardedServer, known: Files, rule: str) -> None:
    proxy = guarded.serve(guarded.backend.target, rules=(rule,))
    assert is_admitted(proxy, known)
    assert not is_admitted(proxy, guarded.pki.leaf("nobody"))
    proxy.wait_for("unauthorized: invalid principal, or principal not allowed")


def test_rules_that_are_nearly_met_admit_nobody(guarded: GuardedServer, known: Files) -> None:
    assert not is_admitted(guarded.serve(guarded.backend.target, rules=REFUSING), known)


def test_rules_are_joined_by_or(guarded: GuardedServer, known: Files) -> None:
    proxy = guarded.serve(guarded.backend.target, rules=("--allow-cn=nobody", "--allow-ou=nobody", "--allow-dns=client.test"))
    assert is_admitted(proxy, known)
    assert not is_admitted(proxy, guarded.client_files)


@pytest.mark.parametrize(
    ("rule", "admits"), [("--verify-cn=server", True), ("--verify-cn=other", False), ("--verify-ip=127.0.0.1", True)]
)
def test_a_client_has_rules_beside_the_host_name(guarded: GuardedServer, rule: str, admits: bool) -> None:
    proxy = guarded.call(guarded.proxy.target, rule)
    with connect(proxy.address) as plain:
        if admits:
            plain.sendall(b"x")
            assert plain.recv(1) == b"x"
        else:
            assert is_over(plain)


# -- pins


@pytest.mark.parametrize(
    ("what", "algorithm"),
    [("self-signed", "sha256"), ("expired", "sha384"), ("a stranger", "sha512"), ("a server's only", "SHA256")],
)
def test_a_pin_is_the_whole_authentication(guarded: GuardedServer, what: str, algorithm: str) -> None:
    files = guarded.peer(what)
    assert files is not None
    proxy = guarded.serve(guarded.backend.target, rules=(f"--allow-spki-pin={files.pin(algorithm)}",))
    assert is_admitted(proxy, files)
    assert not is_admitted(proxy, guarded.client_files)
    proxy.wait_for("unauthorized: pin verification failed")
    assert not is_admitted(proxy, None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pinned_key_is_told_what_is_wrong(guarded: GuardedServer, version: str) -> None:
    proxy = guarded.serve(guarded.backend.target, rules=(f"--allow-spki-pin={guarded.server_files.pin()}",))
    assert alert_of(s_client(guarded, proxy.address, guarded.client_files, version)) == BAD_CERTIFICATE
    nobody = CERTIFICATE_REQUIRED if version == "-tls1_3" else HANDSHAKE_FAILURE
    assert alert_of(s_client(guarded, proxy.address, None, version)) == nobody


@pytest.mark.parametrize("is_mutual", [True, False])
def test_a_client_may_pin_a_server_of_any_name_and_date(guarded: GuardedServer, is_mutual: bool) -> None:
    files = guarded.pki.leaf("whoever", is_self_signed=True, file="pinned", **LONG_AGO)
    rules = ("--allow-all",) if is_mutual else ("--disable-authentication",)
    server = guarded.serve(guarded.backend.target, files=files, rules=rules)
    flags = "--listen=127.0.0.1:0", f"--target=localhost:{server.address[1]}"
    shown = guarded.named(guarded.client_files) if is_mutual else ["--disable-authentication"]
    good = guarded.start("client", *flags, *shown, f"--verify-spki-pin={files.pin()}")
    with connect(good.address) as plain:
        plain.sendall(b"x")
        assert plain.recv(1) == b"x"
    bad = guarded.start("client", *flags, *shown, f"--verify-spki-pin={guarded.client_files.pin()}")
    with connect(bad.address) as plain:
        assert is_over(plain)


# -- anchors


def test_an_intermediate_may_be_the_anchor(guarded: GuardedServer) -> None:
    anchor = guarded.pki.bundle("middle", guarded.pki.middle)
    files = guarded.server_files
    flags = f"--cert={files.chain}", f"--key={files.key}", f"--cacert={anchor}", "--allow-all"
    proxy = guarded.start("server", "--listen=127.0.0.1:0", f"--target={guarded.backend.target}", *flags)
    assert is_admitted(proxy, guarded.client_files)
    assert is_admitted(proxy, guarded.peer("without its intermediate"))
    beside = guarded.pki.authority("another intermediate", guarded.pki.root)
    assert not is_admitted(proxy, guarded.pki.leaf("client", issuer=beside, file="beside"))


def test_a_leaf_may_be_its_own_anchor(guarded: GuardedServer) -> None:
    files = guarded.peer("self-signed")
    assert files is not None
    shown = guarded.server_files
    flags = f"--cert={shown.chain}", f"--key={shown.key}", f"--cacert={files.chain}", "--allow-all"
    proxy = guarded.start("server", "--listen=127.0.0.1:0", f"--target={guarded.backend.target}", *flags)
    assert is_admitted(proxy, files)
    assert not is_admitted(proxy, guarded.client_files)


def test_without_a_bundle_the_systems_authorities_count(guarded: GuardedServer) -> None:
    files = guarded.server_files
    flags = (
        "--listen=127.0.0.1:0",
        f"--target={guarded.backend.target}",
        f"--cert={files.chain}",
        f"--key={files.key}",
        "--allow-all",
    )
    proxy = guarded.start("server", *flags, environ={"SSL_CERT_FILE": str(guarded.pki.cacert), "SSL_CERT_DIR": "/nonexistent"})
    assert is_admitted(proxy, guarded.client_files)
    stranger = guarded.other.leaf("client", file="system")
    assert not is_admitted(proxy, stranger)


def test_an_expired_cross_certificate_that_is_sent_along_does_no_harm(guarded: GuardedServer) -> None:
    """As at the end of AddTrust: the peer still sends the old root, of the same name and key as the new one."""
    old = guarded.pki.authority("pki root", None, key=guarded.pki.root.key, **LONG_AGO)
    files = guarded.pki.shown_with(guarded.client_files, "cross", guarded.pki.middle.certificate, old.certificate)
    assert is_admitted(guarded.proxy, files)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_authority_with_a_new_key_and_its_old_name_is_known_by_both(guarded: GuardedServer, version: str) -> None:
    """Without key identifiers: what `openssl x509 -req` makes has none."""
    twins = [guarded.pki.authority("twin", None, has_key_ids=False) for _ in range(2)]
    impostor = guarded.pki.authority("twin", None, has_key_ids=False)
    shown = guarded.server_files
    flags = f"--cert={shown.chain}", f"--key={shown.key}", f"--cacert={guarded.pki.bundle('twins', *twins)}", "--allow-all"
    proxy = guarded.start("server", "--listen=127.0.0.1:0", f"--target={guarded.backend.target}", *flags)
    for number, twin in enumerate(twins):
        assert is_admitted(proxy, guarded.pki.leaf("client", issuer=twin, has_key_ids=False, file=f"of-twin-{number}"))
    stranger = guarded.pki.leaf("client", issuer=impostor, has_key_ids=False, file="of-impostor")
    assert alert_of(s_client(guarded, proxy.address, stranger, version)) == UNKNOWN_CA


def test_a_root_that_is_sent_along_does_no_harm(guarded: GuardedServer) -> None:
    files = guarded.pki.shown_with(guarded.client_files, "rooted", guarded.pki.middle.certificate, guarded.pki.root.certificate)
    assert is_admitted(guarded.proxy, files)


def test_the_order_of_what_is_sent_does_not_matter(guarded: GuardedServer) -> None:
    files = guarded.pki.shown_with(
        guarded.client_files, "unordered", guarded.pki.root.certificate, guarded.pki.middle.certificate
    )
    assert is_admitted(guarded.proxy, files)


# -- host names


HOSTS = [
    # names in the certificate, the host that is asked for, whether they agree
    (("dns:db.test",), "DB.test.", True),
    (("dns:*.test",), "db.test", True),
    (("dns:*.db.test",), "one.two.db.test", False),
    (("dns:server.test",), "server", False),  # its common name
    (("dns:db.test",), ".test", False),
    (("ip:::1",), "::1", True),
    (("dns:127.0.0.1",), "127.0.0.1", False),
]


@pytest.mark.parametrize(("names", "host", "agrees"), HOSTS)
def test_the_host_name_is_looked_for_in_the_certificate(
    guarded: GuardedServer, names: Sequence[str], host: str, agrees: bool
) -> None:
    dns = [name[4:] for name in names if name.startswith("dns:")]
    ips = [name[3:] for name in names if name.startswith("ip:")]
    number = HOSTS.index((names, host, agrees))
    files = guarded.pki.leaf("server", dns=dns, ips=ips, file=f"host-{number}")
    server, port = s_server(guarded, files)
    proxy = guarded.call(f"127.0.0.1:{port}", f"--override-server-name={host}")
    with connect(proxy.address) as plain:
        if agrees:
            plain.sendall(b"ping\n")
            server.wait_for("^ping$")
        else:
            assert is_over(plain)
            proxy.wait_for("error on dial: .*hostname mismatch.*reason=host-name-mismatch")


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        (("--target=localhost:{port}",), "localhost"),
        (("--target=127.0.0.1:{port}",), ""),
        (("--target=127.0.0.1:{port}", "--override-server-name=db.test"), "db.test"),
        (("--target=localhost:{port}", "--override-server-name=127.0.0.1"), ""),
        (("--target=127.0.0.1:{port}", "--override-server-name=db.test."), "db.test"),
    ],
)
def test_the_server_name_is_sent_if_it_is_a_name(guarded: GuardedServer, flags: Sequence[str], sent: str) -> None:
    seen: list[bytes | None] = []

    def serve(sock) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_chain_file(str(files.chain))
        context.use_privatekey_file(str(files.key))
        context.set_tlsext_servername_callback(lambda connection: seen.append(connection.get_servername()))
        sock.settimeout(None)
        connection = SSL.Connection(context, sock)
        connection.set_accept_state()
        connection.do_handshake()
        connection.sendall(b"done")

    files = guarded.pki.leaf("server", dns=("localhost", "db.test"), ips=("127.0.0.1",), file="named")
    with Backend(serve) as backend:
        line = (flag.format(port=backend.port) for flag in flags)
        proxy = guarded.start("client", "--listen=127.0.0.1:0", *line, *guarded.named(guarded.client_files))
        with connect(proxy.address) as plain:
            assert receive_exactly(plain, 4) == b"done"
    assert seen == [sent.encode() or None]
