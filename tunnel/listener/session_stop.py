"""Why a session ends before its relay: the failures that are raised in its steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tunnel.errors import LimitExceeded, PeerDenied, TargetError, TargetFault, TlsError, TlsFault, WireError
from tunnel.listener.connection_log import show_address
from tunnel.listener.connection_progress import ConnectionProgress
from tunnel.listener.connection_record import ConnectionOutcome
from tunnel.relay.handshake import Handshake
from tunnel.relay.proxy_header import HeaderWriter
from tunnel.relay.step import AcmeChallengeAnswered, ClosedWithoutData, NoUsableIdentity, Step
from tunnel.relay.thread_call import ThreadCall


class SessionStopped(Exception):
    """The connection ends before its relay, for a reason other than a failed handshake or dial."""

    def __init__(self, outcome: ConnectionOutcome, reason: str = "", detail: str = "") -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.reason = reason


def client_gone() -> SessionStopped:
    """Return the failure of a session whose client hangs up while a step waits for something else."""
    detail = "client closed the connection before the target was connected"
    return SessionStopped(ConnectionOutcome.CLIENT_GONE, "client-gone", detail)


FAILURES = (
    TlsError,
    PeerDenied,
    LimitExceeded,
    TargetError,
    SessionStopped,
    NoUsableIdentity,
    ClosedWithoutData,
    AcmeChallengeAnswered,
)


def outcome_of(error: Exception) -> tuple[ConnectionOutcome, str]:
    """Return the outcome and the reason of a session that has ended with one of `FAILURES`."""
    match error:
        case TlsError() | PeerDenied():
            return ConnectionOutcome.REFUSED, error.reason.value
        case LimitExceeded():
            return ConnectionOutcome.OVER_LIMIT, error.reason.value
        case TargetError():
            return ConnectionOutcome.DIAL_FAILED, error.reason.value
        case SessionStopped():
            return error.outcome, error.reason
        case NoUsableIdentity():
            return ConnectionOutcome.NO_IDENTITY, ""
        case ClosedWithoutData():
            return ConnectionOutcome.CLOSED_WITHOUT_DATA, ""
        case _:
            return ConnectionOutcome.ACME_CHALLENGE, ""


@contextmanager
def header_failures() -> Iterator[None]:
    """Translate the failure to build or to write a PROXY header."""
    try:
        yield
    except (WireError, TargetError) as error:
        verb = "building" if isinstance(error, WireError) else "writing"
        detail = f"{verb} proxy header: {error}"
        raise SessionStopped(ConnectionOutcome.HEADER_FAILED, error.reason.value, detail) from error


def timeout_of(step: Step | None, limit: str, progress: ConnectionProgress) -> TlsError | TargetError:
    """Return the error of a session that has exceeded a limit while it waited for this step."""
    match step:
        case Handshake(is_waiting=True):
            slots = f"none of {progress.config.max_handshakes} handshake slots became free"
            return TlsError(TlsFault.BUSY, f"{slots}: {limit}")
        case Handshake():
            return TlsError(TlsFault.TIMEOUT, limit)
        case _ if progress.config.is_server and progress.admitted is None:  # it waits for the first bytes
            return TlsError(TlsFault.TIMEOUT, limit)
        case ThreadCall():
            return TlsError(TlsFault.TIMEOUT, f"access policy: {limit}")
        case HeaderWriter():
            return TargetError(TargetFault.TIMEOUT, f"{show_address(progress.target)}: {limit}")
        case _:
            route = progress.pooled.route if progress.pooled is not None else None
            where = route.via_proxy if route is not None and route.via_proxy is not None else progress.target_name
            return TargetError(TargetFault.TIMEOUT, f"{where}: {limit}")
