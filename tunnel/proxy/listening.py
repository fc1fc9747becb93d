"""Opens the listening sockets of the process, and warns about ports that another process listens on too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import trio

from tunnel.errors import ConfigError
from tunnel.log import Log, escape
from tunnel.net.activation import ActivationSockets
from tunnel.net.address import ListenAddress, TcpAddress
from tunnel.net.holders import Holders, ListeningPorts, SharedPort
from tunnel.net.listen import Listener, open_listener

_HOLDERS_LIMIT: Final = 5.0  # seconds for the search for other listeners, which the start waits for


def open_all(addresses: Iterable[ListenAddress | None], inherited: ActivationSockets) -> list[Listener | None]:
    """Open a listening socket for each address that is not None; raises ConfigError, and then none is open."""
    opened: list[Listener | None] = []
    try:
        for address in addresses:
            opened.append(open_listener(address, inherited) if address is not None else None)
    except ConfigError:
        close_all(opened)
        raise
    return opened


def close_all(listeners: Iterable[Listener | None]) -> None:
    """Close listening sockets that serve nobody yet."""
    for listener in listeners:
        if listener is not None:
            listener.close()


async def report_sharing(
    name: str, listening: Iterable[tuple[ListenAddress | None, Listener | None]], holders: Holders, log: Log
) -> None:
    """Warn if another socket listens where ours does, which SO_REUSEPORT allows: for a restart, or by mistake."""
    ours = [
        (address, listener.socket)
        for address, listener in listening
        if isinstance(address, TcpAddress) and address.port != "0" and listener is not None
    ]

    def find() -> list[SharedPort | None]:
        ports = ListeningPorts()
        return [ports.find_shared_port(sock, holders) for _address, sock in ours]

    if not ours:
        return
    with trio.move_on_after(_HOLDERS_LIMIT):
        found = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
        for (address, _sock), sharing in zip(ours, found, strict=True):
            if sharing is not None:
                log.write(f"warning: --{name} {address}: {escape(_describe_sharing(sharing))}")


def _describe_sharing(sharing: SharedPort) -> str:
    if sharing.is_same_address:
        return f"{sharing.holders} listens there too: the kernel shares new connections among them at random"
    return f"{sharing.holders} listens on this port at an overlapping address: each gets some of the new connections"
