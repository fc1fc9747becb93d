"""The states that the status port and the service manager receive."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import listener_config
from tunnel.listener.generation import Generation
from tunnel.net.address import TcpAddress
from tunnel.net.notify import Notifier
from tunnel.proxy.state_reporter import StateReporter
from tunnel.status.process_state import Phase, Reload

CONFIG = listener_config(listen=TcpAddress("", "8443"), target=TcpAddress("localhost", "80"))
SUMMARY = "server proxying :8443 => localhost:80"


class FakeServiceManager:
    """A service manager that receives notifications."""

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
def manager(tmp_path: Path) -> Iterator[FakeServiceManager]:
    listening = FakeServiceManager(tmp_path / "notify")
    yield listening
    listening.close()


@pytest.fixture
def state_reporter(tmp_path: Path, manager: FakeServiceManager) -> Iterator[StateReporter]:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1)
    yield StateReporter([CONFIG], notifier)
    notifier.close()


def test_each_state_is_reported(state_reporter: StateReporter, manager: FakeServiceManager) -> None:
    assert (state_reporter.state.phase, state_reporter.state.is_listening) == (Phase.INITIALIZING, False)
    state_reporter.show_listening()
    assert (state_reporter.state.phase, state_reporter.state.is_listening) == (Phase.LISTENING, True)
    assert manager.heard() == ["READY=1", f"STATUS=listening | {SUMMARY}"]
    state_reporter.show_reloading()
    assert state_reporter.state.phase is Phase.RELOADING
    assert manager.heard() == [f"STATUS=reloading | {SUMMARY}"]
    state_reporter.show_reloaded(Reload(7, "broken"))
    assert (state_reporter.state.phase, state_reporter.state.reload) == (Phase.LISTENING, Reload(7, "broken"))
    assert manager.heard() == ["READY=1", f"STATUS=listening | {SUMMARY}"]
    state_reporter.show_stopping()
    assert (state_reporter.state.phase, state_reporter.state.is_listening) == (Phase.STOPPING, False)
    assert manager.heard() == ["STOPPING=1", f"STATUS=stopping | {SUMMARY}"]


def test_a_reload_that_ends_late_does_not_bring_the_process_back(
    state_reporter: StateReporter, manager: FakeServiceManager
) -> None:
    state_reporter.show_listening()
    state_reporter.show_reloading()
    state_reporter.show_stopping()
    manager.heard()
    state_reporter.show_reloaded(Reload(7))
    assert state_reporter.state.phase is Phase.STOPPING
    assert manager.heard() == []


def test_in_the_shutdown_delay_nothing_makes_it_ready_again(state_reporter: StateReporter, manager: FakeServiceManager) -> None:
    state_reporter.show_listening()
    manager.heard()
    state_reporter.show_shutdown_delay(10)
    assert (state_reporter.state.is_listening, state_reporter.state.is_ready) == (True, False)
    assert manager.heard() == ["STOPPING=1", f"STATUS=stopping | accepting connections for 10s more: {SUMMARY}"]
    state_reporter.show_reloading()
    state_reporter.show_reloaded(Reload(7))
    state_reporter.show_identity_error("server", "expired")
    state_reporter.show_identity_error("server", "")
    assert (state_reporter.state.phase, state_reporter.state.is_ready) == (Phase.SHUTDOWN_DELAY, False)
    assert manager.heard() == []
    state_reporter.show_stopping()
    assert manager.heard() == ["STOPPING=1", f"STATUS=stopping | {SUMMARY}"]


def test_an_unusable_identity_is_reported_until_it_is_usable(
    state_reporter: StateReporter, manager: FakeServiceManager
) -> None:
    error = "identity spiffe://a.test/w has been withdrawn"
    state_reporter.show_identity_error("server", error)
    assert manager.heard() == [], "nobody has been told yet that it listens"
    state_reporter.show_identity_error("server", "")
    state_reporter.show_listening()
    manager.heard()
    state_reporter.show_identity_error("server", error)
    assert (state_reporter.state.is_ready, state_reporter.state.phase) == (False, Phase.LISTENING)
    assert manager.heard()[-1] == f"STATUS=not ready | {error}: {SUMMARY}"
    state_reporter.show_reloading()
    state_reporter.show_reloaded(Reload(7))
    assert manager.heard()[-1] == f"STATUS=not ready | {error}: {SUMMARY}", "a reload has not changed it"
    state_reporter.show_identity_error("server", "")
    assert state_reporter.state.is_ready
    assert manager.heard()[-1] == f"STATUS=listening | {SUMMARY}"
    state_reporter.show_stopping()
    manager.heard()
    state_reporter.show_identity_error("server", error)
    assert manager.heard() == []


def test_only_a_verified_id_is_shown_as_one(state_reporter: StateReporter) -> None:
    unused: Any = None
    end = datetime(2026, 11, 22, tzinfo=UTC)
    for is_svid, shown in ((True, "spiffe://a.test/w"), (False, "")):
        state_reporter.show_identity("server", Generation(3, "spiffe://a.test/w", end, is_svid, unused, None))
        identity = state_reporter.state.identity
        assert identity is not None
        assert (identity.spiffe_id, identity.not_after, identity.generation) == (shown, int(end.timestamp()), 3)


def test_who_shows_no_certificate_has_no_identity(state_reporter: StateReporter) -> None:
    unused: Any = None
    state_reporter.show_identity("server", Generation(1, "", None, False, unused, None))
    assert state_reporter.state.identity is None


def test_another_identity_source_leaves_no_state_of_the_previous_one(state_reporter: StateReporter) -> None:
    unused: Any = None
    state_reporter.show_identity("server", Generation(1, "spiffe://a.test/w", datetime.now(UTC), True, unused, None))
    state_reporter.show_workload_api("server", "down")
    state_reporter.show_identity("server", Generation(2, "", None, False, unused, None))
    state_reporter.show_workload_api("server", None)
    (listener,) = state_reporter.state.listeners
    assert (listener.identity, listener.source_error) == (None, None)
