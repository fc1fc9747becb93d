"""The input of a preflight check, and calls with a time limit."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import trio

from tunnel.config.model import INTERACTIVE_TIMEOUT, CheckConfig, ListenerConfig
from tunnel.lazy_dataclass import dataclass, field

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Preflight:
    """One configuration, checked on this machine now."""

    line: CheckConfig
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold passwords
    limit: float = INTERACTIVE_TIMEOUT  # seconds to wait for an identity
    origin: str = "--use-workload-api-addr"  # the flag or variable with the Workload API address
    on_wait: Callable[[str], None] = field(default=lambda _: None)  # gets one line if waiting takes long
    clock: Callable[[], float] = time.time

    @property
    def config(self) -> ListenerConfig:
        """The configuration of the listener."""
        return self.line.config.listeners[0]

    @property
    def now(self) -> datetime:
        """The time by this machine's clock."""
        return datetime.fromtimestamp(self.clock(), UTC)

    @property
    def peer(self) -> str:
        """The role of the peer: `client` or `server`."""
        return "client" if self.config.is_server else "server"

    @property
    def verb(self) -> str:
        """The prefix of the access flags."""
        return "allow" if self.config.is_server else "verify"


READ_LIMIT = 10.0  # seconds to read files: one may be a pipe, or on another machine


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return what a blocking call returns, or raise TimeoutError; the thread of a call that timed out is abandoned."""

    async def wait() -> T:
        with trio.fail_after(seconds):
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True)

    try:
        return trio.run(wait)
    except trio.TooSlowError:
        raise TimeoutError(f"no answer within {seconds:g}s") from None


def run(call: Callable[[], Awaitable[T]]) -> T:
    """Return what an asynchronous call with its own time limit returns."""
    return trio.run(call)
