"""Sends the metric reports of a monitor; imported only if the configuration has a target for them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from tunnel.config.model import Metrics
from tunnel.http.client import parse_http_url
from tunnel.log import Log
from tunnel.net.sockets import port_number
from tunnel.status.reporters import GraphiteTarget, open_post_target, report_by_post, report_to_graphite
from tunnel.status.snapshot import MetricsSource


def run_reports(metrics: Metrics, source: MetricsSource, log: Log) -> Callable[[], Awaitable[None]]:
    """Return a function that sends reports to the configured targets until it is cancelled; raises ConfigError."""
    hostname = socket.gethostname()
    reports: list[Callable[[], Awaitable[None]]] = []
    if metrics.url:
        target = open_post_target(parse_http_url(metrics.url), metrics.ca_bundle or None)
        post = partial(report_by_post, source, target, prefix=metrics.prefix, hostname=hostname)
        reports.append(partial(post, interval=metrics.interval, log=log.write))
    if metrics.graphite is not None:
        graphite = GraphiteTarget(metrics.graphite.host, port_number(metrics.graphite.port))
        report = partial(report_to_graphite, source, graphite, prefix=metrics.prefix)
        reports.append(partial(report, interval=metrics.interval, log=log.write))

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for one in reports:
                nursery.start_soon(one)

    return run
