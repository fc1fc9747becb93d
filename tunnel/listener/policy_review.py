"""The judgement of open connections by a policy: on a thread, one at a time, so that new connections do not wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from tunnel.authz.authorizer import Admitted
from tunnel.errors import PeerDenied
from tunnel.lazy_dataclass import dataclass
from tunnel.relay.loop import Loop
from tunnel.tls.engine import TlsEnd

if TYPE_CHECKING:  # loaded with the first thread
    from concurrent.futures import Future

Verdict = Admitted | PeerDenied | None  # None for an unchanged admission


class OpenConnection(Protocol):
    """A session, as a review uses it."""

    @property
    def is_relayed(self) -> bool:
        """Whether the relay has begun and not ended."""

    @property
    def admitted(self) -> Admitted | None:
        """The admission of the peer."""

    @property
    def source(self) -> str:
        """The address of the client: `tcp:HOST:PORT` or `unix:PATH`."""

    @property
    def tls_end(self) -> TlsEnd:
        """Our end of the TLS connection of a relay."""

    def readmit_as(self, admitted: Admitted) -> None:
        """Replace the admission."""

    def withdraw(self, cause: str, detail: str) -> None:
        """Close the relay; `cause` is an enumerated reason."""

    def crashed(self, crash: Exception) -> None:
        """Close everything after an unexpected exception."""


@dataclass(frozen=True, slots=True)
class PolicyQuestion:
    """What a thread is asked about a connection; connections with equal keys get the same verdict."""

    key: object
    ask: Callable[[], Verdict]


class PolicyReview:
    """A queue of connections that wait for the verdict of a policy."""

    def __init__(
        self,
        loop: Loop,
        prepare: Callable[[OpenConnection], PolicyQuestion | Verdict],
        settle: Callable[[OpenConnection, Verdict], None],
        proceed: Callable[[], None],
    ) -> None:
        """`prepare` returns the question about a connection, `settle` takes its verdict; `proceed` arranges the next call."""
        self._loop = loop
        self._prepare = prepare
        self._settle = settle
        self._proceed = proceed
        self._waiting: deque[OpenConnection] = deque()
        self._verdicts: dict[object, Verdict] = {}
        self._asked: OpenConnection | None = None  # the connection that a thread judges
        self._current: OpenConnection | None = None
        self._number = 0  # of restarts

    @property
    def is_running(self) -> bool:
        """Whether verdicts are pending."""
        return bool(self._waiting or self._asked)

    def add(self, connection: OpenConnection) -> None:
        """Append a connection."""
        self._waiting.append(connection)

    def restart(self) -> None:
        """Forget the queue and all verdicts, also the one that is pending."""
        self._number += 1
        self._waiting.clear()
        self._verdicts.clear()

    def run(self) -> None:
        """Settle what is known, and ask about the next connection."""
        while self._waiting and self._asked is None:
            connection = self._current = self._waiting.popleft()
            if connection.is_relayed:
                self._judge(connection)
        self._current = None
        if not self.is_running:
            self._verdicts.clear()

    def _judge(self, connection: OpenConnection) -> None:
        question = self._prepare(connection)
        if not isinstance(question, PolicyQuestion):
            self._settle(connection, question)
        elif question.key in self._verdicts:
            self._settle(connection, self._verdicts[question.key])
        else:
            self._asked = connection
            self._loop.call_in_thread(question.ask, partial(self._take_verdict, question.key, self._number), self)

    def _take_verdict(self, key: object, number: int, answer: Future[Verdict]) -> None:
        connection, self._asked = self._asked, None
        self._current = connection
        if number == self._number and connection is not None:  # else it is judged again by a newer generation
            verdict = self._verdicts[key] = answer.result()
            if connection.is_relayed:
                self._settle(connection, verdict)
        self._current = None
        self._proceed()

    def crashed(self, crash: Exception) -> None:
        """End the connection that was judged after an unexpected exception; the others are judged."""
        connection, self._current = self._current, None
        if connection is not None and connection.is_relayed:
            connection.crashed(crash)
        self._proceed()
