"""Each path responds as ghostunnel's does; a path that is not enabled is 404."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import pytest
import trio

from tunnel.http.connection import Request, Response
from tunnel.lazy_dataclass import replace
from tunnel.status.endpoints import JSON, PROMETHEUS, Endpoints, accepts_gzip
from tunnel.status.openmetrics import OPENMETRICS_TYPE, MetricsFormat
from tunnel.status.pprof import Pprof
from tunnel.status.process_state import ListenerState, ProcessState
from tunnel.status.status_document import Service

SERVICE = Service("host", "1.0", "Python 3.11.7")


async def as_json() -> tuple[str, bytes]:
    return "text/plain; charset=utf-8", b"[]"


async def as_prometheus() -> tuple[str, bytes]:
    return "text/plain; version=0.0.4", b"# HELP x\n"


async def as_own(chosen: MetricsFormat) -> bytes:
    return f"{chosen.is_openmetrics} {chosen.is_gzip}".encode()


UP = ProcessState(listeners=(ListenerState("server", ":1", "localhost:2"),)).listening()
TWO = UP.with_listener(ListenerState("other", ":2", "localhost:2"))
METRICS = {JSON: as_json, PROMETHEUS: as_prometheus}


async def answers(_names: Collection[str]) -> dict[str, str]:
    """Backends that are well."""
    return {}


async def refuses(names: Collection[str]) -> dict[str, str]:
    return dict.fromkeys(names, "tcp:127.0.0.1:1: connection refused")


def ask(path: str, method: str = "GET", headers: Mapping[str, str] = {}, **told: Any) -> Response:
    """The answer of a status port to one request."""
    fields: dict[str, Any] = {
        "read_state": lambda: UP,
        "check": answers,
        "encode_metrics": METRICS,
        "encode_own_metrics": as_own,
    }
    respond: Callable[[Request], Awaitable[Response]] = Endpoints(SERVICE, **(fields | told)).routes()
    where, _, query = path.partition("?")

    async def one() -> Response:
        return await respond(Request(method, where, query, headers))

    return trio.run(one)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
def test_status_answers_to_any_method(method: str) -> None:
    answer = ask("/_status", method, clock=lambda: 0)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body)["ok"] is True


def test_a_backend_that_fails_is_503_with_its_error() -> None:
    answer = ask("/_status", check=refuses)
    document = json.loads(answer.body)
    assert answer.status == 503
    assert (document["ok"], document["backend_error"]) == (False, "tcp:127.0.0.1:1: connection refused")
    assert document["message"] == "listening"


@pytest.mark.parametrize(
    ("standing", "status"),
    [
        (ProcessState(), 503),
        (ProcessState().listening(), 200),
        (ProcessState().listening().reloading(), 200),
        (ProcessState().listening().stopping(), 503),
    ],
)
def test_status_is_200_while_connections_are_accepted(standing: ProcessState, status: int) -> None:
    assert ask("/_status", read_state=lambda: standing).status == status


def test_the_status_document_has_the_state_at_the_end_of_the_check() -> None:
    stages = [ProcessState().listening()]

    async def slow(_names: Collection[str]) -> dict[str, str]:
        stages[0] = stages[0].stopping()
        return {}

    answer = ask("/_status", check=slow, read_state=lambda: stages[0])
    assert json.loads(answer.body)["message"] == "stopping"


def test_a_request_may_be_about_one_listener() -> None:
    asked: list[Collection[str]] = []

    async def one_refuses(names: Collection[str]) -> dict[str, str]:
        asked.append(names)
        return {name: "refused" for name in names if name == "other"}

    state = {"read_state": lambda: TWO, "check": one_refuses}
    answers = [ask(f"/_status{query}", **state) for query in ("", "?listener=server", "?listener=other")]
    documents = [json.loads(answer.body) for answer in answers]
    assert [answer.status for answer in answers] == [503, 200, 503]
    assert asked == [["server", "other"], ["server"], ["other"]], "no other backend is checked"
    assert [[one["name"] for one in document["listeners"]] for document in documents] == [
        *(["server", "other"], ["server"], ["other"]),
    ]
    assert [document.get("backend_error") for document in documents] == ["other: refused", None, "refused"]


def test_an_unknown_listener_is_404() -> None:
    answer = ask("/_status?listener=thrid", read_state=lambda: TWO)
    assert (answer.status, answer.body) == (404, b"404 unknown listener; expected the name of a listener\n")


def test_a_listener_that_is_removed_during_its_check_is_404() -> None:
    stages = [TWO]

    async def slow(_names: Collection[str]) -> dict[str, str]:
        stages[0] = stages[0].without_listener("other")
        return {}

    assert ask("/_status?listener=other", check=slow, read_state=lambda: stages[0]).status == 404


@pytest.mark.parametrize(
    ("state", "query", "is_listed"),
    [
        (UP, "", False),
        (UP, "?listener=server", True),
        (replace(UP, has_file=True), "", True),
        (TWO, "", True),
    ],
)
def test_listeners_are_described_unless_one_was_started_by_flags(state: ProcessState, query: str, is_listed: bool) -> None:
    document = json.loads(ask(f"/_status{query}", read_state=lambda: state).body)
    assert ("listeners" in document) is is_listed


@pytest.mark.parametrize(
    ("path", "is_prometheus"),
    [
        ("/_metrics", False),
        ("/_metrics?format=prometheus", True),
        ("/_metrics?x=1&format=prometheus", True),
        ("/_metrics?format=json&format=prometheus", False),
        ("/_metrics?format=prometheus&format=json", True),
        ("/_metrics?format=", False),
        ("/_metrics?format=Prometheus", False),
        ("/_metrics/json", False),
        ("/_metrics/json?format=prometheus", False),
        ("/_metrics/prometheus", True),
    ],
)
def test_metrics_have_the_requested_format(path: str, is_prometheus: bool) -> None:
    for method in ("GET", "HEAD", "POST"):
        answer = ask(path, method)
        expected = trio.run(as_prometheus if is_prometheus else as_json)
        assert (answer.status, answer.content_type, answer.body) == (200, *expected)


def test_prometheus_text_is_compressed_for_clients_that_accept_gzip() -> None:
    answer = ask("/_metrics/prometheus", headers={"accept-encoding": "gzip"})
    assert dict(answer.headers) == {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    assert gzip.decompress(answer.body) == b"# HELP x\n"
    assert ask("/_metrics/json", headers={"accept-encoding": "gzip"}).body == b"[]"


@pytest.mark.parametrize(
    ("headers", "content_type", "body", "encoding"),
    [
        ({}, "text/plain; version=0.0.4; charset=utf-8", b"False False", {}),
        ({"accept": "application/openmetrics-text"}, OPENMETRICS_TYPE, b"True False", {}),
        (
            {"accept": "application/openmetrics-text", "accept-encoding": "gzip"},
            *(OPENMETRICS_TYPE, b"True True", {"Content-Encoding": "gzip"}),
        ),
    ],
)
def test_our_metrics_have_the_format_that_the_client_accepts(
    headers: dict[str, str], content_type: str, body: bytes, encoding: dict[str, str]
) -> None:
    answer = ask("/metrics", headers=headers)
    assert (answer.status, answer.content_type, answer.body) == (200, content_type, body)
    assert dict(answer.headers) == {"Vary": "Accept, Accept-Encoding"} | encoding


@pytest.mark.parametrize(
    ("accepted", "yes"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0.001", True),
        ("identity", False),
        ("gzippy", False),
        ("br,,gzip", True),
        (";;;,=", False),
    ],
)
def test_gzip_is_sent_only_where_it_is_accepted(accepted: str, yes: bool) -> None:
    assert accepts_gzip(accepted) is yes


def test_shutdown_takes_a_post_and_nothing_else() -> None:
    asked: list[bool] = []
    for method in ("GET", "HEAD", "PUT", "DELETE", "post"):
        answer = ask("/_shutdown", method, shutdown=lambda: asked.append(True))
        assert (answer.status, answer.headers, asked) == (405, (("Allow", "POST"),), [])
    for times in (1, 2):
        answer = ask("/_shutdown", "POST", shutdown=lambda: asked.append(True))
        assert (answer.status, answer.body, len(asked)) == (200, b"", times)


@pytest.mark.parametrize(("error", "status", "body"), [("", 200, b"reloaded\n"), ("line 3: \udcff", 500, b"line 3: \\udcff\n")])
def test_a_post_reloads_and_the_answer_has_the_result(error: str, status: int, body: bytes) -> None:
    asked: list[bool] = []

    async def reload() -> str:
        asked.append(True)
        return error

    assert (ask("/_reload", "GET", reload=reload).status, asked) == (405, [])
    answer = ask("/_reload", "POST", reload=reload)
    assert (answer.status, answer.body, len(asked)) == (status, body, 1)


@pytest.mark.parametrize(
    "path",
    ["/", "", "*", "/_status/", "/_statusx", "/_metrics/", "/_metrics/xml", "/_shutdown", "/_reload", "/debug/pprof/",
     "/debug/pprof", "/debug/pprof/goroutine", "/favicon.ico", "/../_status"],
)  # fmt: skip
def test_everything_else_is_not_there(path: str) -> None:
    answer = ask(path, "POST")
    assert (answer.status, answer.body, answer.content_type) == (404, b"404 page not found\n", "text/plain; charset=utf-8")


def test_pprof_is_there_when_it_is_switched_on() -> None:
    pprof = Pprof(["tunnel", "server"], lambda: 0)
    assert ask("/debug/pprof/cmdline", pprof=pprof).body == b"tunnel\0server"
    assert ask("/debug/pprofx", pprof=pprof).status == 404


async def one_overview(name: str) -> bytes | None:
    return b"{}" if name in ("", "redis") else None


def test_the_overview_is_read_only() -> None:
    assert ask("/_overview").status == 404, "nothing collects it"
    answer = ask("/_overview", overview=one_overview)
    assert (answer.status, answer.content_type, answer.body) == (200, "application/json", b"{}")
    assert ("Cache-Control", "no-store") in answer.headers
    assert ask("/_overview?listener=redis", overview=one_overview).status == 200
    assert ask("/_overview?listener=absent", overview=one_overview).status == 404
    assert ask("/_overview", "POST", overview=one_overview).status == 405
