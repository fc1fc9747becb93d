"""Real proxies send the traces of their connections to a collector."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.file_identities import FileIdentities
from tests.support.otlp_collector import OtlpCollector, ReceivedTrace
from tests.support.plain_backends import Backend, connect, echo, free_port, receive_all
from tests.support.processes import LIMIT, WORKERS, Proxy, bare_environment, eventually, tunnel_argv
from tests.support.workloads import CLIENT, SERVER, STRANGER, Workloads

EVERY = ("--traces-ratio", "1")


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with closing(OtlpCollector()) as collector:
        yield collector


def exchange(proxy: Proxy, data: bytes = b"question") -> bytes:
    """What comes back through a client proxy; b"" if it closes the connection."""
    with connect(proxy.address) as sock:
        sock.sendall(data)
        try:
            sock.shutdown(1)
            return receive_all(sock)
        except OSError:
            return b""


def is_in_order(trace: ReceivedTrace) -> bool:
    """Whether the steps are inside the connection, one after the other."""
    times = [time for step in trace.steps for time in (step.begin, step.end)]
    return [trace.root.begin, *times, trace.root.end] == sorted([trace.root.begin, *times, trace.root.end])


def test_a_relayed_connection_is_a_trace_of_both_proxies(workloads: Workloads, collector: OtlpCollector) -> None:
    backend = workloads.enter(Backend(echo))
    server = workloads.server(backend.target, "--traces", collector.url, *EVERY)
    client = workloads.client(server.target, "--traces", collector.url, *EVERY)
    assert exchange(client) == b"question"
    traces = {trace.root.kind: trace for trace in collector.wait_for(2)}
    inbound, outbound = traces["server"], traces["client"]
    assert (inbound.names, outbound.names) == (["accept", "handshake", "dial"], ["accept", "dial", "handshake"])
    for trace, peer, direction in ((inbound, CLIENT, "inbound"), (outbound, SERVER, "outbound")):
        found = trace.root.attributes
        assert is_in_order(trace)
        assert (found["tunnel.peer.id"], found["tunnel.direction"], found["tunnel.outcome"]) == (peer, direction, "relayed")
        assert (found["tunnel.forwarded_bytes"], found["tunnel.returned_bytes"]) == (8, 8)
        assert (found["tls.protocol.version"], found["tunnel.close_reason"]) == ("1.3", "closed")
        assert [span for span in (trace.root, *trace.steps) if span.is_error] == []
    assert inbound.root.resource["process.pid"] == server.pid
    assert (inbound.root.attributes["server.port"], outbound.root.attributes["server.port"]) == (server.address[1],) * 2
    assert outbound.root.attributes["client.port"] != inbound.root.attributes["client.port"]
    assert inbound.step("dial").attributes["network.peer.port"] == int(backend.target.rpartition(":")[2])


def test_a_refused_peer_and_a_failed_dial_have_the_error_in_their_step(workloads: Workloads, collector: OtlpCollector) -> None:
    port = free_port()
    server = workloads.server(f"127.0.0.1:{port}", "--traces", collector.url, *EVERY)
    stranger = workloads.proxy("client", STRANGER, "--listen=127.0.0.1:0", f"--target={server.target}", f"--verify-id={SERVER}")
    assert exchange(stranger) == b""
    (refused,) = collector.wait_for(1)
    assert exchange(workloads.client(server.target)) == b""
    _, failed = collector.wait_for(2)
    assert {step.name for step in refused.steps if step.is_error} == {"handshake"}
    assert refused.root.attributes["tunnel.reason"] == "no-matching-rule"
    assert refused.root.description.startswith("no-matching-rule: ")
    assert STRANGER in refused.root.description
    assert {step.name for step in failed.steps if step.is_error} == {"dial"}
    assert failed.root.attributes["error.type"] == "connection-refused"
    assert failed.root.attributes["tunnel.peer.id"] == CLIENT
    assert failed.step("dial").attributes["server.port"] == port


def test_without_a_ratio_few_connections_are_traced_and_a_stop_sends_the_last_ones(
    workloads: Workloads, collector: OtlpCollector
) -> None:
    """With a ratio of 0.01, that half of 40 connections are traced has a chance below 1e-28."""
    server = workloads.server(workloads.enter(Backend(echo)).target, "--traces", collector.url)
    client = workloads.client(server.target, "--traces", collector.url, *EVERY)
    server.wait_for(r"traces enabled; exporting spans via OTLP to http://127\.0\.0\.1:\d+/v1/traces ratio=0\.01$")
    for _ in range(40):
        assert exchange(client) == b"question"
    assert client.stop() == 0
    client.wait_for(r"stopped exporting traces: exported_traces=40 dropped_traces=0")
    assert server.stop() == 0
    kinds = [trace.root.kind for trace in collector.traces()]
    assert kinds.count("client") == 40
    assert kinds.count("server") < 20


def test_a_collector_that_is_down_costs_no_traffic_and_traces_are_sent_when_it_is_up(
    file_identities: FileIdentities, workloads: Workloads
) -> None:
    port = free_port()
    url = f"http://user:geheim@127.0.0.1:{port}/v1/traces"
    server = workloads.server(workloads.enter(Backend(echo)).target, "--traces", url, *EVERY)
    client = workloads.client(server.target)
    assert exchange(client) == b"question"
    shown = rf"http://127\.0\.0\.1:{port}/v1/traces"
    failure = rf"error exporting traces: {shown}: connection refused; dropping traces until they are accepted$"
    server.wait_for(failure)
    assert exchange(client) == b"question"
    with closing(OtlpCollector(port)) as collector:
        eventually(lambda: exchange(client) == b"question" and bool(server.matches("exporting traces recovered")), "a recovery")
        dropped = int(server.wait_for(r"exporting traces recovered: dropped_traces=(\d+)$")[1])
        assert dropped >= 1
        assert server.stop() == 0
        totals = server.wait_for(r"stopped exporting traces: exported_traces=(\d+) dropped_traces=(\d+)$")
        assert [int(total) for total in totals.groups()] == [len(collector.traces()), dropped]
    assert len(server.matches(failure)) == 1
    assert not server.matches("geheim")


def test_a_stop_does_not_wait_for_a_collector_that_is_silent(workloads: Workloads) -> None:
    backend = workloads.enter(Backend(lambda sock: receive_all(sock) and None))  # accepts and never answers
    server = workloads.server(workloads.enter(Backend(echo)).target, "--traces", f"http://{backend.target}/v1", *EVERY)
    assert exchange(workloads.client(server.target)) == b"question"
    assert server.stop() == 0
    server.wait_for(r"stopped exporting traces: exported_traces=0 dropped_traces=1$")


def test_a_collector_with_tls_is_verified_with_a_file(file_identities: FileIdentities) -> None:
    files = file_identities.pki.leaf("collector", ips=("127.0.0.1",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    collector = file_identities.enter(closing(OtlpCollector(context=context)))
    flags = ("--traces", collector.url, *EVERY, "--traces-ca", str(file_identities.pki.cacert))
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, *flags)
    assert exchange(file_identities.call(f"localhost:{server.address[1]}")) == b"question"
    (trace,) = collector.wait_for(1)
    assert trace.root.attributes["tls.client.subject"].startswith("CN=client")


def test_variables_of_opentelemetry_change_nothing_but_the_resource(
    file_identities: FileIdentities, collector: OtlpCollector
) -> None:
    environ = {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-theirs=1",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "nonsense",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_PYTHON_CONTEXT": "nonsense",
        "OTEL_PROPAGATORS": "nonsense",
        "OTEL_SERVICE_NAME": "redis-proxy",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=redis-0",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    flags = ("--traces", collector.url, *EVERY)
    server = file_identities.serve(file_identities.enter(Backend(echo)).target, *flags, environ=environ)
    assert exchange(file_identities.call(f"localhost:{server.address[1]}")) == b"question"
    (trace,) = collector.wait_for(1)
    assert (trace.root.resource["service.name"], trace.root.resource["k8s.pod.name"]) == ("redis-proxy", "redis-0")
    assert (trace.root.attributes["tunnel.peer.id"], "tunnel.peer.trust_domain" in trace.root.attributes) == ("client", False)
    assert len(trace.root.attributes) > 10
    assert "x-theirs" not in collector.requests[0][2]


def test_a_file_sets_headers_and_a_change_takes_effect_at_the_next_start(
    workloads: Workloads, collector: OtlpCollector, tmp_path: Path
) -> None:
    backend = workloads.enter(Backend(echo))
    path = tmp_path / "t.toml"
    port = free_port()
    text = f"""workers = {WORKERS}
[traces]
url = "{collector.url}"
ratio = 1
headers = "Authorization: Bearer geheim"

[identity.default]
workload-api = "{workloads.sockets[SERVER]}"

[[server]]
name = "redis"
listen = "127.0.0.1:{port}"
target = "{backend.target}"
access = [{{ allow = "{CLIENT}" }}]
"""
    path.write_text(text)
    server = workloads.watch(Proxy(tunnel_argv("serve", "--config", str(path)), environ=bare_environment()))
    server.wait_for("listening for connections")
    client = workloads.client(f"127.0.0.1:{port}")
    assert exchange(client) == b"question"
    (trace,) = collector.wait_for(1)
    assert trace.root.attributes["tunnel.listener"] == "redis"
    assert collector.requests[0][2]["authorization"] == "Bearer geheim"
    path.write_text(text.replace("ratio = 1", "ratio = 0.5"))
    server.signal(signal.SIGHUP)
    server.wait_for("warning: traces: the change takes effect at the next start")
    assert not server.matches("geheim")


WITHOUT_EXTRA = """
import sys
sys.modules["opentelemetry"] = None
from tunnel.__main__ import main
sys.argv[0] = "tunnel"
sys.exit(main())
"""


def test_without_the_extra_the_start_fails_with_one_line(file_identities: FileIdentities) -> None:
    flags = file_identities.named(file_identities.server_files)
    line = ["server", "--listen=127.0.0.1:0", "--target=127.0.0.1:1", "--allow-all", *flags, "--traces=http://127.0.0.1:1/x"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA, *line], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert error.startswith("error: traces: OpenTelemetry is not installed (")
    assert error.endswith("install it with: pip install 'spiffe-tunnel[otel]'")


def test_a_ca_file_that_cannot_be_read_prevents_the_start(file_identities: FileIdentities) -> None:
    proxy = file_identities.serve("127.0.0.1:1", "--traces=https://127.0.0.1:1/v1/traces", "--traces-ca=/nowhere/ca.pem")
    assert proxy.exit_code() == 1
    assert proxy.reason() == (
        "error: /nowhere/ca.pem: cannot read certificates to verify the collector of traces: no such file or directory"
    )
