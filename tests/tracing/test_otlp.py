"""Spans of the OpenTelemetry SDK, and their way to a collector by OTLP."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.certificate_files import Pki
from tests.support.connection_records import dial_failed, outbound, refused, relayed
from tests.support.otlp_collector import OtlpCollector
from tests.support.plain_backends import free_port
from tunnel.config.headers import parse_header
from tunnel.config.model import Traces
from tunnel.errors import ConfigError
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.tracing import otlp
from tunnel.tracing.otlp import SpanBuilder, describe_resource, open_collector
from tunnel.tracing.trace_export import Delivery

END = 1_764_412_800_125_000_000
ENDED = relayed(time=END / 1e9)


@pytest.fixture
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt: the first retry comes after a second."""
    monkeypatch.setattr(otlp, "_EXPORT_LIMIT", 0.5)


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with closing(OtlpCollector()) as collector:
        yield collector


def built(*records: ConnectionRecord) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    exporter.export(SpanBuilder(Resource({})).build([record._replace(time=END / 1e9) for record in records]))
    return exporter


def test_a_connection_is_one_trace_with_a_span_for_each_step() -> None:
    root, accept, handshake, dial = built(relayed()).get_finished_spans()
    assert [span.name for span in (root, accept, handshake, dial)] == ["connection", "accept", "handshake", "dial"]
    assert root.parent is None
    assert root.context is not None
    for step in (accept, handshake, dial):
        assert step.parent is not None
        assert (step.parent.span_id, step.parent.trace_id) == (root.context.span_id, root.context.trace_id)
    kinds = [span.kind for span in (root, accept, handshake, dial)]
    assert kinds == [SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.INTERNAL, SpanKind.CLIENT]


def test_times_are_those_of_the_wall_clock_counted_back_from_the_end() -> None:
    spans = built(relayed()).get_finished_spans()
    microseconds = [(_after_end(span.start_time), _after_end(span.end_time)) for span in spans]
    assert microseconds == [
        (-10_000_000, 0),
        (-10_000_000, -9_000_000),
        (-9_000_000, -8_500_000),
        (-8_500_000, -7_750_000),
    ]


def _after_end(nanoseconds: int | None) -> int:
    """Microseconds: a Unix time as a float is not more precise."""
    assert nanoseconds is not None
    return round((nanoseconds - END) / 1000)


def test_a_clock_that_has_not_been_set_gives_no_time_before_1970() -> None:
    spans = SpanBuilder(Resource({})).build([relayed(time=1e-9)])
    assert min(span.start_time or 0 for span in spans) == 0


def test_each_connection_is_a_trace_of_its_own_and_a_client_has_the_other_kind() -> None:
    spans = built(relayed(), outbound()).get_finished_spans()
    roots = [span for span in spans if span.parent is None]
    assert len({span.context.trace_id for span in spans if span.context is not None}) == 2
    assert [root.kind for root in roots] == [SpanKind.SERVER, SpanKind.CLIENT]


@pytest.mark.parametrize(("record", "step"), [(refused(), "handshake"), (dial_failed(), "dial")])
def test_a_failure_is_the_status_of_the_connection_and_of_the_step(record: ConnectionRecord, step: str) -> None:
    spans = {span.name: span for span in built(record).get_finished_spans()}
    assert {name for name, span in spans.items() if span.status.status_code is StatusCode.ERROR} == {"connection", step}
    assert (spans["connection"].status.description or "").startswith(f"{record.reason}: ")
    assert spans["connection"].attributes is not None
    assert spans["connection"].attributes["error.type"] == record.reason


def test_the_resource_is_this_process_and_two_variables_can_describe_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    found = describe_resource().attributes
    assert (found["service.name"], found["host.name"], found["process.pid"]) == ("tunnel", socket.gethostname(), os.getpid())
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "sidecar")
    found = describe_resource().attributes
    assert (found["service.name"], found["deployment.environment.name"]) == ("sidecar", "prod")


def test_a_batch_reaches_the_collector_as_one_request(collector: OtlpCollector) -> None:
    headers = (parse_header("X-Api-Key: geheim"),)
    export = open_collector(Traces(collector.url, headers=headers))
    assert export([ENDED, refused(time=END / 1e9)]) == Delivery()
    ((method, path, received),) = collector.requests
    assert (method, path, received["x-api-key"], received["content-type"]) == (
        "POST",
        "/v1/traces",
        "geheim",
        "application/x-protobuf",
    )
    first, second = collector.traces()
    assert (first.names, second.names) == (["accept", "handshake", "dial"], ["accept", "handshake"])
    assert first.root.attributes["tunnel.peer.id"] == "spiffe://example.org/web"
    assert first.root.attributes["tunnel.forwarded_bytes"] == 12
    assert first.root.resource["service.name"] == "tunnel"
    assert (second.root.is_error, second.root.description) == (True, "no-matching-rule: principal not allowed")


def test_credentials_of_the_url_are_sent_and_not_shown(collector: OtlpCollector) -> None:
    export = open_collector(Traces(collector.url.replace("://", "://user:geheim@") + "?key=geheim"))
    assert export([ENDED]) == Delivery()
    assert collector.requests[0][1] == "/v1/traces?key=geheim"
    assert collector.requests[0][2]["authorization"] == "Basic dXNlcjpnZWhlaW0="
    assert export.name == collector.url
    assert "geheim" not in repr(Traces("http://user:geheim@a/b", headers=(parse_header("a: geheim"),)))


def test_proxies_and_credentials_of_the_environment_are_not_used(
    collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password geheim\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert open_collector(Traces(collector.url))([ENDED]) == Delivery()
    assert "authorization" not in collector.requests[0][2]


def test_redirects_are_not_followed_and_cookies_not_kept(collector: OtlpCollector) -> None:
    export = open_collector(Traces(collector.url))
    collector.status, collector.headers = 302, {"Location": collector.url, "Set-Cookie": "a=b"}
    assert export([ENDED]) == Delivery(1, f"{collector.url}: unexpected status 302; expected 2xx")
    collector.status, collector.headers = 200, {}
    assert export([ENDED]) == Delivery()
    assert [method for method, _, _ in collector.requests] == ["POST", "POST"]
    assert "cookie" not in collector.requests[1][2]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_request_that_is_not_accepted_has_its_status_as_the_problem(collector: OtlpCollector, status: int) -> None:
    collector.status, collector.headers = status, {"Retry-After": "100"}  # later than our limit
    delivery = open_collector(Traces(collector.url))([ENDED])
    assert delivery == Delivery(1, f"{collector.url}: unexpected status {status}; expected 2xx")


def test_rejected_spans_are_reported_with_the_text_of_the_collector(collector: OtlpCollector) -> None:
    collector.rejected = 3
    delivery = open_collector(Traces(collector.url))([ENDED, ENDED])
    assert delivery == Delivery(2, f"{collector.url}: the collector rejected 3 spans: too \\x5bbig\\x5d\\x0a")


@pytest.mark.parametrize("body", [b"no protobuf", b"\xff" * 100_000])
def test_a_body_that_is_no_result_is_ignored_and_a_large_one_not_read(collector: OtlpCollector, body: bytes) -> None:
    collector.body = body
    export = open_collector(Traces(collector.url))
    assert [export([ENDED]), export([ENDED])] == [Delivery(), Delivery()]


@pytest.mark.usefixtures("_short_limit")
def test_an_answer_that_does_not_end_is_a_problem(collector: OtlpCollector) -> None:
    collector.missing = 1
    delivery = open_collector(Traces(collector.url))([ENDED])
    assert delivery == Delivery(1, f"{collector.url}: no answer within 0.5s")


def silent() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces"


def absent() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}/v1/traces"


def nameless() -> Iterator[str]:
    yield "http://name.invalid/v1/traces"


@pytest.mark.usefixtures("_short_limit")
@pytest.mark.parametrize(
    ("place", "problems"),
    [
        (absent, {"connection refused"}),
        (silent, {"no answer within 0.5s"}),
        (nameless, {"name or service not known", "temporary failure in name resolution"}),
    ],
)
def test_a_collector_that_cannot_be_reached_is_a_problem_in_one_line(
    place: Callable[[], Iterator[str]], problems: set[str]
) -> None:
    places = place()
    url = next(places)
    delivery = open_collector(Traces(url.replace("://", "://user:geheim@")))([ENDED])
    shown = url.replace(".invalid/", ".invalid:80/")
    assert delivery in [Delivery(1, f"{shown}: {problem}") for problem in problems]


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def secure(pki: Pki) -> Iterator[OtlpCollector]:
    files = pki.leaf("collector", ips=("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    with closing(OtlpCollector(context=context)) as collector:
        yield collector


def test_a_collector_with_tls_is_verified_with_the_file_of_the_configuration(secure: OtlpCollector, pki: Pki) -> None:
    assert open_collector(Traces(secure.url, ca_bundle=str(pki.cacert)))([ENDED]) == Delivery()
    assert len(secure.traces()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_collector_of_another_authority_or_name_gets_nothing(secure: OtlpCollector, pki: Pki, host: str) -> None:
    is_known = host == "localhost"  # the certificate is for the address
    traces = Traces(secure.url.replace("127.0.0.1", host), ca_bundle=str(pki.cacert) if is_known else "")
    delivery = open_collector(traces)([ENDED])
    assert delivery.lost == 1
    assert "certificate verify failed" in delivery.problem
    assert secure.requests == []


def test_a_file_that_has_no_certificates_prevents_the_start(tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    with pytest.raises(ConfigError, match=r"none\.pem: cannot read certificates to verify the collector of traces: no such"):
        open_collector(Traces("https://localhost:1/v1/traces", ca_bundle=str(path)))
    path.write_text("nothing")
    with pytest.raises(ConfigError, match=r"none\.pem: cannot read certificates"):
        open_collector(Traces("https://localhost:1/v1/traces", ca_bundle=str(path)))
