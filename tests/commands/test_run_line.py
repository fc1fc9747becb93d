"""The lines and the command of `tunnel run`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.cli.parser import HelpRequested, parse_command_line
from tunnel.commands.registry import load_commands
from tunnel.commands.run import command as line
from tunnel.commands.run.command import RunConfig
from tunnel.config.model import Traces
from tunnel.errors import ConfigError

API = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"}
SERVER = ("server", "--listen=:1", "--target=localhost:2", "--allow-id=spiffe://a.test/x")
CLIENT = ("client", "--listen=localhost:3", "--target=b.test:4", "--verify-id=spiffe://a.test/y")
RUN = ("--", "app", "--flag", "+", "--")


def build(*words: str) -> RunConfig:
    return line.build(parse_command_line(["run", *words], load_commands(), API).arguments, API)


def test_a_line_is_proxies_and_a_command() -> None:
    config = build("--wait-ready=1m", "--stop-timeout=5s", *SERVER, "--quiet=conns", "+", *CLIENT, *RUN)
    assert [proxy.is_server for proxy in config.process.listeners] == [True, False]
    assert config.argv == ("app", "--flag", "+", "--")
    assert (config.wait_ready, config.stop_timeout) == (60, 5)
    assert config.process.log.quiet == ("conns",)
    assert not config.process.log.is_syslog


def test_two_lines_cannot_have_one_health_port() -> None:
    with pytest.raises(ConfigError, match="--health: :7 is also the address of another health port; expected"):
        build(*SERVER, "--health=:7", "+", *CLIENT, "--health=:7", *RUN)


def test_run_has_defaults() -> None:
    config = build(*SERVER, *RUN)
    assert (config.wait_ready, config.stop_timeout) == (15, 25)


@pytest.mark.parametrize(
    ("before", "within", "delay"), [([], [], 0), (["10s"], [], 10), ([], ["5s"], 5), (["10s"], ["5s"], 10), (["2s"], ["5s"], 5)]
)
def test_the_longest_shutdown_delay_is_used(before: list[str], within: list[str], delay: float) -> None:
    own = [f"--shutdown-delay={text}" for text in before]
    config = build(*own, *SERVER, *(f"--shutdown-delay={text}" for text in within), "+", *CLIENT, *RUN)
    assert config.process.shutdown_delay == delay


TRACED = "--traces=http://c/v1/traces"


def test_the_traces_of_one_line_are_those_of_the_process() -> None:
    assert build(*SERVER, TRACED, "+", *CLIENT, *RUN).process.traces == Traces("http://c/v1/traces")
    assert build(*SERVER, TRACED, "+", *CLIENT, TRACED, *RUN).process.traces == Traces("http://c/v1/traces")
    assert build(*SERVER, "+", *CLIENT, *RUN).process.traces is None


def test_a_line_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "line").write_text("\n".join([*SERVER, "+"]))
    assert len(build(f"@{tmp_path / 'line'}", *CLIENT, *RUN).process.listeners) == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (SERVER, "nothing to run: -- COMMAND .* is missing; use 'tunnel server' for a sidecar without a command"),
        ((*SERVER, "--"), "nothing to run"),
        ((*SERVER, "+", *RUN), "a line is missing beside '\\+'"),
        (("+", *SERVER, *RUN), "a line is missing beside '\\+'"),
        (("dev", *RUN), 'expected command but got "dev"'),
        ((*SERVER, TRACED, "+", *CLIENT, f"{TRACED}/x", *RUN), "--traces: two lines have different values; expected the same"),
        ((*SERVER[:-1], *RUN), "no access rule for clients"),
        ((*SERVER, "--wait-ready=1s", *RUN), "unknown long flag '--wait-ready'"),
        (("--stop-timeout=0s", *SERVER, *RUN), "--stop-timeout: "),
        (("--shutdown-delay=-1s", *SERVER, *RUN), "--shutdown-delay: "),
    ],
)
def test_an_invalid_line_of_run_is_refused(words: tuple[str, ...], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        build(*words)


@pytest.mark.parametrize("command", [RUN, ()])
def test_help_on_a_line_is_help_on_its_command(command: tuple[str, ...]) -> None:
    with pytest.raises(HelpRequested) as wanted:
        build("server", "--help", *command)
    assert wanted.value.command is not None
    assert wanted.value.command.name == "server"
