"""What has happened, in numbers.

Knows the names of the counts; must not know how they are shown. Plain integers, owned by the loop's thread.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Counters:
    """Counts since the start, by what became of a connection."""

    accepted: int = 0
    carried: int = 0  # reached the relay
    refused: int = 0  # the handshake failed or no rule admitted the peer
    undialled: int = 0  # the target could not be reached
    gone: int = 0  # the accepted side vanished before the relay
    unserved: int = 0  # closed at once for want of a valid identity
    probes: int = 0  # closed by the other side without a byte
    clean_ends: int = 0  # the TLS side ended with close_notify
    bare_fins: int = 0  # the TLS side ended with a FIN between two records
    truncated: int = 0  # the TLS side ended inside a record
    crashed: int = 0  # ended by a bug of ours
    accept_errors: int = 0
    other_ends: dict[str, int] = field(default_factory=dict)  # by the log's word for how a carried connection ended

    def summary(self) -> str:
        """Every count that is not zero, as `name=number`."""
        counts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "other_ends"}
        counts |= {name.replace("-", "_"): count for name, count in self.other_ends.items()}
        return " ".join(f"{name}={count}" for name, count in counts.items() if count)
