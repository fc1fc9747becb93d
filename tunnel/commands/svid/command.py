"""The flags of `tunnel svid fetch`, `watch` and `show`, and the frozen configurations they make.

Knows which of them go together; must not open a file or ask anyone, but for the number of a named group. The Workload API is
the only source here, so an address in the environment is enough.
"""

from __future__ import annotations

import grp
import os
import re
import shlex
import signal
from collections.abc import MutableMapping
from typing import Any

from tunnel.cli.parser import Arguments, Command, Flag, Group, option, required, switch
from tunnel.commands.proxy.source import API_ADDRESS, SPIFFE_HINT, SPIFFE_ID, USE_API, WAIT
from tunnel.config.model import WorkloadApi
from tunnel.config.svid_model import (
    ChildSignal,
    FetchConfig,
    FileNames,
    Output,
    PidFileSignal,
    Reload,
    ReloadCommand,
    ShowConfig,
    Supervised,
    WatchConfig,
)
from tunnel.config.values import or_none, parse_limit, parse_mode, parse_positive_duration, parse_text, parse_uint32
from tunnel.errors import ConfigError
from tunnel.net.address import LaunchdAddress, ListenAddress, SystemdAddress, parse_status_address
from tunnel.spiffe.endpoint import ENVIRONMENT
from tunnel.spiffe.selection import Selection

_NAMES = FileNames()
_LONGEST_NAME = 200  # bytes; a file's name has at most 255, and a temporary one is longer than the final one


def _parse_folder(text: str) -> str:
    if not text or "\0" in text:
        raise ConfigError(f"{text!a} is no folder")
    return text


def _parse_file_name(text: str) -> str:
    if not text or not text.isprintable() or "/" in text or text.startswith(".") or len(os.fsencode(text)) > _LONGEST_NAME:
        raise ConfigError(
            f"{text!a} is no name of a file in the folder: wanted is one without / that does not begin with a dot"
        )
    return text


def _parse_key_mode(text: str) -> int:
    mode = parse_mode(text)
    if mode & 0o007:
        raise ConfigError(f"{text!a} lets everybody on this machine at the private key; share it by --group and 0640")
    return mode


def parse_group(text: str) -> int:
    """A group of this machine, by name or number."""
    try:
        return parse_uint32(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"there is no group {text!a}; a name or a number is wanted") from None


def _parse_signal(text: str) -> signal.Signals:
    name = f"SIG{text.upper().removeprefix('SIG')}"
    known = signal.Signals.__members__
    if not re.fullmatch(r"SIG[A-Z0-9]+", name) or name not in known or known[name] in (signal.SIGKILL, signal.SIGSTOP):
        raise ConfigError(f"{text!a} is no signal that a program can take, such as HUP or USR1")
    return known[name]


def _parse_program(text: str) -> tuple[str, ...]:
    try:
        argv = tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigError(f"{text!a} cannot be split into words: {str(error).lower()}") from error
    if not argv or not argv[0]:
        raise ConfigError("a program to run is wanted, got nothing")
    return argv


def _parse_health(text: str) -> ListenAddress:
    address = parse_status_address(text)
    if address.scheme == "https" or isinstance(address.address, SystemdAddress | LaunchdAddress):
        raise ConfigError(f"{text!a}: health is served in plain HTTP, at [http://]HOST:PORT or unix:PATH")
    return address.address


OUT = required("out", "The folder to write to; it is made if need be.", _parse_folder, placeholder="DIR")
CERT_NAME = option(
    "cert-name",
    "The certificate and its chain, leaf first; default svid.pem.",
    _parse_file_name,
    _NAMES.cert,
    placeholder="NAME",
)
KEY_NAME = option(
    "key-name", "The private key, PKCS#8; default svid_key.pem.", _parse_file_name, _NAMES.key, placeholder="NAME"
)
BUNDLE_NAME = option(
    "bundle-name",
    "The authorities of our own trust domain; default bundle.pem. Those of a federated one go to a file of their own, "
    "bundle.TRUST-DOMAIN.pem.",
    _parse_file_name,
    _NAMES.bundle,
    placeholder="NAME",
)
COMBINED = option(
    "combined",
    "Write key and chain into this one file besides, replaced in one step.",
    parse_text,
    "",
    placeholder="FILE",
)
CERT_MODE = option("cert-mode", "Permissions of certificates and bundles; default 0644.", parse_mode, 0o644, placeholder="MODE")
KEY_MODE = option(
    "key-mode",
    "Permissions of the key, and of --combined; default 0600. Never readable by everybody.",
    _parse_key_mode,
    0o600,
    placeholder="MODE",
)
GROUP = option(
    "group", "The group of all files, by name or number; default the system's choice.", parse_group, None, placeholder="GROUP"
)
OMIT_EXPIRED = switch("omit-expired", "Leave authorities that have expired out of the bundles.")
INTERMEDIATES = switch(
    "intermediates-to-bundle",
    "Move intermediates from the certificate's file to our own bundle, as MySQL wants it. Dangerous: whoever reads that bundle "
    "then takes an intermediate for a root, and goes on trusting it when its root is gone.",
)
QUIET = switch("quiet", "Say nothing of what was written.", short="q")
JSON = switch("json", "Print JSON, one object a line, on standard output in the place of lines for people.")
SHOW_JSON = switch("json", "Print one JSON object.")
SHOW_PEM = switch("pem", "Print the certificate chain as PEM; never the key.")

FIRST_WAIT = option(
    WAIT.name,
    "How long to wait for the first identity; default 0, for ever.",
    parse_limit,
    0.0,
    placeholder="TIME",
    aliases=WAIT.aliases,
)
SIGNAL = option(
    "signal",
    "Send this signal, HUP for instance, after every update: to the process of --pid-file, or to COMMAND, which is started "
    "with the first one and gets it after later ones.",
    or_none(_parse_signal),
    None,
    placeholder="NAME",
)
PID_FILE = option(
    "pid-file", "Where the number of the process to signal stands; read each time.", parse_text, "", placeholder="FILE"
)
RELOAD_COMMAND = option(
    "reload-command",
    "Run this program after every update: words as in a shell, but no shell. With COMMAND, only after updates that come later.",
    _parse_program,
    (),
    placeholder="'PROGRAM ARG...'",
)
RELOAD_TIMEOUT = option(
    "reload-timeout", "How long that may take; default 30s.", parse_positive_duration, 30.0, placeholder="TIME"
)
RESTART = switch("restart", "Start COMMAND again when it ends, rather than end with it.")
STOP_TIMEOUT = option(
    "stop-timeout",
    "How long COMMAND may take to end after SIGTERM; default 10s, then it is killed.",
    parse_positive_duration,
    10.0,
    placeholder="TIME",
)
HEALTH = option(
    "health",
    "Answer /live, /ready and /metrics here, in plain HTTP: HOST:PORT or unix:PATH; anyone who reaches it may ask.",
    or_none(_parse_health),
    None,
    placeholder="ADDR",
)

_API: tuple[Flag[Any], ...] = (USE_API, API_ADDRESS, SPIFFE_ID, SPIFFE_HINT)
_FILES = Group(
    "The files",
    (
        OUT,
        CERT_NAME,
        KEY_NAME,
        BUNDLE_NAME,
        COMBINED,
        CERT_MODE,
        KEY_MODE,
        GROUP,
        OMIT_EXPIRED,
        INTERMEDIATES,
    ),
)

FETCH = Command(
    "svid fetch",
    "Write this process's X.509 identity to files, once.",
    (Group("Which identity", (*_API, WAIT)), _FILES, Group("What it says", (QUIET, JSON))),
    """\
All files of one update appear together: DIR/svid.pem is a link through DIR/..data, which leads to
a folder of this update. A key on a disk can be copied, so keep DIR in memory (tmpfs) where you can,
and use 'tunnel server' or 'tunnel client' where you need no files at all.

Examples:
  tunnel svid fetch --use-workload-api-addr unix:///run/spire/agent.sock --out /run/tls
  tunnel svid fetch --out /run/tls --cert-name tls.crt --key-name tls.key --bundle-name ca.crt \\
      --group postgres --key-mode 0640
""",
)
WATCH = Command(
    "svid watch",
    "Keep files with this process's X.509 identity fresh, and tell whoever uses them.",
    (
        Group("Which identity", (*_API, FIRST_WAIT)),
        _FILES,
        Group("Who is told: at most one of --signal and --reload-command", (SIGNAL, PID_FILE, RELOAD_COMMAND, RELOAD_TIMEOUT)),
        Group("A command of its own", (RESTART, STOP_TIMEOUT)),
        Group("What it says", (JSON, HEALTH)),
    ),
    """\
Every update is written as 'tunnel svid fetch' does it, in one step. COMMAND is started when the
first files are there and gets SIGTERM when this program does; when it ends, so does this program,
with its exit code. When the identity is taken away or expires the files stay, and the log says so.
Files that another process removes, replaces or changes are written again, also when DIR was moved
or mounted over. --health answers 503 when they have expired and while they are missing. Under
systemd, a service of Type=notify is ready when the first files are there.

Examples:
  tunnel svid watch --out /run/tls --signal HUP --pid-file /run/nginx.pid
  tunnel svid watch --out /run/tls --reload-command "psql -c 'SELECT pg_reload_conf()'"
  tunnel svid watch --out /run/tls --signal HUP --health 127.0.0.1:8081 -- \\
      mosquitto -c /etc/mosquitto.conf
""",
    rest="COMMAND [ARG...]",
    is_rest_optional=True,
)
SHOW = Command(
    "svid show",
    "Show which X.509 identities and bundles the Workload API gives this process.",
    (Group("Which identity: all that are offered, if none is chosen", (*_API, WAIT)), Group("How", (SHOW_JSON, SHOW_PEM))),
    """\
An agent looks at the process that asks: another user, container or program may be given others.

Examples:
  tunnel svid show --use-workload-api-addr unix:///run/spire/agent.sock
  tunnel svid show --spiffe-hint web --pem
""",
)
COMMANDS = (FETCH, WATCH, SHOW)


def build_fetch(arguments: Arguments) -> FetchConfig:
    """The configuration that a line of `svid fetch` means; raises ConfigError."""
    source = build_source(arguments, WAIT)
    return FetchConfig(source, _build_output(arguments), arguments[QUIET], arguments[JSON])


def build_watch(arguments: Arguments) -> WatchConfig:
    """The configuration that a line of `svid watch` means; raises ConfigError."""
    return WatchConfig(
        build_source(arguments, FIRST_WAIT),
        _build_output(arguments),
        _build_reload(arguments),
        _build_child(arguments),
        arguments[HEALTH],
        arguments[JSON],
    )


def build_show(arguments: Arguments) -> ShowConfig:
    """The configuration that a line of `svid show` means; raises ConfigError."""
    if arguments[SHOW_JSON] and arguments[SHOW_PEM]:
        raise ConfigError("--json and --pem are mutually exclusive")
    return ShowConfig(build_source(arguments, WAIT), arguments[SHOW_JSON], arguments[SHOW_PEM])


def build_source(arguments: Arguments, wait: Flag[float]) -> WorkloadApi:
    """The Workload API that is to be asked; raises ConfigError when there is no address."""
    endpoint = arguments[API_ADDRESS]
    if endpoint is None:
        raise ConfigError(f"no Workload API to ask: give --use-workload-api-addr ADDR, or set {ENVIRONMENT}")
    return WorkloadApi(endpoint, arguments[wait], Selection(arguments[SPIFFE_ID], arguments[SPIFFE_HINT]))


def _build_output(arguments: Arguments) -> Output:
    names = FileNames(arguments[CERT_NAME], arguments[KEY_NAME], arguments[BUNDLE_NAME])
    _check_names(names)
    output = Output(
        arguments[OUT],
        names,
        arguments[CERT_MODE],
        arguments[KEY_MODE],
        arguments[GROUP],
        arguments[COMBINED],
        arguments[OMIT_EXPIRED],
        arguments[INTERMEDIATES],
    )
    if output.combined:
        _check_combined(output)
    return output


def _check_names(names: FileNames) -> None:
    if len({names.cert, names.key, names.bundle}) < 3:
        raise ConfigError(
            "--cert-name, --key-name and --bundle-name must differ; for key and chain in one file say --combined FILE"
        )
    stem, suffix = os.path.splitext(names.bundle)
    for flag, name in ((CERT_NAME, names.cert), (KEY_NAME, names.key)):
        if name.startswith(f"{stem}.") and name.endswith(suffix) and len(name) > len(f"{stem}.{suffix}"):
            raise ConfigError(
                f"--{flag.name} {name} could be a federated trust domain's bundle, {stem}.TRUST-DOMAIN{suffix}: say another"
            )


def _check_combined(output: Output) -> None:
    folder, name = os.path.split(output.combined)
    if not name or name in (".", "..") or "\0" in output.combined:
        raise ConfigError(f"--combined {output.combined!a} is no file")
    if os.path.realpath(folder) == os.path.realpath(output.folder):
        _parse_file_name(name)
        if name in (output.names.cert, output.names.key, output.names.bundle):
            raise ConfigError(f"--combined {output.combined} is the name of another file that is written: say another")


def _build_reload(arguments: Arguments) -> Reload | None:
    number, pid_file, program = arguments[SIGNAL], arguments[PID_FILE], arguments[RELOAD_COMMAND]
    if number and program:
        raise ConfigError("--signal and --reload-command are mutually exclusive")
    if pid_file and arguments.rest:
        raise ConfigError("--pid-file is for a process that somebody else starts: leave it out, --signal goes to COMMAND")
    if pid_file and not number:
        raise ConfigError("--pid-file needs --signal: which one the process is to be sent")
    if program:
        return ReloadCommand(program, arguments[RELOAD_TIMEOUT])
    if number and not (pid_file or arguments.rest):
        raise ConfigError("--signal needs --pid-file FILE, or -- COMMAND: a process that it goes to")
    if number:
        return PidFileSignal(pid_file, number) if pid_file else ChildSignal(number)
    return None


def _build_child(arguments: Arguments) -> Supervised | None:
    if arguments.rest:
        return Supervised(arguments.rest, arguments[RESTART], arguments[STOP_TIMEOUT])
    if arguments[RESTART]:
        raise ConfigError("--restart needs -- COMMAND: what is to be started again")
    return None


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Carry out one line; the exit code. Raises ConfigError for a wrong line."""
    from tunnel.commands.svid.run import run

    return run(command, arguments, environ)
