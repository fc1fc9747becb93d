"""The command line of `tunnel run`: lines of `server` and `client`, and a command.

Knows how the lines are told apart; must not know what any of them means, nor how a process is started.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

from tunnel.cli.parser import Arguments, Command, Group, option, parse_command_line
from tunnel.commands.proxy import command as proxy
from tunnel.config.model import LogConfig, ProxyConfig
from tunnel.config.values import parse_limit, parse_positive_duration
from tunnel.errors import ConfigError

WAIT_READY = option(
    "wait-ready",
    "How long the proxies may take to be ready, before the command is started; default 15s, 0 for as long as it takes.",
    parse_limit,
    15.0,
    placeholder="TIME",
    aliases=("wait",),
)
STOP_TIMEOUT = option(
    "stop-timeout",
    "How long a stop may take, after --shutdown-delay, before everything is cut; default 25s (Kubernetes kills after 30s).",
    parse_positive_duration,
    25.0,
    placeholder="TIME",
)
_LINE = "server|client"
_NEXT, _COMMAND = "+", "--"

COMMAND = Command(
    "run",
    "Run a command with proxies in front of it and beside it: the entry point of a container.",
    (Group("The household", (WAIT_READY, proxy.SHUTDOWN_DELAY, STOP_TIMEOUT)),),
    """\
The proxies are lines of 'tunnel server' and 'tunnel client' with all their flags, joined by a
lone +. When all of them are ready the command is started, without the variables that are the
proxies' own. Signals are passed on to it, SIGHUP and SIGUSR1 too; as process 1 its orphans are
reaped.

SIGTERM and SIGINT stop. With --shutdown-delay everything is served for that long first, and the
status says not ready; a second signal ends the delay. Then servers accept no more, and the command
gets the signal; clients serve it until it has ended; then open connections drain. The exit code is
the command's, 128+N if signal N ended it; 125 when a proxy could not start or go on, 126 and 127
when the command cannot be run or found. The log is on standard error.

Examples:
  tunnel run server --use-workload-api --listen :8443 --target localhost:8080 \\
      --allow-id spiffe://example.org/web -- ./app --port 8080
  tunnel run \\
      server --use-workload-api --listen :8443 --target localhost:8080 \\
      --allow-id spiffe://example.org/web + \\
      client --use-workload-api --listen localhost:6379 --target cache.example.org:8443 \\
      --verify-id spiffe://example.org/cache -- ./app --port 8080 --cache localhost:6379
""",
    lines=f"{_LINE} FLAGS [+ {_LINE} FLAGS...] -- COMMAND [ARG...]",
    failure=125,
)
COMMANDS = (COMMAND,)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What to serve, and what to run."""

    proxies: tuple[ProxyConfig, ...]
    log: LogConfig
    argv: tuple[str, ...]
    wait_ready: float
    shutdown_delay: float  # the longest of the line and of the proxies: they stop as one
    stop_timeout: float


def build(arguments: Arguments, environ: Mapping[str, str]) -> RunConfig:
    """What the line means; raises ConfigError, and HelpWanted for a line in it that asks."""
    lines, argv = _split(arguments.rest)
    parsed = [
        parse_command_line(line, (proxy.SERVER, proxy.CLIENT), environ, early=proxy.COMMON, has_files=False) for line in lines
    ]
    logs = [proxy.check_line(one.arguments) for one in parsed]
    configs = [proxy.build(one.command, one.arguments) for one in parsed]
    return RunConfig(
        # What drains is told by the household: a limit of its own would hold up the others.
        tuple(replace(config, shutdown_timeout=arguments[STOP_TIMEOUT]) for config in configs),
        LogConfig(tuple(word for log in logs for word in log.quiet), any(log.is_syslog for log in logs)),
        argv,
        arguments[WAIT_READY],
        max(arguments[proxy.SHUTDOWN_DELAY], *(config.shutdown_delay for config in configs)),
        arguments[STOP_TIMEOUT],
    )


def _split(rest: Sequence[str]) -> tuple[list[list[str]], tuple[str, ...]]:
    """The lines of proxies, and the command."""
    end = rest.index(_COMMAND) if _COMMAND in rest else len(rest)
    if not rest[end + 1 :] and "--help" not in rest[:end]:  # which the line that has it answers
        raise ConfigError("nothing to run: -- COMMAND [ARG...] is missing; a sidecar without a command is 'tunnel server'")
    lines: list[list[str]] = [[]]
    for token in rest[:end]:
        if token == _NEXT:
            lines.append([])
        else:
            lines[-1].append(token)
    for line in lines:
        if not line:
            raise ConfigError(f"a line is missing beside '{_NEXT}': {_LINE} FLAGS is wanted on both sides")
    return lines, tuple(rest[end + 1 :])


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.run.run import run

    return run(command, arguments, environ)
