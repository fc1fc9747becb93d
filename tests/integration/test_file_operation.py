"""What operators see and ask of a proxy with certificates on disk: status, shutdown, quiet, activation, replacement, limits."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.command_runner import curl
from tests.support.file_identities import FileIdentities
from tests.support.openssl_command import s_client
from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all
from tests.support.processes import LIMIT, WORKERS, Proxy, eventually, is_listening
from tests.support.requirements import program
from tests.support.script_runner import SCRIPTS
from tests.support.tls_peer import TlsPeer, tls_connection
from tests.support.workloads import ANY_PORT, SERVER, Workloads

ACTIVATE = SCRIPTS / "socket_activation.py"
MLKEM_SHARE = bytes.fromhex("00330464 11ec0460")  # a ServerHello's key share of X25519MLKEM768


def status_port() -> tuple[str, str]:
    """The flag for a status port, and the address."""
    address = f"127.0.0.1:{free_port()}"
    return f"--status={address}", address


def has_echo(peer: TlsPeer, text: bytes = b"more") -> bool:
    peer.send(text)
    return peer.receive_exactly(len(text)) == text


# -- the status port


def test_the_status_port_speaks_https_with_our_certificate_and_asks_for_none(file_identities: FileIdentities) -> None:
    flag, address = status_port()
    proxy = file_identities.serve(file_identities.enter(Backend(echo)).target, flag)
    assert proxy.address
    document = json.loads(curl("--cacert", str(file_identities.pki.cacert), f"https://{address}/_status"))
    assert (document["ok"], document["backend_ok"]) == (True, True)
    assert curl("-k", "-o", "/dev/null", "-w", "%{http_code}", f"https://{address}/_status") == "200"
    assert "Client sent an HTTP request to an HTTPS server." in curl("--http0.9", f"http://{address}/_status")


def test_a_clients_check_is_a_connection_in_good_order_to_its_server(file_identities: FileIdentities) -> None:
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, rules=("--allow-cn", "client"))
    flag, address = status_port()
    client = file_identities.call(f"localhost:{server.address[1]}", flag.replace("=", "=http://"))
    assert client.address
    for count in range(1, 4):
        before = time.monotonic()
        while time.monotonic() < before + LIMIT and len(server.matches("closed pipe")) < count:  # a check lasts a second
            assert json.loads(curl(f"http://{address}/_status"))["backend_ok"]
    server.wait_for("closed pipe", count=3)
    assert not server.matches("error")


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_a_client_that_its_server_refuses_is_not_well(file_identities: FileIdentities, version: str) -> None:
    most = f"--max-tls-version={version}"
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, most, rules=("--allow-cn", "somebody else"))
    flag, address = status_port()
    client = file_identities.call(f"localhost:{server.address[1]}", most, flag.replace("=", "=http://"))
    assert client.address
    document = json.loads(curl(f"http://{address}/_status"))
    assert (document["ok"], "bad certificate" in document["backend_error"]) == (False, True)


def test_under_spiffe_too_nobody_is_asked_for_a_certificate(workloads: Workloads) -> None:
    flag, address = status_port()
    proxy = workloads.server(workloads.enter(Backend(echo)).target, flag)
    assert proxy.address
    document = json.loads(curl("-k", f"https://{address}/_status"))
    assert (document["ok"], document["spiffe_id"]) == (True, SERVER)


@pytest.mark.parametrize("scheme", ["http", "unix", "none"])
def test_the_status_port_speaks_http_where_it_is_told_to(file_identities: FileIdentities, scheme: str) -> None:
    path, address = file_identities.directory / "status", f"127.0.0.1:{free_port()}"
    flag = {"http": f"--status=http://{address}", "unix": f"--status=unix:{path}", "none": f"--status={address}"}[scheme]
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, "--disable-authentication", rules=())
    if scheme == "none":
        shown = f"--cacert={file_identities.pki.cacert}", "--disable-authentication"
        proxy = file_identities.start("client", f"--listen={ANY_PORT}", f"--target={server.target}", *shown, flag)
    else:
        proxy = file_identities.call(server.target, flag)
    assert proxy.address
    where = ["--unix-socket", str(path), "http://status/_status"] if scheme == "unix" else [f"http://{address}/_status"]
    assert json.loads(curl(*where))["ok"]


def test_a_client_checks_its_target_by_a_handshake(file_identities: FileIdentities) -> None:
    path = file_identities.directory / "status"
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, rules=("--allow-cn=client",))
    proxy = file_identities.call(server.target, f"--status=unix:{path}", "--override-server-name=localhost")
    wrong = file_identities.call(server.target, f"--status=unix:{path}2", "--override-server-name=other.test")
    assert proxy.address
    assert wrong.address
    assert json.loads(curl("--unix-socket", str(path), "http://status/_status"))["backend_ok"]
    document = json.loads(curl("--unix-socket", f"{path}2", "http://status/_status"))
    assert (document["ok"], document["backend_ok"]) == (False, False)
    assert "hostname mismatch" in document["backend_error"]
    assert not wrong.matches("error on dial")


def test_the_target_may_be_the_status_port_itself(file_identities: FileIdentities) -> None:
    """Requests are served side by side: the check of one is another."""
    flag, address = status_port()
    proxy = file_identities.serve(address, flag.replace("=", "=http://"), f"--target-status=http://{address}/_metrics")
    assert proxy.address
    document = json.loads(curl(f"http://{address}/_status"))
    assert document["ok"], document
    files = file_identities.client_files
    shown = "--cacert", str(file_identities.pki.cacert), "--cert", str(files.chain), "--key", str(files.key)
    through = json.loads(curl(*shown, f"https://localhost:{proxy.address[1]}/_status", "-4"))
    assert through["forward_address"] == address


@pytest.mark.parametrize("code", [200, 500])
def test_the_target_is_asked_for_its_status(file_identities: FileIdentities, code: int) -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(f"HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n".encode())

    path = file_identities.directory / "status"
    target = file_identities.enter(Backend(serve)).target
    proxy = file_identities.serve(target, f"--status=unix:{path}", "--target-status=http://db.test/health")
    assert proxy.address
    document = json.loads(curl("--unix-socket", str(path), "http://status/_status"))
    assert document["ok"] == (code == 200)
    assert document.get("backend_error", "") == ("" if code == 200 else "target returned status: 500")
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: db.test\r\n")


def test_a_shutdown_asked_for_by_post_drains(file_identities: FileIdentities) -> None:
    path = file_identities.directory / "status"
    proxy = file_identities.serve(file_identities.enter(Backend(echo)).target, f"--status=unix:{path}", "--enable-shutdown")
    where = "--unix-socket", str(path), "-o", "/dev/null", "-w", "%{http_code}", "http://status/_shutdown"
    with tls_connection(proxy.address, file_identities.client_files) as peer:
        assert has_echo(peer)
        assert curl(*where) == "405"
        assert curl("-X", "POST", *where) == "200"
        proxy.wait_for("shutdown proxy, waiting for drain of 1 connections")
        assert has_echo(peer)
        peer.end()
        assert proxy.exit_code() == 0


def test_without_the_flag_nobody_can_shut_down(file_identities: FileIdentities) -> None:
    path = file_identities.directory / "status"
    proxy = file_identities.serve("127.0.0.1:1", f"--status=unix:{path}")
    assert proxy.address
    where = "--unix-socket", str(path), "-o", "/dev/null", "-w", "%{http_code}", "http://status/_shutdown"
    assert curl("-X", "POST", *where) == "404"


# -- quiet


CATEGORIES = {"conns": "opening pipe|closed pipe", "handshake-errs": "error on TLS handshake", "conn-errs": "error on dial"}


@pytest.mark.parametrize("quiet", [["conns"], ["handshake-errs"], ["conn-errs"], ["conns", "conn-errs"], ["all"]])
def test_what_is_to_be_quiet_is_and_the_rest_is_not(file_identities: FileIdentities, quiet: list[str]) -> None:
    path = file_identities.directory / "listen"
    backend = Backend(echo, path=file_identities.directory / "backend")
    flags = [f"--quiet={word}" for word in quiet]
    proxy = file_identities.serve(backend.target, *flags, listen=f"unix:{path}")
    eventually(lambda: is_listening(path), "the proxy listens")

    def attempt() -> bytes:
        with connect(str(path)) as sock:
            peer = TlsPeer(sock, file_identities.client_files)
            peer.shake_hands()
            peer.end()
            return peer.receive_all()

    attempt()
    with connect(str(path)) as sock:
        stranger = TlsPeer(sock, None)
        stranger.shake_hands()
        with pytest.raises(SSL.Error):
            stranger.receive()
    backend.__exit__(None, None, None)
    attempt()
    assert proxy.stop() == 0
    seen = {name for name, words in CATEGORIES.items() if proxy.matches(words)}
    assert seen == (set() if quiet == ["all"] else set(CATEGORIES) - set(quiet))
    assert bool(proxy.lines) == (quiet != ["all"])
    assert proxy.complaints == []


# -- life


def test_both_sockets_may_come_from_the_service_manager(file_identities: FileIdentities) -> None:
    port, path = free_port(), file_identities.directory / "status"
    before = sys.executable, str(ACTIVATE), f"web=127.0.0.1:{port}", f"probe=unix:{path}", "--"
    line = (
        "--listen=systemd:web",
        "--status=systemd:probe",
        f"--target={file_identities.enter(Backend(echo)).target}",
        "--allow-all",
    )
    proxy = file_identities.start("server", *line, *file_identities.named(file_identities.server_files), before=before)
    proxy.wait_for("listening for connections")
    with tls_connection(("127.0.0.1", port), file_identities.client_files) as peer:
        assert has_echo(peer)
    document = json.loads(curl("--unix-socket", str(path), "http://status/_status"))
    assert (document["ok"], document["listen_address"]) == (True, "systemd:web")
    assert proxy.stop() == 0
    assert path.exists(), "it is the manager's"


def test_a_process_takes_the_place_of_another_without_a_lost_connection(file_identities: FileIdentities) -> None:
    backend = file_identities.enter(Backend(echo))
    first = file_identities.serve(backend.target)
    address = first.address
    with ExitStack() as stack:
        old = [stack.enter_context(tls_connection(address, file_identities.client_files)) for _ in range(5)]
        second = file_identities.serve(backend.target, listen=first.target)
        assert second.address == address
        first.signal(signal.SIGTERM)
        first.wait_for("shutdown proxy, waiting for drain of 5")
        for _ in range(10):
            with tls_connection(address, file_identities.client_files) as peer:
                assert has_echo(peer)
        assert all(has_echo(peer) for peer in old)
        for peer in old:
            peer.end()
        assert first.exit_code() == 0
    assert len(second.matches("opening pipe")) == 10


# -- limits


def test_without_descriptors_status_and_signals_still_work_and_service_returns(file_identities: FileIdentities) -> None:
    _, address = status_port()
    backend = file_identities.enter(Backend(echo))
    before = program("prlimit"), "--nofile=64:64"
    line = (
        f"--listen={ANY_PORT}",
        f"--target={backend.target}",
        "--allow-all",
        f"--status=http://{address}",
    )
    proxy = file_identities.start("server", *line, *file_identities.named(file_identities.server_files), before=before)
    assert proxy.address
    with ExitStack() as stack:
        open_before = stack.enter_context(closing(HTTPConnection(address, timeout=LIMIT)))
        assert answer(open_before, "/_status")[0] == 200
        eventually(lambda: backend.accepted == 1, "the backend has seen a look at it")
        for _ in range(100 * int(WORKERS)):  # each worker has 64 descriptors
            stack.enter_context(connect(proxy.address))
        proxy.wait_for("error accepting connection: accept tcp:.*: too many open files")
        # No descriptor to look at the backend with, once the last look is a second old. A parent of workers has some left.
        if WORKERS == "1":
            eventually(lambda: answer(open_before, "/_status")[0] == 503, "not ready")
        else:
            eventually(lambda: answer(open_before, "/_status")[0] == 200 and backend.accepted > 1, "ready by another look")
        code, body = answer(open_before, "/_metrics")
        metrics = {entry["metric"]: entry["value"] for entry in json.loads(body)}
        assert (code, metrics["ghostunnel.accept.error"] > 0) == (200, True)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for("reloading configuration complete")
    eventually(lambda: is_served(file_identities, proxy), "served again")
    eventually(lambda: json.loads(curl(f"http://{address}/_status"))["ok"], "ready again")
    assert proxy.stop() == 0


def answer(connection: HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def is_served(file_identities: FileIdentities, proxy: Proxy) -> bool:
    try:
        with tls_connection(proxy.address, file_identities.client_files) as peer:
            return has_echo(peer)
    except (OSError, SSL.Error):
        return False


@pytest.mark.parametrize("mode", ["conn", "tls-full"])
def test_a_backend_that_never_reads_holds_nobody_else_up(file_identities: FileIdentities, mode: str) -> None:
    silence = threading.Event()

    def serve(connection: socket.socket) -> None:
        silence.wait(LIMIT)

    try:
        proxy = file_identities.serve(
            file_identities.enter(Backend(serve)).target, f"--proxy-protocol-mode={mode}", "--max-concurrent-conns=2"
        )
        with tls_connection(proxy.address, file_identities.client_files) as stuck:
            stuck.socket.settimeout(0.5)
            with suppress(TimeoutError):
                while True:
                    stuck.send(bytes(65536))
            with tls_connection(proxy.address, file_identities.client_files):
                proxy.wait_for("opening pipe", count=2)
    finally:
        silence.set()


def test_a_half_close_starts_a_limit_of_silence_and_not_of_time(file_identities: FileIdentities) -> None:
    go, pieces = threading.Semaphore(0), 5

    def serve(connection: socket.socket) -> None:
        receive_all(connection)
        while go.acquire(timeout=LIMIT):
            connection.sendall(b"piece")

    proxy = file_identities.serve(file_identities.enter(Backend(serve)).target, "--close-timeout=1500ms")
    with tls_connection(proxy.address, file_identities.client_files) as peer:
        peer.end()
        for _ in range(pieces):
            threading.Timer(0.5, go.release).start()
            assert peer.receive_exactly(5) == b"piece"
        assert peer.receive_all() == b""
        assert not peer.has_ended, "a cut is no end"
    proxy.wait_for(r"closed pipe: .*returned 25 bytes, .* end=close-timeout$")
    go.release(pieces)  # the backend finds its connection cut, and ends


# -- the protocol


def test_between_two_of_ours_the_key_exchange_is_post_quantum(file_identities: FileIdentities) -> None:
    server = file_identities.serve(file_identities.enter(Backend(echo)).target)
    heard = b""

    def listen_in(connection: socket.socket) -> None:
        nonlocal heard
        with connect(server.address) as onward:
            first = connection.recv(65536)
            onward.sendall(first)
            heard = onward.recv(65536)
            connection.sendall(heard)

    client = file_identities.call(file_identities.enter(Backend(listen_in)).target)
    with connect(client.address):
        eventually(lambda: bool(heard), "a ServerHello passes")
    assert MLKEM_SHARE in heard


@pytest.mark.parametrize(
    ("flags", "offer", "agreed"),
    [
        ((), (), "TLSv1.3"),
        (("--max-tls-version=tls1.2",), (), "TLSv1.2"),
        (("--max-tls-version=TLS1.3",), (), "TLSv1.3"),
        (("--cipher-suites=CHACHA",), ("-tls1_2",), "CHACHA20"),
        (("--cipher-suites=AES",), ("-tls1_2", "-cipher", "ECDHE+CHACHA20"), ""),
        (("--cipher-suites=CHACHA,AES",), ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"), "AES256-GCM"),
        (
            ("--cipher-suites=UNSAFE-AZURE", "--allow-unsafe-cipher-suites"),
            ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"),
            "ECDHE-RSA-AES128-SHA256",
        ),
        ((), ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"), ""),
        ((), ("-tls1_2", "-cipher", "AES128-GCM-SHA256"), ""),
        (("--max-tls-version=TLS1.2",), ("-tls1_3",), ""),
    ],
)
def test_only_what_is_allowed_is_agreed_on(
    file_identities: FileIdentities, flags: tuple[str, ...], offer: tuple[str, ...], agreed: str
) -> None:
    files = file_identities.pki.leaf("server", kind="rsa")
    proxy = file_identities.serve(file_identities.enter(Backend(echo)).target, *flags, files=files)
    client = s_client(file_identities, proxy.address, file_identities.client_files, *offer)
    if agreed:
        client.say("ping")
        client.wait_for("^ping$")
        client.say("Q")
        assert client.exit_code() == 0
        assert client.matches(f"New, .*{agreed}|Protocol *: {agreed}|Cipher is .*{agreed}")
    else:
        assert client.exit_code() != 0
        assert client.matches("SSL alert number (40|70)")


def test_sessions_and_renegotiation_do_not_work_with_files_either(file_identities: FileIdentities, tmp_path: Path) -> None:
    proxy = file_identities.serve(file_identities.enter(Backend(echo)).target)
    session = tmp_path / "session"
    for flags in (["-sess_out", str(session)], ["-sess_in", str(session)]):
        client = s_client(file_identities, proxy.address, file_identities.client_files, "-tls1_3", *flags)
        client.say("ping")
        client.wait_for("^ping$")
        client.say("Q")
        assert client.exit_code() == 0
        assert client.matches("^New, TLSv1")
        assert not client.matches("^Reused")
    client = s_client(file_identities, proxy.address, file_identities.client_files, "-tls1_2")
    client.say("ping")
    client.wait_for("^ping$")
    client.say("R")
    assert client.exit_code() != 0
    assert client.matches("no renegotiation")
