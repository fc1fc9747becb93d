"""Answers an authority's probe on a port of its own, while nobody else listens there.

Knows blocking sockets and threads, since whoever waits for a certificate has a thread to wait in; must not know which
challenge is open, which the gate has. Who is no authority is hung up on. Strangers come too, so a connection has little
time, and few are open at once.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tunnel.errors import IdentityError, IdentityFault, TlsError, WireError, describe_os_error
from tunnel.tls.acme_challenge import AcmeChallenges
from tunnel.tls.client_hello import parse_client_hello
from tunnel.tls.engine import Buffers

_CONNECTIONS = 16
_SECONDS = 10.0  # for one connection
_TICK = 0.1  # seconds until a full house, or a kernel out of descriptors, is looked at again
_READ_BYTES = 16384


@contextmanager
def open_responder(challenges: AcmeChallenges, port: int) -> Iterator[None]:
    """Answer probes on a port of all addresses until the context is left; raises IdentityError."""
    listener = _listen(port)
    closing = threading.Event()
    thread = threading.Thread(target=_accept, args=(listener, challenges, closing), name="acme-responder", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread; closing the descriptor alone would not
        thread.join()
        listener.close()


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        why = describe_os_error(error)
        raise IdentityError(IdentityFault.ACME, f"cannot listen on port {port} for the challenge: {why}") from error


def _accept(listener: socket.socket, challenges: AcmeChallenges, closing: threading.Event) -> None:
    slots = threading.Semaphore(_CONNECTIONS)
    while not closing.is_set():
        if not slots.acquire(timeout=_TICK):
            continue
        try:
            sock, _ = listener.accept()
        except OSError:
            slots.release()
            closing.wait(_TICK)
            continue
        threading.Thread(target=_converse, args=(sock, challenges, slots), name="acme-probe", daemon=True).start()


def _converse(sock: socket.socket, challenges: AcmeChallenges, slots: threading.Semaphore) -> None:
    """One connection to its end; what goes wrong with it is the peer's affair, and the authority will say so."""
    try:
        with sock, suppress(OSError, WireError):
            _answer(sock, challenges)
    finally:
        slots.release()


def _answer(sock: socket.socket, challenges: AcmeChallenges) -> None:
    deadline = time.monotonic() + _SECONDS
    data = b""
    while (hello := parse_client_hello(data)) is None:
        data += _receive(sock, deadline)
    context = challenges.admit(hello)
    if context is None:
        return
    buffers = Buffers()
    end = context.open_end(buffers)
    is_done = False
    while not is_done:
        buffers.inbox[: len(data)] = data
        try:
            is_done = end.handshake(len(data))
        except TlsError:
            is_done = True
        sock.sendall(end.take())
        data = data[end.consumed :]
        if not is_done and not end.has_more:
            data += _receive(sock, deadline)


def _receive(sock: socket.socket, deadline: float) -> bytes:
    """What the peer sends next; raises OSError when it sends nothing more, or not in time."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
    data = sock.recv(_READ_BYTES)
    if not data:
        raise ConnectionResetError
    return data
