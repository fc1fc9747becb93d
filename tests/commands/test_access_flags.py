"""The line of `tunnel access explain`, and its exit code."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.cert_factory import authority, leaf
from tests.support.configs import listener_config
from tunnel.authz.rules import IdRule
from tunnel.cli.parser import parse_command_line
from tunnel.commands import access
from tunnel.commands.registry import load_commands_of
from tunnel.config.model import Access, ProcessConfig, WorkloadApi
from tunnel.errors import ConfigError, IdentityError
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

WEB, OTHER = (parse_spiffe_id(f"spiffe://a.test/{name}") for name in ("web", "other"))
REDIS, CACHE = (
    listener_config(name=name, source=WorkloadApi(WorkloadEndpoint(path="/api")), access=Access((IdRule(WEB),)))
    for name in ("redis", "cache")
)
BOTH = ProcessConfig((REDIS, CACHE))


def build(*argv: str) -> access.ExplainConfig:
    return access.build(parse_command_line(["access", "explain", *argv], load_commands_of("access"), {}).arguments)


def test_every_flag_is_read() -> None:
    line = (
        "--config=a",
        "--config=b",
        "--listener=redis",
        "--source=10.0.0.1",
        "--own-trust-domain=a.test",
        "--json",
        str(WEB),
    )
    expected = access.ExplainConfig(("a", "b"), "redis", WEB, ip_address("10.0.0.1"), TrustDomain("a.test"), True)
    assert build(*line) == expected
    assert build("--config=a", "peer.pem") == access.ExplainConfig(("a",), None, "peer.pem", None, None, False)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ((str(WEB),), "--config is required; expected a configuration file"),
        (("--config=a", "spiffe://A/x"), "invalid character in trust domain"),
        (("--config=a", "--source=x", str(WEB)), '--source: invalid IP address "x"'),
        (("--config=a",), "PEER"),
    ],
)
def test_a_wrong_line_is_refused(line: tuple[str, ...], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        build(*line)


def test_the_exit_code_says_whether_the_peer_is_admitted(capsys: pytest.CaptureFixture[str]) -> None:
    line = ("--config=a", "--listener=cache")
    assert access.print_explanation(build(*line, str(WEB)), BOTH) == 0
    assert capsys.readouterr().out.endswith("admitted: rule 1 admits the peer\n")
    assert access.print_explanation(build(*line, "--json", str(OTHER)), BOTH) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "no-matching-rule"


def test_a_certificate_is_read_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "peer.pem").write_bytes(leaf(str(WEB), issuer=authority()).certificate.pem)
    one = ProcessConfig((REDIS,))
    assert access.print_explanation(build("--config=a", str(tmp_path / "peer.pem")), one) == 0
    assert "note: the certification path is not verified" in capsys.readouterr().out
    with pytest.raises(IdentityError, match="absent"):
        access.print_explanation(build("--config=a", str(tmp_path / "absent.pem")), one)


def test_a_listener_is_found_by_its_name_or_is_the_only_one() -> None:
    assert access.find_listener((REDIS,), None) is REDIS
    assert access.find_listener((REDIS, CACHE), "cache") is CACHE
    with pytest.raises(ConfigError, match="--listener is required with several listeners; expected one of redis, cache"):
        access.find_listener((REDIS, CACHE), None)
    with pytest.raises(ConfigError, match='--listener: unknown listener "x"; expected one of redis, cache'):
        access.find_listener((REDIS, CACHE), "x")
