"""The messages between the parent and its workers. A tunnel is one listener; its number is the same in all processes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from tunnel.authz.peer import Peer
from tunnel.config.model import ListenerConfig
from tunnel.identity.credentials import Credentials
from tunnel.lazy_dataclass import dataclass, field
from tunnel.listener.connection_log import Retry
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log import Category
from tunnel.relay.close_reason import CloseReason
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.status.counters import Counters, Reloads
from tunnel.status.durations import DurationTotals
from tunnel.status.histogram import ConnectionDurations, Histogram
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import PlainSource, PlaintextState
from tunnel.tls.context import Presented
from tunnel.tls.negotiated import TlsParameters

# -- from the parent


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a worker."""

    names_listeners: bool  # log lines about a listener have its name
    omitted: tuple[Category, ...]  # of the log
    has_events: bool  # the events of the access log take the place of the lines about connections
    has_start_events: bool
    is_observed: bool  # someone wants every record, also if no line is written
    drain_limit: float  # seconds for open connections after the end of the parent


@dataclass(frozen=True, slots=True)
class Configure:
    """Create a tunnel, or use another configuration for it."""

    tunnel: int
    config: ListenerConfig
    accepts: bool  # else another worker has the whole of a small limit


class Order(Enum):
    """What needs no more than the number of the tunnel."""

    JUDGE_AGAIN = auto()
    CONFIRM = auto()
    RELEASE = auto()  # stop accepting, and report when all connections have ended
    ABORT_PENDING = auto()  # close connections whose relay has not begun
    ABORT = auto()
    FORGET = auto()  # it has no connections


@dataclass(frozen=True, slots=True)
class TunnelOrder:
    """One order for one tunnel."""

    tunnel: int
    order: Order


@dataclass(frozen=True, slots=True)
class Open:
    """Accept connections from the socket of this message."""

    tunnel: int
    name: str  # the address


@dataclass(frozen=True, slots=True)
class Swap:
    """Use credentials from the next handshake on."""

    tunnel: int
    number: int  # of the generation
    credentials_id: int
    credentials: Credentials | None = field(repr=False)  # None if the worker has them already
    withdrawn_in: float | None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Stop using the identity after so many seconds."""

    tunnel: int
    grace: float


@dataclass(frozen=True, slots=True)
class ShowTargets:
    """Which targets are healthy, and which have failed the last time, by name."""

    tunnel: int
    healthy: Mapping[str, tuple[bool, bool]]


@dataclass(frozen=True, slots=True)
class ShowChallenge:
    """The pending ACME challenge; nothing is presented if there is none."""

    tunnel: int
    domain: str = ""
    presented: Presented | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class UseTimers:
    """Measure durations from now on, together with the other tunnels of this group."""

    tunnel: int
    group: int


@dataclass(frozen=True, slots=True)
class ChangeLog:
    """Omit these lines, and send all records if someone wants them."""

    omitted: tuple[Category, ...]
    is_observed: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Report now."""

    number: int


@dataclass(frozen=True, slots=True)
class ExitWithParent:
    """If the parent ends from now on, exit at once: a second signal has ended the whole process."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Report for the last time and exit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question."""

    number: int
    result: object


# -- from a worker


@dataclass(frozen=True, slots=True)
class Started:
    """The worker can take connections."""


class LogLine(NamedTuple):
    """One line for the log."""

    time: float
    message: str
    category: Category
    fields: str


class ConnectionEvent(NamedTuple):
    """What has happened to a connection; the record is that of its begin or of its end."""

    tunnel: int
    what: ConnectionRecord | Retry
    is_end: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines and events, in their order."""

    entries: list[LogLine | ConnectionEvent]


@dataclass(frozen=True, slots=True)
class TargetResult:
    """A connection attempt has succeeded (no error) or failed."""

    tunnel: int
    target: str
    error: str | None


@dataclass(frozen=True, slots=True)
class AskPolicy:
    """Whether the policy admits the peer with this certificate."""

    number: int
    tunnel: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class AskLimit:
    """Whether the limits per peer permit one more connection; it is counted."""

    number: int
    tunnel: int
    peer: bytes


@dataclass(frozen=True, slots=True)
class ReleasePeer:
    """A connection that the limits per peer have counted has ended."""

    tunnel: int
    peer: bytes


Timers = tuple[DurationTotals, DurationTotals]  # of handshakes and of whole connections


@dataclass(frozen=True, slots=True)
class TunnelReport:
    """The counts of one tunnel in one worker."""

    counters: Counters
    opened: int
    forwarded: int  # bytes, of open connections too
    returned: int
    plain: PlaintextState | None  # of plain clients; None if they are refused
    handshakes: int  # that hold a slot
    peers: tuple[tuple[PeerKey, PeerTraffic], ...]
    targets: Mapping[str, int]  # open connections by target
    timers: int | None  # the group


@dataclass(frozen=True, slots=True)
class Drained:
    """A released tunnel has no connections any more."""

    tunnel: int
    report: TunnelReport


@dataclass(frozen=True, slots=True)
class Report:
    """The counts of one worker."""

    number: int
    tunnels: Mapping[int, TunnelReport]
    timers: Mapping[int, Timers]  # by group
    dropped: int  # lines and events
    crashed: int  # bugs that belong to no tunnel
    lag: Histogram


FROM_WORKER: Final = (
    *(
        Started,
        LogLine,
        Retry,
        ConnectionEvent,
        Batch,
        Drained,
        TargetResult,
        AskPolicy,
        AskLimit,
        ReleasePeer,
        TunnelReport,
        Report,
    ),
    *(ConnectionRecord, ConnectionOutcome, CloseReason, Peer, SpiffeId, TrustDomain, IPv4Address, IPv6Address, TlsParameters),
    *(Category, Counters, Reloads, DurationTotals, ConnectionDurations, Histogram, PeerKey, PeerTraffic),
    *(PlainSource, PlaintextState),
)
