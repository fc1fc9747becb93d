"""The status document has ghostunnel's keys in their order, Go's times, and the outcome of the last reload."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tunnel.lazy_dataclass import replace
from tunnel.status.process_state import (
    Identity,
    ListenerState,
    Phase,
    PlainSource,
    PlaintextState,
    ProcessState,
    Reload,
    TargetState,
)
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
    assert encode_document(SERVICE, UP, {}, NOON) == (
        b'{"ok":true,"status":"ok","listen_address":"localhost:8443","forward_address":"unix:/run/app","backend_ok":true,'
        b'"backend_status":"ok","time":"2026-11-22T12:00:00Z","last_reload":"0001-01-01T00:00:00Z","hostname":"host",'
        b'"message":"listening","revision":"1.0","compiler":"Python 3.11.7"}'
    )


def test_a_backend_error_has_its_place_among_the_keys() -> None:
    document = json.loads(encode_document(SERVICE, UP, {"server": "no answer"}, NOON))
    assert list(document) == [*KEYS[:6], "backend_error", *KEYS[6:]]
    assert (document["ok"], document["status"], document["backend_ok"]) == (False, "critical", False)
    assert (document["backend_status"], document["backend_error"]) == ("critical", "no answer")


def test_the_state_of_the_workload_api_is_included_if_it_is_used() -> None:
    assert "workload_api" not in json.loads(encode_document(SERVICE, UP, {}, NOON))
    for error, told in (("", "ok"), ("rotation is overdue", "rotation is overdue")):
        document = json.loads(encode_document(SERVICE, with_fields(source_error=error), {}, NOON))
        assert (document["workload_api"], document["ok"]) == (told, True)


def test_an_empty_hostname_is_left_out() -> None:
    assert b"hostname" not in encode_document(Service("", "1", "2"), UP, {}, NOON)


def test_keys_of_our_own_come_last() -> None:
    standing = with_fields(identity=Identity("spiffe://a.test/w", NOON // SECOND, 7)).reloaded(
        Reload(NOON, "", "line 3: no rule")
    )
    document = json.loads(encode_document(SERVICE, standing, {}, NOON))
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
    document = json.loads(encode_document(SERVICE, standing, {}, NOON))
    assert (document["ok"], document["status"], document["backend_ok"]) == (False, "critical", True)
    assert list(document.items())[-1] == ("identity_error", "identity spiffe://a.test/w has been withdrawn")
    assert not is_ok(standing, {})
    assert is_ok(UP, {})
    assert b"identity_error" not in encode_document(SERVICE, UP, {}, NOON)


def test_keys_without_a_value_are_left_out() -> None:
    standing = with_fields(identity=Identity("", 0, 1)).reloaded(Reload(NOON, "bad key"))
    document = json.loads(encode_document(SERVICE, standing, {}, NOON))
    assert document["certificate_reload"] == "failed: bad key"
    assert "policy_reload" not in document
    assert "spiffe_id" not in document


def test_no_key_of_our_own_contains_an_older_one() -> None:
    standing = with_fields(identity=Identity("spiffe://a.test/w", 0, 1), identity_error="x").reloaded(Reload(NOON, "", ""))
    document = json.loads(encode_document(SERVICE, standing, {"server": "x"}, NOON))
    older = {*KEYS, "backend_error"}
    ours = document.keys() - older
    assert len(ours) == 6
    assert [key for key in ours for old in older if old in key] == []


TARGETS = (TargetState("a:1", True, 2, 0, ""), TargetState("b:1", False, 0, 3, "connection refused"))
CACHE = ListenerState("cache", "localhost:6380", "cache.test:8443", is_server=False, opened=1)


def described(state: ProcessState, errors: dict[str, str] | None = None) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(encode_document(SERVICE, state, errors or {}, NOON, has_listeners=True))
    return document


def test_each_listener_is_described() -> None:
    state = with_fields(targets=TARGETS, opened=2, source_error="", identity=Identity("spiffe://a.test/w", NOON // SECOND, 7))
    assert described(state.with_listener(CACHE))["listeners"] == [
        {
            "name": "server",
            "mode": "server",
            "listen": "localhost:8443",
            "ready": True,
            "connections": 2,
            "targets": [
                {"target": "b:1", "healthy": False, "connections": 0, "failures": 3, "error": "connection refused"},
                {"target": "a:1", "healthy": True, "connections": 2, "failures": 0},
            ],
            "spiffe_id": "spiffe://a.test/w",
            "not_after": "2026-11-22T12:00:00Z",
            "generation": 7,
            "workload_api": "ok",
        },
        {"name": "cache", "mode": "client", "listen": "localhost:6380", "ready": True, "connections": 1, "targets": []},
    ]


@pytest.mark.parametrize(
    ("fields", "errors", "shown"),
    [
        ({"is_stopped": True}, {}, {"stopped": True}),
        ({"identity_error": "identity has expired"}, {}, {"identity_error": "identity has expired"}),
        ({}, {"server": "refused"}, {"target_error": "refused"}),
    ],
)
def test_what_is_wrong_with_one_listener_is_shown_there_and_at_the_top(
    fields: dict[str, Any], errors: dict[str, str], shown: dict[str, object]
) -> None:
    document = described(with_fields(**fields).with_listener(CACHE), errors)
    server, cache = document["listeners"]
    assert (document["ok"], document["status"], server["ready"], cache["ready"]) == (False, "critical", False, True)
    assert {key: server[key] for key in shown} == shown
    assert not cache.keys() & shown.keys()
    assert "server" in document["message"] + document.get("identity_error", "") + document.get("backend_error", "")


def test_a_stopped_listener_is_named_until_the_process_stops() -> None:
    state = with_fields(is_stopped=True).with_listener(CACHE)
    assert described(state)["message"] == "listening; stopped: server"
    assert described(state.stopping())["message"] == "stopping"


def test_an_error_of_all_listeners_is_told_once_and_without_names() -> None:
    state = with_fields(identity_error="no identity yet", source_error="down")
    state = state.with_listener(replace(CACHE, identity_error="no identity yet", source_error="down"))
    document = described(state, {"server": "refused", "cache": "timeout"})
    assert (document["identity_error"], document["workload_api"]) == ("no identity yet", "down")
    assert document["backend_error"] == "server: refused; cache: timeout"


def test_the_names_of_many_listeners_are_counted() -> None:
    state = UP
    for number in range(7):
        state = state.with_listener(replace(CACHE, name=f"cache-{number}", identity_error="withdrawn"))
    assert described(state)["identity_error"] == "cache-0, cache-1, cache-2 and 4 more: withdrawn"


def test_plain_clients_are_shown_for_a_listener_that_permits_them() -> None:
    sources = (PlainSource("10.0.0.1", 3, NOON / SECOND), PlainSource("unix:@", 1, NOON / SECOND))
    state = with_fields(plaintext=PlaintextState(1, 4, sources, 0))
    assert described(state)["listeners"][0]["plaintext"] == {
        "connections": 1,
        "total": 4,
        "sources": [
            {"source": "10.0.0.1", "total": 3, "last_seen": "2026-11-22T12:00:00Z"},
            {"source": "unix:@", "total": 1, "last_seen": "2026-11-22T12:00:00Z"},
        ],
        "more_sources": 0,
    }


def test_a_document_about_several_listeners_has_few_entries_of_each() -> None:
    sources = tuple(PlainSource(f"10.0.0.{number}", 1, 0.0) for number in range(64))
    targets = tuple(TargetState(f"a:{number}", number != 50, 0, 0, "") for number in range(64))
    one = with_fields(plaintext=PlaintextState(0, 70, sources, 6), targets=targets)
    for state, most, more in ((one, 64, 6), (one.with_listener(CACHE), 10, 60)):
        server = described(state)["listeners"][0]
        assert (len(server["targets"]), len(server["plaintext"]["sources"])) == (most, most)
        assert server["plaintext"]["more_sources"] == more
        assert server["targets"][0]["target"] == "a:50", "an unhealthy target is not cut off"


def test_no_key_of_a_listener_contains_an_older_one() -> None:
    state = with_fields(
        is_stopped=True,
        targets=TARGETS,
        plaintext=PlaintextState(0, 0, (PlainSource("x", 1, 0.0),), 0),
        identity=Identity("spiffe://a.test/w", 0, 1),
        source_error="",
        identity_error="x",
    )
    shown = json.dumps(described(state, {"server": "x"})["listeners"])
    assert [key for key in (*KEYS, "backend_error") if f'{key}":' in shown] == []


@pytest.mark.parametrize("text", ["\udc80", "a\ud83d", "\x1b[31m", '"}', "\u2028", "é😀"])
def test_any_text_is_json_that_strict_readers_take(text: str) -> None:
    body = encode_document(
        Service(text, "1", "2"), with_fields(listen_address=text, forward_address=text), {"server": text}, NOON
    )
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
    assert not is_ok(ProcessState(), {})
    assert is_ok(UP, {})
    assert not is_ok(UP, {"server": "refused"})
    assert not is_ok(UP.stopping(), {})


def test_ok_stays_as_it_was_while_reloading() -> None:
    assert is_ok(UP.reloading(), {})
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
