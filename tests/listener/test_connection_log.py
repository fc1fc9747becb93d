"""The log lines about connections: ghostunnel's form, numbers in Go's notation."""

from __future__ import annotations

import json

import pytest

from tests.support.memory_sink import MemorySink
from tests.support.recorded_log import RecordedLog
from tunnel.authz.authorizer import Admitted, Authorizer
from tunnel.authz.peer import Peer
from tunnel.authz.rules import AnyRule
from tunnel.errors import TargetError, TargetFault, TlsError, TlsFault
from tunnel.listener.connection_log import ConnectionLog, Retry, describe_failure, format_duration, format_size
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log import JsonFormat, Log
from tunnel.log_limit import RefusalLog
from tunnel.relay.close_reason import CloseReason
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


def test_lines_have_the_time_of_the_event_and_not_that_of_writing_them() -> None:
    """The parent of a worker writes them later."""
    sink = MemorySink()
    log = Log(clock=lambda: 9.0, sink=sink, format_line=JsonFormat())
    lines = ConnectionLog(log, RefusalLog(log, lambda: 0.0, lambda _delay, _action: None))
    record = ConnectionRecord(ConnectionOutcome.RELAYED, True, "", SOURCE, 0.0, 1.5, TARGET)
    lines.write_opening(record)
    lines.write_end(record._replace(time=2.5, close_reason=CloseReason.TRUNCATED))
    lines.write_end(record._replace(time=3.5, outcome=ConnectionOutcome.REFUSED, reason="r"))
    lines.write_described_retry(Retry(4.5, SOURCE, TARGET, "r", "why"))
    log.flush()
    times = [json.loads(line)["time"][17:21] for line in sink.data.splitlines()]
    assert times == ["01.5", "02.5", "02.5", "03.5", "04.5"]


SOURCE, TARGET = "tcp:127.0.0.1:1", "tcp:127.0.0.1:2"
FAILED = f"reason=r from={SOURCE}"


def admitted(subject: str) -> Admitted:
    return Authorizer((AnyRule(),), TrustDomain("a.test")).decide(Peer(subject, parse_spiffe_id("spiffe://a.test/w")))


def opening(subject: str, *, source: str = SOURCE, is_server: bool = True) -> str:
    log, known = RecordedLog(), admitted(subject)
    record = ConnectionRecord(
        ConnectionOutcome.RELAYED, is_server, "", source, 0.0, 0.0, target=TARGET, peer=known.peer, rule=known.rule
    )
    connection_log(log).write_opening(record)
    (line,) = log.kept
    return line


def connection_log(log: RecordedLog) -> ConnectionLog:
    return ConnectionLog(log, RefusalLog(log, lambda: 0.0, lambda _delay, _action: None))


def relayed(subject: str, forwarded: int, returned: int, seconds: float) -> str:
    record = ConnectionRecord(
        ConnectionOutcome.RELAYED,
        True,
        "",
        SOURCE,
        seconds,
        0.0,
        TARGET,
        peer=admitted(subject).peer,
        rule="any",
        forwarded=forwarded,
    )
    log = RecordedLog()
    connection_log(log).write_end(record._replace(returned=returned, close_reason=CloseReason.LIFETIME))
    return log.kept[-1]


def test_lines_of_many_peers_and_rules_name_the_right_one() -> None:
    log = RecordedLog()
    lines = connection_log(log)
    for number in range(600):
        peer, rule = admitted(f"CN={number % 300}").peer, f"rule-{number % 7}"
        for _ in range(2):
            record = ConnectionRecord(ConnectionOutcome.RELAYED, True, "", SOURCE, 0.0, 0.0, TARGET, peer=peer, rule=rule)
            lines.write_opening(record)
            lines.write_opening(record._replace(rule="another"))
        first, second, third, last = log.kept[-4:]
        assert first == third == f"opening pipe: {SOURCE} [CN={number % 300}] <-> {TARGET} [no tls] peer={peer} rule={rule}"
        assert second == last == first.replace(f"rule={rule}", "rule=another")
    assert len(lines._peers) <= 256


def test_a_servers_pipe_has_the_subject_on_the_accepted_side() -> None:
    assert opening("CN=w") == (
        "opening pipe: tcp:127.0.0.1:1 [CN=w] <-> tcp:127.0.0.1:2 [no tls] peer=spiffe://a.test/w rule=any"
    )


def test_a_clients_pipe_has_the_subject_on_the_dialled_side() -> None:
    assert opening("CN=w", is_server=False) == (
        "opening pipe: tcp:127.0.0.1:1 [no tls] <-> tcp:127.0.0.1:2 [CN=w] peer=spiffe://a.test/w rule=any"
    )


def test_the_closing_line_has_bytes_duration_and_reason() -> None:
    assert relayed("CN=w", 1536, 12, 63.2) == (
        "closed pipe: tcp:127.0.0.1:1 [CN=w] <-> tcp:127.0.0.1:2 [no tls] "
        "[forwarded 1.5 KiB, returned 12 bytes, open 1m3.2s] peer=spiffe://a.test/w rule=any end=max-conn-lifetime"
    )


def test_a_hostile_subject_can_forge_neither_a_line_nor_a_field() -> None:
    for line in (opening("CN=w] [x\r\nopening pipe: \x1b[2J\u202e"), relayed("]\n", 1, 2, 3.0)):
        assert line.isprintable()
        assert line.isascii()
        assert line.count("[") == line.count("]") == (2 if line.startswith("opening") else 3)


def test_a_path_of_a_socket_is_escaped() -> None:
    assert "\n" not in opening("CN=w", source="unix:/run/a\nb")


@pytest.mark.parametrize(
    ("outcome", "is_server", "fields", "line"),
    [
        (ConnectionOutcome.REFUSED, True, {"detail": "d\n"}, "error on TLS handshake from 127.0.0.1:1: d\\x0a reason=r"),
        (ConnectionOutcome.REFUSED, False, {"detail": "d"}, f"error on dial: TLS handshake with {TARGET}: d {FAILED}"),
        (
            ConnectionOutcome.REFUSED,
            False,
            {"detail": "d", "via_proxy": "proxy p", "target_name": "db:1"},
            f"error on dial: TLS handshake with db:1 through proxy p: d {FAILED}",
        ),
        (
            ConnectionOutcome.DIAL_FAILED,
            True,
            {"detail": "d", "rule": "any"},
            f"error on dial: d {FAILED} peer=anonymous rule=any",
        ),
        (
            ConnectionOutcome.HEADER_FAILED,
            True,
            {"detail": "writing proxy header: d"},
            f"error writing proxy header: d {FAILED}",
        ),
        (ConnectionOutcome.CLIENT_GONE, True, {"detail": "d"}, f"error on dial: d {FAILED}"),
        (ConnectionOutcome.WRONG_LOCAL_USER, False, {"detail": "d"}, f"refused local connection: d {FAILED}"),
    ],
)
def test_a_connection_that_was_not_relayed_has_one_line(
    outcome: ConnectionOutcome, is_server: bool, fields: dict[str, str], line: str
) -> None:
    record = ConnectionRecord(outcome, is_server, "", SOURCE, 0.0, 0.0, TARGET, reason="r")
    assert describe_failure(record._replace(**fields)) == line


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            TargetError(TargetFault.REFUSED, "tcp:[::1]:2: refused"),
            "tcp:[::1]:2: refused reason=connection-refused",
        ),
        (TlsError(TlsFault.PROTOCOL, "bad [cert]"), r"bad \x5bcert\x5d reason=tls-failure"),
    ],
)
def test_a_failed_target_is_logged_with_the_name_of_the_listener(error: TargetError | TlsError, shown: str) -> None:
    log = RecordedLog()
    refusals = RefusalLog(log, lambda: 0.0, lambda _delay, _action: None)
    ConnectionLog(log, refusals, "listener=redis").write_retry(SOURCE, "localhost:2", error)
    assert log.kept == [f"target failed, trying another one: localhost:2: {shown} from={SOURCE} listener=redis"]
