"""Quiet means quiet: under --quiet=all a proxy says nothing at all, unless it has to end."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from backends import Backend, connect, echo
from OpenSSL import SSL
from processes import LIMIT, eventually, is_listening
from tls_peer import TlsPeer
from world import CLIENT, STRANGER, World


def test_nothing_is_said_of_a_life_with_all_its_troubles(world: World) -> None:
    path = world.directory / "listen"
    backend = world.enter(Backend(echo))
    proxy = world.server(backend.target, "--quiet=all", listen=f"unix:{path}")
    eventually(lambda: is_listening(path), "the proxy listens")
    with connect(str(path)) as sock:
        peer = TlsPeer(sock, world.identity(CLIENT))
        peer.shake_hands()
        peer.send(b"more")
        assert peer.receive_exactly(4) == b"more"
    with connect(str(path)) as sock:
        stranger = TlsPeer(sock, world.identity(STRANGER))
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
    world.api.stop()
    assert proxy.stop() == 0
    assert (proxy.lines, proxy.complaints) == ([], [])


def test_what_ends_a_proxy_is_said_on_standard_error_only(world: World, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    proxy = world.server("127.0.0.1:1", "--quiet=all", listen=f"unix:{tmp_path}/taken")
    assert proxy.exit_code() == 1
    assert proxy.lines == []
    assert proxy.complaints == [f"error: cannot listen on unix:{tmp_path}/taken: address already in use"]
