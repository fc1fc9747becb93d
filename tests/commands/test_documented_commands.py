"""Every command line in the documents is one that the program accepts, as it is written there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunnel.cli.parser import HelpRequested, parse_command_line
from tunnel.commands.proxy.build import build as build_proxy
from tunnel.commands.proxy.build import check_line
from tunnel.commands.proxy.command import GLOBAL_FLAGS
from tunnel.commands.registry import load_commands
from tunnel.commands.run.command import build as build_run

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
ENVIRON = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/spire/agent.sock"}
OPERATORS = re.compile(r"[|&;<>()]+")


def command_lines(text: str) -> Iterator[list[str]]:
    """The arguments of each command line of `tunnel` in the shell blocks of a page, without what the shell reads itself."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if "..." not in line:
                yield from split_commands(line)


def split_commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if not OPERATORS.fullmatch(token):
            words.append(token)
            continue
        words = words[words[:1] == ["sudo"] :]
        if words and Path(words[0]).name == "tunnel":
            yield words[1:]
        words = []


LINES = [
    pytest.param(arguments, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, arguments in enumerate(command_lines(page.read_text()), 1)
]


@pytest.mark.parametrize("arguments", LINES)
def test_the_program_accepts_every_line_of_the_documents(arguments: list[str]) -> None:
    has_files = any(argument.startswith(("--cert", "--keystore", "--auto-acme-cert")) for argument in arguments)
    try:
        parsed = parse_command_line(arguments, load_commands(), {} if has_files else ENVIRON, global_flags=GLOBAL_FLAGS)
    except HelpRequested:
        return
    if parsed.command.name in ("server", "client"):
        check_line(parsed.arguments)
        build_proxy(parsed.command, parsed.arguments)
    elif parsed.command.name == "run" and "--config" not in arguments:  # whose file does not exist here
        build_run(parsed.arguments, ENVIRON)


def test_lines_are_found_between_other_commands() -> None:
    text = "```sh\nprintf x | sudo tunnel health \\\n  ADDR >/dev/null && true  # tunnel\n/opt/tunnel dev & \n```\n"
    assert list(command_lines(text)) == [["health", "ADDR"], ["dev"]]
    assert len(LINES) > 40
