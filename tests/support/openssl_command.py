"""The command `openssl` as a peer: s_client for a server proxy, s_server for a client proxy."""

from __future__ import annotations

from tests.support.processes import Process
from tests.support.requirements import program
from tests.support.workloads import Identity, Workloads


def s_client(workloads: Workloads, address: tuple[str, int], identity: Identity | None, *flags: str) -> Process:
    """A client that runs until it gets `Q` or the server closes."""
    host, port = address
    argv = [program("openssl"), "s_client", "-connect", f"{host}:{port}", *_credentials(identity), *flags]
    return workloads.watch(Process(argv, is_merged=True))


def s_server(workloads: Workloads, identity: Identity, *flags: str) -> tuple[Process, int]:
    """A server that requests a certificate and accepts any, and its port."""
    argv = [program("openssl"), "s_server", "-accept", "127.0.0.1:0", "-Verify", "9", *_credentials(identity), *flags]
    process = workloads.watch(Process(argv, is_merged=True))
    return process, int(process.wait_for(r"ACCEPT \S+:(\d+)")[1])


def alert_of(client: Process) -> int:
    """The number of the alert with which the server refused a client."""
    client.exit_code()
    numbers = [line.rpartition(" ")[2] for line in client.matches("SSL alert number")]
    assert len(numbers) == 1, client.transcript()
    return int(numbers[0])


def _credentials(identity: Identity | None) -> list[str]:
    if identity is None:
        return []
    return ["-cert", str(identity.chain), "-cert_chain", str(identity.chain), "-key", str(identity.key)]
