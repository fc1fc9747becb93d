"""A failed proxy in a process that continues."""

from __future__ import annotations

import os

import pytest
import trio

from tests.support.configs import listener_config
from tests.support.recorded_log import RecordedLog
from tunnel.config.model import IdentityConfig, NameResolution, ProcessConfig
from tunnel.errors import ConfigError, TargetError
from tunnel.identity.credentials import Credentials
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import TcpAddress
from tunnel.net.notify import Notifier
from tunnel.net.sockets import SocketAddress
from tunnel.proxy.identity_source import CredentialSink
from tunnel.proxy.proxy import Proxy
from tunnel.relay.loop import Loop

TARGET = TcpAddress("localhost", "1")


class FailingSource:
    """An identity source that fails."""

    def __init__(self, _config: IdentityConfig, sink: CredentialSink) -> None:
        self._sink = sink

    async def run(self) -> None:
        self._sink.fail(ConfigError("broken"))

    async def read(self) -> None:
        raise AssertionError

    async def publish(self, credentials: Credentials) -> None:
        raise AssertionError

    def adopt(self, credentials: Credentials) -> None:
        raise AssertionError


def test_a_name_that_is_looked_up_later_is_an_error_of_that_connection() -> None:
    """The client accepts until the command has ended, which may connect once more."""
    loop = Loop()
    config = listener_config(is_server=False, target=TARGET)
    process = ProcessConfig((config,))
    proxy = Proxy(process, loop, RecordedLog(), FailingSource, ActivationSockets(), Notifier({}, os.getpid()))
    answers: list[tuple[SocketAddress, ...] | TargetError] = []

    async def main() -> None:
        with pytest.raises(ConfigError, match="broken"):
            await proxy.run()
        proxy._resolver.resolve_later(TARGET, NameResolution(), answers.append)
        with trio.move_on_after(60):
            while not answers:  # noqa: ASYNC110  # a plain call tells
                await trio.sleep(0.01)

    loop.run_trio(main)
    loop.close()
    (answer,) = answers
    assert isinstance(answer, TargetError)
    assert str(answer) == "localhost:1: not resolved because the proxy has stopped"
