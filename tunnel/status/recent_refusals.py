"""The most recent connections that were refused or failed, with a count of equal ones, in bounded memory."""

from __future__ import annotations

from tunnel.lazy_dataclass import dataclass, replace

MAX_REFUSALS = 100  # different ones; one more evicts the one that occurred longest ago


@dataclass(frozen=True, slots=True)
class RecentRefusal:
    """Connections that did not reach the relay for the same reason; every text is printable and bounded."""

    time: float  # Unix time of the last one
    listener: str
    is_server: bool
    source: str  # without the port: an IP address, an IPv6 /64 prefix, or the name of a Unix socket
    peer: str  # its name; "" if it has shown none
    outcome: str  # `refused`, `dial_failed`, ...
    reason: str
    detail: str  # of the last one
    flag: str = ""  # the flag that would admit the peer; "" if no access rule would
    entry: str = ""  # the same as an entry of an access list in a configuration file
    count: int = 1
    first_time: float = 0.0  # Unix time of the first one that is counted


class RecentRefusals:
    """Keeps the most recent refusals."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str, str], RecentRefusal] = {}  # in the order of their last occurrence

    def add(self, refusal: RecentRefusal) -> None:
        """Add one refusal, or count it if an equal one is known."""
        key = refusal.listener, refusal.source, refusal.peer, refusal.reason
        before = self._kept.pop(key, None)
        if before is not None:
            last = max(before.time, refusal.time)  # those of several workers are not in order
            refusal = replace(refusal, time=last, count=before.count + 1, first_time=min(before.first_time, refusal.time))
        else:
            refusal = replace(refusal, first_time=refusal.time)
            if len(self._kept) >= MAX_REFUSALS:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = refusal

    def newest_first(self) -> tuple[RecentRefusal, ...]:
        """All that are kept."""
        return tuple(reversed(self._kept.values()))
