"""What a process does again and again, whatever it serves.

Knows the watchdog and what libraries say by themselves; must not know proxies.
"""

from __future__ import annotations

import trio

from tunnel.log import Log
from tunnel.proxy.surroundings import Surroundings

_STRAYS_INTERVAL = 5.0  # seconds


async def keep_up(surroundings: Surroundings, log: Log) -> None:
    """Until cancelled: tell the watchdog that the loop turns, and the log what nobody else has written down."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(surroundings.notifier.keep_beating, trio.sleep)
        while True:
            await trio.sleep(_STRAYS_INTERVAL)
            surroundings.strays.drain(log.write)
