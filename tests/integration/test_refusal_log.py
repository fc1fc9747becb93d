"""Refusals in the log: short lines, a few of each kind, exact counts."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
from OpenSSL import SSL

from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import Proxy
from tests.support.tls_peer import tls_connection
from tests.support.workloads import STRANGER, Workloads
from tunnel.log_limit import EQUAL_LINES

COUNT = 30
REFUSED = "error on TLS handshake from "


def suppressed(proxy: Proxy) -> int:
    found = (re.search(r"suppressed=(\d+)$", line) for line in proxy.lines)
    return sum(int(match.group(1)) for match in found if match)


def refuse_stranger(workloads: Workloads, proxy: Proxy) -> None:
    with suppress(SSL.Error, OSError), tls_connection(proxy.address, workloads.identity(STRANGER)) as peer:
        peer.receive()


def refuse_plain_text(_world: Workloads, proxy: Proxy) -> None:
    with connect(proxy.address) as sock, suppress(OSError):
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while sock.recv(4096):
            pass


@pytest.mark.parametrize("refuse", [refuse_stranger, refuse_plain_text])
def test_a_flood_of_refusals_is_a_few_lines_and_an_exact_count(
    workloads: Workloads, refuse: Callable[[Workloads, Proxy], None]
) -> None:
    proxy = workloads.server(workloads.enter(Backend(echo)).target)
    for _ in range(COUNT):
        refuse(workloads, proxy)
    assert proxy.stop() == 0
    written = proxy.matches(REFUSED)
    assert EQUAL_LINES <= len(written) < COUNT  # a slow machine may need several windows
    assert len(written) + suppressed(proxy) == COUNT
    assert proxy.matches(f"stopped accepted={COUNT} refused={COUNT}$")


def test_unreachable_targets_are_a_few_lines_too(workloads: Workloads) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy = workloads.client(f"127.0.0.1:{bound.getsockname()[1]}")
        for _ in range(COUNT):
            with connect(proxy.address) as plain, suppress(OSError):
                plain.recv(1)
    assert proxy.stop() == 0
    written = proxy.matches("error on dial: ")
    assert EQUAL_LINES <= len(written) < COUNT
    assert len(written) + suppressed(proxy) == COUNT
