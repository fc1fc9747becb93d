"""The process of the signal probe: a script, small because it imports built-in modules only.

`python -I -S probing.py DESCRIPTOR`, started with every signal blocked. It forks once: the first process stays in the process
group, the second makes one of its own. Each keeps the signals that arrive, with the time. A byte on the descriptor is a
question; the answer is one packet of lines: the PID of the second process, then `PLACE NUMBER TIME` for each signal since the
last question, where PLACE is `g` for the process group and `o` for outside, and TIME is CLOCK_MONOTONIC. Empty lines say
nothing.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums
import os
import select
import sys
import time

TITLE = b"signal-probe"  # without "tunnel", or `pkill -f tunnel` would look like a signal to the process group
_GROUP, _OUTSIDE = b"g", b"o"
_MOST_RECORDS = 64  # the latest; nobody has to ask for years
_PIECE = 4096
_FAULTS = {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL}


def main() -> None:
    """Answer until the other end of the descriptor is closed."""
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    set_title(TITLE)
    questions, ask = os.pipe()
    answer, answers = os.pipe()
    outside = os.fork()
    if outside == 0:
        os.setpgid(0, 0)
        for descriptor in (channel, ask, answer):
            os.close(descriptor)
        serve(questions, answers, _OUTSIDE, lambda: b"", b"\n")
        os._exit(0)
    os.close(questions)
    os.close(answers)

    def ask_outside() -> bytes:
        try:
            os.write(ask, b"?")
            return os.read(answer, _PIECE)
        except OSError:  # it has been killed
            return b"\n"

    serve(channel, channel, _GROUP, ask_outside, b"%d\n" % outside)
    os.close(ask)
    os.waitpid(outside, 0)  # where process 1 reaps nobody it would remain
    os._exit(0)


def serve(questions, answers, place, ask_further, head) -> None:  # type: ignore[no-untyped-def]
    """Take signals, and answer questions with them and with what another process adds, until nobody can ask any more."""
    signals = _open_signals()
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    poll.register(questions, select.POLLIN)
    seen: list[bytes] = []
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        now = time.monotonic()
        seen = (seen + [b"%b %d %r\n" % (place, number, now) for number in _read(signals)])[-_MOST_RECORDS:]
        if questions in ready:
            if not os.read(questions, 1):
                return
            os.write(answers, head + b"".join(seen) + ask_further())
            seen = []


def _open_signals() -> int:
    """A descriptor that yields a byte for each signal that arrives from now on, or is pending: its number."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in _signal.valid_signals() - _FAULTS:
        try:
            _signal.signal(number, lambda _number, _frame: None)
        except OSError:  # SIGKILL and SIGSTOP
            continue
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    return reader


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _PIECE)
    except BlockingIOError:
        return b""


def set_title(title: bytes) -> None:
    """Replace the name and the command line that ps(1) shows, where /proc allows it."""
    try:
        with open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write(title)
        with open("/proc/self/stat", "rb", buffering=0) as stat:
            fields = stat.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc_pid_stat(5)
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(title[: end - start - 1].ljust(end - start, b"\0"))
    except (OSError, ValueError, IndexError):
        return


if __name__ == "__main__":
    main()
