"""What a worker asks its parent: the policy, and the limits per peer, of which there is one for all workers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final

from tunnel.authz.peer import Peer
from tunnel.errors import Denial, LimitExceeded, LimitFault, PeerDenied
from tunnel.lazy_dataclass import dataclass
from tunnel.listener.peer_limits import Limiting, PeerKey, key_of
from tunnel.relay.loop import Loop
from tunnel.relay.step import StepOwner
from tunnel.workers.channel import Channel
from tunnel.workers.messages import AskLimit, AskPolicy, ReleasePeer

_EXTRA_WAIT: Final = 1.0  # seconds: the parent itself limits the time of an evaluation


@dataclass(frozen=True, slots=True)
class ParentRefusal:
    """Why the parent refuses: the reason's value and a message."""

    reason: str
    detail: str


class Questions:
    """The questions that are not answered yet."""

    def __init__(self, loop: Loop, channel: Channel) -> None:
        self.loop = loop
        self.channel = channel
        self._numbers = count(1)
        self._waiting: dict[int, Callable[[object], object]] = {}

    def ask_limit(self, tunnel: int, peer: PeerKey, answer: Callable[[object], object]) -> None:
        """Ask to count a connection of a peer; the answer is None or a ParentRefusal."""
        self.channel.send(AskLimit(self._add(answer), tunnel, peer))

    def ask_policy(self, tunnel: int, leaf: bytes, limit: float) -> bool:
        """Whether the policy admits a peer; blocks, on a thread. Raises PeerDenied if the evaluation fails."""
        from concurrent.futures import Future  # loaded with the first thread

        future: Future[object] = Future()
        self.loop.call_from_thread(lambda: self.channel.send(AskPolicy(self._add(future.set_result), tunnel, leaf)))
        try:
            result = future.result(limit + _EXTRA_WAIT)
        except TimeoutError as error:
            raise PeerDenied(Denial.POLICY_ERROR, "unauthorized: no answer of the policy") from error
        if isinstance(result, ParentRefusal):
            raise PeerDenied(Denial(result.reason), result.detail)
        return result is True

    def answer(self, number: int, result: object) -> None:
        """The parent has answered."""
        self._waiting.pop(number)(result)

    def fail_all(self) -> None:
        """There will be no answers."""
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer(ParentRefusal(Denial.POLICY_ERROR.value, "unauthorized: the parent process has ended"))

    def _add(self, answer: Callable[[object], object]) -> int:
        number = next(self._numbers)
        self._waiting[number] = answer
        return number


class RemoteLimits:
    """The limits per peer of one tunnel, which the parent counts."""

    def __init__(self, questions: Questions, tunnel: int) -> None:
        self._questions = questions
        self._tunnel = tunnel

    def limit(self, owner: StepOwner, peer: Peer | None, source: str, _now: float) -> Limiting:
        """The steps that count a connection; raises LimitExceeded. Their result ends the count."""
        key = key_of(peer, source)
        yield _LimitQuestion(self._questions, owner, self._tunnel, key)
        return partial(self._questions.channel.send, ReleasePeer(self._tunnel, key))


class _LimitQuestion:
    """A step that waits for the answer of the parent."""

    def __init__(self, questions: Questions, owner: StepOwner, tunnel: int, key: PeerKey) -> None:
        self._questions = questions
        self._owner = owner
        self._tunnel = tunnel
        self._key = key
        self._is_abandoned = False

    def start(self) -> None:
        """Ask."""
        self._questions.ask_limit(self._tunnel, self._key, self._answered)

    def abandon(self) -> None:
        """Ignore the answer."""
        self._is_abandoned = True

    def _answered(self, result: object) -> None:
        """Continue in an event of the owner, so that a bug in its handling ends this session only."""
        self._questions.loop.call_at(0, partial(self._report, result), self._owner)

    def _report(self, result: object) -> None:
        if self._is_abandoned:
            if result is None:
                self._questions.channel.send(ReleasePeer(self._tunnel, self._key))
        elif isinstance(result, ParentRefusal):
            self._owner.step_failed(LimitExceeded(LimitFault(result.reason), result.detail))
        else:
            self._owner.step_done(None)
