"""Counters of a listener, each declared with the metric that exports it.

Plain integers, changed by the event loop's thread only; timers and durations exist only if metrics are served or sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tunnel.lazy_dataclass import dataclass, field, fields, replace
from tunnel.status import metric_definitions as metrics
from tunnel.status.metric_definitions import Metric

if TYPE_CHECKING:  # loaded only if metrics are served or sent
    from tunnel.status.durations import DurationMetric
    from tunnel.status.histogram import ConnectionDurations


@dataclass(slots=True)
class Reloads:
    """Outcomes of the attempts to load something again."""

    succeeded: int = 0
    failed: int = 0
    is_last_successful: bool = True  # also if there was no attempt

    def add(self, other: Reloads) -> None:
        """Add the attempts to load another part."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.is_last_successful = self.is_last_successful and other.is_last_successful

    def count(self, *, is_success: bool) -> None:
        """Count one attempt: the new value is in use now, or the previous one is kept."""
        self.succeeded += is_success
        self.failed += not is_success
        self.is_last_successful = is_success


@dataclass(frozen=True, slots=True)
class WorkloadApiState:
    """The state of the Workload API that our identity comes from."""

    error: str = "no update yet"  # "" while the stream is open and its last update was accepted
    updates: int = 0  # accepted messages
    rejected: int = 0
    skipped: int = 0  # SVIDs of accepted messages that could not be used, and were not needed
    skipped_lists: int = 0  # revocation lists of accepted messages that could not be used
    last_update: int | None = None  # Unix time
    errors: Mapping[str, int] = field(default_factory=dict)  # failed streams by gRPC status code, of which there are 17


@dataclass(frozen=True, slots=True)
class CounterExport:
    """How a field of Counters is exported."""

    metric: Metric
    is_outcome: bool = True  # of a connection: also in the log's last line
    is_failure: bool = False  # of a connection before its relay: also a part of ghostunnel's `accept.error`


_EXPORT = "export"


def _counter(metric: Metric, *, is_outcome: bool = True, is_failure: bool = False) -> int:
    return field(default=0, metadata={_EXPORT: CounterExport(metric, is_outcome, is_failure)})


@dataclass(slots=True)
class Counters:
    """Counts since the start."""

    accepted: int = _counter(metrics.ACCEPT_TOTAL)
    relayed: int = _counter(metrics.ACCEPT_SUCCESS)  # reached the relay
    refused: int = _counter(metrics.OUTCOMES, is_failure=True)  # the handshake failed or no rule admitted the peer
    over_limit: int = _counter(metrics.OUTCOMES, is_failure=True)  # an admitted peer exceeded a limit
    plaintext: int = _counter(metrics.OUTCOMES)  # permitted plain clients
    dial_failed: int = _counter(metrics.OUTCOMES, is_failure=True)  # the target could not be reached
    client_gone: int = _counter(metrics.OUTCOMES, is_failure=True)  # the accepted side closed before the relay
    no_identity: int = _counter(metrics.OUTCOMES, is_failure=True)  # closed because there was no valid identity
    closed_without_data: int = _counter(metrics.OUTCOMES, is_failure=True)  # by the client
    acme_challenge: int = _counter(metrics.OUTCOMES)  # verified by an ACME authority
    wrong_local_user: int = _counter(metrics.OUTCOMES, is_failure=True)  # where only our own user may connect
    close_notify: int = _counter(metrics.OUTCOMES)  # the TLS side ended with close_notify
    fin_without_close_notify: int = _counter(metrics.OUTCOMES)  # the TLS side ended with a FIN between two records
    truncated: int = _counter(metrics.OUTCOMES)  # the TLS side ended inside a record
    crashed: int = _counter(metrics.OUTCOMES)  # ended by a bug of ours
    accept_errors: int = _counter(metrics.ACCEPT_ERROR, is_failure=True)
    other_ends: dict[str, int] = field(default_factory=dict)  # of relays, by the outcome of a CloseReason

    # Not in the log's last line:
    crashed_before_relay: int = _counter(metrics.ACCEPT_ERROR, is_outcome=False, is_failure=True)  # a part of `crashed`
    handshake_timeouts: int = _counter(metrics.ACCEPT_TIMEOUT, is_outcome=False)  # of accepted connections; a part of `refused`
    reaped: int = _counter(metrics.CONN_TIMEOUT, is_outcome=False)  # relays that a time limit has ended
    broken: int = _counter(metrics.CONN_ERROR, is_outcome=False)  # relays that ended with an error
    forwarded: int = 0  # bytes from accepted to dialled sides, of closed connections; see TunnelGauges
    returned: int = 0  # bytes of the other direction
    reasons: dict[str, int] = field(default_factory=dict)  # of connections that did not reach the relay
    withdrawals: dict[str, int] = field(default_factory=dict)  # relays that were closed, by cause
    status_refusals: dict[str, int] = field(default_factory=dict)  # requests that the status port has refused, by reason
    certificates: Reloads = field(default_factory=Reloads)
    policy: Reloads = field(default_factory=Reloads)
    config: Reloads = field(default_factory=Reloads)  # of the configuration file
    workload_api: WorkloadApiState | None = None  # None with another identity source
    handshake: DurationMetric | None = None  # of accepted connections, from accept to the verdict or the failure
    lifetime: DurationMetric | None = None  # of every accepted connection
    durations: ConnectionDurations | None = None  # of this listener

    @property
    def failed(self) -> int:
        """Ghostunnel's `accept.error`: could not be accepted, or was accepted and did not reach the relay."""
        return sum(getattr(self, name) for name, export in EXPORTS.items() if export.is_failure)

    @property
    def handshakes(self) -> int:
        """Handshakes of this listener that succeeded; 0 if metrics are neither served nor sent."""
        return self.durations.handshake.count if self.durations is not None else 0

    def outcomes(self) -> dict[str, int]:
        """The counts by outcome, without those by reason."""
        counts = {name: getattr(self, name) for name, export in EXPORTS.items() if export.is_outcome}
        return counts | self.other_ends

    def summary(self) -> str:
        """Every outcome whose count is not zero, as `name=number`."""
        return " ".join(f"{name}={count}" for name, count in self.outcomes().items() if count)

    def add(self, other: Counters) -> None:
        """Add the counts of another listener, of an identity source or of the process."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _SUMMED_BY_WORD:
            _add_by_word(getattr(self, name), getattr(other, name))
        for name in ("certificates", "policy", "config"):
            getattr(self, name).add(getattr(other, name))
        self.workload_api = _merge(self.workload_api, other.workload_api)
        self.handshake, self.lifetime = self.handshake or other.handshake, self.lifetime or other.lifetime

    def absorb(self, other: Counters) -> None:
        """Add the counts of a part that exists no more; its state, and the timers that it shared, do not count."""
        gone = replace(other, handshake=None, lifetime=None)
        for name in ("certificates", "policy", "config"):
            setattr(gone, name, replace(getattr(gone, name), is_last_successful=True))
        if gone.workload_api is not None:
            gone.workload_api = replace(gone.workload_api, error="", last_update=None)
        self.add(gone)

    def copy(self) -> Counters:
        """The counts of this moment, without outcomes of reloads."""
        made = Counters()
        for name in _SUMMED:
            setattr(made, name, getattr(self, name))
        for name in _SUMMED_BY_WORD:
            setattr(made, name, dict(getattr(self, name)))
        return made

    def add_reason(self, reason: str) -> None:
        """Count a connection that did not reach the relay, by its reason."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def add_withdrawal(self, cause: str) -> None:
        """Count a relay whose peer is no longer admitted, or that was closed because a certificate was lost."""
        self.withdrawals[cause] = self.withdrawals.get(cause, 0) + 1

    def add_status_refusal(self, reason: str) -> None:
        """Count a request that the status port has refused, by its reason."""
        self.status_refusals[reason] = self.status_refusals.get(reason, 0) + 1


def _add_by_word(counts: dict[str, int], others: Mapping[str, int]) -> dict[str, int]:
    for word, count in others.items():
        counts[word] = counts.get(word, 0) + count
    return counts


_SUMMED = tuple(one.name for one in fields(Counters) if one.default == 0)
_SUMMED_BY_WORD = tuple(one.name for one in fields(Counters) if one.default_factory is dict)


def _merge(one: WorkloadApiState | None, other: WorkloadApiState | None) -> WorkloadApiState | None:
    if one is None or other is None:
        return one or other
    return WorkloadApiState(
        error=one.error or other.error,
        updates=one.updates + other.updates,
        rejected=one.rejected + other.rejected,
        skipped=one.skipped + other.skipped,
        skipped_lists=one.skipped_lists + other.skipped_lists,
        last_update=max((at for at in (one.last_update, other.last_update) if at is not None), default=None),
        errors=_add_by_word(dict(one.errors), other.errors),
    )


def total(parts: Iterable[Counters]) -> Counters:
    """The sum of counters; the timers are those of the first that has them, because listeners share them."""
    whole = Counters()
    for part in parts:
        whole.add(part)
    return whole


EXPORTS: dict[str, CounterExport] = {one.name: one.metadata[_EXPORT] for one in fields(Counters) if _EXPORT in one.metadata}


@dataclass(frozen=True, slots=True)
class TunnelGauges:
    """Values that are read when metrics are: of a tunnel, and of the identity that it uses."""

    opened: int = 0
    forwarded: int = 0  # bytes, of open connections too
    returned: int = 0
    generation: int = 0
    expiry: int | None = None  # Unix time
    is_identity_usable: bool = True
    lists_expiry: int | None = None  # Unix time of the first revocation list
    plain_opened: int = 0  # connections of plain clients; a part of `opened`

    def plus(self, other: TunnelGauges) -> TunnelGauges:
        """The gauges of both; the generation is the newest, the expiry the earliest."""
        return TunnelGauges(
            self.opened + other.opened,
            self.forwarded + other.forwarded,
            self.returned + other.returned,
            max(self.generation, other.generation),
            _earliest(self.expiry, other.expiry),
            self.is_identity_usable and other.is_identity_usable,
            _earliest(self.lists_expiry, other.lists_expiry),
            self.plain_opened + other.plain_opened,
        )


@dataclass(frozen=True, slots=True)
class TargetGauges:
    """Values of one target as it is configured; the name of SRV records is one target with several addresses."""

    name: str
    healthy: int  # addresses
    opened: int  # connections, with those that are being established
    failures: int  # since the start


def _earliest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


def timed_counters() -> Counters:
    """Counters with both timers, for a process whose metrics are served or sent."""
    from tunnel.status.durations import LONG, SHORT, DurationMetric

    return Counters(handshake=DurationMetric(SHORT), lifetime=DurationMetric(LONG))
