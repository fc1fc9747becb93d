"""Waits until proxies are ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tunnel.identity.wait_notice import wait_with_notice
from tunnel.proxy.proxy import Proxy


async def wait_ready(proxies: Sequence[Proxy], report_wait: Callable[[], None]) -> None:
    """Return when every proxy is ready; call `report_wait` once if that takes long."""

    async def wait() -> None:
        for proxy in proxies:
            await proxy.is_listening.wait()

    await wait_with_notice(wait, report_wait)
