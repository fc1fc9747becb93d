"""Every metric there is: its name, its kind and what it teaches.

Knows ghostunnel's names, which scripts and dashboards rely on, and ours; must not know values. Rules for whoever edits this
file: what ghostunnel has keeps its name and its unit (nanoseconds), and no name of ours contains one of ghostunnel's or is
contained in one, since scripts look for them as substrings. The table in `docs/metrics.md` is for operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What a number does in the course of time."""

    COUNTER = auto()  # only grows
    LEVEL = auto()  # is counted up and down
    GAUGE = auto()  # is looked up
    TIMER = auto()  # durations, and how many come in a second
    HISTOGRAM = auto()  # durations


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; of one with a label there are several, and the label's value is the last part of a dotted name."""

    name: str
    kind: Kind
    help: str
    suffix: str = ""  # which Prometheus's conventions want at a name; ghostunnel's are kept as they are
    label: str = ""


# -- ghostunnel's

OPEN = Metric("conn.open", Kind.LEVEL, "Connections that are open now, from accept on.")
ACCEPT_TOTAL = Metric("accept.total", Kind.COUNTER, "Connections accepted.")
ACCEPT_SUCCESS = Metric("accept.success", Kind.COUNTER, "Connections carried: handshake done, peer admitted, target connected.")
ACCEPT_ERROR = Metric(
    "accept.error",
    Kind.COUNTER,
    "Connections that failed before they were carried: not accepted, no handshake, peer refused, target not reached; "
    "health checks that only connect are among them.",
)
ACCEPT_TIMEOUT = Metric(
    "accept.timeout", Kind.COUNTER, "Accepted connections whose TLS handshake took longer than the connect timeout."
)
CONN_TIMEOUT = Metric(
    "conn.timeout", Kind.COUNTER, "Carried connections ended by the close timeout or by their longest life, each counted once."
)
CONN_ERROR = Metric(
    "conn.error", Kind.COUNTER, "Carried connections ended by a failure: not by an end, a reset, a limit or a shutdown."
)
HANDSHAKE = Metric(
    "conn.handshake", Kind.TIMER, "Nanoseconds of each TLS handshake with a client, failed ones too; a server's only."
)
LIFETIME = Metric(
    "conn.lifetime", Kind.TIMER, "Nanoseconds from accept to close of each connection, including those that failed."
)

# -- ghostunnel's about its runtime, as far as they mean something here

MEMORY = Metric("runtime.mem.sys", Kind.GAUGE, "Bytes of memory held from the system: what is resident.")
BLOCKS = Metric("runtime.mem.heap.objects", Kind.GAUGE, "Memory blocks that the interpreter has handed out.")
TASKS = Metric("runtime.goroutines", Kind.GAUGE, "Trio tasks and threads; connections need neither.")
COLLECTIONS = Metric("runtime.mem.gc.num-gc", Kind.COUNTER, "Runs of the garbage collector, of all generations.")
COLLECTING = Metric(
    "runtime.mem.gc.cpu-fraction",
    Kind.GAUGE,
    "Share of the time since the start that the garbage collector has stood in the way.",
)
PAUSES = Metric("runtime.mem.gc.duration", Kind.HISTOGRAM, "Nanoseconds of each run of the garbage collector.")

# -- ours

FORWARDED = Metric(
    "traffic.forwarded", Kind.COUNTER, "Bytes of plaintext from accepted connections to the target.", "_bytes_total"
)
RETURNED = Metric(
    "traffic.returned", Kind.COUNTER, "Bytes of plaintext from the target to accepted connections.", "_bytes_total"
)
REFUSALS = Metric(
    "refusals", Kind.COUNTER, "Peers refused by us, by the reason that the log shows too.", "_total", label="reason"
)
STATUS_REFUSED = Metric(
    "status.refused", Kind.COUNTER, "Requests refused by the status port, by reason.", "_total", label="reason"
)
FAILURES = Metric(
    "failures",
    Kind.COUNTER,
    "TLS handshakes and target connections that failed for another cause than the peer's identity, by reason.",
    "_total",
    label="reason",
)
OUTCOMES = Metric(
    "outcomes",
    Kind.COUNTER,
    "Connections by what became of them, in the words of the log's last line; one may have several.",
    "_total",
    label="outcome",
)
EXPIRY = Metric("certificate.expiry", Kind.GAUGE, "Unix time at which the certificate in use ends.", "_timestamp_seconds")
GENERATION = Metric(
    "generation.number", Kind.GAUGE, "Number of the identity in use, one more with each update; 0 before the first."
)
IDENTITY_USABLE = Metric(
    "identity.usable",
    Kind.GAUGE,
    "Whether new connections can be served with our identity: 0 before the first, after it has expired or been withdrawn.",
)
WORKLOAD_API_OK = Metric(
    "workload-api.ok",
    Kind.GAUGE,
    "Whether the Workload API serves us: 0 while the stream is down, its update is rejected or a rotation is overdue.",
)
WORKLOAD_API_LAST = Metric(
    "workload-api.last-update", Kind.GAUGE, "Unix time of the newest accepted update of the Workload API.", "_timestamp_seconds"
)
WORKLOAD_API_UPDATES = Metric("workload-api.updates", Kind.COUNTER, "Updates of the Workload API accepted.", "_total")
WORKLOAD_API_REJECTED = Metric("workload-api.rejected", Kind.COUNTER, "Updates of the Workload API rejected.", "_total")
LEFT_OUT = Metric(
    "workload-api.left-out", Kind.COUNTER, "SVIDs in accepted updates that could not be used and were left out.", "_total"
)
RELOAD_SUCCESSES = Metric("reload.successes", Kind.COUNTER, "Reloads and updates taken into use.", "_total", label="what")
RELOAD_FAILURES = Metric(
    "reload.failures", Kind.COUNTER, "Reloads and updates that failed; the last good state stayed.", "_total", label="what"
)
RELOAD_WELL = Metric(
    "reload.last-successful", Kind.GAUGE, "Whether the last reload or update was taken into use.", label="what"
)
