"""Quiet means quiet: under --quiet=all a proxy says nothing at all, unless it has to end."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, eventually, is_listening
from tests.support.tls_peer import TlsPeer
from tests.support.workloads import CLIENT, STRANGER, Workloads


def test_nothing_is_said_of_a_life_with_all_its_troubles(workloads: Workloads) -> None:
    path = workloads.directory / "listen"
    backend = workloads.enter(Backend(echo))
    proxy = workloads.server(backend.target, "--quiet=all", listen=f"unix:{path}")
    eventually(lambda: is_listening(path), "the proxy listens")
    with connect(str(path)) as sock:
        peer = TlsPeer(sock, workloads.identity(CLIENT))
        peer.shake_hands()
        peer.send(b"more")
        assert peer.receive_exactly(4) == b"more"
    with connect(str(path)) as sock:
        stranger = TlsPeer(sock, workloads.identity(STRANGER))
        stranger.shake_hands()
        with pytest.raises(SSL.Error):
            stranger.receive()
    with connect(str(path)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(LIMIT)
        while sock.recv(4096):
            pass
    proxy.signal(signal.SIGHUP)
    workloads.api.stop()
    assert proxy.stop() == 0
    assert (proxy.lines, proxy.complaints) == ([], [])


def test_what_ends_a_proxy_is_said_on_standard_error_only(workloads: Workloads, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    proxy = workloads.server("127.0.0.1:1", "--quiet=all", listen=f"unix:{tmp_path}/taken")
    assert proxy.exit_code() == 1
    assert proxy.lines == []
    assert proxy.complaints == [f"error: cannot listen on unix:{tmp_path}/taken: address already in use"]
