"""Configuration files build the configuration of a process."""

from __future__ import annotations

import math
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest

from tunnel.authz.pattern import parse_pattern
from tunnel.authz.pins import parse_pin
from tunnel.authz.rules import AnyRule, IdRule, TrustDomainRule, UriRule
from tunnel.config.access import parse_rules
from tunnel.config.file.encode import Style, encode_config
from tunnel.config.file.loader import load_config, load_files
from tunnel.config.headers import HttpHeader
from tunnel.config.model import (
    KEEP,
    Access,
    Acme,
    ClosePolicy,
    HealthCheck,
    HealthPort,
    IdentityConfig,
    KeyFiles,
    Keystore,
    ListenerConfig,
    LogConfig,
    Metrics,
    Monitor,
    NameResolution,
    NoIdentity,
    Plaintext,
    PolicyFiles,
    ProcessConfig,
    Revocation,
    Status,
    TlsOptions,
    Traces,
    WorkloadApi,
)
from tunnel.net.address import SrvName, SystemdAddress, TcpAddress, UnixAddress, parse_status_address
from tunnel.spiffe.endpoint import parse_endpoint
from tunnel.spiffe.ids import parse_spiffe_id, parse_trust_domain
from tunnel.spiffe.selection import Selection
from tunnel.wire.outbound import parse_outbound
from tunnel.wire.proxy_v2 import HeaderMode

API = WorkloadApi(parse_endpoint("unix:///run/spire/agent.sock"))
IDENTITY = '[identity.default]\nworkload-api = "unix:///run/spire/agent.sock"\n'
FILES = '[identity.default]\ncert = "/c"\nkey = "/k"\n'
SERVER = '[[server]]\nlisten = ":1"\ntarget = "localhost:2"\n'
CLIENT = '[[client]]\nlisten = "localhost:1"\ntarget = "db.test:2"\n'
ACCESS = 'access = [{ allow = "spiffe://a.test/w" }]\n'
RULES = (IdRule(parse_spiffe_id("spiffe://a.test/w")),)

Load = Callable[[str], ProcessConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_text(text: str) -> ProcessConfig:
        (tmp_path / "t.toml").write_text(text)
        return load_config([tmp_path / "t.toml"])

    return load_text


def test_the_example_of_the_documentation_builds_its_configuration(load: Load, tmp_path: Path) -> None:
    config = load(
        """
[status]
listen = "http://127.0.0.1:6060"
[defaults]
connect-timeout = "20s"
on-withdrawal = "30s"
[identity.default]
workload-api = "unix:///run/spire/agent.sock"
[identity.legacy]
cert = "server.pem"
key = "/etc/server-key.pem"
ca = "ca.pem"
crl = ["revoked.pem"]
[access.web-tier]
rules = [{ allow = "spiffe://example.org/web/**" }, { allow = { trust-domain = "partner.test" } }]
[[server]]
name = "redis"
listen = "0.0.0.0:8443"
target = "localhost:6379"
identity = "default"
access = "web-tier"
[[client]]
name = "cache"
listen = "localhost:6380"
target = "cache.example.org:8443"
identity = "legacy"
connect-timeout = "5s"
"""
    )
    files = KeyFiles(str(tmp_path / "server.pem"), "/etc/server-key.pem")
    legacy = IdentityConfig(files, str(tmp_path / "ca.pem"), Revocation((str(tmp_path / "revoked.pem"),)), "legacy")
    rules = (UriRule(parse_pattern("spiffe://example.org/web/**")), TrustDomainRule(parse_trust_domain("partner.test")))
    assert config == ProcessConfig(
        (
            ListenerConfig(
                "redis",
                True,
                TcpAddress("0.0.0.0", "8443"),
                (TcpAddress("localhost", "6379"),),
                IdentityConfig(API, name="default"),
                Access(rules),
                connect_timeout=20,
                on_withdrawal=ClosePolicy(30),
            ),
            ListenerConfig(
                "cache",
                False,
                TcpAddress("localhost", "6380"),
                (TcpAddress("cache.example.org", "8443"),),
                legacy,
                Access((AnyRule("host-name"),)),
                connect_timeout=5,
                on_withdrawal=ClosePolicy(30),
            ),
        ),
        (Monitor(Status(parse_status_address("http://127.0.0.1:6060"))),),
    )


def test_a_short_file_has_the_defaults_of_the_configuration(load: Load) -> None:
    listener = ListenerConfig(
        ":1", True, TcpAddress("", "1"), (TcpAddress("localhost", "2"),), IdentityConfig(API, name="default"), Access(RULES)
    )
    assert load(IDENTITY + SERVER + ACCESS) == ProcessConfig((listener,))


def test_every_key_of_a_server_sets_its_field(load: Load) -> None:
    text = """
name = "a"
proxy-protocol-mode = "spiffe"
target-status = "http://localhost:9/"
skip-resolve = true
health-interval = 0
health-timeout = "1s"
health-rise = 5
health-fall = 6
name-cache-time = "1m"
dns-server = "127.0.0.1:8600"
connect-timeout = "1s"
close-timeout = 0
max-conn-lifetime = "1h30m"
max-concurrent-conns = 3
max-rate = 0.5
max-conns-per-peer = 4
max-rate-per-peer = 10
max-handshakes = 0
on-withdrawal = "keep"
close-expired = true
close-without-identity = true
plaintext = "permit"
plaintext-sources = ["10.0.0.0/8", "::1"]
plaintext-silence = "250ms"
alpn = ["h2", "http/1.1", "h2"]
max-tls-version = "TLS1.2"
cipher-suites = ["UNSAFE-AZURE", "AES"]
allow-unsafe-cipher-suites = true
"""
    [listener] = load(
        IDENTITY
        + SERVER.replace('"localhost:2"', '["10.0.0.1:2", "localhost:3", "srv:_a._tcp.b.test"]')
        + "unsafe-target = true\n"
        + ACCESS
        + text
    ).listeners
    assert listener == ListenerConfig(
        "a",
        True,
        TcpAddress("", "1"),
        (TcpAddress("10.0.0.1", "2"), TcpAddress("localhost", "3"), SrvName("_a._tcp.b.test")),
        IdentityConfig(API, name="default"),
        Access(RULES),
        tls=TlsOptions("ECDHE+AESGCM:ECDHE-RSA-AES128-SHA256", True, ("h2", "http/1.1")),
        header_mode=HeaderMode.SPIFFE,
        connect_timeout=1,
        close_timeout=0,
        max_conn_lifetime=5400,
        max_concurrent_conns=3,
        max_rate=0.5,
        max_conns_per_peer=4,
        max_rate_per_peer=10,
        max_handshakes=0,
        is_resolved_early=False,
        resolution=NameResolution(60, TcpAddress("127.0.0.1", "8600")),
        health_check=HealthCheck(0, 1, 5, 6),
        target_status="http://localhost:9/",
        plaintext=Plaintext((ip_network("10.0.0.0/8"), ip_network("::1")), 0.25),
        on_withdrawal=KEEP,
        closes_expired=True,
        closes_without_identity=True,
    )


def test_the_keys_of_a_client_set_their_fields(load: Load) -> None:
    text = 'listen = "systemd:web"\nunsafe-listen = true\noverride-server-name = "x"\nproxy = "http://u:p@proxy:1"\n'
    [listener] = load(IDENTITY + CLIENT.replace('listen = "localhost:1"\n', text) + ACCESS).listeners
    assert listener.listen == SystemdAddress("web")
    assert (listener.server_name, listener.outbound) == ("x", parse_outbound("http://u:p@proxy:1"))


def test_the_keys_of_the_process_set_their_fields(load: Load) -> None:
    text = """
shutdown-delay = "1s"
shutdown-timeout = "2s"
timed-reload = "3s"
on-removal = "close"
disable-landlock = true
[log]
quiet = ["conns", "conn-errs"]
syslog = true
[status]
listen = "unix:s"
enable-pprof = true
enable-shutdown = true
enable-reload = true
ui = true
allow-host = "a.test"
[health]
listen = "unix:h"
allow-host = ["a.test", "b.test"]
[metrics]
graphite = "g:1"
url = "http://m/"
prefix = "p"
interval = "5s"
ca = "/ca"
peers = 7
[traces]
url = "https://c/v1/traces"
ratio = 0.25
ca = "/ca"
headers = ["X-Key: a b", "x-other:\tc "]
[[monitor]]
listeners = [":1"]
metrics = { url = "http://n/" }
[[monitor]]
health = { listen = "http://:6061" }
"""
    config = load(text + IDENTITY + SERVER + ACCESS)
    assert config.log == LogConfig(("conns", "conn-errs"), True)
    status, further, probes = config.monitors
    assert status.metrics == Metrics(TcpAddress("g", "1"), "http://m/", "p", 5, "/ca", 7)
    assert status.status is not None
    assert str(status.status.address).endswith("/s")
    assert status.status == Status(status.status.address, True, True, True, ("a.test",), has_ui=True)
    assert further == Monitor(None, Metrics(url="http://n/"), (":1",))
    assert status.health is not None
    assert str(status.health.address).endswith("/h")
    assert status.health == HealthPort(status.health.address, ("a.test", "b.test"))
    assert probes == Monitor(health=HealthPort(TcpAddress("", "6061")))
    headers = (HttpHeader("X-Key", "a b"), HttpHeader("x-other", "c"))
    assert [str(header) for header in headers] == ["X-Key: a b", "x-other: c"]
    assert config.traces == Traces("https://c/v1/traces", 0.25, "/ca", headers)
    assert (config.shutdown_delay, config.shutdown_timeout, config.timed_reload) == (1, 2, 3)
    assert config.on_removal == ClosePolicy(0)
    assert not config.is_confined


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'workload-api = "tcp://127.0.0.1:1"\nspiffe-id = "spiffe://a.test/w"\nhint = "h"\ntimeout = "1m"',
            IdentityConfig(
                WorkloadApi(parse_endpoint("tcp://127.0.0.1:1"), 60, Selection(parse_spiffe_id("spiffe://a.test/w"), "h"))
            ),
        ),
        ('cert = "/c"\nkey = "/k"', IdentityConfig(KeyFiles("/c", "/k"))),
        ('keystore = "/s"', IdentityConfig(Keystore("/s", ""))),
        ('keystore = "/s"\nstorepass = "p"', IdentityConfig(Keystore("/s", "p"))),
        (
            'acme = "a.test"\nacme-email = "a@b"\nacme-agree-to-tos = true\nacme-ca = "https://c"\n'
            'acme-renew-check-interval = "1m"\nacme-alt-tls-alpn-port = 444',
            IdentityConfig(Acme("a.test", "a@b", "https://c", 60, 444)),
        ),
        ('acme = "a.test"\nacme-email = "a@b"\nacme-agree-to-tos = true', IdentityConfig(Acme("a.test", "a@b", ""))),
        (
            'cert = "/c"\nkey = "/k"\nca = "/ca"\ncrl = "/r"\ncrl-missing = "accept"',
            IdentityConfig(KeyFiles("/c", "/k"), "/ca", Revocation(("/r",), False)),
        ),
    ],
)
def test_each_kind_of_identity(load: Load, text: str, expected: IdentityConfig) -> None:
    [listener] = load(f"[identity.x]\n{text}\n{SERVER}access = [{{ allow = {{ cn = 'w' }} }}]").listeners
    assert listener.identity == IdentityConfig(expected.source, expected.ca_bundle, expected.revocation, "x")


def test_a_password_can_be_in_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("geheim \n")
    text = f'[identity.x]\nkeystore = "s.p12"\nstorepass-file = "pass"\n{CLIENT}'
    assert load(text).listeners[0].identity.source == Keystore(str(tmp_path / "s.p12"), "geheim ", str(tmp_path / "pass"))


def test_a_listener_that_names_no_identity_has_the_only_one_or_the_one_named_default(load: Load) -> None:
    assert load(FILES.replace("default", "a") + CLIENT).listeners[0].identity.name == "a"
    assert load(FILES.replace("default", "a") + FILES + CLIENT).listeners[0].identity.name == "default"


def test_a_password_file_is_shown_by_its_name(load: Load, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("geheim")
    config = load(f'[identity.x]\nkeystore = "s.p12"\nstorepass-file = "pass"\n{CLIENT}')
    text = encode_config(config, Style(is_complete=True))
    assert "geheim" not in text
    assert load(text).listeners == config.listeners


def test_a_client_without_a_certificate(load: Load) -> None:
    [listener] = load(CLIENT + "disable-authentication = true\n").listeners
    assert listener.identity == IdentityConfig(NoIdentity())
    assert listener.access == Access((AnyRule("host-name"),), is_mutual=False)
    [listener] = load(f'[identity.web]\nca = "/ca"\n{CLIENT}disable-authentication = true').listeners
    assert listener.identity == IdentityConfig(NoIdentity(), "/ca", name="web")


def test_a_server_that_requests_no_certificate(load: Load) -> None:
    [listener] = load(f"{FILES}{SERVER}disable-authentication = true").listeners
    assert listener.access == Access((), is_mutual=False)


PIN = "sha256:" + "A" * 43 + "="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[access.x]\npolicy = "/p.rego"\nquery = "data.a"', Access((), policy=PolicyFiles("/p.rego", "data.a"))),
        (
            '[access.x]\npolicy = "/p"\nquery = "q"\nrules = [{ allow = { trust-domain = "a.test" } }]',
            Access((TrustDomainRule(parse_trust_domain("a.test")),), policy=PolicyFiles("/p", "q")),
        ),
    ],
)
def test_each_kind_of_access_list(load: Load, text: str, expected: Access) -> None:
    assert load(f'{IDENTITY}{text}\n{SERVER}access = "x"').listeners[0].access == expected


def test_rules_of_every_kind_and_the_accepted_trust_domains(load: Load) -> None:
    text = """
access = [
  { deny = "spiffe://a.test/w/canary" },
  { allow = { id = "spiffe://a.test/w", source = ["10.0.0.0/8"] } },
  { allow = "any" },
]
trust-domains = ["a.test", "spiffe://b.test"]
"""
    rules, mistakes = parse_rules(
        [
            {"deny": "spiffe://a.test/w/canary"},
            {"allow": {"id": "spiffe://a.test/w", "source": ["10.0.0.0/8"]}},
            {"allow": "any"},
        ],
        is_server=True,
        is_spiffe=True,
    )
    assert mistakes == []
    domains = (parse_trust_domain("a.test"), parse_trust_domain("b.test"))
    config = load(IDENTITY + SERVER + text)
    assert config.listeners[0].access == Access(rules, trust_domains=domains)
    text = encode_config(config, Style())
    assert load(text) == config


def test_default_trust_domains_hold_where_there_are_any(load: Load) -> None:
    text = f'[defaults]\ntrust-domains = "a.test"\n{IDENTITY}{SERVER}{ACCESS}identity = "default"\n[identity.web]\n{CLIENT}'
    server, client = load(text + 'identity = "web"\ndisable-authentication = true').listeners
    assert server.access.trust_domains == (parse_trust_domain("a.test"),)
    assert client.access.trust_domains is None


def test_pins_are_the_only_check(load: Load) -> None:
    assert load(f'{FILES}{SERVER}access = {{ spki-pins = "{PIN}" }}').listeners[0].access == Access(
        (AnyRule("spki-pin"),), (parse_pin(PIN),)
    )


def test_the_files_of_a_directory_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, port in (("b.toml", 1), ("a.toml", 2), (".c.toml", 3), ("d.txt", 4)):
        (tmp_path / name).write_text(SERVER.replace(":1", f":{port}") + ACCESS)
    (tmp_path / "first").write_text(IDENTITY + '[log]\nquiet = "all"\n')
    loaded = load_files([tmp_path / "first", tmp_path])
    assert [str(listener.listen) for listener in loaded.config.listeners] == [":2", ":1"]
    assert loaded.config.log.quiet == ("all",)
    assert loaded.files == (str(tmp_path / "first"), str(tmp_path / "a.toml"), str(tmp_path / "b.toml"))


def test_relative_paths_are_relative_to_the_directory_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a.toml").write_text(f'{IDENTITY}[[server]]\nlisten = "unix:l"\ntarget = "unix:../t"\n{ACCESS}')
    (tmp_path / "conf/b.toml").write_text(f'[[server]]\nlisten = "unix:@l"\ntarget = "unix:/t"\n{ACCESS}')
    monkeypatch.chdir(tmp_path)
    first, second = load_config(["conf"]).listeners
    assert (first.listen, first.targets) == (UnixAddress("conf/l"), (UnixAddress("conf/../t"),))
    assert (second.listen, second.targets) == (UnixAddress("@l"), (UnixAddress("/t"),))
    monkeypatch.chdir(tmp_path / "conf")
    assert load_config(["a.toml"]).listeners[0].listen == UnixAddress("l")


def test_defaults_of_one_mode_do_not_hold_for_the_other(load: Load) -> None:
    defaults = '[defaults]\nplaintext = "permit"\nplaintext-silence = "2s"\noverride-server-name = "x"\nidentity = "default"\n'
    config = load(defaults + IDENTITY + SERVER + ACCESS + CLIENT.replace("localhost:1", "localhost:3") + ACCESS)
    server, client = config.listeners
    assert (server.plaintext, server.server_name) == (Plaintext(silence=2.0), "")
    assert (client.plaintext, client.server_name) == (None, "x")


def test_zero_and_infinity_of_a_close_policy(load: Load) -> None:
    def policy(value: str) -> float:
        return load(f"{IDENTITY}{SERVER}{ACCESS}on-withdrawal = {value}").listeners[0].on_withdrawal.grace

    assert [policy(value) for value in ('"close"', '"keep"', "0", '"0"', '"1m"')] == [0, math.inf, 0, 0, 60]


def test_the_line_of_a_listener_is_no_part_of_it(load: Load) -> None:
    text = IDENTITY + SERVER + 'access = [{ allow = { cn = "w" } }]\n'
    moved = "\n\n" + text
    assert load(text).listeners == load(moved).listeners
    assert load(text).warnings != load(moved).warnings
