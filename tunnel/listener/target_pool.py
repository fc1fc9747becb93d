"""The targets of one listener: which of them gets the next connection, and the health of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from tunnel.config.model import HealthCheck
from tunnel.errors import TargetFault, TunnelError
from tunnel.lazy_dataclass import dataclass
from tunnel.listener.route import Route
from tunnel.log import MAX_FOREIGN_TEXT, one_line
from tunnel.net.sockets import resolve_now
from tunnel.status.process_state import TargetState

_WEIGHT_UNIT = 100  # a target of weight 0 gets a hundredth of the share of one of weight 1 (RFC 2782: a very small chance)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """A target to use: the lowest priority number first; within one priority, connections in proportion to the weight."""

    route: Route
    priority: int = 0
    weight: int = 1
    configured: str = ""  # the name of the SRV records that it is from; "" if it is configured itself


class PooledTarget:
    """One target, and what is known about it. Only the pool changes it."""

    __slots__ = (
        "configured",
        "credit",
        "error",
        "failures",
        "is_healthy",
        "is_listed",
        "known",
        "opened",
        "priority",
        "route",
        "streak",
        "weight",
    )

    def __init__(self, plan: TargetPlan) -> None:
        self.route = plan.route
        self.known = resolve_now(plan.route.address)  # None if the name needs a resolver
        self.opened = 0
        self.failures = 0
        self.error = ""
        self.is_healthy = True  # until it has failed
        self.streak = 0  # successes (positive) or failures (negative) in a row
        self.credit = 0  # of the weighted round robin
        self.is_listed = True  # else it gets no new connections, and is forgotten with its last one
        self.plan(plan)

    def plan(self, plan: TargetPlan) -> None:
        """Use a new priority and weight."""
        self.configured = plan.configured or plan.route.target_name
        self.priority, self.weight = plan.priority, plan.weight * _WEIGHT_UNIT or 1

    def state(self) -> TargetState:
        """Return the state at this moment."""
        return TargetState(self.route.target_name, self.is_healthy, self.opened, self.failures, self.error)


class TargetPool:
    """Chooses the target with the fewest connections among those that are healthy."""

    def __init__(self, plans: Iterable[TargetPlan], health: HealthCheck, log: Callable[[str], object]) -> None:
        self.health = health
        self._log = log
        self._targets: dict[Route, PooledTarget] = {}
        self._has_reported_outage = False
        self.failures: dict[str, int] = {}  # by configured target, also of those that were forgotten
        self.on_change: Callable[[], object] = lambda: None  # called when a target is healthy, or fails, or no longer
        self.update(plans)

    @property
    def targets(self) -> tuple[PooledTarget, ...]:
        """The targets that get new connections."""
        return tuple(target for target in self._targets.values() if target.is_listed)

    def states(self) -> tuple[TargetState, ...]:
        """Return the state of each target, also of removed ones that still have connections."""
        return tuple(target.state() for target in self._targets.values())

    def update(self, plans: Iterable[TargetPlan]) -> None:
        """Use these targets from now on; what is known about those that stay is kept."""
        wanted = {plan.route: plan for plan in plans}
        for route, target in list(self._targets.items()):
            target.is_listed = route in wanted
            if not target.is_listed and not target.opened:
                del self._targets[route]
        for route, plan in wanted.items():
            if route in self._targets:
                self._targets[route].plan(plan)
            else:
                self._targets[route] = PooledTarget(plan)
        self.review()

    def pick(self, tried: Collection[PooledTarget] = ()) -> PooledTarget | None:
        """Choose the target of a connection and count the connection, or return None if all are in `tried`.

        Unhealthy targets are chosen only after the healthy ones.
        """
        rest = [target for target in self.targets if target not in tried]
        healthy = [target for target in rest if target.is_healthy]
        if not rest:
            return None
        first = min(target.priority for target in healthy or rest)
        chosen = _least_loaded([target for target in healthy or rest if target.priority == first])
        chosen.opened += 1
        return chosen

    def release(self, target: PooledTarget) -> None:
        """Count the end of a connection that `pick` has counted."""
        target.opened -= 1
        if not target.is_listed and not target.opened:
            self._targets.pop(target.route, None)

    def note_success(self, target: PooledTarget) -> None:
        """A connection or a check has succeeded."""
        was_failing, target.error = bool(target.error), ""
        target.streak = max(target.streak, 0) + 1
        if not target.is_healthy and target.streak >= self.health.rise:
            target.is_healthy = True
            self._log(f"target is healthy again: {one_line(target.route.target_name)}")
            self.review()
            self.on_change()
        elif was_failing:
            self.on_change()

    def note_failure(self, target: PooledTarget, error: str) -> None:
        """A connection attempt or a check has failed."""
        self._count_failure(target, error)
        target.streak = min(target.streak, 0) - 1
        if target.is_healthy and -target.streak >= self.health.fall:
            target.is_healthy = False
            name = one_line(target.route.target_name)
            self._log(f"target is unhealthy: {name} failures={-target.streak} error={target.error}")
            self.review()
        self.on_change()

    def note_result(self, target: PooledTarget, error: TunnelError | None = None) -> None:
        """An attempt or a check of the only target has ended; no choice depends on its health."""
        if error is not None and getattr(error, "reason", None) is TargetFault.EXHAUSTED:  # our own limit
            return
        self.show_result(target, "" if error is None else str(error))

    def show_result(self, target: PooledTarget, error: str) -> None:
        """The only target has failed, or not if there is no error."""
        target.is_healthy, target.error = not error, ""
        if error:
            self._count_failure(target, error)
        self.on_change()

    def _count_failure(self, target: PooledTarget, error: str) -> None:
        target.error = one_line(error, MAX_FOREIGN_TEXT)  # it may quote the certificate of a server
        target.failures += 1
        self.failures[target.configured] = self.failures.get(target.configured, 0) + 1

    def review(self) -> None:
        """Log the begin of a time in which no target is healthy."""
        targets = self.targets
        is_outage = bool(targets) and not any(target.is_healthy for target in targets)
        if is_outage and not self._has_reported_outage:
            self._log("no target is healthy: new connections try all of them")
        self._has_reported_outage = is_outage


def _least_loaded(targets: list[PooledTarget]) -> PooledTarget:
    """Return the target with the fewest connections for its weight; of several, in turn by weight."""
    least = targets[0]
    for target in targets:
        if target.opened * least.weight < least.opened * target.weight:
            least = target
    equal = [target for target in targets if target.opened * least.weight == least.opened * target.weight]
    if len(equal) == 1:
        return least
    for target in equal:
        target.credit += target.weight
    chosen = max(equal, key=lambda target: target.credit)
    chosen.credit -= sum(target.weight for target in equal)
    return chosen
