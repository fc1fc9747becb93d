"""The parts of a command line of `tunnel run`, and requests through its proxies."""

from __future__ import annotations

from tests.support.tls_peer import TlsPeer
from tests.support.workloads import ANY_PORT, CLIENT, SERVER, Workloads


def server(
    workloads: Workloads, target: str, *flags: str, listen: str = ANY_PORT, rules: tuple[str, ...] = (f"--allow-id={CLIENT}",)
) -> tuple[str, ...]:
    """A server's part of a line."""
    who = f"--use-workload-api-addr={workloads.sockets[SERVER]}"
    return ("server", who, f"--listen={listen}", f"--target={target}", *rules, *flags)


def client(workloads: Workloads, target: str, *flags: str, listen: str = ANY_PORT) -> tuple[str, ...]:
    """A client's part of a line."""
    who = f"--use-workload-api-addr={workloads.sockets[CLIENT]}"
    return ("client", who, f"--listen={listen}", f"--target={target}", f"--verify-id={SERVER}", *flags)


def has_echo(peer: TlsPeer, data: bytes = b"more") -> bool:
    peer.send(data)
    return peer.receive_exactly(len(data)) == data
