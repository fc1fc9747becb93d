"""The development Workload API as one object: start it, change what it says, stop it.

Knows which feeds belong to which socket and publishes after every change; must not know gRPC or flags. Its methods may be
called from any thread; keys live in memory only.
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
from tunnel.devapi.jwt_calls import answer_fetch, answer_validate
from tunnel.devapi.plan import Plan
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
        """Nothing listens yet; raises ConfigError for an endpoint that is not of this machine only."""
        for endpoint in sockets:
            check_local(endpoint)
        self._clock = clock
        self._socket_mode = socket_mode
        self._lock = threading.Lock()
        self._plan = Plan(issuing or Issuing())
        self._withdrawn: set[WorkloadEndpoint] = set()
        self._said: dict[tuple[WorkloadEndpoint, str], Answer] = {}
        self._publishers = {
            endpoint: {SVIDS: AnswerPublisher(), BUNDLES: AnswerPublisher(), JWT_BUNDLES: AnswerPublisher()}
            for endpoint in sockets
        }
        self._running = ExitStack()
        with self._changed_plan() as plan:
            for endpoint, entries in sockets.items():
                for entry in entries:
                    plan.register(endpoint, entry, clock())
            for federation in federations:
                plan.federate(federation, clock())

    def __enter__(self) -> DevWorkloadApi:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on every socket or on none; raises ConfigError."""
        with ExitStack() as started:
            for endpoint, publishers in self._publishers.items():
                calls = {rpc: partial(self._answer, endpoint, rpc) for rpc in (JWT_SVIDS, VALIDATE)}
                started.enter_context(serve(endpoint, publishers, calls, socket_mode=self._socket_mode))
            self._running = started.pop_all()

    def stop(self) -> None:
        """Cut every connection and remove the sockets; a later `start` serves the same state, as a restarted agent."""
        self._running.close()

    def rotate_svids(self) -> None:
        """Issue every SVID anew."""
        with self._changed_plan() as plan:
            plan.renew(self._clock())

    def prepare_authorities(self) -> None:
        """First step of a change of authority: the next one joins the bundles."""
        with self._changed_plan() as plan:
            plan.prepare(self._clock())

    def activate_authorities(self) -> None:
        """Second step: the prepared one signs, and all SVIDs are renewed by it."""
        with self._changed_plan() as plan:
            plan.activate(self._clock())

    def drop_old_authorities(self) -> None:
        """Third step: the one before leaves the bundles."""
        with self._changed_plan() as plan:
            plan.drop_old()

    def register(self, endpoint: WorkloadEndpoint, entry: Entry) -> None:
        """Hand out one more identity on a socket."""
        with self._changed_plan() as plan:
            plan.register(endpoint, entry, self._clock())

    def unregister(self, endpoint: WorkloadEndpoint, entry: Entry) -> None:
        """Take one identity away; a socket without any answers as an agent without an entry."""
        with self._changed_plan() as plan:
            plan.unregister(endpoint, entry)

    def federate(self, *domains: TrustDomain) -> None:
        """Give the workloads of each domain the bundles of the others."""
        with self._changed_plan() as plan:
            plan.federate(domains, self._clock())

    def unfederate(self, *domains: TrustDomain) -> None:
        """Take back what `federate` gave for the same domains."""
        with self._changed_plan() as plan:
            plan.unfederate(domains)

    def withdraw(self, endpoint: WorkloadEndpoint) -> None:
        """Answer "no identity issued" on a socket, its open streams included, until `restore`."""
        with self._changed_plan():
            self._withdrawn.add(endpoint)

    def restore(self, endpoint: WorkloadEndpoint) -> None:
        """Serve a withdrawn socket again."""
        with self._changed_plan():
            self._withdrawn.discard(endpoint)

    def publish(self, endpoint: WorkloadEndpoint, rpc: str, answer: Answer) -> None:
        """Say something else than the plan has it, until the next change: any bytes, or any status."""
        publisher = self._publishers[endpoint].get(rpc)
        if publisher is not None:
            publisher.publish(answer)
        else:
            with self._lock:
                self._said[endpoint, rpc] = answer

    def end_streams(self, endpoint: WorkloadEndpoint) -> None:
        """End the open streams of a socket with OK; new ones are served."""
        for publisher in self._publishers[endpoint].values():
            publisher.end_streams()

    def stream_count(self, endpoint: WorkloadEndpoint) -> int:
        """How many streams are open on a socket."""
        return sum(publisher.stream_count for publisher in self._publishers[endpoint].values())

    def issued(self, endpoint: WorkloadEndpoint) -> tuple[IssuedSvid, ...]:
        """The current SVIDs of one socket, the default first."""
        with self._lock:
            return self._plan.issued(endpoint)

    def _answer(self, endpoint: WorkloadEndpoint, rpc: str, request: bytes) -> Answer:
        """What a call with one answer gets now."""
        with self._lock:
            if (endpoint, rpc) in self._said:
                return self._said[endpoint, rpc]
            if rpc == VALIDATE:
                return answer_validate(self._plan, endpoint, request, self._clock())
            answer = answer_fetch(self._plan, endpoint, request, self._clock())
            return NO_IDENTITY if endpoint in self._withdrawn and isinstance(answer, bytes) else answer

    @contextmanager
    def _changed_plan(self) -> Iterator[Plan]:
        """The plan, to be changed by one thread at a time; what it says afterwards is published."""
        with self._lock:
            yield self._plan
            self._said.clear()
            messages = {
                SVIDS: self._plan.svid_message,
                BUNDLES: self._plan.bundles_message,
                JWT_BUNDLES: self._plan.jwt_bundles_message,
            }
            for endpoint, publishers in self._publishers.items():
                is_withdrawn = endpoint in self._withdrawn
                for rpc, message in messages.items():
                    publishers[rpc].publish(NO_IDENTITY if is_withdrawn else message(endpoint) or NO_IDENTITY)
