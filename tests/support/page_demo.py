"""A status port in this process that serves the page with fixed data of a fictitious proxy, for the screenshots in the docs."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from tunnel.authz.peer import Peer
from tunnel.config.access_suggestion import suggest_access
from tunnel.http.connection import HttpLimits
from tunnel.http.server import HttpService, serve_http
from tunnel.lazy_dataclass import replace
from tunnel.net.listen import Listener
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status.counters import Counters, TunnelGauges
from tunnel.status.histogram import LAG_BOUNDS, Histogram
from tunnel.status.history import INTERVAL, MAX_POINTS, History, HistoryPoint
from tunnel.status.identity_report import IdentityReport, Rotation, TrustDomainReport
from tunnel.status.overview import Overview, encode_overview, summarize_listener
from tunnel.status.page import Page, load_page_files
from tunnel.status.page_events import PageEvents
from tunnel.status.peer_table import PeerKey, PeerTraffic
from tunnel.status.process_state import Identity, ListenerState, ProcessState, TargetState
from tunnel.status.recent_refusals import RecentRefusal

NOW = 1790000000.0  # Unix time of the fictitious server
_ID = "spiffe://example.org"


def _listener(
    name: str, listen: str, target: str, *, is_server: bool = True, opened: int = 0, error: str = ""
) -> ListenerState:
    identity = Identity(f"{_ID}/{name}", int(NOW + 2520), 7)
    targets = (TargetState(target, not error, opened, 14 if error else 0, error),)
    return ListenerState(name, listen, target, is_server, identity, "", opened=opened, targets=targets)


LISTENERS = (
    _listener("orders", "tcp:0.0.0.0:8443", "localhost:8080", opened=212),
    _listener("redis", "tcp:0.0.0.0:6380", "unix:/run/redis/redis.sock", opened=38),
    _listener("metrics", "tcp:0.0.0.0:9443", "localhost:9090", opened=2, error="connection refused"),
    _listener("postgres", "tcp:127.0.0.1:5432", "db.example.org:8443", is_server=False, opened=24),
)
_COUNTS = {  # accepted, relayed, no-matching-rule, timeout, dial failed, bytes forwarded and returned
    "orders": (48_210, 48_166, 31, 13, 0, 1_930_400_000, 12_770_100_000),
    "redis": (3_904, 3_899, 5, 0, 0, 220_500_000, 611_000_000),
    "metrics": (812, 798, 0, 0, 14, 4_100_000, 96_300_000),
    "postgres": (1_377, 1_377, 0, 0, 0, 84_200_000, 1_204_000_000),
}
_PEERS = (  # listener, peer, open, connections, bytes forwarded and returned, their growth per second
    ("orders", "web", 141, 30_811, 1_240_000_000, 9_120_000_000, 61_000, 402_000),
    ("orders", "mobile-gateway", 66, 16_940, 640_000_000, 3_480_000_000, 24_000, 187_000),
    ("postgres", "postgres", 24, 1_377, 84_200_000, 1_204_000_000, 3_800, 51_000),
    ("redis", "web", 31, 3_012, 180_000_000, 502_000_000, 9_000, 22_000),
    ("redis", "session-store", 7, 887, 40_500_000, 109_000_000, 1_100, 2_400),
    ("orders", "reporting", 5, 415, 50_400_000, 170_100_000, 0, 0),
    ("metrics", "prometheus", 2, 798, 4_100_000, 96_300_000, 120, 4_100),
)


def _counters(name: str) -> tuple[Counters, TunnelGauges]:
    accepted, relayed, denied, timeouts, dial_failed, forwarded, returned = _COUNTS[name]
    counters = Counters(accepted=accepted, relayed=relayed, refused=denied + timeouts, dial_failed=dial_failed)
    counters.reasons = {"no-matching-rule": denied, "handshake-timeout": timeouts}
    return counters, TunnelGauges(forwarded=forwarded, returned=returned)


def _refusal(
    age: float, source: str, path: str, reason: str, detail: str, count: int, listener: str = "orders"
) -> RecentRefusal:
    peer = Peer(path, parse_spiffe_id(path if "://" in path else f"{_ID}/{path}")) if path else None
    suggestion = suggest_access(peer, reason, is_server=True)
    name = str(peer.spiffe_id) if peer is not None else ""
    outcome = "dial_failed" if reason == "connection-refused" else "refused"
    return RecentRefusal(
        NOW - age,
        listener,
        True,
        source,
        name,
        outcome,
        reason,
        detail,
        suggestion.flag,
        suggestion.entry,
        count,
        NOW - 3 * age,
    )


REFUSALS = (
    _refusal(9, "10.12.4.19", "cron", "no-matching-rule", "no-matching-rule: no access rule admits the peer", 31),
    _refusal(22, "10.12.7.3", "prometheus", "connection-refused", "tcp:127.0.0.1:9090: connection refused", 14, "metrics"),
    _refusal(
        140,
        "10.12.4.44",
        "spiffe://partner.example/billing",
        "trust-domain-not-accepted",
        "partner.example is not accepted",
        5,
        "redis",
    ),
    _refusal(410, "192.0.2.77", "", "handshake-timeout", "exceeded the connect timeout of 10s", 13),
)


def _identity(name: str, listeners: tuple[str, ...], left: float) -> IdentityReport:
    begins = [NOW - 1080 - 1800 * age for age in range(7)]
    rotations = tuple(Rotation(begin, f"{0x5AC41F00D1 + int(begin):x}", begin + 3600) for begin in begins)
    domains = (
        TrustDomainReport("example.org", 2, NOW + 86400 * 211),
        TrustDomainReport("partner.example", 1, NOW + 86400 * 34),
    )
    return IdentityReport(
        name,
        "SPIFFE Workload API",
        listeners,
        f"{_ID}/{name}",
        rotations[0].serial,
        NOW + left - 3600,
        NOW + left,
        7,
        "",
        rotations,
        domains,
    )


def demo_overview(age: float = 0.0) -> Overview:
    """The overview at so many seconds after the first one."""
    state = ProcessState(listeners=LISTENERS).listening()
    listeners = []
    for one in LISTENERS:
        counters, gauges = _counters(one.name)
        own = [peer for peer in _PEERS if peer[0] == one.name]
        forwarded, returned = (int(age * sum(peer[index] for peer in own)) for index in (6, 7))
        gauges = replace(gauges, forwarded=gauges.forwarded + forwarded, returned=gauges.returned + returned)
        limit = 512 if one.is_server else 0
        limits = {"connection_limit": 500 if one.name == "orders" else 0, "handshake_limit": limit}
        listeners.append(summarize_listener(state, one, counters, gauges, **limits))
    peers = {
        PeerKey(listener, f"{_ID}/{name}"): PeerTraffic(
            total, opened, forwarded + int(age * up), returned + int(age * down), NOW + age - 3 * number
        )
        for number, (listener, name, opened, total, forwarded, returned, up, down) in enumerate(_PEERS)
    }
    lag = Histogram(LAG_BOUNDS).read()
    identities = (_identity("orders", ("orders", "redis", "metrics"), 2520), _identity("postgres", ("postgres",), 610))
    return Overview(
        NOW + age, "proxy-1", "0.1.0", 4711, NOW - 273_600, state, tuple(listeners), identities, peers, REFUSALS, lag, 0
    )


def demo_history() -> History:
    """15 minutes with a burst of connections and one of refusals."""
    history = History()
    for number in range(MAX_POINTS):
        age = (MAX_POINTS - 1 - number) * INTERVAL
        wave = math.sin(number / 9) + 0.5 * math.sin(number / 3.7) + 0.3 * math.sin(number * 1.9)
        burst = math.exp(-((number - 118) ** 2) / 90)
        denied = 4.2 * math.exp(-((number - 140) ** 2) / 14) + (0.2 if number % 37 == 0 else 0)
        opened = round(228 + 16 * wave + 90 * burst)
        handshakes = round(11 + 2 * wave + 34 * burst, 1)
        lag = 0.0006 + 0.0004 * abs(math.sin(number * 2.3)) + 0.005 * burst
        failed = 0.2 if number > 160 and number % 3 == 0 else 0.0
        forwarded, returned = 99_000 * (1 + 0.12 * wave + 0.9 * burst), 668_000 * (1 + 0.1 * wave + 0.7 * burst)
        history.add(HistoryPoint(NOW - age, opened, handshakes, round(denied, 2), failed, forwarded, returned, lag))
    return history


@contextmanager
def served_page(overview: Callable[[float], Overview] = demo_overview) -> Iterator[str]:
    """The URL of a page with fixed data, served on a thread; `overview` gets the seconds since the start."""
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    begun, stop = threading.Event(), []

    async def serve() -> None:
        stopping, start = trio.Event(), trio.current_time()
        token = trio.lowlevel.current_trio_token()
        stop.append(lambda: token.run_sync_soon(stopping.set))

        async def read() -> bytes:
            return encode_overview(overview(round(trio.current_time() - start)))

        page = Page(load_page_files(), PageEvents(read, demo_history()).stream)
        begun.set()
        service = HttpService(page.respond, HttpLimits(header=10.0), print)
        await serve_http(Listener(sock, None), service, stopping=stopping)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    begun.wait()
    try:
        yield f"http://127.0.0.1:{port}/ui/"
    finally:
        stop[0]()
        thread.join()
