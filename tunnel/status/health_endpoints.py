"""Health endpoints in the form of Kubernetes: `/livez` and `/readyz`, of a status port and of a health port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus

from tunnel.http.connection import NOT_FOUND, READ_EXPECTED, READ_METHODS, Request, Response
from tunnel.lazy_dataclass import dataclass
from tunnel.log import escape, one_line
from tunnel.status.process_state import ProcessState, join_by_listener, list_names

CheckListeners = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]  # errors of backends, by the name of the listener

UNKNOWN_LISTENER = Response(b"404 unknown listener; expected the name of a listener\n", HTTPStatus.NOT_FOUND)
_HEADERS = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))
_MAX_QUERY = 2048  # characters; longer ones would take milliseconds to parse
_MAX_REASON = 1000  # characters
_MAX_NAME, _MOST_UNKNOWN = 40, 5  # characters of an unknown check, and how many of them a response names

PING, SHUTDOWN, LISTENER, IDENTITY, TARGET = "ping", "shutdown", "listener", "identity", "target"
# In the order of the response. `/livez` has no check of a state: from none of them would a restart recover.
CHECKS: Mapping[str, tuple[str, ...]] = {"livez": (PING,), "readyz": (PING, SHUTDOWN, LISTENER, IDENTITY, TARGET)}


@dataclass(frozen=True, slots=True)
class _Probe:
    """One request that is valid: its checks, those of them that are left out, and unknown names."""

    endpoint: str
    checks: tuple[str, ...]
    excluded: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    listener: str = ""  # the only one that it is about; "" for all
    is_verbose: bool = False

    def asks(self, check: str) -> bool:
        """Whether a check is to be made."""
        return check in self.checks and check not in self.excluded


@dataclass(frozen=True, slots=True)
class HealthEndpoints:
    """The responses of `/livez` and `/readyz`."""

    read_state: Callable[[], ProcessState]
    check: CheckListeners

    async def respond(self, request: Request) -> Response:
        """Respond to a request of any path; 404 for those that are no health endpoints."""
        probe = _parse_probe(request)
        if isinstance(probe, Response):
            return probe
        problems = await self._find_problems(probe) if probe.endpoint == "readyz" else {}
        return UNKNOWN_LISTENER if problems is None else encode_checks(probe, problems)

    async def _find_problems(self, probe: _Probe) -> Mapping[str, str] | None:
        """Why checks fail, by their names; None if the listener is unknown."""
        names = [one.name for one in self.read_state().listeners if probe.listener in ("", one.name)]
        errors = await self.check(names) if names and probe.asks(TARGET) else {}
        state = self.read_state().limited_to((probe.listener,) if probe.listener else ())
        if probe.listener and not state.listeners:  # it may also have been removed during the check
            return None
        return find_problems(state, errors)


def is_health_path(path: str) -> bool:
    """Whether a path belongs to a health endpoint."""
    return path.removeprefix("/").partition("/")[0] in CHECKS


def find_problems(state: ProcessState, target_errors: Mapping[str, str]) -> dict[str, str]:
    """Why each check of `/readyz` fails, "" if it succeeds; all but the one of the targets succeed if the state is ready."""
    return {
        SHUTDOWN: state.phase.value if state.is_ending else "",
        LISTENER: _listener_problem(state),
        IDENTITY: join_by_listener({one.name: one.identity_error for one in state.listeners}),
        TARGET: join_by_listener({one.name: target_errors.get(one.name, "") for one in state.listeners}),
    }


def _listener_problem(state: ProcessState) -> str:
    if not state.is_listening:
        return "closed" if state.is_ending else "not open yet"
    stopped = [one.name for one in state.listeners if one.is_stopped]
    return f"stopped: {list_names(stopped)}" if stopped else ""


def encode_checks(probe: _Probe, problems: Mapping[str, str]) -> Response:
    """The response with the result of each check: in full if one fails or the request is verbose, else `ok`."""
    failed = any(problems.get(check) for check in probe.checks if probe.asks(check))
    if not failed and not probe.is_verbose:
        return Response(b"ok", headers=_HEADERS)
    end = f"{probe.endpoint} check {'failed' if failed else 'passed'}\n"
    body = "".join((*_lines(probe, problems), end)).encode()
    return Response(body, HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK, headers=_HEADERS)


def _lines(probe: _Probe, problems: Mapping[str, str]) -> Iterator[str]:
    for check in probe.checks:
        if not probe.asks(check):
            yield f"[+]{check} excluded: ok\n"
        elif problem := problems.get(check):
            yield f"[-]{check} failed: {one_line(problem, _MAX_REASON)}\n"
        else:
            yield f"[+]{check} ok\n"
    if probe.unknown:
        yield f"warn: some health checks cannot be excluded: no matches for {_quote_some(probe.unknown)}\n"


def _quote_some(names: Sequence[str]) -> str:
    quoted = ",".join(f'"{escape(name, _MAX_NAME)}"' for name in names[:_MOST_UNKNOWN])
    return quoted + (f" and {len(names) - _MOST_UNKNOWN} more" if len(names) > _MOST_UNKNOWN else "")


def _parse_probe(request: Request) -> _Probe | Response:
    """The checks that a request is about, or the response to an invalid one."""
    endpoint, slash, only = request.path.removeprefix("/").partition("/")
    known = CHECKS.get(endpoint, ())
    if not known or (slash and only not in known):
        return NOT_FOUND
    if request.method not in READ_METHODS:
        return READ_EXPECTED
    if len(request.query) > _MAX_QUERY:
        return _refuse(f"query too long: {len(request.query)} characters; expected at most {_MAX_QUERY}")
    is_verbose, listener = bool(request.query_values("verbose")), request.query_value("listener")
    if only:
        return _Probe(endpoint, (only,), listener=listener, is_verbose=is_verbose)
    asked = set(request.query_values("target"))
    if not asked <= {"", "true", "false"}:
        return _refuse(f'invalid target "{escape(min(asked - {"", "true", "false"}), _MAX_NAME)}"; expected true or false')
    checks = tuple(check for check in known if check != TARGET or asked & {"", "true"})
    excluded, unknown = _split(request.query_values("exclude"), known)
    return _Probe(endpoint, checks, excluded, unknown, listener, is_verbose)


def _split(names: Iterable[str], known: Collection[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The names that are known, and the others in their order."""
    given = frozenset(names)
    return given.intersection(known), tuple(sorted(given.difference(known)))


def _refuse(problem: str) -> Response:
    return Response(f"400 {problem}\n".encode(), HTTPStatus.BAD_REQUEST)
