"""One agent, its workloads, and the processes of a test; all of them end with the test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from tests.support.processes import Process, Proxy, bare_environment, tunnel_argv
from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.api import DevWorkloadApi
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

SERVER = "spiffe://a.test/server"
CLIENT = "spiffe://a.test/client"
STRANGER = "spiffe://a.test/stranger"
FOREIGNER = "spiffe://b.test/client"  # of a trust domain that nobody of a.test trusts until they are federated
ANY_PORT = "127.0.0.1:0"

T = TypeVar("T")
P = TypeVar("P", bound=Process)


@dataclass(frozen=True)
class Identity:
    """An SVID in files, for other programs."""

    chain: Path
    key: Path


class Workloads:
    """Every workload has a socket of its own."""

    def __init__(self, directory: Path, *, issuing: Issuing | None = None, agent: bool = True) -> None:
        self.directory = directory
        self._late = timedelta()
        self._things = ExitStack()
        self.sockets = {
            spiffe_id: WorkloadEndpoint(path=str(directory / spiffe_id.removeprefix("spiffe://").replace("/", "-")))
            for spiffe_id in (SERVER, CLIENT, STRANGER, FOREIGNER)
        }
        entries = {endpoint: [Entry(parse_spiffe_id(spiffe_id))] for spiffe_id, endpoint in self.sockets.items()}
        self.api = DevWorkloadApi(entries, issuing=issuing, clock=self._now)
        self._things.callback(self.api.stop)
        if agent:
            self.api.start()

    def close(self) -> None:
        """End everything, the youngest first."""
        self._things.close()

    def enter(self, thing: AbstractContextManager[T]) -> T:
        """Close something together with these workloads."""
        return self._things.enter_context(thing)

    # -- proxies

    def server(self, target: str, *flags: str, rules: Sequence[str] = ("--allow-id", CLIENT), listen: str = ANY_PORT) -> Proxy:
        """A server proxy in front of `target`, just started."""
        return self.proxy("server", SERVER, f"--listen={listen}", f"--target={target}", *rules, *flags)

    def client(self, target: str, *flags: str, rules: Sequence[str] = ("--verify-id", SERVER), listen: str = ANY_PORT) -> Proxy:
        """A client proxy towards `target`, just started."""
        return self.proxy("client", CLIENT, f"--listen={listen}", f"--target={target}", *rules, *flags)

    def proxy(self, mode: str, spiffe_id: str, *flags: str, before: Iterable[str] = (), cwd: Path | None = None) -> Proxy:
        """A proxy with the identity of one workload; `before` is a program that starts it."""
        argv = tunnel_argv(mode, f"--use-workload-api-addr={self.sockets[spiffe_id]}", *flags)
        return self.watch(Proxy([*before, *argv], environ=bare_environment(), cwd=cwd))

    def watch(self, process: P) -> P:
        """End a process together with these workloads, and check its log then."""
        self._things.callback(process.close)
        return process

    # -- identities

    def identity(self, spiffe_id: str) -> Identity:
        """The current SVID of a workload."""
        (svid,) = self.api.issued(self.sockets[spiffe_id])
        return self._write(spiffe_id, svid.chain_pem, svid.key_pem)

    def odd_identity(self, *, dns_names: tuple[str, ...] = (), age: timedelta = timedelta()) -> Identity:
        """An SVID of the client's ID that differs from the usual one: in its names, or issued some time ago."""
        place, entry = self.sockets[STRANGER], Entry(parse_spiffe_id(CLIENT), dns_names=dns_names)
        self._late = age
        self.api.register(place, entry)
        svid = self.api.issued(place)[-1]
        self.api.unregister(place, entry)
        self._late = timedelta()
        return self._write("odd", svid.chain_pem, svid.key_pem)

    def shorten(self, left: timedelta) -> None:
        """Renew every SVID by one that ends in so much time."""
        self._late = Issuing().ttl - left
        self.api.rotate_svids()
        self._late = timedelta()

    def _write(self, name: str, chain: bytes, key: bytes) -> Identity:
        stem = self.directory / name.replace("/", "-")
        identity = Identity(stem.with_suffix(".chain.pem"), stem.with_suffix(".key.pem"))
        identity.chain.write_bytes(chain)
        identity.key.write_bytes(key)
        return identity

    def federate(self) -> None:
        """Let the workloads of both trust domains know each other."""
        self.api.federate(TrustDomain("a.test"), TrustDomain("b.test"))

    def separate(self) -> None:
        """Take that back."""
        self.api.unfederate(TrustDomain("a.test"), TrustDomain("b.test"))

    def _now(self) -> datetime:
        return datetime.now(UTC) - self._late
