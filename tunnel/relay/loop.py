"""The event loop of the data plane, which also hosts trio.

Rules for changes to this file:

1. Descriptors are watched edge-triggered, once for their whole life: a handler must read until EAGAIN or call `call_again`,
   and must accept calls without an event.
2. A descriptor is closed after the batch in which it was retired: else an event could reach a new socket with its number.
3. A handler may append `(descriptor, FLUSH)` to `batch`: to send at the end of the batch what was read in it. A receiver that
   sleeps then wakes once per batch, and not for each message, which costs the sender as much as the message.
4. Trio is a guest (`trio.lowlevel.start_guest_run`): it costs nothing while it waits.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:  # loaded by the first call that needs it: a worker has no trio
    from concurrent.futures import Future, ThreadPoolExecutor

    import outcome

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
HANGUP: Final = select.EPOLLHUP | select.EPOLLERR
ENDING: Final = select.EPOLLRDHUP | select.EPOLLPRI | HANGUP  # after these, a short read does not mean that nothing is left
_HOT: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET

FLUSH: Final = 1 << 20  # not an event of epoll: the end of the batch
_BATCH = 64  # events; what a handler defers to the end waits for all of them
_NO_FD = -1
_STALE_TIMERS = 512
_THREADS = 64  # at most; further calls wait for a free one

T = TypeVar("T")

Handler = Callable[[int], None]


class Owner(Protocol):
    """What owns a handler or a timer; an exception in one of them ends the owner only."""

    def crashed(self, crash: Exception) -> None:
        """Close everything after an unexpected exception."""


class Timer:
    """One deadline; cancelled in constant time."""

    __slots__ = ("action", "owner", "when")

    def __init__(self, when: float, action: Callable[[], None], owner: Owner | None) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action
        self.owner: Owner | None = owner

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


def _ignore(_events: int) -> None:
    """Ignore an event of a descriptor that is no longer watched."""


class Loop:
    """Runs until `stop`, on one thread; other threads may call `call_from_thread` only."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._epoll = select.epoll()
        self._handlers: list[Handler] = []  # by descriptor: a list index is the cheapest lookup
        self._owners: dict[int, Owner] = {}
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._timer_owner: Owner | None = None  # of the timer that fires now
        self._again: list[tuple[int, int]] = []
        self.batch: list[tuple[int, int]] | None = None  # the events that are handled now, if there are several
        self._soon: deque[Callable[[], object]] = deque()
        self._retired: list[socket.socket] = []
        self._from_threads: list[Callable[[], object]] = []
        self._lock = Lock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, IN)
        self._set_handler(self._wake_fd, self._take_from_threads)
        self._threads: ThreadPoolExecutor | None = None  # created for the first call that may block
        self._is_running = True
        self.on_unowned_crash: Callable[[Exception], None] | None = None

    def close(self) -> None:
        """Close the loop's own descriptors."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        self._epoll.close()
        os.close(self._wake_fd)

    # -- descriptors

    def watch(self, sock: socket.socket, handler: Handler, owner: Owner) -> None:
        """Call `handler` with the events of a hot socket, edge-triggered, until `retire`."""
        fd = sock.fileno()
        self._set_handler(fd, handler)
        self._owners[fd] = owner
        self._epoll.register(fd, _HOT)

    def watch_listener(self, sock: socket.socket, handler: Handler, owner: Owner) -> None:
        """Call `handler` while connections wait: level-triggered, so that it may leave some for later."""
        fd = sock.fileno()
        self._set_handler(fd, handler)
        self._owners[fd] = owner
        self._epoll.register(fd, IN)

    def watch_shared_listener(self, sock: socket.socket, handler: Handler, owner: Owner) -> None:
        """The same for a socket from which other processes accept too: a connection wakes one of those that wait.

        Watch it again after each connection: this process is then the last in the kernel's list, others get the next ones.
        """
        fd = sock.fileno()
        if fd in self._owners:
            self._epoll.unregister(fd)
        self._set_handler(fd, handler)
        self._owners[fd] = owner
        self._epoll.register(fd, IN | select.EPOLLEXCLUSIVE)

    def rewatch(self, sock: socket.socket, handler: Handler, owner: Owner) -> None:
        """Replace the handler of a watched socket, or watch it; earlier events are not repeated."""
        fd = sock.fileno()
        if fd in self._owners:
            self._handlers[fd] = handler
            self._owners[fd] = owner
        else:
            self.watch(sock, handler, owner)

    def unwatch(self, sock: socket.socket) -> None:
        """Stop watching a socket that stays open."""
        if self._owners.pop(sock.fileno(), None) is not None:
            self._handlers[sock.fileno()] = _ignore
            self._epoll.unregister(sock.fileno())

    def retire(self, sock: socket.socket) -> None:
        """Stop watching a socket and close it after the batch, which also removes it from the epoll set."""
        if self._owners.pop(sock.fileno(), None) is not None:
            self._handlers[sock.fileno()] = _ignore
        self._retired.append(sock)

    def _set_handler(self, fd: int, handler: Handler) -> None:
        missing = fd + 1 - len(self._handlers)
        if missing > 0:
            self._handlers.extend([_ignore] * missing)
        self._handlers[fd] = handler

    # -- deadlines and turns

    def call_at(self, when: float, action: Callable[[], None], owner: Owner) -> Timer:
        """Call `action` once the clock has reached `when`."""
        timer = Timer(when, action, owner)
        heapq.heappush(self._timers, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Cancel a timer; no effect if it has fired."""
        if timer.action is None:
            return
        timer.action = timer.owner = None
        self._cancelled += 1
        if self._cancelled > _STALE_TIMERS and self._cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if timer.action is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def call_again(self, sock: socket.socket) -> None:
        """Call a socket's handler without an event in the next turn: it has used up its share of this one."""
        self._again.append((sock.fileno(), 0))

    def call_soon(self, action: Callable[[], object]) -> None:
        """Call `action` at the end of this turn."""
        self._soon.append(action)

    def call_later(self, delay: float, action: Callable[[], object]) -> None:
        """Call `action` at the end of this turn, or of the first turn after `delay` seconds."""
        if delay > 0:
            heapq.heappush(self._timers, Timer(self.clock() + delay, lambda: self.call_soon(action), None))
        else:
            self.call_soon(action)

    def call_from_thread(self, action: Callable[[], object]) -> None:
        """Wake the loop and call `action` in the next turn; may be called from any thread."""
        with self._lock:
            self._from_threads.append(action)
        os.eventfd_write(self._wake_fd, 1)

    def call_in_thread(self, action: Callable[[], T], answer: Callable[[Future[T]], None], owner: Owner) -> Future[T]:
        """Call `action`, which may block, on a thread, then `answer` with its result in a turn of the loop.

        Cancelling the returned future prevents an action that has not begun.
        """
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tunnel")

        def hand_over(future: Future[T]) -> None:
            self.call_from_thread(lambda: self.call_at(0, partial(answer, future), owner))

        future = self._threads.submit(action)
        future.add_done_callback(hand_over)
        return future

    # -- running

    def run_trio(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run `main` with trio as a guest until it returns; raises its exception."""
        import trio

        results: list[outcome.Outcome[None]] = []

        def finish(result: outcome.Outcome[None]) -> None:
            results.append(result)
            self.stop()

        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=self.call_from_thread,
            run_sync_soon_not_threadsafe=self.call_soon,
            done_callback=finish,
        )
        self.run()
        for result in results:
            result.unwrap()

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._is_running = False

    def run(self) -> None:
        """Handle events until `stop`."""
        while self._is_running:
            self.turn()

    def turn(self, wait_limit: float = -1) -> None:
        """Wait for events (at most `wait_limit` seconds, or without limit if negative) and handle one batch."""
        if self._again or self._soon:
            wait_limit = 0
        elif self._timers:
            left = self._timers[0].when - self.clock()
            if left < 0:
                wait_limit = 0
            elif not 0 <= wait_limit < left:
                wait_limit = left
        ready = self._epoll.poll(wait_limit, _BATCH)
        if self._again:
            ready += self._again
            self._again = []
        self.batch = ready if len(ready) > 1 else None
        handlers = self._handlers
        rest = iter(ready)
        fd = _NO_FD
        while True:
            try:
                for fd, events in rest:
                    handlers[fd](events)
                fd = _NO_FD
                self.batch = None
                if self._timers and self._timers[0].when <= self.clock():
                    self._fire()
                break
            except Exception as crash:  # the only broad `except`: a bug ends its own session only
                if not self._report_crash(crash, self._timer_owner if fd == _NO_FD else self._owners.get(fd)):
                    raise
        if self._soon:
            for _ in range(len(self._soon)):
                self._soon.popleft()()
        if self._retired:
            for sock in self._retired:
                sock.close()
            self._retired.clear()

    def _report_crash(self, crash: Exception, owner: Owner | None) -> bool:
        """Report an exception to the owner; return whether anything takes it."""
        if owner is not None:
            owner.crashed(crash)
        elif self.on_unowned_crash is not None:  # the owner has retired its sockets already
            self.on_unowned_crash(crash)
        else:
            return False
        return True

    def _fire(self) -> None:
        now = self.clock()
        while self._timers and self._timers[0].when <= now:
            timer = heapq.heappop(self._timers)
            action, self._timer_owner = timer.action, timer.owner
            if action is None:
                self._cancelled -= 1
            else:
                timer.action = timer.owner = None
                action()
        self._timer_owner = None

    def _take_from_threads(self, _events: int) -> None:
        os.eventfd_read(self._wake_fd)
        with self._lock:
            actions, self._from_threads = self._from_threads, []
        self._soon.extend(actions)
