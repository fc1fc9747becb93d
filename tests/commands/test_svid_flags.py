"""The configurations of `tunnel svid fetch`, `watch` and `show`, and the lines that are refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tunnel.cli.command import Arguments
from tunnel.cli.parser import parse_command_line
from tunnel.commands.registry import load_commands_of
from tunnel.commands.svid import fetch, show
from tunnel.commands.svid import watch as watch_command
from tunnel.config.svid_model import ChildSignal, FileNames, Output, PidFileSignal, ReloadCommand, Supervised, WatchConfig
from tunnel.errors import ConfigError
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection

ENVIRON = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"}
HUP = signal.SIGHUP


def parse(*argv: str, environ: dict[str, str] = ENVIRON) -> Arguments:
    return parse_command_line(["svid", *argv], load_commands_of("svid"), environ).arguments


def watch(*argv: str) -> WatchConfig:
    return watch_command.build(parse("watch", "--out", "/tls", *argv))


def test_the_address_in_the_environment_is_enough() -> None:
    config = fetch.build(parse("fetch", "--out", "/tls"))
    assert config.source.endpoint == WorkloadEndpoint(path="/run/api.sock")
    assert config.source.timeout == 15.0
    assert config.output == Output("/tls")
    assert show.build(parse("show", "--use-workload-api")).source == config.source


def test_watch_waits_without_a_limit() -> None:
    assert watch().source.timeout == 0.0
    assert watch("--wait", "1m").source.timeout == 60.0


def test_an_identity_may_be_chosen() -> None:
    source = watch("--spiffe-id", "spiffe://a.test/w", "--spiffe-hint", "web").source
    assert source.selection == Selection(parse_spiffe_id("spiffe://a.test/w"), "web")


def test_every_file_can_be_named_and_given_away(tmp_path: Path) -> None:
    line = "--cert-name tls.crt --key-name tls.key --bundle-name ca.crt --cert-mode 0444 --key-mode 440 --group 0"
    more = ["--combined", str(tmp_path / "both.pem"), "--omit-expired", "--intermediates-to-bundle"]
    output = Output(
        "/tls",
        FileNames("tls.crt", "tls.key", "ca.crt"),
        cert_mode=0o444,
        key_mode=0o440,
        group=0,
        combined=str(tmp_path / "both.pem"),
        is_expired_omitted=True,
        has_intermediates_in_bundle=True,
    )
    assert watch(*line.split(), *more).output == output
    assert watch("--group", "root").output.group == 0


@pytest.mark.parametrize("name", ["HUP", "hup", "SIGHUP", "sighup"])
def test_a_signal_goes_to_a_pid_file_or_to_the_command(name: str) -> None:
    assert watch("--signal", name, "--pid-file", "/run/x.pid").reload == PidFileSignal("/run/x.pid", HUP)
    config = watch("--signal", name, "--restart", "--stop-timeout", "3s", "--", "nginx", "-g", "daemon off;")
    assert config.reload == ChildSignal(HUP)
    assert config.child == Supervised(("nginx", "-g", "daemon off;"), is_restarted=True, stop_limit=3.0)


def test_a_reload_command_is_split_as_a_shell_does_it() -> None:
    line = "psql -c 'SELECT pg_reload_conf()' $HOME"
    config = watch("--reload-command", line, "--reload-timeout", "5s", "--", "postgres")
    assert config.reload == ReloadCommand(("psql", "-c", "SELECT pg_reload_conf()", "$HOME"), 5.0)
    assert config.child == Supervised(("postgres",))


def test_a_command_can_run_without_notification() -> None:
    assert watch("--", "sleep", "1").reload is None
    assert watch().child is None


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8081", TcpAddress("127.0.0.1", "8081")), ("http://:1", TcpAddress("", "1")), ("unix:/x", UnixAddress("/x"))],
)
def test_health_is_served_in_plain_http(text: str, address: TcpAddress | UnixAddress) -> None:
    assert watch("--health", text).health == address


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--signal", "HUP"], "--signal needs a process; expected --pid-file FILE, or -- COMMAND"),
        (["--pid-file", "/x"], "--pid-file needs --signal"),
        (["--signal", "HUP", "--pid-file", "/x", "--", "y"], "--pid-file and COMMAND are mutually exclusive"),
        (
            ["--signal", "HUP", "--pid-file", "/x", "--reload-command", "y"],
            "--signal and --reload-command are mutually exclusive",
        ),
        (
            ["--signal", "KILL", "--", "x"],
            'invalid signal "KILL"; expected a signal that a program can handle',
        ),
        (["--signal", "1", "--", "x"], 'invalid signal "1"'),
        (["--signal", "_DFL", "--", "x"], 'invalid signal "_DFL"'),
        (["--restart"], "--restart needs -- COMMAND"),
        (["--reload-command", "psql -c 'x"], 'invalid command "psql -c \'x": no closing quotation'),
        (["--reload-command", " "], 'invalid command " ": empty'),
        (
            ["--key-mode", "0644"],
            'invalid mode "0644": every user of this machine could read the secret',
        ),
        (["--key-mode", "0601"], 'invalid mode "0601": every user'),
        (["--cert-mode", "rw"], 'invalid mode "rw"; expected octal permissions such as 0600 or 0660'),
        (["--group", "no such group"], 'invalid group "no such group": unknown group; expected a name or a number'),
        (["--group", ""], 'invalid group ""'),
        (["--cert-name", "a/b"], 'invalid file name "a/b"; expected a name without /'),
        (["--cert-name", "..data"], 'invalid file name "..data"'),
        (["--cert-name", ""], 'invalid file name ""'),
        (["--cert-name", "x" * 201], 'invalid file name "x'),
        (["--cert-name", "svid_key.pem"], "must differ; expected --combined FILE for key and chain in one file"),
        (["--key-name", "bundle.key.pem"], "--key-name: bundle.key.pem can be the bundle of a federated trust domain"),
        (["--combined", "/tls/svid.pem"], "--combined: /tls/svid.pem is written with other contents; expected another name"),
        (["--combined", "/tls/..data"], 'invalid file name "..data"'),
        (["--combined", "/tls/"], '--combined: invalid file "/tls/"'),
        (["--health", "https://:1"], "health is served in plain HTTP"),
        (["--health", "systemd:x"], "health has no activation socket"),
        (["--spiffe-id", "spiffe://a.test"], "names a trust domain, not a workload"),
    ],
)
def test_what_does_not_go_together_is_refused(line: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        watch(*line)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_like_those_of_kubernetes_secrets_go_together() -> None:
    assert watch("--cert-name", "tls.crt", "--key-name", "tls.key", "--bundle-name", "ca.crt")
    assert watch("--cert-name", "bundle.crt", "--bundle-name", "bundle.pem")


def test_a_combined_file_in_the_directory_is_found_by_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is written with other contents"):
        watch_command.build(parse("watch", "--out", os.fspath(tmp_path), "--combined", "link/svid.pem"))


@pytest.mark.parametrize("line", [["fetch", "--out", "/tls"], ["watch", "--out", "/tls"], ["show"]])
def test_a_missing_workload_api_address_is_an_error(line: list[str]) -> None:
    builds = {"fetch": fetch.build, "watch": watch_command.build, "show": show.build}
    with pytest.raises(
        ConfigError, match="no Workload API address; expected --use-workload-api-addr ADDR, or SPIFFE_ENDPOINT_SOCKET set"
    ):
        builds[line[0]](parse(*line, environ={}))


def test_a_directory_is_required() -> None:
    with pytest.raises(ConfigError, match='invalid directory ""'):
        parse("fetch", "--out", "")
    with pytest.raises(ConfigError, match="--out"):
        parse("fetch")


def test_show_has_one_output_format() -> None:
    with pytest.raises(ConfigError, match="--json and --pem are mutually exclusive"):
        show.build(parse("show", "--json", "--pem"))
