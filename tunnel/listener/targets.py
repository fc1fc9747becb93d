"""The targets of one listener with their addresses: names and SRV records are resolved again when their lifetime ends.

It runs on the thread of the event loop; what may block is passed to `resolve_later`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from tunnel.config.model import HealthCheck, ListenerConfig, NameResolution
from tunnel.errors import ConfigError, TargetError
from tunnel.listener.route import plan_route
from tunnel.listener.target_pool import PooledTarget, TargetPlan, TargetPool
from tunnel.log import Log, escape
from tunnel.net.address import Address, SrvName, TargetAddress
from tunnel.net.cached_name import Answer, CachedName, Timed
from tunnel.net.dns import SrvRecord, check_dns_server, check_dns_support, look_up_srv
from tunnel.net.sockets import SocketAddress, resolve
from tunnel.relay.loop import Loop
from tunnel.relay.step import StepOwner
from tunnel.status.counters import TargetGauges
from tunnel.status.process_state import TargetState

Resolved = Answer[Any]  # of socket addresses, or of SRV records
ResolveLater = Callable[[TargetAddress, Callable[[Resolved], object]], object]


def resolve_target(target: TargetAddress, resolution: NameResolution) -> Timed[Any]:
    """Return the socket addresses of an address, or the SRV records of a name, which blocks; raises TargetError."""
    if isinstance(target, SrvName):
        return look_up_srv(target, resolution.dns_server)
    return Timed(resolve(target), resolution.cache_time)


NewPool = Callable[[HealthCheck, Callable[[str], object]], TargetPool]


def _open_pool(health: HealthCheck, log: Callable[[str], object]) -> TargetPool:
    return TargetPool((), health, log)


class Targets:
    """The pool of targets, and the names in it."""

    def __init__(
        self,
        config: ListenerConfig,
        loop: Loop,
        log: Log,
        resolve_later: ResolveLater,
        new_pool: NewPool = _open_pool,
    ) -> None:
        """Raises ConfigError or TargetError if a target cannot be used with this configuration."""
        self._loop = loop
        self._log = log
        self._resolve_later = resolve_later
        self._addresses: dict[Address, CachedName[tuple[SocketAddress, ...]]] = {}
        self._services: dict[SrvName, CachedName[tuple[SrvRecord, ...]]] = {}
        self._records: dict[SrvName, tuple[SrvRecord, ...]] = {}
        self._config = config
        self.pool = new_pool(config.health_check, log.write)
        self.only: PooledTarget | None = None
        self.use(config)

    def use(self, config: ListenerConfig) -> None:
        """Use the targets of another configuration; raises ConfigError or TargetError, and then nothing changes."""
        check_targets(config)
        self._config = config
        self.name = config.target_name
        kept = {target: self._services.get(target) for target in config.targets if isinstance(target, SrvName)}
        self._services = {name: service or self._open_service(name) for name, service in kept.items()}
        self._records = {name: records for name, records in self._records.items() if name in kept}
        self.pool.health = config.health_check
        self._update_pool()
        is_single = len(set(config.targets)) == 1 and not kept
        self.only = self.pool.targets[0] if is_single else None  # needs no choice, and has no other one to retry with

    def states(self) -> tuple[TargetState, ...]:
        """Return the state of each target."""
        return self.pool.states()

    def gauges(self) -> tuple[TargetGauges, ...]:
        """Return the values of each target as it is configured."""
        pooled = self.pool.targets
        return tuple(self._gauges_of(name, pooled) for name in dict.fromkeys(map(str, self._config.targets)))

    def _gauges_of(self, name: str, pooled: Iterable[PooledTarget]) -> TargetGauges:
        own = [target for target in pooled if target.configured == name]
        healthy = sum(target.is_healthy for target in own)
        return TargetGauges(name, healthy, sum(target.opened for target in own), self.pool.failures.get(name, 0))

    def expired_services(self) -> list[CachedName[tuple[SrvRecord, ...]]]:
        """Return the names whose SRV records must be asked for, and ask for all of them."""
        expired = [service for service in self._services.values() if service.fresh() is None]
        for service in expired:
            service.refresh()
        return expired

    def addresses(self, target: PooledTarget) -> tuple[SocketAddress, ...] | None:
        """Return the addresses of a target, or None if its name must be resolved first."""
        return target.known or self.cached_name(target).fresh()

    def cached_name(self, target: PooledTarget) -> CachedName[tuple[SocketAddress, ...]]:
        """Return the cached addresses of a target with a name."""
        address = target.route.address
        if address not in self._addresses:
            self._addresses[address] = self._open_name(address)
        return self._addresses[address]

    def _open_name(self, name: TargetAddress) -> CachedName[Any]:
        cached: CachedName[Any] = CachedName(partial(self._resolve_later, name), self._loop)
        cached.on_stale = partial(self._log_stale, name)
        return cached

    def _open_service(self, name: SrvName) -> CachedName[tuple[SrvRecord, ...]]:
        service = self._open_name(name)
        service.on_answer = partial(self._take_records, name)
        return service

    def _take_records(self, name: SrvName, answer: tuple[SrvRecord, ...] | TargetError) -> None:
        if name in self._services:
            self._records[name] = () if isinstance(answer, TargetError) else answer
            self._update_pool()

    def _update_pool(self) -> None:
        self.pool.update(self._plans())
        used = {target.route.address for target in self.pool.targets}
        self._addresses = {address: name for address, name in self._addresses.items() if address in used}

    def _plans(self) -> Iterator[TargetPlan]:
        for target in self._config.targets:
            if not isinstance(target, SrvName):
                yield TargetPlan(plan_route(self._config, target))
                continue
            for record in self._records.get(target, ()):
                try:
                    yield TargetPlan(plan_route(self._config, record.address), record.priority, record.weight, str(target))
                except (ConfigError, TargetError) as error:  # the proxy cannot reach it
                    self._log.write(f"SRV record ignored: {escape(str(record.address))}: {escape(str(error))} name={target}")

    def _log_stale(self, name: TargetAddress, error: str) -> None:
        if error:
            self._log.write(f"name of a target cannot be resolved: using the last answer: {escape(error)}")
        else:
            self._log.info(f"name of a target is resolved again: {name}")


def check_targets(config: ListenerConfig) -> None:
    """Raise ConfigError or TargetError if a target cannot be used with this configuration."""
    for target in config.targets:
        _check_target(config, target)


def _check_target(config: ListenerConfig, target: TargetAddress) -> None:
    if isinstance(target, SrvName):
        check_dns_support(target)
        if config.resolution.dns_server is not None:
            check_dns_server(config.resolution.dns_server)
    else:
        plan_route(config, target)


class Lookup:
    """A step that waits for the answer of a name; its result is the answer."""

    def __init__(self, loop: Loop, owner: StepOwner, name: CachedName[Any]) -> None:
        self._loop = loop
        self._owner = owner
        self._name = name
        self._is_abandoned = False

    def start(self) -> None:
        """Start waiting."""
        self._name.wait(self)

    def abandon(self) -> None:
        """Ignore the answer."""
        self._is_abandoned = True
        self._name.forget(self)

    def answered(self, answer: object) -> None:
        """Report the answer in an event of the owner, so that a bug in its handling ends this session only."""
        self._loop.call_at(0, partial(self._report, answer), self._owner)

    def _report(self, answer: object) -> None:
        if self._is_abandoned:
            return
        if isinstance(answer, TargetError):
            self._owner.step_failed(answer)
        else:
            self._owner.step_done(answer)
