"""The allowed files and ports, from flags and environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.net.address import LaunchdAddress, SystemdAddress, TcpAddress, UnixAddress
from tunnel.sandbox.rules import READABLE, SHARED, WRITABLE, Needs, Ruleset, build_ruleset, interpreter_paths

SERVICES = {"postgresql": 5432, "https": 443}


def ruleset(needs: Needs, **environ: str) -> Ruleset:
    """The rules on a system without symbolic links and with few known services."""

    def find_service(name: str, protocol: str) -> int:
        assert protocol == "tcp"
        if name not in SERVICES:
            raise OSError("service/proto not found")
        return SERVICES[name]

    return build_ruleset(needs, environ, ["/py/lib"], follow=str, find_service=find_service, reads_shadow=True)


BARE = ruleset(Needs())


def test_without_flags_only_the_system_and_the_interpreter_are_left() -> None:
    assert set(BARE.writable) == set(WRITABLE)
    assert {*READABLE, "/py/lib", "/etc/resolv.conf", "/etc/hosts"} <= set(BARE.readable)
    assert (BARE.socket_directories, BARE.bind_ports, BARE.connect_ports) == ((), (), (53,))
    assert not SHARED & {*BARE.readable, *BARE.writable}
    assert not {"/root", "/proc/sys", "/etc/ssl", "/etc/pki", "/var/run"} & {*BARE.readable, *BARE.writable}
    assert (BARE.may_signal_others, BARE.may_dial_abstract) == (False, False)


def test_without_access_to_shadow_all_of_etc_is_readable() -> None:
    rules = build_ruleset(Needs(), {}, [], reads_shadow=False)
    assert "/etc" in rules.readable
    assert "/etc" not in rules.writable


@pytest.mark.parametrize("directory", sorted(SHARED))
def test_in_a_shared_directory_only_the_named_file_is_allowed(directory: str) -> None:
    path = os.path.join(directory, "tls.crt")
    assert set(ruleset(Needs(files=(path,))).readable) - set(BARE.readable) == {path}


def test_only_a_command_is_signalled_and_only_with_processes_of_ours_all_of_proc_is_read() -> None:
    assert ruleset(Needs(has_command=True)).may_signal_others
    for needs in (Needs(has_command=True), Needs(has_policy=True)):
        assert "/proc" in ruleset(needs).readable
        assert "/proc" not in ruleset(needs).writable
    assert not ruleset(Needs(has_policy=True)).may_signal_others


def test_abstract_sockets_are_dialled_where_one_is_named() -> None:
    assert ruleset(Needs(dials=(UnixAddress("@agent"),))).may_dial_abstract
    assert ruleset(Needs(), NOTIFY_SOCKET="@manager").may_dial_abstract
    assert not ruleset(Needs(dials=(UnixAddress("/run/a"),)), NOTIFY_SOCKET="/run/systemd/notify").may_dial_abstract


def test_a_directory_of_ours_is_removed_from_its_parent_where_nothing_else_may_be_done() -> None:
    rules = ruleset(Needs(private=("/run/user/7/tunnel-x",)))
    assert set(rules.writable) - set(BARE.writable) == {"/run/user/7/tunnel-x"}
    assert rules.socket_directories == ("/run/user/7",)


@pytest.mark.parametrize(
    ("needs", "readable"),
    [
        (Needs(files=("/certs/tls.crt", "/keys/tls.key")), {"/certs", "/keys"}),
        (Needs(files=("/home/u/policy/x.rego",)), {"/home/u/policy"}),
        (Needs(files=("/home/u/bundle/",)), {"/home/u"}),
        (Needs(files=("",)), set()),
    ],
)
def test_the_directory_of_each_file_may_be_read(needs: Needs, readable: set[str]) -> None:
    assert set(ruleset(needs).readable) - set(BARE.readable) == readable
    assert ruleset(needs).writable == BARE.writable


def test_a_relative_file_is_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rules = ruleset(Needs(files=("tls.crt",), listens=(UnixAddress("in.sock"),)))
    assert str(tmp_path) in rules.readable
    assert str(tmp_path) in rules.socket_directories
    assert str(tmp_path) not in rules.writable


def test_the_directory_that_a_link_leads_to_may_be_read_too(tmp_path: Path) -> None:
    """As in a mounted secret: tls.crt -> ..data/tls.crt, and ..data -> ..2026."""
    (tmp_path / "live").mkdir()
    (tmp_path / "archive/1").mkdir(parents=True)
    (tmp_path / "archive/1/tls.crt").touch()
    (tmp_path / "live/data").symlink_to("../archive/1")
    (tmp_path / "live/tls.crt").symlink_to("data/tls.crt")
    rules = build_ruleset(Needs(files=(str(tmp_path / "live/tls.crt"),)), {}, [])
    assert {str(tmp_path / "live"), os.path.realpath(tmp_path / "archive/1")} <= set(rules.readable)


@pytest.mark.parametrize(
    ("needs", "places"),
    [
        (Needs(listens=(UnixAddress("/srv/in.sock"), UnixAddress("/run/s"))), {"/srv", "/run"}),
        (Needs(listens=(UnixAddress("@abstract"), SystemdAddress("a"), LaunchdAddress("a"))), set()),
        (Needs(dials=(UnixAddress("/srv/out.sock"),)), set()),  # connecting is no access to a file
    ],
)
def test_in_a_socket_directory_only_sockets_can_be_created(needs: Needs, places: set[str]) -> None:
    assert set(ruleset(needs).socket_directories) == places
    assert (ruleset(needs).readable, ruleset(needs).writable) == (BARE.readable, BARE.writable)


def test_output_directories_are_writable() -> None:
    assert set(ruleset(Needs(directories=("/var/lib/acme",))).writable) - set(BARE.writable) == {"/var/lib/acme"}


def tcp(port: str) -> TcpAddress:
    return TcpAddress("host.test", port)


@pytest.mark.parametrize(
    ("needs", "bind", "connect"),
    [
        (Needs(listens=(tcp("8443"), tcp("6060"))), {6060, 8443}, set()),
        (Needs(listens=(tcp("0"),)), {0}, set()),
        (Needs(listens=(tcp("https"),), dials=(tcp("postgresql"),)), {443}, {5432}),
        (Needs(listens=(tcp("nosuch"),), dials=(tcp("nosuch"), tcp("\udcff"))), set(), set()),
        (Needs(dials=(tcp("80"), UnixAddress("/x"))), set(), {80}),
        (Needs(urls=("http://m.test/in",)), set(), {80}),
        (Needs(urls=("https://m.test/in", "https://m.test:9/")), set(), {443, 9}),
        (Needs(urls=("https://[::1]:8/",)), set(), {8}),
        (Needs(urls=("http://h:99999/", "http://[::1/", "", "x")), set(), {80}),
    ],
)
def test_ports_are_those_that_the_flags_name(needs: Needs, bind: set[int], connect: set[int]) -> None:
    rules = ruleset(needs)
    assert set(rules.bind_ports) == bind
    assert set(rules.connect_ports) == connect | {53}


def test_the_environment_names_certificates_and_proxies() -> None:
    rules = ruleset(
        Needs(),
        SSL_CERT_FILE="/ca/all.pem",
        SSL_CERT_DIR="/ca/one:/ca/two:",
        HTTP_PROXY="http://proxy.test",
        HTTPS_PROXY="proxy.test:3128",
        https_proxy="https://proxy.test",
        LD_LIBRARY_PATH="/opt/lib",
        OTHER="/secret",
    )
    assert set(rules.readable) - set(BARE.readable) == {"/ca", "/ca/one", "/ca/two", "/opt/lib"}
    assert set(rules.connect_ports) == {53, 80, 443, 3128}


def test_rules_are_sorted_and_named_once() -> None:
    rules = ruleset(Needs(files=("/b/x", "/a/x", "/b/y"), listens=(tcp("2"), tcp("1"), tcp("2"))))
    assert list(rules.readable) == sorted(set(rules.readable))
    assert rules.bind_ports == (1, 2)


@pytest.mark.parametrize(
    ("search", "kept"),
    [
        (["/venv/lib/python3/site-packages", "/opt/modules"], ["/venv/lib/python3/site-packages", "/opt/modules"]),
        (["", "hook.of.an.editable.install"], []),
        (["/srv/here", "/srv", "/"], []),
        (["/home/u", "/home"], []),
        (
            ["/home/u/.local/lib/python3", "/srv/here/lib", "/srv/here2"],
            ["/home/u/.local/lib/python3", "/srv/here/lib", "/srv/here2"],
        ),
    ],
)
def test_home_and_current_directory_are_not_module_directories(search: list[str], kept: list[str]) -> None:
    assert interpreter_paths([], search, [], "/home/u", "/srv/here") == kept
    assert interpreter_paths([], search, ["/srv/here"], "/home/u", "/srv/here") == [*kept, "/srv/here"], "unless named"


def test_of_a_prefix_only_what_python_has_there_is_readable() -> None:
    assert interpreter_paths(["/usr"], [], [], "", "") == ["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/pyvenv.cfg"]


def test_a_configuration_that_a_reload_can_change_names_no_last_file_or_port() -> None:
    rules = ruleset(Needs(is_reconfigurable=True))
    assert rules.is_open
    assert rules.may_dial_abstract
    assert "/proc" in rules.readable, "for the evaluators of a policy"
    assert "/dev/shm" in rules.writable
