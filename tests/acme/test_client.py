"""Every failure of an ACME server becomes one line."""

from __future__ import annotations

import builtins
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.issued_certificates import NAME
from tunnel.acme import client
from tunnel.acme.material import new_key
from tunnel.acme.renewal import open_renewer
from tunnel.config.acme import AcmeConfig
from tunnel.errors import ConfigError, IdentityError, IdentityFault
from tunnel.keystore.material import KeyMaterial
from tunnel.net.sockets import SocketAddress
from tunnel.tls.acme_challenge import AcmeChallenges


class Authority:
    """A web server that answers each path with what the test says."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, body = pages.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_POST = do_HEAD = do_GET  # noqa: N815  # http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        nonce = {"Replay-Nonce": "bm9uY2U"}
        self.say("/dir", {name: f"{self.url}/{name}" for name in ("newNonce", "newAccount", "newOrder")})
        self.say("/newNonce", b"", headers=nonce)
        self.say("/newAccount", {"status": "valid"}, headers={**nonce, "Location": f"{self.url}/account"}, status=201)

    def say(self, path: str, body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.pages[path] = status, headers or {"Replay-Nonce": "bm9uY2U"}, content

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def authority() -> Iterator[Authority]:
    made = Authority()
    yield made
    made.close()


def show(_: KeyMaterial) -> AbstractContextManager[None]:
    return nullcontext()


def refused(url: str, **fields: Any) -> str:
    """What is said when no certificate can be had."""
    config = AcmeConfig(NAME, "a@example.test", url, Path("/nowhere"), **fields)
    with pytest.raises(IdentityError) as caught:
        client.issue(config, new_key(), show)
    assert caught.value.reason is IdentityFault.ACME
    text = str(caught.value)
    start = f"no certificate for {NAME} from {url}: "
    assert text.startswith(start)
    assert "\n" not in text
    assert " at 0x" not in text
    assert len(text) < 700
    return text.removeprefix(start)


PROBLEM = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\ncertificates", "status": 429}
ORDER = {
    "status": "pending",
    "identifiers": [{"type": "dns", "value": NAME}],
    "authorizations": [],
    "finalize": "http://127.0.0.1:1/finalize",
}


@pytest.mark.parametrize(
    ("path", "status", "body", "said"),
    [
        ("/dir", 200, b"<html>", "ClientError: Unexpected response Content-Type"),
        ("/dir", 200, [], "unexpected response: "),
        ("/dir", 200, {}, "unexpected response: KeyError: "),
        ("/dir", 200, "text", "unexpected response: "),
        ("/newAccount", 400, PROBLEM, "rateLimited: too many certificates"),
        ("/newAccount", 400, {"type": "about:blank"}, "about:blank: no details"),
        ("/newOrder", 429, PROBLEM, "rateLimited: too many certificates"),
        ("/newOrder", 201, b"", "unexpected response: "),
        ("/newOrder", 201, {"status": "strange"}, "unexpected response: "),
        ("/newOrder", 201, {**ORDER, "authorizations": ["nothing"]}, "MissingSchema: "),
        ("/newOrder", 201, ORDER, "cannot be reached: tcp:127.0.0.1:1: connection refused"),
        ("/newOrder", 403, {**PROBLEM, "detail": "x" * 10000}, "rateLimited: xxx"),
    ],
)
def test_an_answer_that_is_none_becomes_one_line(authority: Authority, path: str, status: int, body: object, said: str) -> None:
    authority.say(path, body, status=status)
    assert refused(f"{authority.url}/dir").lower().startswith(said.lower())


@pytest.mark.parametrize("path", ["/dir", "/newNonce", "/newOrder"])
def test_an_http_error_status_is_reported_with_its_url(authority: Authority, path: str) -> None:
    authority.say(path, b"<html>", status=502)
    assert refused(f"{authority.url}/dir") == f"{authority.url}{path} returned HTTP status 502"


def test_a_server_that_does_not_run_is_reported_as_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert refused(f"https://127.0.0.1:{port}/dir") == f"cannot be reached: tcp:127.0.0.1:{port}: connection refused"


def test_a_server_without_tls_is_not_reported_as_untrusted(authority: Authority) -> None:
    said = refused(f"{authority.url.replace('http:', 'https:')}/dir")
    assert said.startswith("TLS with the directory failed: ")


def test_a_request_to_a_silent_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_REQUEST_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert refused(f"http://127.0.0.1:{silent.getsockname()[1]}/dir") == "no response within 0.2s"


def test_an_address_that_never_answers_delays_nothing(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_REQUEST_SECONDS", 10_000)  # for each connection: the test has less
    port = int(authority.url.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, ExitStack() as fillers:
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(silent.getsockname())
        both = tuple(SocketAddress(socket.AF_INET, name) for name in (silent.getsockname(), ("127.0.0.1", port)))
        monkeypatch.setattr(client, "resolve", lambda _address: both)
        assert refused(f"http://ca.test:{port}/none") == f"http://ca.test:{port}/none returned HTTP status 404"


def test_roots_that_are_not_there_are_named() -> None:
    said = refused("https://127.0.0.1:1/dir", ca_trust=Path("/nowhere/roots.pem"))
    assert "/nowhere/roots.pem" in said


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load: Callable[..., Any] = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "tunnel.acme.client":
            raise ModuleNotFoundError("No module named 'acme'")
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    config = AcmeConfig(NAME, "a@example.test", "https://ca.test/dir", tmp_path)
    with pytest.raises(ConfigError, match=r"No module named 'acme'.*spiffe-tunnel\[acme\]"):
        open_renewer(config, AcmeChallenges(), print)
