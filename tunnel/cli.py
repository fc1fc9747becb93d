"""The command line: argv to an exit code.

Knows the commands and how each ends; must not know TLS or sockets. What a command needs is imported when it is certain
that it will run, so that a wrong line costs nothing and help is there at once.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping, MutableMapping, Sequence

from tunnel import __version__
from tunnel.config import (
    check,
    connect,
    demo,
    dev,
    health,
    proxy,
    svid,
    svid_jwt,
    svid_verify,
    texts,
)
from tunnel.config import exec as execution
from tunnel.config import run as household
from tunnel.config.grammar import Command, HelpWanted, LineError, Parsed, TextWanted, VersionWanted, parse_command_line
from tunnel.errors import TunnelError, words_of
from tunnel.log import one_line

PROGRAM = "tunnel"
_ABOUT = (
    "Gives a plain TCP service or client a SPIFFE identity: mutual TLS outside, plain bytes inside, and only those pass "
    "whom you named."
)
_FAMILIES: Mapping[str, str] = {  # what is told of commands that share their first word
    "check": check.FAMILY,
    "svid": "The identity itself, for programs that take it from files rather than through a proxy.",
}
_HELP = Command("help", "Tell more on a command.")
COMMANDS = (
    proxy.SERVER,
    proxy.CLIENT,
    execution.COMMAND,
    connect.COMMAND,
    household.COMMAND,
    check.SERVER,
    check.CLIENT,
    *svid.COMMANDS,
    *svid_jwt.COMMANDS,
    svid_verify.COMMAND,
    health.COMMAND,
    demo.COMMAND,
    dev.COMMAND,
    texts.COMPLETION,
    texts.MAN,
    _HELP,
)
# What no command can do without: descriptors, memory, room for what it prints.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run one command line; what is wrong with it is one line on standard error and exit code 1, or the command's own."""
    if argv[:1] == [texts.CANDIDATES]:  # what follows is a line that is being written, and need not make sense
        return _print_candidates(argv[1:])
    command = None
    try:
        parsed = parse_command_line(argv, COMMANDS, environ, early=proxy.COMMON)
        command = parsed.command
        return _run(parsed, environ)
    except HelpWanted as wanted:
        print_out(_help(wanted))
        return 0
    except VersionWanted:
        print_out(f"{PROGRAM} {__version__}\n")
        return 0
    except TextWanted as wanted:
        from tunnel.commands.texts import run_flag

        return run_flag(_program(), wanted.name)
    except TunnelError as error:
        print_error(f"{PROGRAM}: error: {error}, try --help")
        command = error.command if isinstance(error, LineError) else command
        return command.failure if command else 1


def print_out(text: str) -> None:
    """Text that was asked for."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_error(line: str) -> None:
    """One line about what went wrong, whatever was quoted in it."""
    sys.stderr.write(one_line(line) + "\n")


def _help(wanted: HelpWanted) -> str:
    from tunnel.config.help import command_usage, long_usage, usage

    if wanted.is_long:
        return long_usage(PROGRAM, _ABOUT, [command for command in COMMANDS if command is not _HELP])
    if wanted.family:
        members = [command for command in COMMANDS if command.name.split()[0] == wanted.family.split()[0]]
        return usage(f"{PROGRAM} {wanted.family}", _FAMILIES.get(wanted.family, ""), members)
    if wanted.command is None or wanted.command is _HELP:
        return usage(PROGRAM, _ABOUT, COMMANDS)
    return command_usage(PROGRAM, wanted.command)


def _run(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Each command's module makes sure that its line means something before it loads what is heavy."""
    command, arguments = parsed.command, parsed.arguments
    match command.name:
        case "connect":
            from tunnel.commands.connect import run
        case "check server" | "check client":
            from tunnel.commands.check import run
        case "dev":
            from tunnel.commands.dev import run
        case "demo":
            from tunnel.commands.demo import run
        case "exec":
            from tunnel.commands.exec import run
        case "run":
            from tunnel.commands.run import run
        case "completion" | "man":
            from tunnel.commands.texts import run as run_text

            return run_text(_program(), command, arguments)
        case "health":
            from tunnel.commands.health import run
        case "svid fetch" | "svid watch" | "svid show":
            from tunnel.commands.svid import run
        case "svid jwt" | "svid jwt verify":
            from tunnel.commands.svid_jwt import run
        case "svid verify":
            from tunnel.commands.svid_verify import run
        case "server" | "client":
            from tunnel.commands.serve import run
        case _:
            raise HelpWanted(None)
    try:
        return run(command, arguments, environ)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        print_error(f"{PROGRAM}: error: {words_of(error)}")
        return command.failure


def _print_candidates(words: Sequence[str]) -> int:
    from tunnel.commands.texts import print_candidates

    return print_candidates(_program(), words)


def _program() -> texts.Program:
    return texts.Program(PROGRAM, __version__, _ABOUT, COMMANDS, proxy.COMMON)
