"""SRV records (RFC 2782), asked with dnspython, which the extra `dns` installs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from tunnel.errors import ConfigError, TargetError, TargetFault, describe_os_error
from tunnel.lazy_dataclass import dataclass
from tunnel.net.address import SrvName, TcpAddress
from tunnel.net.cached_name import Timed, bounded_lifetime
from tunnel.net.sockets import NameNotFound, port_number

MAX_RECORDS = 64  # of one name; those of the lowest priority numbers are kept
_QUERY_LIMIT = 5.0  # seconds for one lookup with all retries


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """One host and port; the lowest priority number is used first, a weight is a share within one priority."""

    address: TcpAddress
    priority: int
    weight: int


def check_dns_support(name: SrvName) -> None:
    """Raise ConfigError if dnspython is not installed."""
    try:
        import dns.resolver  # noqa: F401  # now, because later there may be no free descriptor
    except ImportError as error:
        raise ConfigError(f"{name}: SRV records need dnspython; install it with: pip install 'spiffe-tunnel[dns]'") from error


def check_dns_server(server: TcpAddress) -> None:
    """Raise ConfigError unless the host of a name server is an IP address."""
    try:
        ipaddress.ip_address(server.host)
    except ValueError as error:
        raise ConfigError(f"name server {server}: invalid host; expected an IP address") from error


def look_up_srv(name: SrvName, server: TcpAddress | None = None) -> Timed[tuple[SrvRecord, ...]]:
    """Ask the name server, or those of /etc/resolv.conf, which blocks; raises TargetError."""
    import dns.exception
    import dns.resolver

    try:
        resolver = dns.resolver.Resolver(configure=server is None)
        if server is not None:
            resolver.nameservers, resolver.port = [server.host], port_number(server.port)
        answer = resolver.resolve(name.name, "SRV", lifetime=_QUERY_LIMIT, search=True)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
        raise NameNotFound(TargetFault.RESOLVE, f"{name}: there are no SRV records") from error
    except dns.exception.Timeout as error:
        raise TargetError(TargetFault.RESOLVE, f"{name}: no answer from a name server within {_QUERY_LIMIT:g}s") from error
    except dns.exception.DNSException as error:
        raise TargetError(TargetFault.RESOLVE, f"{name}: lookup failed: {type(error).__name__}") from error
    except OSError as error:
        raise TargetError(TargetFault.RESOLVE, f"{name}: {describe_os_error(error)}") from error
    found = [(str(one.target), one.port, one.priority, one.weight) for one in answer]
    return Timed(order_records(name, found), bounded_lifetime(answer.chaining_result.minimum_ttl))


def order_records(name: SrvName, found: Iterable[tuple[str, int, int, int]]) -> tuple[SrvRecord, ...]:
    """Return at most `MAX_RECORDS` of these hosts, ports, priorities and weights, the most important first; raises TargetError.

    A single record with the host `.` means that the service is not offered.
    """
    usable = [
        SrvRecord(TcpAddress(host.rstrip("."), str(port)), priority, weight)
        for host, port, priority, weight in dict.fromkeys(found)
        if host != "." and port
    ]
    if not usable:
        raise NameNotFound(TargetFault.RESOLVE, f"{name}: the service is not offered at this name")
    usable.sort(key=lambda record: (record.priority, -record.weight, record.address.host, record.address.port))
    return tuple(usable[:MAX_RECORDS])
