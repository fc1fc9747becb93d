"""HTTP server: accepts connections, over TLS if configured, and drains when it stops."""

from __future__ import annotations

import resource
import traceback
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from tunnel.errors import PeerDenied, TlsError, TlsFault, describe_os_error
from tunnel.http.connection import HttpLimits, Request, Respond, Response, linger, serve_connection
from tunnel.http.origin_policy import OpenOriginPolicy, OriginPolicy, refuse
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.log import MAX_TRACE, escape
from tunnel.net.accept import ConnectionHandler, accept_connections
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.net.listen import Listener
from tunnel.tls.stream import TlsSource, accept_tls

GRACE = 5.0  # seconds for requests in progress when the server stops
_MAX_CONNECTIONS = 256
_SHARE = 4  # one part of so many of the process's descriptors may be connections of the server; the relay needs the others

LogRefusal = Callable[[str, str, str], None]  # the peer, the reason, the line for the log


@dataclass(frozen=True, slots=True)
class HttpService:
    """What one HTTP port serves: over TLS if there is a source for it, else in plain text."""

    respond: Respond
    limits: HttpLimits
    log: Callable[[str], None]
    tls: TlsSource | None = None
    max_connections: int = _MAX_CONNECTIONS
    open_origin_policy: OpenOriginPolicy | None = None
    rate_limited_log: LogRefusal | None = None
    count_refusal: Callable[[str], None] | None = None  # of a request, by its reason
    count_failure: Callable[[str], None] | None = None  # of a connection that is closed because of its TLS records
    background: Callable[[], Awaitable[None]] | None = None  # a task that runs while connections are accepted

    def log_refusal(self, peer: str, reason: str, line: str) -> None:
        """Write a line about a peer that was refused."""
        if self.rate_limited_log is None:
            self.log(line)
        else:
            self.rate_limited_log(peer, reason, line)

    def log_accept_error(self, error: OSError, pause: float) -> None:
        """Write a line about a failed accept(2), with the pause in seconds before the next one."""
        self.log(f"http: Accept error: {describe_os_error(error)}; retrying in {pause * 1000:g}ms")

    def log_crash(self, peer: str, crash: Exception) -> None:
        """Write a bug down in one line, with its traceback."""
        trace = "".join(traceback.format_exception(crash))
        self.log(f"http: panic serving {escape(peer)}: {escape(trace, MAX_TRACE)}")


async def serve_http(
    listener: Listener,
    service: HttpService,
    *,
    stopping: trio.Event,
    task_status: trio.TaskStatus[ConnectionLimiter] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping`; then close the listener and idle connections, and leave GRACE seconds to requests in progress.

    Reports the start with the limiter of its connections.
    """
    limiter = ConnectionLimiter(service.max_connections)
    policy = service.open_origin_policy(listener.socket) if service.open_origin_policy is not None else None
    serve = partial(_serve_peer, service, policy, limiter)
    handler = ConnectionHandler(serve, service.log_crash, service.log_accept_error)
    try:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept_connections, listener.socket, handler, limiter, connections)
                if service.background is not None:
                    accepting.start_soon(service.background)
                task_status.started(limiter)
                await stopping.wait()
                accepting.cancel_scope.cancel()
            listener.close()
            limiter.close()
            connections.cancel_scope.deadline = trio.current_time() + GRACE
    finally:
        listener.close()


def connection_limit() -> int:
    """How many connections a server may hold: few enough to leave most descriptors to the relay."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, soft // _SHARE))


async def _serve_peer(
    service: HttpService, policy: OriginPolicy | None, limiter: ConnectionLimiter, transport: trio.SocketStream, peer: str
) -> None:
    if policy is not None:
        service = replace(service, respond=_with_policy(service, policy, peer))
    try:
        await _serve_stream(transport, peer, service, limiter)
    except trio.BrokenResourceError as error:  # the client has closed the connection
        if suffix := _count_flood(error.__cause__, service):
            line = f"http: TLS error from {escape(peer)}: {error}{suffix}"
            service.log_refusal(peer, TlsFault.NO_DATA.value, line)
    except (trio.ClosedResourceError, trio.TooSlowError):
        pass  # the client has closed the connection, or does not read


def _with_policy(service: HttpService, policy: OriginPolicy, peer: str) -> Respond:
    """Respond as the service does, except to requests that the policy refuses."""

    async def respond(request: Request) -> Response:
        refusal = policy.refusal(request)
        if refusal is None:
            return await service.respond(request)
        response, detail = refuse(refusal, request)
        if service.count_refusal is not None:
            service.count_refusal(refusal.value)
        line = f"http: refused request from {escape(peer)}: {detail} reason={refusal.value}"
        service.log_refusal(peer, refusal.value, line)
        return response

    return respond


def _count_flood(error: BaseException | None, service: HttpService) -> str:
    """Count a client that sends records without data; the end of its log line, empty for any other error."""
    if not isinstance(error, TlsError) or error.reason is not TlsFault.NO_DATA:
        return ""
    if service.count_failure is not None:
        service.count_failure(error.reason.value)
    return f" reason={error.reason.value}"


async def _serve_stream(transport: trio.SocketStream, peer: str, service: HttpService, limiter: ConnectionLimiter) -> None:
    if service.tls is None:
        await serve_connection(transport, service.respond, limiter, service.limits)
        return
    try:
        with limiter.waiting(trio.current_time() + service.limits.header) as wait:
            stream = await accept_tls(transport, service.tls)
    except (TlsError, PeerDenied, trio.BrokenResourceError) as error:
        reason = error.reason.value if isinstance(error, TlsError | PeerDenied) else "reset"
        suffix = _count_flood(error, service)
        service.log_refusal(peer, reason, f"http: TLS handshake error from {escape(peer)}: {escape(str(error))}{suffix}")
        await linger(transport)
        return
    if wait.cancelled_caught:
        if wait.deadline <= trio.current_time():
            service.log_refusal(peer, "timeout", f"http: TLS handshake error from {escape(peer)}: i/o timeout")
        return
    async with stream:
        await serve_connection(stream, service.respond, limiter, service.limits)
