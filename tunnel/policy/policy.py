"""The policy in force: a pool of evaluator processes, so that a hanging evaluation blocks only itself.

All methods may be called from any thread. Deadlines are on the clock of `time.monotonic`.
"""

from __future__ import annotations

import threading
import time

from tunnel.errors import Denial, PeerDenied, PolicyError, PolicyFault
from tunnel.policy.bundle import PolicySource
from tunnel.policy.certificate import encode_certificate
from tunnel.policy.evaluator_process import Evaluator

_EVALUATORS = 2  # one may hang until its deadline while the other is in use
MEMORY = 512 * 1024 * 1024  # bytes that one evaluation may add to the memory of an idle evaluator
_LEAST = 0.1  # seconds before the deadline at which waiting ends: an evaluator that times out is killed
_START_TIMEOUT = 30.0  # seconds; a start takes 0.2
_RETRY = 1.0  # seconds after a failed restart with a policy that has compiled before


class Policy:
    """A query with a replaceable policy source; `load` must be called before `admits`."""

    def __init__(self, query: str, *, evaluators: int = _EVALUATORS, memory: int = MEMORY) -> None:
        if "\0" in query or not query.strip():
            raise PolicyError(PolicyFault.INVALID, "the query is empty or contains a NUL character")
        self._query = query
        self._size = evaluators
        self._memory = memory
        self._changed = threading.Condition()
        # Under the condition:
        self._source: PolicySource | None = None
        self._idle: list[Evaluator] = []
        self._current: set[Evaluator] = set()  # with the source in force: idle, busy or starting
        self._unreaped: set[Evaluator] = set()
        self._killed: list[Evaluator] = []  # to be reaped
        self._is_closed = False
        self._maintenance = threading.Thread(target=self._maintain, name="policy", daemon=True)
        self._maintenance.start()

    def load(self, source: PolicySource) -> None:
        """Replace the policy source; raises PolicyError and keeps the previous one if it does not compile."""
        evaluator = self._start(source)
        with self._changed:
            if self._is_closed:
                self._kill(evaluator)
                raise _closed()
            for idle in self._idle:
                self._kill(idle)
            self._source = source
            self._idle = [evaluator]
            self._current = {evaluator}
            self._changed.notify_all()

    def admits(self, leaf: bytes, deadline: float) -> bool:
        """Whether the policy admits the peer with this certificate in DER; raises PeerDenied if the evaluation fails."""
        term = f'{{"certificate": {encode_certificate(leaf)}}}'
        try:
            evaluator = self._acquire(deadline)
            try:
                return evaluator.evaluate(term, deadline)
            finally:
                self._release(evaluator)
        except PolicyError as error:
            raise PeerDenied(Denial.POLICY_ERROR, f"unauthorized: policy returned error: {error}") from error

    def close(self) -> None:
        """Kill all evaluators; pending and later calls of `admits` raise PeerDenied."""
        with self._changed:
            self._is_closed = True
            for evaluator in self._unreaped:
                evaluator.kill()
            for evaluator in self._idle:
                self._kill(evaluator)
            self._idle = []
            self._current = set()
            self._changed.notify_all()
        self._maintenance.join()

    @property
    def pids(self) -> set[int]:
        """The evaluator processes that are not reaped yet."""
        return {evaluator.pid for evaluator in self._unreaped.copy()}

    def _acquire(self, deadline: float) -> Evaluator:
        with self._changed:
            if not self._idle:
                rest = deadline - _LEAST - time.monotonic()
                self._changed.wait_for(lambda: self._idle or self._is_closed, rest)
            if self._is_closed:
                raise _closed()
            if not self._idle:
                raise PolicyError(PolicyFault.TIMEOUT, "all evaluators are busy")
            return self._idle.pop()

    def _release(self, evaluator: Evaluator) -> None:
        with self._changed:
            if evaluator.is_dead or evaluator not in self._current:
                self._kill(evaluator)
            else:
                self._idle.append(evaluator)
            self._changed.notify_all()

    def _kill(self, evaluator: Evaluator) -> None:
        """Kill an idle evaluator and queue it for reaping. Call with the condition held."""
        evaluator.kill()
        self._current.discard(evaluator)
        self._killed.append(evaluator)

    def _start(self, source: PolicySource) -> Evaluator:
        with self._changed:  # so that `close` kills every process
            if self._is_closed:
                raise _closed()
            evaluator = Evaluator(self._memory)
            self._unreaped.add(evaluator)
        try:
            evaluator.load(source, self._query, time.monotonic() + _START_TIMEOUT)
        except PolicyError:
            with self._changed:
                self._kill(evaluator)
                self._changed.notify_all()
            raise
        return evaluator

    def _maintain(self) -> None:
        """Start missing evaluators, then reap killed ones, which may take long, until the policy is closed."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._killed or self._needs_evaluator() or self._is_finished())
                if self._is_finished():
                    return
                source = self._source if self._needs_evaluator() else None
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
                self._kill(evaluator)
            else:
                self._current.add(evaluator)
                self._idle.append(evaluator)
            self._changed.notify_all()

    def _reap(self) -> None:
        with self._changed:
            ended, self._killed = self._killed, []
        for evaluator in ended:
            evaluator.reap()
        with self._changed:
            self._unreaped.difference_update(ended)
            self._changed.notify_all()

    def _is_finished(self) -> bool:
        """Whether the policy is closed and all processes are reaped."""
        return self._is_closed and not self._unreaped

    def _needs_evaluator(self) -> bool:
        return not self._is_closed and self._source is not None and len(self._current) < self._size


def _closed() -> PolicyError:
    return PolicyError(PolicyFault.ENGINE, "the policy is closed")
