"""What has happened, in numbers.

Knows the names of the counts and how ghostunnel's follow from ours; must not know how they are shown. Plain integers, owned
by the loop's thread; the two timers are there only when somebody will ask for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded only when somebody will ask for them
    from tunnel.status.durations import DurationMetric


@dataclass(slots=True)
class Reloads:
    """What became of each attempt to take something new into use."""

    succeeded: int = 0
    failed: int = 0
    is_well: bool = True  # the last one succeeded, or none was tried

    def note(self, *, is_well: bool) -> None:
        """One more attempt: what was asked for is in use now, or the last good one stays."""
        self.succeeded += is_well
        self.failed += not is_well
        self.is_well = is_well


@dataclass(frozen=True, slots=True)
class WorkloadApiState:
    """The state of the Workload API that our identity comes from."""

    error: str = "no update yet"  # "" while the stream is open and brings what it should
    updates: int = 0  # messages that were accepted
    rejected: int = 0
    left_out: int = 0  # SVIDs of accepted messages that could not be used, and were not needed
    last_update: int | None = None  # Unix time


@dataclass(slots=True)
class Counters:
    """Counts since the start, by what became of a connection."""

    accepted: int = 0
    carried: int = 0  # reached the relay
    refused: int = 0  # the handshake failed or no rule admitted the peer
    dial_failed: int = 0  # the target could not be reached
    client_gone: int = 0  # the accepted side vanished before the relay
    no_identity: int = 0  # closed at once for want of a valid identity
    closed_without_data: int = 0  # closed by the other side without a byte
    acme_challenge: int = 0  # looked at by an ACME authority
    wrong_local_user: int = 0  # of another user of this machine, where only our own may connect
    close_notify: int = 0  # the TLS side ended with close_notify
    fin_without_close_notify: int = 0  # the TLS side ended with a FIN between two records
    truncated: int = 0  # the TLS side ended inside a record
    crashed: int = 0  # ended by a bug of ours
    accept_errors: int = 0
    other_ends: dict[str, int] = field(default_factory=dict)  # by the log's word for how a carried connection ended

    # What the log's last line leaves out.
    handshake_timeouts: int = 0  # of accepted connections; among the refused
    reaped: int = 0  # carried connections that a limit on time has ended
    broken: int = 0  # carried connections that ended in an error: not by an end, a reset, a limit or our own end
    forwarded: int = 0  # bytes from accepted to dialled sides, of connections that are over
    returned: int = 0  # and the other way
    reasons: dict[str, int] = field(default_factory=dict)  # of connections that were not carried, by the log's word
    status_refusals: dict[str, int] = field(default_factory=dict)  # requests that the status port has refused, by reason
    certificates: Reloads = field(default_factory=Reloads)
    policy: Reloads = field(default_factory=Reloads)
    workload_api: WorkloadApiState | None = None  # None with another source of identity
    handshake: DurationMetric | None = None  # of accepted connections, from accept to the verdict or the failure
    lifetime: DurationMetric | None = None  # of every accepted connection

    @property
    def failed(self) -> int:
        """Ghostunnel's `accept.error`: could not be accepted, or was and did not reach the relay."""
        return (
            self.accept_errors
            + self.refused
            + self.dial_failed
            + self.client_gone
            + self.no_identity
            + self.closed_without_data
            + self.wrong_local_user
        )

    def outcomes(self) -> dict[str, int]:
        """The counts by outcome, without those by reason."""
        return {name: getattr(self, name) for name in _OUTCOMES} | {
            name.replace("-", "_"): count for name, count in self.other_ends.items()
        }

    def summary(self) -> str:
        """Every outcome whose count is not zero, as `name=number`."""
        return " ".join(f"{name}={count}" for name, count in self.outcomes().items() if count)

    def add_reason(self, reason: str) -> None:
        """One more that was not carried, and why."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def add_status_refusal(self, reason: str) -> None:
        """One more request that the status port has refused, and why."""
        self.status_refusals[reason] = self.status_refusals.get(reason, 0) + 1


_OUTCOMES = tuple(
    (
        "accepted carried refused dial_failed client_gone no_identity closed_without_data acme_challenge wrong_local_user "
        "close_notify fin_without_close_notify truncated crashed accept_errors"
    ).split()
)


@dataclass(frozen=True, slots=True)
class TunnelGauges:
    """What is not counted but looked up: at a tunnel, and at the identity that it uses."""

    opened: int = 0
    forwarded: int = 0  # bytes, of open connections too
    returned: int = 0
    generation: int = 0
    expiry: int | None = None  # Unix time
    is_identity_usable: bool = True


def timed_counters() -> Counters:
    """For when the metrics are shown somewhere: with both timers."""
    from tunnel.status.durations import LONG, SHORT, DurationMetric

    return Counters(handshake=DurationMetric(SHORT), lifetime=DurationMetric(LONG))
