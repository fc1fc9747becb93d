"""A proxy loads no library that it does not use: each costs memory in every process."""

from __future__ import annotations

from pathlib import Path

from tests.support.plain_backends import Backend, echo
from tests.support.tls_peer import tls_connection
from tests.support.workloads import CLIENT, Workloads

UNUSED = ("/libssl", "/libcrypto", "/_ssl.", "/_hashlib.", "/_asyncio.")  # trio and gRPC import them


def test_a_proxy_with_the_workload_api_loads_openssl_once(workloads: Workloads) -> None:
    """The OpenSSL of the system would be a second one beside that of `cryptography`."""
    proxy = workloads.server(workloads.enter(Backend(echo)).target)
    with tls_connection(proxy.address, workloads.identity(CLIENT)) as peer:
        peer.send(b"x")
        assert peer.receive_exactly(1) == b"x"
    maps = Path(f"/proc/{proxy.pid}/maps").read_text()
    assert "cryptography" in maps
    assert [name for name in UNUSED if name in maps] == []
