"""What the tunnels of one process share, because their events run one after the other on one loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tunnel.lazy_dataclass import dataclass, field
from tunnel.listener.connection_log import ConnectionLog
from tunnel.listener.connection_record import ConnectionRecord
from tunnel.log import Log
from tunnel.log_limit import RefusalLog
from tunnel.relay.buffer_trimmer import BufferTrimmer
from tunnel.relay.handshake_slots import HandshakeTurns
from tunnel.relay.loop import Loop
from tunnel.tls.records import Buffers

if TYPE_CHECKING:  # loaded only with an access log
    from tunnel.listener.access_log import AccessLog


@dataclass(frozen=True, slots=True)
class SharedResources:
    """The buffers, limits and timers of one event loop."""

    loop: Loop
    log: Log
    buffers: Buffers
    buffer_trimmer: BufferTrimmer
    refusals: RefusalLog
    turns: HandshakeTurns
    observers: list[Callable[[ConnectionRecord], object]] = field(default_factory=list)  # called at the end of each connection
    access_log: AccessLog | None = None
    names_listeners: bool = False  # log lines about a listener have its name: the process has several, or may have

    def dropped_lines(self) -> Mapping[str, int]:
        """Lines that were dropped since the start: of the log, and of the access log if it has an output of its own."""
        dropped = {"log": self.log.dropped_total}
        if self.access_log is not None and self.access_log.has_own_output:
            dropped["access"] = self.access_log.output.dropped
        return dropped

    def open_connection_log(self, log: Log, fields: str) -> ConnectionLog:
        """Create the connection log of a listener, whose lines go to `log` and have these fields."""
        if self.access_log is None:
            return ConnectionLog(log, self.refusals, fields)
        from tunnel.listener.access_log import AccessConnectionLog

        return AccessConnectionLog(self.access_log, log, self.refusals, fields)


def open_shared_resources(
    loop: Loop, log: Log, *, access_log: AccessLog | None = None, names_listeners: bool = False
) -> SharedResources:
    """Create them for a loop."""
    refusals = RefusalLog(log, loop.clock, loop.call_later)
    return SharedResources(
        loop,
        log,
        Buffers(),
        BufferTrimmer(loop),
        refusals,
        HandshakeTurns(loop),
        access_log=access_log,
        names_listeners=names_listeners,
    )
