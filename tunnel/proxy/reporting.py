"""Metrics that are sent, for one proxy.

Knows where the configuration wants them; must not know what they are. Imported only when there is such a place.
"""

from __future__ import annotations

import socket
from functools import partial
from urllib.parse import urlsplit

import trio

from tunnel.config.model import Metrics
from tunnel.log import Log
from tunnel.net.sockets import port_number
from tunnel.status.reporters import GraphiteTarget, PostTarget, open_trust, report_by_post, report_to_graphite
from tunnel.status.snapshot import MetricsSource


def start_reports(nursery: trio.Nursery, metrics: Metrics, ca_bundle: str, source: MetricsSource, log: Log) -> None:
    """Send reports from now on, wherever they are wanted; raises ConfigError."""
    if metrics.url:
        post = partial(
            report_by_post,
            source,
            _post_target(metrics.url, ca_bundle),
            prefix=metrics.prefix,
            hostname=socket.gethostname(),
            interval=metrics.interval,
            say=log.write,
        )
        nursery.start_soon(post)
    if metrics.graphite is not None:
        target = GraphiteTarget(metrics.graphite.host, port_number(metrics.graphite.port))
        nursery.start_soon(
            partial(report_to_graphite, source, target, prefix=metrics.prefix, interval=metrics.interval, say=log.write)
        )


def _post_target(url: str, ca_bundle: str) -> PostTarget:
    parts = urlsplit(url)
    context = open_trust(ca_bundle or None) if parts.scheme == "https" else None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return PostTarget(parts.hostname or "", parts.port or (443 if context else 80), path, context)
