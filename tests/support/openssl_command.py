"""The command `openssl` as a peer: s_client in front of a server proxy, s_server behind a client proxy.

Knows its flags and its words; must not know what a proxy does.
"""

from __future__ import annotations

from tests.support.processes import Process
from tests.support.requirements import program
from tests.support.workloads import Identity, Workloads


def s_client(workloads: Workloads, address: tuple[str, int], identity: Identity | None, *flags: str) -> Process:
    """A client that stays until it is told `Q` or the server ends it."""
    host, port = address
    argv = [program("openssl"), "s_client", "-connect", f"{host}:{port}", *_credentials(identity), *flags]
    return workloads.watch(Process(argv, is_merged=True))


def s_server(workloads: Workloads, identity: Identity, *flags: str) -> tuple[Process, int]:
    """A server that asks for a certificate and takes any; with the port that it listens on."""
    argv = [program("openssl"), "s_server", "-accept", "127.0.0.1:0", "-Verify", "9", *_credentials(identity), *flags]
    process = workloads.watch(Process(argv, is_merged=True))
    return process, int(process.wait_for(r"ACCEPT \S+:(\d+)")[1])


def alert_of(client: Process) -> int:
    """The number of the alert by which the server ended a client."""
    client.exit_code()
    numbers = [line.rpartition(" ")[2] for line in client.matches("SSL alert number")]
    assert len(numbers) == 1, client.transcript()
    return int(numbers[0])


def _credentials(identity: Identity | None) -> list[str]:
    if identity is None:
        return []
    return ["-cert", str(identity.chain), "-cert_chain", str(identity.chain), "-key", str(identity.key)]
