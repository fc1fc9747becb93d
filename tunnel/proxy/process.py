"""The process of one proxy: loop, log, limits, exit code.

Knows what is set up before the first event, and which source of credentials the configuration means; must not know what
happens in between. Libraries that only one source needs are loaded for that one.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Mapping
from functools import partial

from tunnel.config.model import Acme, ProxyConfig, WorkloadApi
from tunnel.log import Log
from tunnel.proxy.feed import Feed, Publisher
from tunnel.proxy.supervisor import Supervisor
from tunnel.proxy.surroundings import Surroundings
from tunnel.relay.loop import Loop


def run_proxy(config: ProxyConfig, log: Log, surroundings: Surroundings) -> int:
    """Run until told to stop; 0 after a clean drain, 1 after a cut. Raises TunnelError when it could not start or go on."""
    _raise_descriptor_limit()
    loop = Loop()
    environ = surroundings.environ
    try:
        log.defer(lambda delay: loop.call_later(delay, log.flush))
        supervisor = Supervisor(config, loop, log, lambda publisher: _open_feed(config, publisher, log, environ), surroundings)
        gc.freeze()  # what is here now stays: later collections need not look at it
        loop.run_trio(supervisor.run)
        return supervisor.exit_code
    finally:
        surroundings.strays.drain(log.write)
        log.flush()
        surroundings.notifier.close()
        loop.close()


def _open_feed(config: ProxyConfig, publisher: Publisher, log: Log, environ: Mapping[str, str]) -> Feed:
    if isinstance(config.source, WorkloadApi):
        from tunnel.proxy.workload_feed import WorkloadFeed

        return WorkloadFeed(config.source, publisher, log)
    if isinstance(config.source, Acme):
        from tunnel.acme.keeper import open_keeper
        from tunnel.config.acme import complete_acme
        from tunnel.proxy.acme_feed import AcmeFeed

        return AcmeFeed(partial(open_keeper, complete_acme(config.source, environ)), config.ca_bundle, publisher, log, environ)
    from tunnel.proxy.disk_feed import DiskFeed

    return DiskFeed(config.source, config.ca_bundle, publisher, log, environ)


def _raise_descriptor_limit() -> None:
    """To the hard limit, as Go programs do by themselves: each connection takes two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
