"""Manual pages show every flag that is not hidden, and no text is a request of troff."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command_tables import TABLES
from tunnel.cli.command import Command, Group, Program, option
from tunnel.cli.main import main
from tunnel.cli.man import all_pages, command_page, long_page
from tunnel.commands.registry import load_commands

HOSTILE = ".so /etc/passwd\n'hidden \\fB\\*(x `a' \"b\" ~^-é\U0001f600\x1b[31m"
PAGED = [command for command in load_commands() if command.name != "help"]


def plain(page: str) -> str:
    """A page as it reads: without fonts and escapes."""
    return re.sub(r"\\f[BIR]", "", page).replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\")


@pytest.mark.parametrize("command", PAGED, ids=lambda command: command.name)
def test_every_flag_that_is_not_hidden_is_on_its_page(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man", *command.name.split()], {}) == 0
    page = plain(capsys.readouterr().out)
    for flag in command.flags:
        assert bool(re.search(rf"(?m)^(?:-\w, )?--{flag.name}\b(?!-)", page)) != flag.is_hidden
        assert flag.is_hidden or not flag.env or f"\n{flag.env}\n" in page.partition(".SH ENVIRONMENT")[2]
    parts = re.findall(r"(?m)^\.SH (.*)$", page)
    assert parts == [part for part in _ORDER if part in parts]
    assert {"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "SEE ALSO"} <= set(parts)
    assert ("EXAMPLES" in parts) == ("Examples:" in command.detail)


_ORDER = "NAME|SYNOPSIS|DESCRIPTION|ARGUMENTS|OPTIONS|ENVIRONMENT|EXIT STATUS|EXAMPLES|SEE ALSO".split("|")


def test_the_long_page_has_every_flag_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["--help-man"], ["--help-custom-man"], ["server", "--help-man"]):
        assert main(line, {}) == 0
        page = plain(capsys.readouterr().out)
        for command in PAGED:
            part = page.partition(f'\n.SH "tunnel {command.name}"\n')[2].partition("\n.SH ")[0]
            assert all(f"--{flag.name}" in part for flag in command.flags if not flag.is_hidden)


def test_no_text_is_a_request_or_an_escape() -> None:
    flag = option("flag", HOSTILE, str, "", placeholder=HOSTILE, env=HOSTILE)
    command = Command(
        "do", HOSTILE, (Group(HOSTILE, (flag,)), Group("'", (flag,))), f"{HOSTILE}\n\n  {HOSTILE}\n", rest=HOSTILE
    )
    program = Program("tool", HOSTILE, HOSTILE, (command,))
    for page in (*(page for _, page in all_pages(program)), long_page(program)):
        assert page.isascii()
        assert all(line.isprintable() for line in page.splitlines())
        requests = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
        assert requests <= {".TH", ".nh", ".ad", ".SH", ".SS", ".PP", ".TP", ".RS", ".nf", ".fi", ".RE", ".B"}
        assert set(re.findall(r"\\(?:f.|\(..|\[\w+\]|.)", page)) <= {
            *("\\e", "\\-", "\\&", "\\fB", "\\fI", "\\fR", "\\(aq", "\\(ga", "\\(ha", "\\(ti", "\\(dq"),
            *("\\[u00E9]", "\\[u1F600]"),
        }


def test_pages_have_the_names_that_man_expects_and_refer_to_each_other() -> None:
    program = Program("tunnel", "1", "Does.", TABLES)
    pages = dict(all_pages(program))
    assert list(pages)[:3] == ["tunnel.1", "tunnel-server.1", "tunnel-client.1"]
    assert "tunnel-svid-jwt-verify.1" in pages
    assert "tunnel-help.1" not in pages
    near = plain(pages["tunnel-svid-fetch.1"]).partition(".SH SEE ALSO")[2]
    assert all(f"tunnel-{name}(1)" in near for name in ("svid-jwt", "svid-jwt-verify"))
    assert "tunnel(1)" in near
    assert "That of the command that is run" in command_page(program, TABLES[5])


def test_all_pages_are_written_where_the_line_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "man1"
    assert main(["man", "--out", str(folder)], {}) == 0
    assert {path.name for path in folder.iterdir()} == {
        "tunnel.1",
        *(f"tunnel-{command.name.replace(' ', '-')}.1" for command in PAGED),
    }
    assert main(["man", "tunnel-server"], {}) == 0
    assert capsys.readouterr() == ((folder / "tunnel-server.1").read_text(), "")


def test_an_unknown_page_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for line, words in (
        (["nothing"], "no manual page 'nothing'; expected one of: server, client, "),
        (["server", "client"], "no manual page 'server client'"),
        (["server", "--out", str(tmp_path)], "--out writes all pages; expected 'server' or --out, not both"),
        (["--out", str(tmp_path / "file")], "--out: cannot write to "),
    ):
        assert main(["man", *line], {}) == 1
        assert words in capsys.readouterr().err
