"""The PROXY protocol header, version 2 (proxy-protocol.txt, section 2.2), which sends the client's address to the backend.

The bytes are those of ghostunnel with three differences: on a Unix listener the length includes the TLVs, `verify` is not 0 for
a client without a certificate, and the mode `spiffe` is new.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import Any

from tunnel.errors import WireError, WireFault
from tunnel.ip_address import IPV4_MAPPED_PREFIX
from tunnel.lazy_dataclass import dataclass

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY = 0x21  # version 2, command PROXY
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31  # family and transport, the 14th byte
_UNIX_PATH_BYTES = 108
_MAX_LENGTH = 0xFFFF

_ALPN, _AUTHORITY, _SSL = 0x01, 0x02, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CLIENT_CERT = 0x21, 0x22, 0x28
_OVER_TLS, _CERT_CONN, _CERT_SESS = 0x01, 0x02, 0x04
_VERIFIED, _UNVERIFIED = 0, 1  # 0 only if a certificate was presented and verified
# In the range for applications, 0xE0 to 0xEF (section 2.2.8). Load balancers of Google use 0xE0, Amazon 0xEA, Azure 0xEE.
SPIFFE_ID_TYPE = 0xE5


class HeaderMode(Enum):
    """The content of the header; the value of a mode is its name on the command line."""

    CONN = "conn"  # the addresses
    TLS = "tls"  # and ALPN, SNI and TLS version
    TLS_FULL = "tls-full"  # and the client's common name and certificate
    SPIFFE = "spiffe"  # and, in addition to `tls`, the client's SPIFFE ID


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """The TLS connection of the client; a missing value is empty."""

    version: str  # `TLS 1.3`, with the space
    server_name: bytes = b""  # SNI, as the client sent it
    alpn: bytes = b""  # the negotiated protocol
    common_name: str = ""
    leaf: bytes = b""  # the client's certificate, DER
    spiffe_id: str = ""


def encode_header(family: int, source: Any, destination: Any, mode: HeaderMode, facts: TlsFacts) -> bytes:
    """Return the header for a connection between two addresses of one family, as the socket module represents them.

    Raises WireError if it does not fit: a backend would trust an incomplete header.
    """
    kind, addresses = _encode_addresses(family, source, destination)
    body = addresses + (b"" if mode is HeaderMode.CONN else _encode_facts(mode, facts))
    if len(body) > _MAX_LENGTH:
        raise _too_large("the PROXY header", body)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, kind, len(body)) + body


def _encode_addresses(family: int, source: Any, destination: Any) -> tuple[int, bytes]:
    if family == socket.AF_UNIX:
        return _UNIX, _encode_path(source) + _encode_path(destination)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return _UNSPEC, b""
    kind = _TCP4 if family == socket.AF_INET else _TCP6
    hosts = [socket.inet_pton(family, address[0].partition("%")[0]) for address in (source, destination)]
    if kind == _TCP6 and all(host.startswith(IPV4_MAPPED_PREFIX) for host in hosts):
        kind, hosts = _TCP4, [host.removeprefix(IPV4_MAPPED_PREFIX) for host in hosts]
    return kind, b"".join(hosts) + struct.pack("!HH", source[1], destination[1])


def _encode_path(address: str | bytes) -> bytes:
    """Encode the path of a Unix socket; as in Go, an abstract name begins with `@`, and an unnamed socket is `@`."""
    path = address if isinstance(address, bytes) else address.encode("utf-8", "surrogateescape")
    if path[:1] in (b"", b"\0"):
        path = b"@" + path[1:]
    return path.partition(b"\0")[0][:_UNIX_PATH_BYTES].ljust(_UNIX_PATH_BYTES, b"\0")


def _encode_facts(mode: HeaderMode, facts: TlsFacts) -> bytes:
    tlvs = _encode_tlv(_ALPN, facts.alpn) + _encode_tlv(_AUTHORITY, facts.server_name)
    has_certificate = mode is HeaderMode.TLS_FULL and bool(facts.leaf)
    flags = _OVER_TLS | _CERT_CONN | _CERT_SESS if has_certificate else _OVER_TLS
    inner = _encode_tlv(_SSL_VERSION, facts.version.encode())
    if has_certificate:
        inner += _encode_tlv(_SSL_CN, _encode_text(facts.common_name)) + _encode_tlv(_SSL_CLIENT_CERT, facts.leaf)
    tlvs += _encode_tlv(_SSL, struct.pack("!BI", flags, _VERIFIED if facts.leaf else _UNVERIFIED) + inner)
    if mode is HeaderMode.SPIFFE:
        tlvs += _encode_tlv(SPIFFE_ID_TYPE, _encode_text(facts.spiffe_id))
    return tlvs


def _encode_tlv(kind: int, value: bytes) -> bytes:
    """Encode a TLV, or nothing for an empty value."""
    if len(value) > _MAX_LENGTH:
        raise _too_large(f"value {kind:#04x} of the PROXY header", value)
    return struct.pack("!BH", kind, len(value)) + value if value else b""


def _encode_text(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _too_large(what: str, data: bytes) -> WireError:
    return WireError(WireFault.TOO_LARGE, f"{what} has {len(data)} bytes; expected at most {_MAX_LENGTH}")
