"""The configuration of `tunnel dev` as frozen values."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import timedelta

from tunnel.errors import ConfigError, invalid_value
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.unix_path import check_unix_path

KEY_TYPES = ("ec-p256", "ec-p384", "rsa-2048", "ed25519")
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One identity that a socket issues, like a registration entry of SPIRE."""

    spiffe_id: SpiffeId
    hint: str = ""
    dns_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Issuing:
    """How CAs and SVIDs are issued."""

    ttl: timedelta = timedelta(hours=1)
    ca_ttl: timedelta = timedelta(hours=24)
    jwt_ttl: timedelta = timedelta(minutes=5)
    key_type: str = "ec-p256"
    has_intermediate: bool = False
    has_same_subject: bool = False


@dataclass(frozen=True, slots=True)
class DevConfig:
    """One run of `tunnel dev`; the key `None` is the socket at the default address. Durations in seconds."""

    sockets: Mapping[WorkloadEndpoint | None, tuple[Entry, ...]]
    federations: tuple[frozenset[TrustDomain], ...]
    issuing: Issuing
    rotate: float
    ca_rotate: float
    socket_mode: int = 0o600
    is_verbose: bool = False
    runtime_dir: str = ""


def check_local(endpoint: WorkloadEndpoint) -> None:
    """Raise ConfigError for an endpoint that other machines can reach, or that the kernel cannot bind."""
    if endpoint.path:
        try:
            check_unix_path(endpoint.path)
        except ConfigError as error:
            raise invalid_value("address", str(endpoint), str(error)) from error
    elif not any(ipaddress.ip_address(endpoint.host) in network for network in _LOOPBACK):
        raise invalid_value("address", str(endpoint), "other machines can reach it", "a loopback address")
