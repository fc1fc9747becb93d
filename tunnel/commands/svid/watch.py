"""`tunnel svid watch`: keep files with the X.509-SVID of this process up to date, and notify the programs that use them."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import MutableMapping
from contextlib import ExitStack, closing

from tunnel.cli.command import Arguments, Command, Group, option, switch
from tunnel.cli.output import print_message
from tunnel.commands.proxy.source import SELECTION, WAIT, build_api, build_selection
from tunnel.commands.svid.fetch import JSON
from tunnel.commands.svid.files import FILES, build_output, open_directory
from tunnel.config.svid_model import ChildSignal, PidFileSignal, Reload, ReloadCommand, Supervised, WatchConfig
from tunnel.config.values import default_of, or_none, parse_limit, parse_positive_duration, parse_text
from tunnel.errors import ConfigError, TunnelError, invalid_value
from tunnel.net.address import LaunchdAddress, ListenAddress, SystemdAddress, parse_health_address


def _parse_signal(text: str) -> signal.Signals:
    name = f"SIG{text.upper().removeprefix('SIG')}"
    known = signal.Signals.__members__
    if not re.fullmatch(r"SIG[A-Z0-9]+", name) or name not in known or known[name] in (signal.SIGKILL, signal.SIGSTOP):
        raise invalid_value("signal", text, expected="a signal that a program can handle, such as HUP or USR1")
    return known[name]


def _parse_program(text: str) -> tuple[str, ...]:
    try:
        argv = tuple(shlex.split(text))
    except ValueError as error:
        raise invalid_value("command", text, str(error).lower()) from error
    if not argv or not argv[0]:
        raise invalid_value("command", text, "empty")
    return argv


def _parse_health(text: str) -> ListenAddress:
    address = parse_health_address(text)
    if isinstance(address, SystemdAddress | LaunchdAddress):
        raise invalid_value("address", text, "health has no activation socket", "[http://]HOST:PORT or unix:PATH")
    return address


FIRST_WAIT = option(
    WAIT.name,
    "Maximum time to wait for the first identity",
    parse_limit,
    0.0,
    zero="no limit",
    placeholder="TIME",
    aliases=WAIT.aliases,
)
SIGNAL = option(
    "signal",
    "Send this signal, such as HUP, after every update: to the process of --pid-file, or to COMMAND, which is started after "
    "the first update and gets it after later ones",
    or_none(_parse_signal),
    None,
    placeholder="NAME",
)
PID_FILE = option("pid-file", "File with the process ID to signal; read before each signal", parse_text, "", placeholder="FILE")
RELOAD_COMMAND = option(
    "reload-command",
    "Run this program after every update, with COMMAND only after later updates: words as in a shell, but without a shell",
    _parse_program,
    (),
    placeholder="'PROGRAM ARG...'",
)
RELOAD_TIMEOUT = option(
    "reload-timeout",
    "Maximum time for --reload-command",
    parse_positive_duration,
    default_of(ReloadCommand, "limit"),
    placeholder="TIME",
)
RESTART = switch("restart", "Restart COMMAND when it ends, instead of ending with it")
STOP_TIMEOUT = option(
    "stop-timeout",
    "Maximum time for COMMAND to end after SIGTERM, before it is killed",
    parse_positive_duration,
    default_of(Supervised, "stop_limit"),
    placeholder="TIME",
)
HEALTH = option(
    "health",
    "Serve /live, /ready and /metrics in plain HTTP at HOST:PORT or unix:PATH; requests need no authentication",
    or_none(_parse_health),
    None,
    placeholder="ADDR",
)

COMMAND = Command(
    "svid watch",
    "Keep files with the X.509-SVID of this process up to date, and notify the programs that use them.",
    (
        Group("Identity", (*SELECTION, FIRST_WAIT)),
        FILES,
        Group("Notification: at most one of --signal and --reload-command", (SIGNAL, PID_FILE, RELOAD_COMMAND, RELOAD_TIMEOUT)),
        Group("Child command", (RESTART, STOP_TIMEOUT)),
        Group("Output", (JSON, HEALTH)),
    ),
    """\
Every update is written atomically, as by 'tunnel svid fetch'. COMMAND is started after the first
update and gets SIGTERM when this program does; when it ends, this program ends with its exit code.
If the identity is withdrawn or expires, the files stay and a line is logged. Files that another
process removes, replaces or changes are written again, also after DIR is moved or mounted over.
--health answers 503 if the files are expired or missing. Under systemd, a service of Type=notify is
ready after the first update.

Examples:
  tunnel svid watch --out /run/tls --signal HUP --pid-file /run/nginx.pid
  tunnel svid watch --out /run/tls --reload-command "psql -c 'SELECT pg_reload_conf()'"
  tunnel svid watch --out /run/tls --signal HUP --health 127.0.0.1:8081 -- \\
      mosquitto -c /etc/mosquitto.conf
""",
    rest="COMMAND [ARG...]",
    is_rest_optional=True,
)
COMMANDS = (COMMAND,)


def build(arguments: Arguments) -> WatchConfig:
    """The configuration; raises ConfigError."""
    return WatchConfig(
        build_api(arguments, FIRST_WAIT, build_selection(arguments)),
        build_output(arguments),
        _build_reload(arguments),
        _build_child(arguments),
        arguments[HEALTH],
        arguments[JSON],
    )


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Write the files until a signal or the end of the child; the exit code. Raises ConfigError for a wrong line."""
    config = build(arguments)
    from tunnel.child.signal_probe import SignalProbe

    try:
        with ExitStack() as resources:
            probe = resources.enter_context(closing(SignalProbe())) if config.child else None  # before there are threads
            from tunnel.svid.event_log import EventFormat, EventLog
            from tunnel.svid.watch import run_watch

            event_log = EventLog(EventFormat.JSON if config.is_json else EventFormat.LOG)
            directory = resources.enter_context(closing(open_directory(config.output, event_log)))
            return run_watch(config, directory, event_log, environ, probe)
    except TunnelError as error:
        print_message(f"error: {error}")
        return 1


def _build_reload(arguments: Arguments) -> Reload | None:
    number, pid_file, program = arguments[SIGNAL], arguments[PID_FILE], arguments[RELOAD_COMMAND]
    if number and program:
        raise ConfigError("--signal and --reload-command are mutually exclusive")
    if pid_file and arguments.rest:
        raise ConfigError("--pid-file and COMMAND are mutually exclusive: --signal is sent to COMMAND")
    if pid_file and not number:
        raise ConfigError("--pid-file needs --signal, the signal to send")
    if program:
        return ReloadCommand(program, arguments[RELOAD_TIMEOUT])
    if number and not (pid_file or arguments.rest):
        raise ConfigError("--signal needs a process; expected --pid-file FILE, or -- COMMAND")
    if number:
        return PidFileSignal(pid_file, number) if pid_file else ChildSignal(number)
    return None


def _build_child(arguments: Arguments) -> Supervised | None:
    if arguments.rest:
        return Supervised(arguments.rest, arguments[RESTART], arguments[STOP_TIMEOUT])
    if arguments[RESTART]:
        raise ConfigError("--restart needs -- COMMAND, the command to restart")
    return None
