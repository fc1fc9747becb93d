"""IP addresses and networks: parsing, the form with a port, and IPv4 mapped into IPv6 (`::ffff:0:0/96`, RFC 4291 2.5.5.2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

IPV4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
_MAPPED_BITS = 8 * len(IPV4_MAPPED_PREFIX)


def parse_ip_address(text: str) -> IpAddress | None:
    """Return the address, or None if the text is not one."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def unmap_ipv4(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 address maps, else the address itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def parse_ip_network(text: str) -> IpNetwork | None:
    """Return the network in CIDR notation or of one address, or None if the text is not one or has host bits.

    A network of IPv4-mapped addresses becomes the IPv4 network.
    """
    try:
        network = ip_network(text)
    except ValueError:
        return None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def parse_source(text: str) -> IpAddress | None:
    """Return the address of `tcp:HOST:PORT`, without the zone of an IPv6 address; None for a Unix socket."""
    host = text.removeprefix("tcp:").rpartition(":")[0].strip("[]").partition("%")[0]
    return parse_ip_address(host) if text.startswith("tcp:") else None


def join_host_port(host: str, port: str | int) -> str:
    """Return `HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
