"""Definitions of all metrics: name, kind and help text. A new metric of a counter is a line here and one in `counters.py`.

What ghostunnel has keeps its name and its unit (nanoseconds). No name of ours contains one of ghostunnel's or is contained in
one, because scripts search for them as substrings.
"""

from __future__ import annotations

from enum import Enum, auto

from tunnel.lazy_dataclass import dataclass


class Kind(Enum):
    """How a value changes in the course of time."""

    COUNTER = auto()  # only increases
    LEVEL = auto()  # is counted up and down; ghostunnel shows it as a counter
    GAUGE = auto()  # is read at the moment of a snapshot
    TIMER = auto()  # durations, and their number per second
    HISTOGRAM = auto()  # durations


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; with a label it has a reading per value of the label, which is the last part of the dotted name."""

    name: str
    kind: Kind
    help: str
    suffix: str = ""  # for Prometheus, by its conventions; ghostunnel's names have none
    label: str = ""

    @property
    def last_word(self) -> str:
        """The part of the name after the last dot."""
        return self.name.rpartition(".")[2]


# -- ghostunnel's

OPEN = Metric("conn.open", Kind.LEVEL, "Connections that are open now, from accept on.")
ACCEPT_TOTAL = Metric("accept.total", Kind.COUNTER, "Connections accepted.")
ACCEPT_SUCCESS = Metric("accept.success", Kind.COUNTER, "Connections relayed: peer authorized, target connected.")
ACCEPT_ERROR = Metric(
    "accept.error",
    Kind.COUNTER,
    "Connections that failed before the relay: accept error, handshake failed, peer refused, target not reached. "
    "Includes health checks that only connect.",
)
ACCEPT_TIMEOUT = Metric(
    "accept.timeout", Kind.COUNTER, "Accepted connections whose TLS handshake took longer than the connect timeout."
)
CONN_TIMEOUT = Metric(
    "conn.timeout", Kind.COUNTER, "Relayed connections ended by the close timeout or the maximum lifetime, each counted once."
)
CONN_ERROR = Metric(
    "conn.error", Kind.COUNTER, "Relayed connections ended by an error: not by EOF, a reset, a time limit or a shutdown."
)
HANDSHAKE = Metric(
    "conn.handshake", Kind.TIMER, "Nanoseconds of each TLS handshake with a client, including failed ones; server mode only."
)
LIFETIME = Metric("conn.lifetime", Kind.TIMER, "Nanoseconds from accept to close of each connection, including failed ones.")

# -- ghostunnel's about its runtime, as far as Python has them

MEMORY = Metric("runtime.mem.sys", Kind.GAUGE, "Resident memory in bytes.")
BLOCKS = Metric("runtime.mem.heap.objects", Kind.GAUGE, "Memory blocks allocated by the interpreter.")
TASKS = Metric("runtime.goroutines", Kind.GAUGE, "Trio tasks and threads; connections are neither.")
COLLECTIONS = Metric("runtime.mem.gc.num-gc", Kind.COUNTER, "Runs of the garbage collector, of all generations.")
COLLECTING = Metric(
    "runtime.mem.gc.cpu-fraction",
    Kind.GAUGE,
    "Fraction of the time since the start that was spent in the garbage collector.",
)
PAUSES = Metric("runtime.mem.gc.duration", Kind.HISTOGRAM, "Nanoseconds of each run of the garbage collector.")

# -- ours

FORWARDED = Metric(
    "traffic.forwarded", Kind.COUNTER, "Bytes of plaintext from accepted connections to the target.", "_bytes_total"
)
RETURNED = Metric(
    "traffic.returned", Kind.COUNTER, "Bytes of plaintext from the target to accepted connections.", "_bytes_total"
)
PLAINTEXT_OPEN = Metric(
    "plaintext.open", Kind.GAUGE, "Open connections of plain TCP clients, which a listener permits during a migration."
)
REFUSALS = Metric(
    "refusals",
    Kind.COUNTER,
    "Peers and plain clients refused by us, by reason; the log shows the same reason.",
    "_total",
    label="reason",
)
WITHDRAWALS = Metric(
    "withdrawals",
    Kind.COUNTER,
    "Open connections that we closed because the peer is no longer admitted or a certificate was lost, by reason.",
    "_total",
    label="reason",
)
STATUS_REFUSED = Metric(
    "status.refused", Kind.COUNTER, "Requests refused by the status port, by reason.", "_total", label="reason"
)
FAILURES = Metric(
    "failures",
    Kind.COUNTER,
    "TLS handshakes and target connections that failed for a cause other than the peer's identity, by reason.",
    "_total",
    label="reason",
)
OUTCOMES = Metric(
    "outcomes",
    Kind.COUNTER,
    "Connections by outcome, as in the log's last line; one connection may have several outcomes.",
    "_total",
    label="outcome",
)
EXPIRY = Metric("certificate.expiry", Kind.GAUGE, "Unix time at which the certificate in use expires.", "_timestamp_seconds")
LISTS_EXPIRY = Metric(
    "revocation.expiry", Kind.GAUGE, "Unix time at which the first revocation list expires.", "_timestamp_seconds"
)
GENERATION = Metric(
    "generation.number", Kind.GAUGE, "Number of the identity in use, increased with each update; 0 before the first."
)
IDENTITY_USABLE = Metric(
    "identity.usable",
    Kind.GAUGE,
    "Whether our identity can be used for new connections: 0 before the first, and after it has expired or been withdrawn.",
)
WORKLOAD_API_OK = Metric(
    "workload-api.ok",
    Kind.GAUGE,
    "Whether the Workload API stream is healthy: 0 while it is down, its update is rejected or a rotation is overdue.",
)
WORKLOAD_API_LAST = Metric(
    "workload-api.last-update", Kind.GAUGE, "Unix time of the last accepted Workload API update.", "_timestamp_seconds"
)
WORKLOAD_API_UPDATES = Metric("workload-api.updates", Kind.COUNTER, "Workload API updates accepted.", "_total")
WORKLOAD_API_REJECTED = Metric("workload-api.rejected", Kind.COUNTER, "Workload API updates rejected.", "_total")
SKIPPED = Metric("workload-api.skipped", Kind.COUNTER, "SVIDs in accepted updates that were invalid and skipped.", "_total")
SKIPPED_LISTS = Metric(
    "workload-api.skipped-lists", Kind.COUNTER, "Revocation lists in accepted updates that could not be used.", "_total"
)
RELOAD_SUCCESSES = Metric("reload.successes", Kind.COUNTER, "Reloads and updates that succeeded.", "_total", label="what")
RELOAD_FAILURES = Metric(
    "reload.failures", Kind.COUNTER, "Reloads and updates that failed; the previous state was kept.", "_total", label="what"
)
RELOAD_LAST_SUCCESSFUL = Metric(
    "reload.last-successful", Kind.GAUGE, "Whether the last reload or update succeeded.", label="what"
)

# -- ours by listener and by target: families of their own, so that a sum over a family counts nothing twice

LISTENER_ACCEPTED = Metric("listener.accepted", Kind.COUNTER, "Connections accepted by a listener.", "_total")
LISTENER_RELAYED = Metric("listener.relayed", Kind.COUNTER, "Connections relayed by a listener.", "_total")
LISTENER_FAILED = Metric(
    "listener.failed", Kind.COUNTER, "Connections of a listener that failed before the relay, see accept.error.", "_total"
)
LISTENER_CONNECTIONS = Metric("listener.connections", Kind.GAUGE, "Connections of a listener that are open now.")
LISTENER_PLAINTEXT = Metric(
    "listener.plaintext-connections", Kind.GAUGE, "Open connections of plain clients of a listener, from the first one on."
)
LISTENER_FORWARDED = Metric(
    "listener.forwarded", Kind.COUNTER, "Bytes of plaintext from the clients of a listener to its targets.", "_bytes_total"
)
LISTENER_RETURNED = Metric(
    "listener.returned", Kind.COUNTER, "Bytes of plaintext from the targets of a listener to its clients.", "_bytes_total"
)
LISTENER_OUTCOMES = Metric(
    "listener.outcomes", Kind.COUNTER, "Connections of a listener by outcome, from the first one on.", "_total", label="outcome"
)
LISTENER_REFUSALS = Metric(
    "listener.refusals", Kind.COUNTER, "Peers refused by a listener by reason, from the first one on.", "_total", label="reason"
)
LISTENER_FAILURES = Metric(
    "listener.failures",
    Kind.COUNTER,
    "TLS handshakes and target connections of a listener that failed, by reason, from the first one on.",
    "_total",
    label="reason",
)
LISTENER_WITHDRAWALS = Metric(
    "listener.withdrawals",
    Kind.COUNTER,
    "Open connections of a listener that we closed, by reason, from the first one on; see withdrawals.",
    "_total",
    label="reason",
)
LISTENER_USABLE = Metric(
    "listener.identity-usable", Kind.GAUGE, "Whether the identity of a listener can be used for new connections."
)
LISTENER_EXPIRY = Metric(
    "listener.certificate-expiry", Kind.GAUGE, "Unix time at which the certificate of a listener expires.", "_timestamp_seconds"
)
TARGET_HEALTHY = Metric(
    "listener.target.healthy", Kind.GAUGE, "Healthy addresses of a target: 0 or 1, or more for the name of SRV records."
)
TARGET_CONNECTIONS = Metric(
    "listener.target.connections", Kind.GAUGE, "Connections to a target, with those that are being established."
)
TARGET_FAILURES = Metric(
    "listener.target.failures", Kind.COUNTER, "Failed connection attempts to a target, and failed health checks.", "_total"
)

METRICS = tuple(one for one in list(globals().values()) if isinstance(one, Metric))  # in the order above
