"""A real Prometheus takes our text without a complaint, and understands it."""

from __future__ import annotations

import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.support.file_identities import FileIdentities
from tests.support.known_metrics import EXPIRY, known_snapshot
from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import LIMIT
from tests.support.prometheus_server import Prometheus, check_metrics
from tests.support.tls_peer import tls_connection
from tunnel.status.exposition import PROMETHEUS_TYPE
from tunnel.status.prometheus import encode_prometheus

TEXT = encode_prometheus(known_snapshot(), "ghostunnel")

# Names that ghostunnel has given to counters; in everything else `promtool` finds nothing.
KEPT = ("accept_success", "accept_error", "accept_timeout", "conn_timeout", "conn_error", "runtime_mem_gc_num_gc")


EXPECTED = {f'ghostunnel_{name} counter metrics should have "_total" suffix' for name in KEPT}


def test_promtool_finds_only_names_that_are_kept_on_purpose() -> None:
    assert check_metrics(TEXT) == EXPECTED


class Page(BaseHTTPRequestHandler):
    """One page with our text."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", PROMETHEUS_TYPE)
        self.send_header("Content-Length", str(len(TEXT)))
        self.end_headers()
        self.wfile.write(TEXT)

    def log_message(self, *_anything: object) -> None:
        """Not in the test's output."""


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a server that serves it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(LIMIT)


def test_a_real_prometheus_scrapes_us_and_knows_what_each_number_is(page: str, tmp_path: Path) -> None:
    with closing(Prometheus(tmp_path, page)) as prometheus:
        target = prometheus.target()
        assert (target["health"], target["lastError"]) == ("up", "")
        values = {
            "ghostunnel_conn_open": 2,
            "ghostunnel_accept_total": 7,
            "ghostunnel_accept_success": 3,
            'ghostunnel_refusals_total{reason="expired"}': 1,
            "sum(ghostunnel_refusals_total)": 1,
            "ghostunnel_conn_handshake_count": 3,
            "ghostunnel_conn_handshake_sum": 6e6,
            "ghostunnel_certificate_expiry_timestamp_seconds": EXPIRY,
        }
        assert {query: prometheus.value(query) for query in values} == values
        median = prometheus.value("histogram_quantile(0.5, ghostunnel_conn_handshake_bucket)")
        assert 1e6 < median < 3e6
        kinds = {one["metric"]: one["type"] for one in prometheus.ask("targets/metadata")}
        assert kinds["ghostunnel_accept_success"] == "counter"
        assert kinds["ghostunnel_conn_open"] == "gauge"
        assert kinds["ghostunnel_conn_lifetime"] == "histogram"
        assert "unknown" not in {kind for name, kind in kinds.items() if name.startswith("ghostunnel_")}


def test_a_real_prometheus_scrapes_a_real_proxy_over_https(tmp_path: Path) -> None:
    port = free_port()
    with closing(FileIdentities(tmp_path)) as file_identities, Backend(echo) as backend:
        server = file_identities.serve(backend.target, f"--status=127.0.0.1:{port}", rules=("--allow-cn", "client"))
        for files, is_carried in ((file_identities.client_files, True), (file_identities.server_files, False)):
            with suppress(SSL.Error, OSError), tls_connection(server.address, files) as peer:
                peer.send(b"ping")
                assert peer.receive_exactly(4) == (b"ping" if is_carried else b"")
        server.wait_for("closed pipe")
        server.wait_for("no-matching-rule")
        fields = {
            "scheme": "https",
            "tls_config": {"ca_file": str(file_identities.pki.cacert)},
            "metrics_path": "/_metrics/prometheus",
        }
        with closing(Prometheus(tmp_path, f"127.0.0.1:{port}", **fields)) as prometheus:
            target = prometheus.target()
            assert (target["health"], target["lastError"]) == ("up", "")
            values = {
                "ghostunnel_accept_total": 2,
                "ghostunnel_accept_success": 1,
                "ghostunnel_accept_error": 1,
                'ghostunnel_refusals_total{reason="no-matching-rule"}': 1,
                "ghostunnel_traffic_forwarded_bytes_total": 4,
                "ghostunnel_conn_lifetime_count": 2,
            }
            assert {query: prometheus.value(query) for query in values} == values
        context = ssl.create_default_context(cafile=file_identities.pki.cacert)
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/_metrics?format=prometheus", context=context) as answer:
            assert check_metrics(answer.read()) == EXPECTED
