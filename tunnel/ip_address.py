"""IP addresses: parsing, the form with a port, and IPv4 addresses mapped into IPv6 (`::ffff:0:0/96`, RFC 4291 2.5.5.2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

IPV4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


def parse_ip_address(text: str) -> IpAddress | None:
    """Return the address, or None if the text is not one."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def unmap_ipv4(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 address maps, else the address itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def join_host_port(host: str, port: str | int) -> str:
    """Return `HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
