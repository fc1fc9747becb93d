"""Completion offers everything that is declared, and nothing that the parser refuses."""

from __future__ import annotations

import pytest

from tests.support.command_tables import LINES, TABLES, visible_flags
from tunnel.cli.command import Command
from tunnel.cli.completion import build_contexts, candidates
from tunnel.cli.main import main
from tunnel.cli.parser import HelpRequested, VersionRequested, parse_command_line
from tunnel.commands.proxy import command as proxy
from tunnel.commands.registry import load_commands
from tunnel.errors import ConfigError

CONTEXTS = build_contexts(load_commands(), proxy.GLOBAL_FLAGS)


@pytest.mark.parametrize(("line", "offered"), LINES.items(), ids=map(ascii, LINES))
def test_the_completion_of_a_word_depends_on_the_words_before_it(line: str, offered: set[str]) -> None:
    assert set(candidates(build_contexts(TABLES, ()), line.split(" ")[1:])) == offered


@pytest.mark.parametrize("command", load_commands(), ids=lambda command: command.name)
def test_every_flag_of_a_command_is_offered_and_none_is_unknown(command: Command) -> None:
    offered = candidates(CONTEXTS, [*command.name.split(), "-"])
    assert set(offered) == visible_flags(command)
    for text in offered:
        with pytest.raises((ConfigError, HelpRequested, VersionRequested)) as raised:
            parse_command_line([*command.name.split(), text, "--end"], load_commands(), {}, global_flags=proxy.GLOBAL_FLAGS)
        assert f"'{text}'" not in str(raised.value).partition(", did you mean")[0] or "expected argument" in str(raised.value)


def test_every_command_is_reached_word_by_word() -> None:
    for name in (command.name.split() for command in load_commands()):
        for count in range(len(name)):
            assert name[count] in candidates(CONTEXTS, [*name[:count], name[count][:1]])


def test_flags_that_may_stand_before_a_command_are_offered_there() -> None:
    offered = candidates(CONTEXTS, ["--quiet=conns", "--"])
    assert {"--use-workload-api-addr", "--no-syslog", "--version", "--help"} <= set(offered)
    assert "--listen" not in offered


def test_a_hidden_flag_is_parsed_and_not_offered() -> None:
    assert "--connect-proxy" not in candidates(CONTEXTS, ["client", "--conn"])
    assert candidates(CONTEXTS, ["client", "--connect-proxy", "--quiet", "--unsafe"]) == ["--unsafe-listen"]


@pytest.mark.parametrize(
    "words", [[], [""], ["@/nonexistent", "--x", "-", "--", "="], ["server", "--", "x"], ["\x00\udcff", "="]]
)
def test_every_line_can_be_completed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion-bash", *words], {}) == 0
    assert capsys.readouterr().err == ""


def test_the_candidates_are_printed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion-bash", "server", "--proxy-protocol-mode", "tls"], {}) == 0
    assert capsys.readouterr() == ("tls\ntls-full\n", "")


def test_the_scripts_have_two_names(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh"):
        texts = []
        for line in (["completion", shell], [f"--completion-script-{shell}"], ["server", f"--completion-script-{shell}"]):
            assert main(line, {}) == 0
            texts.append(capsys.readouterr().out)
        assert len(set(texts)) == 1
        assert "tunnel" in texts[0]
