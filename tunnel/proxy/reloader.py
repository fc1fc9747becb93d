"""Reloads the configuration file, the certificates and the policies of the process, on request and periodically."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

import trio

from tunnel.config.model import ProcessConfig
from tunnel.errors import TunnelError, identity_errors
from tunnel.lazy_dataclass import dataclass, field
from tunnel.log import Log
from tunnel.proxy.confinement import needs_of
from tunnel.proxy.file_watcher import Signature, sign_files, watch_files
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.reconfiguration import reconfigure
from tunnel.proxy.reload_request import ReloadRequest
from tunnel.sandbox.landlock import explain_denial
from tunnel.status.process_state import Reload, join_distinct

ReadConfig = Callable[[], ProcessConfig]  # blocking; raises ConfigError


@dataclass(frozen=True, slots=True)
class ReloadSource:
    """Where a reload reads the configuration."""

    read: ReadConfig
    watched: Mapping[str, Signature] = field(default_factory=dict)
    # Files and directories with their signatures before they were read: their changes, and those of files that they name,
    # cause a reload.


class Reloader:
    """Runs one reload at a time; requests during a reload cause one more after it.

    With a configuration file, everything is reloaded as a whole: after an error nothing changes. On a command line each part is
    reloaded on its own.
    """

    def __init__(self, proxy: Proxy, log: Log, source: ReloadSource | None = None) -> None:
        self._proxy = proxy
        self._log = log
        self._source = source
        self._watched = {**source.watched, **sign_files(needs_of(proxy.config).files)} if source and source.watched else {}
        if source is not None:
            proxy.state_reporter.show_file()

    async def run(self) -> None:
        """Reload at each request, periodically, and when watched files change, until cancelled."""
        await self._proxy.is_listening.wait()
        async with trio.open_nursery() as nursery:
            if self._source is not None and self._source.watched:
                list_files = partial(self._list_files, self._source.watched)
                nursery.start_soon(watch_files, list_files, self._reload_changed_files, self._watched)
            await self._reload_at_requests()

    def _reload_changed_files(self) -> None:
        self._log.info("watched files have changed, reloading")
        self._proxy.request_reload()

    def _list_files(self, watched: Iterable[str]) -> list[str]:
        return [*watched, *needs_of(self._proxy.config).files]

    async def _reload_at_requests(self) -> None:
        while True:
            request = self._proxy.reload_request
            with trio.move_on_after(self._proxy.config.timed_reload or math.inf):
                await request.requested.wait()
            self._proxy.reload_request = ReloadRequest()
            outcome = await self.reload()
            request.error = join_distinct(filter(None, (outcome.certificates, outcome.policy, outcome.config)))
            request.done.set()

    async def reload(self) -> Reload:
        """Reload once."""
        if self._proxy.shared.access_log is not None:
            self._proxy.shared.access_log.reopen()
        self._proxy.state_reporter.show_reloading()
        if self._source is not None:
            outcome = await self._reload_config(self._source.read)
        else:
            certificates = await self._reload_certificates()
            outcome = Reload(time.time_ns(), certificates, await self._reload_policies())
        if not outcome.config:  # an error has said that everything is as before
            self._log.info("reloading configuration complete")
        self._proxy.state_reporter.show_reloaded(outcome)
        return outcome

    async def _reload_config(self, read_config: ReadConfig) -> Reload:
        async def read_and_apply() -> None:
            began = trio.current_time()
            config = await trio.to_thread.run_sync(read_config, abandon_on_cancel=True)
            if self._watched:
                await self._watch_new_files(config)
            before = self._proxy.config
            changes = await reconfigure(self._proxy, config)
            self._log.change_quiet(config.log.omitted)
            self._proxy.data_plane.share_log()
            for warning in (*config.warnings, *_late_changes(before, config)):
                if warning not in before.warnings:
                    self._log.write(f"warning: {warning}")
            self._log.info(f"configuration changed: {changes} seconds={trio.current_time() - began:.3f}")

        error = await self._reload_part("error reloading the configuration file", read_and_apply)
        self._proxy.counters.config.count(is_success=not error)
        return Reload(time.time_ns(), None, None, error)

    async def _watch_new_files(self, config: ProcessConfig) -> None:
        """Sign the files that were not watched until now, before they are read."""
        new = [path for path in needs_of(config).files if path not in self._watched]
        self._watched.update(await trio.to_thread.run_sync(sign_files, new, abandon_on_cancel=True))

    async def _reload_certificates(self) -> str:
        """Reload the files of every identity source; return the errors."""
        errors = []
        for feed in list(self._proxy.feeds.values()):
            error = await self._reload_part("error reloading TLS configuration", feed.reload)
            if error:
                feed.counters.certificates.count(is_success=False)
            errors.append(error)
        return join_distinct(errors)

    async def _reload_policies(self) -> str | None:
        """Reload the policy of every listener that has one; return the errors, None if no listener has one."""
        errors = []
        for listener in list(self._proxy.listeners.values()):
            if listener.policy is not None:
                error = await self._reload_part("error reloading OPA policy", listener.policy.load)
                listener.tunnel.counters.policy.count(is_success=not error)
                errors.append(error)
        return join_distinct(errors) if errors else None

    async def _reload_part(self, failure: str, reload: Callable[[], Awaitable[None]]) -> str:
        """Reload one part; return and log the error, or return "" after success."""
        try:
            with identity_errors("the reload failed"):  # for example, no thread or no memory
                await reload()
        except TunnelError as error:
            why = f"{error}{explain_denial(error)}"
            self._log.write(f"{failure}: {why}; keeping the previous configuration")
            return why
        return ""


def _late_changes(before: ProcessConfig, now: ProcessConfig) -> Iterable[str]:
    """Yield a warning for each changed setting that a running process cannot apply."""
    for name, is_changed in (
        ("log.syslog", before.log.is_syslog != now.log.is_syslog),
        ("log.format", before.log.format != now.log.format),
        ("log.access-log", before.log.access != now.log.access),
        ("traces", before.traces != now.traces),
        ("disable-landlock", before.is_confined != now.is_confined),
        ("workers", before.workers != now.workers),
    ):
        if is_changed:
            yield f"{name}: the change takes effect at the next start"
