"""The command line: argv to an exit code.

Knows how each command begins and ends; must not know TLS or sockets. What a command needs is imported when it is certain that
it will run, so that a wrong line costs nothing and help is there at once.
"""

from __future__ import annotations

import errno
from collections.abc import MutableMapping, Sequence

from tunnel import __version__
from tunnel.cli.output import say, show
from tunnel.cli.parser import HelpWanted, LineError, Parsed, TextWanted, VersionWanted, parse_command_line
from tunnel.commands.registry import ABOUT, FAMILIES, HELP, PROGRAM, load_commands, load_commands_of, load_run
from tunnel.errors import TunnelError, describe_os_error
from tunnel.log import one_line

# What no command can do without: descriptors, memory, room for what it prints.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_KEYLESS = ("completion", "health", "help", "man")  # commands that hold no key and no password
_CANDIDATES = "--completion-bash"  # kingpin's: the first word of a line, before the words to complete


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run one command line; what is wrong with it is one line on standard error and exit code 1, or the command's own."""
    if argv[:1] == [_CANDIDATES]:  # what follows is a line that is being written, and need not make sense
        return _print_candidates(argv[1:])
    command = None
    try:
        parsed = _parse(argv, environ)
        command = parsed.command
        return _run(parsed, environ)
    except HelpWanted as wanted:
        show(_help(wanted))
        return 0
    except VersionWanted:
        show(f"{PROGRAM} {__version__}\n")
        return 0
    except TextWanted as wanted:
        from tunnel.commands.texts import run_flag

        return run_flag(wanted.name)
    except TunnelError as error:
        say(f"error: {error}, try --help")
        command = error.command if isinstance(error, LineError) else command
        return command.failure if command else 1
    except ImportError as error:  # a package that is missing or broken
        say(f"error: a module cannot be loaded: {one_line(str(error))}")
        return command.failure if command else 1


def _parse(argv: Sequence[str], environ: MutableMapping[str, str]) -> Parsed:
    """What the line asks for; of one that begins with a command, nothing but that command's tables is loaded."""
    if argv[:1] == ["--version"]:
        raise VersionWanted
    if argv and (commands := load_commands_of(argv[0])):
        return parse_command_line(argv, commands, environ)
    from tunnel.commands.proxy.command import COMMON

    return parse_command_line(argv, load_commands(), environ, early=COMMON)


def _help(wanted: HelpWanted) -> str:
    from tunnel.cli.help import command_usage, long_usage, usage

    if wanted.is_long:
        return long_usage(PROGRAM, ABOUT, [command for command in load_commands() if command is not HELP])
    if wanted.family:
        word = wanted.family.split()[0]
        members = [command for command in load_commands() if command.name.split()[0] == word]
        return usage(f"{PROGRAM} {wanted.family}", FAMILIES.get(wanted.family, ""), members)
    if wanted.command is None or wanted.command is HELP:
        return usage(PROGRAM, ABOUT, load_commands())
    return command_usage(PROGRAM, wanted.command)


def _run(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    """Each command's module makes sure that its line means something before it loads what is heavy."""
    command, arguments = parsed.command, parsed.arguments
    if command.name not in _KEYLESS:
        from tunnel.child.core_dumps import forbid_core_dumps

        forbid_core_dumps()
    if command is HELP:
        raise HelpWanted(None)
    run = load_run(command)
    try:
        return run(command, arguments, environ)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        say(f"error: {describe_os_error(error)}")
        return command.failure


def _print_candidates(words: Sequence[str]) -> int:
    from tunnel.commands.texts import print_candidates

    return print_candidates(words)
