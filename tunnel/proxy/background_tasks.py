"""The periodic tasks of a process with proxies."""

from __future__ import annotations

import trio

from tunnel.log import Log
from tunnel.proxy.process_context import ProcessContext

_CAPTURE_INTERVAL = 5.0  # seconds


async def run_background_tasks(process_context: ProcessContext, log: Log) -> None:
    """Notify the watchdog and log the captured output of libraries, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process_context.notifier.run_watchdog, trio.sleep)
        while True:
            await trio.sleep(_CAPTURE_INTERVAL)
            process_context.log_capture.drain(log.write)
