"""`tunnel health`: the answer of a status port as an exit code.

Knows what is printed and the limit for the whole; must not know HTTP. Nothing but the standard library is loaded.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunnel.commands.output import show
from tunnel.config import health
from tunnel.config.health import HealthConfig
from tunnel.config.parser import Arguments, Command
from tunnel.errors import ConfigError, TargetError, TargetFault, TunnelError, words_of
from tunnel.log import one_line

if TYPE_CHECKING:  # loaded when the line is known to be a good one
    import ssl

    from tunnel.status.client import Answer

_WIDEST = 500  # characters of a line: what came may be of any length


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """0 if all is well, else 1 with a line why; raises ConfigError."""
    if arguments[health.WHERE]:
        return _judge(health.build(arguments))
    own = health.status_ports(_first_process())
    if not own and not arguments[health.QUIET]:
        show("process 1 has no --status: nothing to ask\n")
    return max((_judge(health.build(arguments, url)) for url in own), default=0)


def _first_process() -> list[str]:
    try:
        return os.fsdecode(Path("/proc/1/cmdline").read_bytes()).rstrip("\0").split("\0")
    except OSError as error:
        raise ConfigError(f"cannot see what process 1 serves: {words_of(error)}") from error


def _judge(config: HealthConfig) -> int:
    from tunnel.status.client import trust_of

    trust = trust_of(config.cacert)
    try:
        answer = _ask_in_time(config, trust)
    except TunnelError as error:
        return _refuse(config, str(error))
    fault = answer.fault(config.url.path)
    if config.is_json:
        show(f"{json.dumps(answer.document)}\n" if answer.document is not None else "")
    elif not fault and not config.is_quiet:
        show(one_line(answer.summary()[:_WIDEST]) + "\n")
    return _refuse(config, fault) if fault else 0


def _refuse(config: HealthConfig, why: str) -> int:
    if not config.is_quiet:
        sys.stderr.write(f"{one_line(f'tunnel health: {config.url}: {why}'[:_WIDEST])}\n")
    return 1


def _ask_in_time(config: HealthConfig, trust: ssl.SSLContext) -> Answer:
    """The answer; raises TunnelError, after the limit at the latest.

    On a thread: neither a resolver nor an answer that comes byte by byte can be limited in another way. One that is left
    behind ends with the process.
    """
    from tunnel.status.client import ask

    found: list[Answer | TunnelError] = []

    def work() -> None:
        try:
            found.append(ask(config.url, trust, config.timeout))
        except TunnelError as error:
            found.append(error)

    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(config.timeout)
    if not found:
        raise TargetError(TargetFault.TIMEOUT, f"no answer within {config.timeout:g}s")
    if isinstance(found[0], TunnelError):
        raise found[0]
    return found[0]
