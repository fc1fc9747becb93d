"""The facts about an ended connection by stable names: those of OpenTelemetry where there are any, else `tunnel.*`.

They are in two parts: what connections of one peer to one listener have in common is described once by the access log.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunnel.authz.peer import peer_name
from tunnel.config.model import direction_of
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import MAX_FOREIGN_TEXT, escape, one_line

Attribute = str | int | float | bool
Attributes = dict[str, Attribute]


def connection_attributes(record: ConnectionRecord) -> Attributes:
    """Return what is known about a connection; texts are escaped and bounded, and what is unknown is left out."""
    other_end = record.source if record.is_server else record.target
    return {**common_attributes(record), **own_attributes(record), **peer_endpoint_attributes(other_end)}


def common_attributes(record: ConnectionRecord) -> Attributes:
    """Return what connections with the same `common_key` have in common."""
    found = (*_describe_route(record), *_describe_tls(record), *_describe_peer(record))
    return {name: value for name, value in found if value not in ("", None)}


def common_key(record: ConnectionRecord) -> tuple[object, ...]:
    """Return what `common_attributes` depend on; the certificate stands for the peer."""
    leaf = record.peer.leaf if record.peer is not None else None
    route = record.listener_name, record.is_server, record.listener, record.target_name, record.via_proxy
    return (*route, record.tls, record.server_name, record.alpn, leaf, record.rule)


def own_attributes(record: ConnectionRecord) -> Attributes:
    """Return what each connection has of its own."""
    found = endpoint_attributes("client", record.source)
    found["tunnel.outcome"] = record.outcome.value
    if record.reason:
        found["tunnel.reason"] = record.reason
    if record.close_reason is not None:
        found["tunnel.close_reason"] = record.close_reason.value
    found["tunnel.forwarded_bytes"] = record.forwarded
    found["tunnel.returned_bytes"] = record.returned
    return found


def endpoint_attributes(prefix: str, address: str) -> Attributes:
    """Return `PREFIX.address` and `PREFIX.port` of `tcp:HOST:PORT`, `HOST:PORT` or `unix:PATH`; nothing for another text."""
    if address.startswith("unix:"):
        return {f"{prefix}.address": escape(address.removeprefix("unix:"))}
    host, _, port = address.removeprefix("tcp:").rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or "," in host:
        return {}
    return {f"{prefix}.address": _show_host(host), f"{prefix}.port": int(port)}


def _show_host(host: str) -> str:
    """An address from the kernel, or a name of the configuration."""
    if host.replace(".", "").isalnum() and host.isascii():
        return host
    return escape(host.removeprefix("[").removesuffix("]"))


def peer_endpoint_attributes(address: str) -> Attributes:
    """Return the attributes of the socket at the other end of a connection."""
    if not address:
        return {}
    transport = "unix" if address.startswith("unix:") else "tcp"
    return {"network.transport": transport, **endpoint_attributes("network.peer", address)}


def tls_attributes(record: ConnectionRecord) -> Attributes:
    """Return what was negotiated, and the subject of the peer's certificate."""
    return dict(_describe_tls(record))


def _describe_route(record: ConnectionRecord) -> Iterator[tuple[str, Attribute]]:
    """The listener: a connection is from a client if it is inbound, to a server if it is outbound."""
    yield "tunnel.listener", record.listener_name
    yield "tunnel.direction", direction_of(is_server=record.is_server)
    yield from endpoint_attributes("server", record.listener if record.is_server else record.target_name).items()
    yield "tunnel.target", _show(record.target_name)
    yield "tunnel.outbound_proxy", _show(record.via_proxy)


def _describe_tls(record: ConnectionRecord) -> Iterator[tuple[str, Attribute]]:
    if record.is_plaintext:
        return
    yield "tls.established", record.tls is not None
    if record.tls is not None:
        yield "tls.protocol.name", "tls"
        yield "tls.protocol.version", record.tls.version.removeprefix("TLSv")
        yield "tls.cipher", record.tls.cipher
        if record.tls.group:
            yield "tls.curve", record.tls.group
    if record.peer is not None and record.peer.subject:
        yield f"tls.{'client' if record.is_server else 'server'}.subject", escape(record.peer.subject)


def _describe_peer(record: ConnectionRecord) -> Iterator[tuple[str, Attribute]]:
    spiffe_id = record.peer.spiffe_id if record.peer is not None else None
    if record.peer is not None or record.rule:
        yield "tunnel.peer.id", peer_name(record.peer, record.rule)
    if spiffe_id is not None:
        yield "tunnel.peer.trust_domain", str(spiffe_id.trust_domain.name)
    yield "tunnel.rule", _show(record.rule)


def _show(setting: str) -> str:
    """A text of the configuration, which can have brackets and characters outside of ASCII."""
    return one_line(setting, MAX_FOREIGN_TEXT)
