"""The signals that are meant for the command, taken by a thread that knows where each came from.

Knows which signals may be passed on, and how a terminal's differ from those of `kill`; must not know to whom they go. What a
terminal sends (Ctrl-C, Ctrl-\\, a new size, the end of the line) goes to every process of the group in the foreground, so the
command has it already; what `kill` sends may have reached us alone, or the group, or the cgroup, which tunnel/child/probe.py
finds out. Job control needs nothing: SIGTSTP and its kin are not touched, so that Ctrl-Z stops both processes, being of one
group, and `fg` continues both.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from signal import Signals
from time import monotonic
from typing import Final

from tunnel.child.inherited import inherited
from tunnel.child.probe import Arrival

OnSignal = Callable[[int, bool], None]
Ask = Callable[[Arrival], bool]

# Seconds in which equal stops are one: timeout(1) signals its child and then the group, systemd one process after the other.
SETTLE: Final = 0.2
_STOPS: Final = frozenset({Signals.SIGTERM, Signals.SIGINT, Signals.SIGQUIT, Signals.SIGHUP})

_SI_KERNEL: Final = 0x80  # siginfo_t.si_code, sigaction(2): no process has sent it
_OF_TERMINALS: Final = frozenset({Signals.SIGINT, Signals.SIGQUIT, Signals.SIGHUP, Signals.SIGWINCH})
_NOT_FORWARDED: Final = frozenset(
    {
        *(Signals.SIGKILL, Signals.SIGSTOP),  # nobody can take them
        *(Signals.SIGTSTP, Signals.SIGTTIN, Signals.SIGTTOU, Signals.SIGCONT),  # job control
        *(Signals.SIGCHLD, Signals.SIGPIPE),  # what we ourselves have done
        *(Signals.SIGSEGV, Signals.SIGBUS, Signals.SIGFPE, Signals.SIGILL, Signals.SIGABRT, Signals.SIGTRAP, Signals.SIGSYS),
        *(Signals.SIGPROF, Signals.SIGVTALRM, Signals.SIGXCPU, Signals.SIGXFSZ),  # of our own time and size
    }
)


def forwarded() -> frozenset[int]:
    """The signals that are the command's: all that can be passed on, without what was ignored when we were started."""
    return frozenset(map(int, signal.valid_signals() - _NOT_FORWARDED)) - inherited().ignored


def block() -> None:
    """Keep these signals, and word of children, for SignalThread; to be called before there is a second thread.

    Threads and processes that are started later inherit it, a Launcher's command apart. From here on no such signal is lost,
    and none ends this process: not as process 1 either, where the kernel drops what nobody has asked for.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _taken())  # Linux keeps what is blocked even if it is ignored


def _taken() -> set[int]:
    return {*forwarded(), Signals.SIGCHLD}


class SignalThread:
    """Takes what `block` keeps, for as long as the process lives; started by the constructor.

    Calls from its own thread, and must not be kept waiting: `on_signal` at once, with the number and whether it came from the
    terminal; `on_settled` when it is known whether the command has had this signal too, with the number and the answer of
    `ask`; `on_child_ended` when there may be something to reap. A stop is settled after SETTLE seconds, any other signal at
    once. Equal stops that come meanwhile are the same stop, of which nothing more is told.
    """

    def __init__(
        self,
        on_signal: OnSignal,
        on_settled: OnSignal,
        ask: Ask,
        on_child_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_signal = on_signal
        self._on_settled = on_settled
        self._ask = ask
        self._on_child_ended = on_child_ended
        self._unsettled: dict[int, Arrival] = {}
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def _run(self) -> None:
        while True:
            info = self._next()
            if info is None:
                self._settle()
            elif info.si_signo == Signals.SIGCHLD:
                self._on_child_ended()
            else:
                self._take(info.si_signo, is_from_terminal(info.si_signo, info.si_code))

    def _next(self) -> signal.struct_siginfo | None:
        """The next signal; None when there is one to be settled before."""
        if not self._unsettled:
            return signal.sigwaitinfo(_taken())
        left = min(map(_settled_at, self._unsettled.values())) - monotonic()
        return signal.sigtimedwait(_taken(), left) if left > 0 else None

    def _take(self, number: int, is_shared: bool) -> None:
        known = self._unsettled.get(number)
        if known is None:
            self._unsettled[number] = Arrival(number, monotonic(), is_shared)
            self._on_signal(number, is_shared)
        elif is_shared:
            self._unsettled[number] = replace(known, is_from_terminal=True)

    def _settle(self) -> None:
        now = monotonic()
        for arrival in [one for one in self._unsettled.values() if _settled_at(one) <= now]:
            del self._unsettled[arrival.number]
            self._on_settled(arrival.number, self._ask(arrival))


def _settled_at(arrival: Arrival) -> float:
    return arrival.at + (SETTLE if arrival.number in _STOPS else 0.0)


def is_from_terminal(number: int, code: int) -> bool:
    """Whether a signal with this si_code has gone to the whole group in the foreground, rather than to us alone.

    A timer that an earlier program of this process has set (alarm(2)) is the kernel's too, and ours alone. So is the end of the
    line when we lead the session: the kernel tells the leader and nobody else.
    """
    if code != _SI_KERNEL or number not in _OF_TERMINALS:
        return False
    return number != Signals.SIGHUP or os.getsid(0) != os.getpid()
