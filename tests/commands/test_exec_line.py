"""The targets of `tunnel exec`, their flags, and the placeholders of its command."""

from __future__ import annotations

import pytest

from tunnel.authz.rules import IdRule
from tunnel.cli.parser import UsageError, parse_command_line
from tunnel.commands.exec import build as line
from tunnel.commands.exec.build import ExecConfig
from tunnel.commands.registry import load_commands
from tunnel.config.model import WorkloadApi
from tunnel.errors import ConfigError
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.spiffe.ids import parse_spiffe_id

API = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"}
A, B = "spiffe://a.test/a", "spiffe://a.test/b"


def build(*flags: str, command: tuple[str, ...] = ("true",)) -> ExecConfig:
    return line.build(parse_command_line(["exec", *flags, "--", *command], load_commands(), API).arguments)


def test_one_target_needs_no_name() -> None:
    config = build("--target=db.test:1", f"--verify-id={A}", "-v", command=("psql", "--port", "{port}"))
    (target,) = config.targets
    assert (target.name, target.config.target_name, target.config.listen) == (
        "",
        "db.test:1",
        TcpAddress("127.0.0.1", "0"),
    )
    assert target.config.is_private
    assert target.config.access.rules == (IdRule(parse_spiffe_id(A)),)
    assert isinstance(target.config.identity.source, WorkloadApi)
    assert target.config.identity.source.timeout == 15
    assert config.argv == ("psql", "--port", "{port}")
    assert config.is_verbose


def test_a_name_assigns_a_flag_to_a_target() -> None:
    config = build(
        *("--target=old=db.test:1", "--target=new=unix:/run/new", "--target=cache.test:2"),
        *(f"--verify-id=old={A}", f"--verify-id=new={B}", "--verify-cn=c=d" if False else "--verify-cn=plain"),
        *("--unix=new=s", "--override-server-name=old=other.test"),
    )
    found = {target.name: target for target in config.targets}
    assert [str(rule) for rule in found["old"].config.access.rules] == [f"id:{A}"]
    assert [str(rule) for rule in found["new"].config.access.rules] == [f"id:{B}"]
    assert [str(rule) for rule in found[""].config.access.rules] == ["cn:plain"]
    assert found["new"].config.targets == (UnixAddress("/run/new"),)
    assert [found[name].socket for name in ("old", "new", "")] == ["", "s", ""]
    assert [found[name].config.server_name for name in ("old", "new", "")] == ["other.test", "", ""]


def test_without_names_an_equals_sign_is_a_part_of_the_value() -> None:
    (target,) = build("--target=db.test:1", "--verify-cn=a=b").targets
    assert [str(rule) for rule in target.config.access.rules] == ["cn:a=b"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), r"required flag\(s\) '--target' not provided"),
        (("--target=db.test",), '--target: invalid address "db.test": missing port'),
        (("--target=a.test:1",), "no access rule for the server"),
        (("--target=a.test:1", "--target=b.test:1"), "--target: two targets have no name; expected a different NAME="),
        (("--target=a=x:1", "--target=A=y:1"), "--target: two targets are called A"),
        (("--target=a=x:1", "--target=b=y:1", f"--verify-id=a={A}"), "target b: no access rule for the server"),
        (
            ("--target=a=x:1", "--target=b=y:1", f"--verify-id={A}"),
            "--verify-id: .* names no target; expected one of a=, b=",
        ),
        (("--target=a=x:1", f"--verify-id=b={A}"), "--verify-id: 'b=.*' names no target"),
        (("--target=a=x:1", "--target=b=y:1", "--verify-any"), "--verify-any would accept one target's server for another"),
        (("--target=a.test:1", "--verify-id=nobody"), "--verify-id: "),
        (("--target=a.test:1", f"--verify-id={A}", "--unix=a", "--unix=b"), "flag 'unix' cannot be repeated"),
        (("--target=a.test:1", f"--verify-id={A}", "--unix=../x"), "--unix: invalid file name"),
        (("--target=x:1", f"--verify-id={A}", *["--override-server-name=a"] * 2), "cannot be repeated for one target"),
    ],
)
def test_an_ambiguous_line_is_refused(flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(*flags)


@pytest.mark.parametrize(
    ("flags", "place", "words"),
    [
        ((), "{socket}", "{socket} needs --unix SOCKET; expected {host} or {port} or {addr}"),
        (("--unix=s",), "-p{port}", "{port} is for a port, but --unix is given; expected {socket} or {dir}"),
    ],
)
def test_a_placeholder_without_a_value_is_refused(flags: tuple[str, ...], place: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build("--target=x:1", f"--verify-id={A}", *flags, command=("do", place))
    assert str(refused.value) == words


def test_a_line_without_a_command_is_refused_with_the_code_of_exec() -> None:
    with pytest.raises(UsageError) as refused:
        parse_command_line(["exec", "--target=x:1"], load_commands(), API)
    assert refused.value.command is not None
    assert refused.value.command.failure == 125
