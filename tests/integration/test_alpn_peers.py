"""gRPC, whose peers insist on ALPN, through a proxy in each role."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from tests.support.file_identities import FileIdentities
from tests.support.processes import LIMIT, Proxy

METHOD = "/test.Echo/Say"


class Echo(grpc.GenericRpcHandler):
    """Answers every call with its request."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


@contextmanager
def served(credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """The address of a gRPC server."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=(Echo(),))
    address = "127.0.0.1:0"
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def name_of(proxy: Proxy) -> str:
    host, port = proxy.address
    return f"{host}:{port}"


def said(channel: grpc.Channel, text: bytes = b"hello") -> bytes:
    with channel:
        answer: bytes = channel.unary_unary(METHOD)(text, timeout=LIMIT, wait_for_ready=True)
    return answer


def test_grpc_finds_its_protocol_through_both_proxies(file_identities: FileIdentities) -> None:
    files = file_identities.client_files
    with served() as backend:
        proxy = file_identities.serve(backend, "--alpn=h2")
        trust = grpc.ssl_channel_credentials(
            file_identities.pki.cacert.read_bytes(), files.key.read_bytes(), files.chain.read_bytes()
        )
        options = (("grpc.ssl_target_name_override", "localhost"),)
        assert said(grpc.secure_channel(name_of(proxy), trust, options)) == b"hello"
    shown = file_identities.server_files
    trust_clients = grpc.ssl_server_credentials(
        [(shown.key.read_bytes(), shown.chain.read_bytes())], file_identities.pki.cacert.read_bytes(), require_client_auth=True
    )
    with served(trust_clients) as server:
        proxy = file_identities.call(server, "--alpn=h2", "--alpn=http/1.1", "--override-server-name=localhost")
        assert said(grpc.insecure_channel(name_of(proxy))) == b"hello"


def test_without_the_flag_grpc_refuses_the_server(file_identities: FileIdentities) -> None:
    files = file_identities.client_files
    with served() as backend:
        proxy = file_identities.serve(backend)
        trust = grpc.ssl_channel_credentials(
            file_identities.pki.cacert.read_bytes(), files.key.read_bytes(), files.chain.read_bytes()
        )
        options = (("grpc.ssl_target_name_override", "localhost"),)
        with grpc.secure_channel(name_of(proxy), trust, options) as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(METHOD)(b"hello", timeout=LIMIT)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
