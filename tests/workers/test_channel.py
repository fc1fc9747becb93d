"""The socket pair between a parent and a worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from tunnel.relay.loop import Loop
from tunnel.workers import channel
from tunnel.workers.channel import MAX_BACKLOG, Channel
from tunnel.workers.codec import decode_trusted


@dataclass
class End:
    """One end, and what it has received."""

    channel: Channel = field(init=False)
    messages: list[object] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)
    ends: list[Exception | None] = field(default_factory=list)

    def take(self, message: object, sock: socket.socket | None) -> None:
        self.messages.append(message)
        if sock is not None:
            self.sockets.append(sock)
        assert message != "bug"


@dataclass
class Pair:
    loop: Loop
    ours: End
    theirs: End

    def turn_until(self, is_so: object) -> None:
        for _ in range(10_000):
            if is_so():  # type: ignore[operator]
                return
            self.loop.turn(0.01)
        raise AssertionError("it never became so")


@pytest.fixture
def pair() -> Iterator[Pair]:
    with closing(Loop()) as loop:
        ours, theirs = End(), End()
        for end, sock in zip((ours, theirs), socket.socketpair(), strict=True):
            end.channel = Channel(loop, sock, decode_trusted, end.take, end.ends.append)
        yield Pair(loop, ours, theirs)
        for end in (ours, theirs):
            end.channel.close()
            for sock in end.sockets:
                sock.close()
        loop.turn(0)


def test_messages_arrive_in_their_order(pair: Pair) -> None:
    for number in range(1000):
        pair.ours.channel.send(number)
    pair.turn_until(lambda: len(pair.theirs.messages) == 1000)
    assert pair.theirs.messages == list(range(1000))
    assert pair.ours.channel.backlog == 0


def test_slow_messages_leave_turns_to_others_and_come_before_the_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 generations are built in slices, and the end of the other process is not read before they are."""
    monkeypatch.setattr(channel, "_SLICE", 0.0)
    for number in range(20):
        pair.ours.channel.send(number)
    pair.ours.channel.close()
    turns = 0
    while not pair.theirs.ends:
        before = len(pair.theirs.messages)
        pair.loop.turn(0.01)
        turns += 1
        assert len(pair.theirs.messages) - before <= 2, "one at the event, one at the end of the pause"
    assert pair.theirs.messages == list(range(20))
    assert turns >= 10


def test_a_process_that_sends_without_end_does_not_keep_the_loop(pair: Pair) -> None:
    pair.ours.channel.send(bytes(4_000_000))
    pair.loop.turn(0.01)
    assert len(pair.theirs.channel._received) <= 256 * 1024


def test_a_message_larger_than_all_buffers_arrives(pair: Pair) -> None:
    large = os.urandom(5_000_000)
    pair.ours.channel.send(large)
    pair.ours.channel.send("after")
    assert pair.ours.channel.backlog > MAX_BACKLOG
    assert pair.ours.channel.is_full
    pair.turn_until(lambda: len(pair.theirs.messages) == 2)
    assert pair.theirs.messages == [large, "after"]
    assert not pair.ours.channel.is_full


def test_a_socket_arrives_with_its_message(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        pair.ours.channel.send(os.urandom(1_000_000))  # it fills the buffers: the sockets must wait
        pair.ours.channel.send("one", one)
        pair.ours.channel.send("nothing")
        pair.ours.channel.send("other", other)
        names = [one.getsockname(), other.getsockname()]
    pair.turn_until(lambda: len(pair.theirs.messages) == 4)
    assert [sock.getsockname() for sock in pair.theirs.sockets] == names


def test_the_end_of_the_other_process_is_reported_once_after_its_last_message(pair: Pair) -> None:
    pair.ours.channel.send("last")
    pair.ours.channel.close()
    pair.turn_until(lambda: pair.theirs.ends)
    pair.loop.turn(0)
    assert (pair.theirs.messages, pair.theirs.ends, pair.ours.ends) == (["last"], [None], [])
    pair.theirs.channel.send("nobody reads this")


def test_a_bug_in_the_handling_of_a_message_closes_the_channel(pair: Pair) -> None:
    pair.ours.channel.send("bug")
    pair.turn_until(lambda: pair.theirs.ends and pair.ours.ends)
    (crash,) = pair.theirs.ends
    assert isinstance(crash, AssertionError)


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff\x00", b"\x00\x00\x00\x01\x07.", b"\x00\x00\x00\x03\x00abc"], ids=["size", "sockets", "body"]
)
def test_what_is_no_message_closes_the_channel(data: bytes) -> None:
    with closing(Loop()) as loop:
        end = End()
        sock, raw = socket.socketpair()
        with raw:
            end.channel = Channel(loop, sock, decode_trusted, end.take, end.ends.append)
            raw.send(data)
            while not end.ends:
                loop.turn(0.01)
        assert end.ends[0] is not None
        assert end.messages == []
        loop.turn(0)
