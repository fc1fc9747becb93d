"""From the command to the first connection: in which order, in which words, and nothing said too early."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.support.installed_command import InstalledCommand, ask, command, environment, failed_start, run, status_of
from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all
from tests.support.processes import LIMIT, eventually, is_listening
from tests.support.requirements import program
from tests.support.tls_peer import tls_connection

LINE = re.compile(r"\[[0-9]+\] [0-9]{4}/[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6} \S.*")


@pytest.fixture
def backend(installed_command: InstalledCommand) -> Backend:
    return installed_command.enter(Backend(echo))


def in_order(lines: list[str], *patterns: str) -> None:
    """Each pattern is met by a line behind that of the one before."""
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.search(pattern, line) for line in rest), (pattern, lines)


# -- the log of a start


def test_a_server_says_what_it_does_in_this_order(installed_command: InstalledCommand, backend: Backend) -> None:
    flags = ("--metrics-url=http://127.0.0.1:1/", "--metrics-graphite=127.0.0.1:1", "--status=http://127.0.0.1:0")
    proxy = installed_command.server(backend.target, *flags)
    assert proxy.address
    in_order(
        proxy.lines,
        "starting tunnel in server mode$",
        "setting up landlock rules to limit process privileges$",
        "using keystore file on disk as certificate source$",
        f"using target address {backend.target}$",
        r"listening for connections on 127\.0\.0\.1:[1-9][0-9]*$",
    )
    in_order(proxy.lines, "as certificate source$", "loaded certificate: CN=server$", "listening for")
    assert proxy.matches(r"metrics enabled; reporting metrics via POST to http://127\.0\.0\.1:1/$")
    assert proxy.matches(r"metrics enabled; reporting metrics via TCP to 127\.0\.0\.1:1$")
    assert proxy.stop() == 0
    in_order(proxy.lines, "received terminated, shutting down$", "shutdown proxy, waiting for drain", "stopped")
    assert not proxy.complaints
    assert not proxy.matches("Server closed")
    pid = f"[{proxy.pid}] "
    assert [line for line in proxy.lines if not (LINE.fullmatch(line) and line.startswith(pid))] == []


def test_each_source_of_a_certificate_has_its_words(installed_command: InstalledCommand, backend: Backend) -> None:
    pair = installed_command.command_files.identity("server")
    files = (f"--cert={pair.chain}", f"--key={pair.key}", f"--cacert={installed_command.command_files.ca}")
    addresses = (f"--target={backend.target}", "--listen=127.0.0.1:0")
    server = installed_command.start("server", *addresses, *files, "--allow-all")
    server.wait_for("using cert/key files on disk as certificate source$")
    client = installed_command.start(
        "client", *addresses, f"--cacert={installed_command.command_files.ca}", "--disable-authentication"
    )
    client.wait_for("no cert source configured -- running without certificate$")
    assert installed_command.server(backend.target).wait_for("using keystore file on disk as certificate source$")


def test_a_client_names_its_outbound_proxy_without_the_password(installed_command: InstalledCommand) -> None:
    proxy = installed_command.client("db.example.org:1", "--proxy=http://user:secret@127.0.0.1:3128")
    assert "secret" not in proxy.wait_for("using proxy http://.*127.0.0.1:3128$")[0]
    assert proxy.address
    assert not proxy.matches("using target address"), "the proxy looks names up"


def test_lines_are_written_through_at_once_also_into_a_file(installed_command: InstalledCommand, backend: Backend) -> None:
    log = installed_command.directory / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command(*installed_command.server_line(backend.target)), env=environment(), stdout=file)
    try:
        eventually(lambda: "listening for connections on" in log.read_text(), "the start is in the file")
        port = int(re.search(r"listening for connections on 127\.0\.0\.1:([0-9]+)", log.read_text())[1])  # type: ignore[index]
        with tls_connection(("127.0.0.1", port), installed_command.command_files.identity("client")) as peer:
            peer.send(b"x")
            assert peer.receive_exactly(1) == b"x"
            eventually(lambda: "opening pipe: " in log.read_text(), "the connection is in the file while it is open")
        eventually(lambda: "closed pipe: " in log.read_text(), "its end is in the file while the process runs")
    finally:
        process.kill()
        process.wait(LIMIT)


PIPE = (
    r"pipe: tcp:127\.0\.0\.1:[0-9]+ \[{accepted}\] <-> tcp:127\.0\.0\.1:[0-9]+ \[{dialled}\] "
    r"{counts}peer=\S+ rule=\S+{end}$"
)
COUNTS = r"\[forwarded 5 bytes, returned 2\.0 KiB, open [0-9.]+(us|ms|s)\] "


def test_a_pipe_has_ghostunnels_line_with_our_fields_behind_it(installed_command: InstalledCommand) -> None:
    def serve(connection: socket.socket) -> None:
        receive_all(connection)
        connection.sendall(bytes(2048))

    server = installed_command.server(installed_command.enter(Backend(serve)).target)
    client = installed_command.client(f"localhost:{server.address[1]}")
    with connect(client.address) as plain:
        plain.sendall(b"12345")
        plain.shutdown(socket.SHUT_WR)
        assert len(receive_all(plain)) == 2048
    for proxy, ends in ((server, ("CN=client", "no tls")), (client, ("no tls", "CN=server"))):
        accepted, dialled = ends
        proxy.wait_for("opening " + PIPE.format(accepted=accepted, dialled=dialled, counts="", end=""))
        proxy.wait_for("closed " + PIPE.format(accepted=accepted, dialled=dialled, counts=COUNTS, end=" end=closed"))


def test_a_syslog_that_is_not_there_is_fatal() -> None:
    if any(Path(path).exists() for path in ("/dev/log", "/var/run/syslog")):
        pytest.skip("this machine has a syslog")
    done = run("server", "--listen=127.0.0.1:0", "--target=127.0.0.1:1", "--syslog")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unable to set up logger: " in done.stderr


# -- what does not start


def test_a_target_without_a_meaning_ends_the_start_unless_it_may_come_later(installed_command: InstalledCommand) -> None:
    name = "no-such-service-name"  # the port, so that no name server is asked
    line = installed_command.server_line(f"localhost:{name}")
    assert failed_start(*line).startswith("invalid target address: ")
    assert installed_command.start(*line, "--skip-resolve").address


def test_a_file_that_cannot_be_used_ends_the_start(installed_command: InstalledCommand) -> None:
    line = ("server", "--listen=127.0.0.1:0", "--target=127.0.0.1:1", "--allow-all")
    (installed_command.directory / "empty.pem").write_text("")
    for flags in (
        (f"--keystore={installed_command.directory}/none.pem",),
        (
            f"--keystore={installed_command.command_files.keystore('server')}",
            f"--cacert={installed_command.directory}/empty.pem",
        ),
        (f"--cert={installed_command.command_files.ca}", f"--key={installed_command.command_files.identity('server').key}"),
    ):
        assert (
            str(installed_command.directory) in (said := failed_start(*line, *flags))
            or installed_command.command_files.ca in said
        )


def test_a_status_port_that_cannot_be_had_ends_the_start(installed_command: InstalledCommand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        said = failed_start(*installed_command.server_line("127.0.0.1:1"), f"--status=http://{address}")
    assert said == f"cannot listen on {address}: address already in use"


def test_launchd_is_another_systems(installed_command: InstalledCommand) -> None:
    said = failed_start(*installed_command.server_line("127.0.0.1:1", listen="launchd:x"))
    assert said == "cannot listen on launchd:x: launchd exists on macOS only; expected systemd:NAME"


# -- both listeners at once


def connect_when_it_listens(address: tuple[str, int]) -> socket.socket:
    """The first connection that is accepted."""
    found: list[socket.socket] = []

    def is_there() -> bool:
        with suppress(ConnectionRefusedError):
            found.append(connect(address))
        return bool(found)

    eventually(is_there, "it listens")
    return found[0]


def test_who_finds_the_status_port_open_finds_the_other_open_and_the_first_answer_true(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    main, status = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    installed_command.server(backend.target, f"--status=http://127.0.0.1:{status[1]}", listen=f"127.0.0.1:{main[1]}")
    with closing(connect_when_it_listens(status)):
        connect(main).close()
        code, body = ask(status, "/_status")
    assert (code, json.loads(body)["message"]) == (200, "listening")


def test_the_file_of_a_unix_status_socket_is_there_when_it_answers(
    installed_command: InstalledCommand, backend: Backend
) -> None:
    path = installed_command.directory / "status"
    installed_command.server(backend.target, f"--status=unix:{path}")
    eventually(lambda: is_listening(path), "the socket is there")
    assert ask(str(path), "/_status")[0] == 200


def test_the_status_document_has_the_keys_that_scripts_read(installed_command: InstalledCommand, backend: Backend) -> None:
    path = installed_command.directory / "status"
    listen = f"127.0.0.1:{free_port()}"
    proxy = installed_command.server(backend.target, f"--status=unix:{path}", listen=listen)
    assert proxy.address
    document = status_of(str(path))
    assert list(document)[:10] == [
        *("ok", "status", "listen_address", "forward_address", "backend_ok", "backend_status", "time"),
        *("last_reload", "hostname", "message"),
    ]
    assert (document["ok"], document["status"], document["backend_status"]) == (True, "ok", "ok")
    assert (document["listen_address"], document["forward_address"]) == (listen, backend.target)
    assert document["last_reload"] == "0001-01-01T00:00:00Z"


# -- where it listens


def test_an_empty_host_is_every_address_of_both_families(installed_command: InstalledCommand, backend: Backend) -> None:
    port = free_port()
    installed_command.server(backend.target, listen=f":{port}").wait_for("listening for")
    for host in ("127.0.0.1", "::1"):
        with tls_connection((host, port), installed_command.command_files.identity("client")) as peer:
            peer.send(b"x")
            assert peer.receive_exactly(1) == b"x"


def test_localhost_is_the_ipv4_loopback_only(installed_command: InstalledCommand, backend: Backend) -> None:
    host, port = installed_command.server(backend.target, listen=f"localhost:{free_port()}").address
    assert host == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("::1", port), LIMIT)


def test_an_abstract_unix_socket_is_listened_on(installed_command: InstalledCommand, backend: Backend) -> None:
    name = f"@tunnel-{free_port()}"
    installed_command.server(backend.target, listen=f"unix:{name}").wait_for(f"listening for connections on unix:{name}$")
    connect(f"\0{name[1:]}").close()


def test_it_starts_with_64_descriptors(installed_command: InstalledCommand, backend: Backend) -> None:
    path = installed_command.directory / "status"
    few = (program("prlimit"), "--nofile=64:64")
    proxy = installed_command.server(backend.target, f"--status=unix:{path}", before=few)
    with tls_connection(proxy.address, installed_command.command_files.identity("client")) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"
    assert ask(str(path), "/_status")[0] == 200


@pytest.fixture
def elsewhere(installed_command: InstalledCommand) -> Iterator[Path]:
    """A keystore in a directory that no flag names, and that is not below /tmp, where all may be read."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        copy = Path(directory) / "server.pem"
        copy.write_bytes(Path(installed_command.command_files.keystore("server")).read_bytes())
        yield copy


def test_landlock_keeps_a_process_to_the_places_of_its_flags(
    installed_command: InstalledCommand, backend: Backend, elsewhere: Path
) -> None:
    keystore = installed_command.directory / "server.pem"
    keystore.write_bytes(elsewhere.read_bytes())
    line = ("server", f"--keystore={keystore}", "--listen=127.0.0.1:0", f"--target={backend.target}", "--allow-all")
    confined, free = installed_command.start(*line), installed_command.start(*line, "--disable-landlock")
    assert confined.address
    assert free.address
    assert not free.matches("landlock")
    if confined.matches("unable to set up landlock"):
        pytest.skip("this kernel has no Landlock")
    keystore.unlink()
    keystore.symlink_to(elsewhere)
    for proxy, words in ((confined, "error reloading TLS configuration: .*permission denied"), (free, "loaded certificate")):
        since = len(proxy.lines)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for(words, since)
