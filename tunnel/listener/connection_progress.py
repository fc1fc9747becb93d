"""What is known about a connection so far, from which its record is made."""

from __future__ import annotations

import time
from collections.abc import Callable

from tunnel.authz.authorizer import Admitted
from tunnel.authz.peer import Peer
from tunnel.config.model import ListenerConfig
from tunnel.listener.connection_log import ConnectionLog
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.listener.target_pool import PooledTarget
from tunnel.listener.targets import Targets
from tunnel.relay.close_reason import CloseReason
from tunnel.status.counters import Counters
from tunnel.tls.engine import TlsEnd
from tunnel.tls.negotiated import NO_NAMES, TlsNames, TlsParameters, share_names


class ConnectionProgress:
    """The facts of one connection; the session changes them while its steps run. Times are seconds after accept."""

    __slots__ = (
        "_clock",
        "_listener",
        "_targets",
        "accepted_at",
        "admitted",
        "config",
        "dial_began",
        "dial_seconds",
        "handshake_began",
        "handshake_seconds",
        "pooled",
        "source",
        "target",
        "tls",
        "tls_names",
    )

    def __init__(
        self, config: ListenerConfig, listener: str, targets: Targets, source: str, clock: Callable[[], float]
    ) -> None:
        self._listener = listener
        self._targets = targets
        self._clock = clock
        self.config = config  # at accept: a reload may give the listener another
        self.source = source
        self.accepted_at = clock()
        self.pooled: PooledTarget | None = None  # from its choice to the end of the connection
        self.target = ""
        self.admitted: Admitted | None = None
        self.tls: TlsParameters | None = None
        self.tls_names: TlsNames = NO_NAMES  # shared by connections with the same names
        self.handshake_began: float | None = None
        self.handshake_seconds: float | None = None
        self.dial_began: float | None = None
        self.dial_seconds: float | None = None

    def age(self) -> float:
        """Seconds since accept."""
        return self._clock() - self.accepted_at

    def end_handshake(self, admitted: Admitted, tls: TlsParameters, counters: Counters) -> None:
        """Note a successful handshake, which has begun."""
        age = self.age()
        assert self.handshake_began is not None
        self.admitted, self.tls, self.handshake_seconds = admitted, tls, age - self.handshake_began
        if self.config.is_server and counters.handshake is not None:
            counters.handshake.update(int(age * 1e9))
        if counters.durations is not None:
            counters.durations.handshake.add(self.handshake_seconds)

    def end_dial(self, target: str, counters: Counters) -> None:
        """Note the address that was connected by a dial, which has begun."""
        assert self.dial_began is not None
        self.target, self.dial_seconds = target, self.age() - self.dial_began
        if counters.durations is not None:
            counters.durations.dial.add(self.dial_seconds)

    @property
    def target_name(self) -> str:
        """The target as it is configured: the chosen one, or all of them."""
        return self.pooled.route.target_name if self.pooled is not None else self._targets.name

    def read_names(self, end: TlsEnd | None, log: ConnectionLog) -> None:
        """Keep the names that both sides have agreed on, if the log shows them."""
        if end is not None and log.shows_tls_names:
            self.tls_names = share_names(end.server_name(), end.alpn() if self.config.tls.protocols else b"")

    def forget_handshake(self) -> None:
        """Forget the handshake with a server: another target is tried."""
        self.admitted = self.tls = self.handshake_began = self.handshake_seconds = None
        self.tls_names = NO_NAMES

    def forget_dial(self) -> None:
        """Forget the address that was connected: another target is tried."""
        self.target, self.dial_seconds = "", None

    def make_record(
        self,
        outcome: ConnectionOutcome,
        reason: str,
        detail: str,
        peer: Peer | None,
        traffic: tuple[int, int],
        close_reason: CloseReason | None,
        *,
        has_fin_without_close_notify: bool,
    ) -> ConnectionRecord:
        """Return the record of this moment."""
        admitted, route = self.admitted, self.pooled.route if self.pooled is not None else None
        return ConnectionRecord(
            outcome=outcome,
            is_server=self.config.is_server,
            listener=self._listener,
            source=self.source,
            seconds=self.age(),
            time=time.time(),
            listener_name=self.config.name,
            target=self.target,
            target_name=self.target_name,
            via_proxy=route.proxy_name if route is not None else "",
            peer=admitted.peer if admitted is not None else peer,
            rule=admitted.rule if admitted is not None else "",
            reason=reason,
            detail=detail,
            tls=self.tls,
            handshake_seconds=self.handshake_seconds,
            dial_seconds=self.dial_seconds,
            handshake_began=self.handshake_began,
            dial_began=self.dial_began,
            forwarded=traffic[0],
            returned=traffic[1],
            server_name=self.tls_names.server_name,
            alpn=self.tls_names.alpn,
            close_reason=close_reason,
            has_fin_without_close_notify=has_fin_without_close_notify,
        )
