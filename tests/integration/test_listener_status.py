"""Status and metrics of a process with several listeners, from real processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.config_files import ServedFile
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import LIMIT, Process, bare_environment, eventually, tunnel_argv
from tests.support.run_line import client, has_echo, server
from tests.support.unix_status_port import metric, status
from tests.support.workloads import SERVER, Workloads


@pytest.fixture
def served(workloads: Workloads) -> ServedFile:
    """One server whose backend echoes, and one without a backend."""
    made = ServedFile(workloads)
    made.add("one", workloads.enter(Backend(echo)).target)
    made.add("two", f"unix:{made.place}/absent")
    return made


def health(place: Path, path: str) -> tuple[int, str]:
    """The exit code of `tunnel health`, and what it prints."""
    argv = tunnel_argv("health", f"unix:{place}", "--path", path)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_document_says_which_listener_is_not_ready(served: ServedFile) -> None:
    served.start()
    with served.connect("one") as peer:
        assert has_echo(peer)
        code, document = status(served.status)
    assert (code, document["ok"], document["backend_error"].partition(": ")[0]) == (503, False, "two")
    one, two = document["listeners"]
    assert (one["name"], one["ready"], one["connections"], one["spiffe_id"]) == ("one", True, 1, SERVER)
    assert (two["name"], two["ready"], two["connections"]) == ("two", False, 0)
    assert "absent" in two["target_error"]
    assert [target["target"] for target in two["targets"]] == [f"unix:{served.place}/absent"]


def test_a_probe_may_be_about_one_listener(served: ServedFile) -> None:
    served.start()
    code, document = status(served.status, "?listener=one")
    assert (code, document["ok"], len(document["listeners"])) == (200, True, 1)
    assert status(served.status, "?listener=two")[0] == 503
    assert health(served.status, "/_status?listener=one")[0] == 0
    for name, problem in (("two", "backend: "), ("three", "404 Not Found")):
        code, text = health(served.status, f"/_status?listener={name}")
        assert (code, problem in text) == (1, True), text


def test_a_listener_appears_and_disappears_with_a_reload(served: ServedFile) -> None:
    served.start()
    served.servers["three"] = served.servers.pop("two")
    assert served.reload()[0] == 200
    assert [one["name"] for one in status(served.status)[1]["listeners"]] == ["one", "three"]
    del served.servers["three"]
    assert served.reload()[0] == 200
    code, document = status(served.status)
    assert (code, [one["name"] for one in document["listeners"]]) == (200, ["one"]), "the only one is described too"


def test_each_listener_has_its_own_counters(served: ServedFile) -> None:
    served.start()
    with served.connect("one") as peer:
        assert has_echo(peer)
        assert metric(served.status, 'ghostunnel_listener_connections{listener="one"}') == 1
    assert not served.is_admitted("two")
    failed = 'ghostunnel_listener_failed_total{listener="two"}'
    eventually(lambda: metric(served.status, failed) == 1, "the failure is counted")
    assert metric(served.status, 'ghostunnel_listener_relayed_total{listener="one"}') == 1
    assert metric(served.status, 'ghostunnel_listener_relayed_total{listener="two"}') == 0
    assert metric(served.status, "ghostunnel_accept_success") == 1
    target = f'listener="two",target="unix:{served.place}/absent"'
    assert metric(served.status, f"ghostunnel_listener_target_failures_total{{{target}}}") == 1


def test_plain_clients_are_shown(served: ServedFile) -> None:
    served.servers["one"] += '\nplaintext = "permit"'
    served.start()
    with connect(str(served.front("one"))) as sock:
        sock.sendall(b"plain")
        assert sock.recv(5) == b"plain"
        plaintext = status(served.status, "?listener=one")[1]["listeners"][0]["plaintext"]
        assert (plaintext["connections"], plaintext["total"], len(plaintext["sources"])) == (1, 1, 1)
        assert metric(served.status, 'ghostunnel_listener_plaintext_connections{listener="one"}') == 1


def test_the_status_port_of_a_line_is_about_its_own_listener(workloads: Workloads) -> None:
    place, backend = workloads.directory, workloads.enter(Backend(echo))
    ports = {mode: place / f"status-{mode}" for mode in ("server", "client")}
    parts = (
        *server(workloads, backend.target, f"--status=unix:{ports['server']}", listen=f"unix:{place}/front"),
        "+",
        *client(workloads, f"unix:{place}/front", f"--status=unix:{ports['client']}", listen=f"unix:{place}/back"),
    )
    argv = tunnel_argv("run", *parts, "--", "cat")
    process = workloads.watch(Process(argv, environ=bare_environment(), is_merged=True))
    process.wait_for("listening for connections on", count=2)
    for mode, address in (("server", "front"), ("client", "back")):
        code, document = status(ports[mode])
        assert (code, document["listen_address"]) == (200, f"unix:{place}/{address}")
        assert "listeners" not in document
        assert metric(ports[mode], f'ghostunnel_listener_accepted_total{{listener="{mode}"}}') == 0
    code, text = health(ports["server"], "/_status?listener=client")
    assert (code, "404 Not Found" in text) == (1, True), text
