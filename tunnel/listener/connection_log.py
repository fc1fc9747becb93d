"""The log lines about connections: those of ghostunnel, with our fields at the end.

A new field is a field of ConnectionRecord and a part of a line here.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from tunnel.authz.peer import Peer, describe_admission
from tunnel.errors import PeerDenied, TargetError, TlsError, TlsFault
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log import Category, Log, escape
from tunnel.log_limit import RefusalLog
from tunnel.relay.close_reason import CloseReason

_MAX_PEERS = 256  # whose texts are kept
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_WITHOUT_ERROR_LINE = {  # their closing line is enough
    CloseReason.CLOSED,
    CloseReason.RESET_BY_PEER,
    CloseReason.RESET_BY_PLAIN,
    CloseReason.SHUTDOWN,
    CloseReason.CRASH,
    CloseReason.WITHDRAWN,  # it has a line of its own
}


class Retry(NamedTuple):
    """Another target is tried, because this one has failed."""

    time: float  # Unix time
    source: str
    target: str
    reason: str
    detail: str  # printable


def describe_retry(source: str, target: str, error: TlsError | PeerDenied | TargetError) -> Retry:
    """Describe that another target is tried."""
    detail = str(error) if isinstance(error, TargetError) else escape(str(error))  # a peer chooses parts of the others
    return Retry(time.time(), source, target, error.reason.value, detail)


class ConnectionLog:
    """Writes the lines about the connections of one listener, with a limit for equal refusals."""

    shows_tls_names = False

    def __init__(self, log: Log, refusals: RefusalLog, fields: str = "") -> None:
        """`fields` end each line about a refusal, as `log` ends the others."""
        self._log = log
        self._refusals = refusals
        self._fields = f" {fields}" if fields else ""
        self._peers: dict[int, tuple[Peer | None, str, str, str]] = {}  # by object: peer, rule, subject, admission

    @property
    def shows_openings(self) -> bool:
        """Whether `write_opening` writes anything."""
        return self._log.is_enabled(Category.CONNS)

    def write_opening(self, record: ConnectionRecord) -> None:
        """Log the start of a relay."""
        subject, admission = self._describe_peer(record)
        self._log.write(f"opening pipe: {_describe_ends(record, subject)} {admission}", Category.CONNS, at=record.time)

    def write_retry(self, source: str, target: str, error: TlsError | PeerDenied | TargetError) -> None:
        """Log that another target is tried, because this one has failed."""
        self.write_described_retry(describe_retry(source, target, error))

    def write_described_retry(self, retry: Retry) -> None:
        """The same for a description."""
        fields = f"reason={retry.reason} from={show_address(retry.source)}{self._fields}"
        message = f"target failed, trying another one: {show_address(retry.target)}: {retry.detail} {fields}"
        self._refusals.write(retry.source, retry.reason, message, Category.CONN_ERRORS, retry.time)

    def write_end(self, record: ConnectionRecord) -> None:
        """Log the end of a connection."""
        if record.close_reason is not None:
            self._write_relay(record, record.close_reason)
        elif record.outcome is ConnectionOutcome.ACME_CHALLENGE:
            self._log.write(f"closed ACME challenge from {_bare_address(record.source)}", Category.CONNS, at=record.time)
        elif record.reason:
            is_handshake = record.outcome is ConnectionOutcome.REFUSED and record.is_server
            category = Category.HANDSHAKE_ERRORS if is_handshake else Category.CONN_ERRORS
            line = f"{describe_failure(record)}{self._fields}"
            self._refusals.write(record.source, record.reason, line, category, record.time)

    def _write_relay(self, record: ConnectionRecord, close_reason: CloseReason) -> None:
        if close_reason not in _WITHOUT_ERROR_LINE:
            what = "the peer refused us: " if close_reason is CloseReason.REFUSED_BY_PEER else ""
            fields = f"{describe_admission(record.peer, record.rule)} reason={close_reason.value}"
            self._log.write(f"error during copy: {what}{escape(record.detail)} {fields}", Category.CONN_ERRORS, at=record.time)
        elif close_reason is CloseReason.WITHDRAWN:
            line = f"{describe_withdrawal(record)}{self._fields}"
            self._refusals.write(record.source, record.reason, line, Category.CONN_ERRORS, record.time)
        if self._log.is_enabled(Category.CONNS):
            subject, admission = self._describe_peer(record)
            ends, sizes = _describe_ends(record, subject), _describe_sizes(record)
            line = f"closed pipe: {ends} [{sizes}] {admission} end={close_reason.value}"
            self._log.write(line, Category.CONNS, at=record.time)

    def _describe_peer(self, record: ConnectionRecord) -> tuple[str, str]:
        """Return the subject and the admission of a peer as text; connections of one peer share it, and so do its lines."""
        known = self._peers.get(id(record.peer))
        if known is None or known[0] is not record.peer or known[1] != record.rule:
            if len(self._peers) >= _MAX_PEERS:
                self._peers.clear()
            subject = "no tls" if record.is_plaintext else "no cert" if record.peer is None else escape(record.peer.subject)
            known = record.peer, record.rule, subject, describe_admission(record.peer, record.rule)
            self._peers[id(record.peer)] = known
        return known[2:]


def describe_withdrawal(record: ConnectionRecord) -> str:
    """Return the line for a relay that was closed because its peer is no longer admitted, or a certificate was lost."""
    fields = f"from={show_address(record.source)} {describe_admission(record.peer, record.rule)} reason={record.reason}"
    return f"closing connection: {escape(record.detail)} {fields}"


def describe_failure(record: ConnectionRecord) -> str:
    """Return the line for a connection that was not relayed."""
    reason = f"reason={record.reason}"
    source = f"from={show_address(record.source)}"
    peer_fields = f"{source} {describe_admission(record.peer, record.rule)}" if record.rule else source
    match record.outcome:
        case ConnectionOutcome.REFUSED if record.is_server:
            return f"error on TLS handshake from {_bare_address(record.source)}: {escape(record.detail)} {reason}"
        case ConnectionOutcome.REFUSED:
            via = f"{record.target_name} through {record.via_proxy}" if record.via_proxy else show_address(record.target)
            what = "the server refused us: " if record.reason == TlsFault.REFUSED.value else ""
            return f"error on dial: TLS handshake with {via}: {what}{escape(record.detail)} {reason} {peer_fields}"
        case ConnectionOutcome.OVER_LIMIT:
            return f"refused connection: {record.detail} {reason} {peer_fields}"
        case ConnectionOutcome.HEADER_FAILED:
            return f"error {record.detail} {reason} {peer_fields}"
        case ConnectionOutcome.WRONG_LOCAL_USER:
            return f"refused local connection: {record.detail} {reason} {source}"
        case _:
            return f"error on dial: {record.detail} {reason} {peer_fields}"


def _describe_sizes(record: ConnectionRecord) -> str:
    sizes = f"forwarded {format_size(record.forwarded)}, returned {format_size(record.returned)}"
    return f"{sizes}, open {format_duration(record.seconds)}"


def _describe_ends(record: ConnectionRecord, subject: str) -> str:
    accepted, dialled = (subject, "no tls") if record.is_server else ("no tls", subject)
    return f"{show_address(record.source)} [{accepted}] <-> {show_address(record.target)} [{dialled}]"


def _bare_address(address: str) -> str:
    return show_address(address).removeprefix("tcp:")


def show_address(text: str) -> str:
    """Escape the address of a socket: the path of a Unix socket may contain any character."""
    return text if text.startswith("tcp:") else escape(text)


def format_size(size: int) -> str:
    """Format a size as `12 bytes` or `1.2 KiB`."""
    if size < 1024:
        return f"{size} bytes"
    value = float(size)
    for unit in _UNITS:
        value /= 1024
        if value < 1024 or unit == _UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Format a duration in Go's notation, rounded to milliseconds above one: `532us`, `345ms`, `1m3.2s`."""
    if seconds < 0.0009995:  # above, it rounds to a whole millisecond, and so again with the second
        return f"{max(seconds, 0) * 1e6:.0f}us"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
