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
from tunnel.proxy.identity_source import CredentialSink, IdentitySource
from tunnel.proxy.process_context import ProcessContext
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.proxy_runner import ProxyRunner
from tunnel.relay.loop import Loop

_USUALLY = (700, 10, 10)  # new objects, and rounds, between two looks of the collector: the interpreter's own default


def run_proxy(config: ProxyConfig, log: Log, process_context: ProcessContext) -> int:
    """Run until told to stop; 0 after a clean drain, 1 after a cut. Raises TunnelError when it could not start or go on."""
    with open_loop(log, process_context) as loop:
        proxy = open_proxy(config, loop, log, process_context, process_context.notifier)
        supervisor = ProxyRunner(proxy, log, process_context)
        settle()
        loop.run_trio(supervisor.run)
        return supervisor.exit_code


@contextmanager
def open_loop(log: Log, process_context: ProcessContext) -> Iterator[Loop]:
    """The loop of this process, with its log and its limits; what was said last is written at the end."""
    _raise_descriptor_limit()
    loop = Loop()
    try:
        log.defer(lambda delay: loop.call_later(delay, log.flush))
        yield loop
    finally:
        process_context.log_capture.drain(log.write)
        log.flush()
        process_context.notifier.close()
        loop.close()


def settle() -> None:
    """What is here now stays: from now on the collector looks at what comes, as often as it does by default."""
    gc.freeze()
    gc.set_threshold(*_USUALLY)


def open_proxy(config: ProxyConfig, loop: Loop, log: Log, process_context: ProcessContext, notifier: Notifier) -> Proxy:
    """A proxy that begins when it is run; `notifier` is told how it fares."""
    source = partial(_open_source, config, log=log, environ=process_context.environ)
    return Proxy(config, loop, log, source, process_context.inherited, notifier, holders=process_context.holders)


def _open_source(config: ProxyConfig, sink: CredentialSink, log: Log, environ: Mapping[str, str]) -> IdentitySource:
    if isinstance(config.source, WorkloadApi):
        from tunnel.proxy.workload_api_source import WorkloadApiSource

        return WorkloadApiSource(config.source, sink, log)
    if isinstance(config.source, Acme):
        from tunnel.acme.renewal import open_renewer
        from tunnel.config.acme import complete_acme
        from tunnel.proxy.acme_source import AcmeSource

        return AcmeSource(partial(open_renewer, complete_acme(config.source, environ)), config.ca_bundle, sink, log, environ)
    from tunnel.proxy.file_source import FileSource

    return FileSource(config.source, config.ca_bundle, sink, log, environ)


def _raise_descriptor_limit() -> None:
    """To the hard limit, as Go programs do by themselves: each connection takes two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
