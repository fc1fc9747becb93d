"""`tunnel run`: run a command together with its proxies, as the entry point of a container."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from tunnel.cli.command import Arguments, Command, Group, option
from tunnel.cli.parser import parse_command_line
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy import traces
from tunnel.commands.proxy.limits import SHUTDOWN_DELAY
from tunnel.commands.serve import CONFIG, WATCH
from tunnel.config.checks import check_health_ports
from tunnel.config.model import AccessLogConfig, LogConfig, ProcessConfig, name_listeners
from tunnel.config.values import default_of, parse_limit, parse_positive_duration
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import dataclass, replace

if TYPE_CHECKING:  # loaded for configuration files only
    from tunnel.proxy.reloader import ReloadSource


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The proxies and the command; durations in seconds."""

    process: ProcessConfig  # its shutdown limit is `stop_timeout`, its shutdown delay the longest of all lines
    argv: tuple[str, ...]
    reload_source: ReloadSource | None = None  # of configuration files
    wait_ready: float = 15.0
    stop_timeout: float = 25.0  # Kubernetes kills after 30 s


WAIT_READY = option(
    "wait-ready",
    "Maximum time until the proxies are ready and the command is started",
    parse_limit,
    default_of(RunConfig, "wait_ready"),
    zero="no limit",
    placeholder="TIME",
    aliases=("wait",),
)
STOP_TIMEOUT = option(
    "stop-timeout",
    "Maximum time of a stop, after --shutdown-delay, before all connections are closed and the command is killed",
    parse_positive_duration,
    default_of(RunConfig, "stop_timeout"),
    placeholder="TIME",
)
_LINE = "server|client"
_NEXT, _COMMAND = "+", "--"

COMMAND = Command(
    "run",
    "Run a command together with its proxies: the entry point of a container.",
    (
        Group("Supervisor", (WAIT_READY, SHUTDOWN_DELAY, STOP_TIMEOUT)),
        Group("Configuration file in place of lines", (CONFIG, WATCH)),
    ),
    """\
The proxies are lines of 'tunnel server' and 'tunnel client' with all their flags, separated by +,
or the listeners of a configuration file, which --watch or a POST to /_reload reloads. When all
proxies are ready the command is started, without the environment variables that are meant for the
proxies. Signals are forwarded to the command, SIGHUP and SIGUSR1 too. As process 1 it reaps
orphaned processes.

SIGTERM and SIGINT stop everything in this order: for --shutdown-delay everything is still served
and the status port reports not ready (a second signal ends the delay); then servers stop accepting
connections and the command gets the signal; clients go on until the command has ended; then open
connections drain. The exit code is the command's, or 128+N if signal N ended it; 125 if a proxy
could not start or failed, 126 if the command cannot be executed, 127 if it is not found. The log is
written to standard error.

Examples:
  tunnel run server --use-workload-api --listen :8443 --target localhost:8080 \\
      --allow-id spiffe://example.org/web -- ./app --port 8080
  tunnel run \\
      server --use-workload-api --listen :8443 --target localhost:8080 \\
      --allow-id spiffe://example.org/web + \\
      client --use-workload-api --listen localhost:6379 --target cache.example.org:8443 \\
      --verify-id spiffe://example.org/cache -- ./app --port 8080 --cache localhost:6379
  tunnel run --config tunnel.toml -- ./app --port 8080
""",
    lines=f"{_LINE} FLAGS [+ {_LINE} FLAGS...] -- COMMAND [ARG...]",
    failure=125,
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments, environ: Mapping[str, str]) -> RunConfig:
    """The configuration; raises ConfigError, and HelpRequested if one of the lines requests help."""
    files: tuple[str, ...] = arguments[CONFIG]
    lines, argv = _split(arguments.rest, needs_lines=not files)
    if files and lines:
        raise ConfigError(
            f"--{CONFIG.name} and lines are mutually exclusive; expected --{CONFIG.name} FILE -- COMMAND [ARG...]"
        )
    reload_source = _open_source(arguments) if files else None
    process = reload_source.read() if reload_source is not None else _parse(lines, environ)
    process = replace(
        process,
        shutdown_delay=max(arguments[SHUTDOWN_DELAY], process.shutdown_delay),
        shutdown_timeout=arguments[STOP_TIMEOUT],  # a limit of one line would delay the others
    )
    return RunConfig(process, argv, reload_source, arguments[WAIT_READY], arguments[STOP_TIMEOUT])


def _open_source(arguments: Arguments) -> ReloadSource:
    from tunnel.commands.start import open_reload_source

    files: tuple[str, ...] = arguments[CONFIG]
    return open_reload_source(files, is_watching=arguments[WATCH])


def _parse(lines: Sequence[Sequence[str]], environ: Mapping[str, str]) -> ProcessConfig:
    from tunnel.commands.proxy.build import build as build_proxy
    from tunnel.commands.proxy.build import check_line

    parsed = [
        parse_command_line(line, proxy.COMMANDS, environ, global_flags=proxy.GLOBAL_FLAGS, expands_files=False)
        for line in lines
    ]
    for one in parsed:
        check_line(one.arguments)
    return join_lines([build_proxy(one.command, one.arguments) for one in parsed])


def join_lines(lines: Sequence[ProcessConfig]) -> ProcessConfig:
    """One process with the listeners of all lines; the ports and metric reports of a line are about its listener.

    Raises ConfigError if two lines have one port.
    """
    listeners = name_listeners([listener for line in lines for listener in line.listeners])
    monitors = (
        replace(monitor, listeners=(listener.name,))
        for line, listener in zip(lines, listeners, strict=True)
        for monitor in line.monitors
    )
    config = ProcessConfig(
        listeners,
        tuple(monitors),
        _join_logs([line.log for line in lines]),
        traces.join_traces(line.traces for line in lines),
        shutdown_delay=max(line.shutdown_delay for line in lines),
        timed_reload=min((line.timed_reload for line in lines if line.timed_reload), default=0.0),
        is_confined=all(line.is_confined for line in lines),  # the rules hold for the whole process
        workers=0 if any(not line.workers for line in lines) else max(line.workers for line in lines),
    )
    if problem := next(filter(None, check_health_ports(config)), ""):
        raise ConfigError(f"--health: {problem}")
    return config


def _join_logs(logs: Sequence[LogConfig]) -> LogConfig:
    """The one log of the process; raises ConfigError if two lines have different access logs."""
    access = {log.access: None for log in logs if log.access.format != "off"}
    if len(access) > 1:
        raise ConfigError("the lines have different access logs; expected one for all: they are one process")
    return LogConfig(
        tuple(word for log in logs for word in log.quiet),
        any(log.is_syslog for log in logs),
        "json" if any(log.format == "json" for log in logs) else "text",
        next(iter(access), AccessLogConfig()),
    )


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Run the command; its exit code, or one of our own. Raises ConfigError for a wrong line."""
    from tunnel.commands.run.run import run_command

    return run_command(command, arguments, environ)


def _split(rest: Sequence[str], *, needs_lines: bool) -> tuple[list[list[str]], tuple[str, ...]]:
    """The lines of the proxies, and the command."""
    end = rest.index(_COMMAND) if _COMMAND in rest else len(rest)
    if not rest[end + 1 :] and "--help" not in rest[:end]:  # `--help` is answered by the line that has it
        raise ConfigError("nothing to run: -- COMMAND [ARG...] is missing; use 'tunnel server' for a sidecar without a command")
    lines = split_lines(rest[:end]) if needs_lines or rest[:end] else []
    return lines, tuple(rest[end + 1 :])


def split_lines(tokens: Sequence[str]) -> list[list[str]]:
    """The lines of proxies that are separated by `+`; raises ConfigError for an empty one."""
    lines: list[list[str]] = [[]]
    for token in tokens:
        if token == _NEXT:
            lines.append([])
        else:
            lines[-1].append(token)
    for line in lines:
        if not line:
            raise ConfigError(f"a line is missing beside '{_NEXT}'; expected {_LINE} FLAGS on both sides")
    return lines
