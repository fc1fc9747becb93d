"""The addresses of `tunnel health`, and which of them need no verification."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.cli.parser import parse_command_line
from tunnel.commands import health
from tunnel.commands.health import HealthConfig
from tunnel.commands.status_query import status_ports
from tunnel.config.status_url import parse_status_url
from tunnel.errors import ConfigError


def build(*argv: str) -> HealthConfig:
    return health.build(parse_command_line(["health", *argv], (health.COMMAND,), {}).arguments)


@pytest.mark.parametrize(
    ("text", "scheme", "address", "path"),
    [
        ("localhost:6060", "", "localhost:6060", "/_status"),
        (":6060", "", ":6060", "/_status"),
        ("[::1]:6060/", "", "[::1]:6060", "/_status"),
        ("http://127.0.0.1:6060", "http", "127.0.0.1:6060", "/_status"),
        ("http://127.0.0.1:6060/live?x=://y", "http", "127.0.0.1:6060", "/live?x=://y"),
        ("https://[::1]:6060/_metrics", "https", "[::1]:6060", "/_metrics"),
        ("localhost:6060/a://b", "", "localhost:6060", "/a://b"),
        ("unix:/run/status.sock", "http", "unix:/run/status.sock", "/_status"),
        ("unix:///run/status.sock", "http", "unix:/run/status.sock", "/_status"),
        ("unix:@status", "http", "unix:@status", "/_status"),
        ("unix:status.sock", "http", "unix:status.sock", "/_status"),
    ],
)
def test_an_address_can_be_the_proxys_or_a_url(text: str, scheme: str, address: str, path: str) -> None:
    url = parse_status_url(text)
    assert (url.scheme, str(url.address), url.path) == (scheme, address, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost", "missing port"),
        ("http://localhost", "missing port"),
        ("ftp://localhost:1", "localhost:1"),
        ("unix://run/status.sock", "not a URL"),
        ("unix:", "missing path"),
        ("systemd:status", "can only be listened on"),
        ("http://unix:/run/x", "missing path"),
        ("localhost:1/a b", "printable ASCII"),
        ("localhost:1/a\r\nX: y", "printable ASCII"),
        ("", "missing port"),
    ],
)
def test_an_invalid_status_port_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_status_url(text)


def test_only_a_local_status_port_needs_no_verification() -> None:
    for text in (
        "localhost:1",
        ":1",
        "127.9.9.9:1",
        "[::1]:1",
        "0.0.0.0:1",
        "https://localhost:1",
        "unix:/x",
        "http://10.0.0.1:1",
    ):
        assert build(text).query.url == parse_status_url(text)
    for text in ("10.0.0.1:1", "https://db.example.org:1", "[2001:db8::1]:1"):
        with pytest.raises(ConfigError, match="is not on loopback"):
            build(text)
        assert build(text, "--cacert=ca.pem").query.cacert == "ca.pem"
    with pytest.raises(ConfigError, match="plain HTTP"):
        build("http://localhost:1", "--cacert=ca.pem")


def test_another_path_can_be_queried_also_at_a_unix_socket() -> None:
    assert str(build("unix:/x", "--path=/ready").query.url) == "unix:/x /ready"
    assert build("localhost:1/", "--path=/ready").query.url == parse_status_url("localhost:1/ready")
    for line in (("localhost:1/live", "--path=/ready"), ("unix:/x", "--path=ready"), ("unix:/x", "--path=/a b")):
        with pytest.raises(ConfigError, match="path"):
            build(*line)


def test_defaults_and_switches() -> None:
    config = build("localhost:1")
    assert (config.query.timeout, config.is_quiet, config.is_json) == (5.0, False, False)
    config = build("-q", "--json", "--timeout=250ms", "localhost:1")
    assert (config.query.timeout, config.is_quiet, config.is_json) == (0.25, True, True)


@pytest.mark.parametrize(
    ("line", "ports"),
    [
        ("tunnel server --status=http://:6060 --listen=:1", ["http://:6060"]),
        ("/opt/tunnel/bin/python3 /opt/tunnel/bin/tunnel client --status unix:/run/s", ["unix:/run/s"]),
        ("python3 -m tunnel server --listen :1", []),
        ("/sbin/docker-init -- tunnel server --status 10.0.0.1:6060", ["10.0.0.1:6060"]),
        ("tunnel server --health=:6061", ["http://:6061/readyz?target"]),
        ("tunnel client --status=:1 --health http://[::1]:2", [":1", "http://[::1]:2/readyz?target"]),
        ("tunnel server --health unix:/run/h", ["unix:/run/h /readyz?target"]),
        ("tunnel run server --status=:1 + client --status=:2 -- app --status=:3", [":1", ":2"]),
    ],
)
def test_the_status_ports_of_a_process_stand_in_its_line(line: str, ports: list[str]) -> None:
    assert [str(url) for url in status_ports(line.split())] == ports


def test_a_file_of_arguments_is_a_part_of_the_line(tmp_path: Path) -> None:
    (tmp_path / "flags").write_text("--listen=:1\n--status=:6060\n")
    assert [str(url) for url in status_ports(["tunnel", "server", f"@{tmp_path}/flags"])] == [":6060"]


def test_the_status_ports_of_configuration_files_are_known_also_after_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[status]\nlisten = "http://:6060"\n[server]\nwrong = 1\n')
    (tmp_path / "b.toml").write_text(
        """monitor = [{ status = { listen = "unix:s" } }, { status = { listen = "unix:/run/s" } },
                      { health = { listen = "unix:h" } }, { metrics = 1 }, 2]"""
    )
    ports = ["http://:6060", f"unix:{tmp_path}/s", "unix:/run/s", f"unix:{tmp_path}/h /readyz?target"]
    for line in (f"tunnel serve --config {tmp_path} --watch", f"tunnel run --config={tmp_path} -- app --config=/x"):
        assert [str(url) for url in status_ports(line.split())] == ports


@pytest.mark.parametrize("text", ["", "status = 1", "[status]\nlisten = 1", "monitor = 1"])
def test_a_configuration_file_without_a_status_port_has_nothing_to_query(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert status_ports(["tunnel", "serve", f"--config={tmp_path}/a.toml"]) == ()


def test_a_configuration_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the file"):
        status_ports(["tunnel", "serve", f"--config={tmp_path}/a.toml"])


def test_the_status_port_of_another_program_is_not_guessed() -> None:
    with pytest.raises(ConfigError, match="process 1 is not tunnel"):
        status_ports(["/sbin/init", "splash"])


def test_the_own_address_of_a_proxy_needs_no_verification() -> None:
    (own,) = status_ports(["tunnel", "server", "--status=10.0.0.1:6060"])
    assert health.build(parse_command_line(["health"], (health.COMMAND,), {}).arguments, own).query.url == own
