"""Order of start and stop, and exit codes, when several events coincide."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest
import trio
import trio.testing

from tests.support.fake_supervisor import (
    DELAYED,
    NO_SERVICE,
    PROBE,
    SERVICE,
    FakeProxy,
    SupervisorHarness,
    do_nothing,
    replace_processes,
    run_supervisor,
    wait_for_command,
)
from tunnel.errors import CommandError, ConfigError, TunnelError
from tunnel.net.notify import State
from tunnel.proxy import command_task
from tunnel.proxy.command_task import CommandSpec, StopPolicy

TERM, INT, HUP, QUIT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1


@pytest.fixture(autouse=True)
def graces(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The grace periods for descendants that the command has left."""
    return replace_processes(monkeypatch)


# -- the start


def test_the_order_is_given_when_all_are_ready_and_the_command_s_code_is_ours() -> None:
    late = FakeProxy(is_ready=False)

    async def script(harness: SupervisorHarness) -> None:
        await trio.sleep(14)
        assert not harness.launcher.is_started.is_set()
        late.is_listening.set()
        await wait_for_command(harness)
        assert [state for _, state in harness.notified] == [State.LISTENING]
        harness.launcher.end(7)

    assert run_supervisor(SupervisorHarness(FakeProxy(is_server=True), late), script) == 7


def test_the_service_manager_gets_each_unusable_identity_and_its_recovery() -> None:
    first, second = FakeProxy(is_server=True), FakeProxy()

    def change(proxy: FakeProxy, error: str) -> None:
        proxy.identity_error = error
        proxy.on_identity_change()

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        change(first, "a has expired")
        change(second, "b has been withdrawn")
        change(first, "")
        change(second, "")
        harness.launcher.end(0)
        await trio.testing.wait_all_tasks_blocked()
        change(first, "what is said at the end is not notified")

    harness = SupervisorHarness(first, second)
    run_supervisor(harness, script)
    said = [f"{state.value} | {text}" for (_, state), text in zip(harness.notified, harness.summaries, strict=True)]
    assert said == [
        "listening | running app",
        "listening | running app",
        "not ready | a has expired: running app",
        "listening | running app",
        "not ready | a has expired, b has been withdrawn: running app",
        "listening | running app",
        "not ready | b has been withdrawn: running app",
        "listening | running app",
        "stopping | stopping",
    ]


@pytest.mark.parametrize(("problem", "shown"), [("", ""), ("agent down", r" \(agent down\)")])
def test_a_proxy_that_is_late_is_named_with_its_problem(problem: str, shown: str) -> None:
    late = FakeProxy(is_ready=False)
    late.problem = problem
    with pytest.raises(ConfigError, match=f"^not ready within 15s: the proxy for target{shown}$"):
        run_supervisor(SupervisorHarness(FakeProxy(), late), do_nothing)


@pytest.mark.parametrize("error", [CommandError("app: command not found", 127), ConfigError("{x} is no place")])
@pytest.mark.parametrize("is_in_order", [False, True])
def test_a_command_that_cannot_be_is_that_error_and_nothing_else(error: TunnelError, is_in_order: bool) -> None:
    def refuse() -> CommandSpec:
        raise error

    harness = SupervisorHarness(build_command=refuse) if is_in_order else SupervisorHarness(error=error)
    with pytest.raises(type(error)) as caught:
        run_supervisor(harness, do_nothing)
    assert caught.value is error


def test_a_failure_in_the_moment_in_which_all_are_ready_starts_nothing() -> None:
    """Both events are there when the start continues: it must check again."""
    for is_failure_first in (False, True):
        harness = SupervisorHarness(first := FakeProxy(), last := FakeProxy(is_ready=False))

        async def script(
            _: SupervisorHarness, first: FakeProxy = first, last: FakeProxy = last, is_first: bool = is_failure_first
        ) -> None:
            await trio.testing.wait_all_tasks_blocked()
            steps = [lambda: first.fail(ConfigError("broken")), last.is_listening.set]
            for step in steps if is_first else reversed(steps):
                step()

        with pytest.raises(ConfigError, match="broken"):
            run_supervisor(harness, script)
        if harness.launcher.is_started.is_set():  # all were ready before
            assert harness.launcher.exit_code() == 143


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
@pytest.mark.parametrize("is_from_terminal", [False, True])
def test_a_signal_before_the_command_is_there_ends_us(number: int, is_from_terminal: bool) -> None:
    harness = SupervisorHarness(FakeProxy(is_ready=False))

    async def script(harness: SupervisorHarness) -> None:
        await trio.testing.wait_all_tasks_blocked()
        harness.send_signal(number, is_from_terminal)

    assert run_supervisor(harness, script) == 128 + number
    assert not harness.launcher.is_started.is_set()


def test_what_fails_while_a_signal_ends_us_changes_nothing() -> None:
    harness = SupervisorHarness(proxy := FakeProxy(is_ready=False))

    async def script(harness: SupervisorHarness) -> None:
        await trio.testing.wait_all_tasks_blocked()
        proxy.fail(ConfigError("broken"), only_when_cancelled=True)
        harness.send_signal(TERM, False)

    assert run_supervisor(harness, script) == 143


def test_a_service_is_not_ended_by_a_signal_that_its_command_would_have_had() -> None:
    """SIGHUP requests a reload of the command, except when the terminal hangs up."""

    async def script(harness: SupervisorHarness) -> None:
        await trio.testing.wait_all_tasks_blocked()
        for number in (HUP, USR1):
            harness.send_signal(number, False)
        await trio.testing.wait_all_tasks_blocked()
        proxy.is_listening.set()
        await wait_for_command(harness)
        harness.launcher.end(3)

    harness = SupervisorHarness(proxy := FakeProxy(is_ready=False))
    assert run_supervisor(harness, script) == 3
    assert harness.launcher.sent == []


@pytest.mark.parametrize("stop_policy", [SERVICE, NO_SERVICE])
def test_the_end_of_the_terminal_is_the_end(stop_policy: StopPolicy) -> None:
    async def script(harness: SupervisorHarness) -> None:
        await trio.testing.wait_all_tasks_blocked()
        harness.send_signal(HUP, True)

    assert run_supervisor(SupervisorHarness(FakeProxy(is_ready=False), stop_policy=stop_policy), script) == 128 + HUP


# -- the end


def test_a_stop_goes_in_its_order() -> None:
    """Server and command stop at once, the client after the command, with the rest of the time for its drain."""
    harness = SupervisorHarness(
        server := FakeProxy(is_server=True, carries=99), client := FakeProxy(carries=99), exits_on={TERM: 10}
    )

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        start = trio.current_time()
        harness.send_signal(TERM, False)
        await trio.testing.wait_all_tasks_blocked()
        assert (server.stopped_accepting_at, client.stopped_accepting_at, harness.launcher.sent) == (
            start,
            None,
            [(start, TERM)],
        )
        assert harness.notified[-1] == (start, State.STOPPING)
        await trio.sleep(9.9)
        assert client.stopped_accepting_at is None

    assert run_supervisor(harness, script) == 143
    assert client.stopped_accepting_at == pytest.approx(10.5, abs=0.5)
    assert [at for proxy in (server, client) for at in proxy.aborts] == pytest.approx([25, 25], abs=0.5)
    assert harness.ended_at == pytest.approx(25, abs=1)
    assert [state for _, state in harness.notified] == [State.LISTENING, State.STOPPING]


def test_in_the_shutdown_delay_all_is_served_and_the_command_knows_nothing() -> None:
    harness = SupervisorHarness(
        server := FakeProxy(is_server=True), client := FakeProxy(), stop_policy=DELAYED, exits_on={TERM: 24}
    )

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        start = trio.current_time()
        harness.send_signal(TERM, False)
        await trio.testing.wait_all_tasks_blocked()
        assert harness.notified[-1] == (start, State.STOPPING)
        assert (server.delays, client.delays) == ([10], [10])
        harness.send_signal(HUP, False)  # the command's, as ever
        client.on_identity_change()
        await trio.sleep(9.9)
        assert (server.stopped_accepting_at, harness.launcher.sent) == (None, [(start, HUP)])
        await trio.sleep(0.2)
        assert server.stopped_accepting_at == pytest.approx(start + 10)
        assert harness.launcher.sent[1:] == [(pytest.approx(start + 10), TERM)]

    assert run_supervisor(harness, script) == 143, "the time for the end has begun with the end"
    assert [state for _, state in harness.notified] == [State.LISTENING, State.STOPPING, State.STOPPING]
    assert harness.log.kept[:4] == [
        "received SIGTERM, shutting down",
        "shutdown delay: not ready, accepting connections for 10s more",
        "shutdown delay is over",
        "command ended: exit_code=143",
    ]


@pytest.mark.parametrize("second", [TERM, INT])
def test_a_second_stop_ends_the_shutdown_delay(second: int) -> None:
    harness = SupervisorHarness(server := FakeProxy(is_server=True), stop_policy=DELAYED, exits_on={TERM: 20, INT: 20})

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        start = trio.current_time()
        harness.send_signal(TERM, False)
        await trio.sleep(3)
        harness.send_signal(second, False)
        await trio.testing.wait_all_tasks_blocked()
        assert server.stopped_accepting_at == pytest.approx(start + 3)
        await trio.sleep(10)
        assert harness.launcher.sent == [(pytest.approx(start + 3), second)], "and the delay does not begin the end once more"

    assert run_supervisor(harness, script) == 128 + second


def test_a_command_that_ends_in_the_shutdown_delay_ends_it() -> None:
    harness = SupervisorHarness(server := FakeProxy(is_server=True), stop_policy=DELAYED)

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(TERM, False)
        await trio.sleep(3)
        harness.launcher.end(4)

    assert run_supervisor(harness, script) == 4
    assert server.stopped_accepting_at == pytest.approx(3, abs=0.5)
    assert harness.launcher.sent == []
    assert harness.ended_at < 10


def test_the_shutdown_delay_is_for_who_serves() -> None:
    """There is no delay before the command runs, after a stop from the terminal, or after a failed proxy."""

    async def before(harness: SupervisorHarness) -> None:
        await trio.testing.wait_all_tasks_blocked()
        harness.send_signal(TERM, False)

    harness = SupervisorHarness(FakeProxy(is_ready=False), stop_policy=DELAYED)
    assert (run_supervisor(harness, before), harness.ended_at) == (143, 0)

    async def by_terminal(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(INT, True)
        await trio.testing.wait_all_tasks_blocked()
        assert server.stopped_accepting_at == 0
        harness.launcher.end(130)

    assert run_supervisor(SupervisorHarness(server := FakeProxy(is_server=True), stop_policy=DELAYED), by_terminal) == 130

    async def by_failure(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        broken.fail(ConfigError("broken"))

    harness = SupervisorHarness(broken := FakeProxy(is_server=True), stop_policy=DELAYED)
    with pytest.raises(ConfigError, match="broken"):
        run_supervisor(harness, by_failure)
    assert harness.launcher.sent == [(0, TERM)]


def test_who_asks_by_http_gets_the_shutdown_delay_and_who_asks_again_changes_nothing() -> None:
    harness = SupervisorHarness(first := FakeProxy(is_server=True), second := FakeProxy(is_server=True), stop_policy=DELAYED)

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        first.stop_requested.set()
        await trio.sleep(3)
        assert (first.delays, second.delays, second.stopped_accepting_at) == ([10], [10], None)
        second.stop_requested.set()
        await trio.sleep(6.9)
        assert second.stopped_accepting_at is None

    assert run_supervisor(harness, script) == 143
    assert harness.launcher.sent == [(pytest.approx(10), TERM)]


def test_a_command_that_does_not_end_is_killed_and_nothing_outlives_that(graces: list[float]) -> None:
    harness = SupervisorHarness(FakeProxy(is_server=True, carries=99), exits_on={signal.SIGKILL: 0})

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        for number in (TERM, USR1, TERM, INT):  # all of them are passed on, and the time is that of the first
            harness.send_signal(number, False)
            await trio.sleep(5)

    assert run_supervisor(harness, script) == 137
    assert [number for _, number in harness.launcher.sent] == [TERM, USR1, TERM, INT, signal.SIGKILL]
    assert harness.launcher.sent[-1][0] == pytest.approx(25, abs=0.5)
    assert graces == [0]
    assert harness.ended_at == pytest.approx(25, abs=1)


def test_a_command_that_cannot_be_killed_does_not_keep_us() -> None:
    """It may be a process of another user by now, or in uninterruptible sleep."""
    harness = SupervisorHarness(exits_on={})

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(TERM, False)

    assert run_supervisor(harness, script) == 137
    assert harness.ended_at < 40


def test_a_request_at_a_status_port_does_not_hold_up_the_end() -> None:
    harness = SupervisorHarness(FakeProxy(is_server=True, carries=99, lingers=60))

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(TERM, False)

    assert run_supervisor(harness, script) == 143
    assert harness.ended_at == pytest.approx(25, abs=2)


def test_what_the_command_has_left_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example, a process of another user, which may not be signalled."""
    monkeypatch.setattr(command_task, "end_descendants", lambda *_, **__: [2.0] * 50)
    harness = SupervisorHarness(proxy := FakeProxy(is_server=True, carries=99))

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(TERM, False)

    assert run_supervisor(harness, script) == 143
    assert proxy.aborts
    assert harness.ended_at == pytest.approx(25, abs=2)


def test_servers_are_shut_as_soon_as_the_command_has_ended_by_itself(graces: list[float]) -> None:
    harness = SupervisorHarness(server := FakeProxy(is_server=True), client := FakeProxy())

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.launcher.end(0)

    assert run_supervisor(harness, script) == 0
    assert server.stopped_accepting_at is not None
    assert client.stopped_accepting_at is not None
    assert client.stopped_accepting_at - server.stopped_accepting_at == pytest.approx(0.5), (
        "what it has left behind may still need clients"
    )
    assert graces == [2]


def test_what_works_for_a_proxy_is_nobody_that_the_command_has_left() -> None:
    harness = SupervisorHarness(proxy := FakeProxy())
    proxy.pids = {7, 8}

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.launcher.end(0)

    assert run_supervisor(harness, script) == 0
    assert harness.spared == {harness.launcher.pid, PROBE, 7, 8}


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_second_signal_in_the_drain_cuts(number: int) -> None:
    harness = SupervisorHarness(FakeProxy(is_server=True, carries=20), FakeProxy(carries=20))

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(TERM, False)
        await trio.sleep(5)
        for other in (HUP, USR1):
            harness.send_signal(other, False)
        await trio.sleep(1)
        assert not any(proxy.aborts for proxy in harness.proxies)
        harness.send_signal(number, False)

    assert run_supervisor(harness, script) == 143
    assert harness.ended_at == pytest.approx(6.5, abs=0.5)


def test_ctrl_c_is_not_sent_twice() -> None:
    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        harness.send_signal(INT, True)
        await trio.sleep(1)
        harness.launcher.end(130)

    harness = SupervisorHarness(server := FakeProxy(is_server=True))
    assert run_supervisor(harness, script) == 130
    assert server.stopped_accepting_at is not None
    assert harness.launcher.sent == []


@pytest.mark.parametrize("stop_policy", [SERVICE, NO_SERVICE])
def test_a_signal_that_the_command_has_had_is_not_sent_twice(stop_policy: StopPolicy) -> None:
    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        for number in (USR1, TERM):
            harness.send_signal(number, False, has_had=True)
        await trio.sleep(1)
        assert harness.launcher.sent == []
        assert (server.stopped_accepting_at is not None) is stop_policy.is_service
        harness.send_signal(INT, False)
        await trio.sleep(1)
        harness.launcher.end(3)

    harness = SupervisorHarness(server := FakeProxy(is_server=True), stop_policy=stop_policy)
    assert run_supervisor(harness, script) == 3
    assert [number for _, number in harness.launcher.sent] == [INT]


@pytest.mark.parametrize("is_server", [True, False])
def test_whoever_asks_a_proxy_to_stop_stops_the_whole(is_server: bool) -> None:
    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        proxy.stop_requested.set()

    harness = SupervisorHarness(proxy := FakeProxy(is_server=is_server), FakeProxy(is_server=True))
    assert run_supervisor(harness, script) == 143
    assert [number for _, number in harness.launcher.sent] == [TERM]


# -- failures


def test_a_proxy_that_dies_ends_the_whole_with_its_reason() -> None:
    harness = SupervisorHarness(server := FakeProxy(is_server=True), client := FakeProxy(), exits_on={TERM: 3})

    async def script(harness: SupervisorHarness) -> None:
        await wait_for_command(harness)
        client.fail(ConfigError("broken"))
        await trio.sleep(2)
        assert server.stopped_accepting_at is not None
        server.fail(ConfigError("broken too"))  # a consequence, perhaps; the first is the reason

    with pytest.raises(ConfigError, match=r"^broken$"):
        run_supervisor(harness, script)
    assert harness.log.kept.count("error: broken") == 1
    assert harness.launcher.exit_code() == 143


def test_what_fails_when_the_end_has_begun_leaves_the_exit_code_to_the_command() -> None:
    for is_drain in (False, True):
        harness = SupervisorHarness(FakeProxy(is_server=True, carries=5), client := FakeProxy(), exits_on={TERM: 2})

        async def script(harness: SupervisorHarness, client: FakeProxy = client, is_drain: bool = is_drain) -> None:
            await wait_for_command(harness)
            harness.send_signal(TERM, False)
            await trio.sleep(4 if is_drain else 1)
            client.fail(ConfigError("broken"))

        assert run_supervisor(harness, script) == 143
        assert "error: broken" in harness.log.kept


def test_a_failure_as_the_command_ends_is_one_or_the_other() -> None:
    for is_failure_first in (False, True):
        harness = SupervisorHarness(proxy := FakeProxy(carries=1))

        async def script(harness: SupervisorHarness, proxy: FakeProxy = proxy, is_first: bool = is_failure_first) -> None:
            await wait_for_command(harness)
            steps = [lambda: proxy.fail(ConfigError("broken")), lambda: harness.launcher.end(4)]
            for step in steps if is_first else reversed(steps):
                step()

        with suppress(ConfigError):
            assert run_supervisor(harness, script) == 4
        assert "error: broken" in harness.log.kept or harness.supervisor.exit_code == 4
