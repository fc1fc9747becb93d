"""Configuration values with fields that a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from tunnel.config.model import Access, IdentityConfig, ListenerConfig, NoIdentity, Source
from tunnel.lazy_dataclass import replace
from tunnel.net.address import TargetAddress, TcpAddress

_LISTENER = ListenerConfig("server", True, None, (TcpAddress("localhost", "1"),), IdentityConfig(NoIdentity()), Access(()))


def listener_config(*, source: Source | None = None, target: TargetAddress | None = None, **fields: Any) -> ListenerConfig:
    """A listener without an identity, a listening address and access rules, except for these fields."""
    targets = {"targets": (target,)} if target is not None else {}
    identity = {"identity": IdentityConfig(source)} if source is not None else {}
    mode = {"name": "server" if fields.get("is_server", True) else "client"}
    return replace(_LISTENER, **{**mode, **targets, **identity, **fields})
