"""The flags of the proxy, the configuration that they build, and the lines that are refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tunnel.authz.rules import AnyRule, IdRule
from tunnel.cli.parser import parse_command_line
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy.build import build as build_proxy
from tunnel.commands.proxy.build import check_line
from tunnel.commands.registry import load_commands
from tunnel.config.model import (
    Access,
    Acme,
    HealthPort,
    IdentityConfig,
    KeyFiles,
    Keystore,
    ListenerConfig,
    Metrics,
    NoIdentity,
    PolicyFiles,
    ProcessConfig,
    Revocation,
    Source,
    Status,
    TlsOptions,
    Traces,
    WorkloadApi,
)
from tunnel.errors import ConfigError
from tunnel.net.address import StatusAddress, TcpAddress, UnixAddress
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection
from tunnel.wire.outbound import OutboundProxy
from tunnel.wire.proxy_v2 import HeaderMode

API = ("--use-workload-api-addr", "unix:///run/api.sock")
SERVER = ("server", "--listen", ":8443", "--target", "localhost:80")
CLIENT = ("client", "--listen", "localhost:80", "--target", "db.example.org:8443")
ALLOW = ("--allow-id", "spiffe://a.test/w")
VERIFY = ("--verify-id", "spiffe://a.test/w")


def build(*argv: str, environ: Mapping[str, str] | None = None) -> ListenerConfig:
    """The only listener of a line."""
    (listener,) = build_process(*argv, environ=environ).listeners
    return listener


def build_process(*argv: str, environ: Mapping[str, str] | None = None) -> ProcessConfig:
    parsed = parse_command_line(argv, load_commands(), environ or {}, global_flags=proxy.GLOBAL_FLAGS)
    check_line(parsed.arguments)
    return build_proxy(parsed.command, parsed.arguments)


def mistake(*argv: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as wrong:
        build(*argv, environ=environ)
    return str(wrong.value)


def test_a_plain_server_has_ghostunnels_defaults() -> None:
    process = build_process(*SERVER, *API, *ALLOW)
    (config,) = process.listeners
    assert config == ListenerConfig(
        name="server",
        is_server=True,
        listen=TcpAddress("", "8443"),
        targets=(TcpAddress("localhost", "80"),),
        identity=IdentityConfig(WorkloadApi(WorkloadEndpoint(path="/run/api.sock"), 600.0, Selection())),
        access=Access((IdRule(parse_spiffe_id("spiffe://a.test/w")),)),
        tls=TlsOptions("ECDHE+AESGCM:ECDHE+CHACHA20"),
        max_handshakes=512,
    )
    assert (config.connect_timeout, config.close_timeout, process.shutdown_timeout) == (10.0, 60.0, 300.0)
    assert (config.max_conn_lifetime, config.max_concurrent_conns, process.timed_reload) == (0.0, 0, 0.0)
    assert process.shutdown_delay == 0.0
    assert (process.monitors, config.header_mode, config.outbound, config.warnings) == ((), None, None, ())
    assert Metrics() == Metrics(None, "", "ghostunnel", 30.0, "", 20)
    assert process.is_confined
    assert config.is_resolved_early


def test_every_flag_reaches_the_configuration() -> None:
    process = build_process(
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
        *("--shutdown-delay", "10s"),
        *("--status", "http://localhost:9000", "--enable-pprof", "--enable-shutdown"),
        *("--metrics-graphite", "localhost:2003", "--metrics-url", "https://metrics.test/x"),
        *("--metrics-prefix", "p", "--metrics-interval", "1s", "--metrics-peers", "7"),
        *("--timed-reload", "5s", "--skip-resolve", "--disable-landlock"),
        *("--cipher-suites", "CHACHA,UNSAFE-AZURE", "--allow-unsafe-cipher-suites", "--max-tls-version", "tls1.2"),
        *("--override-server-name", "other.test", "--proxy", "socks5://proxy.test", "--cacert", "ca.pem"),
        *("--crl", "one.crl", "--crl", "two.pem", "--crl-missing", "accept"),
        *("--traces", "https://c.test/v1/traces", "--traces-ratio", "0.25", "--traces-ca", "c.pem"),
    )
    (config,), (monitor,) = process.listeners, process.monitors
    assert not config.is_server
    endpoint = WorkloadEndpoint(path="/run/api.sock")
    assert config.identity.source == WorkloadApi(endpoint, 0.0, Selection(parse_spiffe_id("spiffe://a.test/me"), "internal"))
    assert (config.connect_timeout, config.close_timeout) == (1.0, 0.0)
    assert monitor.status == Status(StatusAddress(TcpAddress("localhost", "9000"), "http"), True, True)
    assert monitor.metrics == Metrics(TcpAddress("localhost", "2003"), "https://metrics.test/x", "p", 1.0, "ca.pem", 7)
    assert (process.timed_reload, config.is_resolved_early, process.is_confined) == (5.0, False, False)
    assert config.tls == TlsOptions("ECDHE+CHACHA20:ECDHE-RSA-AES128-SHA256", True)
    assert (config.host, config.identity.ca_bundle) == ("other.test", "ca.pem")
    assert config.identity.revocation == Revocation(("one.crl", "two.pem"), is_required=False)
    assert config.outbound == OutboundProxy("socks5", "proxy.test", 1080)
    assert (config.max_conn_lifetime, config.max_concurrent_conns, process.shutdown_timeout) == (3600.0, 16, 120.0)
    assert process.shutdown_delay == 10.0
    assert process.traces == Traces("https://c.test/v1/traces", 0.25, "c.pem")


def test_rules_of_every_kind_are_kept_and_aliases_count() -> None:
    config = build(
        *SERVER,
        *API,
        *("--allow-uri", "spiffe://a.test/*", "--allow-uri-san", "spiffe://b.test/**"),
        *("--allow-id", "spiffe://a.test/w", "--allow-id", "spiffe://a.test/v"),
        *("--allow-trust-domain", "spiffe://c.test", "--allow-trust-domain", "d.test"),
    )
    assert sorted(map(str, config.access.rules)) == [
        "id:spiffe://a.test/v",
        "id:spiffe://a.test/w",
        "trust-domain:c.test",
        "trust-domain:d.test",
        "uri:spiffe://a.test/*",
        "uri:spiffe://b.test/**",
    ]
    config = build(*CLIENT, *API, "--verify-uri-san", "spiffe://a.test/*")
    assert list(map(str, config.access.rules)) == ["uri:spiffe://a.test/*"]


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        (SERVER, ["--allow-id", "--allow-uri", "--allow-trust-domain", "--allow-all"]),
        (CLIENT, ["--verify-id", "--verify-uri", "--verify-trust-domain", "--verify-any"]),
    ],
)
def test_a_line_without_an_access_rule_lists_the_flags(line: tuple[str, ...], flags: list[str]) -> None:
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
def test_the_rule_for_all_peers_excludes_other_rules(
    line: tuple[str, ...], everyone: str, others: list[tuple[str, ...]]
) -> None:
    assert build(*line, *API, everyone).access.rules == (AnyRule(),)
    for rule in others:
        why = f"{everyone} and {rule[0]} are mutually exclusive: it admits all peers"
        assert mistake(*line, *API, everyone, *rule) == why
        assert AnyRule() not in build(*line, *API, everyone.replace("--", "--no-"), *rule).access.rules


@pytest.mark.parametrize("target", ["localhost:80", "127.0.0.1:80", "[::1]:80", "unix:/run/x.sock", "unix:@x"])
def test_a_servers_target_is_local(target: str) -> None:
    assert str(build("server", "--listen", ":1", "--target", target, *API, *ALLOW).target_name) == target


@pytest.mark.parametrize(
    "target", ["db.example.org:80", "127.0.0.2:80", "10.0.0.1:80", "[::]:80", ":80", "localhost.evil.org:80", "LOCALHOST:80"]
)
def test_a_remote_target_of_a_server_needs_a_flag(target: str) -> None:
    line = ("server", "--listen", ":1", "--target", target, *API, *ALLOW)
    assert f"--target: {target} is not local" in mistake(*line)
    assert "--unsafe-target" in mistake(*line)
    assert str(build(*line, "--unsafe-target").target_name) == target
    assert "is not local" in mistake(*line, "--no-unsafe-target")


@pytest.mark.parametrize("listen", [":80", "0.0.0.0:80", "[::]:80", "host.example.org:80"])
def test_a_remote_listener_of_a_client_needs_a_flag(listen: str) -> None:
    line = ("client", "--listen", listen, "--target", "x:1", *API, *VERIFY)
    assert "is not local" in mistake(*line)
    assert "--unsafe-listen" in mistake(*line)
    assert str(build(*line, "--unsafe-listen").listen) == listen


def test_a_server_can_listen_and_a_client_can_dial_anywhere() -> None:
    assert build(*SERVER, *API, *ALLOW).listen == TcpAddress("", "8443")
    unix = build("client", "--listen", "unix:/run/in.sock", "--target", "unix:/run/out.sock", *API, *VERIFY)
    assert (unix.listen, unix.targets) == (UnixAddress("/run/in.sock"), (UnixAddress("/run/out.sock"),))


@pytest.mark.parametrize(
    ("line", "flag"),
    [(SERVER, "--verify-id"), (SERVER, "--unsafe-listen"), (CLIENT, "--allow-id"), (CLIENT, "--allow-all")],
)
def test_flags_of_the_other_role_are_unknown(line: tuple[str, ...], flag: str) -> None:
    assert mistake(*line, *API, flag, "x") == f"unknown long flag '{flag}'"


# -- where the identity comes from


def test_without_any_source_of_an_identity_the_line_is_refused() -> None:
    assert "--use-workload-api-addr ADDR" in mistake(*SERVER, *ALLOW)
    assert "SPIFFE_ENDPOINT_SOCKET set" in mistake(*SERVER, *ALLOW, "--use-workload-api")
    assert mistake(*SERVER, *ALLOW, environ={"SPIFFE_ENDPOINT_SOCKET": ""})


def test_the_environment_names_the_source_and_the_flag_wins() -> None:
    environ = {"SPIFFE_ENDPOINT_SOCKET": "tcp://127.0.0.1:8080"}
    tcp, unix = WorkloadApi(WorkloadEndpoint(host="127.0.0.1", port=8080)), WorkloadApi(WorkloadEndpoint(path="/run/api.sock"))
    assert build(*SERVER, *ALLOW, environ=environ).identity.source == tcp
    assert build(*SERVER, *ALLOW, "--use-workload-api", environ=environ).identity.source == tcp
    assert build(*SERVER, *ALLOW, *API, environ=environ).identity.source == unix
    assert build(*SERVER, *ALLOW, *API, environ={"SPIFFE_ENDPOINT_SOCKET": "rubbish"}).identity.source == unix
    assert mistake(*SERVER, *ALLOW, environ={"SPIFFE_ENDPOINT_SOCKET": "/run/x"}).startswith("SPIFFE_ENDPOINT_SOCKET: ")


def test_common_flags_may_stand_before_the_command() -> None:
    assert build(*API, "--connect-timeout=3s", *SERVER, *ALLOW).connect_timeout == 3.0


# -- warnings


@pytest.mark.parametrize(
    "rule",
    [("--disable-authentication",), ("--allow-spki-pin", f"sha256:{'A' * 43}=")],
    ids=["no-authentication", "pin"],
)
def test_lists_that_are_never_used_are_warned_of(rule: tuple[str, ...]) -> None:
    files = ("--cert=c", "--key=k", "--crl=r")
    assert "--crl has no effect" in build(*SERVER, *files, *rule).warnings[0]
    assert build(*SERVER, *files, "--allow-all").warnings == ()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (("--allow-all",), "--allow-all admits every valid SVID of our own trust domain and of every federated trust domain"),
        (("--allow-uri", "https://a.test/*"), "--allow-uri https://a.test/* cannot match a SPIFFE ID"),
        (("--allow-uri", "spiffe://*/w"), "--allow-uri spiffe://*/w names no trust domain: it matches peers of our own only"),
        (("--allow-uri", "**"), "names no trust domain"),
    ],
)
def test_a_broad_rule_gives_a_warning(rule: tuple[str, ...], words: str) -> None:
    (warning,) = build(*SERVER, *API, *rule).warnings
    assert words in warning


@pytest.mark.parametrize("rule", [ALLOW, ("--allow-uri", "spiffe://a.test/**"), ("--allow-trust-domain", "a.test")])
def test_an_exact_rule_gives_no_warning(rule: tuple[str, ...]) -> None:
    assert build(*SERVER, *API, *rule).warnings == ()


BAD_VALUES = [
    ("--connect-timeout=0", '--connect-timeout: invalid duration "0": not above zero'),
    ("--connect-timeout=-1s", '--connect-timeout: invalid duration "-1s": not above zero'),
    ("--use-workload-api-timeout=-1s", '--use-workload-api-timeout: invalid duration "-1s": negative'),
    ("--close-timeout=5", '--close-timeout: invalid duration "5"'),
    ("--max-concurrent-conns=-1", '--max-concurrent-conns: invalid number "-1"'),
    ("--quiet=loud", "--quiet: enum value must be one of ,all,conns,handshake-errs,conn-errs, got 'loud'"),
    ("--spiffe-id=spiffe://a.test", "--spiffe-id: "),
    ("--allow-id=spiffe://a.test/*", "--allow-id: "),
    ("--allow-trust-domain=a.test/x", "--allow-trust-domain: "),
    ("--allow-uri=spiffe://a*/x", "--allow-uri: "),
    ("--allow-uri=", '--allow-uri: invalid URI pattern "": empty'),
    ("--use-workload-api-addr=/run/x", '--use-workload-api-addr: invalid Workload API address "/run/x": missing scheme'),
    ("--allow-cn=", '--allow-cn: invalid name "": empty'),
    ("--allow-ip=1.2.3", '--allow-ip: invalid IP address "1.2.3"'),
    ("--metrics-url=ftp://x", "--metrics-url: "),
    ("--metrics-url=http://", "--metrics-url: "),
    ("--traces=x", '--traces: invalid URL "x"; expected http:// or https:// and a host'),
    (
        "--traces=http://u:geheim@c:4318",
        '--traces: invalid URL "c:4318": missing path; expected the whole address, such as http',
    ),
    ("--traces=", '--traces: invalid URL "": missing path'),
    ("--traces=http://\u00e9/v1/traces", "--traces: invalid URL "),
    ("--traces-ratio=0", '--traces-ratio: invalid ratio "0"; expected a number above 0 and at most 1, such as 0.01'),
    ("--traces-ratio=1.01", '--traces-ratio: invalid ratio "1.01"; expected'),
    ("--traces-ratio=-1", '--traces-ratio: invalid ratio "-1"; expected'),
    ("--traces-ratio=nan", '--traces-ratio: invalid ratio "nan"; expected'),
    ("--traces-ratio=0.5", "--traces-ratio needs --traces"),
    ("--traces-ca=c.pem", "--traces-ca needs --traces"),
    ("--target-status=x", "--target-status: "),
    ("--target-status=http://user:pw@", '--target-status: invalid URL ""'),
    ("--status=https://unix:/x", "--status: "),
    ("--health=https://:1", '--health: invalid address "https://:1": health is served in plain HTTP; expected http://:1'),
    ("--health=http://unix:/x", '--health: invalid address "http://unix:/x": http:// requires HOST:PORT'),
    ("--health=localhost", '--health: invalid address "localhost": missing port; expected HOST:PORT or unix:PATH'),
    ("--status-allow-host=a.test", "--status-allow-host needs --status or --health"),
    ("--metrics-graphite=x", '--metrics-graphite: invalid address "x": missing port'),
    ("--metrics-graphite=unix:/x", '--metrics-graphite: invalid address "unix:/x": not a TCP address'),
    ("--metrics-peers=1001", '--metrics-peers: invalid number "1001"; expected 0 to 1000'),
    ("--metrics-peers=-1", "--metrics-peers: invalid number"),
    ("--proxy-protocol-mode=v1", "--proxy-protocol-mode: enum value must be one of conn,tls,tls-full,spiffe, got 'v1'"),
    ("--max-tls-version=TLS1.1", '--max-tls-version: invalid max TLS version "TLS1.1"'),
    ("--enable-pprof", "--enable-pprof needs --status"),
    ("--enable-shutdown", "--enable-shutdown needs --status"),
    ("--ui", "--ui needs --status"),
    ("--metrics-peers=5", "--metrics-peers needs --status"),
]


@pytest.mark.parametrize(("flag", "words"), BAD_VALUES)
def test_an_invalid_value_is_refused_with_its_flag(flag: str, words: str) -> None:
    assert mistake(*SERVER, flag).startswith(words)


# -- credentials: exactly one source

FILES = ("--cert", "c.pem", "--key", "k.pem")
STORE = ("--keystore", "s.p12", "--storepass", "x")
ACME = ("--auto-acme-cert", "a.test", "--auto-acme-email", "me@a.test", "--auto-acme-agree-to-tos")
ALL = ("--allow-all",)
BARE_CLIENT = ("--disable-authentication",)


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ((*SERVER, *ALL, *FILES), KeyFiles("c.pem", "k.pem")),
        ((*SERVER, *ALL, *STORE), Keystore("s.p12", "x")),
        ((*SERVER, *ALL, "--keystore", "s.p12"), Keystore("s.p12", "")),
        ((*SERVER, *ALL, *ACME), Acme("a.test", "me@a.test", "", 600.0, 443)),
        (
            (*SERVER, *ALL, *ACME, "--auto-acme-ca", "https://a", "--auto-acme-testca", "https://b"),
            Acme("a.test", "me@a.test", "https://b", 600.0, 443),
        ),
        ((*CLIENT, *FILES), KeyFiles("c.pem", "k.pem")),
        ((*CLIENT, *BARE_CLIENT), NoIdentity()),
        ((*CLIENT, *BARE_CLIENT, *API, *VERIFY), WorkloadApi(WorkloadEndpoint(path="/run/api.sock"))),
    ],
)
def test_each_source_of_credentials_can_be_chosen(line: tuple[str, ...], source: Source) -> None:
    assert build(*line).identity.source == source


def test_every_path_and_password_can_come_from_the_environment() -> None:
    environ = {"KEYSTORE_PATH": "e.p12", "KEYSTORE_PASS": "secret", "CACERT_PATH": "ca.pem"}
    config = build(*SERVER, *ALL, environ=environ)
    assert config.identity == IdentityConfig(Keystore("e.p12", "secret"), "ca.pem")
    assert "secret" not in repr(config)
    environ = {"CERT_PATH": "c.pem", "KEY_PATH": "k.pem", "KEYSTORE_PATH": ""}
    assert build(*SERVER, *ALL, environ=environ).identity.source == KeyFiles("c.pem", "k.pem")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((*SERVER, *ALL), "no identity source"),
        (CLIENT, "no identity source"),
        ((*SERVER, *ALL, *FILES, *STORE), "--keystore and --cert with --key are mutually exclusive"),
        ((*SERVER, *ALL, *FILES, *API), "--cert with --key and --use-workload-api-addr are mutually exclusive"),
        ((*SERVER, *ALL, *STORE, *ACME), "--keystore and --auto-acme-cert are mutually exclusive"),
        ((*CLIENT, *BARE_CLIENT, *STORE), "and --keystore are mutually exclusive"),
        ((*SERVER, *ALL, "--cert", "c.pem"), "--cert needs --key"),
        ((*SERVER, *ALL, "--key", "k.pem"), "--key needs --cert"),
        ((*SERVER, *ALL, *ACME[:2]), "needs --auto-acme-email"),
        ((*SERVER, *ALL, *ACME[:4]), "needs --auto-acme-agree-to-tos"),
        ((*SERVER, *ALL, *FILES, "--pkcs11-module", "/lib/x.so"), "PKCS#11 modules are not supported"),
        ((*SERVER, *ALL, "--use-workload-api"), "workload endpoint socket address is not configured"),
    ],
)
def test_exactly_one_identity_source_is_accepted(line: tuple[str, ...], words: str) -> None:
    assert words in mistake(*line)


def test_a_source_enabled_by_the_environment_is_named() -> None:
    text = mistake(*SERVER, *ALL, *STORE, environ={"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"})
    assert "enabled by $SPIFFE_ENDPOINT_SOCKET" in text


# -- access: what goes together

PIN = ("--allow-spki-pin", "sha256:" + "A" * 43 + "=")
VPIN = ("--verify-spki-pin", "sha256:" + "A" * 43 + "=")
POLICY = ("--allow-policy", "p.rego", "--allow-query", "data.p.allow")


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ((*SERVER, *FILES, *ALL), ["any"]),
        ((*SERVER, *FILES, "--allow-cn", "a", "--allow-cn", "b", "--allow-ou", "o"), ["cn:a", "cn:b", "ou:o"]),
        (
            (*SERVER, *FILES, "--allow-dns-san", "d", "--allow-dns", "e", "--allow-ip-san", "::1", "--allow-ip", "1.2.3.4"),
            ["dns:d", "dns:e", "ip:::1", "ip:1.2.3.4"],
        ),
        ((*SERVER, *FILES, "--allow-uri", "x://y/*", "--allow-ou", "o", "--allow-cn", "c"), ["cn:c", "ou:o", "uri:x://y/*"]),
        ((*SERVER, *FILES, *PIN), ["spki-pin"]),
        ((*SERVER, *FILES, *POLICY), []),
        ((*SERVER, *FILES, "--disable-authentication"), []),
        ((*CLIENT, *FILES), ["host-name"]),
        ((*CLIENT, *FILES, "--verify-cn", "a"), ["cn:a"]),
        ((*CLIENT, *FILES, *VPIN), ["spki-pin"]),
        ((*CLIENT, *BARE_CLIENT, *VPIN), ["spki-pin"]),
        ((*CLIENT, *API, "--verify-cn", "a"), ["cn:a"]),
    ],
)
def test_rules_are_evaluated_in_ghostunnels_order(line: tuple[str, ...], rules: list[str]) -> None:
    assert list(map(str, build(*line).access.rules)) == rules


def test_a_policy_joins_other_rules() -> None:
    access = build(*SERVER, *FILES, *POLICY, "--allow-cn", "a").access
    assert (list(map(str, access.rules)), access.policy) == (["cn:a"], PolicyFiles("p.rego", "data.p.allow"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ((*SERVER, *FILES, *ALL, "--allow-cn", "a"), "--allow-all and --allow-cn are"),
        ((*SERVER, *FILES, *ALL, *POLICY), "--allow-all and --allow-policy are"),
        ((*SERVER, *FILES, *ALL, *PIN), "and --allow-spki-pin are mutually exclusive"),
        ((*SERVER, *FILES, *ALL, "--disable-authentication"), "and --disable-authentication are mutually exclusive"),
        ((*SERVER, *FILES, "--disable-authentication", "--allow-ou", "o"), "and --allow-ou are mutually exclusive"),
        ((*SERVER, *FILES, "--disable-authentication", *PIN), "and --allow-spki-pin are mutually exclusive"),
        ((*SERVER, *FILES, *PIN, "--allow-dns", "d"), "and --allow-dns are mutually exclusive"),
        ((*SERVER, *FILES, *PIN, *POLICY), "and --allow-policy are mutually exclusive"),
        ((*SERVER, *API, *PIN), "--allow-spki-pin and the Workload API are mutually exclusive"),
        ((*SERVER, *FILES, "--allow-spki-pin", "sha256:AAAA"), "--allow-spki-pin: invalid SPKI pin"),
        ((*SERVER, *FILES, *POLICY[:2]), "--allow-policy needs --allow-query"),
        ((*SERVER, *FILES, *POLICY[2:]), "--allow-query needs --allow-policy"),
        ((*CLIENT, *FILES, "--verify-query", "q"), "--verify-query needs --verify-policy"),
        ((*CLIENT, *FILES, *VPIN, "--verify-cn", "a"), "and --verify-cn are mutually exclusive"),
        ((*CLIENT, *API, *VPIN), "--verify-spki-pin and the Workload API are mutually exclusive"),
        ((*SERVER, *FILES, *ALLOW), "--allow-id needs the Workload API"),
        ((*SERVER, *FILES, "--allow-trust-domain", "a.test"), "--allow-trust-domain needs the Workload API"),
        ((*CLIENT, *FILES, "--verify-any"), "--verify-any needs the Workload API"),
        ((*SERVER, *FILES, *ALL, "--proxy-protocol", "--proxy-protocol-mode", "tls"), "are mutually exclusive"),
        ((*SERVER, *FILES, *ALL, "--cipher-suites", "AES,DES"), 'invalid cipher suite option "DES"'),
        ((*SERVER, *FILES, *ALL, "--cipher-suites", "UNSAFE-AZURE"), "needs --allow-unsafe-cipher-suites"),
        (("client", "--listen", "localhost:1", "--target", "unix:/x", *FILES), "expected --override-server-name"),
        (
            ("client", "--listen", "localhost:1", "--target", "unix:/x", *API, *VERIFY, "--proxy", "http://p"),
            "cannot be reached through --proxy",
        ),
        ((*CLIENT, *FILES, "--proxy", "https://p"), "--proxy: unknown scheme: https"),
    ],
)
def test_what_does_not_go_together_is_refused(line: tuple[str, ...], words: str) -> None:
    assert words in mistake(*line)


def test_mistakes_are_reported_in_ghostunnels_order() -> None:
    line = ["server", "--listen", ":1", "--target", "far.test:1", "--allow-spki-pin", "x", "--proxy-protocol"]
    line += ["--proxy-protocol-mode", "tls", "--cipher-suites", "DES"]
    words = ["no identity source", "invalid SPKI pin", "is not local", "mutually exclusive", "cipher suite"]
    steps = [*FILES], ["sha256:" + "A" * 43 + "=", "x"], ["--unsafe-target"], ["--no-proxy-protocol"], []
    for word, step in zip(words, steps, strict=True):
        assert word in mistake(*line)
        if step[-1:] == ["x"]:
            line[line.index("x")] = step[0]
        elif step == ["--no-proxy-protocol"]:
            line.remove("--proxy-protocol")
        else:
            line += step


def test_the_last_spelling_of_the_outbound_proxy_wins() -> None:
    line = (*CLIENT, *FILES, "--proxy", "http://a:1", "--connect-proxy", "http://b:2")
    assert build(*line).outbound == OutboundProxy("http", "b", 2)
    assert "flag 'proxy' cannot be repeated" in mistake(*CLIENT, *FILES, "--proxy", "http://a", "--proxy", "http://b")


@pytest.mark.parametrize(
    ("line", "mode"),
    [((), None), (("--proxy-protocol",), "conn")]
    + [(("--proxy-protocol-mode", mode), mode) for mode in ("conn", "tls", "tls-full", "spiffe")],
)
def test_the_header_has_a_mode(line: tuple[str, ...], mode: str | None) -> None:
    assert build(*SERVER, *FILES, *ALL, *line).header_mode == (HeaderMode(mode) if mode else None)


def test_an_empty_status_address_is_none() -> None:
    assert build_process(*SERVER, *API, *ALLOW, "--status=", "--health=").monitors == ()


def test_a_health_port_needs_no_status_port() -> None:
    line = (*SERVER, *API, *ALLOW, "--health", "http://:6061", "--status-allow-host", "a.test")
    (monitor,) = build_process(*line).monitors
    assert (monitor.health, monitor.status) == (HealthPort(TcpAddress("", "6061"), ("a.test",)), None)
    assert [(part.has_metrics, part.addresses) for part in monitor.parts()] == [(False, (TcpAddress("", "6061"),))]
    (both,) = build_process(*line, "--status", "unix:/s").monitors
    assert [(part.has_metrics, part.addresses) for part in both.parts()] == [
        *((True, (UnixAddress("/s"),)), (False, (TcpAddress("", "6061"),))),
    ]
    assert both.addresses == (UnixAddress("/s"), TcpAddress("", "6061"))


def test_a_health_port_has_an_address_of_its_own() -> None:
    line = (*SERVER, *API, *ALLOW, "--status", "http://localhost:6060", "--health", "localhost:6060")
    assert mistake(*line) == "--health: localhost:6060 is also the address of the status port; expected an address of its own"
    listening = mistake(*line[:-1], "http://:8443")
    assert listening == "--health: :8443 is also the address of the listener server; expected an address of its own"
    assert build_process(*line[:-1], "localhost:0").monitors
