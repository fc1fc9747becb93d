"""What follows from an update: all is built before anything is used, and of a storm only the newest counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
import trio.testing

from tunnel.config.grammar import parse_command_line
from tunnel.config.proxy import SERVER, build
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import X509Context
from tunnel.identity.workload import Denied, Event, Updated
from tunnel.log import Log
from tunnel.proxy import supervisor as module
from tunnel.proxy.supervisor import Supervisor
from tunnel.relay.loop import Loop
from tunnel.spiffe.bundle import BundleSet

LINE = (
    "server --use-workload-api-addr=unix:///nowhere/agent.sock --listen=127.0.0.1:0 --target=127.0.0.1:1 "
    "--allow-id=spiffe://a.test/client"
)


class Lines(Log):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__(schedule=lambda _delay: None)
        self.kept: list[str] = []

    def write(self, message: str, *_category: Any) -> None:
        self.kept.append(message)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def supervisor(lines: Lines) -> Any:
    loop = Loop()
    yield Supervisor(build(SERVER, parse_command_line(LINE.split(), (SERVER,), {}).arguments), loop, lines)
    loop.close()


def update(number: int) -> Updated:
    return Updated(X509Context((), BundleSet({}), notes=(str(number),)), is_new=True)


def test_what_cannot_be_presented_is_not_used_and_what_is_in_use_stays(
    supervisor: Supervisor, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_more: object) -> None:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, "OpenSSL cannot present this")

    in_use: Any = object()
    monkeypatch.setattr(supervisor._tunnel, "_generation", in_use)
    monkeypatch.setattr(module, "build_generation", refuse)
    supervisor._use(None)  # type: ignore[arg-type]  # the credentials, which nobody looks at here
    assert supervisor._tunnel.generation is in_use
    assert supervisor._failure is None
    assert lines.kept == ["generation 0 cannot be used, the last good one stays: bad-certificate: OpenSSL cannot present this"]


def test_of_a_storm_of_updates_the_newest_counts_and_nothing_else_is_passed_over(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[Event] = []
    monkeypatch.setattr(supervisor, "_apply", applied.append)
    denied = Denied("PERMISSION_DENIED", "no identity issued", 1.0)
    updates = [update(number) for number in range(6)]

    async def storm() -> None:
        send, receive = trio.open_memory_channel[Event](math.inf)
        for event in (*updates[:4], denied, *updates[4:]):
            send.send_nowait(event)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor._follow, receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(storm)
    assert applied == [updates[3], denied, updates[5]]
