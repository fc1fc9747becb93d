"""The Workload API client: a thread that keeps one stream open for its subscribers (Workload API 4, 5 and appendix A).

An open stream can be useless: the agent hangs, or its update becomes valid only later. So the thread does not wait only for
the stream: it also checks the clocks, evaluates a rejected update again when its validity begins, and opens a new stream
after a rejection, when a rotation is overdue and at expiry of any subscriber. Each subscriber has its own state and delays;
the shortest delay counts.

The newest message is kept for subscribers that join later, with the private keys of all its SVIDs, until the next message, a
denial, or the end. The agent grants all of them to this process, and opening a new stream instead would disturb the others.
"""

from __future__ import annotations

import enum
import math
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from tunnel.backoff import Backoff
from tunnel.errors import IdentityError, IdentityFault, WireError, describe_crash, identity_errors
from tunnel.identity.events import Denied, Disconnected, FatalError, WorkloadEvent
from tunnel.identity.grpc_channel import FATAL_CODES, fatal_error, open_channel, status_details
from tunnel.identity.subscription import RUNNING_CAP, Clocks, ReceivedUpdate, Subscription
from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.messages import HEADER, method_path, parse_x509_svid_response
from tunnel.spiffe.selection import Selection

# isort: split
import grpc  # last: tunnel.identity.grpc_channel configures its logging first

_STABLE = 1.0  # seconds after which the end of a stream is followed by an attempt without delay
NO_IDENTITY_FLOOR = 1.0  # seconds: the agent attests the caller anew for each attempt
_FIRST_MESSAGE = 15.0  # seconds; an agent answers without delay (Workload API 4.1) unless it hangs
_CHECK_INTERVAL = 5.0  # seconds between checks of the wall clock, which may be set at any time
_CRASH_PLACE = "Workload API client"

_ANY = Selection()

T = TypeVar("T")


class _Signal(enum.Enum):
    """What the queue of a stream contains besides messages."""

    ENDED = enum.auto()  # the call has the status
    WOKEN = enum.auto()  # a subscriber has joined, or the thread is to stop


_Inbox = queue.Queue[bytes | _Signal]


@dataclass(frozen=True, slots=True)
class _StreamEnd:
    """The status with which a stream ended."""

    code: grpc.StatusCode
    details: str


class WorkloadStream:
    """Keeps a `FetchX509SVID` stream open from `start` to `stop`; subscribers may join and leave at any time."""

    def __init__(
        self,
        endpoint: WorkloadEndpoint,
        *,
        clocks: Clocks | None = None,
        new_backoff: Callable[[], Backoff] = Backoff,  # for each subscriber
        check_interval: float = _CHECK_INTERVAL,
    ) -> None:
        self._endpoint = endpoint
        self._clocks = clocks or Clocks()
        self._new_backoff = new_backoff
        self._check_interval = check_interval
        self._stopping = threading.Event()
        self._inbox: _Inbox = queue.Queue(1)
        self._lock = threading.Lock()  # for changes of the next two
        self._subscriptions: tuple[Subscription, ...] = ()
        self._failure: FatalError | None = None
        self._newest: ReceivedUpdate | None = None
        self._thread = threading.Thread(target=self._run, name="workload-api", daemon=True)

    def start(self) -> None:
        """Start the thread, which emits the events, unless it has been started before."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """End the stream and the thread."""
        self._stopping.set()
        self._wake()
        self._thread.join()

    # -- subscribers; any thread may call these

    def subscribe(
        self, emit: Callable[[WorkloadEvent], None], selection: Selection = _ANY, *, wants_all: bool = False
    ) -> Subscription:
        """Add a subscriber, which gets the newest update at once, or the fatal error that has ended the stream."""
        subscription = Subscription(emit, selection, wants_all=wants_all, backoff=self._new_backoff(), clocks=self._clocks)
        with self._lock:
            failure = self._failure
            if failure is None:
                self._subscriptions += (subscription,)
        if failure is not None:
            emit(failure)
        self._wake()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscriber; an event that is being emitted may still arrive."""
        with self._lock:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)

    @property
    def has_failed(self) -> bool:
        """Whether a fatal error has ended the stream."""
        return self._failure is not None

    @property
    def is_unused(self) -> bool:
        """Whether nothing is subscribed."""
        return not self._subscriptions

    def _wake(self) -> None:
        with suppress(queue.Full):  # the thread is not waiting
            self._inbox.put_nowait(_Signal.WOKEN)

    # -- the thread

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            if (crash := sys.exception()) is not None:  # without this event, updates would stop silently
                text = f"internal error in the {_CRASH_PLACE}: {describe_crash(crash)}"
                self._fail(FatalError(IdentityError(IdentityFault.CRASHED, text)))

    def _watch(self) -> None:
        while not self._stopping.is_set():
            began = self._clocks.monotonic()
            self._for_each(Subscription.begin_stream)
            ending = self._run_stream()
            if self._stopping.is_set():
                return
            if ending is None:
                continue
            if ending.code in FATAL_CODES and not any(one.is_served for one in self._subscriptions):
                self._fail(FatalError(fatal_error(ending.code.name, ending.details), ending.code.name))
                return
            self._pause(self._report_end(ending, is_stable=self._clocks.monotonic() - began >= _STABLE))

    def _fail(self, event: FatalError) -> None:
        with self._lock:
            self._failure = event
            subscriptions, self._subscriptions = self._subscriptions, ()
        for subscription in subscriptions:
            subscription.emit(event)

    def _for_each(self, act: Callable[[Subscription], T]) -> list[T]:
        """Return what `act` returns for each subscriber; one for which it fails gets a FatalError and is removed."""
        results = []
        for subscription in self._subscriptions:
            try:
                with identity_errors(_CRASH_PLACE):
                    results.append(act(subscription))
            except IdentityError as error:
                self.unsubscribe(subscription)
                subscription.emit(FatalError(error))
        return results

    # -- one stream

    def _run_stream(self) -> _StreamEnd | None:
        """Run one stream; return its end, or None if a new stream is needed at once."""
        self._inbox = inbox = _Inbox(1)
        if self._stopping.is_set():  # `stop` may have written to the previous queue
            return None
        first_until = self._clocks.monotonic() + _FIRST_MESSAGE
        with open_channel(self._endpoint) as channel:
            call = channel.unary_stream(method_path("FetchX509SVID"))(b"", metadata=(HEADER,))
            reader = threading.Thread(target=_read, args=(call, inbox), name="workload-api-stream", daemon=True)
            reader.start()
            try:
                return self._receive(call, inbox, first_until)
            finally:
                call.cancel()
                _drain(inbox, reader)

    def _receive(self, call: Any, inbox: _Inbox, first_until: float) -> _StreamEnd | None:
        while True:
            self._admit()
            try:
                item = inbox.get(timeout=self._wait_timeout())
            except queue.Empty:
                self._for_each(Subscription.retry_rejected)
                if self._clocks.monotonic() >= first_until:
                    return _StreamEnd(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {_FIRST_MESSAGE:g}s")
            else:
                if item is _Signal.ENDED:
                    return None if self._stopping.is_set() else _StreamEnd(call.code(), status_details(call.details()))
                if item is not _Signal.WOKEN:
                    first_until = math.inf
                    self._deliver(_parse(item))
            if self._stopping.is_set() or (first_until == math.inf and self._needs_new_stream()):
                return None

    def _admit(self) -> bool:
        """Let subscribers that have joined evaluate the newest update, if any; return whether there are any."""
        joining = [one for one in self._subscriptions if one.is_joining]
        for subscription in joining:
            subscription.is_joining = False
        if joining and (newest := self._newest) is not None:
            self._for_each(lambda one: one.take(newest) if one in joining else None)
        return bool(joining)

    def _deliver(self, update: ReceivedUpdate) -> None:
        self._newest = update
        self._for_each(lambda one: one.take(update))

    def _wait_timeout(self) -> float:
        """Return the seconds until the next action, at most the check interval."""
        return max(min([self._check_interval, *self._for_each(Subscription.seconds_to_action)]), 0.01)

    def _needs_new_stream(self) -> bool:
        return any(self._for_each(Subscription.needs_new_stream))  # each one plans its next attempt

    # -- between two streams

    def _report_end(self, ending: _StreamEnd, *, is_stable: bool) -> float:
        """Emit the end of a stream and return the delay; after a clean end too the client reconnects (Workload API 4.1)."""
        is_denied = ending.code is grpc.StatusCode.PERMISSION_DENIED
        floor = NO_IDENTITY_FLOOR if is_denied else RUNNING_CAP if ending.code in FATAL_CODES else None
        if is_denied:
            self._newest = None
        delay = min(self._for_each(lambda one: one.reconnect_delay(floor, is_stable=is_stable)), default=0.0)
        event = (Denied if is_denied else Disconnected)(ending.code.name, ending.details, delay)
        self._for_each(lambda one: one.end_stream(event))
        return delay

    def _pause(self, delay: float) -> None:
        """Wait so many seconds, or until a subscriber joins."""
        self._inbox = inbox = _Inbox(1)
        while delay > 0 and not self._admit() and not self._stopping.is_set():
            step = min(delay, self._check_interval)
            with suppress(queue.Empty):
                inbox.get(timeout=step)
            delay -= step
            self._for_each(Subscription.retry_rejected)


def _parse(message: bytes) -> ReceivedUpdate:
    try:
        return parse_x509_svid_response(message)
    except WireError as error:
        return IdentityError(IdentityFault.BAD_MESSAGE, str(error))


def _read(call: Any, inbox: _Inbox) -> None:
    """Put every message of a stream into the queue, and ENDED at its end; the call keeps the status."""
    try:
        for message in call:
            inbox.put(message)
    except grpc.RpcError:
        pass
    finally:
        inbox.put(_Signal.ENDED)


def _drain(inbox: _Inbox, reader: threading.Thread) -> None:
    """Wait for the reader thread of an ended stream, discarding what it still puts into the queue."""
    while reader.is_alive():
        with suppress(queue.Empty):
            inbox.get_nowait()
        reader.join(0.01)
