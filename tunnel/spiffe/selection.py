"""Which of several identities is meant: by SPIFFE ID, by hint, or the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunnel.spiffe.ids import SpiffeId

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """An identity that the agent offers, by the names that it sent; hostile text."""

    spiffe_id: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.spiffe_id} (hint {self.hint})" if self.hint else self.spiffe_id


@dataclass(frozen=True, slots=True)
class Selection:
    """Which SVID the operator wants; without either, the first."""

    spiffe_id: SpiffeId | None = None
    hint: str = ""

    def is_open(self) -> bool:
        """Whether the operator leaves the choice to the order of the list."""
        return self.spiffe_id is None and not self.hint

    def is_met_by(self, offer: Offer) -> bool:
        """Whether an identity is one of those that are meant; of several the first counts (Workload API 5.2.1)."""
        return self.hint in ("", offer.hint) and (self.spiffe_id is None or offer.spiffe_id == str(self.spiffe_id))

    def __str__(self) -> str:
        wanted = [f"--spiffe-id {self.spiffe_id}" if self.spiffe_id else "", f"--spiffe-hint {self.hint}" if self.hint else ""]
        return " and ".join(part for part in wanted if part) or "the first SVID"


def describe_offers(offers: Iterable[Offer]) -> str:
    """The names of what an agent offers, for a message."""
    return list_some([str(offer) for offer in offers])


def list_some(names: Sequence[str]) -> str:
    """Names for a message: of many the first ones, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
