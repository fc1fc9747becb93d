"""Reload notification: a failure is reported once, counted, and retried if that may help."""

from __future__ import annotations

import sys

import pytest
import trio
import trio.testing

from tests.support.recorded_events import RecordedEvents
from tunnel.child.pid_file import ReloadOutcome
from tunnel.config.svid_model import ReloadCommand
from tunnel.svid.event_log import Event
from tunnel.svid.reload_notifier import ReloadNotifier, run_reload_command
from tunnel.svid.watch_state import WatchState

TRANSIENT = ReloadOutcome(False, "not there", is_transient=True)
PERMANENT, DONE = ReloadOutcome(False, "not allowed"), ReloadOutcome(True, "done")


def play(*answers: ReloadOutcome) -> tuple[RecordedEvents, WatchState, float]:
    """Serve one request with these outcomes in turn; return the events, the state, and the seconds until the last attempt."""
    recorded, state, left = RecordedEvents(), WatchState(), list(answers)
    ended = 0.0

    async def reload() -> ReloadOutcome:
        nonlocal ended
        ended = trio.current_time()
        return left.pop(0)

    async def main() -> None:
        reloader = ReloadNotifier(reload, recorded, state)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloader.run)
            reloader.request()
            await trio.sleep(1000)
            nursery.cancel_scope.cancel()
        nonlocal ended
        ended -= began

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return recorded, state, ended


def test_what_works_is_told_and_counted() -> None:
    recorded, state, _ = play(DONE)
    assert recorded.events == [(Event.RELOADED, "done")]
    assert (state.reloads, state.reload_failures, state.reload_error) == (1, 0, "")


def test_what_is_transient_is_tried_again_and_complained_of_once() -> None:
    recorded, state, seconds = play(TRANSIENT, TRANSIENT, TRANSIENT, DONE)
    assert recorded.events == [
        (Event.RELOAD_FAILED, "reload failed: not there; retrying for a minute"),
        (Event.RELOADED, "done"),
    ]
    assert (state.reloads, state.reload_failures, state.reload_error) == (1, 1, "")
    assert seconds == 7


def test_after_a_minute_it_is_given_up() -> None:
    recorded, state, seconds = play(*[TRANSIENT] * 7)
    assert len(recorded.events) == 1
    assert state.reload_error == "not there"
    assert seconds == 60


def test_what_will_never_be_is_not_tried_again() -> None:
    recorded, state, _ = play(PERMANENT)
    assert recorded.events == [(Event.RELOAD_FAILED, "reload failed: not allowed")]
    assert (state.reloads, state.reload_failures) == (0, 1)


@pytest.mark.parametrize(
    ("argv", "limit", "is_done", "words"),
    [
        (("true",), 30.0, True, "true succeeded"),
        (("sh", "-c", "exit 3"), 30.0, False, "sh ended with exit code 3"),
        (("sh", "-c", "kill -9 $$"), 30.0, False, "sh was ended by signal 9"),
        (("/nowhere/at all",), 30.0, False, "cannot run 'at all': no such file or directory"),
        (("/etc/passwd",), 30.0, False, "cannot run passwd: permission denied"),
        (("true", "a\0b"), 30.0, False, "cannot run true: an argument has a null byte"),
        (("sleep", "60"), 0.1, False, "sleep did not end within 0.1s and was killed"),
    ],
)
def test_a_command_says_how_it_went(argv: tuple[str, ...], limit: float, is_done: bool, words: str) -> None:
    assert trio.run(run_reload_command, ReloadCommand(argv, limit)) == ReloadOutcome(is_done, words)


def test_a_command_has_no_input_and_speaks_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('read', repr(sys.stdin.read()))"
    assert trio.run(run_reload_command, ReloadCommand((sys.executable, "-c", code), 30.0)).is_done
    assert capfd.readouterr() == ("", "read ''\n")
