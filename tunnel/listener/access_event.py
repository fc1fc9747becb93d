"""The event of the access log about one connection: its attributes, and what only this log has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from tunnel.errors import WireError
from tunnel.listener.connection_attributes import connection_attributes, endpoint_attributes
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import escape
from tunnel.pkix.certificate import parse_certificate
from tunnel.time_format import describe_time

Value = str | int | float
Field = tuple[str, Value]

START, END, SUPPRESSED = "tunnel.connection.start", "tunnel.connection.end", "tunnel.connection.suppressed"
_AT_THE_END: Final = ("tunnel.outcome", "tunnel.forwarded_bytes", "tunnel.returned_bytes")
_DIGITS: Final = 6  # of durations in seconds
_CACHED_CERTIFICATES: Final = 1024


def describe_connection(event: str, record: ConnectionRecord) -> dict[str, Value]:
    """Return the fields of one event; those without a value are left out."""
    fields: dict[str, Value] = {"event.name": event, **connection_attributes(record)}
    if event == START:
        for name in _AT_THE_END:
            del fields[name]
    return {**fields, **{name: value for name, value in _fields(event, record) if value != ""}}


def _fields(event: str, record: ConnectionRecord) -> Iterator[Field]:
    target = endpoint_attributes("target", record.target)
    for name, value in target.items():
        yield f"tunnel.{name.replace('.', '_')}", value
    if record.peer is not None:
        serial, not_after = _read_certificate(record.peer.leaf)
        yield "tunnel.peer.certificate_serial", serial
        yield f"tls.{'client' if record.is_server else 'server'}.not_after", not_after
    yield "tls.client.server_name", escape(record.server_name)
    yield "tls.next_protocol", escape(record.alpn)
    if record.handshake_seconds is not None:
        yield "tunnel.handshake_duration", round(record.handshake_seconds, _DIGITS)
    if record.dial_seconds is not None:
        yield "tunnel.dial_duration", round(record.dial_seconds, _DIGITS)
    if event == END:
        yield "tunnel.detail", escape(record.detail)
        yield "tunnel.duration", round(record.seconds, _DIGITS)


@lru_cache(_CACHED_CERTIFICATES)
def _read_certificate(leaf: bytes) -> tuple[str, str]:
    """Serial number and expiry of a verified certificate; connections of one certificate share its bytes."""
    try:
        certificate = parse_certificate(leaf)
    except WireError:  # a peer of a test
        return "", ""
    return f"{certificate.serial_number:x}", describe_time(certificate.not_after.timestamp())


def encode_logfmt(fields: Mapping[str, Value]) -> str:
    """Return the fields as `name=value`; a value with a blank, a quote or an equals sign is quoted as in JSON."""
    return " ".join(f"{name}={_quote(value)}" for name, value in fields.items())


def _quote(value: Value) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text.isascii() and not set(text) & {" ", '"', "=", "\\"}:
        return text
    return '"' + "".join(map(_escape_sign, text)) + '"'


def _escape_sign(sign: str) -> str:
    if sign in '"\\':
        return "\\" + sign
    return sign if sign.isascii() else "".join(f"\\u{half:04x}" for half in memoryview(sign.encode("utf-16-le")).cast("H"))
