"""A real Prometheus scrapes the metrics under our own names from real proxies, and promtool finds nothing wrong with them."""

from __future__ import annotations

import urllib.request
from contextlib import closing, suppress
from pathlib import Path

from OpenSSL import SSL
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import Proxy, eventually
from tests.support.prometheus_server import Prometheus, check_metrics
from tests.support.tls_peer import tls_connection
from tests.support.workloads import CLIENT, STRANGER, Workloads
from tunnel.status.metric_families import FAMILIES
from tunnel.status.openmetrics import OPENMETRICS_TYPE

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
LABELS = 'listener="server",direction="inbound"'


def fetch(port: int, headers: dict[str, str]) -> tuple[str, bytes]:
    """The content type and the body of /metrics."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request) as answer:
        return answer.headers["Content-Type"], answer.read()


def proxy_with_traffic(workloads: Workloads, port: int, *flags: str) -> Proxy:
    """A server proxy that has relayed 4 bytes each way and refused a stranger."""
    backend = workloads.enter(Backend(echo))
    server = workloads.server(backend.target, f"--status=http://127.0.0.1:{port}", *flags)
    for peer_id, is_carried in ((CLIENT, True), (STRANGER, False)):
        with suppress(SSL.Error, OSError), tls_connection(server.address, workloads.identity(peer_id)) as peer:
            peer.send(b"ping")
            assert peer.receive_exactly(4) == (b"ping" if is_carried else b"")
    server.wait_for("closed pipe")
    server.wait_for("no-matching-rule")
    return server


def test_both_formats_of_a_real_proxy_are_valid(workloads: Workloads) -> None:
    port = free_port()
    proxy_with_traffic(workloads, port)
    content_type, text = fetch(port, {})
    assert content_type.startswith("text/plain; version=0.0.4")
    assert check_metrics(text) == set()
    content_type, text = fetch(port, OPENMETRICS)
    assert content_type == OPENMETRICS_TYPE
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert {family.name for family in FAMILIES} == {name for name in families if name.startswith("tunnel_")}
    unseen = {name for name, family in families.items() if name.startswith("tunnel_") and not family.samples}
    assert unseen == {
        *("tunnel_failures", "tunnel_withdrawals", "tunnel_workload_api_errors"),  # nothing has failed yet
        *("tunnel_plaintext_connections", "tunnel_plaintext_connections_open"),  # not permitted
        "tunnel_revocation_lists_expiry_timestamp_seconds",  # the agent has none
    }


def test_a_real_prometheus_scrapes_a_real_proxy_as_openmetrics(workloads: Workloads, tmp_path: Path) -> None:
    port = free_port()
    proxy_with_traffic(workloads, port)
    with closing(Prometheus(tmp_path, f"127.0.0.1:{port}", metrics_path="/metrics")) as prometheus:
        target = prometheus.target()
        assert (target["health"], target["lastError"]) == ("up", "")
        values = {
            "up": 1,
            f"tunnel_connections_accepted_total{{{LABELS}}}": 2,
            f'tunnel_connections_total{{{LABELS},outcome="relayed"}}': 1,
            f'tunnel_refusals_total{{{LABELS},reason="no-matching-rule"}}': 1,
            f"tunnel_forwarded_bytes_total{{{LABELS}}}": 4,
            f'tunnel_peer_returned_bytes_total{{{LABELS},peer="{CLIENT}"}}': 4,
            f'tunnel_peer_connections_total{{{LABELS},peer="other"}}': 0,
            f"tunnel_handshake_duration_seconds_count{{{LABELS}}}": 1,
            f"tunnel_workload_api_up{{{LABELS}}}": 1,
            'tunnel_trust_bundle_authorities{trust_domain="a.test"}': 1,
            "tunnel_ready": 1,
        }
        assert {query: prometheus.value(query) for query in values} == values
        assert 0 < prometheus.value("histogram_quantile(0.5, tunnel_handshake_duration_seconds_bucket)") < 60
        assert prometheus.value("tunnel_certificate_expiry_timestamp_seconds - time()") > 0
        described = {one["metric"]: one for one in prometheus.ask("targets/metadata")}
        assert described["tunnel_forwarded_bytes"]["unit"] == "bytes", "only OpenMetrics has units"
        assert described["tunnel_forwarded_bytes"]["type"] == "counter"
        assert described["tunnel_event_loop_lag_seconds"]["type"] == "histogram"


def test_errors_of_the_workload_api_are_counted_and_its_state_is_shown(workloads: Workloads) -> None:
    port = free_port()
    server = proxy_with_traffic(workloads, port)
    workloads.api.stop()
    server.wait_for("Workload API unavailable")

    def has_series(line: str) -> bool:
        return line.encode() in fetch(port, {})[1]

    eventually(lambda: has_series(f"tunnel_workload_api_up{{{LABELS}}} 0\n"), "the stream is down")
    eventually(lambda: has_series('tunnel_workload_api_errors_total{code="UNAVAILABLE"}'), "the code is counted")
    assert has_series(f"tunnel_identity_usable{{{LABELS}}} 1\n")


def test_a_rotation_is_counted(workloads: Workloads) -> None:
    port = free_port()
    server = proxy_with_traffic(workloads, port)
    assert f"tunnel_certificate_rotations_total{{{LABELS}}} 0\n".encode() in fetch(port, {})[1]
    workloads.api.rotate_svids()
    server.wait_for("identity updated: .* generation=2")
    eventually(lambda: f"tunnel_certificate_rotations_total{{{LABELS}}} 1\n".encode() in fetch(port, {})[1], "counted")


def test_peers_have_no_series_if_none_are_wanted(workloads: Workloads) -> None:
    port = free_port()
    proxy_with_traffic(workloads, port, "--metrics-peers=0")
    assert b"\ntunnel_peer_" not in fetch(port, {})[1]
