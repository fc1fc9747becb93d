"""The gRPC server of one local socket, with the statuses of a SPIRE agent."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import grpc

from tunnel.config.dev_model import check_local
from tunnel.devapi.publisher import Answer, AnswerPublisher, Refusal
from tunnel.errors import ConfigError, describe_os_error
from tunnel.net.listen import remove_stale_socket
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.messages import HEADER, SERVICE

_NO_HEADER = Refusal("INVALID_ARGUMENT", "security header missing from request")
_UNIMPLEMENTED = {
    "FetchWITSVID": "fetching WIT-SVIDs is not implemented",
    "FetchWITBundles": "fetching WIT bundles is not implemented",
}
_MAX_STREAMS = 256  # each occupies a thread of the pool; further calls are refused
_OPTIONS = (("grpc.so_reuseport", 0),)  # a port in use is an error
_umask_lock = threading.Lock()  # the umask applies to the whole process


@contextmanager
def serve(
    endpoint: WorkloadEndpoint,
    publishers: Mapping[str, AnswerPublisher],
    calls: Mapping[str, Callable[[bytes], Answer]],
    *,
    socket_mode: int,
) -> Iterator[None]:
    """Serve from entry to exit: `publishers` by streams, `calls` as unary calls; raises ConfigError if it cannot listen.

    All connections are closed at exit, as when an agent stops; gRPC removes the socket file.
    """
    check_local(endpoint)
    with ThreadPoolExecutor(_MAX_STREAMS, thread_name_prefix="workload-api") as pool:
        server = grpc.server(pool, options=_OPTIONS, maximum_concurrent_rpcs=_MAX_STREAMS)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, _handlers(publishers, calls)),))
        if endpoint.path:
            _bind_unix(server, endpoint.path, socket_mode)
        else:
            _bind_tcp(server, endpoint)
        server.start()
        try:
            yield
        finally:
            server.stop(grace=None).wait()


def _handlers(publishers: Mapping[str, AnswerPublisher], calls: Mapping[str, Callable[[bytes], Answer]]) -> dict[str, Any]:
    streamed = {rpc: grpc.unary_stream_rpc_method_handler(partial(_stream, publisher)) for rpc, publisher in publishers.items()}
    answered = {rpc: grpc.unary_unary_rpc_method_handler(partial(_answer, call)) for rpc, call in calls.items()}
    no_identity = {
        rpc: grpc.unary_unary_rpc_method_handler(partial(_refuse, Refusal("UNIMPLEMENTED", text)))
        for rpc, text in _UNIMPLEMENTED.items()
    }
    return streamed | answered | no_identity


def _stream(publisher: AnswerPublisher, request: bytes, context: Any) -> Iterator[bytes]:
    _check_header(context)
    stream = publisher.open_stream()
    try:
        # False: the client has closed, and the callback would never run.
        if not context.add_callback(partial(publisher.close_stream, stream)):
            return
        for answer in stream:
            if isinstance(answer, Refusal):
                _abort(context, answer)
            else:
                yield answer
    finally:
        publisher.close_stream(stream)


def _answer(call: Callable[[bytes], Answer], request: bytes, context: Any) -> bytes:
    _check_header(context)
    answer = call(request)
    if isinstance(answer, Refusal):
        _abort(context, answer)
    return answer


def _refuse(refusal: Refusal, request: bytes, context: Any) -> None:
    _check_header(context)
    _abort(context, refusal)


def _check_header(context: Any) -> None:
    name, wanted = HEADER
    if [value for key, value in context.invocation_metadata() if key == name] != [wanted]:
        _abort(context, _NO_HEADER)


def _abort(context: Any, refusal: Refusal) -> NoReturn:
    context.abort(grpc.StatusCode[refusal.code], refusal.text)
    raise AssertionError("abort always raises")


def _bind(server: Any, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(f"cannot listen on {address}: {error}") from error


def _bind_tcp(server: Any, endpoint: WorkloadEndpoint) -> None:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        # Tested first, because the error of gRPC has no cause.
        socket.create_server((endpoint.host, endpoint.port), family=family).close()
    except OSError as error:
        raise ConfigError(f"cannot listen on {endpoint}: {describe_os_error(error)}") from error
    _bind(server, endpoint.authority)


def _bind_unix(server: Any, path: str, mode: int) -> None:
    _remove_stale(path)
    # Only the umask sets the mode when the socket is created: a chmod afterwards would leave a window.
    with _umask_lock:
        before = os.umask(0o777 & ~mode)
        try:
            _bind(server, f"unix:{path}")
        finally:
            os.umask(before)


def _remove_stale(path: str) -> None:
    """Remove a stale socket; raises ConfigError if `path` cannot be used."""
    try:
        remove_stale_socket(Path(path))
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
            raise ConfigError(f"cannot listen on {path}: no such directory, or no write permission") from None
    except OSError as error:
        raise ConfigError(f"cannot listen on {path}: {describe_os_error(error)}") from error
    else:
        problem = "in use by another process" if is_socket else "exists and is not a socket"
        raise ConfigError(f"cannot listen on {path}: {problem}")
