"""A stop that is requested before the process listens."""

from __future__ import annotations

import os
from pathlib import Path

import trio
import trio.testing

from tests.support.proxy_harness import Behaviour, FakeSource, ProxyHarness
from tunnel.config.model import ProcessConfig
from tunnel.listener.shared_resources import SharedResources
from tunnel.net.activation import ActivationSockets
from tunnel.net.notify import Notifier
from tunnel.proxy.data_plane import OwnProcess
from tunnel.proxy.proxy import Proxy
from tunnel.relay.loop import Loop


class LateWorkers(OwnProcess):
    """They have started when they answer for the first time, which the drain waits for."""

    def __init__(self, shared: SharedResources) -> None:
        super().__init__(shared)
        self.awaited = trio.Event()
        self._started = trio.Event()

    async def wait_started(self) -> None:
        self.awaited.set()
        await self._started.wait()

    async def refresh(self) -> bool:
        self._started.set()
        await trio.testing.wait_all_tasks_blocked()
        return True


def test_no_listener_is_opened_after_a_stop_was_requested(tmp_path: Path) -> None:
    harness = ProxyHarness(tmp_path)
    config = ProcessConfig((harness.server("one"),))
    loop = Loop()
    proxy = Proxy(
        config,
        loop,
        harness.log,
        lambda config, sink: FakeSource(config, sink, Behaviour()),
        ActivationSockets(),
        Notifier({}, os.getpid()),
    )
    proxy.data_plane = workers = LateWorkers(proxy.shared)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(proxy.run)
                await workers.awaited.wait()
                assert await proxy.drain(limit=3600) == 0
                assert not harness.path("one").exists()
                assert not proxy.is_listening.is_set()
                nursery.cancel_scope.cancel()

    loop.run_trio(main)
    loop.close()
