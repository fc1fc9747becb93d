"""Endpoints of the status port: paths, methods and content types.

A path that is unknown or not enabled is 404.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from tunnel.http.connection import NOT_FOUND, READ_EXPECTED, READ_METHODS, Request, Respond, Response
from tunnel.lazy_dataclass import dataclass
from tunnel.status.health_endpoints import UNKNOWN_LISTENER, CheckListeners, HealthEndpoints, is_health_path
from tunnel.status.openmetrics import MetricsFormat, accepts_openmetrics
from tunnel.status.process_state import ProcessState
from tunnel.status.status_document import Service, encode_document, is_ok

if TYPE_CHECKING:  # loaded only if the page is served
    from tunnel.status.page import Page

ReadOverview = Callable[[str], Awaitable[bytes | None]]  # about one listener, "" for all; None if the name is unknown
EncodeMetrics = Callable[[], Awaitable[tuple[str, bytes]]]  # content type and body
EncodeOwnMetrics = Callable[[MetricsFormat], Awaitable[bytes]]
JSON, PROMETHEUS = "json", "prometheus"
PPROF = "/debug/pprof/"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The sources of the responses; `shutdown`, `reload` and `pprof` are None unless they are enabled."""

    service: Service
    read_state: Callable[[], ProcessState]
    check: CheckListeners
    encode_metrics: Mapping[str, EncodeMetrics]  # under ghostunnel's names, by JSON and PROMETHEUS
    encode_own_metrics: EncodeOwnMetrics
    overview: ReadOverview | None = None
    page: Page | None = None
    shutdown: Callable[[], None] | None = None
    reload: Callable[[], Awaitable[str]] | None = None  # returns the error, "" after success
    pprof: Respond | None = None
    clock: Callable[[], int] = time.time_ns

    def routes(self) -> Respond:
        """One function that responds to every request."""
        table: dict[str, Respond] = {
            "/_status": self._status,
            "/metrics": self._own_metrics,
            "/_metrics": self._metrics_by_query,
            "/_metrics/json": partial(self._metrics, JSON),
            "/_metrics/prometheus": partial(self._metrics, PROMETHEUS),
        }
        if self.overview is not None:
            table["/_overview"] = partial(_overview, self.overview)
        if self.shutdown is not None:
            table["/_shutdown"] = partial(_shut_down, self.shutdown)

        if self.reload is not None:
            table["/_reload"] = partial(_reload, self.reload)

        health = HealthEndpoints(self.read_state, self.check)

        async def respond(request: Request) -> Response:
            if is_health_path(request.path):
                return await health.respond(request)
            if self.pprof is not None and request.path.startswith(PPROF.rstrip("/")):
                return await self.pprof(request)
            if self.page is not None and self.page.has(request.path):
                return await self.page.respond(request)
            route = table.get(request.path)
            return NOT_FOUND if route is None else await route(request)

        return respond

    async def _status(self, request: Request) -> Response:
        name = request.query_value("listener")
        listeners = [one.name for one in self.read_state().listeners if name in ("", one.name)]
        if name and not listeners:
            return UNKNOWN_LISTENER
        errors = await self.check(listeners)
        state = self.read_state()
        has_listeners = bool(name) or state.has_file or len(state.listeners) > 1
        state = state.limited_to((name,) if name else ())
        if name and not state.listeners:  # removed during the check
            return UNKNOWN_LISTENER
        status = HTTPStatus.OK if is_ok(state, errors) else HTTPStatus.SERVICE_UNAVAILABLE
        body = encode_document(self.service, state, errors, self.clock(), has_listeners=has_listeners)
        return Response(body, status, "application/json")

    async def _own_metrics(self, request: Request) -> Response:
        headers = request.headers
        is_gzip = accepts_gzip(headers.get("accept-encoding", ""))
        chosen = MetricsFormat(accepts_openmetrics(headers.get("accept", "")), is_gzip)
        encoding = (("Content-Encoding", "gzip"),) if is_gzip else ()
        body = await self.encode_own_metrics(chosen)
        return Response(body, content_type=chosen.content_type, headers=(("Vary", "Accept, Accept-Encoding"), *encoding))

    async def _metrics_by_query(self, request: Request) -> Response:
        return await self._metrics(PROMETHEUS if request.query_value("format") == PROMETHEUS else JSON, request)

    async def _metrics(self, format_name: str, request: Request) -> Response:
        content_type, body = await self.encode_metrics[format_name]()
        if format_name != PROMETHEUS:
            return Response(body, content_type=content_type)
        vary = ("Vary", "Accept-Encoding")
        if not accepts_gzip(request.headers.get("accept-encoding", "")):
            return Response(body, content_type=content_type, headers=(vary,))
        packed = gzip.compress(body, compresslevel=4, mtime=0)
        return Response(packed, content_type=content_type, headers=(vary, ("Content-Encoding", "gzip")))


_POST_EXPECTED = Response(
    b"405 method not allowed; expected POST\n", HTTPStatus.METHOD_NOT_ALLOWED, headers=(("Allow", "POST"),)
)


async def _overview(read: ReadOverview, request: Request) -> Response:
    if request.method not in READ_METHODS:
        return READ_EXPECTED
    body = await read(request.query_value("listener"))
    if body is None:
        return UNKNOWN_LISTENER
    return Response(body, content_type="application/json", headers=(("Cache-Control", "no-store"),))


async def _shut_down(shutdown: Callable[[], None], request: Request) -> Response:
    if request.method != "POST":
        return _POST_EXPECTED
    shutdown()
    return Response()


async def _reload(reload: Callable[[], Awaitable[str]], request: Request) -> Response:
    if request.method != "POST":
        return _POST_EXPECTED
    error = await reload()
    if error:
        return Response(f"{error}\n".encode(errors="backslashreplace"), HTTPStatus.INTERNAL_SERVER_ERROR)
    return Response(b"reloaded\n")


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding has gzip with a weight above 0 (RFC 9110, 12.5.3)."""
    for offer in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in offer.split(";"))
        if coding in ("gzip", "x-gzip"):
            return not any(part.replace(" ", "").rstrip("0") in ("q=", "q=0.", "q=.") for part in parameters)
    return False
