"""A start loads no module that its configuration does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

ALWAYS = "import tunnel.commands.proxy.run, tunnel.proxy.process"
WORKER = "import tunnel.workers.worker_process"
UNASKED = {"json", "h11", "prometheus_client", "acme", "josepy", "requests", "regopy", "asyncio", "opentelemetry", "google"} | {
    "OpenSSL",
    "cryptography.x509",
    "typing_extensions",
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
# What only the control plane needs; together with the modules that they load these take 12 MiB.
CONTROL = {"trio", "attr", "grpc", "ssl", "inspect", "logging", "concurrent", "subprocess", "traceback", "hashlib"} | {
    "cryptography.hazmat.primitives.serialization",
    "tunnel.cli.parser",
    "tunnel.cli.command",
    "tunnel.commands",
    "tunnel.proxy",
    "tunnel.identity.workload",
    "tunnel.keystore",
    "tunnel.http",
    "tunnel.sandbox",
    "tunnel.child.launcher",
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
        (f"{ALWAYS}, tunnel.proxy.workload_api_source", UNASKED | {"grpc", "tunnel.keystore"}),
        ("import tunnel.identity.workload", UNASKED - {"asyncio"} | {"grpc.aio"}),  # the C part of gRPC brings asyncio
        (WORKER, UNASKED - {"tunnel.status.durations", "tunnel.status.histogram"} | CONTROL),
    ],
    ids=["files", "Workload API", "stream", "worker"],
)
def test_nothing_is_loaded_that_was_not_asked_for(program: str, anonymous: set[str]) -> None:
    assert loaded(program) & anonymous == set()


def test_the_asyncio_api_of_grpc_can_be_imported_later() -> None:
    assert "grpc.aio._channel" in loaded("import tunnel.identity.grpc_channel, grpc.aio; grpc.aio.insecure_channel")


def test_a_wrong_flag_loads_neither_a_library_nor_the_proxy() -> None:
    wrong = "from tunnel.cli.main import main; assert main(['server', '--wrong'], {}) == 1"
    heavy = {"cryptography", "_cffi_backend", "dataclasses", "inspect", "tunnel.proxy", "tunnel.listener", "tunnel.tls"}
    assert loaded(wrong) & (UNASKED | heavy | {"trio", "grpc", "ssl", "asyncio"}) == set()
