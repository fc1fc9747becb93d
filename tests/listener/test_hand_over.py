"""A listener that hands over: whatever number it has, all connections that reached it are accepted before it closes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from tests.support.recorded_log import RecordedLog
from tests.support.socket_pairs import Clock
from tunnel.listener import hand_over
from tunnel.listener.hand_over import HandOver
from tunnel.net.address import parse_address
from tunnel.net.listen import Listener, Successor, open_listener
from tunnel.relay.loop import Loop

HALF_SECOND = 0.5


class Acceptor:
    """Accepts all connections of one listener in the turns of its loop, until it is closed."""

    def __init__(self, listener: Listener, *, is_full: bool = False) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.listener = listener
        self.log = RecordedLog()
        self.accepted = 0
        self.is_closed = False
        self.hand_over = HandOver(
            self.loop, listener, self.log, owner=self, count_accepted=lambda: self.accepted, close=self._close
        )
        self.loop.watch_listener(listener.socket, self._accept, self)
        if is_full:
            self.loop.unwatch(listener.socket)

    def resume(self) -> None:
        self.loop.watch_listener(self.listener.socket, self._accept, self)

    def later(self, intervals: int = 1) -> None:
        for _ in range(intervals):
            self.loop.turn(0)
            self.clock.now += HALF_SECOND
            self.loop.turn(0)

    def crashed(self, crash: Exception) -> None:
        raise AssertionError from crash

    def _accept(self, _events: int) -> None:
        with suppress(BlockingIOError):
            while True:
                self.listener.socket.accept()[0].close()
                self.accepted += 1

    def _close(self) -> None:
        self.loop.unwatch(self.listener.socket)
        self.listener.close()
        self.is_closed = True


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_group(stack: ExitStack, size: int) -> list[Listener]:
    first = stack.enter_context(closing(open_listener(parse_address("127.0.0.1:0"))))
    return [first, *(open_shared(stack, first) for _ in range(size - 1))]


def open_shared(stack: ExitStack, listener: Listener) -> Listener:
    """One more listener on the port of that one."""
    return stack.enter_context(closing(open_listener(parse_address(f"127.0.0.1:{listener.socket.getsockname()[1]}"))))


def refuse_option(monkeypatch: pytest.MonkeyPatch, option: str = "drop_new_connections") -> None:
    """Let the kernel refuse a socket option."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    monkeypatch.setattr(hand_over, option, refuse)


def hand_over_of(stack: ExitStack, listener: Listener, *, is_full: bool = False) -> Acceptor:
    acceptor = Acceptor(listener, is_full=is_full)
    stack.callback(acceptor.loop.close)
    return acceptor


def connect(listener: Listener, count: int = 20) -> None:
    for _ in range(count):
        socket.create_connection(listener.socket.getsockname()).close()


@pytest.mark.parametrize(("size", "ours"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_after_some_time_new_connections_go_to_the_others(stack: ExitStack, size: int, ours: int) -> None:
    group = open_group(stack, size)
    acceptor = hand_over_of(stack, group[ours])
    acceptor.hand_over.start(Successor.SAME_PORT)
    others = [listener for listener in group if listener is not group[ours]]
    for _ in range(6):
        connect(others[0])
        acceptor.later()
    before = acceptor.accepted
    connect(others[0])
    acceptor.later(2)
    assert acceptor.accepted == before <= 40
    assert acceptor.is_closed
    connect(others[0])  # by hash again: refused if the closed socket were still selected
    assert acceptor.log.kept[-1].endswith(f" accepted={before}")


def test_the_selection_ends_with_the_hand_over(stack: ExitStack) -> None:
    """Also if one process is left, and another one comes later."""
    for size in (2, 3):
        group = open_group(stack, size)
        acceptor = hand_over_of(stack, group[0])
        acceptor.hand_over.start(Successor.SAME_PORT)
        acceptor.later(3)
        assert acceptor.is_closed
        others = [hand_over_of(stack, listener) for listener in (*group[1:], open_shared(stack, group[1]))]
        connect(group[1], 100)
        for other in others:
            other.later()
        assert all(other.accepted for other in others)


def test_a_selection_that_another_process_has_undone_is_repeated(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_option(monkeypatch)
    ours, other = open_group(stack, 2)
    acceptor = hand_over_of(stack, ours)
    acceptor.hand_over.start(Successor.SAME_PORT)
    acceptor.later(2)
    open_shared(stack, other)
    connect(other, 100)
    acceptor.later()
    assert acceptor.accepted > 0
    assert not acceptor.is_closed
    acceptor.later(3)
    assert acceptor.is_closed


def test_without_connections_the_listener_closes_soon(stack: ExitStack) -> None:
    ours, _ = open_group(stack, 2)
    acceptor = hand_over_of(stack, ours)
    acceptor.hand_over.start(Successor.SAME_PORT)
    acceptor.later(2)
    assert not acceptor.is_closed
    acceptor.later()
    assert acceptor.is_closed


def test_a_listener_that_is_left_alone_closes_all_the_same(stack: ExitStack) -> None:
    ours, other = open_group(stack, 2)
    acceptor = hand_over_of(stack, ours)
    acceptor.hand_over.start(Successor.SAME_PORT)
    other.close()
    for _ in range(8):  # 4 rounds of 2 intervals
        connect(ours, 1)
        acceptor.later()
        assert not acceptor.is_closed
    acceptor.later()
    assert acceptor.is_closed
    assert acceptor.accepted == 8


@pytest.mark.parametrize("successor", [Successor.SAME_PORT, Successor.SAME_PATH])
def test_a_queue_that_the_limit_of_connections_holds_is_waited_for(stack: ExitStack, successor: Successor) -> None:
    ours, _ = open_group(stack, 2)
    acceptor = hand_over_of(stack, ours, is_full=True)
    connect(ours)
    acceptor.hand_over.start(successor)
    acceptor.later(20)
    assert not acceptor.is_closed
    acceptor.resume()
    while not acceptor.is_closed:
        acceptor.later()
    assert acceptor.accepted > 0
    assert not [line for line in acceptor.log.kept if "warning" in line]


def test_a_listener_whose_path_is_taken_closes_as_soon_as_its_queue_is_empty(stack: ExitStack) -> None:
    (ours,) = open_group(stack, 1)
    acceptor = hand_over_of(stack, ours)
    acceptor.hand_over.start(Successor.SAME_PATH)
    assert acceptor.is_closed


def test_the_end_can_be_demanded(stack: ExitStack) -> None:
    ours, _ = open_group(stack, 2)
    acceptor = hand_over_of(stack, ours)
    acceptor.hand_over.start(Successor.SAME_PORT)
    acceptor.hand_over.end()
    assert acceptor.is_closed
    acceptor.later(10)  # no timer is left


@pytest.mark.parametrize("option", ["select_socket", "drop_new_connections"])
def test_what_the_kernel_refuses_is_logged_and_left_out(stack: ExitStack, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    refuse_option(monkeypatch, option)
    ours, _ = open_group(stack, 2)
    acceptor = hand_over_of(stack, ours)
    acceptor.hand_over.start(Successor.SAME_PORT)
    acceptor.later(3)
    assert acceptor.is_closed
    name = {"select_socket": "SO_ATTACH_REUSEPORT_CBPF", "drop_new_connections": "SO_ATTACH_FILTER"}[option]
    assert any(f"hand-over: {name} is not available: protocol not available" in line for line in acceptor.log.kept)
