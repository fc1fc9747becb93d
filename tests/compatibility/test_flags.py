"""Flags whose effect nothing else shows: what each does to a real proxy with certificates on disk."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12

from tests.support.installed_command import InstalledCommand, ask, failed_start
from tests.support.plain_backends import Backend, connect, echo
from tests.support.tls_peer import tls_connection
from tests.support.workloads import Identity


@pytest.fixture
def backend(installed_command: InstalledCommand) -> Backend:
    return installed_command.enter(Backend(echo))


def carries(address: tuple[str, int]) -> bool:
    """Whether a plain client gets its own words back."""
    with connect(address) as plain:
        try:
            plain.sendall(b"more")
            return plain.recv(4) == b"more"
        except ConnectionResetError:
            return False


# -- certificates


def test_a_keystore_is_opened_by_the_password_of_a_flag_or_of_the_environment(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    store = installed_command.directory / "server.p12"
    write_pkcs12(store, installed_command.command_files.identity("server"), b"secret")
    line = (
        "server",
        "--listen=127.0.0.1:0",
        f"--target={backend.target}",
        "--allow-all",
        f"--cacert={installed_command.command_files.ca}",
    )
    assert "secret" not in failed_start(*line, f"--keystore={store}", "--storepass=not-secret-at-all")
    for flags, environ in (
        ((f"--keystore={store}", "--storepass=secret"), {}),
        ((), {"KEYSTORE_PATH": str(store), "KEYSTORE_PASS": "secret"}),
    ):
        proxy = installed_command.start(*line, *flags, **environ)
        proxy.wait_for("loaded certificate: CN=server$")
        assert proxy.address


def write_pkcs12(path: Path, identity: Identity, password: bytes) -> None:
    key = load_pem_private_key(identity.key.read_bytes(), None)
    leaf = x509.load_pem_x509_certificate(identity.chain.read_bytes())
    encrypted = BestAvailableEncryption(password)
    path.write_bytes(pkcs12.serialize_key_and_certificates(b"server", key, leaf, [], encrypted))  # type: ignore[arg-type]


def test_the_other_variables_name_files_too(installed_command: InstalledCommand, backend: Backend) -> None:
    pair = installed_command.command_files.identity("server")
    names = {"CERT_PATH": str(pair.chain), "KEY_PATH": str(pair.key), "CACERT_PATH": installed_command.command_files.ca}
    proxy = installed_command.start(
        "server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-cn=client", **names
    )
    with tls_connection(proxy.address, installed_command.command_files.identity("client")) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"


# -- names


def test_the_host_name_is_that_of_the_target_unless_it_is_overridden(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    server = installed_command.server(backend.target)
    assert carries(installed_command.client(f"127.0.0.1:{server.address[1]}", "--override-server-name=localhost").address)
    strict = installed_command.client(f"127.0.0.1:{server.address[1]}")
    assert not carries(strict.address)
    strict.wait_for("error on dial: .*host-name-mismatch")


def test_what_is_not_local_needs_a_word(installed_command: InstalledCommand) -> None:
    far = installed_command.enter(Backend(echo, host="127.0.0.2"))
    server = installed_command.server(far.target, "--unsafe-target")
    client = installed_command.client(f"localhost:{server.address[1]}", "--unsafe-listen", listen="127.0.0.2:0")
    assert client.address[0] == "127.0.0.2"
    assert carries(client.address)


# -- without certificates


def test_a_client_without_a_certificate_serves_its_status_in_the_clear_and_warns(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    server = installed_command.server(backend.target)
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    line = (
        "client",
        "--listen=127.0.0.1:0",
        f"--target=localhost:{server.address[1]}",
        f"--cacert={installed_command.command_files.ca}",
    )
    client = installed_command.start(*line, "--disable-authentication", f"--status=127.0.0.1:{port}")
    assert client.address
    client.wait_for("warning: status port .* serves plain HTTP: no certificate$")
    assert ask(("127.0.0.1", port), "/_status")[0] in (200, 503)


def test_everyone_may_pass_where_no_authentication_is_wanted(installed_command: InstalledCommand, backend: Backend) -> None:
    line = ("server", "--listen=127.0.0.1:0", f"--target={backend.target}", "--disable-authentication")
    proxy = installed_command.start(*line, f"--keystore={installed_command.command_files.keystore('server')}")
    with tls_connection(proxy.address, None) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"
    proxy.wait_for(r"opening pipe: tcp:\S+ \[no cert\] <-> ")
