"""The event of the access log about one connection: its attributes, and what only this log has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from tunnel.errors import WireError
from tunnel.listener.connection_attributes import (
    Attribute,
    Attributes,
    common_attributes,
    common_key,
    endpoint_attributes,
    own_attributes,
)
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import escape, escape_detail
from tunnel.pkix.certificate import parse_certificate
from tunnel.time_format import describe_time

START, END, SUPPRESSED = "tunnel.connection.start", "tunnel.connection.end", "tunnel.connection.suppressed"
_AT_THE_END: Final = ("tunnel.outcome", "tunnel.forwarded_bytes", "tunnel.returned_bytes")
_MAX_CACHED: Final = 1024


class AccessFormat(Protocol):
    """How events are written."""

    def encode(self, fields: Mapping[str, Attribute]) -> str:
        """Return a part of a line, in ASCII."""

    def join(self, parts: tuple[str, ...]) -> str:
        """Return one line of its parts."""


class EventEncoder:
    """Encodes events; what connections of one peer to one listener have in common is encoded once."""

    def __init__(self, form: AccessFormat) -> None:
        self._form = form
        self._common: dict[tuple[object, ...], str] = {}

    def encode(self, time: str, event: str, record: ConnectionRecord, suppressed: int = 0) -> str:
        """Return the line of one event."""
        own: Attributes = {"time": time, "event.name": event}
        own.update(describe_own(event, record))
        if suppressed:
            own["tunnel.suppressed"] = suppressed
        return self._form.join((self._form.encode(own), self._encode_common(record)))

    def encode_fields(self, fields: Mapping[str, Attribute]) -> str:
        """Return the line of an event that is about no connection."""
        return self._form.join((self._form.encode(fields),))

    def _encode_common(self, record: ConnectionRecord) -> str:
        key = common_key(record)
        known = self._common.get(key)
        if known is None:
            if len(self._common) >= _MAX_CACHED:
                self._common.clear()
            known = self._common[key] = self._form.encode(describe_common(record))
        return known


def describe_common(record: ConnectionRecord) -> Attributes:
    """Return the fields that connections with the same `common_key` have in common."""
    fields = common_attributes(record)
    if record.peer is not None:
        fields.update(_describe_certificate(record.peer.leaf, "client" if record.is_server else "server"))
    if record.server_name:
        fields["tls.client.server_name"] = escape(record.server_name)
    if record.alpn:
        fields["tls.next_protocol"] = escape(record.alpn)
    return fields


def _describe_certificate(leaf: bytes, side: str) -> Iterator[tuple[str, Attribute]]:
    try:
        certificate = parse_certificate(leaf)
    except WireError:  # a peer of a test
        return
    yield "tunnel.peer.certificate_serial", f"{certificate.serial_number:x}"
    yield f"tls.{side}.not_after", describe_time(certificate.not_after.timestamp())


def describe_own(event: str, record: ConnectionRecord) -> Attributes:
    """Return the fields that each connection has of its own."""
    fields = own_attributes(record)
    fields.update(_describe_target(record.target))
    if record.handshake_seconds is not None:
        fields["tunnel.handshake_duration"] = record.handshake_seconds
    if record.dial_seconds is not None:
        fields["tunnel.dial_duration"] = record.dial_seconds
    if event == START:
        for name in _AT_THE_END:
            del fields[name]
        return fields
    if record.detail:
        fields["tunnel.detail"] = escape_detail(record.detail)
    fields["tunnel.duration"] = record.seconds
    return fields


@lru_cache(_MAX_CACHED)
def _describe_target(target: str) -> tuple[tuple[str, Attribute], ...]:
    found = endpoint_attributes("tunnel.target", target)
    return tuple((f"tunnel.target_{name.rpartition('.')[2]}", value) for name, value in found.items())


def format_seconds(seconds: float) -> str:
    """Return a duration with microseconds."""
    return f"{seconds:.6f}"


class JsonEvents:
    """One JSON object per event."""

    def __init__(self) -> None:
        from json.encoder import encode_basestring_ascii  # loaded only if it is chosen

        self._encoders: Mapping[type, Callable[[Any], str]] = {
            str: encode_basestring_ascii,
            int: repr,
            float: "{:.6f}".format,  # as `format_seconds`, in C
            bool: lambda value: "true" if value else "false",
        }

    def encode(self, fields: Mapping[str, Attribute]) -> str:
        """Return the members of an object; JSONEncoder takes a third longer for so few."""
        encoders = self._encoders
        return ",".join([f'"{name}":{encoders[value.__class__](value)}' for name, value in fields.items()])

    def join(self, parts: tuple[str, ...]) -> str:
        """Return an object."""
        return f"{{{','.join(parts)}}}\n"


class LogfmtEvents:
    """`name=value` pairs; a value with a blank, a quote or an equals sign is quoted as in JSON."""

    def encode(self, fields: Mapping[str, Attribute]) -> str:
        """Return the pairs."""
        return " ".join(f"{name}={_quote(value)}" for name, value in fields.items())

    def join(self, parts: tuple[str, ...]) -> str:
        """Return a line of pairs."""
        return f"{' '.join(parts)}\n"


def _quote(value: Attribute) -> str:
    if isinstance(value, float):
        return format_seconds(value)
    if not isinstance(value, str):
        return str(value).lower()
    if value.isascii() and not (" " in value or '"' in value or "=" in value or "\\" in value):
        return value
    return '"' + "".join(map(_escape_sign, value)) + '"'


def _escape_sign(sign: str) -> str:
    if sign in '"\\':
        return "\\" + sign
    return sign if sign.isascii() else "".join(f"\\u{half:04x}" for half in memoryview(sign.encode("utf-16-le")).cast("H"))
