"""`tunnel health` reports one line for every response of a status port."""

from __future__ import annotations

import json
from contextlib import suppress
from socket import socket

import pytest

from tests.support.plain_backends import Backend
from tunnel.cli.main import main
from tunnel.status.client import StatusAnswer

WELL = {"ok": True, "status": "ok", "backend_ok": True, "message": "listening"}
DOWN = {**WELL, "ok": False, "status": "critical", "backend_ok": False, "backend_error": "connection refused"}
UNUSABLE = {**WELL, "ok": False, "status": "critical", "identity_error": "identity spiffe://a.test/w has been withdrawn"}
STARTING = {**WELL, "ok": False, "status": "critical", "message": "initializing"}


@pytest.mark.parametrize(
    ("code", "document", "path", "fault"),
    [
        (200, WELL, "/_status", ""),
        (503, DOWN, "/_status", "critical: listening, backend: connection refused"),
        (503, UNUSABLE, "/_status", "critical: listening, identity spiffe://a.test/w has been withdrawn"),
        (503, STARTING, "/_status", "critical: initializing"),
        (200, DOWN, "/_status", "critical: listening, backend: connection refused"),
        (503, WELL, "/_status", "critical: listening"),
        (200, {**WELL, "ok": "yes"}, "/_status", "critical: listening"),
        (503, {"ok": False}, "/_status", "critical: 503 Service Unavailable"),
        (200, None, "/_status", "200 OK without a status document"),
        (200, {}, "/_status", "200 OK without a status document"),
        (302, None, "/_status", "302 Found without a status document"),
        (799, None, "/_status", "799 without a status document"),
        (200, None, "/live", ""),
        (200, {"ok": False}, "/live", "critical: 200 OK"),
        (404, None, "/live", "404 Not Found"),
        (404, None, "/_status", "404 Not Found without a status document"),
    ],
)
def test_only_a_document_with_ok_is_healthy(code: int, document: dict[str, object] | None, path: str, fault: str) -> None:
    seen = StatusAnswer(code, document).problem(path)
    assert seen.startswith(fault)
    assert bool(seen) == bool(fault)


def test_the_checks_that_fail_are_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    body = b"[+]ping ok\n[-]listener failed: closed\n[-]identity failed: redis: no identity yet\x1b[1m\nreadyz check failed\n"

    def serve(sock: socket) -> None:
        sock.recv(65536)
        sock.sendall(_http(body, "503 Service Unavailable"))

    with Backend(serve) as port:
        assert main(["health", f"http://{port.target}/readyz"], {}) == 1
    line = capsys.readouterr().err
    assert line.endswith("critical: listener failed: closed, identity failed: redis: no identity yet\\x1b[1m\n")


def _http(body: bytes, code: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-x\r\n", "response is not HTTP"),
        (b"", "no response: connection closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "200 OK without a status document"),
        (_http(b"[" * 100_000), "200 OK without a status document"),
        (_http(b"[" * (4 << 20)), "response is larger than 4 MiB"),
        (
            _http(b"Client sent an HTTP request to an HTTPS server.\n", "400 Bad Request"),
            "the server uses HTTPS: write https://",
        ),
        (_http(json.dumps({**DOWN, "backend_error": "\x1b[31m\n" + "x" * 9999}).encode(), "503 x"), "\\x1b[31m\\nxxx"),
    ],
)
def test_every_response_is_reported_in_one_line(answer: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    def serve(connection: socket) -> None:
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        with suppress(OSError):
            connection.sendall(answer)
            connection.close()

    with Backend(serve) as backend:
        assert main(["health", f"http://{backend.target}"], {}) == 1
        assert main(["health", f"http://{backend.target}", "--quiet"], {}) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert len(err) < 600
    assert words in err


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_response_without_end_is_abandoned_at_the_limit(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    def drip(connection: socket) -> None:
        connection.settimeout(0.05)  # slower than the limit in all, and never as slow in one step
        with suppress(OSError):
            while True:
                connection.sendall(b"H" if scheme == "http" else b"")
                with suppress(TimeoutError):
                    if not connection.recv(65536):
                        return

    with Backend(drip) as backend:
        assert main(["health", f"{scheme}://{backend.target}", "--timeout=300ms"], {}) == 1
    assert "within 0.3s" in capsys.readouterr().err


def test_unreadable_authorities_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    for path, words in (("/nonexistent.pem", "no such file"), (__file__, "holds no certificate in PEM")):
        assert main(["health", "localhost:1", f"--cacert={path}"], {}) == 1
        assert words in capsys.readouterr().err
