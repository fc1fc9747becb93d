"""Health checks connect only to the target, accept only status 200, and end within their limit."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.status_port_client import OURS, SOURCE, STRANGER, listen, run, served, source_of
from tests.support.tls_ends import admission
from tunnel.errors import Denial, PeerDenied, TargetError, TargetFault, TlsError, TunnelError
from tunnel.http.client import USER_AGENT, parse_http_url
from tunnel.http.connection import Request, Respond, Response
from tunnel.net.address import Address, TcpAddress, UnixAddress
from tunnel.net.dial import open_target, open_through
from tunnel.net.sockets import SocketAddress
from tunnel.status.backend_health import Check, check_by_connecting, check_by_handshake, check_by_request, share
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import PeerAuth
from tunnel.tls.records import Buffers
from tunnel.tls.stream import TlsSource
from tunnel.wire.outbound import parse_outbound


def to(address: Any) -> Callable[[], Awaitable[trio.SocketStream]]:
    """What opens a stream to a socket's address."""
    target: Address = UnixAddress(address) if isinstance(address, str) else TcpAddress(address[0], str(address[1]))
    return lambda: open_target(target)


def failure_of(check: Check) -> Callable[[], Awaitable[TunnelError]]:
    async def ask() -> TunnelError:
        with pytest.raises(TunnelError) as failure:
            await check()
        return failure.value

    return ask


# -- by connecting


def test_a_target_that_accepts_is_healthy_and_the_connection_is_closed() -> None:
    async def talk() -> None:
        with listen().socket as target:
            await check_by_connecting(to(target.getsockname()), 10)()
            connection, _ = target.accept()
            with connection:
                assert connection.recv(1) == b""

    run(talk)


def test_a_unix_target_is_checked(tmp_path: Path) -> None:
    async def talk() -> None:
        path = str(tmp_path / "backend")
        check = check_by_connecting(to(path), 10)
        assert str(await failure_of(check)()) == f"unix:{path}: no such file or directory"
        with socket.socket(socket.AF_UNIX) as target:
            target.bind(path)
            target.listen()
            await check()

    run(talk)


def test_a_refused_connection_is_reported_with_the_address() -> None:
    async def talk() -> None:
        with listen().socket as closed:
            address = closed.getsockname()
        failure = await failure_of(check_by_connecting(to(address), 10))()
        assert isinstance(failure, TargetError)
        assert failure.reason is TargetFault.REFUSED
        assert str(failure) == f"tcp:127.0.0.1:{address[1]}: connection refused"

    run(talk)


def test_an_unknown_name_is_reported() -> None:
    async def talk() -> None:
        failure = await failure_of(check_by_connecting(to(("does-not-exist.invalid", 1)), 30))()
        assert isinstance(failure, TargetError)
        assert failure.reason is TargetFault.RESOLVE

    run(talk)


def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        with listen().socket as target, listen().socket as closed:
            dead = closed.getsockname()
            closed.close()
            both = (SocketAddress(socket.AF_INET, dead), SocketAddress(socket.AF_INET, target.getsockname()))
            monkeypatch.setattr("tunnel.net.dial.resolve_now", lambda _address: both)
            await check_by_connecting(to(("two.test", 1)), 10)()

    run(talk)


def test_an_address_that_never_answers_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> None:
        with listen().socket as target, socket.create_server(("127.0.0.1", 0), backlog=0) as silent, ExitStack() as fillers:
            for _ in range(3):
                filler = fillers.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(silent.getsockname())
            names = (silent.getsockname(), silent.getsockname(), target.getsockname())
            three = tuple(SocketAddress(socket.AF_INET, name) for name in names)
            monkeypatch.setattr("tunnel.net.dial.resolve_now", lambda _address: three)
            await check_by_connecting(to(("three.test", 1)), 10_000)()  # a share of it is more than the test has
            monkeypatch.setattr("tunnel.net.dial.resolve_now", lambda _address: three[:2])
            failure = await failure_of(check_by_connecting(to(("two.test", 1)), 0.6))()
            assert isinstance(failure, TargetError)
            assert failure.reason is TargetFault.TIMEOUT

    run(talk)


# -- shared


def test_one_check_serves_everybody_for_a_second() -> None:
    calls: list[float] = []
    is_well = False

    async def check() -> None:
        calls.append(trio.current_time())
        await trio.sleep(3)
        if not is_well:
            raise TargetError(TargetFault.REFUSED, "down")

    async def talk() -> None:
        nonlocal is_well
        shared, failures = share(check), []

        async def ask() -> None:
            failures.append(await failure_of(shared)())

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
        assert (len(calls), [str(failure) for failure in failures]) == (1, ["down"] * 20)
        is_well = True
        await trio.sleep(0.9)
        await ask()
        assert (len(calls), str(failures[-1])) == (1, "down")
        await trio.sleep(0.2)
        await shared()
        await shared()
        assert len(calls) == 2

    run(talk, clock=MockClock(autojump_threshold=0))


def test_a_check_whose_client_has_gone_is_made_again_for_the_next() -> None:
    calls = 0

    async def check() -> None:
        nonlocal calls
        calls += 1
        await trio.sleep(3)

    async def talk() -> None:
        shared, first = share(check), trio.CancelScope()

        async def ask_first() -> None:
            with first:
                await shared()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(shared)
            await trio.testing.wait_all_tasks_blocked()
            assert calls == 1
            first.cancel()
        assert calls == 2

    run(talk, clock=MockClock(autojump_threshold=10))


# -- by a handshake


def client_source(peer_auth: PeerAuth) -> TlsSource:
    return source_of(TlsContext(Presented(OURS.chain, OURS.leaf.key), peer_auth, is_server=False))


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_server_that_the_verifier_accepts_is_healthy(is_slow: bool) -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as target:
            source = client_source(PeerAuth(admission(OURS.root), is_slow=is_slow))
            await check_by_handshake(to(target.address), source, 30)()

    run(talk)


def test_a_server_that_the_verifier_refuses_is_not_healthy() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as target:
            source = client_source(PeerAuth(admission(STRANGER.root)))
            failure = await failure_of(check_by_handshake(to(target.address), source, 30))()
            assert isinstance(failure, PeerDenied)
            assert failure.reason is Denial.UNKNOWN_TRUST_DOMAIN

    run(talk)


def test_a_server_without_tls_is_not_healthy() -> None:
    async def talk() -> None:
        async with served() as target:
            check = check_by_handshake(to(target.address), client_source(PeerAuth(admission(OURS.root))), 30)
            assert isinstance(await failure_of(check)(), TlsError)

    run(talk)


def test_no_identity_is_no_handshake() -> None:
    async def talk() -> None:
        async with served() as target:
            check = check_by_handshake(to(target.address), TlsSource(lambda: None, Buffers()), 30)
            assert str(await failure_of(check)()) == "no identity that may be used now"

    run(talk)


@pytest.mark.parametrize("kind", ["handshake", "request"])
def test_a_check_of_a_silent_target_ends_at_the_limit(kind: str) -> None:
    async def talk() -> None:
        async def open_silence() -> trio.StapledStream:
            return trio.testing.memory_stream_pair()[0]

        source = client_source(PeerAuth(admission(OURS.root)))
        by_request = check_by_request(open_silence, parse_http_url("http://x/"), 10)
        start = trio.current_time()
        failure = await failure_of(check_by_handshake(open_silence, source, 10) if kind == "handshake" else by_request)()
        assert str(failure) == "no answer from the target within 10s"
        assert trio.current_time() - start == 10

    run(talk, clock=MockClock(autojump_threshold=0))


# -- by a request


def outcome(url: str, respond: Respond, **told: Any) -> str:
    """What a check by request says of a target; empty when it is well."""
    said = ""

    async def talk() -> None:
        nonlocal said
        async with served(respond, **told) as target:
            try:
                await check_by_request(to(target.address), parse_http_url(url), 30)()
            except TunnelError as error:
                said = str(error)

    run(talk)
    return said


def always(status: int, *headers: tuple[str, str]) -> Respond:
    async def respond(_request: Request) -> Response:
        return Response(b"" if status in (204, 304) else b"body", HTTPStatus(status), headers=headers)

    return respond


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 401, 404, 500, 503])
def test_any_status_but_200_is_not_healthy(status: int) -> None:
    assert outcome("http://x/health", always(status)) == f"target returned status: {status}"


def test_status_200_is_healthy() -> None:
    assert outcome("http://x/health", always(200)) == ""


def test_the_url_gives_host_path_and_query_and_the_target_is_dialled() -> None:
    seen: list[tuple[str, ...]] = []

    async def note(request: Request) -> Response:
        heads = (request.headers["host"], request.headers["user-agent"], request.headers.get("authorization", ""))
        seen.append((request.method, request.path, request.query, *heads))
        return Response()

    assert outcome("http://Backend.invalid:81/health/x?a=b#frag", note) == ""
    assert outcome("http://me:p%40ss@backend.invalid", note) == ""
    assert seen == [
        ("GET", "/health/x", "a=b", "Backend.invalid:81", USER_AGENT, ""),
        ("GET", "/", "", "backend.invalid", USER_AGENT, "Basic bWU6cEBzcw=="),
    ]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_the_same_target(status: int) -> None:
    seen: list[str] = []

    async def redirect(request: Request) -> Response:
        seen.append(request.headers["host"] + request.path + request.headers.get("authorization", ""))
        where = {"/1": "/2", "/2": "http://elsewhere.invalid:9/3?x", "/3": "4"}.get(request.path)
        return Response(status=HTTPStatus(status), headers=(("Location", where),)) if where else Response()

    assert outcome("http://u@x.invalid/1", redirect) == ""
    assert seen == ["x.invalid/1Basic dQ==", "x.invalid/2Basic dQ==", "elsewhere.invalid:9/3", "elsewhere.invalid:9/4"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("/again", "target redirects more than 10 times"),
        ("ftp://x/", "target redirects to an invalid URL: ftp://x/"),
        ("http://[", "target redirects to an invalid URL: http://["),
    ],
)
def test_redirects_have_an_end(where: str, said: str) -> None:
    assert outcome("http://x/", always(302, ("Location", where))) == said


def test_a_final_answer_after_interim_ones_counts() -> None:
    async def talk() -> None:
        near, far = trio.testing.memory_stream_pair()

        async def open_stream() -> trio.StapledStream:
            return near

        answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        for byte in answer:
            await far.send_all(bytes([byte]))
        await check_by_request(open_stream, parse_http_url("http://x/"), 10)()

    run(talk)


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000],
    ids=["end", "cut", "ssh", "large"],
)
def test_what_is_no_answer_is_no_yes(said: bytes) -> None:
    async def talk() -> None:
        near, far = trio.testing.memory_stream_pair()

        async def open_stream() -> trio.StapledStream:
            return near

        await far.send_all(said)
        await far.send_eof()
        failure = await failure_of(check_by_request(open_stream, parse_http_url("http://x/"), 10))()
        assert str(failure).startswith(
            ("response of the target is not HTTP: ", "target closed the connection without a response")
        )

    run(talk)


def test_https_is_verified_by_the_name_in_the_url_and_the_systems_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(OURS.root.certificate.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))
    assert outcome("https://localhost/", always(200), tls=SOURCE) == ""
    assert "Hostname mismatch" in outcome("https://other.invalid/", always(200), tls=SOURCE)
    assert outcome("https://localhost/", always(200)).startswith("target closed the connection: ")
    roots.write_bytes(STRANGER.root.certificate.pem)
    assert "unable to get local issuer" in outcome("https://localhost/", always(200), tls=SOURCE)


# -- through an outbound proxy


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 403 No\r\n\r\n", "refused: 403 No"),
        (b"", ": connection closed before the response"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "target sends data before the handshake"),
        (b"SSH-2.0\r\n\r\n", "invalid response"),
    ],
)
def test_a_target_behind_a_proxy_is_reached_through_it(answer: bytes, said: str) -> None:
    async def talk() -> None:
        with trio.socket.from_stdlib_socket(listen().socket) as proxy:
            outbound = parse_outbound(f"http://127.0.0.1:{proxy.getsockname()[1]}")
            heard = b""

            async def serve() -> None:
                nonlocal heard
                connection, _ = await proxy.accept()
                with connection:
                    heard = await connection.recv(4096)
                    if answer:
                        await connection.send(answer)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                check = check_by_connecting(lambda: open_through(outbound, "target.test", 8443), 30)
                if said:
                    assert said in str(await failure_of(check)())
                else:
                    await check()
            assert heard.startswith(b"CONNECT target.test:8443 HTTP/1.1\r\n")

    run(talk)
