"""What a process does again and again, whatever it serves.

Knows the watchdog and what libraries say by themselves; must not know proxies.
"""

from __future__ import annotations

import trio

from tunnel.log import Log
from tunnel.proxy.process_context import ProcessContext

_CAPTURE_INTERVAL = 5.0  # seconds


async def run_background_tasks(process_context: ProcessContext, log: Log) -> None:
    """Until cancelled: tell the watchdog that the loop turns, and the log what nobody else has written down."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process_context.notifier.run_watchdog, trio.sleep)
        while True:
            await trio.sleep(_CAPTURE_INTERVAL)
            process_context.log_capture.drain(log.write)
