"""Manual pages in roff with the macros of man(7), made from the declarations of commands.

Every text is escaped: a hyphen can be copied to a shell, and no line is a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from tunnel.cli.command import Command, Flag, Group, Program
from tunnel.cli.help import command_line

SECTION = 1
_ESCAPES = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    '"': "\\(dq",
}
_FILES = "An argument of the form @FILE stands for the lines of that file, one argument per line; empty lines and lines that \
begin with # are omitted. Arguments after \\-\\- are not replaced."
_EXIT = (
    ("0", "Success, or help was requested."),
    ("1", "Invalid command line, or the command failed: one line on standard error with the reason."),
)


def page_name(program: Program, command: Command | None) -> str:
    """The name of a page without its section: `tunnel-svid-fetch`."""
    return program.name if command is None else "-".join([program.name, *command.name.split()])


def whole_page(program: Program) -> str:
    """The page on the program, with the list of its commands."""
    lines = [*_title(page_name(program, None), program.about.partition(":")[0], program)]
    lines += [".SH SYNOPSIS", f"{_bold(program.name)} {_italic('COMMAND')} [{_italic('FLAGS')}]", *_about(program)]
    lines += [".SH COMMANDS"]
    for command in program.documented:
        lines += [".TP", _bold(f"{program.name} {command.name}"), _text(command.summary)]
    lines += [*_environment(program.documented), *_exits(()), *_see_also(program, None)]
    return _joined(lines)


def command_page(program: Program, command: Command) -> str:
    """The page on one command."""
    prose, examples = _parts(command.detail)
    lines = [*_title(page_name(program, command), command.summary.rstrip("."), program)]
    lines += [".SH SYNOPSIS", _synopsis(program, command)]
    lines += [".SH DESCRIPTION", _text(command.summary), *prose, *_options(command, ".SH", ".SS")]
    lines += [*_environment([command]), *_exits([command])]
    if examples:
        lines += [".SH EXAMPLES", *examples]
    return _joined([*lines, *_see_also(program, command)])


def long_page(program: Program) -> str:
    """All commands on one page, as kingpin's `--help-man` prints it."""
    lines = [*_title(page_name(program, None), program.about.partition(":")[0], program)]
    lines += [".SH SYNOPSIS", f"{_bold(program.name)} {_italic('COMMAND')} [{_italic('FLAGS')}]", *_about(program)]
    for command in program.documented:
        prose, examples = _parts(command.detail)
        lines += [f'.SH "{_text(f"{program.name} {command.name}")}"', _synopsis(program, command), ".PP"]
        lines += [_text(command.summary), *prose, *_options(command, ".SS", ".PP\n.B"), *([".SS Examples"] if examples else [])]
        lines += examples
    return _joined([*lines, *_environment(program.documented), *_exits(program.documented)])


def all_pages(program: Program) -> Iterator[tuple[str, str]]:
    """Every page with the name of its file."""
    yield f"{page_name(program, None)}.{SECTION}", whole_page(program)
    for command in program.documented:
        yield f"{page_name(program, command)}.{SECTION}", command_page(program, command)


def _title(name: str, summary: str, program: Program) -> list[str]:
    head = f'.TH "{_text(name.upper())}" {SECTION} "" "{_text(f"{program.name} {program.version}")}" "User Commands"'
    # No hyphenation and no justification: most words are flags and addresses.
    return [head, ".nh", ".ad l", ".SH NAME", f"{_text(name)} \\- {_text(summary)}"]


def _about(program: Program) -> list[str]:
    return [".SH DESCRIPTION", _text(program.about), ".PP", _FILES]


def _synopsis(program: Program, command: Command) -> str:
    return _bold(f"{program.name} {command.name}") + _text(command_line(command).removeprefix(command.name))


def _positional(positional: Flag[Any]) -> str:
    return _italic(positional.name) + ("..." if positional.is_repeated else "")


def _options(command: Command, upper: str, lower: str) -> Iterator[str]:
    if command.positionals:
        yield f"{upper} {'Arguments' if upper == '.SS' else 'ARGUMENTS'}"
        for positional in command.positionals:
            yield from (".TP", _positional(positional), f"{_text(positional.help)}.")
    groups = [group for group in command.groups if any(not flag.is_hidden for flag in group.flags)]
    if groups:
        yield f"{upper} {'Options' if upper == '.SS' else 'OPTIONS'}"
    for group in groups:
        if len(groups) > 1:
            yield f'{lower} "{_text(group.title)}"'
        yield from _entries(group)


def _entries(group: Group) -> Iterator[str]:
    for flag in group.flags:
        if not flag.is_hidden:
            source = f" Environment variable: {_bold(flag.env)}." if flag.env else ""
            more = " Repeatable." if flag.is_repeated and "epeatable" not in flag.help else ""
            yield from (".TP", _spelling(flag), f"{_text(flag.help)}." + more + source)


def _spelling(flag: Flag[Any]) -> str:
    if flag.parse is not None:
        return f"{_bold(f'--{flag.name}')} {_italic(flag.placeholder)}"
    short = f"{_bold(f'-{flag.short}')}, " if flag.short else ""
    return f"{short}{_bold(f'--{flag.name}')}, {_bold(f'--no-{flag.name}')}"


def _environment(commands: Iterable[Command]) -> Iterator[str]:
    flags = {flag.env: flag.name for command in commands for flag in command.flags if flag.env and not flag.is_hidden}
    if flags:
        yield ".SH ENVIRONMENT"
    for env, name in flags.items():
        yield from (
            ".TP",
            _bold(env),
            f"Used for {_bold(f'--{name}')} if the line does not have the flag and the variable is not empty.",
        )


def _exits(commands: Iterable[Command]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    if any(command.rest or command.lines for command in commands):
        yield from ("That of the command that is run, after its start. Otherwise:", ".PP")
    for code, meaning in _EXIT:
        yield from (".TP", _bold(code), _text(meaning))


def _see_also(program: Program, command: Command | None) -> Iterator[str]:
    """The page on the program and on related commands; on the page of the program, all pages."""
    names = [page_name(program, None)] if command is not None else []
    for known in program.documented:
        is_near = command is None or known.name.split()[0] == command.name.split()[0] or " " not in known.name + command.name
        if known is not command and is_near:
            names.append(page_name(program, known))
    if names:
        yield from (".SH SEE ALSO", ",\n".join(f"{_bold(name)}({SECTION})" for name in names))


def _parts(detail: str) -> tuple[list[str], list[str]]:
    """The text of a detail, and its examples, which follow `Examples:`."""
    prose: list[str] = []
    examples: list[str] = []
    here = prose
    for block in detail.strip("\n").split("\n\n"):
        for is_shown, lines in groupby(block.splitlines(), key=lambda line: line.startswith(" ")):
            texts = list(lines)
            if not is_shown and texts[0].rstrip(":") in ("Example", "Examples"):
                here, texts = examples, texts[1:]
            here += _shown(texts) if is_shown else [".PP", *map(_text, texts)] if texts else []
    return prose, examples


def _shown(lines: Sequence[str]) -> list[str]:
    """Lines without filling, indented by two columns."""
    return [".PP", ".RS 2", ".nf", *(_text(line.removeprefix("  ")) for line in lines), ".fi", ".RE"]


def _bold(text: str) -> str:
    return f"\\fB{_text(text)}\\fR"


def _italic(text: str) -> str:
    return f"\\fI{_text(text)}\\fR"


def _text(text: str) -> str:
    """Text escaped for troff, in ASCII and on one line."""
    signs = "".join(_ESCAPES.get(sign) or _sign(sign) for sign in text)
    return f"\\&{signs}" if signs.startswith(".") else signs


def _sign(sign: str) -> str:
    if sign.isascii():
        return sign if sign.isprintable() else " "
    return f"\\[u{ord(sign):04X}]"


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(line for line in lines if line) + "\n"
