"""What a verified certificate proves, and who decides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tunnel.pkix.certificate import Certificate
from tunnel.spiffe.ids import SpiffeId


@dataclass(frozen=True, slots=True)
class Verified:
    """A leaf that is proven, and the span in which every certificate of the path that proves it is within its dates."""

    leaf: Certificate
    not_before: datetime
    not_after: datetime
    spiffe_id: SpiffeId | None = None


class Verifier(Protocol):
    """Judges what peers send by what one generation trusts."""

    def verify(self, sent: Sequence[Certificate], now: datetime) -> Verified:
        """What the leaf, the first of `sent`, proves at `now`; raises PeerDenied with the rule that is broken."""
