"""The process: its state before any other module is loaded, then the command line, then the end of the interpreter."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper
from typing import NoReturn

from tunnel.child.inherited import inherited, restore_default
from tunnel.cli.variables import is_of_libraries
from tunnel.deferred_modules import defer_modules

_STDOUT, _STDERR = 1, 2
_GC_THRESHOLD = 10_000  # new objects between two runs of the garbage collector


def run_and_exit() -> NoReturn:
    """Run the command line and end the process with its exit code.

    The interpreter and the C library are not finalized: an abandoned thread may still use OpenSSL, as in a handshake with
    an ACME server that does not answer, and OpenSSL's own cleanup would free what that thread reads.
    """
    code = main()
    atexit._run_exitfuncs()
    os._exit(code)


def main() -> int:
    """Run the command line; an interrupt before a command handles signals ends the process by that signal."""
    _complete_standard_streams()
    defer_modules()
    inherited()  # records signals and descriptors before they are changed
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # until a command handles it
        restore_default(signal.SIGTERM)
    if not sys.warnoptions:  # libraries warn about peers' certificates
        warnings.simplefilter("ignore")
    for number in (signal.SIGHUP, signal.SIGUSR1):  # they mean reload, also during the start
        signal.signal(number, signal.SIG_IGN)
    _drop_library_variables()
    # Imported objects stay, so most runs of the collector are in vain. The ones that remain free 1 MiB of replaced classes.
    gc.set_threshold(_GC_THRESHOLD)
    try:
        from tunnel.cli.main import main as run

        return run(sys.argv[1:], os.environ)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.stderr.write("tunnel: error: no space left on device\n")
        return 1
    finally:
        _flush_output()


def _drop_library_variables() -> None:
    """Remove variables of libraries before any is loaded; OpenSSL and gRPC read the environment of the C library."""
    for name in filter(is_of_libraries, list(os.environ)):
        del os.environ[name]


def _flush_output() -> None:
    """Write what is buffered; a reader that is gone, or a full disk, is no error here."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def _complete_standard_streams() -> None:
    """Open missing standard streams: a socket could get their descriptors, and its peer would receive the log."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # characters outside the locale are escaped, as on standard error


if __name__ == "__main__":
    run_and_exit()
