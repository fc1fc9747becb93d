"""Reads what the metrics under our own names are made from; on the thread of the event loop, so it only copies."""

from __future__ import annotations

import platform

from tunnel import __version__
from tunnel.proxy.identity_feed import IdentityFeed
from tunnel.proxy.monitor_scope import MonitorScope
from tunnel.proxy.proxy_listener import ProxyListener
from tunnel.status.busy_peers import BusyPeers
from tunnel.status.identity_report import IdentityReport
from tunnel.status.metric_facts import LimitUse, ListenerFacts, ProcessFacts, merge_trust_domains
from tunnel.tls.openssl import VERSION as OPENSSL_VERSION

_VERSIONS = {"version": __version__, "python": platform.python_version(), "openssl": OPENSSL_VERSION}


class FactsReader:
    """Reads the facts of one monitor; it knows which peers have series."""

    def __init__(self, scope: MonitorScope, peers: int) -> None:
        self._scope = scope
        self._busy_peers = BusyPeers(peers)

    def read(self) -> ProcessFacts:
        """The facts of this moment."""
        scope, process = self._scope, self._scope.process
        listeners = scope.listeners()
        feeds = {id(feed): feed for feed in map(scope.feed_of, listeners)}
        reports = {key: feed.report() for key, feed in feeds.items()}
        state = scope.state()
        ready = {one.name: state.is_listener_ready(one) for one in state.listeners}
        status_port = scope.status_port
        return ProcessFacts(
            is_ready=state.is_ready,
            versions=_VERSIONS,
            counters=scope.counters(),
            listeners=tuple(
                _read_listener(one, scope.feed_of(one), reports[id(scope.feed_of(one))], is_ready=ready.get(one.name, False))
                for one in listeners
            ),
            peers=self._busy_peers.read(scope.peers(), [one.name for one in listeners]),
            trust_domains=merge_trust_domains(list(reports.values())),
            lag=scope.loop_lag(),
            dropped_lines=process.dropped_lines(),
            workers=process.data_plane.count,
            worker_restarts=process.data_plane.restarts,
            status_port=LimitUse("", status_port.count, status_port.limit) if status_port is not None else LimitUse("", 0, 0),
        )


def _read_listener(listener: ProxyListener, feed: IdentityFeed, report: IdentityReport, *, is_ready: bool) -> ListenerFacts:
    tunnel, config, counters = listener.tunnel, listener.config, listener.tunnel.read_counters()
    limits = [LimitUse("connections", len(tunnel), config.max_concurrent_conns)]
    if config.is_server and config.max_handshakes:  # without a limit they are not counted
        limits.append(LimitUse("handshakes", tunnel.handshakes_in_progress, config.max_handshakes))
    return ListenerFacts(
        name=listener.name,
        is_server=config.is_server,
        is_ready=is_ready,
        counters=counters.copy(),
        gauges=tunnel.gauges(),
        targets=tunnel.targets.gauges(),
        limits=tuple(limits),
        durations=counters.durations.read() if counters.durations is not None else None,
        identity=report,
        workload_api=feed.counters.workload_api,
        permits_plaintext=config.plaintext is not None,
    )
