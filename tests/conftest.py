"""Settings for all tests: the default signals and output buffers, hypothesis without a deadline, and what runs in parallel."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# Speed of the machine is no property of the program, and a failure must be the same everywhere.
settings.register_profile("tunnel", deadline=None, derandomize=True)
settings.load_profile("tunnel")


def restore_default_signals() -> None:
    """Undo what the parent ignores or blocks, for this process and for all that the tests start.

    `nohup` ignores SIGHUP, and a shell script's background job ignores SIGINT and SIGQUIT: the program under test would, too.
    """
    kept = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores them itself, and subprocess restores them in a child
    for number in signal.valid_signals() - kept:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


restore_default_signals()

# With it, a Python child writes each argument of print() on its own, and the log lines of the program come between them.
os.environ.pop("PYTHONUNBUFFERED", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Distribute whole files with `-n`, unless another distribution is asked for."""
    if config.getoption("dist") != "load":  # the default of -n
        return None
    from tests.support.scheduler import FileScheduling

    return FileScheduling(config, log)
