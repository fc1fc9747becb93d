"""Reloads of a configuration file: one at a time, all or nothing, on request and periodically."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.proxy_harness import FIRST, SECOND, ProxyHarness, until
from tunnel.config.model import IdentityConfig, KeyFiles, LogConfig, ProcessConfig, Traces
from tunnel.errors import ConfigError, IdentityError, IdentityFault
from tunnel.lazy_dataclass import replace
from tunnel.log import Category
from tunnel.proxy import file_watcher
from tunnel.proxy.file_watcher import sign_files
from tunnel.proxy.reloader import Reloader, ReloadSource


class Reloading:
    """A proxy with a reloader, whose configuration is `config`."""

    def __init__(self, place: Path) -> None:
        self.harness = ProxyHarness(place)
        self.config = ProcessConfig((self.harness.server("one"),))
        self.reads = 0
        self.error: ConfigError | None = None

    def read(self) -> ProcessConfig:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.config

    def run(self, script: Callable[[], Awaitable[object]]) -> None:
        async def with_reloader() -> None:
            source = ReloadSource(self.read, sign_files([str(self.harness.path("tunnel.toml"))]))
            reloader = Reloader(self.harness.proxy, self.harness.log, source)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reloader.run)
                await script()
                nursery.cancel_scope.cancel()

        self.harness.run(self.config, with_reloader)


@pytest.fixture
def reloading(tmp_path: Path) -> Reloading:
    return Reloading(tmp_path)


def test_requests_at_one_time_are_one_reload_and_those_during_it_are_one_more(reloading: Reloading) -> None:
    proxy_answers: list[str] = []
    harness = reloading.harness

    async def request() -> None:
        proxy_answers.append(await harness.proxy.reload())

    async def script() -> None:
        harness.behaviour(SECOND).answers = False
        reloading.config = ProcessConfig((harness.server("one", identity=SECOND),))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(request)
            await until(lambda: "second" in harness.running())
            for _ in range(3):
                nursery.start_soon(request)
            await trio.testing.wait_all_tasks_blocked()
            assert reloading.reads == 1
            await harness.sources[1].publish(harness.behaviour(SECOND).credentials)
        assert reloading.reads == 2

    reloading.run(script)
    assert proxy_answers == [""] * 6


def test_each_failure_is_answered_counted_and_logged_and_the_next_reload_succeeds(reloading: Reloading) -> None:
    harness = reloading.harness

    async def script() -> None:
        proxy, behaviour = harness.proxy, harness.behaviour(FIRST)
        reloading.error = ConfigError("bad file")
        assert await proxy.reload() == "bad file"
        reloading.error, behaviour.read_failure = None, IdentityError(IdentityFault.BAD_CERTIFICATE, "bad certificate")
        assert await proxy.reload() == "bad certificate"
        reload = proxy.state_reporter.state.reload
        assert reload is not None
        assert reload.config == "bad certificate"
        behaviour.read_failure = None
        assert await proxy.reload() == ""
        assert (proxy.counters.config.succeeded, proxy.counters.config.failed) == (1, 2)
        assert proxy.counters.config.is_last_successful

    reloading.run(script)
    failure = "error reloading the configuration file: {}; keeping the previous configuration"
    for text in "bad file", "bad certificate":
        assert harness.log.kept.count(failure.format(text)) == 1


def test_the_interval_of_periodic_reloads_can_be_changed_by_one(reloading: Reloading) -> None:
    async def script() -> None:
        reloading.config = replace(reloading.config, timed_reload=0.01)
        await reloading.harness.proxy.reload()
        await until(lambda: reloading.reads > 3)
        reloading.config = replace(reloading.config, timed_reload=0.0)
        await until(lambda: reloading.harness.proxy.config is reloading.config)
        reads = reloading.reads
        await trio.testing.wait_all_tasks_blocked()
        assert reloading.reads == reads

    reloading.run(script)


def test_log_settings_are_applied_or_need_a_restart_which_a_warning_says(reloading: Reloading) -> None:
    log = reloading.harness.log
    warnings = [
        "warning: log.syslog: the change takes effect at the next start",
        "warning: traces: the change takes effect at the next start",
        "warning: disable-landlock: the change takes effect at the next start",
    ]

    async def script() -> None:
        reloading.config = replace(reloading.config, log=LogConfig(("conns",)))
        await reloading.harness.proxy.reload()
        assert not log.is_enabled(Category.CONNS)
        reloading.config = replace(reloading.config, log=LogConfig((), is_syslog=True), is_confined=False)
        reloading.config = replace(reloading.config, traces=Traces("http://c/v1/traces"))
        await reloading.harness.proxy.reload()
        assert log.is_enabled(Category.CONNS)
        await reloading.harness.proxy.reload()
        assert [line for line in log.kept if line.startswith("warning")] == warnings

    reloading.run(script)


def test_a_stop_during_a_reload_does_not_wait_for_it(reloading: Reloading) -> None:
    harness = reloading.harness

    async def script() -> None:
        harness.behaviour(SECOND).answers = False
        reloading.config = ProcessConfig((harness.server("two", identity=SECOND),))
        harness.proxy.request_reload()
        await until(lambda: "second" in harness.running())
        assert await harness.proxy.drain(60) == 0

    reloading.run(script)
    assert not harness.path("two").exists()


def test_a_file_that_changes_while_a_reload_reads_it_for_the_first_time_is_read_again(
    reloading: Reloading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_watcher, "_INTERVAL", 0.01)
    harness = reloading.harness
    key = harness.path("key.pem")
    key.write_text("first")
    identity = IdentityConfig(KeyFiles(str(key), str(key)), name="new")

    async def script() -> None:
        reloading.config = ProcessConfig((harness.server("one", identity=identity),))
        harness.on_open = lambda config: key.write_text("second") if config == identity else None
        assert await harness.proxy.reload() == ""
        await until(lambda: reloading.reads > 1)

    reloading.run(script)
