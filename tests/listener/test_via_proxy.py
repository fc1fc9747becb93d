"""Clients that reach their target through an outbound proxy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import listener_config
from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import TLS12, TLS13
from tests.support.tunnel_harness import CALLER, Harnesses, Peer, TunnelHarness
from tunnel.errors import ConfigError, TargetError
from tunnel.listener.route import plan_route
from tunnel.net.address import Address, TcpAddress, UnixAddress
from tunnel.net.sockets import SocketAddress
from tunnel.wire.outbound import parse_outbound

TARGET = TcpAddress("Db.Example", "postgresql")
PROXY = "http://user:SECRET@proxy.example:3128"
NAME = "proxy http://proxy.example:3128"
ASKED = b"CONNECT Db.Example:5432 HTTP/1.1\r\nHost: Db.Example:5432\r\nUser-Agent: tunnel\r\nProxy-Authorization: Basic "
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.fixture
def harnesses(tmp_path: Path) -> Iterator[Harnesses]:
    made: list[TunnelHarness] = []

    def make(**fields: Any) -> TunnelHarness:
        given = {"is_server": False, "target": TARGET, "outbound": parse_outbound(PROXY)} | fields
        made.append(TunnelHarness(tmp_path, **given))
        return made[-1]

    yield make
    for harness in made:
        assert "SECRET" not in "\n".join(harness.log.lines)
        harness.close()


def at_proxy(harness: TunnelHarness) -> tuple[socket.socket, socket.socket]:
    """A program, and the proxy that was dialled for it, which is the backend of the harness."""
    program = harness.connect()
    ((address, answer),) = harness.asked
    assert address == TcpAddress("proxy.example", "3128"), "only the proxy's name is ours to resolve"
    answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    proxy = harness.accepted_by_backend()
    assert proxy is not None
    return program, proxy


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["tls12", "tls13"])
def test_a_client_goes_through_its_proxy(harnesses: Harnesses, version: int) -> None:
    harness = harnesses().serve()
    program, proxy = at_proxy(harness)
    assert received(proxy).startswith(ASKED)
    program.send(b"too early")
    proxy.send(OPENED)
    harness.turn()
    server = Peer(harness, proxy, is_server=True, version=version).shake()
    harness.turn()
    assert server.hear() == b"too early"
    assert server.side.end.server_name() == b"Db.Example", "the handshake is with the target"
    server.say(b"and back")
    assert received(program) == b"and back"
    (line,) = harness.log.lines
    assert line.startswith(f"opening pipe: unix:@ [no tls] <-> unix:{harness.place}/backend [] peer=spiffe://a.test/peer")


def test_socks_goes_the_same_way(harnesses: Harnesses) -> None:
    harness = harnesses(outbound=parse_outbound("socks5://user:SECRET@proxy.example:3128")).serve()
    _, proxy = at_proxy(harness)
    assert received(proxy) == b"\x05\x02\x00\x02"
    proxy.send(b"\x05\x02")
    harness.turn()
    assert received(proxy) == b"\x01\x04user\x06SECRET"
    proxy.send(b"\x01\x00")
    harness.turn()
    assert received(proxy) == b"\x05\x01\x00\x03\x0aDb.Example\x15\x38"
    proxy.send(b"\x05\x00\x00\x01" + bytes(6))
    harness.turn()
    Peer(harness, proxy, is_server=True).shake()
    assert harness.tunnel.counters.relayed == 1


REFUSAL = b"\x15\x03\x03\x00\x02\x02\x28"  # an alert: handshake_failure
THROUGH = f"error on dial: TLS handshake with Db.Example:postgresql through {NAME}: "


@pytest.mark.parametrize("cut", range(len(REFUSAL) + 1))
def test_what_comes_behind_the_answer_is_the_targets(harnesses: Harnesses, cut: int) -> None:
    harness = harnesses().serve()
    _, proxy = at_proxy(harness)
    proxy.send(OPENED + REFUSAL[:cut])
    harness.turn()
    assert received(proxy).rpartition(b"\r\n\r\n")[2][:2] == b"\x16\x03", "we have said hello all the same"
    if cut < len(REFUSAL):
        assert harness.log.lines == []
        proxy.send(REFUSAL[cut:])
        harness.turn()
    (line,) = harness.log.lines
    assert line.startswith(f"{THROUGH}the server refused us: ")
    assert line.endswith(f" reason=refused-by-peer{CALLER}")
    assert harness.tunnel.counters.refused == 1


def test_a_target_without_tls_is_not_waited_for(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    _, proxy = at_proxy(harness)
    proxy.send(OPENED + b"SSH-2.0-server\r\n")
    harness.turn()
    (line,) = harness.log.lines
    assert line.startswith(THROUGH)
    assert line.endswith(f" reason=tls-failure{CALLER}")


@pytest.mark.parametrize("banner", [b"", REFUSAL[:4]])
def test_an_end_that_came_with_the_answer_is_seen(harnesses: Harnesses, banner: bytes) -> None:
    """Its event came during the exchange with the proxy, and does not come again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        harness = harnesses().serve()
        harness.connect()
        harness.asked[0][1]((SocketAddress(socket.AF_INET, listener.getsockname()),))
        harness.turn()
        proxy = harness.opened(listener.accept()[0])
        proxy.sendall(OPENED + banner)
        proxy.shutdown(socket.SHUT_WR)
        harness.turn(8)
    (line,) = harness.log.lines
    assert line.startswith(THROUGH)
    assert line.endswith(f" reason=closed-during-handshake{CALLER}")


FAILURES = {
    "refused": (b"HTTP/1.1 407 Authenticate [now]\r\n\r\n", "refused: 407 Authenticate \\x5bnow\\x5d", "refused-by-proxy"),
    "not understood": (b"SSH-2.0-x\r\n\r\n", ": invalid response: ", "invalid-proxy-response"),
    "closed": (b"", ": connection closed before the response", "closed-by-proxy"),
}


@pytest.mark.parametrize(("answer", "words", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_failing_proxy_is_an_error_on_dial(harnesses: Harnesses, answer: bytes, words: str, reason: str) -> None:
    harness = harnesses().serve()
    program, proxy = at_proxy(harness)
    received(proxy)
    if answer:
        proxy.send(answer)
    else:
        proxy.close()
    harness.turn()
    (line,) = harness.log.lines
    assert line.startswith(f"error on dial: {NAME}")
    assert words in line
    assert line.endswith(f" reason={reason}{CALLER}")
    assert harness.tunnel.counters.summary() == "accepted=1 dial_failed=1"
    assert is_over(program)
    assert len(harness.tunnel) == 0


def test_a_silent_proxy_is_given_up_within_the_connect_timeout(harnesses: Harnesses) -> None:
    harness = harnesses(connect_timeout=10).serve()
    at_proxy(harness)
    harness.later(9.9)
    assert len(harness.tunnel) == 1
    harness.later(0.2)
    limit = "exceeded the connect timeout of 10s reason=timeout"
    assert harness.log.lines == [f"error on dial: {NAME}: {limit}{CALLER}"]
    assert harness.tunnel.counters.dial_failed == 1
    assert len(harness.tunnel) == 0


def test_a_silent_target_behind_a_proxy_is_given_up_within_the_same_time(harnesses: Harnesses) -> None:
    harness = harnesses(connect_timeout=10).serve()
    _, proxy = at_proxy(harness)
    harness.later(6)
    proxy.send(OPENED)
    harness.later(4.1)
    (line,) = harness.log.lines
    assert line.startswith(f"error on dial: TLS handshake with Db.Example:postgresql through {NAME}: ")
    assert "reason=handshake-timeout" in line


def test_a_program_that_goes_takes_the_hop_with_it(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    program, proxy = at_proxy(harness)
    program.close()
    harness.turn()
    assert harness.tunnel.counters.client_gone == 1
    assert len(harness.tunnel) == 0
    assert received(proxy).startswith(ASKED)
    assert is_over(proxy)
    assert harness.log.lines == [
        f"error on dial: client closed the connection before the target was connected reason=client-gone{CALLER}"
    ]


def test_an_identity_that_ended_during_the_hop_is_not_shown(harnesses: Harnesses) -> None:
    harness = harnesses().serve(lasts=100)
    _, proxy = at_proxy(harness)
    received(proxy)
    harness.wall += 101
    proxy.send(OPENED)
    harness.turn()
    assert received(proxy) == b""
    assert harness.tunnel.counters.no_identity == 1


def test_a_drain_gives_a_hop_up(harnesses: Harnesses) -> None:
    harness = harnesses().serve()
    _, proxy = at_proxy(harness)
    harness.tunnel.drain()
    harness.turn()
    assert len(harness.tunnel) == 0
    assert received(proxy).startswith(ASKED)


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (UnixAddress("/run/db"), "http://proxy"),
        (TcpAddress("", "443"), "http://proxy"),
        (TcpAddress("b\u00fccher.example", "443"), "http://proxy"),
        (TcpAddress("a" * 256, "443"), "socks5://proxy"),
        (TcpAddress("db", "no-such-service"), "http://proxy"),
    ],
)
def test_a_target_that_no_proxy_can_be_asked_for_is_found_at_the_start(target: Address, url: str) -> None:
    with pytest.raises((ConfigError, TargetError)):
        plan_route(listener_config(is_server=False, target=target, outbound=parse_outbound(url)), target)
