"""Sets up and runs the process: event loop, log, limits, identity sources.

Import the module of an identity source only where it is used: each loads large libraries.
"""

from __future__ import annotations

import gc
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from tunnel.config.model import Acme, IdentityConfig, ProcessConfig, WorkloadApi
from tunnel.log import Log
from tunnel.net.notify import Notifier
from tunnel.proxy.identity_source import CredentialSink, IdentitySource
from tunnel.proxy.process_context import ProcessContext
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.reloader import ReadConfig
from tunnel.proxy.service_task import ServiceTask
from tunnel.proxy.supervisor import ForegroundTask, Supervisor
from tunnel.relay.loop import Loop

_GC_THRESHOLDS = (700, 10, 10)  # the defaults of the interpreter


def run_proxy(
    config: ProcessConfig,
    log: Log,
    process_context: ProcessContext,
    read_config: ReadConfig | None = None,
    watched: Sequence[str] = (),
) -> int:
    """Run a service; return 0 after a complete drain, else 1. Raises TunnelError if it cannot start or continue."""
    with open_loop(log, process_context) as loop:
        proxy = open_proxy(config, loop, log, process_context, process_context.notifier)
        return supervise(loop, proxy, ServiceTask(proxy, log, watched), process_context, log, read_config)


def supervise(
    loop: Loop,
    proxy: Proxy,
    task: ForegroundTask,
    process_context: ProcessContext,
    log: Log,
    read_config: ReadConfig | None = None,
) -> int:
    """Run the proxy until its foreground task ends; return the exit code. Raises TunnelError if it cannot start or continue."""
    supervisor = Supervisor(proxy, task, process_context, log, read_config)
    _freeze_startup_objects()
    loop.run_trio(supervisor.run)
    return supervisor.exit_code


@contextmanager
def open_loop(log: Log, process_context: ProcessContext) -> Iterator[Loop]:
    """Open the loop of this process and attach the log to it; the log is flushed at the end."""
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


def _freeze_startup_objects() -> None:
    """Exclude all present objects from garbage collection, and collect new ones with the default thresholds."""
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def open_proxy(config: ProcessConfig, loop: Loop, log: Log, process_context: ProcessContext, notifier: Notifier) -> Proxy:
    """Create the proxy, to be run by the caller; it reports its state to `notifier`."""
    open_source = partial(_open_source, log=log, environ=process_context.environ)
    return Proxy(config, loop, log, open_source, process_context.inherited, notifier, holders=process_context.holders)


def _open_source(identity: IdentityConfig, sink: CredentialSink, log: Log, environ: Mapping[str, str]) -> IdentitySource:
    source = identity.source
    if isinstance(source, WorkloadApi):
        from tunnel.proxy.workload_api_source import WorkloadApiSource

        return WorkloadApiSource(source, sink, log)
    if isinstance(source, Acme):
        from tunnel.acme.renewal import open_renewer
        from tunnel.config.acme import complete_acme
        from tunnel.proxy.acme_source import AcmeSource

        return AcmeSource(partial(open_renewer, complete_acme(source, environ)), identity.ca_bundle, sink, log, environ)
    from tunnel.proxy.file_source import FileSource

    return FileSource(source, identity.ca_bundle, sink, log, environ)


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors to the hard limit, as Go programs do: each connection takes two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
