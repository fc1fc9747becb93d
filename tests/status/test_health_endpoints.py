"""`/livez` and `/readyz` respond as those of Kubernetes do, and agree with the state of the process."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import pytest
import trio

from tunnel.http.connection import Request, Response
from tunnel.lazy_dataclass import replace
from tunnel.status.health_endpoints import CHECKS, TARGET, HealthEndpoints, find_problems, is_health_path
from tunnel.status.process_state import ListenerState, ProcessState
from tunnel.status.status_document import is_ok

INITIAL = ProcessState(listeners=(ListenerState("redis", ":1", "localhost:2"),))
UP = INITIAL.listening()
TWO = UP.with_listener(ListenerState("cache", ":2", "localhost:3"))
DELAY = "stopping: new connections are accepted until the shutdown delay is over"


def lose(state: ProcessState, name: str, **fields: object) -> ProcessState:
    """The state with other fields of one listener."""
    (one,) = (one for one in state.listeners if one.name == name)
    return state.with_listener(replace(one, **fields))  # type: ignore[arg-type]  # names of its fields


class Targets:
    """Targets that have these errors."""

    def __init__(self, **errors: str) -> None:
        self.asked: list[list[str]] = []
        self._errors = errors

    async def check(self, names: Collection[str]) -> dict[str, str]:
        self.asked.append(list(names))
        return {name: self._errors[name] for name in names if name in self._errors}


def ask(url: str, *states: ProcessState, targets: Targets | None = None, method: str = "GET") -> Response:
    """The response to a request, while the process has these states one after the other."""
    path, _, query = url.partition("?")
    upcoming = iter((*states, *itertools.repeat((states or (UP,))[-1], 3)))
    endpoints = HealthEndpoints(lambda: next(upcoming), (targets or Targets()).check)
    return trio.run(endpoints.respond, Request(method, path, query))


def text(url: str, *states: ProcessState, targets: Targets | None = None) -> tuple[int, list[str]]:
    answer = ask(url, *states, targets=targets)
    return answer.status.value, answer.body.decode().splitlines()


def test_what_succeeds_is_ok_and_only_a_verbose_request_gets_the_list() -> None:
    assert text("/livez") == (200, ["ok"])
    assert text("/readyz") == (200, ["ok"])
    assert text("/livez?verbose") == (200, ["[+]ping ok", "livez check passed"])
    checks = ["[+]ping ok", "[+]shutdown ok", "[+]listener ok", "[+]identity ok"]
    assert text("/readyz?verbose=") == (200, [*checks, "readyz check passed"])
    assert text("/readyz?target&verbose") == (200, [*checks, "[+]target ok", "readyz check passed"])


FAILURES = [
    (INITIAL, "listener", "not open yet"),
    (UP.delaying_shutdown(), "shutdown", DELAY),
    (lose(UP, "redis", is_stopped=True), "listener", "stopped: redis"),
    (lose(TWO, "cache", is_stopped=True), "listener", "stopped: cache"),
    (lose(UP, "redis", identity_error="identity a has expired"), "identity", "identity a has expired"),
    (lose(TWO, "cache", identity_error="identity a has expired"), "identity", "cache: identity a has expired"),
    (lose(UP, "redis", identity_error="a\n[+]b\x00\udcff"), "identity", r"a\n[+]b\x00\udcff"),
    (lose(UP, "redis", identity_error="x" * 2000), "identity", "x" * 1000 + "..."),
]


@pytest.mark.parametrize(("state", "check", "reason"), FAILURES)
def test_what_fails_is_503_with_all_checks_and_the_reason(state: ProcessState, check: str, reason: str) -> None:
    lines = [
        f"[-]{one} failed: {reason}" if one == check else f"[+]{one} ok" for one in ("ping", "shutdown", "listener", "identity")
    ]
    assert text("/readyz", state) == (503, [*lines, "readyz check failed"])
    assert text("/readyz?verbose", state) == (503, [*lines, "readyz check failed"])
    assert text(f"/readyz/{check}", state) == (503, [f"[-]{check} failed: {reason}", "readyz check failed"])
    assert text(f"/readyz?exclude={check}", state) == (200, ["ok"])
    assert text("/livez", state) == (200, ["ok"]), "a restart would not help"


def test_in_the_drain_no_listener_is_open_and_the_process_is_alive() -> None:
    state = UP.stopping()
    lines = ["[+]ping ok", "[-]shutdown failed: stopping", "[-]listener failed: closed", "[+]identity ok"]
    assert text("/readyz", state) == (503, [*lines, "readyz check failed"])
    assert text("/livez", state) == (200, ["ok"])


def test_targets_are_checked_only_if_the_request_wants_it() -> None:
    targets = Targets(redis="connection refused")
    for url in ("/readyz", "/readyz?target=false", "/readyz?target&exclude=target", "/readyz/identity?target", "/livez?target"):
        assert text(url, targets=targets) == (200, ["ok"])
    assert targets.asked == []
    for url in ("/readyz?target", "/readyz?target=true", "/readyz/target"):
        code, lines = text(url, targets=targets)
        assert (code, lines[-2:]) == (503, ["[-]target failed: connection refused", "readyz check failed"])
    assert targets.asked == [["redis"]] * 3
    code, lines = text("/readyz/target", TWO, targets=targets)
    assert (code, lines[0]) == (503, "[-]target failed: redis: connection refused")


def test_a_request_can_be_about_one_listener() -> None:
    state = lose(TWO, "cache", identity_error="expired")
    targets = Targets(redis="connection refused")
    assert text("/readyz?listener=redis", state, targets=targets) == (200, ["ok"])
    assert text("/readyz/identity?listener=cache", state)[1][0] == "[-]identity failed: expired"
    assert text("/readyz/target?listener=cache", state, targets=targets) == (200, ["ok"])
    assert targets.asked == [["cache"]]
    assert text("/readyz?listener=rdeis", state) == (404, ["404 unknown listener; expected the name of a listener"])
    removed = state.without_listener("cache")
    assert ask("/readyz/target?listener=cache", state, removed, targets=targets).status == 404, "removed during the check"


def test_the_state_is_that_at_the_end_of_the_checks() -> None:
    assert text("/readyz?target", UP, UP.stopping())[0] == 503


def test_an_excluded_check_is_listed_and_an_unknown_one_gets_a_warning() -> None:
    state = lose(UP, "redis", identity_error="expired")
    _code, lines = text("/readyz?verbose&exclude=identity&exclude=shutdown&exclude=etcd&exclude=%0a", state)
    warning = r'warn: some health checks cannot be excluded: no matches for "\x0a","etcd"'
    ok = ["[+]ping ok", "[+]shutdown excluded: ok", "[+]listener ok", "[+]identity excluded: ok"]
    assert lines == [*ok, warning, "readyz check passed"]
    assert text("/readyz?exclude=etcd") == (200, ["ok"])
    assert text("/readyz?exclude=listener", state)[1][2:] == [
        *("[+]listener excluded: ok", "[-]identity failed: expired", "readyz check failed"),
    ]
    many = "&".join(f"exclude={number}{'y' * 60}" for number in range(9))
    _code, lines = text(f"/livez?verbose&{many}")
    assert lines[1].endswith(f'"4{"y" * 39}..." and 4 more')


@pytest.mark.parametrize("path", ["/livez/", "/livez/target", "/readyz/etcd", "/readyz/ping/x", "/healthz", "/", "readyz2"])
def test_other_paths_are_404(path: str) -> None:
    assert ask(path).status == 404
    assert is_health_path(path) == (path not in ("/healthz", "/", "readyz2"))


def test_only_get_and_head_are_accepted() -> None:
    assert ask("/readyz", method="HEAD").status == 200
    for method in ("POST", "PUT", "OPTIONS"):
        answer = ask("/readyz", method=method)
        assert (answer.status, answer.headers) == (405, (("Allow", "GET, HEAD"),))


def test_an_invalid_query_is_400_with_one_line() -> None:
    assert text("/readyz?target=yes%0a") == (400, [r'400 invalid target "yes\x0a"; expected true or false'])
    assert text(f"/livez?{'a' * 2049}") == (400, ["400 query too long: 2049 characters; expected at most 2048"])


def test_a_response_must_not_be_stored() -> None:
    for url in ("/livez", "/readyz?verbose"):
        assert dict(ask(url).headers) == {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    assert dict(ask("/readyz", INITIAL).headers)["Cache-Control"] == "no-store"


def test_all_checks_succeed_exactly_if_the_status_document_is_ok() -> None:
    phases = (TWO, INITIAL, TWO.reloading(), TWO.delaying_shutdown(), TWO.stopping())
    for state, name, is_stopped, error in itertools.product(phases, ("redis", "cache"), (False, True), ("", "expired")):
        if name in {one.name for one in state.listeners}:
            changed = lose(state, name, is_stopped=is_stopped, identity_error=error)
            assert any(find_problems(changed, {"cache": "refused"}).values()) != is_ok(changed, {"cache": "refused"})
            problems = find_problems(changed, {})
            assert set(problems) == {*CHECKS["readyz"]} - {"ping"}
            assert any(problems.values()) != changed.is_ready
            assert problems[TARGET] == ""
