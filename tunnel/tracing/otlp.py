"""Exports connections as spans with the OpenTelemetry SDK, by OTLP over HTTP; imported only if traces are wanted.

The SDK and its exporter read variables of the environment: `tunnel/cli/variables.py` removes all but those of the resource.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from google.protobuf.message import DecodeError
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from tunnel import __version__
from tunnel.config.model import Traces
from tunnel.errors import ConfigError, describe_os_error
from tunnel.http.client import parse_http_url, system_context
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import escape
from tunnel.tracing.connection_spans import ConnectionSpan, describe_spans
from tunnel.tracing.trace_export import Delivery

_EXPORT_LIMIT = 5.0  # seconds for one batch with its retries
_MAX_BODY = 64 * 1024  # of a response
_NANOSECONDS = 1e9


class SpanCollector(SpanProcessor):
    """Keeps the spans that have ended until they are taken."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Keep a span."""
        self._ended.append(span)

    def take(self) -> list[ReadableSpan]:
        """Return the spans since the last call."""
        ended, self._ended = self._ended, []
        return ended


class SpanBuilder:
    """Makes the SDK's spans of ended connections."""

    def __init__(self, resource: Resource | None = None) -> None:
        self._collector = SpanCollector()
        provider = TracerProvider(sampler=ALWAYS_ON, resource=resource or describe_resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._collector)
        self._tracer = provider.get_tracer("tunnel", __version__)

    def build(self, batch: Sequence[ConnectionRecord]) -> list[ReadableSpan]:
        """Return the spans of these connections, each connection as one trace."""
        for record in batch:
            accepted = max(round((record.time - record.seconds) * _NANOSECONDS), 0)  # the clock may be at 1970
            root, *steps = describe_spans(record)
            kind = SpanKind.SERVER if record.is_server else SpanKind.CLIENT
            inside = self._add(root, accepted, kind, Context())
            for step in steps:
                self._add(step, accepted, SpanKind.CLIENT if step.name == "dial" else SpanKind.INTERNAL, inside)
        return self._collector.take()

    def _add(self, described: ConnectionSpan, accepted: int, kind: SpanKind, parent: Context) -> Context:
        begin, end = (accepted + round(seconds * _NANOSECONDS) for seconds in (described.begin, described.end))
        span = self._tracer.start_span(described.name, parent, kind, described.attributes, start_time=begin)
        if described.error:
            span.set_status(Status(StatusCode.ERROR, described.error))
        span.end(end)
        return set_span_in_context(span, parent)


def describe_resource() -> Resource:
    """Return what describes this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it or replace parts."""
    ours: dict[str, str | int] = {
        "service.name": "tunnel",
        "service.version": __version__,
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
    }
    return Resource(ours).merge(OTELResourceDetector().detect())


class CollectorAdapter(requests.adapters.HTTPAdapter):
    """Verifies the collector with our context, not with the library's own list of authorities."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *words: Any, **options: Any) -> None:
        """Open pools that use the context."""
        if self._context is not None:
            options["ssl_context"] = self._context
        super().init_poolmanager(*words, **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Require a certificate; the context has the authorities."""
        conn.cert_reqs = "CERT_REQUIRED"


class CollectorSession(requests.Session):
    """Sends requests to the collector: no proxies or credentials of the environment, no redirects, no cookies, small responses.

    `problem` and `rejected` are about the last request.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__()
        self.trust_env = False
        self.headers["Accept-Encoding"] = "identity"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.mount("http://", CollectorAdapter(None))
        self.mount("https://", CollectorAdapter(context))
        self.problem = ""
        self.rejected = 0

    def request(self, method: str, url: Any, *words: Any, **options: Any) -> requests.Response:
        """Return status and headers of the response; raises what requests raises."""
        self.problem, self.rejected = "", 0
        try:
            response = super().request(method, url, *words, **{**options, "allow_redirects": False, "stream": True})
            body = _read_body(response)
        except requests.RequestException as error:
            self.problem = describe_cause(error)
            raise
        if not 200 <= response.status_code < 300:
            self.problem = f"unexpected status {response.status_code}; expected 2xx"
        else:
            self._read_result(body)
        return _without_body(response)

    def _read_result(self, body: bytes) -> None:
        """Find out whether the collector has rejected spans; a body that is no result is ignored."""
        try:
            result = ExportTraceServiceResponse.FromString(body).partial_success
        except DecodeError:
            return
        if result.rejected_spans > 0:
            self.rejected = result.rejected_spans
            self.problem = f"the collector rejected {self.rejected} spans: {escape(result.error_message)}"


def _read_body(response: requests.Response) -> bytes:
    try:
        body: bytes = response.raw.read(_MAX_BODY + 1, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        response.raw.close()
        raise requests.ConnectionError(error) from error
    if len(body) > _MAX_BODY:
        response.raw.close()
    return body


def _without_body(response: requests.Response) -> requests.Response:
    answer = requests.Response()
    answer.status_code, answer.reason, answer.headers = response.status_code, escape(response.reason or ""), response.headers
    return answer


class CollectorExport:
    """Sends batches of connections to one collector."""

    def __init__(self, builder: SpanBuilder, exporter: SpanExporter, session: CollectorSession, name: str) -> None:
        self._builder = builder
        self._exporter = exporter
        self._session = session
        self.name = name

    def __call__(self, batch: Sequence[ConnectionRecord]) -> Delivery:
        """Send one batch, with retries; takes `_EXPORT_LIMIT` seconds at most unless the collector sends single bytes."""
        result = self._exporter.export(self._builder.build(batch))
        problem, rejected = self._session.problem, self._session.rejected
        if rejected:
            return Delivery(min(rejected, len(batch)), f"{self.name}: {problem}")
        if problem or result is not SpanExportResult.SUCCESS:
            return Delivery(len(batch), f"{self.name}: {problem or 'export failed'}")
        return Delivery()


def open_collector(traces: Traces) -> CollectorExport:
    """Prepare the export to a collector, without a connection; raises ConfigError."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it logs each attempt; we log each change of state
    url = parse_http_url(traces.url)
    session = CollectorSession(_open_context(traces.ca_bundle) if url.is_secure else None)
    exporter = OTLPSpanExporter(
        traces.url,
        headers={header.name: header.value for header in traces.headers},
        timeout=_EXPORT_LIMIT,
        compression=Compression.Gzip,
        session=session,
    )
    return CollectorExport(SpanBuilder(), exporter, session, str(url).partition("?")[0])


def _open_context(ca_bundle: str) -> ssl.SSLContext:
    try:
        return system_context(ca_bundle or None)
    except OSError as error:  # ssl.SSLError is one
        why = describe_os_error(error)
        raise ConfigError(f"{ca_bundle}: cannot read certificates to verify the collector of traces: {why}") from error


def describe_cause(error: BaseException) -> str:
    """Return the text of the first cause if it is the system's or OpenSSL's, else its type: other texts may have the URL."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, TimeoutError):
        return f"no answer within {_EXPORT_LIMIT:g}s"
    return escape(describe_os_error(error)) if isinstance(error, OSError) else type(error).__name__
