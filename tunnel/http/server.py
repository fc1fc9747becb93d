"""The status port: accept, shake hands if need be, serve, and come to an end.

Knows sockets, tasks and what a failure of each may stop: one request's fault ends its connection and nothing else. Must not
know what is asked for. Every connection is a task of its own, so one that is silent or slow keeps nobody waiting.
"""

from __future__ import annotations

import errno
import resource
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import trio

from tunnel.errors import PeerDenied, TlsError, TlsFault, describe_os_error
from tunnel.http.connection import Limits, Request, Respond, Response, linger, serve_connection
from tunnel.http.origin_policy import OpenOriginPolicy, OriginPolicy, refuse
from tunnel.log import MAX_TRACE, escape
from tunnel.net.connection_limiter import ConnectionLimiter
from tunnel.net.listen import Listener
from tunnel.net.sockets import describe
from tunnel.tls.stream import TlsSource, accept_tls

GRACE = 5.0  # seconds for requests under way when the process stops
_MAX_PLACES = 256
_SHARE = 4  # of the descriptors, the part that the status port may take; the rest is the tunnel's
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 1.0  # seconds after an accept that failed, as in Go
_PASSING = {errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM}


NoteRefusal = Callable[[str, str, str], None]  # who was refused, the reason, the line for the log


@dataclass(frozen=True, slots=True)
class HttpService:
    """What one status port serves: over TLS when there is a source for it, in plain text else."""

    respond: Respond
    limits: Limits
    log: Callable[[str], None]
    tls: TlsSource | None = None
    places: int = _MAX_PLACES
    open_origin_policy: OpenOriginPolicy | None = None
    note_refusal: NoteRefusal | None = None
    count_refusal: Callable[[str], None] | None = None  # of a request, by its reason
    count_failure: Callable[[str], None] | None = None  # of a connection that is ended for what it sends

    def log_refusal(self, peer: str, reason: str, line: str) -> None:
        """Write a line about a peer that was refused."""
        if self.note_refusal is None:
            self.log(line)
        else:
            self.note_refusal(peer, reason, line)


async def serve_http(
    listener: Listener,
    port: HttpService,
    *,
    stopping: trio.Event,
    task_status: trio.TaskStatus[ConnectionLimiter] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stopping`; then close the listener, drop who is idle and leave requests under way GRACE seconds.

    Reports that it has started with the lobby of its connections.
    """
    limiter = ConnectionLimiter(port.places)
    sock = trio.socket.from_stdlib_socket(listener.socket)
    guard = port.open_origin_policy(listener.socket) if port.open_origin_policy is not None else None
    try:
        async with trio.open_nursery() as sessions:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(_accept, sock, port, guard, limiter, sessions)
                task_status.started(limiter)
                await stopping.wait()
                accepting.cancel_scope.cancel()
            listener.close()
            limiter.close()
            sessions.cancel_scope.deadline = trio.current_time() + GRACE
    finally:
        listener.close()


def connection_limit() -> int:
    """How many connections the status port may hold: few enough to leave most descriptors to the tunnel."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_PLACES if soft == resource.RLIM_INFINITY else max(1, min(_MAX_PLACES, soft // _SHARE))


async def _accept(
    sock: trio.socket.SocketType,
    port: HttpService,
    guard: OriginPolicy | None,
    limiter: ConnectionLimiter,
    sessions: trio.Nursery,
) -> None:
    pause = _FIRST_PAUSE
    while True:
        await limiter.make_room()
        try:
            accepted, address = await sock.accept()
        except OSError as error:
            if error.errno in _PASSING:  # that connection's failure, not ours (accept(2))
                continue
            port.log(f"http: Accept error: {describe_os_error(error)}; retrying in {pause * 1000:g}ms")
            await trio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            continue
        pause = _FIRST_PAUSE
        limiter.take_place()
        name = describe(accepted.family, address).removeprefix("tcp:")
        served = port if guard is None else replace(port, respond=_guarded(port, guard, name))
        sessions.start_soon(_serve_one, accepted, name, served, limiter)


def _guarded(port: HttpService, guard: OriginPolicy, name: str) -> Respond:
    """Answer as the port does, but for what the guard refuses to one client."""

    async def respond(request: Request) -> Response:
        why = guard.refusal(request)
        if why is None:
            return await port.respond(request)
        response, detail = refuse(why, request)
        if port.count_refusal is not None:
            port.count_refusal(why.value)
        port.log_refusal(name, why.value, f"http: refused request from {escape(name)}: {detail} reason={why.value}")
        return response

    return respond


async def _serve_one(sock: trio.socket.SocketType, name: str, port: HttpService, limiter: ConnectionLimiter) -> None:
    with ExitStack() as undo:
        undo.callback(limiter.leave_place)
        undo.enter_context(sock)
        try:
            await _serve_stream(trio.SocketStream(sock), name, port, limiter)
        except trio.BrokenResourceError as error:  # the client has gone, and there is nobody to tell
            if words := _count_flood(error.__cause__, port):
                line = f"http: TLS error from {escape(name)}: {error}{words}"
                port.log_refusal(name, TlsFault.NO_DATA.value, line)
        except (trio.ClosedResourceError, trio.TooSlowError):
            pass  # likewise, or it stands still
        except Exception as crash:  # noqa: BLE001  # a bug ends its own connection, as in the event loop
            told = "".join(traceback.format_exception(crash))
            port.log(f"http: panic serving {escape(name)}: {escape(told, MAX_TRACE)}")


def _count_flood(error: BaseException | None, port: HttpService) -> str:
    """Count a client that sent records without data; its reason for the log, nothing for any other error."""
    if not isinstance(error, TlsError) or error.reason is not TlsFault.NO_DATA:
        return ""
    if port.count_failure is not None:
        port.count_failure(error.reason.value)
    return f" reason={error.reason.value}"


async def _serve_stream(transport: trio.SocketStream, name: str, port: HttpService, limiter: ConnectionLimiter) -> None:
    if port.tls is None:
        await serve_connection(transport, port.respond, limiter, port.limits)
        return
    try:
        with limiter.waiting(trio.current_time() + port.limits.header) as wait:
            stream = await accept_tls(transport, port.tls)
    except (TlsError, PeerDenied, trio.BrokenResourceError) as error:
        reason = error.reason.value if isinstance(error, TlsError | PeerDenied) else "reset"
        words = _count_flood(error, port)
        port.log_refusal(name, reason, f"http: TLS handshake error from {escape(name)}: {escape(str(error))}{words}")
        await linger(transport)
        return
    if wait.cancelled_caught:
        if wait.deadline <= trio.current_time():
            port.log_refusal(name, "timeout", f"http: TLS handshake error from {escape(name)}: i/o timeout")
        return
    async with stream:
        await serve_connection(stream, port.respond, limiter, port.limits)
