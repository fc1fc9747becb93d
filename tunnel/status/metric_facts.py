"""What the metrics under our own names are made from: the facts about the process at one moment, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunnel.config.model import direction_of
from tunnel.lazy_dataclass import dataclass
from tunnel.status.busy_peers import PeerSeries
from tunnel.status.counters import Counters, TargetGauges, TunnelGauges, WorkloadApiState
from tunnel.status.histogram import DurationReadings, HistogramReading
from tunnel.status.identity_report import IdentityReport, TrustDomainReport


@dataclass(frozen=True, slots=True)
class LimitUse:
    """How much of a limit is used; `most` is 0 if there is no limit."""

    name: str
    used: int
    most: int


@dataclass(frozen=True, slots=True)
class ListenerFacts:
    """One listener; what is None does not exist, and has no series."""

    name: str
    is_server: bool
    is_ready: bool
    counters: Counters  # a copy
    gauges: TunnelGauges
    targets: tuple[TargetGauges, ...]
    limits: tuple[LimitUse, ...]
    durations: DurationReadings | None
    identity: IdentityReport
    workload_api: WorkloadApiState | None
    permits_plaintext: bool = False

    @property
    def direction(self) -> str:
        """The label value: `inbound` for a server, `outbound` for a client."""
        return direction_of(is_server=self.is_server)


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """The process and the listeners that a status port is about."""

    is_ready: bool
    versions: Mapping[str, str]  # of `version`, `python` and `openssl`
    counters: Counters  # the sums of the listeners, of their identity sources and of the process
    listeners: tuple[ListenerFacts, ...]
    peers: Sequence[PeerSeries]
    trust_domains: Sequence[TrustDomainReport]
    lag: HistogramReading
    dropped_lines: Mapping[str, int]  # by log
    status_port: LimitUse
    workers: int  # that run; 0 if the process serves connections itself
    worker_restarts: int  # of workers that have died


def merge_trust_domains(identities: Sequence[IdentityReport]) -> list[TrustDomainReport]:
    """The trust domains of all identities; of two bundles of one trust domain the smallest number and the first expiry."""
    merged: dict[str, TrustDomainReport] = {}
    for bundle in (bundle for identity in identities for bundle in identity.trust_domains):
        other = merged.get(bundle.name, bundle)
        ends = [end for end in (bundle.expires, other.expires) if end is not None]
        merged[bundle.name] = TrustDomainReport(
            bundle.name, min(bundle.authorities, other.authorities), min(ends, default=None)
        )
    return list(merged.values())
