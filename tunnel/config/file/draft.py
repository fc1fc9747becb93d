"""A listener while it is read: the values of its keys, with the defaults, and where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.config.file.problem import Place
from tunnel.config.file.tables import RawTable
from tunnel.config.model import IdentityConfig
from tunnel.lazy_dataclass import dataclass, field


@dataclass(slots=True)
class Shared:
    """What listeners refer to by name: identities (None for an invalid one) and access lists; and which of them are used."""

    identities: Mapping[str, IdentityConfig | None]
    access: Mapping[str, RawTable]
    defaults: Mapping[str, Any]
    default_place: Place | None = None
    has_all_identities: bool = True  # false if some may be in a file or table that cannot be read
    has_all_access: bool = True
    used_identities: set[str] = field(default_factory=set)
    used_access: set[str] = field(default_factory=set)
    has_reported_no_identity: bool = False


@dataclass(frozen=True, slots=True)
class ListenerDraft:
    """The values of a listener's keys, with the defaults, and where they are."""

    mode: str
    values: Mapping[str, Any]
    table: RawTable
    shared: Shared

    @property
    def is_server(self) -> bool:
        """Whether it is a server."""
        return self.mode == "server"

    @property
    def is_mutual(self) -> bool:
        """Whether both sides present a certificate."""
        return not self.values.get("disable-authentication", False)

    @property
    def is_peer_verified(self) -> bool:
        """Whether the other side presents a certificate: a server may request none."""
        return self.is_mutual or not self.is_server

    def place(self, name: str) -> Place:
        """The place of a key, in the listener or in the defaults."""
        if name not in self.table.values and name in self.shared.defaults and self.shared.default_place is not None:
            return self.shared.default_place / name
        return self.table.place / name
