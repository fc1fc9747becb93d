"""What the status port and the service manager are told, step by step."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tunnel.config.model import Access, NoIdentity, ProxyConfig
from tunnel.net.address import TcpAddress
from tunnel.net.notify import Notifier
from tunnel.proxy.board import Board
from tunnel.proxy.generation import Generation
from tunnel.status.life import Phase, Reload

CONFIG = ProxyConfig(True, TcpAddress("", "8443"), TcpAddress("localhost", "80"), NoIdentity(), Access(()))
SUMMARY = "server proxying :8443 => localhost:80"


class Manager:
    """A service manager that listens."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        said = []
        while True:
            try:
                said.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return [line for line in said if not line.startswith("RELOADING")]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.close()


@pytest.fixture
def board(tmp_path: Path, manager: Manager) -> Iterator[Board]:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1)
    yield Board(CONFIG, notifier)
    notifier.close()


def test_each_step_is_told(board: Board, manager: Manager) -> None:
    assert (board.standing.phase, board.standing.is_listening) == (Phase.INITIALIZING, False)
    board.show_listening()
    assert (board.standing.phase, board.standing.is_listening) == (Phase.LISTENING, True)
    assert manager.heard() == ["READY=1", f"STATUS=listening | {SUMMARY}"]
    board.show_reloading()
    assert board.standing.phase is Phase.RELOADING
    assert manager.heard() == [f"STATUS=reloading | {SUMMARY}"]
    board.show_reloaded(Reload(7, "broken"))
    assert (board.standing.phase, board.standing.reload) == (Phase.LISTENING, Reload(7, "broken"))
    assert manager.heard() == ["READY=1", f"STATUS=listening | {SUMMARY}"]
    board.show_stopping()
    assert (board.standing.phase, board.standing.is_listening) == (Phase.STOPPING, False)
    assert manager.heard() == ["STOPPING=1", f"STATUS=stopping | {SUMMARY}"]


def test_a_reload_that_ends_late_does_not_bring_the_process_back(board: Board, manager: Manager) -> None:
    board.show_listening()
    board.show_reloading()
    board.show_stopping()
    manager.heard()
    board.show_reloaded(Reload(7))
    assert board.standing.phase is Phase.STOPPING
    assert manager.heard() == []


def test_in_the_shutdown_delay_nothing_makes_it_ready_again(board: Board, manager: Manager) -> None:
    board.show_listening()
    manager.heard()
    board.show_shutdown_delay(10)
    assert (board.standing.is_listening, board.standing.is_ready) == (True, False)
    assert manager.heard() == ["STOPPING=1", f"STATUS=stopping | accepting connections for 10s more: {SUMMARY}"]
    board.show_reloading()
    board.show_reloaded(Reload(7))
    board.show_identity_error("expired")
    board.show_identity_error("")
    assert (board.standing.phase, board.standing.is_ready) == (Phase.SHUTDOWN_DELAY, False)
    assert manager.heard() == []
    board.show_stopping()
    assert manager.heard() == ["STOPPING=1", f"STATUS=stopping | {SUMMARY}"]


def test_an_identity_that_cannot_be_used_is_told_until_it_can_be_used_again(board: Board, manager: Manager) -> None:
    error = "identity spiffe://a.test/w has been withdrawn"
    board.show_identity_error(error)
    assert manager.heard() == [], "nobody has been told yet that it listens"
    board.show_identity_error("")
    board.show_listening()
    manager.heard()
    board.show_identity_error(error)
    assert (board.standing.is_ready, board.standing.phase) == (False, Phase.LISTENING)
    assert manager.heard()[-1] == f"STATUS=not ready | {error}: {SUMMARY}"
    board.show_reloading()
    board.show_reloaded(Reload(7))
    assert manager.heard()[-1] == f"STATUS=not ready | {error}: {SUMMARY}", "a reload has not changed it"
    board.show_identity_error("")
    assert board.standing.is_ready
    assert manager.heard()[-1] == f"STATUS=listening | {SUMMARY}"
    board.show_stopping()
    manager.heard()
    board.show_identity_error(error)
    assert manager.heard() == []


def test_only_a_verified_id_is_shown_as_one(board: Board) -> None:
    unused: Any = None
    end = datetime(2026, 11, 22, tzinfo=UTC)
    for is_svid, shown in ((True, "spiffe://a.test/w"), (False, "")):
        board.show_identity(Generation(3, "spiffe://a.test/w", end, is_svid, unused, None))
        identity = board.standing.identity
        assert identity is not None
        assert (identity.spiffe_id, identity.not_after, identity.generation) == (shown, int(end.timestamp()), 3)


def test_who_shows_no_certificate_has_no_identity(board: Board) -> None:
    unused: Any = None
    board.show_identity(Generation(1, "", None, False, unused, None))
    assert board.standing.identity is None
