"""Telling of new files: a failure is said once, counted, and tried again where that helps."""

from __future__ import annotations

import sys

import pytest
import trio
import trio.testing

from tests.support.recorded_events import RecordedEvents
from tunnel.config.svid_model import ReloadCommand
from tunnel.svid.event_log import Event
from tunnel.svid.pid_file import Told
from tunnel.svid.reload_notifier import ReloadNotifier, run_reload_command
from tunnel.svid.watch_state import WatchState

SOON, NEVER, DONE = Told(False, "not there", may_come=True), Told(False, "not allowed"), Told(True, "done")


def play(*answers: Told) -> tuple[RecordedEvents, WatchState, float]:
    """One request, answered by these in turn; what was heard, and after how long all was told."""
    heard, standing, left = RecordedEvents(), WatchState(), list(answers)
    ended = 0.0

    async def tell() -> Told:
        nonlocal ended
        ended = trio.current_time()
        return left.pop(0)

    async def main() -> None:
        reloader = ReloadNotifier(tell, heard, standing)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloader.run)
            reloader.request()
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        nonlocal ended
        ended -= began

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return heard, standing, ended


def test_what_works_is_told_and_counted() -> None:
    heard, standing, _ = play(DONE)
    assert heard.events == [(Event.RELOADED, "done")]
    assert (standing.reloads, standing.reload_failures, standing.reload_error) == (1, 0, "")


def test_what_may_come_is_tried_again_and_complained_of_once() -> None:
    heard, standing, seconds = play(SOON, SOON, SOON, DONE)
    assert heard.events == [
        (Event.RELOAD_FAILED, "reload failed: not there; trying again for a minute"),
        (Event.RELOADED, "done"),
    ]
    assert (standing.reloads, standing.reload_failures, standing.reload_error) == (1, 1, "")
    assert seconds == 7


def test_after_a_minute_it_is_given_up() -> None:
    heard, standing, seconds = play(*[SOON] * 7)
    assert len(heard.events) == 1
    assert standing.reload_error == "not there"
    assert seconds == 60


def test_what_will_never_be_is_not_tried_again() -> None:
    heard, standing, _ = play(NEVER)
    assert heard.events == [(Event.RELOAD_FAILED, "reload failed: not allowed")]
    assert (standing.reloads, standing.reload_failures) == (0, 1)


@pytest.mark.parametrize(
    ("argv", "limit", "is_done", "words"),
    [
        (("true",), 30.0, True, "true has run"),
        (("sh", "-c", "exit 3"), 30.0, False, "sh ended with exit code 3"),
        (("sh", "-c", "kill -9 $$"), 30.0, False, "sh was ended by signal 9"),
        (("/nowhere/at all",), 30.0, False, "cannot run 'at all': no such file or directory"),
        (("/etc/passwd",), 30.0, False, "cannot run passwd: permission denied"),
        (("true", "a\0b"), 30.0, False, "cannot run true: an argument has a null byte"),
        (("sleep", "60"), 0.1, False, "sleep has not ended within 0.1s, and was stopped"),
    ],
)
def test_a_command_says_how_it_went(argv: tuple[str, ...], limit: float, is_done: bool, words: str) -> None:
    assert trio.run(run_reload_command, ReloadCommand(argv, limit)) == Told(is_done, words)


def test_a_command_has_no_input_and_speaks_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('read', repr(sys.stdin.read()))"
    assert trio.run(run_reload_command, ReloadCommand((sys.executable, "-c", code), 30.0)).is_done
    assert capfd.readouterr() == ("", "read ''\n")
