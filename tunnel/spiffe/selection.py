"""The choice among several identities: by SPIFFE ID, by hint, or the first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.ids import SpiffeId

_MOST_NAMES = 8  # in a message


@dataclass(frozen=True, slots=True)
class Offer:
    """The SPIFFE ID and hint of an identity as the agent sent them: untrusted text."""

    spiffe_id: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.spiffe_id} (hint {self.hint})" if self.hint else self.spiffe_id


@dataclass(frozen=True, slots=True)
class Selection:
    """The SVID that the operator selects; the first one if neither field is set."""

    spiffe_id: SpiffeId | None = None
    hint: str = ""

    def is_open(self) -> bool:
        """Whether nothing is selected, so that the order of the list decides."""
        return self.spiffe_id is None and not self.hint

    def is_met_by(self, offer: Offer) -> bool:
        """Whether an identity matches; of several matches the first counts (Workload API 5.2.1)."""
        return self.hint in ("", offer.hint) and (self.spiffe_id is None or offer.spiffe_id == str(self.spiffe_id))

    def __str__(self) -> str:
        flags = [f"--spiffe-id {self.spiffe_id}" if self.spiffe_id else "", f"--spiffe-hint {self.hint}" if self.hint else ""]
        return " and ".join(flag for flag in flags if flag) or "the first SVID"


def describe_offers(offers: Iterable[Offer]) -> str:
    """Return the names of the identities that an agent offers, for a message."""
    return join_names([str(offer) for offer in offers])


def join_names(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Return the first names and the number of the others, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
