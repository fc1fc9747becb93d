"""The process: what must be done before anything else, then the command line.

Knows signals and descriptors at the start, and how the interpreter ends; must not know any command.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import warnings
from io import TextIOWrapper

from tunnel.child.inherited import inherited, restore_default
from tunnel.cli.variables import is_of_libraries

_STDOUT, _STDERR = 1, 2
_RARELY = 50_000  # new objects between two looks of the collector


def main() -> int:
    """The console script; an interrupt before a command has taken over is no traceback but a death by that signal."""
    _complete_standard_streams()
    inherited()  # before any of it is changed
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # until a command takes it over
        restore_default(signal.SIGTERM)
    if not sys.warnoptions:  # what a library thinks of a peer's certificate is not for standard error
        warnings.simplefilter("ignore")
    for number in (signal.SIGHUP, signal.SIGUSR1):  # they mean reload, also while we are still starting
        signal.signal(number, signal.SIG_IGN)
    _drop_library_variables()
    # What importing makes stays: to look through it again and again, as is the default, is a tenth of a start.
    gc.set_threshold(_RARELY)
    try:
        from tunnel.cli.main import main as run

        return run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 130
    except BrokenPipeError:  # whoever read our output has gone: no message could reach him
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write("tunnel: error: no space left on device\n")
        return 1
    finally:
        _give_up_output()


def _drop_library_variables() -> None:
    """Remove what libraries would obey, before any is loaded; OpenSSL and gRPC read the environment of the C library."""
    for name in filter(is_of_libraries, list(os.environ)):
        del os.environ[name]


def _give_up_output() -> None:
    """Drop what could not be written: the interpreter would try once more at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complete_standard_streams() -> None:
    """Open what is missing of the first three descriptors: a socket would take the number, and a peer get to read our log."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a sign that the locale lacks is shown as one of standard error is


if __name__ == "__main__":
    sys.exit(main())
