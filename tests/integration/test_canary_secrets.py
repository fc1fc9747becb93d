"""Real runs with keys, passwords and tokens in the wrong place: none of them is in an output, in the log or in the status."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.certificate_files import Files, replace
from tests.support.command_runner import Done, curl, run_tool
from tests.support.file_identities import FileIdentities
from tests.support.plain_backends import Backend, echo
from tests.support.processes import bare_environment
from tests.support.secret_canaries import DAMAGE, body_of, found_in, pieces_of

DONE = "reloading configuration complete"
PASSWORD = "canary-password"
STARTED = ("line breaks written out", "the body in the label", "no END", "a byte order mark and UTF-16")


def server_line(file_identities: FileIdentities, *source: str) -> tuple[str, ...]:
    return (
        "server",
        "--listen=127.0.0.1:0",
        "--target=127.0.0.1:1",
        "--allow-all",
        f"--cacert={file_identities.pki.cacert}",
        *source,
    )


def said(done: Done) -> str:
    return done.out + done.err


def sources_of(files: Files, folder: Path, blob: bytes) -> Iterable[tuple[str, ...]]:
    """Every way of the command line to name a file with this content."""
    path = folder / "given"
    path.write_bytes(blob)
    (folder / "given.pem").write_bytes(files.chain.read_bytes() + blob)
    (folder / "given.p12").write_bytes(blob)
    (folder / "given.jks").write_bytes(blob)
    yield f"--cert={files.chain}", f"--key={path}"
    yield f"--cert={path}", f"--key={files.key}"
    for name in ("given", "given.pem", "given.p12", "given.jks"):
        yield f"--keystore={folder / name}", f"--storepass={PASSWORD}"


@pytest.mark.parametrize("kind", STARTED)
def test_a_start_and_a_check_show_no_byte_of_a_damaged_key(file_identities: FileIdentities, tmp_path: Path, kind: str) -> None:
    files = file_identities.server_files
    key = files.key.read_bytes()
    for source in sources_of(files, tmp_path, DAMAGE[kind](key)):
        for before in ((), ("check",)):
            done = run_tool(bare_environment(), *before, *server_line(file_identities, *source))
            assert done.code == 1, said(done)
            assert not found_in(said(done), pieces_of(key)), said(done)
            assert PASSWORD not in said(done)
            assert "Traceback" not in said(done)
    bundle = tmp_path / "bundle"
    bundle.write_bytes(DAMAGE[kind](key))
    flags = (f"--cert={files.chain}", f"--key={files.key}", f"--cacert={bundle}")
    for before in ((), ("check",)):
        done = run_tool(
            bare_environment(), *before, "server", "--listen=127.0.0.1:0", "--target=127.0.0.1:1", "--allow-all", *flags
        )
        assert done.code == 1
        assert not found_in(said(done), pieces_of(key)), said(done)


def test_a_failed_reload_shows_no_byte_of_a_damaged_key(file_identities: FileIdentities, tmp_path: Path) -> None:
    files = file_identities.pki.leaf("server", dns=("localhost",), file="live")
    good, key = files.combined.read_bytes(), files.key.read_bytes()
    backend = file_identities.enter(Backend(echo))
    place = tmp_path / "status"
    flags = (f"--keystore={files.combined}", f"--storepass={PASSWORD}", f"--status=unix:{place}", "--allow-all")
    line = ("--listen=127.0.0.1:0", f"--target={backend.target}", f"--cacert={file_identities.pki.cacert}", *flags)
    proxy = file_identities.start("server", *line)
    assert proxy.address
    shown = []
    for count, damage in enumerate(DAMAGE.values(), 1):
        blob = damage(key)
        replace(files.combined, blob if count % 2 else files.chain.read_bytes() + blob)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for(DONE, count=count)
        shown += [curl("--unix-socket", str(place), f"http://status/{path}") for path in ("_status", "_metrics/prometheus")]
        assert '"certificate_reload":"failed: ' in shown[-2].replace(": ", ":", 1) or '"ok"' in shown[-2]
    replace(files.combined, good)
    everything = "\n".join([*shown, proxy.transcript()])
    assert '"certificate_reload"' in everything
    assert not found_in(everything, pieces_of(key))
    assert PASSWORD not in everything


def test_a_key_as_the_value_of_a_flag_is_not_shown(file_identities: FileIdentities) -> None:
    """As of `--key "$KEY"`, where the variable holds the key and not its path."""
    files = file_identities.server_files
    key = files.key.read_text()
    body = body_of(key.encode()).decode()
    good = server_line(file_identities, f"--cert={files.chain}", f"--key={files.key}")
    for value in (key, key.replace("\n", "\\n"), body):
        cases = [
            server_line(file_identities, f"--cert={files.chain}", f"--key={value}"),
            server_line(file_identities, f"--keystore={value}", f"--storepass={PASSWORD}"),
            ("svid", "verify", value),
            ("svid", "verify", str(files.chain), f"--key={value}"),
            ("health", f"--cacert={value}", "https://127.0.0.1:1"),
            (
                *good,
                f"--allow-policy={value}",
                "--allow-query=data.x.y",
            ),
            (*good, f"--connect-timeout={value}"),
        ]
        for words in cases:
            done = run_tool(bare_environment(), *words)
            assert done.code != 0
            assert not found_in(said(done), pieces_of(key.encode())), (words[:2], said(done))
    done = run_tool({**bare_environment(), "KEY_PATH": key, "CERT_PATH": str(files.chain)}, *server_line(file_identities))
    assert done.code == 1
    assert not found_in(said(done), pieces_of(key.encode()))


TOKEN = "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJzcGlmZmU6Ly9hLnRlc3QveCJ9.canary-password"
WRONG_LINES = [
    ("svid", "jwt", "verify", "--audience=x", "--use-workload-api-addr=unix:///nowhere", TOKEN),
    ("svid", "jwt", "--audience=x", TOKEN),
    ("svid", "jwt", f"--spiffe-id={TOKEN}", "--audience=x"),
    ("svid", "show", f"--use-workload-api-addr=tcp://me:{PASSWORD}@127.0.0.1:1"),
    ("svid", "show", f"--use-workload-api-addr=unix://me:{PASSWORD}@/x"),
    ("health", f"https://me:{PASSWORD}@127.0.0.1:1/x y"),
    ("client", "--listen=127.0.0.1:0", f"--target=me:{PASSWORD}@host:1", "--disable-authentication"),
    (
        "client",
        "--listen=127.0.0.1:0",
        "--target=localhost:1",
        "--disable-authentication",
        f"--proxy=socks9://me:{PASSWORD}@h:1",
    ),
    (
        "client",
        "--listen=127.0.0.1:0",
        "--target=localhost:1",
        "--disable-authentication",
        f"--metrics-url=ftp://me:{PASSWORD}@h",
    ),
]


@pytest.mark.parametrize("words", WRONG_LINES, ids=lambda words: " ".join(words)[:40])
def test_a_password_or_a_token_in_the_wrong_place_is_not_shown(words: tuple[str, ...]) -> None:
    done = run_tool(bare_environment(), *words)
    assert done.code != 0
    assert PASSWORD not in said(done)


def test_the_workload_apis_address_of_the_environment_is_not_shown_with_a_password() -> None:
    environ = {**bare_environment(), "SPIFFE_ENDPOINT_SOCKET": f"tcp://me:{PASSWORD}@127.0.0.1:1"}
    done = run_tool(environ, "svid", "show")
    assert done.code != 0
    assert PASSWORD not in said(done)


def test_a_proxy_with_passwords_in_urls_shows_none_of_them(file_identities: FileIdentities, tmp_path: Path) -> None:
    """Neither when it starts, nor when whoever the URL names refuses."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    urls = (f"--proxy=http://me:{PASSWORD}@127.0.0.1:{port}", f"--metrics-url=http://me:{PASSWORD}@127.0.0.1:{port}/x")
    flags = ("--metrics-interval=100ms", f"--status=unix:{tmp_path / 'status'}", "--disable-authentication")
    client = file_identities.start(
        "client", "--listen=127.0.0.1:0", "--target=localhost:1", f"--cacert={file_identities.pki.cacert}", *urls, *flags
    )
    with socket.create_connection(client.address, timeout=60) as caller:
        assert caller.recv(1) == b""
    client.wait_for(r"(?i)metrics.*(refused|cannot|failed)")
    shown = curl("--unix-socket", str(tmp_path / "status"), "http://status/_status")
    assert PASSWORD not in shown + client.transcript()
    os.kill(client.pid, signal.SIGTERM)
    client.exit_code()
    assert PASSWORD not in client.transcript()
