"""The process of one or several proxies: loop, log, limits.

Knows what is set up before the first event, and which source of credentials the configuration means; must not know what
happens in between. Libraries that only one source needs are loaded for that one.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from tunnel.config.model import Acme, ProxyConfig, WorkloadApi
from tunnel.log import Log
from tunnel.net.notify import Notifier
from tunnel.proxy.feed import Feed, Publisher
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.supervisor import Supervisor
from tunnel.proxy.surroundings import Surroundings
from tunnel.relay.loop import Loop

_USUALLY = (700, 10, 10)  # new objects, and rounds, between two looks of the collector: the interpreter's own default


def run_proxy(config: ProxyConfig, log: Log, surroundings: Surroundings) -> int:
    """Run until told to stop; 0 after a clean drain, 1 after a cut. Raises TunnelError when it could not start or go on."""
    with open_loop(log, surroundings) as loop:
        proxy = open_proxy(config, loop, log, surroundings, surroundings.notifier)
        supervisor = Supervisor(proxy, log, surroundings)
        settle()
        loop.run_trio(supervisor.run)
        return supervisor.exit_code


@contextmanager
def open_loop(log: Log, surroundings: Surroundings) -> Iterator[Loop]:
    """The loop of this process, with its log and its limits; what was said last is written at the end."""
    _raise_descriptor_limit()
    loop = Loop()
    try:
        log.defer(lambda delay: loop.call_later(delay, log.flush))
        yield loop
    finally:
        surroundings.strays.drain(log.write)
        log.flush()
        surroundings.notifier.close()
        loop.close()


def settle() -> None:
    """What is here now stays: from now on the collector looks at what comes, as often as it does by default."""
    gc.freeze()
    gc.set_threshold(*_USUALLY)


def open_proxy(config: ProxyConfig, loop: Loop, log: Log, surroundings: Surroundings, notifier: Notifier) -> Proxy:
    """A proxy that begins when it is run; `notifier` is told how it fares."""
    feed = partial(_open_feed, config, log=log, environ=surroundings.environ)
    return Proxy(config, loop, log, feed, surroundings.inherited, notifier, holders=surroundings.holders)


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
