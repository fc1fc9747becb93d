"""The token file: atomic writes, permissions, and refresh."""

from __future__ import annotations

import os
import signal
import stat
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.support.jwt_factory import NOW, token
from tunnel.atomic_file import AtomicFile
from tunnel.backoff import Backoff
from tunnel.errors import IdentityError, IdentityFault, OutputError
from tunnel.identity.tokens import JwtSvid, accept_token
from tunnel.net.notify import Notifier, State
from tunnel.spiffe.messages import JwtSvidEntry
from tunnel.svid.event_log import Event
from tunnel.svid.jwt_token import TokenRefresher, renewal_delay

LIMIT = 60.0


def test_a_file_is_replaced_in_one_step_with_its_mode_whatever_the_mask(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")
    path.chmod(0o666)
    before = os.umask(0o077)
    try:
        with path.open() as reader:
            AtomicFile(str(path), 0o640, os.getgid()).write("new")
            assert reader.read() == "old"
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["token"]


def test_what_a_killed_run_has_left_is_no_obstacle_and_no_way_in(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".token.new").symlink_to(victim)
    AtomicFile(str(tmp_path / "token"), 0o600, None).write("new")
    assert (victim.read_text(), (tmp_path / "token").read_text()) == ("precious", "new")


def test_what_cannot_be_written_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "none" / "token", tmp_path / "directory"):
        with pytest.raises(OutputError, match="cannot write"):
            AtomicFile(str(path), 0o600, None).write("new")
    assert os.listdir(tmp_path) == ["directory"]


class AtOnce(Backoff):
    def next(self, *, floor: float, cap: float) -> float:
        return 0.01


class RecordedNotifier(Notifier):
    """Records the states instead of sending them."""

    def __init__(self, states: list[State]) -> None:
        super().__init__({}, 0)
        self._states = states

    def notify(self, state: State, summary: str) -> bool:
        self._states.append(state)
        return True


@dataclass
class Scenario:
    """A refresher whose agent follows a script: lifetimes in seconds, or errors."""

    script: list[float | Exception]
    path: Path
    recorded: list[tuple[str, str]] = field(default_factory=list)
    wall: float = NOW
    written: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    states: list[State] = field(default_factory=list)

    def fetch(self) -> JwtSvid:
        if not self.script:
            os.kill(os.getpid(), signal.SIGTERM)
            assert self.stopped.wait(LIMIT)
            raise IdentityError(IdentityFault.STOPPED, "stopped")
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        text = token(exp=self.wall + step, jti=len(self.script))
        entries = [JwtSvidEntry("spiffe://a.test/w", text)]
        return accept_token(entries, ["db"], datetime.fromtimestamp(self.wall, UTC)).svid

    def write(self, svid: JwtSvid) -> None:
        AtomicFile(str(self.path), 0o600, None).write(svid.token.text)
        self.written.append(svid.token.text)

    def write_event(self, event: Event, text: str, **facts: Any) -> None:
        assert "\n" not in text
        assert not any(written in f"{text}{facts}" for written in self.written)
        self.recorded.append((event.value, text))

    def refresher(self) -> TokenRefresher:
        notifier = RecordedNotifier(self.states)
        return TokenRefresher(
            self.fetch, self.fetch, self.stopped.set, self.write, self.write_event, lambda: self.wall, AtOnce(), notifier
        )

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.recorded]


def run(scenario: Scenario) -> None:
    """Until the script has ended, when the agent's last caller is sent SIGTERM; time goes as fast as it is waited for."""
    refresher = scenario.refresher()

    async def hurry(due: float) -> None:
        scenario.wall = max(scenario.wall, due)
        await trio.lowlevel.checkpoint()

    refresher._sleep_until = hurry  # type: ignore[method-assign]

    async def main() -> None:
        with trio.fail_after(LIMIT):
            await refresher.run()

    trio.run(main)


def test_each_token_is_written_and_sigterm_is_a_good_end(tmp_path: Path) -> None:
    scenario = Scenario([300.0, 300.0, 300.0], tmp_path / "token")
    run(scenario)
    assert scenario.events == ["written"] * 3
    assert scenario.states == [State.KEEPING] * 3 + [State.STOPPING]
    assert scenario.path.read_text() == scenario.written[-1]
    assert scenario.wall == pytest.approx(NOW + 2 * renewal_delay(300) + renewal_delay(300))


def test_while_no_token_can_be_had_the_old_one_stays_and_the_trouble_is_told_once(tmp_path: Path) -> None:
    away = IdentityError(IdentityFault.TIMEOUT, "the agent is away")
    scenario = Scenario([300.0, away, away, OutputError("disk full"), 300.0], tmp_path / "token")
    run(scenario)
    assert scenario.events == ["written", "unavailable", "write-failed", "written"]
    assert "keeping the previous token" in scenario.recorded[1][1]


def test_the_end_of_a_token_that_could_not_be_renewed_is_told_once_and_the_file_stays(tmp_path: Path) -> None:
    scenario = Scenario([300.0], tmp_path / "token")
    away = iter(range(5))

    def fetch() -> JwtSvid:
        if scenario.written and next(away, None) is not None:
            scenario.wall += 100
            raise IdentityError(IdentityFault.TIMEOUT, "the agent is away")
        return Scenario.fetch(scenario)

    scenario.fetch = fetch  # type: ignore[method-assign]
    run(scenario)
    assert scenario.events == ["written", "unavailable", "expired"]
    assert scenario.path.read_text() == scenario.written[0]


def test_an_agent_that_hands_out_the_same_token_again_causes_no_event(tmp_path: Path) -> None:
    scenario = Scenario([300.0], tmp_path / "token")
    once = scenario.fetch()
    answers = [once, once, once]

    def fetch() -> JwtSvid:
        return answers.pop() if answers else Scenario.fetch(scenario)

    scenario.fetch = fetch  # type: ignore[method-assign]
    run(scenario)
    assert scenario.events == ["written"]


@pytest.mark.parametrize("trouble", [IdentityError(IdentityFault.REFUSED, "never"), OutputError("disk full")])
def test_without_a_first_token_it_is_an_error(trouble: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(trouble), match=str(trouble)):
        run(Scenario([trouble], tmp_path / "token"))


@pytest.mark.parametrize(("step", "delay"), [(0.0, 151.0), (-3600.0, 151.0), (200.0, 51.0)])
def test_a_clock_that_was_set_back_delays_no_renewal(tmp_path: Path, step: float, delay: float) -> None:
    scenario = Scenario([], tmp_path / "token")
    text = token(iat=NOW, exp=NOW + 300)
    svid = accept_token([JwtSvidEntry("spiffe://a.test/w", text)], ["db"], datetime.fromtimestamp(NOW, UTC)).svid
    scenario.wall = NOW + step
    assert scenario.refresher().refresh_delay(svid) == delay


def test_a_token_is_renewed_a_little_after_half_of_its_life() -> None:
    assert renewal_delay(300) == 151
    assert renewal_delay(4) == pytest.approx(2.4)
    assert renewal_delay(-5) == 0.5
