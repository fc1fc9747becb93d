"""A proxy with fake identity sources, on an event loop of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from tests.support.configs import listener_config
from tests.support.credential_files import ROOT
from tests.support.recorded_log import RecordedLog
from tests.support.tls_ends import identity
from tunnel.authz.rules import AnyRule
from tunnel.config.model import Access, IdentityConfig, KeyFiles, ListenerConfig, ProcessConfig
from tunnel.errors import TunnelError
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.lazy_dataclass import dataclass, field, replace
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import UnixAddress
from tunnel.net.notify import Notifier
from tunnel.proxy.identity_source import CredentialSink
from tunnel.proxy.proxy import Proxy
from tunnel.relay.loop import Loop

_OURS = identity("spiffe://a.test/ours")
CREDENTIALS = PkiCredentials(_OURS.chain, _OURS.leaf.key, (ROOT.certificate,))
FIRST, SECOND = (IdentityConfig(KeyFiles(name, name), name=name) for name in ("first", "second"))
_LIMIT = 60  # seconds for one test


@dataclass
class Behaviour:
    """What the sources of one identity do; a test may change it."""

    credentials: Credentials = CREDENTIALS  # what they read
    failure: TunnelError | None = None  # instead of the first credentials
    answers: bool = True  # else there are never any credentials
    read_failure: TunnelError | None = None
    while_read: Callable[[], None] = field(default=lambda: None)
    after_read: Callable[[], Awaitable[None]] = field(default=trio.lowlevel.checkpoint)


class FakeSource:
    """An identity source that publishes what the test says."""

    def __init__(self, config: IdentityConfig, sink: CredentialSink, behaviour: Behaviour) -> None:
        self.config = config
        self.sink = sink
        self.is_running = False
        self.number = 0
        self._behaviour = behaviour

    async def run(self) -> None:
        self.is_running = True
        try:
            await trio.lowlevel.checkpoint()
            if self._behaviour.failure is not None:
                self.sink.fail(self._behaviour.failure)
            elif self._behaviour.answers:
                await self.publish(self._behaviour.credentials)
            await trio.sleep_forever()
        finally:
            self.is_running = False

    async def read(self) -> Credentials | None:
        self._behaviour.while_read()
        await self._behaviour.after_read()
        if self._behaviour.read_failure is not None:
            raise self._behaviour.read_failure
        return self._behaviour.credentials

    async def publish(self, credentials: Credentials) -> None:
        await self.sink.use(self.number + 1, credentials)
        self.number += 1

    def adopt(self, _credentials: Credentials) -> None:
        self.number += 1


class ProxyHarness:
    """Runs a proxy while a script changes its configuration."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.log = RecordedLog()
        self.sources: list[FakeSource] = []
        self.behaviours: dict[str, Behaviour] = {}  # by name of the identity
        self.inherited = ActivationSockets()
        self.on_open: Callable[[IdentityConfig], object] = lambda _config: None  # called before a source is opened
        self.proxy: Proxy

    def path(self, name: str) -> Path:
        return self.place / name

    def server(self, name: str, at: str = "", **fields: Any) -> ListenerConfig:
        """A server on a Unix socket that is named after it."""
        given = {"listen": UnixAddress(str(self.path(at or name))), "identity": FIRST, "access": Access((AnyRule(),))}
        return replace(listener_config(), name=name, **{**given, **fields})

    def behaviour(self, config: IdentityConfig) -> Behaviour:
        return self.behaviours.setdefault(config.name, Behaviour())

    def running(self) -> list[str]:
        """The names of the identities whose sources run."""
        return [one.config.name for one in self.sources if one.is_running]

    def descriptors(self) -> int:
        """How many descriptors the process has."""
        return len(os.listdir("/proc/self/fd"))

    def footprint(self) -> tuple[int, ...]:
        """What a failed change must not enlarge: descriptors, tasks, listeners, feeds, callbacks."""
        proxy = self.proxy
        tasks = len(proxy.nursery.child_tasks)
        return self.descriptors(), tasks, len(proxy.listeners), len(proxy.retired), len(proxy.feeds), len(gc.callbacks)

    def run(self, config: ProcessConfig, script: Callable[[], Awaitable[object]]) -> None:
        """Run the script while the proxy serves; raises what the proxy raises."""
        loop = Loop()
        self.proxy = Proxy(config, loop, self.log, self._open_source, self.inherited, Notifier({}, os.getpid()))
        try:
            loop.run_trio(lambda: self._run(script))
        finally:
            for listener in self.proxy.all_listeners():
                if (sock := listener.tunnel.release()) is not None:
                    sock.close()
                listener.tunnel.abort()
            loop.turn(0)
            loop.close()

    async def _run(self, script: Callable[[], Awaitable[object]]) -> None:
        with trio.fail_after(_LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.proxy.run)
                await self.proxy.is_listening.wait()
                await script()
                nursery.cancel_scope.cancel()

    def _open_source(self, config: IdentityConfig, sink: CredentialSink) -> FakeSource:
        self.on_open(config)
        self.sources.append(FakeSource(config, sink, self.behaviour(config)))
        return self.sources[-1]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until `is_so()` holds; the run of the test has a limit."""
    while not is_so():  # noqa: ASYNC110  # events of the loop tell nobody
        await trio.sleep(0.005)
