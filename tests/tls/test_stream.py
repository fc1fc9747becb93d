"""TLS at the status port is the tunnel's own: its newest certificate, its versions, its words when it fails."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.status_port_client import (
    OURS,
    SOURCE,
    STRANGER,
    Served,
    parse_answers,
    read_all,
    run,
    served,
    source_of,
    status_context,
    until,
)
from tests.support.tls_ends import (
    ALERT,
    CLOSE_NOTIFY,
    DATA,
    HANDSHAKE,
    KEY_UPDATE,
    USER_CANCELED,
    VERSIONS,
    HandMade,
    Identity,
    PublicPeer,
    Secrets,
    admission,
    admit_all,
    any_hand_made_pair,
    context,
    identity,
    public_context,
)
from tunnel.errors import Denial, PeerDenied, TlsError
from tunnel.http.connection import HttpLimits, Request, Response
from tunnel.tls.context import Presented, TlsContext, TlsOptions
from tunnel.tls.peer_auth import PeerAuth
from tunnel.tls.stream import TlsStream, accept_tls, connect_tls

CLOSING = b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def pem(path: Path, who: Identity) -> Path:
    """The root of an identity, for clients that verify."""
    path.write_bytes(who.root.certificate.pem)
    return path


async def tls_connect(port: Served, **versions: Any) -> trio.SSLStream[trio.SocketStream]:
    """A connection by Python's own TLS, which trusts everyone."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    for name, version in versions.items():
        setattr(trusting, name, version)
    return trio.SSLStream(await port.connect(), trusting, server_hostname="localhost", https_compatible=True)


def test_curl_verifies_and_is_asked_for_no_certificate(tmp_path: Path) -> None:
    root = pem(tmp_path / "root.pem", OURS)

    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            url = f"https://localhost:{port.address[1]}/one"
            command = ["curl", "-sS", "-m", "30", "--ipv4", "--cacert", str(root), url, url]
            done = await trio.run_process(command, capture_stdout=True)
            assert done.stdout == b"GET /one GET /one "

    run(talk)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_served_with_both_versions(version: str) -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            command = ["openssl", "s_client", version, "-ign_eof", "-connect", f"127.0.0.1:{port.address[1]}"]
            done = await trio.run_process(command, stdin=CLOSING, capture_stdout=True, capture_stderr=True)
            assert b"GET /a " in done.stdout
            assert b"No client certificate CA names sent" in done.stdout
            assert port.lines == []

    run(talk)


def test_what_is_sent_behind_the_handshake_in_one_flight_is_read() -> None:
    async def talk() -> None:
        near, far = trio.testing.memory_stream_pair()
        client_side = source_of(context(identity(), admit_all, is_server=False))
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                stream = await accept_tls(far, SOURCE)
                while (data := await stream.receive_some(3)) != b"":
                    await stream.send_all(data)
                await stream.aclose()

            nursery.start_soon(serve)
            client = await connect_tls(near, client_side)
            await client.send_all(b"hello there")
            await client.send_eof()
            assert await read_all(client) == b"hello there"
            await client.aclose()

    run(talk)


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS)
@pytest.mark.parametrize("we_serve", [True, False], ids=["server", "client"])
def test_close_notify_after_user_canceled_is_an_end(version: int, we_serve: bool) -> None:
    """Java 11 to 21 closes so in TLS 1.3."""

    async def talk() -> None:
        ours, writer, _reader = any_hand_made_pair(version, we_serve=we_serve)
        near, far = trio.testing.memory_stream_pair()
        stream = TlsStream(near, ours.end, ours.buffers)
        for kind, data in ((DATA, b"last words"), (ALERT, USER_CANCELED), (ALERT, CLOSE_NOTIFY)):
            await far.send_all(writer.write(kind, data))
        assert await read_all(stream) == b"last words"
        assert ours.end.has_ended
        await stream.send_all(b"answer")
        await stream.aclose()

    run(talk)


def test_large_bodies_pass_both_ways() -> None:
    body = bytes(at * 7 & 255 for at in range(700_000))

    async def large(_request: Request) -> Response:
        return Response(body)

    async def talk() -> None:
        async with served(large, tls=SOURCE) as port, await tls_connect(port) as stream:
            await stream.send_all(
                b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n" + b"y" * 60000
            )
            (answer,) = parse_answers(await read_all(stream))
            assert answer.body == body

    run(talk)


def test_many_connections_share_the_buffers_and_mix_nothing_up() -> None:
    async def mirror(request: Request) -> Response:
        await trio.lowlevel.checkpoint()
        return Response(request.query.encode() * 1000)

    async def talk() -> None:
        async with served(mirror, tls=SOURCE) as port, trio.open_nursery() as nursery:

            async def ask(number: int) -> None:
                async with await tls_connect(port) as stream:
                    for turn in range(5):
                        text = f"{number}.{turn};"
                        close = "Connection: close\r\n" if turn == 4 else ""
                        await stream.send_all(f"GET /?{text} HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode())
                        head_and_body = b""
                        while head_and_body.count(text.encode()) < 1000:
                            head_and_body += await stream.receive_some(4096)
                        assert head_and_body.endswith(text.encode() * 1000)

            for number in range(20):
                nursery.start_soon(ask, number)

    run(talk)


def test_the_newest_generation_is_shown_and_an_open_connection_stays() -> None:
    first, second = identity("spiffe://a.test/first"), identity("spiffe://a.test/second")

    async def talk() -> None:
        current = [status_context(first)]
        async with served(tls=source_of(lambda: current[0])) as port:

            async def shown(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
                await stream.send_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
                assert b"200 OK" in await stream.receive_some(4096)
                return stream.getpeercert(binary_form=True)  # type: ignore[no-any-return]

            async with await tls_connect(port) as old:
                assert await shown(old) == first.leaf.der
                current[0] = status_context(second)
                async with await tls_connect(port) as new:
                    assert await shown(new) == second.leaf.der
                assert await shown(old) == first.leaf.der

    run(talk)


def test_the_versions_of_the_tunnel_hold_here_too() -> None:
    async def talk() -> None:
        only12 = source_of(status_context(OURS, TlsOptions(is_limited_to_tls12=True)))
        async with served(tls=only12) as port:
            async with await tls_connect(port) as stream:
                await stream.do_handshake()
                assert stream.version() == "TLSv1.2"
            refused = await tls_connect(port, minimum_version=ssl.TLSVersion.TLSv1_3)
            with pytest.raises(trio.BrokenResourceError) as failure:
                await refused.do_handshake()
            assert "ALERT_PROTOCOL_VERSION" in str(failure.value.__cause__)
            await trio.aclose_forcefully(refused)

    run(talk)


ANSWER_TO_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
def test_plain_http_gets_an_error_in_plain_http(method: str) -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            for cut in (0, 1, 3, 5, 9):
                async with await port.connect() as stream:
                    request = f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                    await stream.send_all(request[:cut])
                    await trio.sleep(0.01 if cut else 0)
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(request[cut:])
                    assert await read_all(stream) == ANSWER_TO_HTTP
            assert len(port.lines) == 5
            for line in port.lines:
                assert line.startswith("http: TLS handshake error from 127.0.0.1:")
                assert line.endswith(": client sent an HTTP request to an HTTPS server")

    run(talk)


def test_curl_by_plain_http_sees_the_answer() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            command = ["curl", "-sS", "-m", "30", "-w", "%{http_code}", f"http://127.0.0.1:{port.address[1]}/"]
            done = await trio.run_process(command, capture_stdout=True)
            assert done.stdout == b"Client sent an HTTP request to an HTTPS server.\n400"

    run(talk)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "EOF"),
        (b"\x16\x03\x01", "EOF"),
        (b"SSH-2.0-x\r\n", "wrong version number"),
        (b"\x16\x03\x01\x00\x05hello", ""),
    ],
)
def test_a_handshake_that_fails_is_one_line(data: bytes, why: str) -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            async with await port.connect() as stream:
                await stream.send_all(data)
                await stream.send_eof()
                with suppress(trio.BrokenResourceError):
                    await read_all(stream)
            (line,) = port.lines
            assert line.startswith("http: TLS handshake error from 127.0.0.1:")
            assert why in line

    run(talk)


def test_a_silent_handshake_times_out_and_blocks_no_other() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE, limits=HttpLimits(header=0.2), max_connections=64) as port:
            silent = [await port.connect() for _ in range(30)]
            for stream in silent:
                assert await stream.receive_some(1) == b""
            assert len(port.lines) == 30
            assert all(line.endswith(": i/o timeout") for line in port.lines)

        async with served(tls=SOURCE, max_connections=64) as port:
            for _ in range(200):
                await port.connect()
            async with await tls_connect(port) as ready:
                await ready.send_all(CLOSING)
                assert b"200 OK" in await read_all(ready)
            assert port.lines == []

    run(talk)


def test_a_source_without_an_identity_fails_the_handshake_only() -> None:
    async def talk() -> None:
        current: list[TlsContext | None] = [None]
        async with served(tls=source_of(lambda: current[0])) as port:
            async with await port.connect() as stream:
                await stream.send_all(b"\x16\x03\x01")
                assert await read_all(stream) == b""
            assert port.lines[0].endswith(": no identity that may be used now")
            current[0] = status_context(OURS)
            async with await tls_connect(port) as good:
                await good.send_all(CLOSING)
                assert b"200 OK" in await read_all(good)

    run(talk)


def test_invalid_records_after_the_handshake_end_the_connection() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            stream = await tls_connect(port)
            await stream.do_handshake()
            await stream.transport_stream.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            with pytest.raises(trio.BrokenResourceError):
                await read_all(stream)
            await trio.aclose_forcefully(stream)
            await until(lambda: port.limiter.count == 0)
            assert port.lines == []

    run(talk)


def test_a_truncated_connection_is_an_end() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            stream = await tls_connect(port)
            await stream.do_handshake()
            await stream.transport_stream.aclose()
            await until(lambda: port.limiter.count == 0)
            assert port.lines == []

    run(talk)


def test_openssl_verifies_the_close() -> None:
    """A client that waits for the end gets a close_notify before it."""

    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            strict.check_hostname, strict.verify_mode = False, ssl.CERT_NONE
            stream = trio.SSLStream(await port.connect(), strict, https_compatible=False)
            await stream.send_all(CLOSING)
            assert b"200 OK" in await read_all(stream)  # raises for an end without close_notify
            await trio.aclose_forcefully(stream)

    run(talk)


# -- as a client


async def client_handshake(server: Identity, by: Any) -> None:
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            with suppress(TlsError, trio.BrokenResourceError):
                stream = await accept_tls(far, source_of(status_context(server)))
                await read_all(stream)
                await stream.aclose()

        nursery.start_soon(serve)
        mine = Presented(OURS.chain, OURS.leaf.key)
        made = TlsContext(mine, by if isinstance(by, PeerAuth) else PeerAuth(by), is_server=False)
        try:
            stream = await connect_tls(near, source_of(made))
            assert isinstance(stream, TlsStream)
            await stream.aclose()
        finally:
            await near.aclose()


def test_a_client_takes_whom_its_judge_admits_and_no_other() -> None:
    server = identity("spiffe://a.test/server")

    async def talk() -> None:
        await client_handshake(server, admission(server.root))
        await client_handshake(server, PeerAuth(admission(server.root), is_slow=True))

    run(talk)
    for peer_auth in (PeerAuth(admission(STRANGER.root)), PeerAuth(admission(STRANGER.root), is_slow=True)):

        async def refuse(peer_auth: PeerAuth = peer_auth) -> None:
            with pytest.RaisesGroup(pytest.RaisesExc(PeerDenied, check=lambda e: e.reason is Denial.UNKNOWN_TRUST_DOMAIN)):
                await client_handshake(server, peer_auth)

        run(refuse)


# -- floods


async def hand_made_client(port: Served) -> tuple[trio.SocketStream, HandMade]:
    """A client that has shaken hands, and what writes its records by hand."""
    made, secrets = public_context(), Secrets()
    secrets.listen(made)
    stream, peer = await port.connect(), PublicPeer(made, is_server=False)
    flight = peer.shake()
    while not peer.is_done:
        await stream.send_all(flight)
        flight = peer.shake(await stream.receive_some(65536))
    await stream.send_all(flight)
    return stream, HandMade(secrets.by_label["CLIENT_TRAFFIC_SECRET_0"])


def updates(writer: HandMade, count: int) -> bytes:
    records = b""
    for _ in range(count):
        records += writer.write(HANDSHAKE, KEY_UPDATE)
        writer.update()
    return records


def test_a_flood_of_key_updates_ends_its_connection_and_delays_no_other() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            stream, writer = await hand_made_client(port)
            await stream.send_all(updates(writer, 1000))
            async with await tls_connect(port) as honest:
                await honest.send_all(CLOSING)
                (answer,) = parse_answers(await read_all(honest))
                assert answer.status == 200
            await until(lambda: bool(port.lines))
            (line,) = port.lines
            assert line.startswith("http: TLS error from 127.0.0.1:")
            assert line.endswith(" records in a row without application data reason=records-without-data")
            assert port.reasons == ["records-without-data"]

    run(talk)


def test_a_key_update_now_and_then_is_followed() -> None:
    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            stream, writer = await hand_made_client(port)
            data = updates(writer, 3)
            for at in range(len(CLOSING)):
                data += writer.write(DATA, CLOSING[at : at + 1]) + updates(writer, at % 5)
            await stream.send_all(data)
            assert len(await read_all(stream)) > 100, "an answer"
            assert port.lines == []

    run(talk)


def test_a_turn_handles_few_records_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted between two turns of the loop, in which another task runs."""
    shares: list[int] = []
    opened = TlsStream._open_records

    async def counted(stream: TlsStream, data: bytes) -> None:
        before = len(stream._tail) + len(data)
        await opened(stream, data)
        shares.append(before - len(stream._tail))

    monkeypatch.setattr(TlsStream, "_open_records", counted)

    async def talk() -> None:
        async with served(tls=SOURCE) as port:
            stream, writer = await hand_made_client(port)
            head = writer.write(DATA, b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1200\r\n\r\n")
            await stream.send_all(head + b"".join(writer.write(DATA, b"x") for _ in range(1200)))
            await read_all(stream)

    run(talk)
    assert len(shares) > 1200 // 64
    assert max(shares) <= 63 * 23 + 200, "the head, and 63 records of one byte"
