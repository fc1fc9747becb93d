"""Waits until proxies are ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from tunnel.proxy.proxy import Proxy

_LONG = 2.0  # seconds after which a person wonders


async def wait_ready(proxies: Sequence[Proxy], complain: Callable[[], None]) -> None:
    """Return when every proxy is; `complain` is called once if that takes long."""
    with trio.move_on_after(_LONG):
        await _all_ready(proxies)
        return
    complain()
    await _all_ready(proxies)


async def _all_ready(proxies: Sequence[Proxy]) -> None:
    for proxy in proxies:
        await proxy.is_listening.wait()
