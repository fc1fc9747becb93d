"""The access log has one event per connection, with documented names, one line each whatever the peer sends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.memory_sink import MemorySink
from tests.support.socket_pairs import received
from tests.support.tls_ends import TLS12, TLS13
from tests.support.tunnel_harness import PEER, Harnesses, Peer, TunnelHarness, carried, dialled, hang_up
from tunnel.authz import peer as authz
from tunnel.authz.rules import IdRule
from tunnel.errors import TlsError
from tunnel.listener.access_event import END, START, SUPPRESSED, JsonEvents, LogfmtEvents, describe_common, describe_own
from tunnel.listener.access_log import AccessLog
from tunnel.listener.connection_record import ConnectionOutcome, ConnectionRecord
from tunnel.log_limit import EQUAL_LINES, WINDOW
from tunnel.log_output import LineOutput
from tunnel.relay.close_reason import CloseReason
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.tls.negotiated import TlsParameters

OTHERS = (IdRule(parse_spiffe_id("spiffe://a.test/other")),)


@dataclass
class Recorded:
    """An access log whose events are kept."""

    is_json: bool = True
    has_start: bool = False
    sink: MemorySink = field(default_factory=MemorySink)
    access_log: AccessLog | None = None

    def open(self) -> AccessLog:
        form = JsonEvents() if self.is_json else LogfmtEvents()
        output = LineOutput(self.sink)
        self.access_log = AccessLog(output, form, has_start=self.has_start, wall=lambda: 1795309703.5)
        return self.access_log

    def lines(self) -> list[str]:
        assert self.access_log is not None
        self.access_log.flush()
        return self.sink.data.decode("ascii").splitlines()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


def started(harnesses: Harnesses, recorded: Recorded, serve: dict[str, Any] | None = None, **fields: Any) -> TunnelHarness:
    access_log = recorded.open()
    harness = harnesses(access_log=access_log, **fields).serve(**(serve or {}))
    access_log.defer(harness.loop)
    return harness


def test_a_relayed_connection_has_every_field(harnesses: Harnesses) -> None:
    before = datetime.now(UTC)
    recorded = Recorded(has_start=True)
    harness = started(harnesses, recorded)
    peer, backend = carried(harness, version=TLS13)
    peer.say(b"question")
    backend.send(b"answers")
    harness.turn()
    assert (received(backend), peer.hear()) == (b"question", b"answers")
    harness.clock.now += 1.5
    hang_up(harness, peer, backend)
    begin, end = recorded.events()
    assert begin["event.name"] == START
    assert end.pop("tunnel.peer.certificate_serial") == begin["tunnel.peer.certificate_serial"] != ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", end.pop("tls.client.not_after"))
    assert before <= datetime.fromisoformat(begin["time"]) <= datetime.fromisoformat(end.pop("time")) <= datetime.now(UTC)
    assert end == {
        "event.name": END,
        "tunnel.listener": harness.tunnel.config.name,
        "tunnel.direction": "inbound",
        "client.address": "@",
        "server.address": f"{harness.place}/front",
        "tunnel.target": f"unix:{harness.place}/backend",
        "tunnel.target_address": f"{harness.place}/backend",
        "tunnel.peer.id": "spiffe://a.test/peer",
        "tunnel.peer.trust_domain": "a.test",
        "tunnel.rule": "any",
        "tls.established": True,
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.cipher": "TLS_AES_128_GCM_SHA256",
        "tls.curve": "X25519MLKEM768",
        "tunnel.outcome": "relayed",
        "tunnel.close_reason": "closed",
        "tunnel.forwarded_bytes": 8,
        "tunnel.returned_bytes": 7,
        "tunnel.duration": 1.5,
        "tunnel.handshake_duration": 0.0,
        "tunnel.dial_duration": 0.0,
    }
    assert harness.log.lines == [], "the events take the place of the lines about connections"


def test_a_client_is_outbound_and_has_the_certificate_of_the_server(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded, is_server=False)
    program, server = dialled(harness)
    server.shake()
    program.close()
    server.end()
    harness.turn()
    server.socket.close()
    harness.turn()
    (event,) = recorded.events()
    assert event["tunnel.direction"] == "outbound"
    assert "tls.server.not_after" in event
    assert "tls.client.not_after" not in event


def refused(harness: TunnelHarness) -> None:
    with suppress(TlsError):
        Peer(harness, harness.connect()).shake()


def test_a_refused_peer_has_the_reason_and_its_names(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded, {"rules": OTHERS})
    refused(harness)
    (event,) = recorded.events()
    assert (event["tunnel.outcome"], event["tunnel.reason"]) == ("refused", "no-matching-rule")
    assert event["tunnel.peer.id"] == "spiffe://a.test/peer"
    assert "tunnel.rule" not in event
    assert "tunnel.target_address" not in event, "nothing was dialled"


def test_a_health_check_that_only_connects_has_no_event(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded)
    harness.connect().close()
    harness.turn()
    assert recorded.lines() == []


def test_ten_thousand_failed_handshakes_have_few_events_and_exact_counts(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded)
    for _ in range(10_000):
        client = harness.connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        harness.turn(2)
        client.close()
        harness.turn(1)
    harness.later(WINDOW + 1)
    *failures, rest = recorded.events()
    assert len(failures) == EQUAL_LINES
    assert {event["tunnel.reason"] for event in failures} == {"tls-failure"}
    assert (rest["event.name"], rest["client.address"]) == (SUPPRESSED, "@")
    assert rest["tunnel.suppressed"] == 10_000 - EQUAL_LINES
    counters = harness.tunnel.counters
    assert (counters.accepted, counters.refused, counters.reasons) == (10_000, 10_000, {"tls-failure": 10_000})


def test_relayed_connections_are_never_suppressed(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded)
    for _ in range(EQUAL_LINES * 3):
        hang_up(harness, *carried(harness, version=TLS12))
    assert len(recorded.events()) == EQUAL_LINES * 3


def record(**fields: Any) -> ConnectionRecord:
    given = {
        "is_server": True,
        "listener": "tcp:127.0.0.1:1",
        "source": "tcp:[::1]:57878",
        "seconds": 0.1234567,
        "time": 1795309702.25,
    }
    return ConnectionRecord(**{"outcome": ConnectionOutcome.REFUSED, **given, **fields})


def test_an_address_is_host_and_port_or_the_name_of_a_socket() -> None:
    fields = describe_own(END, record(target="unix:/run/a b.sock"))
    assert (fields["client.address"], fields["client.port"]) == ("::1", 57878)
    assert fields["tunnel.target_address"] == "/run/a b.sock"
    assert "tunnel.target_port" not in fields
    assert '"tunnel.duration":0.123457' in JsonEvents().encode(fields)
    assert "tunnel.duration=0.123457" in LogfmtEvents().encode(fields)


HOSTILE: list[Callable[[str], ConnectionRecord]] = [
    lambda text: record(detail=text, reason="tls-failure"),
    lambda text: record(peer=authz.Peer("", common_name=text), rule="any"),
    lambda text: record(source=f"unix:{text}", target=f"unix:{text}", target_name=text),
    lambda text: record(server_name=text, alpn=text, close_reason=CloseReason.CLOSED, outcome=ConnectionOutcome.RELAYED),
]


@given(st.text(max_size=40), st.sampled_from(HOSTILE), st.booleans())
def test_whatever_a_peer_sends_an_event_is_one_printable_line(text: str, make: Any, is_json: bool) -> None:
    recorded = Recorded(is_json)
    recorded.open().write(END, make(text))
    assert recorded.sink.data.count(b"\n") == 1
    (line,) = recorded.lines()
    assert line.isprintable()
    if is_json:
        assert json.loads(line)["event.name"] == END
    else:
        assert parse_logfmt(line)["event.name"] == END


def parse_logfmt(line: str) -> dict[str, str]:
    found = re.findall(r'([a-z_.]+)=("(?:[^"\\]|\\.)*"|[^ "=]*)(?: |$)', line)
    assert " ".join(f"{name}={value}" for name, value in found) == line
    return {name: json.loads(value) if value.startswith('"') else value for name, value in found}


@given(st.dictionaries(st.from_regex(r"[a-z_.]+", fullmatch=True), st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_logfmt_can_be_read_back(fields: dict[str, Any]) -> None:
    assert parse_logfmt(LogfmtEvents().encode(fields)) == fields


def test_the_documentation_has_every_field() -> None:
    section = Path("docs/log.md").read_text().partition("### Fields")[2].partition("\n## ")[0]
    documented = set(re.findall(r"`([a-z_.]+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    common: dict[str, Any] = {
        "peer": authz.Peer("CN=a", parse_spiffe_id("spiffe://a.test/a"), leaf=PEER.leaf.certificate.der),
        "rule": "any",
        "target": "tcp:127.0.0.1:2",
        "target_name": "localhost:2",
        "via_proxy": "http://proxy:3",
        "reason": "reset-by-peer",
        "detail": "reset",
        "tls": TlsParameters("TLSv1.3", "TLS_AES_128_GCM_SHA256", "x25519"),
        "handshake_seconds": 0.1,
        "dial_seconds": 0.1,
        "close_reason": CloseReason.RESET_BY_PEER,
        "listener_name": "server",
        "server_name": "a.test",
        "alpn": "h2",
    }
    records = [record(**common, is_server=is_server) for is_server in (True, False)]
    known = {name for one in records for name in (*describe_common(one), *describe_own(END, one))}
    assert documented == {"time", "event.name", "tunnel.suppressed", *known}


def test_events_are_written_together_and_soon(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded)
    for _ in range(2):
        hang_up(harness, *carried(harness, version=TLS12))
    assert recorded.sink.data == b""
    harness.later(0.2)
    assert recorded.sink.data.count(b"\n") == 2
    hang_up(harness, *carried(harness, version=TLS12))
    harness.later(0.2)
    assert recorded.sink.data.count(b"\n") == 3


def test_many_events_are_written_at_once(harnesses: Harnesses) -> None:
    recorded = Recorded()
    harness = started(harnesses, recorded)
    assert recorded.access_log is not None
    for _ in range(500):
        recorded.access_log.write(END, record(outcome=ConnectionOutcome.RELAYED, close_reason=CloseReason.CLOSED))
    assert recorded.sink.data.count(b"\n") == 400
    harness.later(0.2)
    assert recorded.sink.data.count(b"\n") == 500
