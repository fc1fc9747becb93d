"""What the process has received from its parent (environment, sockets, service manager), and its periodic tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import trio

from tunnel.lazy_dataclass import dataclass, field
from tunnel.log import Log, one_line
from tunnel.log_capture import LogCapture
from tunnel.net.activation import ActivationSockets
from tunnel.net.holders import Holders
from tunnel.net.notify import Notifier

if TYPE_CHECKING:  # loaded only with an access log
    from tunnel.listener.access_log import AccessLog

_CAPTURE_INTERVAL = 5.0  # seconds


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The context of one process; `environ` is without the variables that are meant for this process only."""

    environ: Mapping[str, str] = field(repr=False)  # may hold passwords
    inherited: ActivationSockets
    notifier: Notifier
    log_capture: LogCapture
    holders: Holders = field(default_factory=dict)  # of our ports at the start; later Landlock hides them
    access_log: AccessLog | None = None


async def run_background_tasks(process_context: ProcessContext, log: Log, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Notify the watchdog and log the captured output of libraries, until cancelled.

    `sleep` returns late while a process that serves connections hangs.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process_context.notifier.run_watchdog, sleep)
        while True:
            await trio.sleep(_CAPTURE_INTERVAL)
            process_context.log_capture.drain(log.write)
            if process_context.access_log is not None:
                for warning in process_context.access_log.take_warnings():
                    log.write(f"warning: {one_line(warning)}")
