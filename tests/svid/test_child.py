"""A command beside the files: its end, its next start, and how it is ended with us."""

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
from tunnel.child.probe import Arrival
from tunnel.child.signals import SETTLE
from tunnel.config.svid_model import ChildSignal, Supervised
from tunnel.svid.event_log import Event
from tunnel.svid.pid_file import Told
from tunnel.svid.supervised import Child
from tunnel.svid.watch_state import WatchState

DEAF = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'w').close(); time.sleep(600)"
)


@pytest.fixture
def heard() -> RecordedEvents:
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
def test_its_end_has_the_exit_code_of_a_shell(heard: RecordedEvents, argv: tuple[str, ...], code: int, words: str) -> None:
    standing = WatchState()
    assert trio.run(Child(Supervised(argv), heard, standing).run) == code
    assert heard.events[-1] == (Event.ENDED, words)
    assert (standing.child_pid, standing.child_exit_code) == (None, code)


def test_one_that_cannot_be_started_is_not_tried_again(heard: RecordedEvents) -> None:
    assert trio.run(Child(Supervised(("/nowhere/at/all",), is_restarted=True), heard, WatchState()).run) == 127


def test_one_that_ends_is_started_again_and_one_that_is_deaf_is_killed(heard: RecordedEvents, tmp_path: Path) -> None:
    once, deaf = tmp_path / "once", tmp_path / "deaf"
    script = f"mkdir {once} && exit 1; exec {shlex.join([sys.executable, '-c', DEAF, str(deaf)])}"
    standing = WatchState()
    child = Child(Supervised(("sh", "-c", script), is_restarted=True, stop_limit=0.1), heard, standing)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.run)
                await trio.to_thread.run_sync(eventually, deaf.exists, "the second one runs")
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert [event for event, _ in heard.events] == [Event.STARTED, Event.ENDED, Event.STARTED, Event.NOTICE, Event.ENDED]
    assert heard.events[3][1] == "sh has not ended within 0.1s of the stop: killed"
    assert (standing.child_starts, standing.child_exit_code, standing.child_pid) == (2, 137, None)


def test_stops_that_come_close_together_are_sent_on_however_long_the_first_question_takes(
    heard: RecordedEvents, tmp_path: Path
) -> None:
    """The second one has settled long before its turn comes."""
    up, got = tmp_path / "up", tmp_path / "got"
    script = f"trap 'echo x >> {got}' TERM; : > {up}; while [ ! -e {got} ]; do sleep 0.05; done; exit 0"

    def has_had(_command: int, _arrival: Arrival) -> bool:
        time.sleep(2 * SETTLE)
        return False

    child = Child(Supervised(("sh", "-c", script), stop_limit=60.0), heard, WatchState(), has_had=has_had)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child.run)
                await trio.to_thread.run_sync(eventually, up.exists, "it runs")
                child.stop(signal.SIGINT)
                child.stop(signal.SIGTERM)
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert heard.events[-1] == (Event.ENDED, "sh ended with exit code 0")


def test_one_that_does_not_run_needs_no_signal(heard: RecordedEvents) -> None:
    child = Child(Supervised(("true",)), heard, WatchState())
    assert trio.run(child.tell, ChildSignal(signal.SIGHUP)) == Told(True, "true is not running, and needs no SIGHUP")
