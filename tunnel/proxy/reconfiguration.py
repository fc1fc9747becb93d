"""Changes the configuration of a running process: everything new is built and checked first, then put into use at once."""

from __future__ import annotations

from contextlib import ExitStack

import trio

from tunnel.config.model import INTERACTIVE_TIMEOUT, IdentityConfig, ListenerConfig, ProcessConfig, WorkloadApi
from tunnel.errors import ConfigError, IdentityError, IdentityFault, identity_errors
from tunnel.identity.credentials import Credentials, PkiCredentials
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.listener.generation import Generation, GenerationBuilder, plan_generations
from tunnel.listener.targets import check_targets
from tunnel.net.listen import Listener, open_listener
from tunnel.proxy.identity_feed import IdentityFeed, Slices
from tunnel.proxy.monitoring import RunningMonitor, abandon_monitors, open_ports
from tunnel.proxy.proxy import Proxy
from tunnel.proxy.proxy_listener import ProxyListener, open_policy
from tunnel.proxy.reloadable_policy import ReloadablePolicy


@dataclass(slots=True)
class _Planned:
    """The new state of one listener."""

    config: ListenerConfig
    before: ProxyListener | None  # the listener that takes this configuration; None for a new one
    policy: ReloadablePolicy | None = None
    generation: Generation | None = None  # None if nothing about this listener changes
    socket: Listener | None = None  # of a new listener
    socket_of: ProxyListener | None = None  # the removed listener whose socket a new one takes over

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing about this listener changes."""
        return self.generation is None


@dataclass(frozen=True, slots=True)
class Changes:
    """How many listeners a change of the configuration has added, changed, removed and left alone."""

    added: int
    changed: int
    removed: int
    unchanged: int

    def __str__(self) -> str:
        return f"added={self.added} changed={self.changed} removed={self.removed} unchanged={self.unchanged}"


async def reconfigure(proxy: Proxy, config: ProcessConfig) -> Changes:
    """Put another configuration into use; raises TunnelError, and then nothing has changed."""
    while True:
        change = Reconfiguration(proxy, config)
        with ExitStack() as on_error:
            on_error.callback(change.abandon)
            await change.prepare()
            await change.wait_for_feeds()
            if proxy.stop_requested.is_set():  # the listeners may be closed already
                raise ConfigError("the process is stopping")
            if change.is_outdated():
                continue
            on_error.pop_all()
        changes = _commit(proxy, change)
        await change.start_monitors()
        return changes


def _commit(proxy: Proxy, change: Reconfiguration) -> Changes:
    """Put a change into use. A bug that leaves a part of it in use ends the process: its state would match no configuration."""
    try:
        with identity_errors("the change of the configuration has failed in the middle"):
            return change.commit()
    except IdentityError as error:
        proxy.fail(error)
        raise


class Reconfiguration:
    """A prepared change: `prepare`, then either `commit` or `abandon`."""

    def __init__(self, proxy: Proxy, config: ProcessConfig) -> None:
        self._proxy = proxy
        self._config = config
        self._planned = [_Planned(one, _find_successor(proxy, one)) for one in config.listeners]
        self._new_feeds: dict[IdentityConfig, IdentityFeed] = {}
        self._feeds: dict[IdentityConfig, IdentityFeed] = {}  # all that are needed
        self._fresh: dict[IdentityConfig, Credentials] = {}  # of files that have changed
        self._numbers: dict[IdentityConfig, int] = {}  # of the credentials in use when the files were read
        self._builders: dict[IdentityConfig, GenerationBuilder] = {}
        self._leaving: list[tuple[ProxyListener, Generation]] = []  # removed listeners whose files have changed
        self._monitors: list[RunningMonitor] = []

    async def prepare(self) -> None:
        """Build and check everything; raises TunnelError, and then `abandon` must follow."""
        for one in self._planned:
            check_targets(one.config)
        await self._read_identities()
        for one in self._planned:
            await self._load_policy(one)
        slices = Slices()
        for one in self._planned:
            await slices.next()
            self._build(one)
        await self._build_for_leaving(slices)
        self._open_sockets()
        self._monitors = self._proxy.monitoring.prepare(self._config)
        open_ports(self._monitors)

    def abandon(self) -> None:
        """Close everything that was prepared."""
        for feed in self._new_feeds.values():
            feed.close()
        for one in self._planned:
            if one.socket is not None:
                one.socket.close()
            if one.policy is not None and (one.before is None or one.policy is not one.before.policy):
                one.policy.close()
        abandon_monitors(self._monitors)

    async def wait_for_feeds(self) -> None:
        """Wait until no identity source builds generations, which are for the present listeners."""
        while busy := [feed for feed in self._feeds.values() if feed.is_building]:
            await busy[0].wait_built()

    def is_outdated(self) -> bool:
        """Whether an identity source was closed or has published other credentials while the change was prepared.

        Raises the error of a new source that has failed meanwhile.
        """
        for feed in self._new_feeds.values():
            if feed.failure is not None:
                raise feed.failure
        in_use = {**self._proxy.feeds, **self._new_feeds}
        return any(
            in_use.get(identity) is not feed or feed.number != self._numbers[identity] for identity, feed in self._feeds.items()
        )

    def commit(self) -> Changes:
        """Put everything into use."""
        changes = self._count()
        self._proxy.config = self._config
        self._publish_credentials()
        for one in self._planned:
            if one.socket_of is not None:
                one.socket = one.socket_of.tunnel.release()
        for listener in self._removed():
            self._proxy.retirement.add(listener)
        for listener, generation in self._leaving:
            self._feeds[listener.config.identity].apply(listener, generation)
        for one in self._planned:
            self._apply(one)
        self._proxy.order_listeners([one.config.name for one in self._planned])
        self._proxy.monitoring.use(self._monitors, self._config)
        self._proxy.close_unused_feeds()
        return changes

    async def start_monitors(self) -> None:
        """Serve the new status ports, after `commit`."""
        for monitor in self._monitors:
            monitor.start_reports()
        await self._proxy.monitoring.start(self._monitors)

    # -- identities

    async def _read_identities(self) -> None:
        for identity in dict.fromkeys(one.config.identity for one in self._planned):
            feed = self._feeds[identity] = self._proxy.feeds.get(identity) or self._new_feed(identity)
            if identity in self._new_feeds:
                await self._start_feed(identity, feed)
            else:
                await self._read_files(identity, feed)
            # At once: what was read is based on these credentials, and another source may publish while the next is read.
            self._numbers[identity] = feed.number

    def _new_feed(self, identity: IdentityConfig) -> IdentityFeed:
        feed = self._new_feeds[identity] = self._proxy.new_feed(identity)
        return feed

    async def _start_feed(self, identity: IdentityConfig, feed: IdentityFeed) -> None:
        self._proxy.nursery.start_soon(feed.run)
        with trio.move_on_after(INTERACTIVE_TIMEOUT):
            await feed.ready.wait()
        if feed.failure is not None:
            raise feed.failure
        if feed.credentials is None:
            why = feed.problem or "no answer yet"
            where = identity.source.endpoint if isinstance(identity.source, WorkloadApi) else identity.source
            text = f"identity {identity.name}: no certificate from {where} within {INTERACTIVE_TIMEOUT:g}s: {why}"
            raise IdentityError(IdentityFault.TIMEOUT, text)

    async def _read_files(self, identity: IdentityConfig, feed: IdentityFeed) -> None:
        credentials = await feed.source.read()
        if credentials is not None and not _is_same(credentials, feed.credentials):
            self._fresh[identity] = credentials

    def _builder_of(self, identity: IdentityConfig) -> GenerationBuilder:
        if identity not in self._builders:
            feed = self._feeds[identity]
            credentials = self._fresh.get(identity, feed.credentials)
            assert credentials is not None
            self._builders[identity] = GenerationBuilder(feed.number + (identity in self._fresh), credentials)
        return self._builders[identity]

    def _publish_credentials(self) -> None:
        self._proxy.feeds.update(self._new_feeds)
        for identity, credentials in self._fresh.items():
            self._proxy.feeds[identity].adopt(credentials)

    # -- listeners

    async def _load_policy(self, one: _Planned) -> None:
        before = one.before
        one.policy = open_policy(one.config)
        if one.policy is None:
            return
        kept = before.policy if before is not None and before.config.access.policy == one.config.access.policy else None
        if kept is not None and kept.limit == one.policy.limit and await kept.is_up_to_date():
            one.policy = kept
        else:
            await one.policy.load()

    def _build(self, one: _Planned) -> None:
        identity = one.config.identity
        before = one.before
        is_same = before is not None and before.config == one.config and before.policy is one.policy
        if is_same and identity not in self._fresh:
            return
        plan = plan_generations(one.config, one.policy.rule if one.policy is not None else None, self._proxy.warn_from_thread)
        one.generation = self._builder_of(identity).build(plan, before.tunnel.generation if before is not None else None)

    async def _build_for_leaving(self, slices: Slices) -> None:
        """Build generations for removed listeners too: a certificate that is revoked now may be that of an open connection."""
        kept = {id(one.before) for one in self._planned}
        for identity in self._fresh:
            for one in [one for one in self._feeds[identity].listeners if id(one) not in kept]:
                await slices.next()
                self._leaving.append((one, one.build(self._builder_of(identity))))

    def _open_sockets(self) -> None:
        """Open the sockets of new listeners; one at the address of a removed listener will get that one's socket."""
        removed = self._removed()
        for one in self._planned:
            if one.before is not None or one.config.listen is None:
                continue
            one.socket_of = next((other for other in removed if other.config.listen == one.config.listen), None)
            if one.socket_of is not None:
                removed.remove(one.socket_of)
            else:
                one.socket = open_listener(one.config.listen, self._proxy.inherited)

    def _removed(self) -> list[ProxyListener]:
        kept = {id(one.before) for one in self._planned}
        return [one for one in self._proxy.listeners.values() if id(one) not in kept]

    def _apply(self, one: _Planned) -> None:
        if one.generation is None:
            return
        feed = self._feeds[one.config.identity]
        if one.before is not None:
            if one.before.config.identity != one.config.identity:
                self._proxy.feeds[one.before.config.identity].leave(one.before)
                feed.join(one.before)
            if one.before.policy is not one.policy:
                self._proxy.close_later(one.before.policy)
            one.before.reconfigure(one.config, one.policy)
            feed.apply(one.before, one.generation)
            return
        listener = self._proxy.new_listener(one.config, one.policy)
        self._proxy.add(listener, feed)
        feed.apply(listener, one.generation)
        if one.socket is not None:
            listener.open(one.socket)
            listener.log_listening()
        self._proxy.nursery.start_soon(listener.run_health_checks)

    def _count(self) -> Changes:
        added = sum(one.before is None for one in self._planned)
        unchanged = sum(one.is_unchanged for one in self._planned)
        kept = len(self._planned) - added
        return Changes(added, kept - unchanged, len(self._proxy.listeners) - kept, unchanged)


def _find_successor(proxy: Proxy, config: ListenerConfig) -> ProxyListener | None:
    """Return the listener that takes a new configuration: the one with its name, if mode and address stay the same."""
    before = proxy.listeners.get(config.name)
    if before is not None and (before.config.is_server, before.config.listen) == (config.is_server, config.listen):
        return before
    return None


def _is_same(one: Credentials, other: Credentials | None) -> bool:
    """Whether two sets of credentials from files have the same certificates; each key belongs to its certificate."""
    if not (isinstance(one, PkiCredentials) and isinstance(other, PkiCredentials)):
        return False
    return replace(one, private_key=None) == replace(other, private_key=None)
