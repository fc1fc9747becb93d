"""The health endpoint depends on the files, not on the agent."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cert_factory import END, NOW
from tests.support.workload_updates import credentials
from tunnel.config.svid_model import Output
from tunnel.http.connection import Request
from tunnel.svid.update_files import build_update_files
from tunnel.svid.watch_state import WatchState, build_health_responder

BEGIN, EXPIRY = NOW.timestamp(), END.timestamp()


@pytest.fixture
def written() -> WatchState:
    state = WatchState()
    state.record_written(build_update_files(credentials(hint="web"), Output("/tls"), NOW), BEGIN)
    return state


def ask(state: WatchState, path: str, now: float = BEGIN, fault: str = "") -> tuple[int, Any]:
    async def find_file_error() -> str:
        return fault

    answer = trio.run(build_health_responder(state, find_file_error, lambda: now), Request("GET", path))
    return answer.status, answer.body.decode()


def test_before_the_first_identity_it_is_live_and_not_ready() -> None:
    assert ask(WatchState(), "/live")[0] == 200
    status, body = ask(WatchState(), "/ready")
    assert status == 503
    assert json.loads(body)["expiry"] is None


@pytest.mark.parametrize("path", ["/live", "/ready"])
@pytest.mark.parametrize(("late", "status"), [(-3600.0, 200), (-0.5, 200), (0.0, 503), (3600.0, 503)])
def test_it_is_healthy_until_the_written_identity_expires(written: WatchState, path: str, late: float, status: int) -> None:
    written.trouble = "Workload API is not available"
    written.write_error = "no space left on device"
    assert ask(written, path, EXPIRY + late)[0] == status


def test_while_the_files_are_gone_it_is_not_ready_and_a_restart_would_not_help(written: WatchState) -> None:
    status, body = ask(written, "/ready", fault="/tls is missing")
    assert (status, json.loads(body)["ready"], json.loads(body)["file_error"]) == (503, False, "/tls is missing")
    assert ask(written, "/live", fault="/tls is missing")[0] == 200
    assert ask(written, "/live", EXPIRY, "/tls is missing")[0] == 503
    assert "tunnel_svid_files_present 0\n" in ask(written, "/metrics", fault="/tls is missing")[1]


def test_what_had_to_be_written_again_is_no_rotation(written: WatchState) -> None:
    assert written.written is not None
    written.record_written(written.written, BEGIN + 60, is_rotation=False)
    assert (written.rotations, written.written_at) == (1, BEGIN)


def test_the_body_says_why(written: WatchState) -> None:
    written.trouble = "Workload API is not available"
    written.reloads, written.reload_failures, written.reload_error = 2, 1, "not there"
    written.has_child, written.child_pid, written.child_starts = True, 42, 1
    body = json.loads(ask(written, "/ready")[1])
    assert body.pop("serial")
    assert body == {
        "live": True,
        "ready": True,
        "spiffe_id": "spiffe://a.test/w",
        "hint": "web",
        "expiry": "2026-11-22T13:00:00Z",
        "last_rotation": "2026-11-22T12:00:00Z",
        "rotations": 1,
        "trouble": "Workload API is not available",
        "write_error": "",
        "file_error": "",
        "reload": {"done": 2, "failed": 1, "error": "not there"},
        "child": {"state": "running", "pid": 42, "starts": 1, "exit_code": None},
    }


def test_the_numbers_are_there_for_prometheus(written: WatchState) -> None:
    written.has_child, written.child_starts = True, 3
    status, body = ask(written, "/metrics")
    assert status == 200
    values = {sample.name: sample.value for family in text_string_to_metric_families(body) for sample in family.samples}
    assert values == {
        "tunnel_svid_workload_api_ok": 1,
        "tunnel_svid_identities_skipped_total": 0,
        "tunnel_svid_rotations_total": 1,
        "tunnel_svid_reloads_total": 0,
        "tunnel_svid_reload_failures_total": 0,
        "tunnel_svid_files_present": 1,
        "tunnel_svid_last_rotation_timestamp_seconds": BEGIN,
        "tunnel_svid_expiry_timestamp_seconds": EXPIRY,
        "tunnel_svid_child_running": 0,
        "tunnel_svid_child_starts_total": 3,
    }


def test_trouble_with_the_workload_api_is_a_number_too(written: WatchState) -> None:
    written.trouble, written.skipped = "rotation is overdue", 2
    body = ask(written, "/metrics")[1]
    assert "tunnel_svid_workload_api_ok 0\n" in body
    assert "tunnel_svid_identities_skipped_total 2\n" in body


def test_nothing_else_is_there(written: WatchState) -> None:
    assert ask(written, "/")[0] == 404
