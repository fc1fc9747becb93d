"""Which of several identities is meant.

Knows the two ways to name one, by SPIFFE ID and by hint; must not know certificates.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class Selection:
    """Which SVID the operator wants; without either, the first."""

    spiffe_id: SpiffeId | None = None
    hint: str = ""

    def is_open(self) -> bool:
        """Whether the operator leaves the choice to the order of the list."""
        return self.spiffe_id is None and not self.hint

    def __str__(self) -> str:
        wanted = [f"--spiffe-id {self.spiffe_id}" if self.spiffe_id else "", f"--spiffe-hint {self.hint}" if self.hint else ""]
        return " and ".join(part for part in wanted if part) or "the first SVID"
