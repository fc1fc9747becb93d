"""The status document has ghostunnel's keys in their order, Go's times, and the outcome of the last reload."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tunnel.status.process_state import Identity, ListenerState, Phase, ProcessState, Reload
from tunnel.status.status_document import Service, encode_document, is_ok
from tunnel.time_format import format_local_time

SERVICE = Service("host", "1.0", "Python 3.11.7")
LISTENER = ListenerState("server", "localhost:8443", "unix:/run/app")
KEYS = (
    "ok status listen_address forward_address backend_ok backend_status time last_reload hostname message revision compiler"
).split()
SECOND = 1_000_000_000
NOON = 1_795_348_800 * SECOND  # 2026-11-22T12:00:00Z
UP = ProcessState(listeners=(LISTENER,)).listening()


def with_fields(**fields: Any) -> ProcessState:
    """A process whose only listener has these fields."""
    return UP.with_listener(replace(LISTENER, **fields))


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_document_is_compact_and_has_the_keys_in_their_order() -> None:
    assert encode_document(SERVICE, UP, "", NOON) == (
        b'{"ok":true,"status":"ok","listen_address":"localhost:8443","forward_address":"unix:/run/app","backend_ok":true,'
        b'"backend_status":"ok","time":"2026-11-22T12:00:00Z","last_reload":"0001-01-01T00:00:00Z","hostname":"host",'
        b'"message":"listening","revision":"1.0","compiler":"Python 3.11.7"}'
    )


def test_a_backend_error_has_its_place_among_the_keys() -> None:
    document = json.loads(encode_document(SERVICE, UP, "no answer", NOON))
    assert list(document) == [*KEYS[:6], "backend_error", *KEYS[6:]]
    assert (document["ok"], document["status"], document["backend_ok"]) == (False, "critical", False)
    assert (document["backend_status"], document["backend_error"]) == ("critical", "no answer")


def test_the_state_of_the_workload_api_is_included_if_it_is_used() -> None:
    assert "workload_api" not in json.loads(encode_document(SERVICE, UP, "", NOON))
    for error, told in (("", "ok"), ("rotation is overdue", "rotation is overdue")):
        document = json.loads(encode_document(SERVICE, with_fields(source_error=error), "", NOON))
        assert (document["workload_api"], document["ok"]) == (told, True)


def test_an_empty_hostname_is_left_out() -> None:
    assert b"hostname" not in encode_document(Service("", "1", "2"), UP, "", NOON)


def test_keys_of_our_own_come_last() -> None:
    standing = with_fields(identity=Identity("spiffe://a.test/w", NOON // SECOND, 7)).reloaded(
        Reload(NOON, "", "line 3: no rule")
    )
    document = json.loads(encode_document(SERVICE, standing, "", NOON))
    assert list(document)[: len(KEYS)] == KEYS
    assert {key: document[key] for key in list(document)[len(KEYS) :]} == {
        "certificate_reload": "ok",
        "policy_reload": "failed: line 3: no rule",
        "spiffe_id": "spiffe://a.test/w",
        "not_after": "2026-11-22T12:00:00Z",
        "generation": 7,
    }


def test_an_unusable_identity_is_critical_with_the_cause_in_the_last_key() -> None:
    standing = with_fields(
        identity=Identity("spiffe://a.test/w", 0, 1), identity_error="identity spiffe://a.test/w has been withdrawn"
    )
    document = json.loads(encode_document(SERVICE, standing, "", NOON))
    assert (document["ok"], document["status"], document["backend_ok"]) == (False, "critical", True)
    assert list(document.items())[-1] == ("identity_error", "identity spiffe://a.test/w has been withdrawn")
    assert not is_ok(standing, "")
    assert is_ok(UP, "")
    assert b"identity_error" not in encode_document(SERVICE, UP, "", NOON)


def test_keys_without_a_value_are_left_out() -> None:
    standing = with_fields(identity=Identity("", 0, 1)).reloaded(Reload(NOON, "bad key"))
    document = json.loads(encode_document(SERVICE, standing, "", NOON))
    assert document["certificate_reload"] == "failed: bad key"
    assert "policy_reload" not in document
    assert "spiffe_id" not in document


def test_no_key_of_our_own_contains_an_older_one() -> None:
    standing = with_fields(identity=Identity("spiffe://a.test/w", 0, 1), identity_error="x").reloaded(Reload(NOON, "", ""))
    document = json.loads(encode_document(SERVICE, standing, "x", NOON))
    older = {*KEYS, "backend_error"}
    ours = document.keys() - older
    assert len(ours) == 6
    assert [key for key in ours for old in older if old in key] == []


@pytest.mark.parametrize("text", ["\udc80", "a\ud83d", "\x1b[31m", '"}', "\u2028", "é😀"])
def test_any_text_is_json_that_strict_readers_take(text: str) -> None:
    body = encode_document(Service(text, "1", "2"), with_fields(listen_address=text, forward_address=text), text, NOON)
    document = json.loads(body.decode("ascii"))
    for key in ("listen_address", "forward_address", "hostname", "backend_error"):
        document[key].encode()  # no half of a surrogate pair
    assert body.isascii()
    assert b"\x1b" not in body


@pytest.mark.parametrize(
    ("zone_name", "ns", "text"),
    [
        ("UTC", 0, "1970-01-01T00:00:00Z"),
        ("UTC", 1, "1970-01-01T00:00:00.000000001Z"),
        ("UTC", 123_400_000, "1970-01-01T00:00:00.1234Z"),
        ("UTC", NOON + 999_999_999, "2026-11-22T12:00:00.999999999Z"),
        ("XXX-5:30", NOON, "2026-11-22T17:30:00+05:30"),
        ("XXX3:30", NOON, "2026-11-22T08:30:00-03:30"),
        ("CET-1CEST,M3.5.0,M10.5.0", NOON - 150 * 86400 * SECOND, "2026-06-25T14:00:00+02:00"),
    ],
)
def test_times_are_as_go_writes_them(monkeypatch: pytest.MonkeyPatch, zone_name: str, ns: int, text: str) -> None:
    monkeypatch.setenv("TZ", zone_name)
    time.tzset()
    assert format_local_time(ns) == text


def test_a_process_is_ok_once_it_listens_and_its_backend_answers() -> None:
    assert not is_ok(ProcessState(), "")
    assert is_ok(UP, "")
    assert not is_ok(UP, "refused")
    assert not is_ok(UP.stopping(), "")


def test_ok_stays_as_it_was_while_reloading() -> None:
    assert is_ok(UP.reloading(), "")
    assert UP.reloading().phase is Phase.RELOADING
    assert ProcessState().reloading() == ProcessState()


def test_the_time_of_a_reload_is_told_when_it_is_over_and_not_before() -> None:
    first = UP.reloaded(Reload(NOON))
    again = first.reloading()
    assert again.reload == Reload(NOON)
    done = again.reloaded(Reload(NOON + 1, "bad"))
    assert (done.phase, done.reload) == (Phase.LISTENING, Reload(NOON + 1, "bad"))


def test_a_reload_before_listening_does_not_make_it_listen() -> None:
    assert ProcessState().reloaded(Reload(NOON)).phase is Phase.INITIALIZING


def test_what_is_stopping_stays_so() -> None:
    stopping = UP.stopping()
    late = stopping.reloading().reloaded(Reload(NOON)).listening()
    assert late.phase is Phase.STOPPING
    assert not late.is_listening
    assert late.reload == Reload(NOON)
