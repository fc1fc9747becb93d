"""What real SPIFFE deployments have: ordinary authorities, several SVIDs of which some are bad, clocks and agents that fail."""

from __future__ import annotations

import signal
import subprocess
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.cert_factory import authority, leaf
from tests.support.command_runner import environment, run_tool
from tests.support.dev_workload_api import read_sockets, tunnel_dev
from tests.support.plain_backends import Backend, connect, echo
from tests.support.processes import Process, bare_environment, eventually, tunnel_argv
from tests.support.unix_status_port import metric
from tests.support.unix_status_port import status as read_status
from tests.support.workloads import CLIENT, SERVER, Workloads
from tunnel.devapi.api import SVIDS
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, encode_x509_svid_response

NOW = datetime.now(UTC)
DATES = {"start": NOW - timedelta(hours=1), "end": NOW + timedelta(hours=3)}
CORPORATE = authority(subject="corporate root", uris=("https://pki.example.com/root",), usage=None, **DATES)
RENEWED = authority(subject="corporate root", uris=(), usage=None, is_ca=None, has_key_ids=False, key=CORPORATE.key, **DATES)
ISSUING = authority(issuer=CORPORATE, subject="issuing", uris=(), is_usage_critical=False, **DATES)


def entry(spiffe_id: str, *, hint: str = "", **fields: object) -> SvidEntry:
    worker = leaf(spiffe_id, issuer=ISSUING, **{**DATES, **fields})
    return SvidEntry(spiffe_id, worker.der + ISSUING.der, worker.key_der, RENEWED.der + CORPORATE.der, hint)


def publish(workloads: Workloads, who: str, *svids: SvidEntry) -> None:
    workloads.api.publish(workloads.sockets[who], SVIDS, encode_x509_svid_response(X509SvidResponse(svids)))


def test_workloads_under_a_corporate_root_talk_to_each_other(workloads: Workloads) -> None:
    """The root has no key usage and a URI of its own, and is in the bundle twice; the intermediate's usage is not critical."""
    for who in (SERVER, CLIENT):
        publish(workloads, who, entry(who))
    server = workloads.server(workloads.enter(Backend(echo)).target)
    client = workloads.client(server.target)
    with connect(client.address) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    shown = run_tool(environment(workloads), "svid", "show")
    assert (shown.code, "corporate root" in shown.out) == (0, True)


@pytest.mark.parametrize(
    "flags", [(), ("--spiffe-id", SERVER), ("--spiffe-hint", "mine")], ids=["no choice", "by ID", "by a hint that both have"]
)
def test_an_expired_svid_beside_ours_changes_nothing(workloads: Workloads, flags: tuple[str, ...]) -> None:
    expired = entry("spiffe://a.test/old", hint="mine", end=NOW - timedelta(seconds=1))
    publish(workloads, SERVER, expired, entry(SERVER, hint="mine"))
    status = workloads.directory / "status"
    proxy = workloads.server(workloads.enter(Backend(echo)).target, *flags, "--status", f"unix:{status}")
    proxy.wait_for(f"identity updated: spiffe_id={SERVER} generation=1")
    for generation in (2, 3):
        publish(workloads, SERVER, expired, entry(SERVER, hint="mine"))
        proxy.wait_for(f"identity updated: spiffe_id={SERVER} generation={generation}")
    is_tried = "--spiffe-id" not in flags
    assert len(proxy.matches("SVID skipped: .*spiffe://a.test/old.*expired")) == is_tried
    assert metric(status, "ghostunnel_workload_api_skipped_total") == is_tried
    assert status_of(status)["workload_api"] == "ok"


def dev(place: Path, **fields: str) -> AbstractContextManager[subprocess.Popen[str]]:
    flags = [f"--{name}={value}" for name, value in {"ttl": "12s", "rotate": "0", **fields}.items()]
    return tunnel_dev("--socket", f"unix://{place}", "--id", SERVER, *flags)


def test_an_agent_that_hangs_with_its_stream_open_is_left_for_the_new_one(tmp_path: Path) -> None:
    """The agent is stopped, and a new one with another authority owns its path. A proxy and `svid watch` use the new one."""
    place = tmp_path / "agent.sock"
    with ExitStack() as things:
        old = things.enter_context(dev(place))
        read_sockets(old)
        status = tmp_path / "status"
        flags = ["--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--allow-all", "--status", f"unix:{status}"]
        proxy = Process(tunnel_argv("server", "--use-workload-api-addr", f"unix://{place}", *flags), environ=bare_environment())
        things.callback(proxy.close)
        watch = Process(
            tunnel_argv("svid", "watch", "--use-workload-api-addr", f"unix://{place}", "--out", str(tmp_path / "kept")),
            environ=bare_environment(),
        )
        things.callback(watch.close)
        proxy.wait_for(f"identity updated: spiffe_id={SERVER} generation=1")
        wait_for_complaint(watch, "valid until")
        old.send_signal(signal.SIGSTOP)
        place.unlink()
        new = things.enter_context(dev(place, ttl="1h", rotate="30m"))
        read_sockets(new)
        proxy.wait_for(f"SVID rotation overdue: spiffe_id={SERVER} .*opening a new stream")
        proxy.wait_for(f"identity updated: spiffe_id={SERVER} generation=2")
        proxy.wait_for("Workload API connection recovered")
        wait_for_complaint(watch, "rotation overdue")
        eventually(lambda: sum("valid until" in line for line in watch.complaints) == 2, "the new identity was written")
        assert metric(status, "ghostunnel_workload_api_ok") == 1
        assert metric(status, "ghostunnel_identity_usable") == 1


def test_a_rotation_that_does_not_come_is_told_while_the_agent_answers(tmp_path: Path) -> None:
    place = tmp_path / "agent.sock"
    with dev(place) as agent:
        read_sockets(agent)
        status = tmp_path / "status"
        flags = ["--listen", "127.0.0.1:0", "--target", "127.0.0.1:1", "--allow-all", "--status", f"unix:{status}"]
        proxy = Process(tunnel_argv("server", "--use-workload-api-addr", f"unix://{place}", *flags), environ=bare_environment())
        try:
            proxy.wait_for(f"SVID rotation overdue: spiffe_id={SERVER} ")
            assert status_of(status)["workload_api"] != "ok"  # overdue, and later expired
            assert metric(status, "ghostunnel_workload_api_ok") == 0
        finally:
            proxy.close()


def status_of(place: Path) -> dict[str, Any]:
    return read_status(place)[1]


def wait_for_complaint(process: Process, words: str) -> None:
    eventually(lambda: any(words in line for line in process.complaints), f"{words!r} on standard error")
