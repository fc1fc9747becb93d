"""Completion in bash, zsh and fish themselves, by the scripts that `tunnel completion` prints."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_tables import LINES, TABLES, visible_flags
from tests.support.processes import LIMIT
from tests.support.requirements import program
from tests.support.shells import Shell
from tunnel.cli.completion import build_contexts
from tunnel.cli.shells import SCRIPTS
from tunnel.commands.proxy import command as proxy
from tunnel.commands.registry import load_commands

Ask = Callable[[Sequence[str]], list[set[str]]]
_END = "--- end of one"


def _pressed(shell: Shell, line: str) -> set[str]:
    """What stands in the place of the last word when all that is offered has been inserted."""
    *before, last = line.split(" ")[1:]
    seen = shell.complete(line)
    assert seen[: len(before)] == before
    return _bare(seen[len(before) :], last)


def _bare(found: Sequence[str], last: str) -> set[str]:
    """The offers: without the flag in front of a value, which bash does not repeat, and without what was there."""
    start = last.partition("=")[0] + "=" if "=" in last else ""
    return {text.removeprefix(start) for text in found} - {last.removeprefix(start), ""}


def _asked_fish(script: Path, folder: Path, lines: Sequence[str]) -> list[set[str]]:
    asked = "".join(f"complete -C {_quoted(line)}; echo {_quoted(_END)};" for line in lines)
    done = subprocess.run(
        [program("fish"), "--no-config", "-c", f"source {script}; {asked}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stderr == ""
    parts = done.stdout.split(f"{_END}\n")[:-1]
    found = []
    for line, part in zip(lines, parts, strict=True):
        last = line.split(" ")[-1]  # fish offers what is alike, too, where nothing begins like it
        texts = [text.partition("\t")[0] for text in part.splitlines()]
        found.append(_bare([text for text in texts if text.startswith(last)], last))
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def _asking(name: str, script: str, directory: Path) -> Iterator[Ask]:
    """Ask one shell that has read a script, in a folder where there are two files and a folder."""
    path, folder = directory / f"script.{name}", directory / "here"
    path.write_text(script)
    (folder / "fold").mkdir(parents=True)
    for file in ("fa.pem", "fb.pem"):
        (folder / file).touch()
    if name == "fish":
        yield lambda lines: _asked_fish(path, folder, lines)
        return
    with Shell(program(name), path, folder) as shell:
        yield lambda lines: [_pressed(shell, line) for line in lines]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_line_is_completed_in_the_shell_itself(name: str, tmp_path: Path) -> None:
    files: dict[str, set[str]] = {
        "tunnel server --file f": {"fa.pem", "fb.pem", "fold"},
        "tunnel server --file=f": {"fa.pem", "fb.pem", "fold"},
        "tunnel server --folder f": {"fold"},
        "tunnel svid jwt verify f": {"fa.pem", "fb.pem", "fold"},
        "tunnel exec -- cat f": {"fa.pem", "fb.pem", "fold"},
        "tunnel exec -- mkfif": {"mkfifo"},
        "tunnel run server + client -- mkfif": {"mkfifo"},
    }
    expected = {line: {text.rpartition("=")[2] for text in offered} for line, offered in LINES.items()} | files
    with _asking(name, SCRIPTS[name]("tunnel", build_contexts(TABLES, ())), tmp_path) as ask:
        found = dict(zip(expected, ask(list(expected)), strict=True))
    wrong = {
        line: seen for line, seen in found.items() if {text.rstrip("/") for text in seen} != _but_typed(expected[line], line)
    }
    assert wrong == {}


def _but_typed(offered: set[str], line: str) -> set[str]:
    return offered - {line.split(" ")[-1]}


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_flag_of_each_command_is_offered_and_nothing_else(name: str, tmp_path: Path) -> None:
    lines = [f"tunnel {command.name} -" for command in load_commands()]
    with _asking(name, SCRIPTS[name]("tunnel", build_contexts(load_commands(), proxy.GLOBAL_FLAGS)), tmp_path) as ask:
        found = dict(zip(lines, ask(lines), strict=True))
    assert found == {f"tunnel {command.name} -": visible_flags(command) for command in load_commands()}
