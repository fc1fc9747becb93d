"""The command line: argv to an exit code.

Only the modules of the requested command are loaded: help and errors are fast, and load no large library.
"""

from __future__ import annotations

import errno
from collections.abc import MutableMapping, Sequence

from tunnel import __version__
from tunnel.cli.output import print_message, print_output
from tunnel.cli.parser import (
    HelpRequested,
    Parsed,
    TextRequested,
    UsageError,
    VersionRequested,
    parse_command_line,
)
from tunnel.commands.registry import ABOUT, FAMILIES, HELP, PROGRAM, load_commands, load_commands_of, load_run
from tunnel.errors import ConfigMistakes, TunnelError, describe_os_error
from tunnel.log import one_line

# Resources without which no command can run: descriptors, memory, disk space.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WITHOUT_SECRETS = (
    "completion",
    "health",
    "help",
    "man",
    "status",
    "top",
)  # commands that have no key and no password in memory
_COMPLETION_FLAG = "--completion-bash"  # kingpin's: first in a line, before the words to complete


def main(argv: Sequence[str], environ: MutableMapping[str, str]) -> int:
    """Run one command line; an error is one line on standard error and exit code 1, or the command's own exit code."""
    if argv[:1] == [_COMPLETION_FLAG]:  # the words behind it need not be a valid line
        from tunnel.commands.completion import print_candidates

        return print_candidates(argv[1:])
    command = None
    try:
        parsed = _parse(argv, environ)
        command = parsed.command
        return _run(parsed, environ)
    except HelpRequested as request:
        print_output(_help(request))
        return 0
    except VersionRequested:
        print_output(f"{PROGRAM} {__version__}\n")
        return 0
    except TextRequested as request:
        return _print_text(request.name)
    except ConfigMistakes as error:
        for line in str(error).splitlines():
            print_message(f"error: {line}")
        return command.failure if command else 1
    except TunnelError as error:
        print_message(f"error: {error}, try --help")
        command = error.command if isinstance(error, UsageError) else command
        return command.failure if command else 1
    except ImportError as error:  # a package that is missing or broken
        print_message(f"error: a module cannot be loaded: {one_line(str(error))}")
        return command.failure if command else 1


def _parse(argv: Sequence[str], environ: MutableMapping[str, str]) -> Parsed:
    if argv[:1] == ["--version"]:
        raise VersionRequested
    if argv and (commands := load_commands_of(argv[0])):
        return parse_command_line(argv, commands, environ)
    from tunnel.commands.proxy.command import GLOBAL_FLAGS

    return parse_command_line(argv, load_commands(), environ, global_flags=GLOBAL_FLAGS)


def _help(request: HelpRequested) -> str:
    from tunnel.cli.help import command_usage, long_usage, usage

    if request.is_long:
        return long_usage(PROGRAM, ABOUT, [command for command in load_commands() if command is not HELP])
    if request.family:
        word = request.family.split()[0]
        members = [command for command in load_commands() if command.name.split()[0] == word]
        return usage(f"{PROGRAM} {request.family}", FAMILIES.get(request.family, ""), members)
    if request.command is None or request.command is HELP:
        return usage(PROGRAM, ABOUT, load_commands())
    return command_usage(PROGRAM, request.command)


def _print_text(flag: str) -> int:
    """Print the text of one of kingpin's flags: a manual page, or a completion script."""
    if flag.startswith("completion-script-"):
        from tunnel.commands.completion import print_script

        return print_script(flag.rpartition("-")[2])
    from tunnel.commands.man import print_long_page

    return print_long_page()


def _run(parsed: Parsed, environ: MutableMapping[str, str]) -> int:
    command = parsed.command
    if command is HELP:
        raise HelpRequested(None)
    if command.name not in _WITHOUT_SECRETS:
        from tunnel.child.kernel import forbid_core_dumps

        forbid_core_dumps()
    try:
        return load_run(command)(command, parsed.arguments, environ)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        print_message(f"error: {describe_os_error(error)}")
        return command.failure
