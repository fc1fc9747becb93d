"""The sandbox allows what the flags name: each file that a reload reads, each port that is bound or dialled."""

from __future__ import annotations

import pytest

from tests.support.configs import listener_config
from tunnel.cli.parser import parse_command_line
from tunnel.commands.proxy.build import build
from tunnel.commands.proxy.command import CLIENT, GLOBAL_FLAGS, SERVER
from tunnel.config.model import Keystore, NameResolution, ProcessConfig
from tunnel.lazy_dataclass import replace
from tunnel.net.address import SrvName, TcpAddress, UnixAddress
from tunnel.proxy.confinement import needs_of
from tunnel.sandbox.rules import build_ruleset
from tunnel.wire.outbound import parse_outbound

_SERVER = "server --listen :8443 --target localhost:80 --allow-all"
_CLIENT = "client --listen localhost:70 --target db.test:443"
_KEYS = "--cert /c/crt --key /k/key"


def configured(line: str) -> ProcessConfig:
    parsed = parse_command_line(line.split(), (SERVER, CLIENT), {}, global_flags=GLOBAL_FLAGS)
    return build(parsed.command, parsed.arguments)


@pytest.mark.parametrize(
    ("line", "files"),
    [
        (f"{_SERVER} {_KEYS}", {"/c/crt", "/k/key"}),
        (f"{_SERVER} {_KEYS} --cacert /a/ca", {"/c/crt", "/k/key", "/a/ca"}),
        (f"{_SERVER} {_KEYS} --crl /r/1 --crl /r/2", {"/c/crt", "/k/key", "/r/1", "/r/2"}),
        (f"{_SERVER} --keystore /s/p12", {"/s/p12"}),
        (f"{_SERVER} --keystore /s/p12 --traces https://c/x --traces-ca /t/ca", {"/s/p12", "/t/ca"}),
        (f"{_SERVER} --use-workload-api-addr unix:///api", set()),
        (
            f"{_SERVER.replace('--allow-all', '--allow-policy /p/rego --allow-query data.a')} {_KEYS}",
            {"/c/crt", "/k/key", "/p/rego"},
        ),
    ],
)
def test_files_are_those_that_a_reload_reads(line: str, files: set[str]) -> None:
    assert set(needs_of(configured(line)).files) == files


def test_the_password_file_of_a_keystore_is_read_again() -> None:
    listener = listener_config(source=Keystore("/s/p12", "geheim", "/s/pass"))
    assert set(needs_of(ProcessConfig((listener,))).files) == {"/s/p12", "/s/pass"}


@pytest.mark.parametrize(
    ("line", "bind", "connect"),
    [
        (f"{_SERVER} {_KEYS}", {8443}, {80}),
        (f"{_SERVER} {_KEYS} --status http://localhost:6060", {8443, 6060}, {80}),
        (f"{_SERVER} {_KEYS} --status unix:/s", {8443}, {80}),
        (f"{_SERVER} {_KEYS} --health :6061", {8443, 6061}, {80}),
        (f"{_SERVER} {_KEYS} --status http://:6060 --health unix:/h", {8443, 6060}, {80}),
        (f"{_SERVER} {_KEYS} --metrics-graphite g:2003 --metrics-url https://m/in", {8443}, {80, 2003, 443}),
        (f"{_SERVER} {_KEYS} --traces http://c:4318/v1/traces", {8443}, {80, 4318}),
        (f"{_SERVER} --use-workload-api-addr tcp://127.0.0.1:8081", {8443}, {80, 8081}),
        (f"{_CLIENT} {_KEYS}", {70}, {443}),
        (f"{_CLIENT} {_KEYS} --proxy http://p.test", {70}, {443, 8080}),
        (f"{_CLIENT} {_KEYS} --proxy socks5h://u:p@p.test", {70}, {443, 1080}),
        (f"{_CLIENT} {_KEYS} --proxy http://p.test:3128", {70}, {443, 3128}),
    ],
)
def test_ports_are_those_that_are_bound_and_dialled(line: str, bind: set[int], connect: set[int]) -> None:
    rules = build_ruleset(needs_of(configured(line)), {}, ())
    assert set(rules.bind_ports) == bind
    assert rules.connect_ports is not None
    assert set(rules.connect_ports) == connect | {53}


def test_the_ports_of_all_targets_and_of_the_name_server_are_dialled() -> None:
    targets = (TcpAddress("a.test", "1"), TcpAddress("b.test", "2"), UnixAddress("/run/x"))
    config = listener_config(targets=targets, resolution=NameResolution(dns_server=TcpAddress("127.0.0.1", "8600")))
    assert build_ruleset(needs_of(ProcessConfig((config,))), {}, ()).connect_ports == (1, 2, 53, 8600)


def test_the_ports_of_srv_records_are_not_known_unless_a_proxy_dials_them() -> None:
    config = listener_config(is_server=False, targets=(SrvName("_db._tcp.example.org"),))
    assert build_ruleset(needs_of(ProcessConfig((config,))), {}, ()).connect_ports is None
    config = replace(config, outbound=parse_outbound("http://proxy.test:3128"))
    assert build_ruleset(needs_of(ProcessConfig((config,))), {}, ()).connect_ports == (53, 3128)
