"""One subscriber of a Workload API stream: evaluates each update for its selection and emits the events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from tunnel.backoff import Backoff
from tunnel.errors import IdentityError, identity_errors
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.identity.events import Denied, Disconnected, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.identity.update import accept_update
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.spiffe.messages import X509SvidResponse
from tunnel.spiffe.selection import Selection

RUNNING_CAP = 30.0  # seconds between attempts after the first identity
_STARTING_CAP = 5.0  # and before it
_UNSTABLE_FLOOR = 0.5  # seconds to the next attempt, unless the stream was stable and its update accepted
_REJECTED_FLOOR = 1.0  # seconds from a rejected update to a new stream

ReceivedUpdate = X509SvidResponse | IdentityError  # a message, or why it cannot be parsed


@dataclass(frozen=True, slots=True)
class Clocks:
    """The Unix time, which may be set at any time, and a clock that only advances."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class _RejectedUpdate:
    """A rejected update, parsed if possible, and the monotonic time at which a new stream is needed."""

    response: X509SvidResponse | None
    error: IdentityError
    reopen_at: float


class Subscription:
    """The newest accepted and the rejected update of one selection; only the thread of the stream uses it."""

    def __init__(
        self,
        emit: Callable[[WorkloadEvent], None],
        selection: Selection,
        *,
        wants_all: bool,  # verify every SVID, not only the selected one
        backoff: Backoff,
        clocks: Clocks,
    ) -> None:
        self.emit = emit
        self.is_joining = True  # nothing has been evaluated yet, not even an update that the stream received before
        self._accept = partial(accept_update, selection=selection, wants_all=wants_all)
        self._backoff = backoff
        self._clocks = clocks
        self._last: X509Context | None = None
        self._current: X509Svid | None = None  # the newest accepted one
        self._renew_at = math.inf  # Unix time of the next attempt to get a newer one
        self._is_overdue = False
        self._rejection: _RejectedUpdate | None = None
        self._has_accepted = False  # on the current stream

    @property
    def is_served(self) -> bool:
        """Whether an update was accepted, now or earlier."""
        return self._last is not None

    # -- updates

    def begin_stream(self) -> None:
        """A new stream is opened."""
        self._has_accepted = False

    def take(self, update: ReceivedUpdate) -> None:
        """Evaluate an update and emit the event."""
        self.is_joining = False
        if isinstance(update, IdentityError):
            self._reject(None, update)
        else:
            self._evaluate(update)

    def retry_rejected(self) -> None:
        """Evaluate a rejected update again once its validity has begun."""
        rejection = self._rejection
        if rejection is None or rejection.response is None or rejection.error.begins is None:
            return
        if rejection.error.begins.timestamp() <= self._clocks.wall():
            self._evaluate(rejection.response)

    def _evaluate(self, response: X509SvidResponse) -> None:
        try:
            with identity_errors("unusable update"):
                context = self._accept(response, datetime.fromtimestamp(self._clocks.wall(), UTC), current=self._current)
        except IdentityError as error:
            self._reject(response, error)
            return
        is_new = self._last is None or not context.has_same_material(self._last)
        self._last = context
        self._rejection = None
        self._has_accepted = True
        self._backoff.reset()
        if context.svid is not None and (self._current is None or context.svid.chain != self._current.chain):
            self._current = context.svid
            self._renew_at = context.svid.next_renewal(self._clocks.wall())
            self._is_overdue = False
        self.emit(Updated(context, is_new))

    def _reject(self, response: X509SvidResponse | None, error: IdentityError) -> None:
        """Keep a rejected update for a later evaluation; emit an event unless the previous one has the same error."""
        is_repeated = self._rejection is not None and str(self._rejection.error) == str(error)
        self._rejection = _RejectedUpdate(response, error, self._reopen_time())
        if not is_repeated:
            self.emit(Rejected(error))

    # -- time

    def seconds_to_action(self) -> float:
        """Return the seconds until `retry_rejected` or `needs_new_stream` is due; inf if nothing is planned."""
        due = [self._renew_at - self._clocks.wall()]
        if self._rejection is not None:
            due.append(self._rejection.reopen_at - self._clocks.monotonic())
            if self._rejection.error.begins is not None:
                due.append(self._rejection.error.begins.timestamp() - self._clocks.wall())
        return min(due)

    def needs_new_stream(self) -> bool:
        """Return whether the current stream is useless: its update was rejected, or a rotation is overdue.

        After True the next attempt is planned.
        """
        if self._rejection is not None and self._clocks.monotonic() >= self._rejection.reopen_at:
            self._rejection = replace(self._rejection, reopen_at=self._reopen_time())
            return True
        if self._current is None:
            return False
        now = self._clocks.wall()
        self._renew_at = min(self._renew_at, self._current.next_renewal(now))  # the clock may have been set back
        if now < self._renew_at:
            return False
        if not self._is_overdue:
            self._is_overdue = True
            self.emit(Overdue(self._current))
        self._renew_at = self._current.next_renewal(now)
        return True

    def _reopen_time(self) -> float:
        return self._clocks.monotonic() + self._next_delay(_REJECTED_FLOOR)

    # -- the end of a stream

    def reconnect_delay(self, floor: float | None, *, is_stable: bool) -> float:
        """Return the seconds to the next attempt, at least `floor`; None is the floor for a stream that may work again."""
        if floor is None:
            floor = 0.0 if self._has_accepted and is_stable else _UNSTABLE_FLOOR
        return self._next_delay(floor)

    def end_stream(self, event: Disconnected) -> None:
        """Emit the end of a stream; a denial also withdraws a rejected update."""
        if isinstance(event, Denied):
            self._rejection = None
        self.emit(event)

    def _next_delay(self, floor: float) -> float:
        return self._backoff.next(floor=floor, cap=RUNNING_CAP if self.is_served else _STARTING_CAP)
