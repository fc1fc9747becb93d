"""Changes of the configuration of a running proxy: all or nothing, and nothing is left behind."""

from __future__ import annotations

import gc
import socket
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.proxy_harness import CREDENTIALS, FIRST, SECOND, ProxyHarness, until
from tunnel.authz.rules import PolicyRule
from tunnel.config.model import (
    CLOSE,
    INTERACTIVE_TIMEOUT,
    Access,
    Acme,
    IdentityConfig,
    ListenerConfig,
    Metrics,
    Monitor,
    NoIdentity,
    PolicyFiles,
    ProcessConfig,
    Status,
)
from tunnel.errors import ConfigError, IdentityError, IdentityFault, TunnelError
from tunnel.lazy_dataclass import replace
from tunnel.listener.generation import Generation, GenerationBuilder
from tunnel.net.address import StatusAddress, TcpAddress, UnixAddress
from tunnel.pkix.revocation import RevocationLists
from tunnel.proxy import identity_feed, reconfiguration
from tunnel.proxy.identity_feed import WITHDRAWAL_GRACE
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.proxy_listener import ProxyListener
from tunnel.proxy.reconfiguration import reconfigure
from tunnel.proxy.reloader import Reloader, ReloadSource
from tunnel.relay.handshake import Handshake
from tunnel.tls.acme_challenge import AcmeChallenges

ANY_PORT = TcpAddress("127.0.0.1", "0")
BROKEN = IdentityError(IdentityFault.BAD_CERTIFICATE, "broken")


@pytest.fixture
def harness(tmp_path: Path) -> ProxyHarness:
    return ProxyHarness(tmp_path)


def is_open(path: Path) -> bool:
    """Whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


def status_at(path: Path, **fields: bool) -> Monitor:
    return Monitor(Status(StatusAddress(UnixAddress(str(path)), ""), **fields))


# -- a change that fails


def missing_file(harness: ProxyHarness, config: ProcessConfig) -> ProcessConfig:
    harness.behaviour(FIRST).read_failure = BROKEN
    return config


def failing_source(harness: ProxyHarness, config: ProcessConfig) -> ProcessConfig:
    harness.behaviour(SECOND).failure = BROKEN
    return replace(config, listeners=(*config.listeners, harness.server("last", identity=SECOND)))


def silent_source(harness: ProxyHarness, config: ProcessConfig) -> ProcessConfig:
    harness.behaviour(SECOND).answers = False
    return replace(config, listeners=(*config.listeners, harness.server("last", identity=SECOND)))


def missing_policy(harness: ProxyHarness, config: ProcessConfig) -> ProcessConfig:
    access = Access((), policy=PolicyFiles(str(harness.path("none.rego")), "data.x"))
    return replace(config, listeners=(*config.listeners, harness.server("last", access=access, identity=SECOND)))


def second_address_in_use(harness: ProxyHarness, config: ProcessConfig) -> ProcessConfig:
    harness.path("taken").mkdir()
    new = [harness.server(name, identity=SECOND) for name in ("before", "taken", "after")]
    return replace(config, listeners=(*config.listeners, *new))


def status_address_in_use(harness: ProxyHarness, config: ProcessConfig) -> ProcessConfig:
    harness.path("taken").mkdir()
    new = harness.server("last", identity=SECOND)
    return replace(config, listeners=(*config.listeners, new), monitors=(status_at(harness.path("taken")),))


FAILURES = [missing_file, failing_source, silent_source, missing_policy, second_address_in_use, status_address_in_use]


@pytest.mark.parametrize("make", FAILURES)
def test_a_change_that_fails_leaves_nothing_behind(
    harness: ProxyHarness, make: Callable[[ProxyHarness, ProcessConfig], ProcessConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconfiguration, "INTERACTIVE_TIMEOUT", 0.05)
    config = ProcessConfig((harness.server("one"), harness.server("two")), (status_at(harness.path("status")),))
    # Each of the two listeners changes too, the first in place and the other by a new address.
    changed = replace(config, listeners=(harness.server("one", connect_timeout=1.0), harness.server("two", "moved")))
    bad = make(harness, changed)

    async def script() -> None:
        proxy = harness.proxy
        generations = [one.tunnel.generation for one in proxy.listeners.values()]
        with pytest.raises(TunnelError):  # the first attempt loads modules, and starts threads
            await reconfigure(proxy, bad)
        await until(lambda: harness.running() == ["first"])
        before = harness.footprint()
        for _ in range(3):
            with pytest.raises(TunnelError):
                await reconfigure(proxy, bad)
            await until(lambda: harness.running() == ["first"])
        assert harness.footprint() == before
        assert proxy.config is config
        assert [one.tunnel.generation for one in proxy.listeners.values()] == generations
        assert [one.config for one in proxy.listeners.values()] == list(config.listeners)
        assert is_open(harness.path("one"))
        assert is_open(harness.path("two"))
        assert {path.name for path in harness.place.iterdir()} - {"taken"} == {"one", "two", "status"}

    harness.run(config, script)


def test_a_change_that_is_cancelled_leaves_nothing_behind(harness: ProxyHarness) -> None:
    harness.behaviour(SECOND).answers = False
    config = ProcessConfig((harness.server("one"),))

    async def script() -> None:
        with trio.move_on_after(INTERACTIVE_TIMEOUT) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reconfigure, harness.proxy, ProcessConfig((harness.server("new", identity=SECOND),)))
                await until(lambda: harness.running() == ["first", "second"])
                scope.cancel()
        await until(lambda: harness.running() == ["first"])
        assert harness.proxy.config is config
        assert is_open(harness.path("one"))

    harness.run(config, script)


def test_nothing_changes_once_the_process_stops(harness: ProxyHarness) -> None:
    """The listeners may be closed already: a change would open new ones during the drain."""
    config = ProcessConfig((harness.server("one"),))

    async def script() -> None:
        harness.behaviour(FIRST).while_read = harness.proxy.stop_accepting
        with pytest.raises(ConfigError, match="the process is stopping"):
            await reconfigure(harness.proxy, ProcessConfig((harness.server("one"), harness.server("new"))))
        assert not harness.path("new").exists()
        assert not harness.path("one").exists()

    harness.run(config, script)


def test_a_new_source_that_fails_while_the_rest_is_prepared_is_not_used(harness: ProxyHarness) -> None:
    third = replace(SECOND, name="third")

    async def script() -> None:
        harness.behaviour(third).answers = False  # so that the preparation waits
        new = ProcessConfig((harness.server("one", identity=SECOND), harness.server("two", identity=third)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconfigure_expecting, "broken", harness, new)
            await until(lambda: harness.running() == ["first", "second", "third"])
            second, last = harness.sources[1:]
            second.sink.fail(BROKEN)
            await last.publish(harness.behaviour(third).credentials)
        assert [*harness.proxy.feeds] == [FIRST]

    harness.run(ProcessConfig((harness.server("one"),)), script)


async def reconfigure_expecting(words: str, harness: ProxyHarness, config: ProcessConfig) -> None:
    with pytest.raises(TunnelError, match=words):
        await reconfigure(harness.proxy, config)


# -- identities


def test_an_identity_of_a_removed_listener_that_ends_during_a_change_is_opened_again(harness: ProxyHarness) -> None:
    """Only its last connection kept the source open."""
    one, two = harness.server("one"), harness.server("two", identity=SECOND)

    async def script() -> None:
        proxy = harness.proxy
        with connected(harness.path("two")) as client:
            await until(lambda: proxy.connections() == 1)
            await reconfigure(proxy, ProcessConfig((one,)))
            assert harness.running() == ["first", "second"]
            behaviour = harness.behaviour(SECOND)

            def end() -> None:
                client.close()
                proxy.retired[0].tunnel.abort()

            async def read_later() -> None:
                await until(lambda: not proxy.retired)

            behaviour.while_read, behaviour.after_read = end, read_later
            await reconfigure(proxy, ProcessConfig((one, two)))
        assert [source.config.name for source in harness.sources] == ["first", "second", "second"]
        assert is_open(harness.path("two"))
        await until(lambda: harness.running() == ["first", "second"])

    harness.run(ProcessConfig((one, two)), script)


@pytest.mark.parametrize("name", ["changed", "added", "other-identity"])
def test_a_change_does_not_end_the_withdrawal_of_an_identity(
    harness: ProxyHarness, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.proxy.identity_feed.WITHDRAWAL_GRACE", 0.0)
    assert WITHDRAWAL_GRACE, "a grace period is normal"
    kept = harness.server("kept"), harness.server("changed"), harness.server("other-identity", identity=SECOND)
    changed = (
        kept[0],
        harness.server("changed", connect_timeout=1.0),
        harness.server("other-identity"),
        harness.server("added"),
    )

    async def script() -> None:
        harness.sources[0].sink.withdraw()
        await reconfigure(harness.proxy, ProcessConfig(changed))
        tunnel = harness.proxy.listeners[name].tunnel
        assert tunnel.review() is None
        assert "withdrawn" in tunnel.identity_error
        harness.sources[0].sink.confirm()
        assert tunnel.review() is not None
        await reconfigure(harness.proxy, ProcessConfig(kept[:2]))
        assert all(one.tunnel.review() is not None for one in harness.proxy.listeners.values())

    harness.run(ProcessConfig(kept), script)


def test_credentials_that_are_put_into_use_during_a_change_reach_every_listener(
    harness: ProxyHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_feed, "_SLICE", 0.0)
    kept = [harness.server(name) for name in ("one", "two", "three")]
    changed = harness.server("one", connect_timeout=1.0), kept[1], harness.server("added")

    async def script() -> None:
        (source,) = harness.sources
        newer = harness.behaviour(FIRST).credentials = replace(CREDENTIALS, skipped=("b",))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reconfigure, harness.proxy, ProcessConfig(changed))
            nursery.start_soon(source.publish, newer)
        for listener in harness.proxy.listeners.values():
            assert listener.tunnel.generation is not None
            assert listener.tunnel.generation.number == harness.proxy.feeds[FIRST].number == 2

    harness.run(ProcessConfig(tuple(kept)), script)


def test_a_withdrawal_that_new_credentials_have_ended_is_over_for_new_listeners(
    harness: ProxyHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.proxy.identity_feed.WITHDRAWAL_GRACE", 0.0)

    async def script() -> None:
        (source,) = harness.sources
        source.sink.withdraw()
        await source.publish(harness.behaviour(FIRST).credentials)
        await reconfigure(harness.proxy, ProcessConfig((harness.server("one"), harness.server("new"))))
        assert all(one.tunnel.review() is not None for one in harness.proxy.listeners.values())

    harness.run(ProcessConfig((harness.server("one"),)), script)


def test_new_files_reach_the_connections_of_removed_listeners(harness: ProxyHarness) -> None:
    """Those of the listener that the same change removes, and of one that was removed before."""
    servers = [harness.server(name) for name in ("one", "two", "three")]

    async def script() -> None:
        proxy = harness.proxy
        with connected(harness.path("two")), connected(harness.path("three")):
            await until(lambda: proxy.connections() == 2)
            await reconfigure(proxy, ProcessConfig(tuple(servers[:2])))
            renewed = replace(CREDENTIALS, revocation=RevocationLists(is_required=True, is_complete=True))
            harness.behaviour(FIRST).credentials = renewed
            await reconfigure(proxy, ProcessConfig(tuple(servers[:1])))
            assert [one.name for one in proxy.retired] == ["three", "two"]
            generations = [one.tunnel.generation for one in proxy.all_listeners()]
            assert [one.number for one in generations if one is not None] == [2, 2, 2]
            await reconfigure(proxy, ProcessConfig(tuple(servers[:1])))
            assert [one.tunnel.generation for one in proxy.all_listeners()] == generations

    harness.run(ProcessConfig(tuple(servers)), script)


def test_credentials_that_one_listener_cannot_use_are_used_by_none(
    harness: ProxyHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ProxyListener.build

    def build_for_one(listener: ProxyListener, builder: GenerationBuilder) -> Generation:
        if listener.name == "two":
            raise BROKEN
        return build(listener, builder)

    async def script() -> None:
        (source,), (feed,) = harness.sources, harness.proxy.feeds.values()
        before = [one.tunnel.generation for one in harness.proxy.listeners.values()]
        monkeypatch.setattr(ProxyListener, "build", build_for_one)
        with pytest.raises(IdentityError, match="broken"):
            await source.publish(CREDENTIALS)
        assert [one.tunnel.generation for one in harness.proxy.listeners.values()] == before
        assert (feed.number, feed.counters.certificates.succeeded) == (1, 1)

    config = ProcessConfig((harness.server("one"), harness.server("two", connect_timeout=1.0, access=Access(()))))
    harness.run(config, script)


def test_listeners_whose_generations_are_equal_share_them(harness: ProxyHarness) -> None:
    config = ProcessConfig((harness.server("one"), harness.server("two"), harness.server("three", access=Access(()))))

    async def script() -> None:
        for _ in range(2):
            one, two, three = (listener.tunnel.generation for listener in harness.proxy.listeners.values())
            assert one is two
            assert one is not three
            await harness.sources[0].publish(CREDENTIALS)

    harness.run(config, script)


# -- sockets


def test_listeners_that_swap_their_addresses_keep_the_sockets(harness: ProxyHarness) -> None:
    async def script() -> None:
        inodes = [harness.path(name).stat().st_ino for name in ("one", "two")]
        for first, second in (("two", "one"), ("one", "two")):
            changes = await reconfigure(
                harness.proxy, ProcessConfig((harness.server("one", first), harness.server("two", second)))
            )
            assert (changes.added, changes.removed) == (2, 2)
            assert [harness.path(name).stat().st_ino for name in ("one", "two")] == inodes
            with connected(harness.path(first)):
                await until(lambda: harness.proxy.listeners["one"].tunnel.counters.accepted == 1)
        assert all(harness.path(name).exists() for name in ("one", "two"))

    harness.run(ProcessConfig((harness.server("one"), harness.server("two"))), script)


def test_a_server_that_becomes_a_client_keeps_the_socket(harness: ProxyHarness) -> None:
    async def script() -> None:
        inode = harness.path("one").stat().st_ino
        await reconfigure(harness.proxy, ProcessConfig((harness.server("one", is_server=False),)))
        assert harness.path("one").stat().st_ino == inode
        assert is_open(harness.path("one"))

    harness.run(ProcessConfig((harness.server("one"),)), script)


def test_each_listener_on_any_free_port_has_a_socket_of_its_own(harness: ProxyHarness) -> None:
    """Their addresses are equal, and all are renamed at once, fewer than before or more."""

    def config(*names: str) -> ProcessConfig:
        return ProcessConfig(tuple(harness.server(name, listen=ANY_PORT) for name in names))

    def ports() -> list[int]:
        return [one.bound[1] for one in harness.proxy.listeners.values()]

    async def script() -> None:
        before, descriptors = ports(), harness.descriptors()
        await reconfigure(harness.proxy, config("d", "e"))
        assert ports() == before[:2]
        await reconfigure(harness.proxy, config("f", "g", "h"))
        assert ports()[:2] == before[:2]
        assert len(set(ports())) == 3
        await until(lambda: harness.descriptors() == descriptors)

    harness.run(config("a", "b", "c"), script)


def test_a_listener_that_moves_away_and_back_is_open_at_the_end(harness: ProxyHarness) -> None:
    async def script() -> None:
        for at in ("two", "one", "two", "one"):
            await reconfigure(harness.proxy, ProcessConfig((harness.server("one", at),)))
            await until(lambda: not harness.proxy.retired)
            assert {path.name for path in harness.place.iterdir()} == {at}
            assert is_open(harness.path(at))
            assert list(harness.proxy.listeners) == ["one"]
            assert [one.name for one in harness.proxy.state_reporter.state.listeners] == ["one"]

    harness.run(ProcessConfig((harness.server("one"),)), script)


# -- removed listeners


def test_removed_listeners_without_connections_leave_no_task(harness: ProxyHarness) -> None:
    async def script() -> None:
        proxy = harness.proxy
        await reconfigure(proxy, ProcessConfig((harness.server("one"),)))
        await until(lambda: not proxy.retired)
        tasks = len(proxy.nursery.child_tasks)
        for _ in range(5):
            await reconfigure(proxy, ProcessConfig((harness.server("one"), harness.server("two"))))
            await reconfigure(proxy, ProcessConfig((harness.server("one"),)))
        await until(lambda: not proxy.retired)
        await until(lambda: len(proxy.nursery.child_tasks) == tasks)
        assert not [line for line in harness.log.kept if "removed listener" in line]

    harness.run(ProcessConfig((harness.server("one"), harness.server("two"))), script)


def test_connections_of_a_removed_listener_are_closed_once_if_configured(harness: ProxyHarness) -> None:
    async def script() -> None:
        proxy = harness.proxy
        with connected(harness.path("two")) as client:
            await until(lambda: proxy.connections() == 1)
            await reconfigure(proxy, ProcessConfig((harness.server("one"),), on_removal=CLOSE))
            await until(lambda: not proxy.retired)
            client.settimeout(60)
            assert client.recv(1) == b""
        assert proxy.counters.accepted == 1
        assert [line for line in harness.log.kept if "removed listener" in line] == [
            "closing connections of a removed listener: listener=two connections=1"
        ]

    harness.run(ProcessConfig((harness.server("one"), harness.server("two"))), script)


def test_no_sum_decreases_when_listeners_and_identities_go(harness: ProxyHarness) -> None:
    one, two = harness.server("one"), harness.server("two", identity=SECOND)

    async def script() -> None:
        proxy, scope = harness.proxy, MonitorScope(harness.proxy)
        feed, tunnel = proxy.feeds[SECOND], proxy.listeners["two"].tunnel
        feed.counters.certificates.count(is_success=False)
        tunnel.counters.forwarded, tunnel.counters.returned = 30, 40
        tunnel.counters.policy.count(is_success=False)

        def seen() -> tuple[int, ...]:
            counters, gauges = scope.counters(), scope.measure().gauges
            reloads = counters.certificates.succeeded, counters.certificates.failed, counters.policy.failed
            return counters.accepted, *reloads, gauges.forwarded, gauges.returned

        with connected(harness.path("two")):
            await until(lambda: proxy.connections() == 1)
            before = seen()
            assert before == (1, 2, 1, 1, 30, 40)
            assert not scope.counters().certificates.is_last_successful
            await reconfigure(proxy, ProcessConfig((one,)))
            assert proxy.retired
            assert seen() == before, "it still has a connection"
            proxy.abort()
            await until(lambda: not proxy.retired)
            assert seen() == before
        assert [*proxy.feeds] == [FIRST]
        assert scope.counters().certificates.is_last_successful, "what is gone has failed"
        assert scope.counters().policy.is_last_successful

    harness.run(ProcessConfig((one, two)), script)


def test_a_stop_leaves_the_listener_alone_that_has_the_name_of_a_removed_one(harness: ProxyHarness) -> None:
    """A client serves until the command has ended; the removed server with its name is stopped before."""

    async def script() -> None:
        proxy = harness.proxy
        with connected(harness.path("one")):
            await until(lambda: proxy.connections() == 1)
            await reconfigure(proxy, ProcessConfig((harness.server("one", "moved", is_server=False),)))
            assert [one.name for one in proxy.retired] == ["one"]
            proxy.stop_accepting(only_servers=True)
            (state,) = proxy.state_reporter.state.listeners
            assert not state.is_stopped
            await reconfigure_expecting("stopping", harness, ProcessConfig(()))
            assert await proxy.drain(0) == 0, "the connection was closed before"

    harness.run(ProcessConfig((harness.server("one"),)), script)


def test_a_stop_shows_no_listener_that_was_removed(harness: ProxyHarness) -> None:
    async def script() -> None:
        proxy = harness.proxy
        with connected(harness.path("two")):
            await until(lambda: proxy.connections() == 1)
            await reconfigure(proxy, ProcessConfig((harness.server("one"),)))
            proxy.stop_accepting()
            assert [one.name for one in proxy.state_reporter.state.listeners] == ["one"]

    harness.run(ProcessConfig((harness.server("one"), harness.server("two"))), script)


# -- status ports and reports


async def fetched(path: Path, what: str = "GET /_metrics/json") -> str:
    """The response of a status port."""
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(f"{what} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
        return b"".join([data async for data in stream]).decode()


def test_a_status_port_whose_settings_change_keeps_the_socket(harness: ProxyHarness) -> None:
    path = harness.path("status")
    before, after = status_at(path), status_at(path, has_pprof=True)

    async def script() -> None:
        inode = path.stat().st_ino
        for monitor in (after, before, after):
            waiting = connected(path)  # and is accepted by one of the two
            await reconfigure(harness.proxy, ProcessConfig((harness.server("one"),), (monitor,)))
            await until(lambda: len(harness.proxy.monitoring.running) == 1)
            waiting.close()
            assert path.stat().st_ino == inode
            for _ in range(3):
                assert "200 OK" in await fetched(path)
        assert "404" not in await fetched(path, "GET /debug/pprof/")
        await reconfigure(harness.proxy, ProcessConfig((harness.server("one"),)))
        await until(lambda: not path.exists())

    harness.run(ProcessConfig((harness.server("one"),), (before,)), script)


def test_a_change_that_fails_leaves_the_file_of_the_status_port_alone(harness: ProxyHarness) -> None:
    path = harness.path("status")
    config = ProcessConfig((harness.server("one"),), (status_at(path),))

    async def script() -> None:
        monitors = status_at(path, has_pprof=True), status_at(harness.path("none") / "status")
        await reconfigure_expecting("cannot listen", harness, replace(config, monitors=monitors))
        assert "200 OK" in await fetched(path)

    harness.run(config, script)


def test_a_request_for_a_reload_that_replaces_its_status_port_is_answered(harness: ProxyHarness) -> None:
    path = harness.path("status")
    before, after = status_at(path, has_reload=True), status_at(path, has_reload=True, has_pprof=True)

    async def script() -> None:
        config = ProcessConfig((harness.server("one"),), (after,))
        reloader = Reloader(harness.proxy, harness.log, ReloadSource(lambda: config))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reloader.run)
            assert "200 OK" in await fetched(path, "POST /_reload")
            nursery.cancel_scope.cancel()
        assert harness.proxy.config is config

    harness.run(ProcessConfig((harness.server("one"),), (before,)), script)


def test_reports_that_cannot_be_sent_are_refused_before_anything_changes(harness: ProxyHarness) -> None:
    config = ProcessConfig((harness.server("one"),))
    reports = Monitor(metrics=Metrics(url="https://localhost:1/", ca_bundle=str(harness.path("none.pem"))))

    async def script() -> None:
        changed = replace(config, listeners=(harness.server("new"),), monitors=(reports,))
        await reconfigure_expecting("cannot read certificates", harness, changed)
        assert list(harness.proxy.listeners) == ["one"]
        assert harness.proxy.config is config

    harness.run(config, script)


def test_the_check_of_a_listener_that_was_removed_and_added_again_is_a_new_one(harness: ProxyHarness) -> None:
    """That of the removed one would use its certificate for ever."""
    one, two = harness.server("one"), harness.server("two")

    async def script() -> None:
        proxy = harness.proxy
        old = proxy.monitoring.check_of(two)
        assert proxy.monitoring.check_of(two) is old
        await reconfigure(proxy, ProcessConfig((one,)))
        with pytest.raises(ConfigError, match="was removed"):
            proxy.monitoring.check_of(two)
        await reconfigure(proxy, ProcessConfig((one, two)))
        assert proxy.monitoring.check_of(two) is not old

    harness.run(ProcessConfig((one, two)), script)


def test_listeners_share_their_timers_whatever_changes_about_the_status_port(harness: ProxyHarness) -> None:
    path = harness.path("status")

    async def script() -> None:
        one, two = harness.server("one"), harness.server("two")
        await reconfigure(harness.proxy, ProcessConfig((one, two), (status_at(path, has_pprof=True),)))
        timers = [listener.tunnel.counters.handshake for listener in harness.proxy.listeners.values()]
        assert timers[0] is not None
        assert timers[0] is timers[1]

    harness.run(ProcessConfig((harness.server("one"),), (status_at(path),)), script)


def test_a_status_port_uses_tls_as_soon_as_a_listener_has_a_certificate(harness: ProxyHarness) -> None:
    monitors = (Monitor(Status(StatusAddress(ANY_PORT, ""))),)
    anonymous = harness.server("one", is_server=False, identity=IdentityConfig(NoIdentity(), name="none"))

    async def script() -> None:
        def port() -> tuple[bool, int]:
            (one,) = harness.proxy.monitoring.running
            assert one.service is not None
            assert one.listener is not None
            return one.service.tls is not None, one.listener.socket.getsockname()[1]

        number = port()[1]
        for listeners, is_encrypted in (((anonymous, harness.server("two")), True), ((anonymous,), False)):
            await reconfigure(harness.proxy, ProcessConfig(listeners, monitors))
            assert port() == (is_encrypted, number)

    harness.run(ProcessConfig((anonymous,), monitors), script)


# -- ACME


def test_listeners_answer_the_challenges_of_their_present_identity_only(harness: ProxyHarness) -> None:
    acme = IdentityConfig(Acme("a.test", "", ""), name="acme")
    first = harness.server("gone", identity=acme), harness.server("new")
    second = harness.server("gone"), harness.server("new", identity=acme), harness.server("added", identity=acme)

    def answering() -> list[str]:
        listeners = harness.proxy.listeners.values()
        answering = [one.name for one in listeners if one.tunnel.new_handshake is not Handshake]
        assert answering == [one.name for one in listeners if one.generation_config.accepts_acme]
        return answering

    async def script() -> None:
        (source,) = [one for one in harness.sources if one.config == acme]
        source.sink.accept_challenges(AcmeChallenges())
        assert answering() == ["gone"]
        await reconfigure(harness.proxy, ProcessConfig(second))
        assert answering() == ["new", "added"]

    harness.run(ProcessConfig(first), script)


# -- policies


class FakePolicy:
    """A policy whose files change when the test says so."""

    def __init__(self, limit: float) -> None:
        self.rule = PolicyRule("data.x", lambda _peer: True)
        self.limit = limit
        self.is_current = True
        self.is_loaded = self.is_closed = False
        self.pids = {id(self)}
        self.on_load: object = None

    async def load(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_loaded = True

    async def is_up_to_date(self) -> bool:
        await trio.lowlevel.checkpoint()
        return self.is_current

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def policies(monkeypatch: pytest.MonkeyPatch) -> list[FakePolicy]:
    """Those that were opened."""
    opened: list[FakePolicy] = []

    def open_policy(config: ListenerConfig) -> FakePolicy:
        opened.append(FakePolicy(config.connect_timeout))
        return opened[-1]

    monkeypatch.setattr(reconfiguration, "open_policy", open_policy)
    monkeypatch.setattr("tunnel.proxy.proxy.open_policy", open_policy)
    return opened


def in_use(harness: ProxyHarness) -> object:
    return harness.proxy.listeners["one"].policy


def test_a_policy_is_kept_unless_its_files_or_the_limit_change_and_then_closed_late(
    harness: ProxyHarness, policies: list[FakePolicy]
) -> None:
    """Handshakes that wait for its decision get it."""
    brief = ProcessConfig((harness.server("one", connect_timeout=0.2),))
    briefer = ProcessConfig((harness.server("one", connect_timeout=0.1),))

    async def script() -> None:
        first = policies[0]
        await reconfigure(harness.proxy, brief)
        assert in_use(harness) is first
        first.is_current = False
        await reconfigure(harness.proxy, brief)
        second = policies[-1]
        assert in_use(harness) is second
        assert not first.is_closed
        assert harness.proxy.pids == first.pids | second.pids
        await reconfigure(harness.proxy, briefer)
        assert in_use(harness) is policies[-1]
        await until(lambda: harness.proxy.pids == policies[-1].pids)
        assert [one.is_closed for one in policies if one.is_loaded] == [True, True, False]

    harness.run(brief, script)
    assert policies[-1].is_closed


def test_at_the_end_every_policy_is_closed_at_once(harness: ProxyHarness, policies: list[FakePolicy]) -> None:
    config = ProcessConfig((harness.server("one", connect_timeout=3600.0),))

    async def script() -> None:
        policies[0].is_current = False
        await reconfigure(harness.proxy, config)
        assert not any(one.is_closed for one in policies)

    harness.run(config, script)
    assert all(one.is_closed for one in (policies[0], policies[-1]))


# -- memory


def test_a_removed_listener_is_forgotten(harness: ProxyHarness) -> None:
    """With its keys, contexts and caches: a process may be reconfigured for years.

    Not at once: a task or a thread that ends may have a reference for a moment.
    """
    one = harness.server("one")
    monitors = (status_at(harness.path("status")),)

    def is_forgotten(*removed: weakref.ref[Any]) -> bool:
        gc.collect()
        return all(one() is None for one in removed)

    async def script() -> None:
        proxy = harness.proxy
        for name in ("first", "second"):
            await reconfigure(proxy, ProcessConfig((one, harness.server(name)), monitors))
            with connected(harness.path(name)):
                await until(lambda: proxy.connections() == 1)
            await until(lambda: proxy.connections() == 0)
            await fetched(harness.path("status"), "GET /_status")
            removed = weakref.ref(proxy.listeners[name]), weakref.ref(proxy.listeners[name].tunnel)
            await reconfigure(proxy, ProcessConfig((one,), monitors))
            await until(lambda: not proxy.retired)
            await until(partial(is_forgotten, *removed))

    harness.run(ProcessConfig((one,), monitors), script)


# -- bugs


def test_a_bug_while_a_change_is_put_into_use_ends_the_process(harness: ProxyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the change is in use, so that "keeping the previous configuration" would be wrong."""
    changed = ProcessConfig((harness.server("one"), harness.server("two")))

    def order_with_bug(_self: Proxy, _names: list[str]) -> None:
        raise RuntimeError("secret")

    async def script() -> None:
        monkeypatch.setattr(Proxy, "order_listeners", order_with_bug)
        await reconfigure_expecting("failed in the middle: internal error: RuntimeError", harness, changed)
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        harness.run(ProcessConfig((harness.server("one"),)), script)
    assert caught.group_contains(IdentityError, match="failed in the middle")
