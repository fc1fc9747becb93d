"""A TLS client is told from a plain one at every split of its first bytes, and these bytes stay in the socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.support.socket_pairs import Clock, received, tcp_pair, unix_pair
from tunnel.errors import TlsError, TlsFault
from tunnel.relay.first_bytes import FirstBytes
from tunnel.relay.linger import reset
from tunnel.relay.loop import Loop
from tunnel.relay.step import ClosedWithoutData

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
PLAIN = b"PING\r\n"
BOTH_FAMILIES = pytest.mark.parametrize("make", [unix_pair, tcp_pair], ids=["unix", "tcp"])
Pair = tuple[socket.socket, socket.socket]


class Client:
    """A client and the step that waits for its first bytes, with a clock that only the test advances."""

    def __init__(self, pair: Pair, silence: float = 0.0) -> None:
        self.clock = Clock()
        self.loop = Loop(self.clock)
        self.near, self.far = pair
        self.outcome: list[object] = []
        self.step = FirstBytes(self.loop, self, self.near, silence)

    def step_done(self, result: object) -> None:
        self.outcome.append(result)

    def step_failed(self, error: Exception, final_data: bytes = b"") -> None:
        self.outcome.append(error)

    def crashed(self, crash: Exception) -> None:
        raise crash

    def start(self) -> None:
        self.step.start()
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.loop.turn(0)

    def send(self, data: bytes) -> None:
        self.far.sendall(data)
        self.turn()

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turn()

    def close(self) -> None:
        self.loop.close()
        self.near.close()
        self.far.close()


Clients = Callable[..., Client]


@pytest.fixture
def clients() -> Iterator[Clients]:
    made: list[Client] = []

    def make(*args: object, **fields: object) -> Client:
        made.append(Client(*args, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        client.close()


@BOTH_FAMILIES
@pytest.mark.parametrize(("data", "is_tls"), [(HELLO, True), (PLAIN, False), (HELLO[:5] + b"\x02", False)])
def test_a_client_is_recognized_at_every_split(clients: Clients, make: Callable[[], Pair], data: bytes, is_tls: bool) -> None:
    for cut in range(len(data) + 1):
        client = clients(make())
        client.far.sendall(data[:cut])
        client.start()
        client.send(data[cut:])
        assert client.outcome == [is_tls], cut
        assert received(client.near) == data


def test_bytes_that_come_one_by_one_are_recognized(clients: Clients) -> None:
    client = clients(tcp_pair())
    client.start()
    for number in HELLO[:5]:
        client.send(bytes([number]))
        assert client.outcome == []
    client.send(HELLO[5:])
    assert client.outcome == [True]


def test_what_has_arrived_needs_no_event(clients: Clients) -> None:
    client = clients(tcp_pair())
    client.far.sendall(PLAIN)
    client.step.start()
    assert client.outcome == [False]
    assert client.loop._owners == {}


@BOTH_FAMILIES
@pytest.mark.parametrize("data", [HELLO, PLAIN])
def test_the_step_that_follows_receives_the_events_of_the_socket(
    clients: Clients, make: Callable[[], Pair], data: bytes
) -> None:
    client, events = clients(make()), []
    client.start()
    client.send(data)
    client.far.shutdown(socket.SHUT_WR)
    client.loop.rewatch(client.near, events.append, client)
    client.turn()
    assert events


def test_a_silent_client_is_plain_after_the_silence_and_not_before(clients: Clients) -> None:
    client = clients(unix_pair(), silence=1.0)
    client.start()
    client.later(0.9)
    assert client.outcome == []
    client.later(0.1)
    assert client.outcome == [False]


def test_a_silent_client_is_waited_for_without_a_silence(clients: Clients) -> None:
    client = clients(unix_pair())
    client.start()
    client.later(1000)
    assert client.outcome == []


def test_a_client_that_has_sent_a_part_of_a_client_hello_is_not_silent(clients: Clients) -> None:
    client = clients(unix_pair(), silence=1.0)
    client.start()
    client.send(HELLO[:3])
    client.later(1000)
    assert client.outcome == []
    client.send(HELLO[3:])
    assert client.outcome == [True]


@BOTH_FAMILIES
def test_bytes_whose_event_is_delayed_end_the_silence(clients: Clients, make: Callable[[], Pair]) -> None:
    for data, outcome in ((HELLO, [True]), (HELLO[:3], [])):
        client = clients(make(), silence=1.0)
        client.step.start()
        client.far.sendall(data)
        client.loop._handlers[client.near.fileno()] = lambda events: None  # as if the event were in a later batch
        client.later(1.0)
        assert client.outcome == outcome


@BOTH_FAMILIES
@pytest.mark.parametrize("is_ended_before", [True, False])
def test_a_stream_that_is_shorter_than_a_client_hello_is_plain(
    clients: Clients, make: Callable[[], Pair], is_ended_before: bool
) -> None:
    client = clients(make())
    client.far.sendall(HELLO[:2])
    if is_ended_before:
        client.far.shutdown(socket.SHUT_WR)
    client.start()
    if not is_ended_before:
        client.far.shutdown(socket.SHUT_WR)
    client.turn()
    assert client.outcome == [False]
    assert received(client.near) == HELLO[:2]


def test_urgent_data_is_no_end(clients: Clients) -> None:
    client = clients(tcp_pair())
    client.start()
    client.send(HELLO[:2])
    client.far.send(b"!", socket.MSG_OOB)
    client.turn()
    assert client.outcome == []


@BOTH_FAMILIES
def test_a_client_that_closes_without_data_is_a_health_check(clients: Clients, make: Callable[[], Pair]) -> None:
    client = clients(make(), silence=1.0)
    client.start()
    client.far.close()
    client.turn()
    (error,) = client.outcome
    assert isinstance(error, ClosedWithoutData)
    client.later(10)
    assert len(client.outcome) == 1


@pytest.mark.parametrize("data", [b"", HELLO[:4]])
def test_a_reset_is_an_error_only_after_data(clients: Clients, data: bytes) -> None:
    client = clients(tcp_pair())
    client.start()
    client.send(data)
    reset(client.far)
    client.far.close()
    client.turn()
    (error,) = client.outcome
    if data:
        assert isinstance(error, TlsError)
        assert error.reason is TlsFault.RESET
    else:
        assert isinstance(error, ClosedWithoutData)


def test_an_abandoned_step_never_calls_its_owner(clients: Clients) -> None:
    client = clients(unix_pair(), silence=1.0)
    client.start()
    client.step.abandon()
    client.send(PLAIN)
    client.later(10)
    assert client.outcome == []
