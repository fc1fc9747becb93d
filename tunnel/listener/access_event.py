"""The event of the access log about one connection: names and values, made from its ConnectionRecord.

Names are those of OpenTelemetry's semantic conventions where one exists, else begin with `tunnel.`. They are stable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from tunnel.authz.peer import peer_name
from tunnel.errors import WireError
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import escape
from tunnel.pkix.certificate import parse_certificate
from tunnel.time_format import describe_time

Value = str | int | float
Field = tuple[str, Value]

START, END, SUPPRESSED = "tunnel.connection.start", "tunnel.connection.end", "tunnel.connection.suppressed"
_DIGITS: Final = 6  # of durations in seconds
_CACHED_CERTIFICATES: Final = 1024


def direction_of(*, is_server: bool) -> str:
    """The direction of the connections of a listener: a server is for those from the network."""
    return "inbound" if is_server else "outbound"


def describe_connection(event: str, record: ConnectionRecord) -> dict[str, Value]:
    """Return the fields of one event; those without a value are left out."""
    return {name: value for name, value in _fields(event, record) if value != ""}


def _fields(event: str, record: ConnectionRecord) -> Iterator[Field]:
    yield "event.name", event
    yield "tunnel.listener", record.listener_name
    yield "tunnel.direction", direction_of(is_server=record.is_server)
    yield from _address("client", record.source)
    yield from _address("server", record.target)
    yield "tunnel.target", escape(record.target_name)
    yield from _describe_peer(record)
    yield from _describe_tls(record)
    if event == END:
        yield from _describe_end(record)


def _describe_peer(record: ConnectionRecord) -> Iterator[Field]:
    peer = record.peer
    if peer is not None or record.rule:
        yield "tunnel.peer.id", peer_name(peer, record.rule)
    if peer is not None:
        yield "tunnel.peer.trust_domain", str(peer.spiffe_id.trust_domain) if peer.spiffe_id is not None else ""
        serial, not_after = _read_certificate(peer.leaf)
        yield "tunnel.peer.certificate.serial", serial
        yield f"tls.{'client' if record.is_server else 'server'}.not_after", not_after
    yield "tunnel.rule", escape(record.rule)


@lru_cache(_CACHED_CERTIFICATES)
def _read_certificate(leaf: bytes) -> tuple[str, str]:
    """Serial number and expiry of a verified certificate; connections of one certificate share its bytes."""
    try:
        certificate = parse_certificate(leaf)
    except WireError:  # a peer of a test
        return "", ""
    return f"{certificate.serial_number:x}", describe_time(certificate.not_after.timestamp())


def _describe_tls(record: ConnectionRecord) -> Iterator[Field]:
    if record.tls is not None:
        yield "tls.protocol.version", record.tls.version.removeprefix("TLSv")
        yield "tls.cipher", record.tls.cipher
        yield "tls.curve", record.tls.group
    yield "tls.client.server_name", escape(record.server_name)
    yield "tls.next_protocol", escape(record.alpn)


def _describe_end(record: ConnectionRecord) -> Iterator[Field]:
    yield "tunnel.outcome", record.outcome.value
    yield "tunnel.reason", record.reason
    yield "tunnel.detail", escape(record.detail)
    if record.close_reason is not None:
        yield "tunnel.close_reason", record.close_reason.value
    yield "tunnel.forwarded_bytes", record.forwarded
    yield "tunnel.returned_bytes", record.returned
    yield "tunnel.duration", round(record.seconds, _DIGITS)
    if record.handshake_seconds is not None:
        yield "tunnel.handshake.duration", round(record.handshake_seconds, _DIGITS)
    if record.dial_seconds is not None:
        yield "tunnel.dial.duration", round(record.dial_seconds, _DIGITS)


def _address(side: str, address: str) -> Iterator[Field]:
    """The address of one end: `tcp:HOST:PORT`, `unix:PATH`, or "" if it is not known."""
    kind, _, text = address.partition(":")
    if kind != "tcp":
        yield f"{side}.address", escape(text)
        return
    host, _, port = text.rpartition(":")
    yield f"{side}.address", host.strip("[]")
    yield f"{side}.port", int(port)


def encode_logfmt(fields: Mapping[str, Value]) -> str:
    """Return the fields as `name=value`; a value with a blank, a quote or an equals sign is quoted as in JSON."""
    return " ".join(f"{name}={_quote(value)}" for name, value in fields.items())


def _quote(value: Value) -> str:
    text = str(value)
    if " " not in text and '"' not in text and "=" not in text:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
