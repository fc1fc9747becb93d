"""Foreign web pages cannot read the status port by DNS rebinding or change its state by cross-site requests."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from tests.support.status_port_client import run, served
from tunnel.errors import WebRefusal
from tunnel.http.connection import Request
from tunnel.http.origin_policy import OriginPolicy, plan_origin_policy

NAMES = frozenset({"localhost", "ops.example", "host-1"})
STRICT = OriginPolicy(NAMES, checks_host=True, schemes=("http",))
OPEN = OriginPolicy(NAMES, checks_host=False, schemes=("http",))
HTTPS = OriginPolicy(NAMES, checks_host=True, schemes=("https",))
UNIX = OriginPolicy(frozenset(), checks_host=False, schemes=("http", "https"))

OURS = [
    "127.0.0.1:6060",
    "127.0.0.1", "192.0.2.7:80", "[::1]:6060", "[::1]", "::1", "[fe80::1%eth0]:1", "localhost", "LocalHost:6060",
    "localhost.", "ops.example:6060", "OPS.example.", "host-1", "host-1:", "",
]  # fmt: skip
FOREIGN = [
    "evil.example", "evil.example:6060", "localhost.evil.example", "evil-localhost", "127.0.0.1.evil.example", "evil@localhost",
    "localhost@evil.example", "localhost:6060@evil.example", "localhost/evil", "localhost:evil", "[evil]", "ops.example..", ".",
    "[::1", "localhost evil", "127.0.0.1:6060:1", "0x7f.1",
]  # fmt: skip


def ask(method: str = "GET", host: str | None = "127.0.0.1:6060", authority: str = "", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, "/_shutdown", headers=named | ({} if host is None else {"host": host}), authority=authority)


@pytest.mark.parametrize("host", OURS)
def test_a_host_that_is_ours_is_served(host: str) -> None:
    assert STRICT.refusal(ask(host=host)) is None
    assert STRICT.refusal(ask("POST", host=host)) is None


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_another_host_is_refused(host: str, method: str) -> None:
    assert STRICT.refusal(ask(method, host=host)) is WebRefusal.HOST
    assert OPEN.refusal(ask(method, host=host)) is None


def test_a_request_without_a_host_is_served() -> None:
    assert STRICT.refusal(ask(host=None)) is None


def test_the_host_of_a_target_in_absolute_form_counts_too() -> None:
    assert STRICT.refusal(ask(authority="localhost:6060")) is None
    assert STRICT.refusal(ask(authority="evil.example")) is WebRefusal.HOST
    assert STRICT.refusal(ask(authority="localhost", host="evil.example")) is WebRefusal.HOST


SAME_SITE: list[Mapping[str, str]] = [
    {},
    {"origin": "http://127.0.0.1:6060"},
    {"origin": "HTTP://127.0.0.1:6060"},
    {"sec_fetch_site": "same-origin"},
    {"sec_fetch_site": "none"},
    {"origin": "http://127.0.0.1:6060", "sec_fetch_site": "same-origin"},
]
CROSS_SITE: list[Mapping[str, str]] = [
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://127.0.0.1:6061"},
    {"origin": "http://127.0.0.1"},
    {"origin": "https://127.0.0.1:6060"},
    {"origin": "http://localhost:6060"},
    {"origin": "http://127.0.0.1:6060.evil.example"},
    {"origin": "http://evil@127.0.0.1:6060"},
    {"origin": "http://127.0.0.1:6060/x"},
    {"origin": "http://[::1"},
    {"origin": "http://127.0.0.1:6060 http://evil.example"},
    {"sec_fetch_site": "cross-site"},
    {"sec_fetch_site": "same-site"},
    {"sec_fetch_site": ""},
    {"sec_fetch_site": "other"},
    {"origin": "http://127.0.0.1:6060", "sec_fetch_site": "cross-site"},
    {"origin": "http://evil.example", "sec_fetch_site": "same-origin"},
]


@pytest.mark.parametrize("headers", SAME_SITE)
def test_what_changes_state_is_served_to_its_own_page_and_to_tools(headers: Mapping[str, str]) -> None:
    for guard in (STRICT, OPEN, UNIX):
        assert guard.refusal(ask("POST", **headers)) is None


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_what_changes_state_is_refused_from_another_site(headers: Mapping[str, str]) -> None:
    for guard in (STRICT, OPEN):
        for method in ("POST", "PUT", "DELETE", "PATCH", "BREW"):
            assert guard.refusal(ask(method, **headers)) is WebRefusal.CROSS_SITE
        assert guard.refusal(ask("GET", **headers)) is None, "a link may lead here"


def test_an_origin_by_dns_rebinding_changes_nothing_on_any_address() -> None:
    rebound = ask("POST", host="evil.example:6060", origin="http://evil.example:6060", sec_fetch_site="same-origin")
    assert OPEN.refusal(rebound) is WebRefusal.CROSS_SITE
    assert OPEN.refusal(ask("POST", host="evil.example:6060", sec_fetch_site="same-origin")) is WebRefusal.CROSS_SITE


def test_the_port_of_a_scheme_may_be_left_out() -> None:
    assert HTTPS.refusal(ask("POST", host="ops.example", origin="https://ops.example:443")) is None
    assert HTTPS.refusal(ask("POST", host="ops.example:443", origin="https://ops.example")) is None
    assert HTTPS.refusal(ask("POST", host="ops.example:80", origin="http://ops.example")) is WebRefusal.CROSS_SITE


def test_behind_a_unix_socket_every_host_is_served_and_other_sites_are_refused() -> None:
    assert UNIX.refusal(ask(host="anything at all")) is None
    assert UNIX.refusal(ask("POST", host="ops.example", origin="https://ops.example")) is None
    assert UNIX.refusal(ask("POST", host="ops.example", origin="https://evil.example")) is WebRefusal.CROSS_SITE


@pytest.mark.parametrize(
    ("address", "allowed", "is_checked"),
    [
        ("127.0.0.1", (), True),
        ("127.9.9.9", (), True),
        ("::1", (), True),
        ("0.0.0.0", (), False),
        ("::", (), False),
        ("0.0.0.0", ("ops.example",), True),
    ],
)
def test_a_host_rule_depends_on_the_listener(address: str, allowed: tuple[str, ...], is_checked: bool) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.bind((address, 0))
        guard = plan_origin_policy(allowed, is_encrypted=False)(sock)
        assert guard.checks_host is is_checked
        for name in (*allowed, "localhost", socket.gethostname()):
            assert guard.refusal(ask(host=name)) is None


def test_a_unix_listener_has_no_host_rule() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        assert plan_origin_policy(("ops.example",), is_encrypted=False)(sock) == UNIX


# -- on a real socket


def test_a_refusal_is_answered_logged_and_counted() -> None:
    counted: list[str] = []

    async def talk() -> None:
        policy = plan_origin_policy(("ops.example",), is_encrypted=False)
        async with served(open_origin_policy=policy, count_refusal=counted.append) as port:
            (answer,) = await port.ask(b"GET /a HTTP/1.1\r\nHost: evil.example\x1b\r\nConnection: close\r\n\r\n")
            assert (answer.status, b"--status-allow-host" in answer.body) == (421, True)
            data = b"POST /a HTTP/1.1\r\nHost: ops.example\r\nOrigin: http://evil.example\r\nConnection: close\r\n\r\n"
            (answer,) = await port.ask(data)
            assert answer.status == 403
            (answer,) = await port.ask(b"GET /a HTTP/1.0\r\n\r\n")
            assert answer.status == 200
            (answer,) = await port.ask(b"GET /a HTTP/1.1\r\nHost: OPS.example:1\r\nConnection: close\r\n\r\n")
            assert answer.status == 200
            assert counted == ["host-not-allowed", "cross-site"]
            assert [line.partition(": ")[2].partition(" from ")[0] for line in port.lines] == ["refused request"] * 2
            assert port.lines[0].endswith('host "evil.example\\x1b" is not a name of this status port reason=host-not-allowed')
            assert port.lines[1].endswith('POST /a from another site, origin "http://evil.example" reason=cross-site')

    run(talk)
