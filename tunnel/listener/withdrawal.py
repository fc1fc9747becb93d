"""Withdrawal: closes open connections whose peers would not be admitted now, or that have lost a certificate.

A review judges every open connection, in slices of a few milliseconds. First it applies what needs no signature check: trust
domain and access rules. Only peers whose trust anchors have changed are verified again, with the certificates that they sent
in the handshake.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Final, Protocol

from tunnel.authz.authorizer import Admitted
from tunnel.authz.peer import Peer, SentCertificates
from tunnel.config.model import ListenerConfig
from tunnel.errors import Denial, IdentityLoss, PeerDenied
from tunnel.listener.generation import Generation
from tunnel.listener.plain_clients import check_plaintext
from tunnel.listener.policy_review import OpenConnection, PolicyQuestion, PolicyReview, Verdict
from tunnel.log import Log
from tunnel.relay.loop import Loop, Timer
from tunnel.time_format import describe_time
from tunnel.tls.admission import PeerAdmission

_SLICE: Final = 0.004  # seconds of a review in one turn of the loop: handshakes and relays continue in between
_TICK: Final = 0.5  # seconds between two looks at the wall clock, which may jump
_POLICY_GRACE: Final = 5.0  # seconds at least before a connection is closed because its policy could not be evaluated


class Reviewed(Protocol):
    """The tunnel whose connections are reviewed."""

    loop: Loop
    config: ListenerConfig
    log: Log

    @property
    def generation(self) -> Generation | None:
        """The newest generation."""

    @property
    def connections(self) -> Collection[OpenConnection]:
        """The open connections, also those whose relay has not begun."""

    @property
    def identity_loss(self) -> tuple[IdentityLoss, str] | None:
        """Why our identity cannot be used any more, as a reason and as a message."""

    def review(self) -> object:
        """Check whether our identity is usable now."""

    def count_crash(self, crash: Exception) -> None:
        """Log and count an unexpected exception."""


class Withdrawal:
    """Reviews the open connections of one tunnel; no state is kept for a connection that is admitted."""

    def __init__(self, tunnel: Reviewed, clock: Callable[[], float]) -> None:
        self._tunnel = tunnel
        self._loop = tunnel.loop
        self._clock = clock  # the wall clock, which dates in certificates follow
        self._quick: deque[OpenConnection] = deque()  # to be judged by what needs no signature check
        self._full: dict[OpenConnection, None] = {}  # to be verified again after that
        self._policies = PolicyReview(tunnel.loop, self._ask_policy, self._settle, self._schedule)
        self._due: dict[OpenConnection, float] = {}  # loop time at which a connection that is denied is closed
        self._is_path_lost = False  # the running review verifies all paths again
        self._has_kept = False  # connections were not judged, because that would not have closed them
        self._current: OpenConnection | None = None
        self._is_scheduled = False
        self._began = 0.0
        self._checked = self._denied = 0
        self._earliest = math.inf  # Unix time at which the first certificate of a peer expires; only if that matters
        self._timer: Timer | None = None
        self._due_timer: Timer | None = None

    # -- what starts a review

    def review_all(self, previous: Generation | None) -> None:
        """Judge every open connection by the generation in use, which has replaced `previous`."""
        generation = self._tunnel.generation
        new, old = generation.admission if generation else None, previous.admission if previous else None
        is_same = new is not None and old is not None and new.checks_like(old)
        self._is_path_lost = self._has_kept or not is_same or (self.is_running and self._is_path_lost)
        self._has_kept = False
        self._policies.restart()
        waiting = dict.fromkeys(self._quick)  # first those that an earlier review has not reached
        self._quick.clear()
        self._enqueue([*waiting, *(one for one in self._tunnel.connections if one not in waiting)])
        self._find_earliest()

    def add(self, connection: OpenConnection) -> None:
        """A relay has begun: watch the dates of its peer's certificate, if they matter."""
        config, admitted = self._tunnel.config, connection.admitted
        if config.closes_expired and admitted is not None and admitted.expires is not None:
            self._earliest = min(self._earliest, admitted.expires)
            self._start_ticks()
        if config.closes_without_identity:
            self._enqueue([connection] if self._tunnel.identity_loss else ())
            self._start_ticks()

    def forget(self, connection: OpenConnection) -> None:
        """A connection has ended."""
        if self._due:
            self._due.pop(connection, None)

    def close_without_identity(self) -> None:
        """Close all connections, if configured: our identity is lost."""
        if self._tunnel.config.closes_without_identity:
            self._enqueue(self._tunnel.connections)

    def crashed(self, crash: Exception) -> None:
        """Log an unexpected exception and end the connection that was judged; the review continues."""
        connection, self._current = self._current, None
        if connection is not None:
            connection.crashed(crash)
        else:
            self._tunnel.count_crash(crash)
        self._schedule()

    # -- slices

    def _enqueue(self, connections: Iterable[OpenConnection]) -> None:
        if not self.is_running:
            self._began, self._checked, self._denied = self._loop.clock(), 0, 0
        self._quick.extend(connections)
        if self._quick:
            self._schedule()

    @property
    def is_running(self) -> bool:
        """Whether a review has not ended."""
        return bool(self._quick or self._full or self._policies.is_running)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(lambda: self._loop.call_at(0, self._run_slice, self))

    def _run_slice(self) -> None:
        """Judge connections until the slice is over."""
        self._is_scheduled = False
        end = self._loop.clock() + _SLICE
        while self._quick or self._full:
            self._judge_next()
            if self._loop.clock() >= end:
                self._schedule()
                return
        self._policies.run()
        if not self.is_running:
            self._finish()

    def _judge_next(self) -> None:
        is_quick = bool(self._quick)
        connection = self._quick.popleft() if is_quick else next(iter(self._full))
        if not is_quick:
            del self._full[connection]
        if connection.is_relayed:
            self._current = connection
            self._checked += is_quick
            try:
                (self._judge if is_quick else self._verify)(connection)
            except PeerDenied as denied:
                self._deny(connection, denied)
            self._current = None

    def _finish(self) -> None:
        self._is_path_lost = False
        if self._denied:
            seconds = self._loop.clock() - self._began
            counts = f"connections={self._checked} denied={self._denied} seconds={seconds:.3f}"
            self._tunnel.log.info(f"open connections reviewed: {counts}")
            self._denied = 0

    # -- the judgement of one connection

    def _judge(self, connection: OpenConnection) -> None:
        """Judge a connection by what needs no signature check; raises PeerDenied."""
        config, admitted, generation = self._tunnel.config, connection.admitted, self._tunnel.generation
        if admitted is not None and admitted.is_plaintext:
            self._judge_plaintext(connection)
            return
        if admitted is None or generation is None or self._close_if_lost(connection, admitted):
            return
        admission = generation.admission
        if math.isinf(config.on_withdrawal.grace):
            self._has_kept = True
            self._admit(connection)
        elif admission is None:
            self._admit(connection)
        elif admitted.peer is None:
            raise PeerDenied(Denial.NO_CERTIFICATE, "the client was admitted without a certificate, which is required now")
        elif generation.context.is_slow:
            self._policies.add(connection)
        else:
            admission.check_known(admitted.peer, connection.tls_end.source)
            if admission.may_have_revoked(admitted.peer):
                self._verify(connection)  # at once, and not after thousands of others
            elif self._needs_path(connection, admission):
                self._full[connection] = None
            else:
                self._admit(connection)

    def _judge_plaintext(self, connection: OpenConnection) -> None:
        """Judge a plain client, for which only the configuration counts; raises PeerDenied."""
        config = self._tunnel.config
        if not math.isinf(config.on_withdrawal.grace):
            check_plaintext(config.plaintext, connection.source)
        self._admit(connection)

    def _close_if_lost(self, connection: OpenConnection, admitted: Admitted) -> bool:
        """Close a connection that has lost a certificate, if configured; without a grace period, because both are foreseen."""
        config, loss = self._tunnel.config, self._tunnel.identity_loss
        if config.closes_without_identity and loss is not None:
            self._close(connection, loss[0].value, loss[1])
        elif config.closes_expired and admitted.expires is not None and admitted.expires < self._clock():
            when = describe_time(admitted.expires)
            self._close(connection, Denial.EXPIRED.value, f"a certificate of the peer expired at {when}")
        return not connection.is_relayed

    def _needs_path(self, connection: OpenConnection, admission: PeerAdmission) -> bool:
        """Whether the path to an anchor must be verified again: it may be a different one than at the last judgement."""
        admitted = connection.admitted
        if self._is_path_lost or connection in self._due or admitted is None:
            return True
        return not (admission.trusts(admitted) or self._is_anchor_expired(admitted))

    def _is_anchor_expired(self, admitted: Admitted) -> bool:
        """Whether the anchor has expired: its removal is then the end of a rotation, and withdraws nothing."""
        return admitted.anchor is not None and admitted.anchor.not_after.timestamp() < self._clock()

    def _verify(self, connection: OpenConnection) -> None:
        """Verify the path to an anchor and apply the rules again; raises PeerDenied."""
        generation, admitted, source = self._tunnel.generation, connection.admitted, connection.tls_end.source
        if generation is not None and generation.admission is not None and admitted is not None:
            sent = _sent_by(admitted)
            try:
                again = generation.admission(sent.digest, lambda: sent.chain, source, at=self._time_of(admitted))
            except PeerDenied as denied:
                if denied.reason is not Denial.UNKNOWN_AUTHORITY or not self._is_anchor_expired(admitted):
                    raise
                again = admitted  # by rules that were applied before
            self._admit(connection, again)

    def _time_of(self, admitted: Admitted) -> float:
        """The Unix time at which dates are judged: expiry alone is not a withdrawal, but path and rules still count."""
        now = self._clock()
        return now if admitted.expires is None else min(now, admitted.expires)

    def _admit(self, connection: OpenConnection, admitted: Admitted | None = None) -> None:
        self._due.pop(connection, None)
        if admitted is not None:
            connection.readmit_as(admitted)

    def _deny(self, connection: OpenConnection, denied: PeerDenied) -> None:
        """Close a connection, or judge it again at the end of the grace period."""
        now, grace = self._loop.clock(), self._tunnel.config.on_withdrawal.grace
        if denied.reason is Denial.POLICY_ERROR:  # the evaluator may have been restarted, or be busy
            grace = max(grace, _POLICY_GRACE)
        due = self._due[connection] = min(self._due.get(connection, math.inf), now + grace)
        if due <= now:
            self._close(connection, denied.reason.value, f"the peer is no longer admitted: {denied.seen}")
        else:
            self._denied += 1
            self._wait_for(due)

    def _close(self, connection: OpenConnection, cause: str, detail: str) -> None:
        self._denied += 1
        connection.withdraw(cause, detail)

    # -- policies

    def _ask_policy(self, connection: OpenConnection) -> PolicyQuestion | Verdict:
        """Return what a thread must decide about a connection."""
        generation, admitted, source = self._tunnel.generation, connection.admitted, connection.tls_end.source
        if generation is None or generation.admission is None or admitted is None or admitted.peer is None:
            return None
        sent = None
        if self._needs_path(connection, generation.admission):
            try:
                sent = _sent_by(admitted)
            except PeerDenied as denied:
                return denied
        key = admitted.peer.leaf, source, sent
        return PolicyQuestion(key, partial(_decide, generation.admission, admitted.peer, source, sent, self._time_of(admitted)))

    def _settle(self, connection: OpenConnection, verdict: Verdict) -> None:
        if isinstance(verdict, PeerDenied):
            self._deny(connection, verdict)
        else:
            self._admit(connection, verdict)

    # -- deadlines

    def _wait_for(self, due: float) -> None:
        """Judge the denied connections again at the end of the first grace period."""
        if self._due_timer is not None and self._due_timer.when <= due:
            return
        if self._due_timer is not None:
            self._loop.cancel(self._due_timer)
        self._due_timer = self._loop.call_at(due, self._judge_due, self)

    def _judge_due(self) -> None:
        self._due_timer = None
        now = self._loop.clock()
        self._enqueue([one for one, due in self._due.items() if due <= now])
        later = [due for due in self._due.values() if due > now]
        if later:
            self._wait_for(min(later))

    def _find_earliest(self) -> None:
        """Find the first certificate to expire."""
        self._earliest = math.inf
        if self._tunnel.config.closes_expired:
            now = self._clock()
            dates = [one.admitted.expires for one in self._tunnel.connections if one.admitted is not None]
            self._earliest = min((date for date in dates if date is not None and date >= now), default=math.inf)
        self._start_ticks()

    def _start_ticks(self) -> None:
        """Look at the clock twice per second while something can expire."""
        if self._timer is None and (self._earliest < math.inf or self._tunnel.config.closes_without_identity):
            self._timer = self._loop.call_at(self._loop.clock() + _TICK, self._tick, self)

    def _tick(self) -> None:
        self._timer = None
        if not self._tunnel.connections:
            return  # the next relay starts the ticks again
        if self._tunnel.config.closes_without_identity:
            self._tunnel.review()
        now = self._clock()
        if now > self._earliest:
            self._enqueue([one for one in self._tunnel.connections if _is_expired(one, now)])
            self._find_earliest()
        self._start_ticks()


def settings_of(config: ListenerConfig) -> tuple[object, ...]:
    """Return the settings without effect on generations by which open connections are judged, again if they change."""
    return config.on_withdrawal, config.closes_expired, config.closes_without_identity, config.plaintext


def _is_expired(connection: OpenConnection, now: float) -> bool:
    admitted = connection.admitted
    return admitted is not None and admitted.expires is not None and admitted.expires < now


def _sent_by(admitted: Admitted) -> SentCertificates:
    """Return the certificates of the peer; raises PeerDenied if there are none."""
    if admitted.sent is None:
        raise PeerDenied(Denial.NO_CERTIFICATE, "the certificates of the peer are not known")
    return admitted.sent


def _decide(admission: PeerAdmission, peer: Peer, source: str, sent: SentCertificates | None, at: float) -> Verdict:
    """Judge a connection, on a thread."""
    try:
        if sent is not None:
            return admission(sent.digest, lambda: sent.chain, source, at=at)
        admission.check_known(peer, source)
    except PeerDenied as denied:
        return denied
    return None
