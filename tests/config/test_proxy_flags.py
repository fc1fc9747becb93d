"""The flags of the proxy: what they mean together, and what is refused before anything has begun."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tunnel.authz.rules import AnyRule
from tunnel.cli import COMMANDS
from tunnel.config import proxy
from tunnel.config.grammar import parse_command_line
from tunnel.config.proxy import ProxyConfig
from tunnel.errors import ConfigError
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.spiffe.endpoint import Endpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection

API = ("--use-workload-api-addr", "unix:///run/api.sock")
SERVER = ("server", "--listen", ":8443", "--target", "localhost:80")
CLIENT = ("client", "--listen", "localhost:80", "--target", "db.example.org:8443")
ALLOW = ("--allow-id", "spiffe://a.test/w")
VERIFY = ("--verify-id", "spiffe://a.test/w")


def build(*argv: str, environ: Mapping[str, str] | None = None) -> ProxyConfig:
    parsed = parse_command_line(argv, COMMANDS, environ or {}, early=proxy.COMMON)
    return proxy.build(parsed.command, parsed.arguments)


def mistake(*argv: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as wrong:
        build(*argv, environ=environ)
    return str(wrong.value)


def test_a_plain_server_has_ghostunnels_defaults() -> None:
    assert build(*SERVER, *API, *ALLOW) == ProxyConfig(
        is_server=True,
        listen=TcpAddress("", "8443"),
        target=TcpAddress("localhost", "80"),
        rules=build(*SERVER, *API, *ALLOW).rules,
        endpoint=Endpoint(path="/run/api.sock"),
        identity_timeout=600.0,
        selection=Selection(),
        connect_timeout=10.0,
        close_timeout=60.0,
        max_conn_lifetime=0.0,
        max_concurrent_conns=0,
        shutdown_timeout=300.0,
        quiet=(),
        warnings=(),
    )


def test_every_flag_reaches_the_configuration() -> None:
    config = build(
        *CLIENT,
        *API,
        *VERIFY,
        *("--use-workload-api-timeout", "0"),
        *("--spiffe-id", "spiffe://a.test/me"),
        *("--spiffe-hint", "internal"),
        *("--connect-timeout", "1s"),
        *("--close-timeout", "0"),
        *("--max-conn-lifetime", "1h"),
        *("--max-concurrent-conns", "0x10"),
        *("--shutdown-timeout", "2m"),
        *("--quiet", "conns"),
        *("--quiet", "conn-errs"),
    )
    assert not config.is_server
    assert config.selection == Selection(parse_spiffe_id("spiffe://a.test/me"), "internal")
    assert (config.identity_timeout, config.connect_timeout, config.close_timeout) == (0.0, 1.0, 0.0)
    assert (config.max_conn_lifetime, config.max_concurrent_conns, config.shutdown_timeout) == (3600.0, 16, 120.0)
    assert config.quiet == ("conns", "conn-errs")


def test_rules_of_every_kind_are_kept_and_aliases_count() -> None:
    config = build(
        *SERVER,
        *API,
        *("--allow-uri", "spiffe://a.test/*", "--allow-uri-san", "spiffe://b.test/**"),
        *("--allow-id", "spiffe://a.test/w", "--allow-id", "spiffe://a.test/v"),
        *("--allow-trust-domain", "spiffe://c.test", "--allow-trust-domain", "d.test"),
    )
    assert sorted(map(str, config.rules)) == [
        "id:spiffe://a.test/v",
        "id:spiffe://a.test/w",
        "trust-domain:c.test",
        "trust-domain:d.test",
        "uri:spiffe://a.test/*",
        "uri:spiffe://b.test/**",
    ]
    config = build(*CLIENT, *API, "--verify-uri-san", "spiffe://a.test/*")
    assert list(map(str, config.rules)) == ["uri:spiffe://a.test/*"]


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        (SERVER, ["--allow-id", "--allow-uri", "--allow-trust-domain", "--allow-all"]),
        (CLIENT, ["--verify-id", "--verify-uri", "--verify-trust-domain", "--verify-any"]),
    ],
)
def test_a_line_without_a_rule_is_told_which_flags_there_are(line: tuple[str, ...], flags: list[str]) -> None:
    text = mistake(*line, *API)
    assert all(flag in text for flag in flags)


@pytest.mark.parametrize(
    ("line", "everyone", "others"),
    [
        (
            SERVER,
            "--allow-all",
            [ALLOW, ("--allow-uri", "spiffe://a.test/*"), ("--allow-trust-domain", "a.test")],
        ),
        (
            CLIENT,
            "--verify-any",
            [VERIFY, ("--verify-uri", "spiffe://a.test/*"), ("--verify-trust-domain", "a.test")],
        ),
    ],
)
def test_everyone_excludes_every_other_rule(line: tuple[str, ...], everyone: str, others: list[tuple[str, ...]]) -> None:
    assert build(*line, *API, everyone).rules == (AnyRule(),)
    for rule in others:
        assert mistake(*line, *API, everyone, *rule) == f"{everyone} admits everyone: it cannot be combined with other rules"
        assert AnyRule() not in build(*line, *API, everyone.replace("--", "--no-"), *rule).rules


@pytest.mark.parametrize("target", ["localhost:80", "127.0.0.1:80", "[::1]:80", "unix:/run/x.sock", "unix:@x"])
def test_a_servers_target_is_local(target: str) -> None:
    assert str(build("server", "--listen", ":1", "--target", target, *API, *ALLOW).target) == target


@pytest.mark.parametrize(
    "target", ["db.example.org:80", "127.0.0.2:80", "10.0.0.1:80", "[::]:80", ":80", "localhost.evil.org:80", "LOCALHOST:80"]
)
def test_a_servers_target_elsewhere_is_refused_unless_it_is_said(target: str) -> None:
    line = ("server", "--listen", ":1", "--target", target, *API, *ALLOW)
    assert f"--target {target} is not local" in mistake(*line)
    assert "--unsafe-target" in mistake(*line)
    assert str(build(*line, "--unsafe-target").target) == target
    assert "is not local" in mistake(*line, "--no-unsafe-target")


@pytest.mark.parametrize("listen", [":80", "0.0.0.0:80", "[::]:80", "host.example.org:80"])
def test_a_client_that_listens_to_others_is_refused_unless_it_is_said(listen: str) -> None:
    line = ("client", "--listen", listen, "--target", "x:1", *API, *VERIFY)
    assert "is not local" in mistake(*line)
    assert "--unsafe-listen" in mistake(*line)
    assert str(build(*line, "--unsafe-listen").listen) == listen


def test_a_server_listens_where_it_likes_and_a_client_dials_where_it_likes() -> None:
    assert build(*SERVER, *API, *ALLOW).listen == TcpAddress("", "8443")
    unix = build("client", "--listen", "unix:/run/in.sock", "--target", "unix:/run/out.sock", *API, *VERIFY)
    assert (unix.listen, unix.target) == (UnixAddress("/run/in.sock"), UnixAddress("/run/out.sock"))


@pytest.mark.parametrize(
    ("line", "flag"),
    [(SERVER, "--verify-id"), (SERVER, "--unsafe-listen"), (CLIENT, "--allow-id"), (CLIENT, "--allow-all")],
)
def test_flags_of_the_other_role_are_unknown(line: tuple[str, ...], flag: str) -> None:
    assert mistake(*line, *API, flag, "x") == f"unknown long flag '{flag}'"


# -- where the identity comes from


def test_without_any_source_of_an_identity_the_line_is_refused() -> None:
    assert "--use-workload-api-addr ADDR" in mistake(*SERVER, *ALLOW)
    assert "set SPIFFE_ENDPOINT_SOCKET" in mistake(*SERVER, *ALLOW, "--use-workload-api")
    assert mistake(*SERVER, *ALLOW, environ={"SPIFFE_ENDPOINT_SOCKET": ""})


def test_the_environment_names_the_source_and_the_flag_wins() -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": "tcp://127.0.0.1:8080"}
    assert build(*SERVER, *ALLOW, environ=environ).endpoint == Endpoint(host="127.0.0.1", port=8080)
    assert build(*SERVER, *ALLOW, "--use-workload-api", environ=environ).endpoint.port == 8080
    assert build(*SERVER, *ALLOW, *API, environ=environ).endpoint == Endpoint(path="/run/api.sock")
    assert build(*SERVER, *ALLOW, *API, environ={"SPIFFE_ENDPOINT_SOCKET": "rubbish"}).endpoint.path == "/run/api.sock"
    assert mistake(*SERVER, *ALLOW, environ={"SPIFFE_ENDPOINT_SOCKET": "/run/x"}).startswith("SPIFFE_ENDPOINT_SOCKET: ")


def test_common_flags_may_stand_before_the_command() -> None:
    assert build(*API, "--connect-timeout=3s", *SERVER, *ALLOW).connect_timeout == 3.0


# -- warnings


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("--allow-all",), "--allow-all admits every valid SVID of our own trust domain and of every federated one"),
        (("--allow-uri", "https://a.test/*"), "--allow-uri https://a.test/* can match no SPIFFE ID"),
        (("--allow-uri", "spiffe://*/w"), "--allow-uri spiffe://*/w names no trust domain: it stands for our own only"),
        (("--allow-uri", "**"), "names no trust domain"),
    ],
)
def test_a_rule_that_may_surprise_is_warned_of(rule: tuple[str, ...], words: str) -> None:
    (warning,) = build(*SERVER, *API, *rule).warnings
    assert words in warning


@pytest.mark.parametrize("rule", [ALLOW, ("--allow-uri", "spiffe://a.test/**"), ("--allow-trust-domain", "a.test")])
def test_a_plain_rule_is_not_warned_of(rule: tuple[str, ...]) -> None:
    assert build(*SERVER, *API, *rule).warnings == ()


BAD_VALUES = [
    ("--connect-timeout=0", "--connect-timeout: duration must be above zero"),
    ("--connect-timeout=-1s", "--connect-timeout: duration must be above zero"),
    ("--use-workload-api-timeout=-1s", "--use-workload-api-timeout: duration must not be negative"),
    ("--close-timeout=5", "--close-timeout: '5' is not a duration"),
    ("--max-concurrent-conns=-1", "--max-concurrent-conns: '-1' is not a number"),
    ("--quiet=loud", "--quiet: enum value must be one of ,all,conns,conn-errs,handshake-errs, got 'loud'"),
    ("--spiffe-id=spiffe://a.test", "--spiffe-id: "),
    ("--allow-id=spiffe://a.test/*", "--allow-id: "),
    ("--allow-trust-domain=a.test/x", "--allow-trust-domain: "),
    ("--allow-uri=spiffe://a*/x", "--allow-uri: "),
    ("--allow-uri=", "--allow-uri: a pattern must not be empty"),
    ("--use-workload-api-addr=/run/x", "--use-workload-api-addr: '/run/x' is a bare path"),
    ("--use-workload-api-addr=", "--use-workload-api-addr: "),
]


@pytest.mark.parametrize(("flag", "words"), BAD_VALUES)
def test_a_bad_value_is_refused_and_its_flag_named(flag: str, words: str) -> None:
    assert mistake(*SERVER, flag).startswith(words)
