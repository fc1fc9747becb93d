"""What a line of `tunnel svid fetch`, `watch` and `show` means, and which lines mean nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tunnel.cli.parser import Arguments, parse_command_line
from tunnel.commands.svid import command as svid
from tunnel.config.svid_model import ChildSignal, FileNames, Output, PidFileSignal, ReloadCommand, Supervised, WatchConfig
from tunnel.errors import ConfigError
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.spiffe.selection import Selection

ENVIRON = {"SPIFFE_ENDPOINT_SOCKET": "unix:///run/api.sock"}
HUP = signal.SIGHUP


def parse(*argv: str, environ: dict[str, str] = ENVIRON) -> Arguments:
    return parse_command_line(["svid", *argv], svid.COMMANDS, environ).arguments


def watch(*argv: str) -> WatchConfig:
    return svid.build_watch(parse("watch", "--out", "/tls", *argv))


def test_the_address_in_the_environment_is_enough() -> None:
    config = svid.build_fetch(parse("fetch", "--out", "/tls"))
    assert config.source.endpoint == WorkloadEndpoint(path="/run/api.sock")
    assert config.source.timeout == 15.0
    assert config.output == Output("/tls")
    assert svid.build_show(parse("show", "--use-workload-api")).source == config.source


def test_watch_waits_for_ever() -> None:
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


def test_a_command_need_not_be_told() -> None:
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
        (["--signal", "HUP"], "--signal needs --pid-file FILE, or -- COMMAND"),
        (["--pid-file", "/x"], "--pid-file needs --signal"),
        (["--signal", "HUP", "--pid-file", "/x", "--", "y"], "--pid-file is for a process that somebody else starts"),
        (
            ["--signal", "HUP", "--pid-file", "/x", "--reload-command", "y"],
            "--signal and --reload-command are mutually exclusive",
        ),
        (["--signal", "KILL", "--", "x"], "'KILL' is no signal that a program can take, such as HUP or USR1"),
        (["--signal", "1", "--", "x"], "'1' is no signal"),
        (["--signal", "_DFL", "--", "x"], "'_DFL' is no signal"),
        (["--restart"], "--restart needs -- COMMAND"),
        (["--reload-command", "psql -c 'x"], "cannot be split into words: no closing quotation"),
        (["--reload-command", " "], "a program to run is wanted"),
        (["--key-mode", "0644"], "'0644' lets everybody on this machine at the private key; share it by --group and 0640"),
        (["--key-mode", "0601"], "'0601' lets everybody"),
        (["--cert-mode", "rw"], "'rw' is not a mode such as 0600 or 0660"),
        (["--group", "no such group"], "there is no group 'no such group'; a name or a number is wanted"),
        (["--group", ""], "there is no group ''"),
        (["--cert-name", "a/b"], "'a/b' is no name of a file in the folder"),
        (["--cert-name", "..data"], "'..data' is no name of a file"),
        (["--cert-name", ""], "'' is no name of a file"),
        (["--cert-name", "x" * 201], "is no name of a file"),
        (["--cert-name", "svid_key.pem"], "must differ; for key and chain in one file say --combined FILE"),
        (["--key-name", "bundle.key.pem"], "--key-name bundle.key.pem could be a federated trust domain's bundle"),
        (["--combined", "/tls/svid.pem"], "--combined /tls/svid.pem is the name of another file that is written: say another"),
        (["--combined", "/tls/..data"], "'..data' is no name of a file"),
        (["--combined", "/tls/"], "--combined '/tls/' is no file"),
        (["--health", "https://:1"], "health is served in plain HTTP"),
        (["--health", "systemd:x"], "health is served in plain HTTP"),
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


def test_a_combined_file_in_the_folder_is_found_by_whatever_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is the name of another file"):
        svid.build_watch(parse("watch", "--out", os.fspath(tmp_path), "--combined", "link/svid.pem"))


@pytest.mark.parametrize("line", [["fetch", "--out", "/tls"], ["watch", "--out", "/tls"], ["show"]])
def test_without_an_address_there_is_nobody_to_ask(line: list[str]) -> None:
    builds = {"fetch": svid.build_fetch, "watch": svid.build_watch, "show": svid.build_show}
    with pytest.raises(
        ConfigError, match="no Workload API to ask: give --use-workload-api-addr ADDR, or set SPIFFE_ENDPOINT_SOCKET"
    ):
        builds[line[0]](parse(*line, environ={}))


def test_a_folder_is_wanted() -> None:
    with pytest.raises(ConfigError, match="'' is no folder"):
        parse("fetch", "--out", "")
    with pytest.raises(ConfigError, match="--out"):
        parse("fetch")


def test_show_has_one_form() -> None:
    with pytest.raises(ConfigError, match="--json and --pem are mutually exclusive"):
        svid.build_show(parse("show", "--json", "--pem"))
