"""The manual pages in the programs that read them: troff has nothing to complain of, and apropos finds them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.processes import LIMIT
from tests.support.requirements import program
from tunnel.cli.command import Command, Group, Program, option
from tunnel.cli.main import main
from tunnel.cli.man import all_pages, long_page
from tunnel.commands.registry import load_commands

HOSTILE = ".so /nonexistent\n'hidden \\fB\\*(x `a' \"b\" ~^-é \\"


def run(argv: Sequence[str]) -> str:
    """What a program prints; on standard error it says nothing."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def shown(*pages: Path) -> str:
    """Pages as a terminal shows them, without what bold and underlining are made of."""
    return run([program("groff"), "-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=78n", *map(str, pages)])


def test_troff_takes_every_page_and_apropos_every_name(tmp_path: Path) -> None:
    assert main(["man", "--out", str(tmp_path)], {}) == 0
    pages = sorted(tmp_path.iterdir())
    texts = {page.stem: shown(page) for page in pages}
    for command in load_commands()[:-1]:
        text = texts[f"tunnel-{command.name.replace(' ', '-')}"]
        assert [
            flag.name for flag in command.flags if not flag.is_hidden and f"  --{flag.name}" not in text.replace(", ", "  ")
        ] == []
    names = run([program("lexgrog"), *map(str, pages)]).splitlines()
    assert [line.partition(': "')[2].partition(" - ")[0] for line in names] == [page.stem for page in pages]


def test_troff_takes_the_whole_and_the_worst(tmp_path: Path) -> None:
    flag = option("flag", HOSTILE, str, "", placeholder="X", env="X")
    command = Command(
        "do", HOSTILE, (Group(HOSTILE, (flag,)), Group("'", (flag,))), f"{HOSTILE}\n\n  {HOSTILE}\n\nExamples:\n  a\n"
    )
    tool = Program("tool", "1", "About it.", (command,))
    worst = tmp_path / "worst.1"
    for page in (*(page for _, page in all_pages(tool)), long_page(tool)):
        worst.write_text(page)
        text = shown(worst)
        assert ".so /nonexistent 'hidden \\fB\\*(x" in " ".join(text.split())
