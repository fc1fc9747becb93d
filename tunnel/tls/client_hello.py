"""A parser of the ClientHello (RFC 8446, 4.1.2): the server name (RFC 6066) and the offered protocols (RFC 7301).

OpenSSL parses the same bytes afterwards, and sends the right alert for those that are refused here.
"""

from __future__ import annotations

from tunnel.errors import WireError, WireFault
from tunnel.lazy_dataclass import dataclass
from tunnel.tls.alpn import parse_protocols
from tunnel.wire.byte_reader import ByteReader

_MESSAGE = "ClientHello"
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_HOST_NAME = 0
_SERVER_NAME, _ALPN = 0, 16  # numbers of extensions
_MAX_RECORD = 16384
_MAX_HELLO = 16384  # bytes; usual are less than 2000, even with a post-quantum key share
_MAX_RECORDS = 8  # of one ClientHello, because it is parsed again with every piece
PREFIX_SIZE = 6  # bytes that tell a ClientHello from other protocols: the header of the record and the type of the message


@dataclass(frozen=True, slots=True)
class ClientHello:
    """The server name in lower case, empty if there is none, and the offered protocols in order."""

    server_name: str
    alpn: tuple[bytes, ...]


def is_client_hello(prefix: bytes) -> bool | None:
    """Whether a stream that begins with `prefix` begins with a ClientHello; None if more bytes are needed to tell."""
    try:
        _check_record(prefix[:5])
        _check_message(prefix[5:PREFIX_SIZE])
    except WireError:
        return False
    return True if len(prefix) >= PREFIX_SIZE else None


def parse_client_hello(data: bytes) -> ClientHello | None:
    """Return the ClientHello at the start of `data`, or None if more bytes are needed; raises WireError."""
    message = _parse_records(data)
    return None if message is None else _parse_hello(message)


def _parse_records(data: bytes) -> bytes | None:
    """Return the body of the handshake message that begins in the first record."""
    message, at = b"", 0
    for _ in range(_MAX_RECORDS):
        head = data[at : at + 5]
        _check_record(head)
        if len(head) < 5:
            return None
        size = head[3] << 8 | head[4]
        message += data[at + 5 : at + 5 + size]
        _check_message(message)
        if len(message) >= 4 and len(message) - 4 >= (wanted := int.from_bytes(message[1:4], "big")):
            return message[4 : 4 + wanted]
        at += 5 + size
        if at > len(data):
            return None
    raise WireError(WireFault.TOO_LARGE, f"ClientHello in more than {_MAX_RECORDS} records")


def _check_record(head: bytes) -> None:
    if tuple(head[:2]) != (_HANDSHAKE, 3)[: len(head)]:
        raise WireError(WireFault.MALFORMED, "not a TLS handshake record")
    if len(head) == 5 and not 0 < head[3] << 8 | head[4] <= _MAX_RECORD:
        raise WireError(WireFault.MALFORMED, "invalid length of a TLS record")


def _check_message(message: bytes) -> None:
    if message and message[0] != _CLIENT_HELLO:
        raise WireError(WireFault.MALFORMED, f"handshake message of type {message[0]}; expected a ClientHello")
    if len(message) >= 4 and int.from_bytes(message[1:4], "big") > _MAX_HELLO:
        raise WireError(WireFault.TOO_LARGE, f"ClientHello of more than {_MAX_HELLO} bytes")


def _parse_hello(message: bytes) -> ClientHello:
    reader = ByteReader(message, _MESSAGE)
    reader.take(2 + 32)  # legacy_version, random
    for width in (1, 2, 1):  # legacy_session_id, cipher_suites, legacy_compression_methods
        reader.vector(width)
    extensions = _parse_extensions(reader)
    name, alpn = extensions.get(_SERVER_NAME), extensions.get(_ALPN)
    return ClientHello("" if name is None else _parse_server_name(name), () if alpn is None else _parse_alpn(alpn))


def _parse_extensions(reader: ByteReader) -> dict[int, bytes]:
    """Return the extensions by number; a TLS 1.2 client may send none."""
    found: dict[int, bytes] = {}
    inner = ByteReader(reader.vector(2) if reader.has_more else b"", _MESSAGE)
    if reader.has_more:
        raise WireError(WireFault.MALFORMED, "trailing bytes after the ClientHello")
    while inner.has_more:
        number, content = inner.number(2), inner.vector(2)
        if number in found:  # RFC 8446 4.2
            raise WireError(WireFault.MALFORMED, f"extension {number} appears twice")
        found[number] = content
    return found


def _parse_server_name(content: bytes) -> str:
    """Return the one host name (RFC 6066, section 3)."""
    names = _parse_list(content)
    kind, name = names.number(1), names.vector(2)
    if kind != _HOST_NAME or names.has_more:
        raise WireError(WireFault.MALFORMED, "server name extension without exactly one host name")
    try:
        return name.decode("ascii").lower()
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "server name is not ASCII") from error


def _parse_alpn(content: bytes) -> tuple[bytes, ...]:
    """Return the protocols: at least one, none of them empty (RFC 7301, 3.1)."""
    offered = parse_protocols(_parse_list(content))
    if not all(offered):
        raise WireError(WireFault.MALFORMED, "empty protocol name in ALPN")
    return offered


def _parse_list(content: bytes) -> ByteReader:
    """Return a reader of the list that is the whole content of an extension."""
    outer = ByteReader(content, _MESSAGE)
    inner = ByteReader(outer.vector(2), _MESSAGE)
    if outer.has_more or not inner.has_more:
        raise WireError(WireFault.MALFORMED, "extension is not one non-empty list")
    return inner
