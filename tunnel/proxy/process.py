"""Sets up and runs the process: event loop, log, limits, identity sources.

Import the module of an identity source only where it is used: each loads large libraries.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tunnel.config.model import Acme, IdentityConfig, ProcessConfig, WorkloadApi
from tunnel.garbage_collection import freeze_startup_objects
from tunnel.log import Log
from tunnel.net.notify import Notifier
from tunnel.proxy.identity_source import CredentialSink, IdentitySource, name_identity
from tunnel.proxy.process_context import ProcessContext
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.reloader import ReloadSource
from tunnel.proxy.service_task import ServiceTask
from tunnel.proxy.supervisor import ForegroundTask, Supervisor
from tunnel.relay.loop import Loop

if TYPE_CHECKING:  # loaded only when an identity comes from the Workload API
    from tunnel.identity.event_channel import WorkloadStreams


def run_proxy(
    config: ProcessConfig,
    log: Log,
    process_context: ProcessContext,
    reload_source: ReloadSource | None = None,
) -> int:
    """Run a service; return 0 after a complete drain, else 1. Raises TunnelError if it cannot start or continue."""
    with open_loop(log, process_context) as loop:
        notifier, is_reconfigurable = process_context.notifier, reload_source is not None
        proxy = open_proxy(config, loop, log, process_context, notifier, is_reconfigurable=is_reconfigurable)
        return supervise(loop, proxy, ServiceTask(proxy, log), process_context, log, reload_source)


def supervise(
    loop: Loop,
    proxy: Proxy,
    task: ForegroundTask,
    process_context: ProcessContext,
    log: Log,
    reload_source: ReloadSource | None = None,
) -> int:
    """Run the proxy until its foreground task ends; return the exit code. Raises TunnelError if it cannot start or continue."""
    supervisor = Supervisor(proxy, task, process_context, log, reload_source)
    freeze_startup_objects()
    loop.run_trio(supervisor.run)
    return supervisor.exit_code


@contextmanager
def open_loop(log: Log, process_context: ProcessContext) -> Iterator[Loop]:
    """Open the loop of this process and attach the log to it; the log is flushed at the end."""
    _raise_descriptor_limit()
    loop = Loop()
    try:
        log.defer(lambda delay: loop.call_later(delay, log.flush))
        if process_context.access_log is not None:
            process_context.access_log.defer(loop)
        yield loop
    finally:
        if process_context.access_log is not None:
            process_context.access_log.close()
        process_context.log_capture.drain(log.write)
        log.flush()
        process_context.notifier.close()
        loop.close()


def open_proxy(
    config: ProcessConfig,
    loop: Loop,
    log: Log,
    process_context: ProcessContext,
    notifier: Notifier,
    *,
    is_reconfigurable: bool = False,
) -> Proxy:
    """Create the proxy, to be run by the caller; it reports its state to `notifier`."""
    opener = SourceOpener(log, process_context.environ)
    return Proxy(
        config,
        loop,
        log,
        opener.open,
        process_context.inherited,
        notifier,
        holders=process_context.holders,
        access_log=process_context.access_log,
        is_reconfigurable=is_reconfigurable,
    )


class SourceOpener:
    """Opens identity sources; those of one Workload API share its stream."""

    def __init__(self, log: Log, environ: Mapping[str, str]) -> None:
        self._log = log
        self._environ = environ
        self._streams: WorkloadStreams | None = None

    def open(self, identity: IdentityConfig, sink: CredentialSink) -> IdentitySource:
        """Create the source of an identity, to be run by the caller; its log lines have the identity's name, if it has one."""
        source = identity.source
        log = name_identity(self._log, identity)
        if isinstance(source, WorkloadApi):
            return self._open_workload_api(source, identity, sink, log)
        if isinstance(source, Acme):
            return self._open_acme(source, identity, sink, log)
        from tunnel.proxy.file_source import FileSource

        return FileSource(identity, sink, log, self._environ)

    def _open_workload_api(
        self, source: WorkloadApi, identity: IdentityConfig, sink: CredentialSink, log: Log
    ) -> IdentitySource:
        from tunnel.identity.event_channel import WorkloadStreams
        from tunnel.proxy.workload_api_source import WorkloadApiSource

        self._streams = self._streams or WorkloadStreams()
        return WorkloadApiSource(source, identity.revocation, sink, log, self._streams)

    def _open_acme(self, source: Acme, identity: IdentityConfig, sink: CredentialSink, log: Log) -> IdentitySource:
        from tunnel.acme.renewal import open_renewer
        from tunnel.config.acme import complete_acme
        from tunnel.proxy.acme_source import AcmeSource

        open_acme = partial(open_renewer, complete_acme(source, self._environ))
        return AcmeSource(open_acme, identity, sink, log, self._environ)


def _raise_descriptor_limit() -> None:
    """Raise the limit of descriptors to the hard limit, as Go programs do: each connection takes two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
