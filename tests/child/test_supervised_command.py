"""A supervised command: its end, its restart, and how it is stopped."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
import trio

from tests.support.processes import eventually
from tests.support.recorded_events import RecordedEvents
from tunnel.child.pid_file import ReloadOutcome
from tunnel.child.signal_probe import ReceivedSignal
from tunnel.child.signals import SETTLE
from tunnel.child.supervised_command import SupervisedCommand
from tunnel.config.svid_model import ChildSignal, Supervised
from tunnel.svid.event_log import Event
from tunnel.svid.watch_state import CommandReporter, WatchState

DEAF = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').close(); time.sleep(600)"
)


@pytest.fixture
def recorded() -> RecordedEvents:
    return RecordedEvents()


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("true",), 0, "true ended with exit code 0"),
        (("sh", "-c", "exit 3"), 3, "sh ended with exit code 3"),
        (("sh", "-c", "kill -9 $$"), 137, "sh was ended by signal 9"),
        (("/nowhere/at all",), 127, "cannot start /nowhere/at all: no such file or directory"),
        (("/etc/passwd",), 126, "cannot start /etc/passwd: permission denied"),
    ],
)
def test_its_end_has_the_exit_code_of_a_shell(recorded: RecordedEvents, argv: tuple[str, ...], code: int, words: str) -> None:
    state = WatchState()
    assert trio.run(SupervisedCommand(Supervised(argv), CommandReporter(state, recorded)).run) == code
    assert recorded.events[-1] == (Event.ENDED, words)
    assert (state.child_pid, state.child_exit_code) == (None, code)


def test_one_that_cannot_be_started_is_not_tried_again(recorded: RecordedEvents) -> None:
    config = Supervised(("/nowhere/at/all",), is_restarted=True)
    assert trio.run(SupervisedCommand(config, CommandReporter(WatchState(), recorded)).run) == 127


def test_one_that_ends_is_started_again_and_one_that_is_deaf_is_killed(recorded: RecordedEvents, tmp_path: Path) -> None:
    once, deaf = tmp_path / "once", tmp_path / "deaf"
    script = f"mkdir {once} && exit 1; exec {shlex.join([sys.executable, '-c', DEAF, str(deaf)])}"
    state = WatchState()
    config = Supervised(("sh", "-c", script), is_restarted=True, stop_limit=0.1)
    command = SupervisedCommand(config, CommandReporter(state, recorded))

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command.run)
                await trio.to_thread.run_sync(eventually, deaf.exists, "the second one runs")
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert [event for event, _ in recorded.events] == [Event.STARTED, Event.ENDED, Event.STARTED, Event.NOTICE, Event.ENDED]
    assert recorded.events[3][1] == "sh has not ended within 0.1s of the stop: killed"
    assert (state.child_starts, state.child_exit_code, state.child_pid) == (2, 137, None)


def test_stops_that_come_close_together_are_sent_on_however_long_the_first_question_takes(
    recorded: RecordedEvents, tmp_path: Path
) -> None:
    """The second one has settled long before its turn comes."""
    up, got = tmp_path / "up", tmp_path / "got"
    script = f"trap 'echo x >> {got}' TERM; : > {up}; while [ ! -e {got} ]; do sleep 0.05; done; exit 0"

    def was_sent_to(_command: int, _received: ReceivedSignal) -> bool:
        time.sleep(2 * SETTLE)
        return False

    config = Supervised(("sh", "-c", script), stop_limit=60.0)
    command = SupervisedCommand(config, CommandReporter(WatchState(), recorded), was_sent_to=was_sent_to)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(command.run)
                await trio.to_thread.run_sync(eventually, up.exists, "it runs")
                command.stop(signal.SIGINT)
                command.stop(signal.SIGTERM)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert recorded.events[-1] == (Event.ENDED, "sh ended with exit code 0")


def test_one_that_does_not_run_needs_no_signal(recorded: RecordedEvents) -> None:
    command = SupervisedCommand(Supervised(("true",)), CommandReporter(WatchState(), recorded))
    outcome = trio.run(command.send, ChildSignal(signal.SIGHUP))
    assert outcome == ReloadOutcome(True, "true is not running: SIGHUP not needed")
