"""What is recorded about ended connections for status ports: traffic by peer, and recent refusals."""

from __future__ import annotations

from tunnel.authz.peer import peer_name
from tunnel.config.access_suggestion import suggest_access
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log import escape, escape_detail
from tunnel.log_limit import source_of
from tunnel.status.peer_table import PeerKey, PeerTable
from tunnel.status.recent_refusals import RecentRefusal, RecentRefusals

_NOT_OBSERVED = {ConnectionOutcome.STOPPED, ConnectionOutcome.CLIENT_GONE, ConnectionOutcome.ACME_CHALLENGE}


class ConnectionObservation:
    """Counts connections by peer and keeps recent refusals; one for all listeners of the process."""

    def __init__(self) -> None:
        self.peers = PeerTable()
        self.refusals = RecentRefusals()

    def add(self, record: ConnectionRecord) -> None:
        """Observe a connection that has ended."""
        if record.outcome is ConnectionOutcome.RELAYED:
            key = PeerKey(record.listener_name, peer_name(record.peer, record.rule))
            self.peers.add(key, record.forwarded, record.returned, record.time)
        elif record.reason and record.outcome not in _NOT_OBSERVED:
            self.refusals.add(describe_refusal(record))


def describe_refusal(record: ConnectionRecord) -> RecentRefusal:
    """Describe a connection that was not relayed, and what would admit its peer."""
    suggestion = suggest_access(record.peer, record.reason, is_server=record.is_server)
    return RecentRefusal(
        time=record.time,
        listener=record.listener_name,
        is_server=record.is_server,
        source=escape(source_of(record.source)),
        peer=peer_name(record.peer, record.rule) if record.peer is not None or record.rule else "",
        outcome=record.outcome.value,
        reason=record.reason,
        detail=escape_detail(record.detail),
        flag=suggestion.flag,
        entry=suggestion.entry,
    )
