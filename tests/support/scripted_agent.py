"""An agent that follows a script: one message for each stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import grpc

from tests.support.cert_factory import END, NOW, START, authority, leaf
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.messages import SERVICE, SvidEntry, X509SvidResponse, encode_x509_svid_response


class Scripted:
    """An agent that answers its first stream with the first message, the next with the next one, and never ends a stream."""

    def __init__(self, endpoint: WorkloadEndpoint, *messages: bytes) -> None:
        self.opened = 0
        self._messages = messages
        self._over = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.unary_stream_rpc_method_handler(self._answer)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"FetchX509SVID": handler})])
        self._server.add_insecure_port(f"unix:{endpoint.path}")

    def __enter__(self) -> Scripted:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._over.set()
        self._server.stop(0).wait()

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        number, self.opened = self.opened, self.opened + 1
        if (message := self._messages[min(number, len(self._messages) - 1)]) is not SILENCE:
            yield message
        while context.is_active() and not self._over.wait(0.01):
            pass


def entry_of(path: str = "w", *, start: datetime = START, end: datetime = END) -> SvidEntry:
    spiffe_id = f"spiffe://a.test/{path}"
    worker = leaf(spiffe_id, issuer=ROOT, start=start, end=end)
    return SvidEntry(spiffe_id, worker.der, worker.key_der, ROOT.der)


def message_of(*entries: SvidEntry) -> bytes:
    return encode_x509_svid_response(X509SvidResponse(entries))


ROOT = authority(start=NOW - timedelta(days=1), end=NOW + timedelta(days=1))
OLD, NEW = message_of(entry_of()), message_of(entry_of(end=END + timedelta(hours=3)))
SILENCE = b"silence"
BAD = message_of(SvidEntry("spiffe://a.test/w", b"?", b"?", ROOT.der))


class Wall:
    """A wall clock that the test sets."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()
