"""The process of one proxy: loop, log, limits, exit code.

Knows what is set up before the first event and what is said when nothing can be set up; must not know what happens in
between.
"""

from __future__ import annotations

import gc
import resource
import sys

from tunnel.config.proxy import ProxyConfig
from tunnel.errors import TunnelError
from tunnel.log import Category, Log, one_line
from tunnel.proxy.supervisor import Supervisor
from tunnel.relay.loop import Loop


def run_proxy(config: ProxyConfig) -> int:
    """Run until told to stop; 0 after a clean drain, 1 after a cut or when it could not start or go on."""
    _raise_descriptor_limit()
    loop = Loop()
    log = Log([Category(word) for word in config.quiet if word], schedule=lambda delay: loop.call_later(delay, log.flush))
    supervisor = Supervisor(config, loop, log)
    gc.freeze()  # what is here now stays: later collections need not look at it
    try:
        loop.run_trio(supervisor.run)
    except TunnelError as error:
        log.write(f"error: {error}")
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1
    finally:
        log.flush()
        loop.close()
    return supervisor.exit_code


def _raise_descriptor_limit() -> None:
    """To the hard limit, as Go programs do by themselves: each connection takes two."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
