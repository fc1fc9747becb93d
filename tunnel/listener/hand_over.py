"""Closes a listener whose address has another listener, without a reset for clients that connect meanwhile.

A close resets the connections in the queue of the socket, and those whose TCP handshake is not complete (unless the sysctl
`net.ipv4.tcp_migrate_req` is set). So the kernel is first told to choose another socket; then the queue is emptied.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice

from tunnel.errors import describe_os_error
from tunnel.log import Log
from tunnel.net.holders import ListeningPorts
from tunnel.net.listen import Listener, Successor
from tunnel.net.reuseport import drop_new_connections, select_by_hash, select_socket
from tunnel.relay.loop import Loop, Owner, Timer

_INTERVAL = 0.5  # seconds: a TCP handshake that has begun completes within it, at the usual round-trip times
_NUMBERS = (1, 0)  # of sockets in the group. One is not ours. A process that was alone at its start has 0, and its successor 1
_ROUNDS = 4


class HandOver:
    """Runs while the owner accepts as before; calls `close`, which closes the listener, when nothing is lost by that.

    The number of our socket is unknown: if connections still arrive, another number is selected.
    """

    def __init__(
        self,
        loop: Loop,
        listener: Listener,
        log: Log,
        *,
        owner: Owner,
        count_accepted: Callable[[], int],
        close: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._log = log
        self._owner = owner
        self._count_accepted = count_accepted
        self._close = close
        self._name = str(listener)
        self._numbers: Iterator[int] = iter(())  # that are still to be tried
        self._first = self._seen = count_accepted()
        self._timer: Timer | None = None

    def start(self, successor: Successor) -> None:
        """Begin; connections that arrive until the end are the owner's."""
        self._log.info(f"handing over listener: another socket accepts connections: listen={self._name}")
        if successor is Successor.SAME_PATH:
            self._finish()
            return
        self._numbers = islice(cycle(_NUMBERS), _ROUNDS)
        if not self._select_next():
            self._drop_new()

    def end(self) -> None:
        """Close the listener now; connections in its queue are reset."""
        if self._timer is not None:
            self._loop.cancel(self._timer)
        if ListeningPorts().count_sharing(self._listener.socket) > 1:  # a single other socket gets all connections in any case
            with suppress(OSError):
                select_by_hash(self._listener.socket)
        self._close()
        accepted = self._count_accepted() - self._first
        self._log.info(f"listener closed after hand-over: listen={self._name} accepted={accepted}")

    def _select_next(self) -> bool:
        """Select the next number; False if all have been tried: the other socket has an overlapping address, or is gone."""
        number = next(self._numbers, None)
        if number is None:
            return False
        try:
            select_socket(self._listener.socket, number)
        except OSError as error:
            detail = describe_os_error(error)
            self._log.write(
                f"warning: hand-over: SO_ATTACH_REUSEPORT_CBPF is not available: {detail}; clients may wait or be reset"
            )
            return False
        self._after_interval(self._watch)
        return True

    def _watch(self) -> None:
        self._seen = self._count_accepted()
        self._after_interval(self._check)

    def _check(self) -> None:
        if not (self._has_arrived() and self._select_next()):
            self._drop_new()

    def _drop_new(self) -> None:
        """Keep the queue from growing, whatever socket is selected; then wait for the last handshakes."""
        try:
            drop_new_connections(self._listener.socket)
        except OSError as error:  # Linux 6.18 requires CAP_NET_ADMIN
            self._log.info(f"hand-over: SO_ATTACH_FILTER is not available: {describe_os_error(error)}")
        self._seen = self._count_accepted()
        self._after_interval(self._finish)

    def _finish(self) -> None:
        if self._has_arrived() and self._select_next():
            return
        if _has_queue(self._listener):
            self._after_interval(self._finish)
        else:
            self.end()

    def _has_arrived(self) -> bool:
        return self._count_accepted() != self._seen

    def _after_interval(self, action: Callable[[], None]) -> None:
        self._timer = self._loop.call_at(self._loop.clock() + _INTERVAL, action, self._owner)


def _has_queue(listener: Listener) -> bool:
    """Whether connections wait to be accepted; an error counts as none."""
    poll = select.poll()
    poll.register(listener.socket, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))
