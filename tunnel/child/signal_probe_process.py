"""The program of the signal probe: a script that imports built-in modules only, to be small.

`python -I -S signal_probe_process.py DESCRIPTOR`, started with every signal blocked. It forks once: the first process stays in
the process group, the second makes one of its own. Each records the signals that it receives, with the time. A byte on the
descriptor is a query; the answer is one packet of lines: the PID of the second process, then `PLACE NUMBER TIME` for each
signal since the last query, where PLACE is `g` for the process group and `o` for outside, and TIME is CLOCK_MONOTONIC. Empty
lines have no meaning.
"""

import _signal  # type: ignore[import-not-found]  # the base of `signal`, without its enums
import os
import select
import sys
import time

TITLE = b"signal-probe"  # without "tunnel": `pkill -f tunnel` must not look like a signal to the process group
_GROUP, _OUTSIDE = b"g", b"o"
_MAX_RECORDS = 64  # the latest
_PIECE = 4096
_FAULTS = {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL}


def main() -> None:
    """Answer queries until the other end of the descriptor is closed."""
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    set_title(TITLE)
    queries, query = os.pipe()
    answer, answers = os.pipe()
    outside = os.fork()
    if outside == 0:
        os.setpgid(0, 0)
        for descriptor in (channel, query, answer):
            os.close(descriptor)
        serve(queries, answers, _OUTSIDE, lambda: b"", b"\n")
        os._exit(0)
    os.close(queries)
    os.close(answers)

    def query_outside() -> bytes:
        try:
            os.write(query, b"?")
            return os.read(answer, _PIECE)
        except OSError:  # it has been killed
            return b"\n"

    serve(channel, channel, _GROUP, query_outside, b"%d\n" % outside)
    os.close(query)
    os.waitpid(outside, 0)  # otherwise it would remain a zombie where process 1 does not reap
    os._exit(0)


def serve(queries, answers, place, query_further, head) -> None:  # type: ignore[no-untyped-def]
    """Record signals, and answer queries with them and with those of another process, until EOF."""
    signals = _open_signals()
    poll = select.poll()
    poll.register(signals, select.POLLIN)
    poll.register(queries, select.POLLIN)
    seen: list[bytes] = []
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        now = time.monotonic()
        seen = (seen + [b"%b %d %r\n" % (place, number, now) for number in _read(signals)])[-_MAX_RECORDS:]
        if queries in ready:
            if not os.read(queries, 1):
                return
            os.write(answers, head + b"".join(seen) + query_further())
            seen = []


def _open_signals() -> int:
    """Return a descriptor that yields the number of each pending or later signal as a byte."""
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
    """Replace the name and the command line that ps(1) shows, if /proc permits it."""
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
