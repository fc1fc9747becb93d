"""What a web page of another site can make a browser send to a status port changes and shows nothing."""

from __future__ import annotations

import http.client

from tests.support.plain_backends import Backend, echo, free_port
from tests.support.processes import Proxy
from tests.support.workloads import Workloads


def start(workloads: Workloads, *flags: str) -> tuple[Proxy, int]:
    port = free_port()
    backend = workloads.enter(Backend(echo))
    proxy = workloads.server(backend.target, f"--status=http://127.0.0.1:{port}", "--enable-shutdown", "--enable-pprof", *flags)
    proxy.wait_for("listening for connections")
    return proxy, port


def ask(port: int, method: str, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    with connection.getresponse() as response:
        response.read()
    connection.close()
    return response.status


def test_a_foreign_page_can_neither_read_nor_end_a_proxy(workloads: Workloads) -> None:
    proxy, port = start(workloads)
    for path in ("/_status", "/_metrics", "/debug/pprof/goroutine?debug=1"):
        assert ask(port, "GET", path, Host=f"rebound.example:{port}") == 421
        assert ask(port, "GET", path, Host=f"localhost:{port}") == 200
    assert ask(port, "POST", "/_shutdown", Origin="https://evil.example") == 403
    assert ask(port, "POST", "/_shutdown", Sec_Fetch_Site="cross-site") == 403
    assert ask(port, "POST", "/_shutdown", Host="rebound.example", Origin="http://rebound.example") == 421
    proxy.wait_for('http: refused request from 127.0.0.1:[0-9]+: host "rebound.example:[0-9]+" .* reason=host-not-allowed$')
    proxy.wait_for("http: refused request from 127.0.0.1:.* reason=cross-site$")
    assert proxy.is_running
    assert ask(port, "POST", "/_shutdown", Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin") == 200
    assert proxy.exit_code() == 0


def test_an_allowed_name_is_served_and_refusals_are_few_lines(workloads: Workloads) -> None:
    proxy, port = start(workloads, "--status-allow-host=ops.example", "--status-allow-host=other.example")
    assert ask(port, "GET", "/_status", Host="OPS.example") == 200
    assert ask(port, "GET", "/_status", Host="other.example:1") == 200
    for _ in range(20):
        assert ask(port, "GET", "/_status", Host="evil.example") == 421
    assert proxy.stop() == 0
    assert len(proxy.matches("http: refused request")) < 20
    assert proxy.matches("from=127.0.0.1 reason=host-not-allowed suppressed=|reason=host-not-allowed suppressed=")
