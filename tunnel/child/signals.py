"""The thread that receives signals for the command, and whether each came from the terminal.

A signal from the terminal (Ctrl-C, Ctrl-\\, a new size, hangup) goes to every process of the foreground process group, so the
command has it already. One from `kill` may have gone only to us, to the group or to the cgroup, which
tunnel/child/signal_probe.py finds out. SIGTSTP and related signals keep their default action, so that Ctrl-Z
stops both processes of the group, and `fg` continues both.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from signal import Signals
from time import monotonic
from typing import Final

from tunnel.child.inherited import inherited
from tunnel.child.signal_probe import ReceivedSignal
from tunnel.lazy_dataclass import replace

OnSignal = Callable[[int, bool], None]
WasSent = Callable[[ReceivedSignal], bool]

# Seconds in which equal stops count as one: timeout(1) signals its child, then the group; systemd signals processes in turn.
SETTLE: Final = 0.2
_STOPS: Final = frozenset({Signals.SIGTERM, Signals.SIGINT, Signals.SIGQUIT, Signals.SIGHUP})

_SI_KERNEL: Final = 0x80  # siginfo_t.si_code, sigaction(2): sent by the kernel
_OF_TERMINALS: Final = frozenset({Signals.SIGINT, Signals.SIGQUIT, Signals.SIGHUP, Signals.SIGWINCH})
_NOT_FORWARDED: Final = frozenset(
    {
        *(Signals.SIGKILL, Signals.SIGSTOP),  # cannot be caught
        *(Signals.SIGTSTP, Signals.SIGTTIN, Signals.SIGTTOU, Signals.SIGCONT),  # job control
        *(Signals.SIGCHLD, Signals.SIGPIPE),  # caused by our own actions
        *(Signals.SIGSEGV, Signals.SIGBUS, Signals.SIGFPE, Signals.SIGILL, Signals.SIGABRT, Signals.SIGTRAP, Signals.SIGSYS),
        *(Signals.SIGPROF, Signals.SIGVTALRM, Signals.SIGXCPU, Signals.SIGXFSZ),  # caused by our own limits
    }
)


def forwarded() -> frozenset[int]:
    """Return the signals to forward to the command: all that can be, except those that were ignored when we were started."""
    return frozenset(map(int, signal.valid_signals() - _NOT_FORWARDED)) - inherited().ignored


def block() -> None:
    """Block these signals and SIGCHLD for SignalThread; call it before there is a second thread.

    Threads and processes that are started later inherit it, except a Launcher's command. From here on no such signal is lost,
    and none ends this process, also if it is process 1, for which the kernel drops signals without a handler.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _received())  # Linux keeps a blocked signal pending even if it is ignored


def _received() -> set[int]:
    return {*forwarded(), Signals.SIGCHLD}


class SignalThread:
    """Receives the signals that `block` blocks, until the process ends; started by the constructor.

    Callbacks run on its thread and must not block: `on_signal` at once, with the number and whether it came from the terminal;
    `on_settled` when it is known whether the command was sent this signal too, with the number and the result of `was_sent`;
    `on_child_ended` when there may be a child to reap. A stop is settled after SETTLE seconds, any other signal at once. Equal
    stops in this time count as one.
    """

    def __init__(
        self,
        on_signal: OnSignal,
        on_settled: OnSignal,
        was_sent: WasSent,
        on_child_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_signal = on_signal
        self._on_settled = on_settled
        self._was_sent = was_sent
        self._on_child_ended = on_child_ended
        self._unsettled: dict[int, ReceivedSignal] = {}
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def _run(self) -> None:
        while True:
            info = self._next()
            if info is None:
                self._settle()
            elif info.si_signo == Signals.SIGCHLD:
                self._on_child_ended()
            else:
                self._record(info.si_signo, is_from_terminal(info.si_signo, info.si_code))

    def _next(self) -> signal.struct_siginfo | None:
        """Return the next signal; None if one must be settled first."""
        if not self._unsettled:
            return signal.sigwaitinfo(_received())
        left = min(map(_settled_at, self._unsettled.values())) - monotonic()
        return signal.sigtimedwait(_received(), left) if left > 0 else None

    def _record(self, number: int, is_shared: bool) -> None:
        known = self._unsettled.get(number)
        if known is None:
            self._unsettled[number] = ReceivedSignal(number, monotonic(), is_shared)
            self._on_signal(number, is_shared)
        elif is_shared:
            self._unsettled[number] = replace(known, is_from_terminal=True)

    def _settle(self) -> None:
        now = monotonic()
        for received in [one for one in self._unsettled.values() if _settled_at(one) <= now]:
            del self._unsettled[received.number]
            self._on_settled(received.number, self._was_sent(received))


def _settled_at(received: ReceivedSignal) -> float:
    return received.at + (SETTLE if received.number in _STOPS else 0.0)


def is_from_terminal(number: int, code: int) -> bool:
    """Whether a signal with this si_code was sent to the whole foreground process group, not only to us.

    The signal of a timer set by an earlier program of this process (alarm(2)) also has the kernel's code, but is sent only to
    us. So is a hangup if we lead the session.
    """
    if code != _SI_KERNEL or number not in _OF_TERMINALS:
        return False
    return number != Signals.SIGHUP or os.getsid(0) != os.getpid()
