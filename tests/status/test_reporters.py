"""Metric reports over real sockets: times, content, and log lines of failures."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h11
import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.cert_factory import MadeCertificate, authority, leaf
from tests.support.known_metrics import known_source
from tunnel.errors import ConfigError
from tunnel.http.client import parse_http_url
from tunnel.ip_address import join_host_port
from tunnel.status.reporters import GraphiteTarget, PostTarget, open_post_target, report_by_post, report_to_graphite

INTERVAL = 30.0
LIMIT = 60  # real seconds until a test has failed


def target(host: str, port: int, path: str = "/", *, scheme: str = "http", cacert: str | None = None) -> PostTarget:
    return open_post_target(parse_http_url(f"{scheme}://{join_host_port(host, port)}{path}"), cacert)


class Scene:
    """A reporter in a nursery, with a clock that the test sets; its lines, and what has come to the server."""

    def __init__(self, clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
        self.clock, self.nursery = clock, nursery
        self.lines: list[str] = []
        self.source, self.counters, _ = known_source()

    def say(self, line: str) -> None:
        self.lines.append(line)

    async def serve(self, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
        """The port of a server whose handler is given each connection."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.nursery.start_soon(trio.serve_listeners, handler, [listener])
        return listener.socket.getsockname()[1]

    def post_to(self, target: PostTarget) -> None:
        async def report() -> None:
            await report_by_post(self.source, target, prefix="p", hostname="box", interval=INTERVAL, log=self.say)

        self.nursery.start_soon(report)

    def write_to(self, host: str, port: int) -> None:
        async def report() -> None:
            await report_to_graphite(self.source, GraphiteTarget(host, port), prefix="p", interval=INTERVAL, log=self.say)

        self.nursery.start_soon(report)

    async def pass_time(self, seconds: float = INTERVAL) -> None:
        await trio.testing.wait_all_tasks_blocked()
        self.clock.jump(seconds)

    async def said(self, count: int) -> list[str]:
        """The lines, once there are so many: sockets answer in real time."""
        deadline = time.monotonic() + LIMIT
        while len(self.lines) < count:
            assert time.monotonic() < deadline, self.lines
            await trio.lowlevel.checkpoint()
        return self.lines


Act = Callable[[Scene], Awaitable[None]]


def play(act: Act) -> Scene:
    """Run a scene to the end of its act."""
    clock = trio.testing.MockClock()
    made: list[Scene] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            made.append(Scene(clock, nursery))
            await act(made[0])
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    return made[0]


class Collector:
    """An HTTP server that answers each request with one status, and keeps what it was asked."""

    def __init__(self, status: int = 200, context: ssl.SSLContext | None = None) -> None:
        self.status, self.context = status, context
        self._sender, self.requests = trio.open_memory_channel[tuple[h11.Request, bytes]](100)

    async def __call__(self, stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, self.context, server_side=True, https_compatible=True) if self.context else stream
        try:
            await self._answer(secured)
        except trio.BrokenResourceError:
            await stream.aclose()

    async def _answer(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        request, body = None, b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(4096)))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
        assert request is not None
        await self._sender.send((request, body))
        answer = h11.Response(status_code=self.status, headers=[("Content-Length", "0"), ("Connection", "close")])
        await stream.send_all((connection.send(answer) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        await stream.aclose()


def test_the_first_report_is_posted_after_one_interval_and_one_after_each() -> None:
    async def act(scene: Scene) -> None:
        collector = Collector()
        port = await scene.serve(collector)
        scene.post_to(target("127.0.0.1", port, "/metrics?from=us"))
        await scene.pass_time(INTERVAL - 0.1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            collector.requests.receive_nowait()
        for elapsed in (0.1, INTERVAL, INTERVAL):
            await scene.pass_time(elapsed)
            request, body = await collector.requests.receive()
        headers = dict(request.headers)
        assert (request.method, request.target) == (b"POST", b"/metrics?from=us")
        assert headers[b"content-type"] == b"application/json"
        assert headers[b"content-length"] == str(len(body)).encode()
        assert headers[b"host"] == f"127.0.0.1:{port}".encode()
        assert {one["metric"]: one["value"] for one in json.loads(body)}["p.accept.total"] == 7

    (line,) = play(act).lines
    assert line.startswith("metrics enabled; reporting metrics via POST to http://127.0.0.1:")
    assert line.endswith("/metrics?from=us")


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_status_other_than_2xx_is_logged(status: int) -> None:
    async def act(scene: Scene) -> None:
        collector = Collector(status)
        scene.post_to(target("127.0.0.1", await scene.serve(collector)))
        await scene.pass_time()
        await scene.said(2)

    line = play(act).lines[1]
    assert line.startswith("error reporting metrics: http://127.0.0.1:")
    assert line.endswith(f"/: unexpected status {status}; expected 2xx")


async def closing(stream: trio.SocketStream) -> None:
    await stream.aclose()


async def babbling(stream: trio.SocketStream) -> None:
    await stream.send_all(b"220 smtp.example\x1b[2J ESMTP\r\n\r\n")


async def silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("handler", "expected"),
    [(closing, ""), (babbling, "illegal status line")],
)
def test_a_failed_report_is_logged_and_the_next_one_follows(handler: Act, expected: str) -> None:
    async def act(scene: Scene) -> None:
        scene.post_to(target("127.0.0.1", await scene.serve(handler)))
        for count in (2, 3):
            await scene.pass_time()
            await scene.said(count)

    for line in play(act).lines[1:]:
        assert line.startswith("error reporting metrics: http://127.0.0.1:")
        assert f"/: {expected}" in line
        assert line.isprintable()


def test_a_report_has_one_interval_of_time() -> None:
    async def act(scene: Scene) -> None:
        scene.post_to(target("127.0.0.1", await scene.serve(silent)))
        await scene.pass_time()
        for count in (2, 3):
            await trio.testing.wait_all_tasks_blocked(0.05)
            scene.clock.jump(INTERVAL)
            await scene.said(count)

    lines = play(act).lines[1:]
    assert len(lines) == 2
    assert all(line.endswith("/: timeout after 30s") for line in lines)


def test_a_refused_connection_is_logged() -> None:
    async def act(scene: Scene) -> None:
        with trio.socket.socket() as sock:
            await sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        scene.post_to(target("127.0.0.1", port))
        scene.write_to("127.0.0.1", port)
        await scene.pass_time()
        await scene.said(4)

    lines = play(act).lines
    assert all(line.startswith("error reporting metrics: ") for line in lines[2:])
    assert all(line.endswith(": connection refused") for line in lines[2:])


# -- TLS


YEARS = {"start": datetime.now(UTC) - timedelta(days=1), "end": datetime.now(UTC) + timedelta(days=365)}
ROOT = authority(**YEARS)
OTHER = authority("b.test", **YEARS)
SERVER = leaf(issuer=ROOT, dns_names=("localhost",), **YEARS)


def written(path: Path, *parts: bytes) -> str:
    path.write_bytes(b"".join(parts))
    return str(path)


def pem(one: MadeCertificate) -> bytes:
    return one.certificate.pem


def serving(place: Path) -> ssl.SSLContext:
    key = SERVER.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(written(place / "server.pem", pem(SERVER), key))
    return context


def test_a_report_is_posted_over_tls_to_a_server_that_the_file_vouches_for(tmp_path: Path) -> None:
    cacert = written(tmp_path / "ca.pem", pem(ROOT))

    async def act(scene: Scene) -> None:
        collector = Collector(context=serving(tmp_path))
        scene.post_to(target("localhost", await scene.serve(collector), scheme="https", cacert=cacert))
        await scene.pass_time()
        request, _body = await collector.requests.receive()
        assert dict(request.headers)[b"host"].startswith(b"localhost:")

    assert play(act).lines[0].startswith("metrics enabled; reporting metrics via POST to https://localhost:")


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_server_that_nothing_vouches_for_gets_no_report(tmp_path: Path, wrong: str) -> None:
    cacert = written(tmp_path / "ca.pem", pem(OTHER if wrong == "authority" else ROOT))
    host = "127.0.0.1" if wrong == "name" else "localhost"

    async def act(scene: Scene) -> None:
        collector = Collector(context=serving(tmp_path))
        scene.post_to(target(host, await scene.serve(collector), scheme="https", cacert=cacert))
        await scene.pass_time()
        await scene.said(2)
        with pytest.raises(trio.WouldBlock):
            collector.requests.receive_nowait()

    assert "certificate verify failed" in play(act).lines[1]


def test_credentials_of_the_url_are_sent_and_never_logged() -> None:
    async def act(scene: Scene) -> None:
        collector = Collector(404)
        port = await scene.serve(collector)
        scene.post_to(open_post_target(parse_http_url(f"http://me:hunter2@127.0.0.1:{port}/"), None))
        await scene.pass_time()
        request, _body = await collector.requests.receive()
        assert dict(request.headers)[b"authorization"] == b"Basic bWU6aHVudGVyMg=="
        await scene.said(2)

    assert "hunter2" not in "".join(play(act).lines)


def test_tls_is_verified_and_not_older_than_1_2() -> None:
    context = target("localhost", 1, scheme="https").context
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_without_certificates_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = str(tmp_path / "ca.pem") if content is None else written(tmp_path / "ca.pem", content)
    with pytest.raises(ConfigError, match="cannot read certificates to verify the metrics URL"):
        target("localhost", 1, scheme="https", cacert=path)


@pytest.mark.parametrize(
    ("host", "port", "is_secure", "shown", "authority"),
    [
        ("a.example", 80, False, "http://a.example:80/p", "a.example"),
        ("a.example", 443, True, "https://a.example:443/p", "a.example"),
        ("a.example", 443, False, "http://a.example:443/p", "a.example:443"),
        ("::1", 8080, False, "http://[::1]:8080/p", "[::1]:8080"),
    ],
)
def test_a_target_is_shown_as_a_url(host: str, port: int, is_secure: bool, shown: str, authority: str) -> None:
    made = target(host, port, "/p", scheme="https" if is_secure else "http")
    assert (str(made), made.url.authority, made.context is not None) == (shown, authority, is_secure)


# -- Graphite


class Carbon:
    """Takes what comes on each connection, up to its end."""

    def __init__(self) -> None:
        self._sender, self.texts = trio.open_memory_channel[str](100)

    async def __call__(self, stream: trio.SocketStream) -> None:
        await self._sender.send(b"".join([bytes(chunk) async for chunk in stream]).decode())
        await stream.aclose()


def test_graphite_is_written_to_once_in_an_interval_over_a_new_connection() -> None:
    async def act(scene: Scene) -> None:
        carbon = Carbon()
        scene.write_to("127.0.0.1", await scene.serve(carbon))
        await scene.pass_time(INTERVAL - 0.1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            carbon.texts.receive_nowait()
        await scene.pass_time(0.1)
        first = await carbon.texts.receive()
        assert "p.accept.total.count 7 " in first
        scene.counters.accepted += 1
        await scene.pass_time()
        assert "p.accept.total.count 8 " in await carbon.texts.receive()

    (line,) = play(act).lines
    assert line.startswith("metrics enabled; reporting metrics via TCP to 127.0.0.1:")


def test_a_graphite_that_takes_nothing_has_one_interval() -> None:
    async def act(scene: Scene) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 1024)
        scene.source._measure().counters.other_ends = {f"{number:0900}": 1 for number in range(5000)}  # megabytes
        scene.write_to(*listener.socket.getsockname())
        await scene.pass_time()
        await trio.testing.wait_all_tasks_blocked(0.1)
        scene.clock.jump(INTERVAL)
        await scene.said(2)
        await listener.aclose()

    line = play(act).lines[1]
    assert line.startswith("error reporting metrics: 127.0.0.1:")
    assert line.endswith(": timeout after 30s")
