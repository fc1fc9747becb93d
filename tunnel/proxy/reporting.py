"""Starts the metric reports of one proxy; imported only if the configuration has a target for them."""

from __future__ import annotations

import socket
from functools import partial

import trio

from tunnel.config.model import Metrics
from tunnel.http.client import parse_http_url
from tunnel.log import Log
from tunnel.net.sockets import port_number
from tunnel.status.reporters import GraphiteTarget, open_post_target, report_by_post, report_to_graphite
from tunnel.status.snapshot import MetricsSource


def start_reports(nursery: trio.Nursery, metrics: Metrics, source: MetricsSource, log: Log) -> None:
    """Send reports to the configured targets from now on; raises ConfigError."""
    if metrics.url:
        post = partial(
            report_by_post,
            source,
            open_post_target(parse_http_url(metrics.url), metrics.ca_bundle or None),
            prefix=metrics.prefix,
            hostname=socket.gethostname(),
            interval=metrics.interval,
            log=log.write,
        )
        nursery.start_soon(post)
    if metrics.graphite is not None:
        target = GraphiteTarget(metrics.graphite.host, port_number(metrics.graphite.port))
        nursery.start_soon(
            partial(report_to_graphite, source, target, prefix=metrics.prefix, interval=metrics.interval, log=log.write)
        )
