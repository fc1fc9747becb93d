"""The parts of a line of `tunnel run`, and what is asked through a proxy of it.

Knows identities of the in-process development Workload API; must not know what is tested.
"""

from __future__ import annotations

from tls_peer import TlsPeer
from world import ANY_PORT, CLIENT, SERVER, World


def server(
    world: World, target: str, *flags: str, listen: str = ANY_PORT, rules: tuple[str, ...] = (f"--allow-id={CLIENT}",)
) -> tuple[str, ...]:
    """A server's part of a line."""
    who = f"--use-workload-api-addr={world.sockets[SERVER]}"
    return ("server", who, f"--listen={listen}", f"--target={target}", *rules, *flags)


def client(world: World, target: str, *flags: str, listen: str = ANY_PORT) -> tuple[str, ...]:
    """A client's part of a line."""
    who = f"--use-workload-api-addr={world.sockets[CLIENT]}"
    return ("client", who, f"--listen={listen}", f"--target={target}", f"--verify-id={SERVER}", *flags)


def has_echo(peer: TlsPeer, data: bytes = b"more") -> bool:
    peer.send(data)
    return peer.receive_exactly(len(data)) == data
