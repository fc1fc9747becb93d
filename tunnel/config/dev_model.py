"""What `tunnel dev` is asked to be, as frozen values.

Knows workloads, sockets and lifetimes, and where a development Workload API may listen; must not know flags, certificates
or gRPC.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from tunnel.errors import ConfigError
from tunnel.log import escape
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.unix_path import check_unix_path

KEY_TYPES = ("ec-p256", "ec-p384", "rsa-2048", "ed25519")
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One identity that a socket hands out, as a registration entry of SPIRE is one."""

    spiffe_id: SpiffeId
    hint: str = ""
    dns_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Issuing:
    """How the throw-away authorities and their SVIDs look."""

    ttl: timedelta = timedelta(hours=1)
    ca_ttl: timedelta = timedelta(hours=24)
    jwt_ttl: timedelta = timedelta(minutes=5)
    key_type: str = "ec-p256"
    has_intermediate: bool = False
    has_same_subject: bool = False


@dataclass(frozen=True, slots=True)
class DevConfig:
    """One run of `tunnel dev`; the key `None` is the socket whose place the program chooses itself."""

    sockets: Mapping[WorkloadEndpoint | None, tuple[Entry, ...]]
    federations: tuple[frozenset[TrustDomain], ...]
    issuing: Issuing
    rotate: float
    ca_rotate: float
    socket_mode: int
    is_verbose: bool
    runtime_dir: str


def check_local(endpoint: WorkloadEndpoint) -> None:
    """Refuse an endpoint that others than this machine could reach, or that the kernel cannot bind."""
    if endpoint.path:
        try:
            check_unix_path(endpoint.path)
        except ConfigError as error:
            raise ConfigError(f'invalid address "{escape(str(endpoint))}": {error}') from error
    elif not any(ipaddress.ip_address(endpoint.host) in network for network in _LOOPBACK):
        raise ConfigError(f"{endpoint} is not of this machine only; a development Workload API listens on loopback")
