"""A start loads no module that its configuration does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALWAYS = "import tunnel.commands.proxy.run, tunnel.proxy.process"
UNASKED = {"json", "h11", "prometheus_client", "acme", "josepy", "requests", "regopy", "asyncio", "opentelemetry", "google"} | {
    "tunnel.status.status_document",
    "tunnel.status.health_endpoints",
    "tunnel.status.snapshot",
    "tunnel.status.durations",
    "tunnel.status.histogram",
    "tunnel.status.openmetrics",
    "tunnel.status.overview",
    "tunnel.status.page",
    "tunnel.relay.acme_handshake",
    "tunnel.relay.first_bytes",
    "tunnel.relay.plain_relay",
    "tunnel.tls.client_hello",
    "tunnel.policy",
    "tunnel.tracing",
    "tunnel.listener.connection_attributes",
    "tunnel.acme",
    "tunnel.devapi",
}


def loaded(program: str) -> set[str]:
    code = f"{program}; import sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    )


@pytest.mark.parametrize(
    ("program", "anonymous"),
    [
        (f"{ALWAYS}, tunnel.proxy.file_source", UNASKED | {"grpc"}),
        (f"{ALWAYS}, tunnel.proxy.workload_api_source", UNASKED - {"asyncio"} | {"tunnel.keystore"}),  # grpc brings asyncio
    ],
)
def test_nothing_is_loaded_that_was_not_asked_for(program: str, anonymous: set[str]) -> None:
    assert loaded(program) & anonymous == set()
