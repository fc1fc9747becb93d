"""The lines about connections, in ghostunnel's form with Go's notations of numbers."""

from __future__ import annotations

import pytest

from tunnel.authz.authorizer import Authorizer
from tunnel.authz.peer import Peer
from tunnel.authz.rules import AnyRule
from tunnel.proxy.report import Pipe, format_duration, format_size
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id

SIZES = [
    (0, "0 bytes"),
    (1, "1 bytes"),
    (1023, "1023 bytes"),
    (1024, "1.0 KiB"),
    (1229, "1.2 KiB"),
    (1024**2, "1.0 MiB"),
    (5 * 1024**2 + 512 * 1024, "5.5 MiB"),
    (1024**3, "1.0 GiB"),
    (1024**4, "1.0 TiB"),
    (1024**5, "1.0 PiB"),
    (1024**6, "1.0 EiB"),
    (4096 * 1024**6, "4096.0 EiB"),
]
DURATIONS = [
    (0.0, "0us"),
    (-1.0, "0us"),
    (0.000532, "532us"),
    (0.001, "1ms"),
    (0.345, "345ms"),
    (1.0, "1s"),
    (3.2, "3.2s"),
    (3.2004, "3.2s"),
    (12.345, "12.345s"),
    (60.0, "1m0s"),
    (63.2, "1m3.2s"),
    (59.9999, "1m0s"),
    (3600.0, "1h0m0s"),
    (3599.9999, "1h0m0s"),
    (7384.5, "2h3m4.5s"),
    (360000.0, "100h0m0s"),
]
# Just under the end of a unit: nothing is rounded up to 1000 of the smaller one.
EDGES = [(0.0009996, "1ms"), (0.9996, "1s")]


@pytest.mark.parametrize(("size", "text"), SIZES)
def test_sizes_are_written_in_powers_of_1024(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(("seconds", "text"), DURATIONS + EDGES)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def pipe(subject: str, *, is_server: bool = True) -> Pipe:
    own = TrustDomain("a.test")
    admitted = Authorizer((AnyRule(),), own).decide(Peer(subject, parse_spiffe_id("spiffe://a.test/w")))
    return Pipe("tcp:127.0.0.1:1", "tcp:127.0.0.1:2", is_server, admitted)


def test_a_servers_pipe_has_the_subject_on_the_accepted_side() -> None:
    assert pipe("CN=w").opening() == (
        "opening pipe: tcp:127.0.0.1:1 [CN=w] <-> tcp:127.0.0.1:2 [no tls] peer=spiffe://a.test/w rule=any"
    )


def test_a_clients_pipe_has_the_subject_on_the_dialled_side() -> None:
    assert pipe("CN=w", is_server=False).opening() == (
        "opening pipe: tcp:127.0.0.1:1 [no tls] <-> tcp:127.0.0.1:2 [CN=w] peer=spiffe://a.test/w rule=any"
    )


def test_a_closed_pipe_says_how_much_how_long_and_how() -> None:
    assert pipe("CN=w").closed(1536, 12, 63.2, "done") == (
        "closed pipe: tcp:127.0.0.1:1 [CN=w] <-> tcp:127.0.0.1:2 [no tls] "
        "[forwarded 1.5 KiB, returned 12 bytes, open 1m3.2s] peer=spiffe://a.test/w rule=any end=done"
    )


def test_a_hostile_subject_can_forge_neither_a_line_nor_a_field() -> None:
    for line in (pipe("CN=w] [x\r\nopening pipe: \x1b[2J\u202e").opening(), pipe("]\n").closed(1, 2, 3.0, "done")):
        assert line.isprintable()
        assert line.isascii()
        assert line.count("[") == line.count("]") == (2 if line.startswith("opening") else 3)


def test_a_path_of_a_socket_is_escaped() -> None:
    plain = pipe("CN=w")
    assert "\n" not in Pipe("unix:/run/a\nb", plain.target_connected, True, plain.admitted).opening()
