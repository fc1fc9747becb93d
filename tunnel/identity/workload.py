"""The client of the Workload API: a thread that turns one stream into events.

Knows gRPC, status codes and when to try again (Workload API, sections 4 and 5, appendix A); must not know which SVID is
wanted or what is done with it. Events are immutable and leave by one function, in order.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.identity.backoff import Backoff
from tunnel.identity.credentials import X509Context
from tunnel.identity.update import accept_update
from tunnel.spiffe.endpoint import Endpoint
from tunnel.spiffe.messages import HEADER, X509SvidResponse, method_path, parse_x509_svid_response

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes to standard error, which is not its place here
import grpc

_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a large federation passes gRPC's own limit of 4 MiB
_STEADY = 1.0  # seconds that a stream must have lived for its end to be met by an attempt at once
_CAP_STARTING, _CAP_RUNNING = 5.0, 30.0  # seconds between attempts: without any identity there is more to win
_NO_IDENTITY_FLOOR = 1.0  # an agent attests the caller anew each time
HOPELESS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}
CHANNEL_OPTIONS = (
    ("grpc.default_authority", "localhost"),  # a socket's path as authority is refused by strict servers
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
)


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
class Lost:
    """The stream is down; the next attempt is `delay` seconds away."""

    code: str
    details: str
    delay: float


@dataclass(frozen=True, slots=True)
class Denied(Lost):
    """The agent says that there is no identity for this process, now."""


@dataclass(frozen=True, slots=True)
class Hopeless:
    """Before the first identity, an answer that no new attempt will change; at any time, a bug of ours."""

    error: IdentityError
    code: str = ""  # of the answer


Event = Updated | Rejected | Lost | Denied | Hopeless


@dataclass(frozen=True, slots=True)
class _Ending:
    """How one stream ended."""

    code: grpc.StatusCode
    details: str


class WorkloadWatcher:
    """Keeps one `FetchX509SVID` stream open for as long as it runs."""

    def __init__(
        self,
        endpoint: Endpoint,
        emit: Callable[[Event], None],
        *,
        backoff: Backoff | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = grpc_target(endpoint)
        self._emit = emit
        self._backoff = backoff or Backoff()
        self._wall = wall
        self._clock = clock
        self._stopping = threading.Event()
        self._last: X509SvidResponse | None = None
        self._has_accepted = False  # on the stream at hand
        self._call: Any = None
        self._thread = threading.Thread(target=self._run, name="workload-api", daemon=True)

    def start(self) -> None:
        """Begin; events come from the watcher's own thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the stream and the thread."""
        self._stopping.set()
        if self._call is not None:
            self._call.cancel()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._watch()
        finally:
            if (crash := sys.exception()) is not None:  # a bug of ours: said aloud, and not the silent end of all updates
                self._emit(
                    Hopeless(IdentityError(IdentityFault.CRASHED, f"the watcher of the Workload API has failed: {crash!r}"))
                )

    def _watch(self) -> None:
        while not self._stopping.is_set():
            began = self._clock()
            self._has_accepted = False
            ending = self._follow_stream()
            if self._stopping.is_set():
                return
            if self._last is None and ending.code in HOPELESS:
                self._emit(Hopeless(refusal(ending.code.name, ending.details), ending.code.name))
                return
            event = self._ending_event(ending, is_steady=self._clock() - began >= _STEADY)
            self._emit(event)
            self._stopping.wait(event.delay)

    def _follow_stream(self) -> _Ending:
        with grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS) as channel:  # Workload Endpoint, section 3: no TLS
            fetch = channel.unary_stream(method_path("FetchX509SVID"))
            self._call = call = fetch(b"", metadata=(HEADER,))
            if self._stopping.is_set():
                call.cancel()
            try:
                for message in call:
                    self._take(message)
            except grpc.RpcError:
                pass  # the call itself knows how it ended
            return _Ending(call.code(), plain_words(call.details() or ""))

    def _take(self, message: bytes) -> None:
        try:
            response = parse_x509_svid_response(message)
            is_new = response != self._last
            context = accept_update(response, datetime.fromtimestamp(self._wall(), UTC))
        except WireError as error:
            self._emit(Rejected(IdentityError(IdentityFault.BAD_MESSAGE, str(error))))
            return
        except IdentityError as error:
            self._emit(Rejected(error))
            return
        self._last = response
        self._has_accepted = True
        self._backoff.reset()
        self._emit(Updated(context, is_new))

    def _ending_event(self, ending: _Ending, *, is_steady: bool) -> Lost:
        """The event for a stream's end, a clean one included (Workload API 4.1): the client comes back."""
        floor = 0.0 if self._has_accepted and is_steady else 0.5
        cap = _CAP_STARTING if self._last is None else _CAP_RUNNING
        code = ending.code.name
        if ending.code is grpc.StatusCode.PERMISSION_DENIED:
            return Denied(code, ending.details, self._backoff.next(floor=_NO_IDENTITY_FLOOR, cap=cap))
        if ending.code in HOPELESS:
            floor = cap
        return Lost(code, ending.details, self._backoff.next(floor=floor, cap=cap))


def plain_words(details: str) -> str:
    """What the agent says, or of gRPC's account of a failed connect only what the system said."""
    return details.rpartition(" error: ")[2] if details.startswith("failed to connect") else details


def refusal(code: str, details: str) -> IdentityError:
    """The error for an answer that no new attempt will change."""
    return IdentityError(IdentityFault.REFUSED, f"the Workload API will not serve this program: {code}: {details}")


def grpc_target(endpoint: Endpoint) -> str:
    """The endpoint as gRPC spells it."""
    if endpoint.path:
        return f"unix:{endpoint.path}"
    return f"ipv6:{endpoint.authority}" if ":" in endpoint.host else f"ipv4:{endpoint.authority}"
