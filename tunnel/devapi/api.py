"""The development Workload API as one object: start it, change its answers, stop it.

Its methods may be called from any thread. Keys exist in memory only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from types import TracebackType

from tunnel.config.dev_model import Entry, Issuing, check_local
from tunnel.devapi.authority import IssuedSvid
from tunnel.devapi.issuing_state import IssuingState
from tunnel.devapi.jwt_calls import answer_fetch, answer_validate
from tunnel.devapi.publisher import NO_IDENTITY, Answer, AnswerPublisher
from tunnel.devapi.server import serve
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain

SVIDS = "FetchX509SVID"
BUNDLES = "FetchX509Bundles"
JWT_SVIDS = "FetchJWTSVID"
JWT_BUNDLES = "FetchJWTBundles"
VALIDATE = "ValidateJWTSVID"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class DevWorkloadApi:
    """A Workload API on one or several sockets; as a context manager it serves from entry to exit."""

    def __init__(
        self,
        sockets: Mapping[WorkloadEndpoint, Iterable[Entry]],
        *,
        issuing: Issuing | None = None,
        federations: Iterable[Iterable[TrustDomain]] = (),
        socket_mode: int = 0o600,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        """Does not listen yet; raises ConfigError for an endpoint that other machines can reach."""
        for endpoint in sockets:
            check_local(endpoint)
        self._clock = clock
        self._socket_mode = socket_mode
        self._lock = threading.Lock()
        self._state = IssuingState(issuing or Issuing())
        self._withdrawn: set[WorkloadEndpoint] = set()
        self._overrides: dict[tuple[WorkloadEndpoint, str], Answer] = {}
        self._publishers = {
            endpoint: {SVIDS: AnswerPublisher(), BUNDLES: AnswerPublisher(), JWT_BUNDLES: AnswerPublisher()}
            for endpoint in sockets
        }
        self._running = ExitStack()
        with self._changed_state() as state:
            for endpoint, entries in sockets.items():
                for entry in entries:
                    state.register(endpoint, entry, clock())
            for federation in federations:
                state.federate(federation, clock())

    def __enter__(self) -> DevWorkloadApi:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on all sockets; raises ConfigError, and then listens on none."""
        with ExitStack() as started:
            for endpoint, publishers in self._publishers.items():
                calls = {rpc: partial(self._answer, endpoint, rpc) for rpc in (JWT_SVIDS, VALIDATE)}
                started.enter_context(serve(endpoint, publishers, calls, socket_mode=self._socket_mode))
            self._running = started.pop_all()

    def stop(self) -> None:
        """Close every connection and remove the sockets; a later `start` serves the same state, like a restarted agent."""
        self._running.close()

    def rotate_svids(self) -> None:
        """Replace every SVID by a new one."""
        with self._changed_state() as state:
            state.renew(self._clock())

    def prepare_authorities(self) -> None:
        """Step 1 of an authority rotation: add the next authorities to the bundles."""
        with self._changed_state() as state:
            state.prepare(self._clock())

    def activate_authorities(self) -> None:
        """Step 2: sign with the prepared authorities, and renew all SVIDs."""
        with self._changed_state() as state:
            state.activate(self._clock())

    def drop_old_authorities(self) -> None:
        """Step 3: remove the previous authorities from the bundles."""
        with self._changed_state() as state:
            state.drop_old()

    def register(self, endpoint: WorkloadEndpoint, entry: Entry) -> None:
        """Add an identity to a socket."""
        with self._changed_state() as state:
            state.register(endpoint, entry, self._clock())

    def unregister(self, endpoint: WorkloadEndpoint, entry: Entry) -> None:
        """Remove an identity; a socket without one answers like an agent without an entry."""
        with self._changed_state() as state:
            state.unregister(endpoint, entry)

    def federate(self, *domains: TrustDomain) -> None:
        """Give the workloads of each domain the bundles of the others."""
        with self._changed_state() as state:
            state.federate(domains, self._clock())

    def unfederate(self, *domains: TrustDomain) -> None:
        """Undo `federate` for the same domains."""
        with self._changed_state() as state:
            state.unfederate(domains)

    def withdraw(self, endpoint: WorkloadEndpoint) -> None:
        """Answer "no identity issued" on a socket, its open streams included, until `restore`."""
        with self._changed_state():
            self._withdrawn.add(endpoint)

    def restore(self, endpoint: WorkloadEndpoint) -> None:
        """Serve a withdrawn socket again."""
        with self._changed_state():
            self._withdrawn.discard(endpoint)

    def publish(self, endpoint: WorkloadEndpoint, rpc: str, answer: Answer) -> None:
        """Answer with any bytes or status, until the next change of the state."""
        publisher = self._publishers[endpoint].get(rpc)
        if publisher is not None:
            publisher.publish(answer)
        else:
            with self._lock:
                self._overrides[endpoint, rpc] = answer

    def end_streams(self, endpoint: WorkloadEndpoint) -> None:
        """End the open streams of a socket with OK; new ones are served."""
        for publisher in self._publishers[endpoint].values():
            publisher.end_streams()

    def stream_count(self, endpoint: WorkloadEndpoint) -> int:
        """Return the number of open streams of a socket."""
        return sum(publisher.stream_count for publisher in self._publishers[endpoint].values())

    def issued(self, endpoint: WorkloadEndpoint) -> tuple[IssuedSvid, ...]:
        """Return the current SVIDs of a socket, the default first."""
        with self._lock:
            return self._state.issued(endpoint)

    def _answer(self, endpoint: WorkloadEndpoint, rpc: str, request: bytes) -> Answer:
        """Return the answer to a unary call."""
        with self._lock:
            if (endpoint, rpc) in self._overrides:
                return self._overrides[endpoint, rpc]
            if rpc == VALIDATE:
                return answer_validate(self._state, endpoint, request, self._clock())
            answer = answer_fetch(self._state, endpoint, request, self._clock())
            return NO_IDENTITY if endpoint in self._withdrawn and isinstance(answer, bytes) else answer

    @contextmanager
    def _changed_state(self) -> Iterator[IssuingState]:
        """Yield the state under the lock, and publish its messages afterwards."""
        with self._lock:
            yield self._state
            self._overrides.clear()
            messages = {
                SVIDS: self._state.svid_message,
                BUNDLES: self._state.bundles_message,
                JWT_BUNDLES: self._state.jwt_bundles_message,
            }
            for endpoint, publishers in self._publishers.items():
                is_withdrawn = endpoint in self._withdrawn
                for rpc, message in messages.items():
                    publishers[rpc].publish(NO_IDENTITY if is_withdrawn else message(endpoint) or NO_IDENTITY)
