"""`tunnel exec`: run a command that reaches servers through authenticated connections."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from tunnel.cli.command import Arguments, Command, Flag, Group, repeated
from tunnel.commands.client_flags import IDENTITY, LIMITS, PROCESS
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy.access import VERIFY
from tunnel.commands.proxy.limits import WORKERS
from tunnel.config.values import parse_text


def _of_target(flag: Flag[Any]) -> Flag[Any]:
    """A client's flag whose value can name the target that it is for: `NAME=VALUE`."""
    return repeated(
        flag.name,
        flag.summary,
        parse_text,
        placeholder=flag.placeholder,
        default_text=flag.default_text,
        aliases=flag.aliases,
        hidden=flag.is_hidden,
    )


TARGET = repeated(
    "target",
    "Server to connect to: HOST:PORT or unix:PATH; repeatable, all but one with a name: NAME=HOST:PORT",
    parse_text,
    placeholder="[NAME=]ADDR",
)
UNIX = repeated(
    "unix",
    "Listen on a Unix socket with this file name, in a private directory, instead of a port, such as .s.PGSQL.5432; "
    "repeatable, once for each target",
    parse_text,
    placeholder="[NAME=]SOCKET",
)
# The flags of a client that are given for each target, and their variants here.
TARGET_FLAGS = {flag: _of_target(flag) for flag in (*VERIFY.admitting(), proxy.SERVER_NAME) if flag.parse is not None}

COMMAND = Command(
    "exec",
    "Run a command that reaches servers through authenticated connections.",
    (
        Group("Target", (TARGET, UNIX, TARGET_FLAGS[proxy.SERVER_NAME], proxy.PROXY)),
        Group(
            f"{proxy.SERVER_RULES}; NAME=... for one target",
            (*(TARGET_FLAGS[flag] for flag in VERIFY.admitting() if flag in TARGET_FLAGS), VERIFY.any),
        ),
        IDENTITY,
        LIMITS,
        Group("Process", (*PROCESS.flags, WORKERS)),
    ),
    """\
Each target gets a port on loopback that only processes of the same user can use. In the command's
arguments {host}, {port} and {addr} are replaced by its address, with --unix {socket} and {dir}; for
a target with a name {NAME.port}. The command's environment has the same values: TUNNEL_HOST,
TUNNEL_PORT, TUNNEL_ADDR, TUNNEL_SOCKET, TUNNEL_DIR, and for a target with a name NAME_TUNNEL_PORT
and so on, in capitals. Other braces are left unchanged.

The exit code is the command's, or 128+N if signal N ended it; 125 if no tunnel could be opened, 126
if the command cannot be executed, 127 if it is not found. Failures are printed when the command
ends.

Examples:
  tunnel exec --target cache.example.org:8443 --verify-id spiffe://example.org/cache \\
      -- redis-cli -p {port} PING
  tunnel exec --target db.example.org:8443 --verify-id spiffe://example.org/db \\
      --unix .s.PGSQL.5432 -- psql -h {dir} -U app orders
  tunnel exec --target a=old.example.org:8443 --verify-uri a=spiffe://example.org/old \\
      --target b=new.example.org:8443 --verify-uri b=spiffe://example.org/new \\
      -- ./copy {a.port} {b.port}
""",
    rest="COMMAND [ARG...]",
    failure=125,
)
COMMANDS = (COMMAND,)


def run(command: Command, arguments: Arguments, environ: MutableMapping[str, str]) -> int:
    """Run the command; its exit code, or one of our own. Raises ConfigError for a wrong line."""
    from tunnel.commands.exec.run import run_command

    return run_command(command, arguments, environ)
