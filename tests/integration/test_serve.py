"""`tunnel serve`: many listeners in one process, and reloads of its configuration file."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.config_files import ServedFile
from tests.support.plain_backends import Backend, echo
from tests.support.processes import Process, bare_environment, eventually, tunnel_argv
from tests.support.run_line import has_echo
from tests.support.tls_peer import TlsPeer
from tests.support.unix_status_port import metric, status
from tests.support.workloads import CLIENT, SERVER, STRANGER, Workloads

TO_STRANGER = f'[{{ allow = "{STRANGER}" }}]'
CHANGED = "configuration changed: added={} changed={} removed={} unchanged={} "


@pytest.fixture
def served(workloads: Workloads) -> ServedFile:
    """Three servers with one echoing backend."""
    target = workloads.enter(Backend(echo)).target
    made = ServedFile(workloads)
    for name in "one", "two", "three":
        made.add(name, target)
    return made


def test_all_listeners_share_one_stream_of_the_workload_api(served: ServedFile) -> None:
    served.start()
    assert all(served.is_admitted(name) for name in served.servers)
    assert served.workloads.api.stream_count(served.workloads.sockets[SERVER]) == 1
    code, document = status(served.status)
    assert (code, document["ok"]) == (200, True)


def test_a_reload_changes_one_listener_and_leaves_the_others_alone(served: ServedFile) -> None:
    process = served.start()
    with served.connect("two") as neighbour:
        assert has_echo(neighbour)
        served.servers["one"] = served.servers["one"].replace(CLIENT, STRANGER)
        assert served.reload() == (200, "reloaded\n")
        process.wait_for(CHANGED.format(0, 1, 0, 2))
        assert has_echo(neighbour)
    assert not served.is_admitted("one")
    assert served.is_admitted("one", STRANGER)
    assert served.is_admitted("three")


def test_listeners_are_added_and_removed(served: ServedFile) -> None:
    process = served.start()
    with served.connect("one") as before:
        assert has_echo(before)
        served.servers["four"] = served.servers.pop("one")
        served.write()
        process.signal(signal.SIGHUP)
        process.wait_for(CHANGED.format(1, 0, 1, 2))
        assert has_echo(before), "a removed listener's connections continue"
    assert served.is_admitted("four")
    assert not served.front("one").exists()


def test_connections_of_a_removed_listener_are_closed_if_the_setting_says_so(served: ServedFile) -> None:
    served.head = f'on-removal = "close"\n{served.head}'
    served.start()
    with served.connect("one") as removed, served.connect("two") as kept:
        assert has_echo(removed)
        assert has_echo(kept)
        del served.servers["one"]
        assert served.reload()[0] == 200
        assert removed.receive_all() == b""
        assert has_echo(kept)


def test_a_listener_that_is_renamed_keeps_its_socket(served: ServedFile) -> None:
    served.start()
    inode = served.front("one").stat().st_ino
    served.head += f'\n[[server]]\nname = "other"\nlisten = "unix:{served.front("one")}"\n{served.servers.pop("one")}\n'
    assert served.reload()[0] == 200
    assert served.front("one").stat().st_ino == inode
    assert served.is_admitted("one")


def test_after_a_mistake_nothing_changes_and_everybody_is_told(served: ServedFile) -> None:
    process = served.start()
    served.servers["one"] += '\nacces = "x"'
    served.add("four", "localhost:1")
    code, text = served.reload()
    assert code == 500
    assert f"{served.path}:" in text
    assert "did you mean access?" in text
    process.wait_for("error reloading the configuration file: .*; keeping the previous configuration")
    assert process.matches("reload was requested via status endpoint")
    assert not process.matches("reloading configuration complete")
    assert not served.front("four").exists()
    assert all(served.is_admitted(name) for name in ("one", "two", "three"))
    assert status(served.status)[1]["config_reload"].startswith("failed: ")
    assert metric(served.status, 'ghostunnel_reload_failures_total{what="config"}') == 1
    served.servers["one"] = served.servers["two"]
    served.servers["four"] = served.servers["two"]
    assert served.reload()[0] == 200
    assert status(served.status)[1]["config_reload"] == "ok"
    assert served.is_admitted("four")


def test_warnings_about_the_file_are_logged_with_their_place(served: ServedFile) -> None:
    served.servers["one"] = served.servers["one"].replace("{ allow", "{ deny")
    process = served.start()
    process.wait_for(r"warning: .*tunnel.toml:\d+: server\[0\].access: no rule admits a peer: every peer is refused")
    served.servers["three"] = served.servers["three"].replace(f'"{CLIENT}"', '{ cn = "x" }')
    assert served.reload()[0] == 200
    process.wait_for(r"warning: .*tunnel.toml:\d+: server\[2\].access\[0\]: names no trust domain")
    assert len(process.matches("no rule admits a peer")) == 1, "a reload does not repeat them"


def test_an_address_in_use_changes_nothing(served: ServedFile) -> None:
    served.start()
    taken = served.place / "taken"
    served.workloads.enter(Backend(echo, path=taken))
    served.servers["one"] = served.servers["one"].replace(CLIENT, STRANGER)
    served.head += f'\n[[server]]\nname = "five"\nlisten = "unix:{taken}"\n{served.servers["two"]}\n'
    code, text = served.reload()
    assert code == 500
    assert "address already in use" in text
    assert served.is_admitted("one"), "the rule of another listener is not changed either"


def test_a_file_that_changes_is_reloaded_with_watch(served: ServedFile) -> None:
    process = served.start("--watch")
    served.servers["four"] = served.servers["one"]
    served.write()
    process.wait_for(CHANGED.format(1, 0, 0, 3))
    assert process.matches("watched files have changed, reloading")
    assert served.is_admitted("four")


def test_another_identity_can_be_added(served: ServedFile) -> None:
    """One of files, in a directory that nothing has named before: the process is still confined."""
    process = served.start()
    identity = served.workloads.identity(STRANGER)
    folder = served.place / "new"
    folder.mkdir()
    for name, path in (("cert.pem", identity.chain), ("key.pem", identity.key), ("ca.pem", identity.chain)):
        (folder / name).write_bytes(path.read_bytes())
    files = "\n".join(f'{key} = "{folder}/{name}.pem"' for key, name in (("cert", "cert"), ("key", "key"), ("ca", "ca")))
    served.head += f"\n[identity.files]\n{files}\n"
    for name in served.servers:
        served.servers[name] += '\nidentity = "default"'
    served.add("four", "localhost:1", 'identity = "files"', access='[{ allow = { cn = "nobody" } }]')
    assert served.reload() == (200, "reloaded\n")
    assert served.front("four").exists()
    assert served.is_admitted("one")
    process.wait_for("identity updated: .* identity=default")
    process.wait_for("loaded certificate: .* identity=files")


def test_a_start_with_mistakes_names_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[identity.a]\nworkload-api = 7\n\n[[server]]\nlisten = ":x:"\n')
    process = Process(tunnel_argv("serve", f"--config={file}"), environ=bare_environment(), is_merged=True)
    try:
        assert process.exit_code() == 1
        assert [line for line in process.lines if f"{file}:2" in line]
        assert [line for line in process.lines if f"{file}:5" in line]
    finally:
        process.close()


def test_a_target_whose_name_is_unknown_keeps_no_other_listener_from_starting(served: ServedFile) -> None:
    served.add("lost", "name.invalid:1", "unsafe-target = true")
    process = served.start()
    assert process.matches("warning: target cannot be resolved: name.invalid:1: .* listener=lost")
    assert served.is_admitted("one")


def test_the_drain_waits_for_connections_of_all_listeners(served: ServedFile) -> None:
    process = served.start()
    peers: list[TlsPeer] = []
    with served.connect("one") as first, served.connect("three") as last:
        peers = [first, last]
        assert all(map(has_echo, peers))
        process.signal(signal.SIGTERM)
        process.wait_for("waiting for drain of 2 connections")
        assert all(map(has_echo, peers))
    eventually(lambda: not process.is_running, "it has drained")
    assert process.exit_code() == 0
    assert process.matches("stopped listener=one accepted=1 relayed=1")
    assert process.matches("stopped accepted=2 relayed=2")


def test_a_command_runs_beside_the_listeners_of_a_file(served: ServedFile) -> None:
    served.write()
    argv = tunnel_argv("run", f"--config={served.path}", "--watch", "--", "sleep", "1000")
    process = served.workloads.watch(Process(argv, environ=bare_environment(), is_merged=True))
    process.wait_for("listening for connections on", count=3)
    assert served.is_admitted("one")
    served.servers["four"] = served.servers["one"]
    assert served.reload() == (200, "reloaded\n")
    assert served.is_admitted("four")
    process.signal(signal.SIGTERM)
    assert process.exit_code() == 143


def test_files_can_stand_without_a_flag(served: ServedFile) -> None:
    served.write()
    process = served.workloads.watch(
        Process(tunnel_argv("serve", str(served.path)), environ=bare_environment(), is_merged=True)
    )
    process.wait_for("listening for connections on", count=3)
    process.signal(signal.SIGHUP)
    process.wait_for("received hangup, reloading configuration$")
    process.wait_for(CHANGED.format(0, 0, 0, 3))
