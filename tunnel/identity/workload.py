"""The Workload API client: a thread that keeps one stream open and emits events (Workload API, sections 4 and 5, appendix A).

An open stream can be useless: the agent hangs, or its update becomes valid only later. So the thread does not wait only for
the stream: it also checks the clocks, evaluates a rejected update again when its validity begins, and opens a new stream
after a rejection, when a rotation is overdue and at expiry.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tunnel.backoff import Backoff
from tunnel.errors import IdentityError, IdentityFault, WireError, describe_crash, identity_errors
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.identity.events import Denied, Disconnected, FatalError, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.identity.grpc_channel import FATAL_CODES, fatal_error, open_channel, status_details
from tunnel.identity.update import accept_update
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.messages import HEADER, X509SvidResponse, method_path, parse_x509_svid_response
from tunnel.spiffe.selection import Selection

# isort: split
import grpc  # last: tunnel.identity.grpc_channel configures its logging first

_STABLE = 1.0  # seconds after which the end of a stream is followed by an attempt without delay
_CAP_STARTING, _CAP_RUNNING = 5.0, 30.0  # seconds between attempts, before and after the first identity
NO_IDENTITY_FLOOR = 1.0  # seconds: the agent attests the caller anew for each attempt
_REJECTED_FLOOR = 1.0  # seconds from a rejected update to a new stream
_FIRST_MESSAGE = 15.0  # seconds; an agent answers without delay (Workload API 4.1) unless it hangs
_CHECK_INTERVAL = 5.0  # seconds between checks of the wall clock, which may be set at any time

_ANY = Selection()
_Inbox = queue.Queue[bytes | None]


@dataclass(frozen=True, slots=True)
class _StreamEnd:
    """The status with which a stream ended."""

    code: grpc.StatusCode
    details: str


@dataclass(frozen=True, slots=True)
class _RejectedUpdate:
    """A rejected update, parsed if possible, and the monotonic time at which a new stream is opened."""

    response: X509SvidResponse | None
    error: IdentityError
    reopen_at: float


class WorkloadWatcher:
    """Keeps a `FetchX509SVID` stream open from `start` to `stop`."""

    def __init__(
        self,
        endpoint: WorkloadEndpoint,
        emit: Callable[[WorkloadEvent], None],
        selection: Selection = _ANY,
        *,
        wants_all: bool = False,  # verify every SVID, not only the selected one
        backoff: Backoff | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        check_interval: float = _CHECK_INTERVAL,
    ) -> None:
        self._endpoint = endpoint
        self._emit = emit
        self._accept = partial(accept_update, selection=selection, wants_all=wants_all)
        self._backoff = backoff or Backoff()
        self._wall = wall
        self._clock = clock
        self._check_interval = check_interval
        self._stopping = threading.Event()
        self._inbox: _Inbox = queue.Queue(1)
        self._last: X509Context | None = None
        self._current: X509Svid | None = None  # the newest accepted one
        self._renew_at = math.inf  # Unix time of the next attempt to get a newer one
        self._is_overdue = False
        self._rejection: _RejectedUpdate | None = None
        self._has_accepted = False  # on the current stream
        self._thread = threading.Thread(target=self._run, name="workload-api", daemon=True)

    def start(self) -> None:
        """Start the thread, which emits the events."""
        self._thread.start()

    def stop(self) -> None:
        """End the stream and the thread."""
        self._stopping.set()
        with suppress(queue.Full):  # the thread is not waiting
            self._inbox.put_nowait(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            if (crash := sys.exception()) is not None:  # without this event, updates would stop silently
                self._emit(
                    FatalError(
                        IdentityError(
                            IdentityFault.CRASHED, f"internal error in the Workload API client: {describe_crash(crash)}"
                        )
                    )
                )

    def _watch(self) -> None:
        while not self._stopping.is_set():
            began = self._clock()
            self._has_accepted = False
            ending = self._run_stream()
            if self._stopping.is_set():
                return
            if ending is None:
                continue
            if self._last is None and ending.code in FATAL_CODES:
                self._emit(FatalError(fatal_error(ending.code.name, ending.details), ending.code.name))
                return
            event = self._ending_event(ending, is_stable=self._clock() - began >= _STABLE)
            self._emit(event)
            self._pause(event.delay)

    # -- one stream

    def _run_stream(self) -> _StreamEnd | None:
        """Run one stream; return its end, or None if a new stream is needed at once."""
        self._inbox = inbox = _Inbox(1)
        if self._stopping.is_set():  # `stop` may have written to the previous queue
            return None
        with open_channel(self._endpoint) as channel:
            call = channel.unary_stream(method_path("FetchX509SVID"))(b"", metadata=(HEADER,))
            reader = threading.Thread(target=_read, args=(call, inbox), name="workload-api-stream", daemon=True)
            reader.start()
            try:
                return self._receive(call, inbox)
            finally:
                call.cancel()
                _drain(inbox, reader)

    def _receive(self, call: Any, inbox: _Inbox) -> _StreamEnd | None:
        first_until = self._clock() + _FIRST_MESSAGE
        while True:
            try:
                message = inbox.get(timeout=self._wait_timeout())
            except queue.Empty:
                self._retry_rejected()
                if self._clock() >= first_until:
                    return _StreamEnd(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {_FIRST_MESSAGE:g}s")
            else:
                if message is None:
                    return None if self._stopping.is_set() else _StreamEnd(call.code(), status_details(call.details()))
                first_until = math.inf
                self._parse(message)
            if self._stopping.is_set() or (first_until == math.inf and self._needs_new_stream()):
                return None

    def _parse(self, message: bytes) -> None:
        try:
            response = parse_x509_svid_response(message)
        except WireError as error:
            self._reject(None, IdentityError(IdentityFault.BAD_MESSAGE, str(error)))
        else:
            self._evaluate(response)

    def _evaluate(self, response: X509SvidResponse) -> None:
        try:
            with identity_errors("unusable update"):
                context = self._accept(response, datetime.fromtimestamp(self._wall(), UTC), current=self._current)
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
            self._renew_at = context.svid.next_renewal(self._wall())
            self._is_overdue = False
        self._emit(Updated(context, is_new))

    def _reject(self, response: X509SvidResponse | None, error: IdentityError) -> None:
        """Keep a rejected update for a later evaluation; emit an event unless the previous one has the same error."""
        is_repeated = self._rejection is not None and str(self._rejection.error) == str(error)
        self._rejection = _RejectedUpdate(response, error, self._clock() + self._next_delay(_REJECTED_FLOOR))
        if not is_repeated:
            self._emit(Rejected(error))

    # -- time

    def _wait_timeout(self) -> float:
        """Return the seconds until the next action, at most the check interval."""
        due = [self._renew_at - self._wall(), self._check_interval]
        if self._rejection is not None:
            due.append(self._rejection.reopen_at - self._clock())
            if self._rejection.error.begins is not None:
                due.append(self._rejection.error.begins.timestamp() - self._wall())
        return max(min(due), 0.01)

    def _retry_rejected(self) -> None:
        """Evaluate a rejected update again once its validity has begun."""
        rejection = self._rejection
        if rejection is None or rejection.response is None or rejection.error.begins is None:
            return
        if rejection.error.begins.timestamp() <= self._wall():
            self._evaluate(rejection.response)

    def _needs_new_stream(self) -> bool:
        """Return whether the current stream is useless: its update was rejected, or a rotation is overdue."""
        if self._rejection is not None and self._clock() >= self._rejection.reopen_at:
            self._rejection = replace(self._rejection, reopen_at=self._clock() + self._next_delay(_REJECTED_FLOOR))
            return True
        if self._current is None:
            return False
        self._renew_at = min(self._renew_at, self._current.next_renewal(self._wall()))  # the clock may have been set back
        if self._wall() < self._renew_at:
            return False
        if not self._is_overdue:
            self._is_overdue = True
            self._emit(Overdue(self._current))
        self._renew_at = self._current.next_renewal(self._wall())
        return True

    def _pause(self, delay: float) -> None:
        while delay > 0 and not self._stopping.wait(step := min(delay, self._check_interval)):
            delay -= step
            self._retry_rejected()

    def _next_delay(self, floor: float) -> float:
        return self._backoff.next(floor=floor, cap=_CAP_STARTING if self._last is None else _CAP_RUNNING)

    def _ending_event(self, ending: _StreamEnd, *, is_stable: bool) -> Disconnected:
        """Return the event for the end of a stream; after a clean end too the client reconnects (Workload API 4.1)."""
        code = ending.code.name
        if ending.code is grpc.StatusCode.PERMISSION_DENIED:
            self._rejection = None
            return Denied(code, ending.details, self._next_delay(NO_IDENTITY_FLOOR))
        floor = 0.0 if self._has_accepted and is_stable else 0.5
        return Disconnected(code, ending.details, self._next_delay(_CAP_RUNNING if ending.code in FATAL_CODES else floor))


def _read(call: Any, inbox: _Inbox) -> None:
    """Put every message of a stream into the queue, and None at its end; the call keeps the status."""
    try:
        for message in call:
            inbox.put(message)
    except grpc.RpcError:
        pass
    finally:
        inbox.put(None)


def _drain(inbox: _Inbox, reader: threading.Thread) -> None:
    """Wait for the reader thread of an ended stream, discarding what it still puts into the queue."""
    while reader.is_alive():
        with suppress(queue.Empty):
            inbox.get_nowait()
        reader.join(0.01)
