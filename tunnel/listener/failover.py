"""Attempts of one connection with several targets, until one succeeds; no byte of the client is forwarded before that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from tunnel.errors import PeerDenied, TargetError, TargetFault, TlsError
from tunnel.listener.target_pool import PooledTarget
from tunnel.listener.targets import Lookup, Targets
from tunnel.relay.loop import Loop, Timer
from tunnel.relay.step import StepOwner, Steps

MAX_SHARE = 3  # an attempt gets at least this part of the time that is left: a third, or a half if two targets are left

AttemptError = TlsError | PeerDenied | TargetError


class Connector(StepOwner, Protocol):
    """The connection that needs a target."""

    def use_target(self, target: PooledTarget) -> None:
        """Use this target from now on; the pool has counted the connection."""

    def drop_target(self) -> None:
        """Close what is open to the target, and release it."""

    def end_attempt(self, seconds: float) -> None:
        """Fail the step that runs now, because the attempt has taken so many seconds."""

    def log_retry(self, target: PooledTarget, error: AttemptError) -> None:
        """Log that another target is tried."""


def reach_target(
    loop: Loop, targets: Targets, connector: Connector, attempt: Callable[[PooledTarget], Steps], deadline: float
) -> Steps:
    """Make `attempt` with the only target, or with one of several after the other; raises the error of the last one."""
    if targets.only is not None:
        return _try_only_target(targets, targets.only, connector, attempt)
    return try_targets(loop, targets, connector, attempt, deadline)


def _try_only_target(
    targets: Targets, only: PooledTarget, connector: Connector, attempt: Callable[[PooledTarget], Steps]
) -> Steps:
    connector.use_target(only)
    only.opened += 1
    try:
        yield from attempt(only)
    except (TlsError, PeerDenied, TargetError) as error:
        targets.pool.note_result(only, error)
        raise
    if only.error:
        targets.pool.note_result(only)


def try_targets(
    loop: Loop, targets: Targets, connector: Connector, attempt: Callable[[PooledTarget], Steps], deadline: float
) -> Steps:
    """Make `attempt` with one target after the other until one succeeds; raises the error of the last one.

    A server that our access rules refuse counts as failed: the next one is verified and authorized on its own.
    """
    yield from _look_up_services(loop, targets, connector)
    tried: list[PooledTarget] = []
    failure: AttemptError = TargetError(TargetFault.RESOLVE, f"{targets.name}: there are no targets")
    while (target := targets.pool.pick(tried)) is not None:
        connector.use_target(target)
        tried.append(target)
        timer = _limit_attempt(loop, connector, deadline, targets, tried)
        try:
            yield from attempt(target)
        except (TlsError, PeerDenied, TargetError) as error:
            if error.reason is TargetFault.EXHAUSTED:  # our own limit
                raise
            targets.pool.note_failure(target, str(error))
            if timer is None or loop.clock() >= deadline:
                raise
            connector.drop_target()
            connector.log_retry(target, error)
            failure = error
        else:
            targets.pool.note_success(target)
            return
        finally:
            if timer is not None:
                loop.cancel(timer)
    raise failure


def _limit_attempt(
    loop: Loop, connector: Connector, deadline: float, targets: Targets, tried: list[PooledTarget]
) -> Timer | None:
    """Limit the time of an attempt; the last one has all that is left."""
    left = sum(target not in tried for target in targets.pool.targets)
    if not left:
        return None
    seconds = (deadline - loop.clock()) / min(left + 1, MAX_SHARE)
    return loop.call_at(loop.clock() + seconds, partial(connector.end_attempt, seconds), connector)


def _look_up_services(loop: Loop, targets: Targets, connector: Connector) -> Steps:
    """Ask for SRV records that have expired; raises TargetError if there is no target without them."""
    for service in targets.expired_services():
        try:
            yield Lookup(loop, connector, service)
        except TargetError:
            if not targets.pool.targets:
                raise
