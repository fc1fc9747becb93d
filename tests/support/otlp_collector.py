"""A collector of traces: an HTTP server that reads OTLP requests."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.processes import eventually

ERROR = 2  # the code of a status
KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as a collector sees it."""

    trace: bytes
    id: bytes
    parent: bytes
    name: str
    kind: str
    begin: int
    end: int
    is_error: bool
    description: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass(frozen=True)
class ReceivedTrace:
    """The span of a connection and those of its steps, in the order of time."""

    root: ReceivedSpan
    steps: tuple[ReceivedSpan, ...]

    def step(self, name: str) -> ReceivedSpan:
        return next(step for step in self.steps if step.name == name)

    @property
    def names(self) -> list[str]:
        return [step.name for step in self.steps]


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client that keeps its connection does not delay the end of a test

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client may refuse our certificate."""


class OtlpCollector:
    """Receives traces at `url`; answers with `status` and `headers`, and rejects `rejected` spans of each request."""

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.spans: list[ReceivedSpan] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []  # method, path, headers
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None
        self.rejected = 0
        self.missing = 0  # bytes of each answer that are announced and not sent
        self._server = _Server(("127.0.0.1", port), self._handler())
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/v1/traces"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = collector._take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(collector.status)
                for name, value in collector.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer) + collector.missing))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                collector.requests.append(("GET", self.path, dict(self.headers)))
                self.send_error(404)

            def log_message(self, *_anything: object) -> None:
                """Not in the test's output."""

        return Handler

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        self.requests.append(("POST", path, headers))
        if self.status == 200:
            plain = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            self.spans += read_spans(ExportTraceServiceRequest.FromString(plain))
        if self.body is not None:
            return self.body
        partial = ExportTracePartialSuccess(rejected_spans=self.rejected, error_message="too [big]\n" if self.rejected else "")
        return ExportTraceServiceResponse(partial_success=partial).SerializeToString()

    def traces(self) -> list[ReceivedTrace]:
        """The traces so far, in the order of their ends."""
        return group_spans(list(self.spans))

    def wait_for(self, count: int) -> list[ReceivedTrace]:
        """Wait for so many traces."""
        eventually(lambda: len(self.traces()) >= count, f"{count} traces")
        return self.traces()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def read_spans(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    """The spans of a request."""
    return [
        ReceivedSpan(
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.name,
            KINDS[span.kind],
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == ERROR,
            span.status.message,
            _values(span.attributes),
            _values(of_resource.resource.attributes),
        )
        for of_resource in request.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def _values(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def group_spans(spans: Iterable[ReceivedSpan]) -> list[ReceivedTrace]:
    """The traces that these spans are."""
    steps: dict[bytes, list[ReceivedSpan]] = defaultdict(list)
    roots = []
    for span in spans:
        if span.parent:
            steps[span.parent].append(span)
        else:
            roots.append(span)
    for root in roots:
        assert all(step.trace == root.trace for step in steps[root.id])
    roots.sort(key=lambda root: root.end)
    return [ReceivedTrace(root, tuple(sorted(steps[root.id], key=lambda step: step.begin))) for root in roots]
