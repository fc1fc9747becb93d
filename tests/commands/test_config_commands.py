"""`config check`, `config show` and `config schema`: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.config.test_config_file_mistakes import NO_VALUE
from tunnel.cli.main import main
from tunnel.cli.parser import parse_command_line
from tunnel.commands.registry import load_commands, load_run
from tunnel.config.file.loader import load_config
from tunnel.errors import ConfigError

VALID = """\
[identity.default]
keystore = "k.p12"
storepass = "geheim"
[identity.other]
[access.web]
rules = [{ allow = { cn = "web" } }]
[defaults]
connect-timeout = "20s"
[[server]]
name = "a"
listen = ":1"
target = "localhost:2"
identity = "default"
access = "web"
[[client]]
listen = "localhost:3"
target = "db.test:4"
identity = "default"
proxy = "http://user:geheim@proxy:1"
"""


def run(*argv: str) -> int:
    parsed = parse_command_line(["config", *argv], load_commands(), {})
    return load_run(parsed.command)(parsed.command, parsed.arguments, {})


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("valid.toml").write_text(VALID)
    Path("wrong.toml").write_text(f'{VALID}x = "\\u001b[1m"\n"\\u001b" = 1\n')
    Path("syntax.toml").write_text("a = \n")


def test_a_valid_configuration_is_summarized(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "valid.toml") == 0
    out, err = capsys.readouterr()
    assert out == "ok: 1 file, 1 server, 1 client, 1 identity, 1 warning\n"
    assert err == "valid.toml:4: warning: identity.other: not used by any listener\n"


def test_every_mistake_is_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "wrong.toml") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "wrong.toml:20: client[0].x: unknown key\n"
        'wrong.toml:21: client[0]."\\x1b": unknown key\n'
        "wrong.toml:4: warning: identity.other: not used by any listener\n"
    )


def test_the_report_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--json", "valid.toml") == 0
    warning = {"file": "valid.toml", "line": 4, "key": "identity.other", "problem": "not used by any listener"}
    assert json.loads(capsys.readouterr().out) == {"ok": True, "errors": [], "warnings": [warning]}
    assert run("check", "--json", "syntax.toml", "missing.toml") == 1
    assert json.loads(capsys.readouterr().out)["errors"] == [
        {"file": "syntax.toml", "line": 1, "column": 5, "key": "", "problem": NO_VALUE},
        {"file": "missing.toml", "line": None, "key": "", "problem": "cannot read the file: no such file or directory"},
    ]


def test_the_effective_configuration_has_the_defaults_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "valid.toml") == 0
    out = capsys.readouterr().out
    assert "geheim" not in out
    assert 'storepass = "(hidden)"' in out
    assert 'proxy = "http://(hidden)@proxy:1"' in out
    assert out.count('connect-timeout = "20s"') == 2
    assert "max-handshakes = 512" in out


def test_headers_and_credentials_of_the_collector_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    traces = '[traces]\nurl = "http://user:geheim@c/v1/traces"\nheaders = ["X-Key: geheim", "Y: geheim"]\n'
    Path("traced.toml").write_text(VALID + traces)
    assert run("show", "traced.toml") == 0
    out = capsys.readouterr().out
    assert 'url = "http://(hidden)@c/v1/traces"' in out
    assert 'headers = ["X-Key: (hidden)", "Y: (hidden)"]' in out
    assert "geheim" not in out


def test_a_configuration_without_secrets_is_shown_as_a_file_with_the_same_effect(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plain.toml").write_text(VALID.replace('storepass = "geheim"\n', "").replace("user:geheim@", ""))
    assert run("show", "plain.toml") == 0
    Path("shown.toml").write_text(capsys.readouterr().out)
    assert load_config(["shown.toml"]).listeners == load_config(["plain.toml"]).listeners


def test_show_reports_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "syntax.toml") == 1
    assert capsys.readouterr() == ("", f"syntax.toml:1:5: {NO_VALUE}\n")


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("schema") == 0
    assert json.loads(capsys.readouterr().out)["$schema"].endswith("2020-12/schema")


def test_other_commands_print_each_mistake_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["access", "explain", "--config", "wrong.toml", "spiffe://a.test/w"], {}) == 1
    assert capsys.readouterr().err.splitlines() == [
        "tunnel: error: wrong.toml:20: client[0].x: unknown key",
        'tunnel: error: wrong.toml:21: client[0]."\\x1b": unknown key',
    ]


def test_a_file_is_required() -> None:
    with pytest.raises(ConfigError, match="FILE is required; expected a configuration file or a directory"):
        run("check")
