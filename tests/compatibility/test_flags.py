"""Flags whose effect nothing else shows: what each does to a real proxy with certificates on disk."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from backends import Backend, connect, echo
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from stand import Stand, ask, failed_start
from tls_peer import tls_connection
from world import Identity


@pytest.fixture
def backend(stand: Stand) -> Backend:
    return stand.enter(Backend(echo))


def carries(address: tuple[str, int]) -> bool:
    """Whether a plain client gets its own words back."""
    with connect(address) as plain:
        try:
            plain.sendall(b"more")
            return plain.recv(4) == b"more"
        except ConnectionResetError:
            return False


# -- certificates


def test_a_keystore_is_opened_by_the_password_of_a_flag_or_of_the_environment(stand: Stand, backend: Backend) -> None:
    store = stand.directory / "server.p12"
    write_pkcs12(store, stand.papers.identity("server"), b"secret")
    line = ("server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-all", f"--cacert={stand.papers.ca}")
    assert "secret" not in failed_start(*line, f"--keystore={store}", "--storepass=not-secret-at-all")
    for flags, environ in (
        ((f"--keystore={store}", "--storepass=secret"), {}),
        ((), {"KEYSTORE_PATH": str(store), "KEYSTORE_PASS": "secret"}),
    ):
        proxy = stand.start(*line, *flags, **environ)
        proxy.wait_for("loaded certificate: CN=server$")
        assert proxy.address


def write_pkcs12(path: Path, identity: Identity, password: bytes) -> None:
    key = load_pem_private_key(identity.key.read_bytes(), None)
    leaf = x509.load_pem_x509_certificate(identity.chain.read_bytes())
    encrypted = BestAvailableEncryption(password)
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"server", key, leaf, [], encrypted))  # type: ignore[arg-type]


def test_the_other_variables_name_files_too(stand: Stand, backend: Backend) -> None:
    pair = stand.papers.identity("server")
    names = {"CERT_PATH": str(pair.chain), "KEY_PATH": str(pair.key), "CACERT_PATH": stand.papers.ca}
    proxy = stand.start("server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-cn=client", **names)
    with tls_connection(proxy.address, stand.papers.identity("client")) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


# -- names


def test_the_host_name_is_that_of_the_target_unless_it_is_overridden(stand: Stand, backend: Backend) -> None:
    server = stand.server(backend.target)
    assert carries(stand.client(f"127.0.0.1:{server.address[1]}", "--override-server-name=localhost").address)
    strict = stand.client(f"127.0.0.1:{server.address[1]}")
    assert not carries(strict.address)
    strict.wait_for("error on dial: .*wrong-host-name")


def test_what_is_not_local_needs_a_word(stand: Stand) -> None:
    far = stand.enter(Backend(echo, host="127.0.0.2"))
    server = stand.server(far.target, "--unsafe-target")
    client = stand.client(f"localhost:{server.address[1]}", "--unsafe-listen", listen="127.0.0.2:0")
    assert client.address[0] == "127.0.0.2"
    assert carries(client.address)


# -- without certificates


def test_a_client_without_a_certificate_serves_its_status_in_the_clear_and_warns(stand: Stand, backend: Backend) -> None:
    server = stand.server(backend.target)
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    line = ("client", "--listen=127.0.0.1:0", f"--target=localhost:{server.address[1]}", f"--cacert={stand.papers.ca}")
    client = stand.start(*line, "--disable-authentication", f"--status=127.0.0.1:{port}")
    assert client.address
    client.wait_for("warning: no certificate to serve .* with: the status port speaks plain HTTP$")
    assert ask(("127.0.0.1", port), "/_status")[0] in (200, 503)


def test_everyone_may_pass_where_no_authentication_is_wanted(stand: Stand, backend: Backend) -> None:
    line = ("server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--disable-authentication")
    proxy = stand.start(*line, f"--keystore={stand.papers.keystore('server')}")
    with tls_connection(proxy.address, None) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"
    proxy.wait_for(r"opening pipe: tcp:\S+ \[no cert\] <-> ")
