"""The policy in force: a few evaluators kept warm, of which one that hangs or grows costs only itself.

Knows who is idle, who waits and which source counts; must not know how an evaluator works or what a verdict is for.
Everything here may be called from any thread. Deadlines are on the clock of time.monotonic.
"""

from __future__ import annotations

import threading
import time

from tunnel.errors import Denial, PeerDenied, PolicyError, PolicyFault
from tunnel.policy.bundle import PolicySource
from tunnel.policy.certificate import encode_certificate
from tunnel.policy.child import Evaluator

_EVALUATORS = 2  # one may hang until its deadline while the other answers
MEMORY = 512 * 1024 * 1024  # bytes that one evaluation may add to what an evaluator occupies when it is ready
_LEAST = 0.1  # seconds that who has waited must have left: an answer that comes too late costs its evaluator
_COMPILE = 30.0  # seconds for a start, which takes a fifth of one
_RETRY = 1.0  # seconds after a start that failed, of a policy that had compiled before


class Policy:
    """A query about one source after the other, the first of which is to be loaded before anyone asks."""

    def __init__(self, query: str, *, evaluators: int = _EVALUATORS, memory: int = MEMORY) -> None:
        if "\0" in query or not query.strip():
            raise PolicyError(PolicyFault.INVALID, "the query is empty, or has a character NUL in it")
        self._query = query
        self._wanted = evaluators
        self._memory = memory
        self._changed = threading.Condition()
        # Under the condition:
        self._source: PolicySource | None = None
        self._idle: list[Evaluator] = []
        self._current: set[Evaluator] = set()  # of the source in force: idle, busy or starting
        self._living: set[Evaluator] = set()  # all that are not yet reaped
        self._ended: list[Evaluator] = []  # to be reaped
        self._is_closed = False
        self._keeper = threading.Thread(target=self._keep, name="policy", daemon=True)
        self._keeper.start()

    def load(self, source: PolicySource) -> None:
        """Let a source count from now on; raises PolicyError, and then the old one stays."""
        evaluator = self._start(source)
        with self._changed:
            if self._is_closed:
                self._end(evaluator)
                raise _closed()
            for idle in self._idle:
                self._end(idle)
            self._source = source
            self._idle = [evaluator]
            self._current = {evaluator}
            self._changed.notify_all()

    def ask(self, leaf: bytes, deadline: float) -> bool:
        """Whether the policy admits the bearer of a certificate in DER; raises PeerDenied when it cannot say in time."""
        term = f'{{"certificate": {encode_certificate(leaf)}}}'
        try:
            evaluator = self._borrow(deadline)
            try:
                return evaluator.ask(term, deadline)
            finally:
                self._give_back(evaluator)
        except PolicyError as error:
            raise PeerDenied(Denial.POLICY_ERROR, f"unauthorized: policy returned error: {error}") from error

    def close(self) -> None:
        """End all evaluators; who is asking gets an error at once, and every later question too."""
        with self._changed:
            self._is_closed = True
            for evaluator in self._living:
                evaluator.kill()
            for evaluator in self._idle:
                self._end(evaluator)
            self._idle = []
            self._current = set()
            self._changed.notify_all()
        self._keeper.join()

    @property
    def pids(self) -> set[int]:
        """The processes that evaluate, until somebody here has taken their status."""
        return {evaluator.pid for evaluator in self._living.copy()}

    def _borrow(self, deadline: float) -> Evaluator:
        with self._changed:
            if not self._idle:
                rest = deadline - _LEAST - time.monotonic()
                self._changed.wait_for(lambda: self._idle or self._is_closed, rest)
            if self._is_closed:
                raise _closed()
            if not self._idle:
                raise PolicyError(PolicyFault.TIMEOUT, "every evaluator was busy")
            return self._idle.pop()

    def _give_back(self, evaluator: Evaluator) -> None:
        with self._changed:
            if evaluator.is_dead or evaluator not in self._current:
                self._end(evaluator)
            else:
                self._idle.append(evaluator)
            self._changed.notify_all()

    def _end(self, evaluator: Evaluator) -> None:
        """Kill one that nobody is asking, and leave it to the keeper. Called under the condition."""
        evaluator.kill()
        self._current.discard(evaluator)
        self._ended.append(evaluator)

    def _start(self, source: PolicySource) -> Evaluator:
        with self._changed:  # so that `close` sees every process
            if self._is_closed:
                raise _closed()
            evaluator = Evaluator(self._memory)
            self._living.add(evaluator)
        try:
            evaluator.load(source, self._query, time.monotonic() + _COMPILE)
        except PolicyError:
            with self._changed:
                self._end(evaluator)
                self._changed.notify_all()
            raise
        return evaluator

    def _keep(self) -> None:
        """The keeper's life: replace what is missing, and only then reap what was killed, which takes its time."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._is_missing_one() or self._is_over())
                if self._is_over():
                    return
                source = self._source if self._is_missing_one() else None
            if source is not None:
                self._replace(source)
            self._reap()

    def _replace(self, source: PolicySource) -> None:
        try:
            evaluator = self._start(source)
        except PolicyError:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, _RETRY)
            return
        with self._changed:
            if source is not self._source or self._is_closed:
                self._end(evaluator)
            else:
                self._current.add(evaluator)
                self._idle.append(evaluator)
            self._changed.notify_all()

    def _reap(self) -> None:
        with self._changed:
            ended, self._ended = self._ended, []
        for evaluator in ended:
            evaluator.reap()
        with self._changed:
            self._living.difference_update(ended)
            self._changed.notify_all()

    def _is_over(self) -> bool:
        """Once closed, the keeper stays until nobody is asking any more and all are reaped."""
        return self._is_closed and not self._living

    def _is_missing_one(self) -> bool:
        return not self._is_closed and self._source is not None and len(self._current) < self._wanted


def _closed() -> PolicyError:
    return PolicyError(PolicyFault.ENGINE, "the policy is no longer in use")
