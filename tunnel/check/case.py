"""What one check is about.

Knows the configuration and what of the machine a check may look at; must not know any check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tunnel.config.model import Line, ProxyConfig


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration, on this machine, now."""

    line: Line
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold passwords
    limit: float = 15.0  # seconds for an identity
    origin: str = "--use-workload-api-addr"  # what named the address of the Workload API
    say: Callable[[str], None] = field(default=lambda _: None)  # told when something takes long
    clock: Callable[[], float] = time.time

    @property
    def config(self) -> ProxyConfig:
        """What the line means."""
        return self.line.config

    @property
    def now(self) -> datetime:
        """The time by this machine's clock."""
        return datetime.fromtimestamp(self.clock(), UTC)

    @property
    def peer(self) -> str:
        """Who is on the other side."""
        return "client" if self.config.is_server else "server"

    @property
    def verb(self) -> str:
        """How the flags of rules begin."""
        return "allow" if self.config.is_server else "verify"
