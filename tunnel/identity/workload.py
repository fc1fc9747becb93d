"""The client of the Workload API: a thread that turns one stream into events (Workload API, sections 4 and 5, appendix A).

A stream can stay open and be of no use: its agent hangs, or what it sent is good only later. So the thread never waits for the
stream alone. It looks at the clocks, judges a rejected update again when its dates allow, and opens a new stream after a
rejection, when a rotation is overdue and at expiry.
"""

from __future__ import annotations

import math
import os
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
from urllib.parse import quote

from tunnel.errors import IdentityError, IdentityFault, WireError, describe_crash, identity_errors
from tunnel.identity.backoff import Backoff
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.identity.rotation import next_attempt
from tunnel.identity.update import accept_update
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.messages import HEADER, X509SvidResponse, method_path, parse_x509_svid_response
from tunnel.spiffe.selection import Selection

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes to standard error, which is not its place here
import grpc

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # the one limit on what an agent sends; gRPC's own of 4 MiB is too small
_STEADY = 1.0  # seconds that a stream must have lived for its end to be met by an attempt at once
_CAP_STARTING, _CAP_RUNNING = 5.0, 30.0  # seconds between attempts: without any identity there is more to win
_NO_IDENTITY_FLOOR = 1.0  # an agent attests the caller anew each time
_REJECTED_FLOOR = 1.0  # seconds from a rejected update to a new stream
_FIRST_MESSAGE = 15.0  # seconds; an agent sends it without delay (Workload API 4.1), or it hangs
_LOOK = 5.0  # seconds between looks at the wall clock, which may be set
FATAL = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # a socket's path as authority is refused by strict servers
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, not the one to an agent that hangs
    # Finds a TCP peer that has vanished. gRPC servers end a connection that pings more often than every 5 minutes.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)


_ANY = Selection()
_Inbox = queue.Queue[bytes | None]


@dataclass(frozen=True, slots=True)
class Updated:
    """A good update; `is_new` unless it equals the one before."""

    context: X509Context
    is_new: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """An update that was not taken: the last good one stays."""

    error: IdentityError


@dataclass(frozen=True, slots=True)
class Overdue:
    """An SVID should have been renewed, and the stream brings nothing: a new one is opened. Once for each SVID."""

    svid: X509Svid


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream is down; the next attempt is `delay` seconds away."""

    code: str
    details: str
    delay: float


@dataclass(frozen=True, slots=True)
class Denied(Disconnected):
    """The agent says that there is no identity for this process, now."""


@dataclass(frozen=True, slots=True)
class FatalError:
    """Before the first identity, an answer that no new attempt will change; at any time, a bug of ours."""

    error: IdentityError
    code: str = ""  # of the answer


Event = Updated | Rejected | Overdue | Disconnected | Denied | FatalError


@dataclass(frozen=True, slots=True)
class _Ending:
    """How one stream ended."""

    code: grpc.StatusCode
    details: str


@dataclass(frozen=True, slots=True)
class _Rejection:
    """An update that was not taken, if it could be read, and the moment on the clock for a new stream."""

    response: X509SvidResponse | None
    error: IdentityError
    reopen_at: float


class WorkloadWatcher:
    """Keeps a `FetchX509SVID` stream open for as long as it runs."""

    def __init__(
        self,
        endpoint: WorkloadEndpoint,
        emit: Callable[[Event], None],
        selection: Selection = _ANY,
        *,
        wants_all: bool = False,  # every SVID is verified, not the selected one only
        backoff: Backoff | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        look: float = _LOOK,
    ) -> None:
        self._target = grpc_target(endpoint)
        self._emit = emit
        self._accept = partial(accept_update, selection=selection, wants_all=wants_all)
        self._backoff = backoff or Backoff()
        self._wall = wall
        self._clock = clock
        self._look = look
        self._stopping = threading.Event()
        self._inbox: _Inbox = queue.Queue(1)
        self._last: X509Context | None = None
        self._current: X509Svid | None = None  # the newest good one
        self._renew_at = math.inf  # Unix time of the next attempt to have a newer one
        self._is_overdue = False
        self._rejection: _Rejection | None = None
        self._has_accepted = False  # on the stream at hand
        self._thread = threading.Thread(target=self._run, name="workload-api", daemon=True)

    def start(self) -> None:
        """Begin; events come from the watcher's own thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the stream and the thread."""
        self._stopping.set()
        with suppress(queue.Full):  # then it is not waiting
            self._inbox.put_nowait(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            if (crash := sys.exception()) is not None:  # a bug of ours: said aloud, and not the silent end of all updates
                self._emit(
                    FatalError(
                        IdentityError(
                            IdentityFault.CRASHED, f"the watcher of the Workload API has failed: {describe_crash(crash)}"
                        )
                    )
                )

    def _watch(self) -> None:
        while not self._stopping.is_set():
            began = self._clock()
            self._has_accepted = False
            ending = self._follow_stream()
            if self._stopping.is_set():
                return
            if ending is None:
                continue
            if self._last is None and ending.code in FATAL:
                self._emit(FatalError(refusal(ending.code.name, ending.details), ending.code.name))
                return
            event = self._ending_event(ending, is_steady=self._clock() - began >= _STEADY)
            self._emit(event)
            self._pause(event.delay)

    # -- one stream

    def _follow_stream(self) -> _Ending | None:
        """How the stream has ended; None when a new one is wanted in its place."""
        self._inbox = inbox = _Inbox(1)
        if self._stopping.is_set():  # `stop` may have put its word into the one before
            return None
        with grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel:  # Workload Endpoint, section 3: no TLS
            call = channel.unary_stream(method_path("FetchX509SVID"))(b"", metadata=(HEADER,))
            reader = threading.Thread(target=_read, args=(call, inbox), name="workload-api-stream", daemon=True)
            reader.start()
            try:
                return self._take_messages(call, inbox)
            finally:
                call.cancel()
                _drain(inbox, reader)

    def _take_messages(self, call: Any, inbox: _Inbox) -> _Ending | None:
        first_until = self._clock() + _FIRST_MESSAGE
        while True:
            try:
                message = inbox.get(timeout=self._until_look())
            except queue.Empty:
                self._reconsider()
                if self._clock() >= first_until:
                    return _Ending(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {_FIRST_MESSAGE:g}s")
            else:
                if message is None:
                    return None if self._stopping.is_set() else _Ending(call.code(), plain_words(call.details() or ""))
                first_until = math.inf
                self._take(message)
            if self._stopping.is_set() or (first_until == math.inf and self._wants_new_stream()):
                return None

    def _take(self, message: bytes) -> None:
        try:
            response = parse_x509_svid_response(message)
        except WireError as error:
            self._reject(None, IdentityError(IdentityFault.BAD_MESSAGE, str(error)))
        else:
            self._judge(response)

    def _judge(self, response: X509SvidResponse) -> None:
        try:
            with identity_errors("the update cannot be used"):
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
            self._renew_at = next_attempt(context.svid, self._wall())
            self._is_overdue = False
        self._emit(Updated(context, is_new))

    def _reject(self, response: X509SvidResponse | None, error: IdentityError) -> None:
        """Keep an update that cannot be used now; the same one is told once."""
        is_known = self._rejection is not None and str(self._rejection.error) == str(error)
        self._rejection = _Rejection(response, error, self._clock() + self._next_delay(_REJECTED_FLOOR))
        if not is_known:
            self._emit(Rejected(error))

    # -- what time changes

    def _until_look(self) -> float:
        """Seconds until something may have to be done, at most until the next look at the clocks."""
        due = [self._renew_at - self._wall(), self._look]
        if self._rejection is not None:
            due.append(self._rejection.reopen_at - self._clock())
            if self._rejection.error.begins is not None:
                due.append(self._rejection.error.begins.timestamp() - self._wall())
        return max(min(due), 0.01)

    def _reconsider(self) -> None:
        """Judge a rejected update again when its dates allow."""
        rejection = self._rejection
        if rejection is None or rejection.response is None or rejection.error.begins is None:
            return
        if rejection.error.begins.timestamp() <= self._wall():
            self._judge(rejection.response)

    def _wants_new_stream(self) -> bool:
        """Whether the stream at hand is of no use: its update was rejected, or a rotation is overdue."""
        if self._rejection is not None and self._clock() >= self._rejection.reopen_at:
            self._rejection = replace(self._rejection, reopen_at=self._clock() + self._next_delay(_REJECTED_FLOOR))
            return True
        if self._current is None:
            return False
        self._renew_at = min(self._renew_at, next_attempt(self._current, self._wall()))  # the clock may have been set back
        if self._wall() < self._renew_at:
            return False
        if not self._is_overdue:
            self._is_overdue = True
            self._emit(Overdue(self._current))
        self._renew_at = next_attempt(self._current, self._wall())
        return True

    def _pause(self, delay: float) -> None:
        while delay > 0 and not self._stopping.wait(step := min(delay, self._look)):
            delay -= step
            self._reconsider()

    def _next_delay(self, floor: float) -> float:
        return self._backoff.next(floor=floor, cap=_CAP_STARTING if self._last is None else _CAP_RUNNING)

    def _ending_event(self, ending: _Ending, *, is_steady: bool) -> Disconnected:
        """The event for a stream's end, a clean one included (Workload API 4.1): the client comes back."""
        code = ending.code.name
        if ending.code is grpc.StatusCode.PERMISSION_DENIED:
            self._rejection = None
            return Denied(code, ending.details, self._next_delay(_NO_IDENTITY_FLOOR))
        floor = 0.0 if self._has_accepted and is_steady else 0.5
        return Disconnected(code, ending.details, self._next_delay(_CAP_RUNNING if ending.code in FATAL else floor))


def _read(call: Any, inbox: _Inbox) -> None:
    """Hand over every message of a stream, and None at its end, which the call itself knows."""
    try:
        for message in call:
            inbox.put(message)
    except grpc.RpcError:
        pass
    finally:
        inbox.put(None)


def _drain(inbox: _Inbox, reader: threading.Thread) -> None:
    """Wait for the reader of a stream that is over; it may have something left to hand over."""
    while reader.is_alive():
        with suppress(queue.Empty):
            inbox.get_nowait()
        reader.join(0.01)


def plain_words(details: str) -> str:
    """What the agent says, or of gRPC's account of a failed connect only what the system said."""
    return details.rpartition(" error: ")[2] if details.startswith("failed to connect") else details


def refusal(code: str, details: str) -> IdentityError:
    """The error for an answer that no new attempt will change."""
    return IdentityError(IdentityFault.REFUSED, f"the Workload API will not serve this program: {code}: {details}")


def grpc_target(endpoint: WorkloadEndpoint) -> str:
    """The endpoint as gRPC spells it."""
    if endpoint.path:
        return f"unix:{quote(os.fsencode(endpoint.path))}"  # gRPC reads a URI
    return f"ipv6:{endpoint.authority}" if ":" in endpoint.host else f"ipv4:{endpoint.authority}"
