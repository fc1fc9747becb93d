"""Connections of a listener with several targets: which one they reach, and what happens if one fails."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.configs import listener_config
from tests.support.socket_pairs import is_over, received
from tests.support.tls_ends import identity
from tests.support.tunnel_harness import (
    CALLER,
    ROOT,
    Harnesses,
    Peer,
    RecordedLog,
    TunnelHarness,
    carried,
    generation,
    hang_up,
    records_of,
)
from tunnel.authz.rules import IdRule
from tunnel.config.model import HealthCheck, NameResolution
from tunnel.errors import ConfigError, TargetError, TargetFault, TlsError
from tunnel.listener.connection_record import ConnectionOutcome
from tunnel.listener.targets import Targets
from tunnel.net.address import SrvName, TargetAddress, TcpAddress, UnixAddress
from tunnel.net.dns import SrvRecord
from tunnel.net.sockets import SocketAddress
from tunnel.relay.loop import Loop
from tunnel.spiffe.ids import parse_spiffe_id
from tunnel.status.counters import TargetGauges
from tunnel.wire.outbound import parse_outbound

SERVICE = SrvName("_db._tcp.example.org")
STRANGER = identity("spiffe://a.test/stranger", root=ROOT)


def backend_of(place: Path) -> UnixAddress:
    return UnixAddress(str(place / "0" / "backend"))


def absent(place: Path) -> UnixAddress:
    return UnixAddress(str(place / "absent"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def listening(harness: TunnelHarness, name: str) -> socket.socket:
    """Another backend."""
    return harness._listen(name)


def accept(listener: socket.socket, harness: TunnelHarness) -> socket.socket:
    sock = harness.opened(listener.accept()[0])
    sock.setblocking(False)
    return sock


def failure(place: Path) -> str:
    return f"unix:{place}/absent: no such file or directory"


def test_a_target_that_refuses_is_replaced_by_the_next_one(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(targets=(absent(place), backend_of(place))).serve()
    peer, backend = carried(harness)
    peer.say(b"question")
    assert received(backend) == b"question"
    retry = f"target failed, trying another one: unix:{place}/absent: {failure(place)} reason=connection-refused{CALLER}"
    assert harness.log.lines[0] == retry
    assert harness.log.lines[1].startswith("opening pipe: ")
    assert [(state.opened, state.failures) for state in harness.tunnel.targets.states()] == [(0, 1), (1, 0)]
    hang_up(harness, peer, backend)
    assert [state.opened for state in harness.tunnel.targets.states()] == [0, 0]
    assert harness.tunnel.counters.summary() == "accepted=1 relayed=1 close_notify=1"


def test_if_all_targets_fail_the_connection_has_the_error_of_the_last_one(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(targets=(absent(place), UnixAddress(str(place / "other")))).serve()
    records = records_of(harness)
    Peer(harness, harness.connect()).shake()
    (record,) = records
    assert (record.outcome, record.reason) == (ConnectionOutcome.DIAL_FAILED, "connection-refused")
    assert record.target_name == f"unix:{place}/other"
    assert len(harness.tunnel) == 0
    assert [state.opened for state in harness.tunnel.targets.states()] == [0, 0]


def test_a_target_that_has_failed_often_gets_no_more_connections(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(targets=(absent(place), backend_of(place)), health_check=HealthCheck(fall=2)).serve()
    for _ in range(4):
        hang_up(harness, *carried(harness))
    assert [line for line in harness.log.lines if line.startswith("target is")] == [
        f"target is unhealthy: unix:{place}/absent failures=2 error={failure(place)}"
    ]
    assert harness.tunnel.targets.states()[0].failures == 2


def test_one_silent_target_leaves_time_for_the_next_one(harnesses: Harnesses, place: Path) -> None:
    silent = TcpAddress("name.example", "1")
    harness = harnesses(targets=(silent, backend_of(place)), connect_timeout=10.0).serve()
    Peer(harness, harness.connect()).shake()
    harness.later(4.9)
    assert harness.accepted_by_backend() is None
    harness.later(0.2)
    assert harness.accepted_by_backend() is not None
    assert "name.example:1: exceeded 5s, its part of the connect timeout reason=timeout" in harness.log.lines[0]
    assert len(harness.tunnel) == 1


def test_the_whole_time_is_limited_by_the_connect_timeout(harnesses: Harnesses) -> None:
    names = tuple(TcpAddress(f"{n}.example", "1") for n in range(5))
    harness = harnesses(targets=names, connect_timeout=9.0).serve()
    records = records_of(harness)
    Peer(harness, harness.connect()).shake()
    harness.later(3.1)
    harness.later(2)
    harness.later(4)
    (record,) = records
    assert record.reason == "timeout"
    assert record.seconds < 9.2
    assert len(harness.tunnel) == 0


def test_a_client_that_hangs_up_meanwhile_is_not_a_failure_of_the_target(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(targets=(TcpAddress("a.example", "1"), TcpAddress("b.example", "1")), is_server=False).serve()
    harness.connect().close()
    harness.later(0)
    assert len(harness.tunnel) == 0
    assert [(state.opened, state.failures) for state in harness.tunnel.targets.states()] == [(0, 0), (0, 0)]


def test_our_own_limit_of_descriptors_is_not_a_failure_of_the_target(
    harnesses: Harnesses, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = harnesses(targets=(absent(place), backend_of(place))).serve()
    exhausted = TargetError(TargetFault.EXHAUSTED, "too many open files")
    monkeypatch.setattr("tunnel.net.race.connect_error", lambda *_: exhausted)
    Peer(harness, harness.connect()).shake()
    assert len(harness.tunnel) == 0
    assert [(state.opened, state.failures) for state in harness.tunnel.targets.states()] == [(0, 0), (0, 0)]


# -- a client with several servers


def of_client(harnesses: Harnesses, place: Path, **fields: Any) -> tuple[TunnelHarness, socket.socket]:
    """A client of two servers, the second of which is returned."""
    targets = (backend_of(place), UnixAddress(str(place / "0" / "second")))
    harness = harnesses(targets=targets, is_server=False)
    second = listening(harness, "second")
    harness.serve(**fields)
    return harness, second


def test_a_server_that_closes_in_the_handshake_is_replaced(harnesses: Harnesses, place: Path) -> None:
    harness, second = of_client(harnesses, place)
    program = harness.connect()
    program.send(b"early")
    broken = harness.accepted_by_backend()
    assert broken is not None
    broken.recv(4096)
    broken.close()
    harness.turn()
    peer = Peer(harness, accept(second, harness), is_server=True).shake()
    harness.turn()
    assert peer.hear() == b"early", "nothing is lost"
    assert "the target closed the connection without sending anything reason=closed-during-handshake" in harness.log.lines[0]
    assert harness.tunnel.counters.refused == 0


def test_a_server_that_our_rules_refuse_is_replaced_and_gets_an_alert(harnesses: Harnesses, place: Path) -> None:
    rules = (IdRule(parse_spiffe_id("spiffe://a.test/peer")),)
    harness, second = of_client(harnesses, place, rules=rules)
    program = harness.connect()
    refused = harness.accepted_by_backend()
    assert refused is not None
    with pytest.raises(TlsError, match="bad certificate"):
        Peer(harness, refused, is_server=True, who=STRANGER).shake()
    peer = Peer(harness, accept(second, harness), is_server=True).shake()
    program.send(b"for the right one only")
    harness.turn()
    assert peer.hear() == b"for the right one only"
    assert is_over(refused)
    assert harness.log.lines[0].startswith(f"target failed, trying another one: unix:{place}/0/backend: ")


def test_one_refused_server_alone_is_reported_as_ever(harnesses: Harnesses, place: Path) -> None:
    harness, second = of_client(harnesses, place)
    second.close()
    records = records_of(harness)
    harness.connect()
    broken = harness.accepted_by_backend()
    assert broken is not None
    broken.recv(4096)
    broken.close()
    harness.turn()
    (record,) = records
    assert (record.outcome, record.reason) == (ConnectionOutcome.DIAL_FAILED, "connection-refused")


def test_the_outbound_proxy_is_asked_for_each_server(harnesses: Harnesses) -> None:
    targets = (TcpAddress("a.example", "1"), TcpAddress("b.example", "2"))
    harness = harnesses(targets=targets, is_server=False, outbound=parse_outbound("http://proxy.example:3128")).serve()
    harness.connect()
    proxy = (SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),)
    for n, target in enumerate(targets):
        harness.asked[n][1](proxy)
        harness.turn()
        asked = harness.accepted_by_backend()
        assert asked is not None
        assert received(asked).startswith(f"CONNECT {target} ".encode())
        asked.send(b"HTTP/1.1 502 Bad gateway\r\n\r\n")
        harness.turn()
    assert harness.log.lines[0].startswith("target failed, trying another one: a.example:1: ")
    assert "reason=refused-by-proxy" in harness.log.lines[0]
    assert harness.log.lines[1].startswith("error on dial: ")
    assert len(harness.tunnel) == 0


def test_another_generation_in_the_handshake_decides_about_each_server(harnesses: Harnesses, place: Path) -> None:
    harness, second = of_client(harnesses, place)
    harness.connect()
    first = harness.accepted_by_backend()
    assert first is not None
    strict = generation(2, is_server=False, rules=(IdRule(parse_spiffe_id("spiffe://a.test/peer")),))
    end = Peer(harness, first, is_server=True, who=STRANGER)
    harness.tunnel.swap(strict)
    end.shake()
    peer = Peer(harness, accept(second, harness), is_server=True).shake()
    assert peer.side.is_done
    assert is_over(first)
    assert [state.failures for state in harness.tunnel.targets.states()] == [1, 0]


# -- SRV records


def records(*addresses: TcpAddress) -> tuple[SrvRecord, ...]:
    return tuple(SrvRecord(address, 1, 1) for address in addresses)


def test_srv_records_are_asked_for_before_the_first_connection(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(target=SERVICE).serve()
    Peer(harness, harness.connect()).shake()
    ((asked, answer),) = harness.asked
    assert asked == SERVICE
    answer(records(TcpAddress("db.example", "5432")))
    harness.turn()
    (_, (asked, answer)) = harness.asked
    assert asked == TcpAddress("db.example", "5432")
    answer((SocketAddress(socket.AF_UNIX, str(harness.place / "backend")),))
    harness.turn()
    assert harness.accepted_by_backend() is not None
    assert [state.name for state in harness.tunnel.targets.states()] == ["db.example:5432"]


def test_without_srv_records_the_connection_fails_with_that_reason(harnesses: Harnesses) -> None:
    harness = harnesses(target=SERVICE).serve()
    Peer(harness, harness.connect()).shake()
    harness.asked[0][1](TargetError(TargetFault.RESOLVE, f"{SERVICE}: there are no SRV records"))
    harness.turn()
    assert harness.log.lines[0].startswith(f"error on dial: {SERVICE}: there are no SRV records reason=name-not-resolved")
    assert len(harness.tunnel) == 0


def test_other_targets_are_used_while_srv_records_fail(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(targets=(SERVICE, backend_of(place))).serve()
    Peer(harness, harness.connect()).shake()
    harness.asked[0][1](TargetError(TargetFault.RESOLVE, "no name server"))
    harness.turn()
    assert harness.accepted_by_backend() is not None


def test_a_client_verifies_and_sends_the_host_of_its_record() -> None:
    config = listener_config(is_server=False, targets=(SERVICE, TcpAddress("a.example", "1")))
    assert config.sni_for(TcpAddress("b.example", "1")) == "b.example"
    assert config.host == "", "there is no one name for both"


# -- another configuration


def test_a_change_of_targets_keeps_open_connections_and_what_is_known(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(targets=(absent(place), backend_of(place))).serve()
    peer, backend = carried(harness)
    targets = harness.tunnel.targets
    targets.use(listener_config(target=backend_of(place)))
    assert targets.only is targets.pool.targets[0]
    assert [state.opened for state in targets.states()] == [1]
    hang_up(harness, peer, backend)
    assert [state.opened for state in targets.states()] == [0]
    hang_up(harness, *carried(harness))
    assert [state.opened for state in targets.states()] == [0]


@pytest.mark.parametrize("bad", [TcpAddress("a.example", "no-such-service"), UnixAddress("/run/x")])
def test_a_change_that_is_not_possible_changes_nothing(harnesses: Harnesses, bad: TargetAddress) -> None:
    fields = {"is_server": False, "outbound": parse_outbound("http://proxy.example:1")}
    harness = harnesses(target=TcpAddress("a.example", "1"), **fields)
    with pytest.raises((ConfigError, TargetError)):
        harness.tunnel.targets.use(listener_config(targets=(TcpAddress("b.example", "1"), bad), **fields))
    assert harness.tunnel.targets.name == "a.example:1"
    assert [state.name for state in harness.tunnel.targets.states()] == ["a.example:1"]


# -- the lifetime of names


def test_a_failed_refresh_is_logged_once_and_the_old_address_used(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(target=TcpAddress("db.example", "1")).serve()
    found = (SocketAddress(socket.AF_UNIX, str(backend_of(place)).removeprefix("unix:")),)
    Peer(harness, harness.connect()).shake()
    harness.asked[0][1](found)
    harness.turn()
    assert harness.accepted_by_backend() is not None
    for n in (1, 2):
        harness.clock.now += 2
        Peer(harness, harness.connect()).shake()
        harness.asked[n][1](TargetError(TargetFault.RESOLVE, "no name server"))
        harness.turn()
        assert harness.accepted_by_backend() is not None
    harness.clock.now += 2
    Peer(harness, harness.connect()).shake()
    harness.asked[3][1](found)
    harness.turn()
    assert [line for line in harness.log.lines if line.startswith("name of")] == [
        "name of a target cannot be resolved: using the last answer: no name server",
        "name of a target is resolved again: db.example:1",
    ]


def test_a_record_that_the_proxy_cannot_reach_is_ignored(harnesses: Harnesses) -> None:
    proxy = parse_outbound("socks5://proxy.example:1080")
    harness = harnesses(target=SERVICE, is_server=False, outbound=proxy).serve()
    harness.connect()
    harness.asked[0][1](records(TcpAddress("h" * 300, "1"), TcpAddress("db.example", "2")))
    harness.turn()
    assert harness.log.lines[0].startswith("SRV record ignored: ")
    assert [state.name for state in harness.tunnel.targets.states()] == ["db.example:2"]


def test_targets_that_are_removed_during_an_attempt_are_not_tried(harnesses: Harnesses) -> None:
    gone = TcpAddress("gone.example", "1")
    harness = harnesses(target=SERVICE).serve()
    Peer(harness, harness.connect()).shake()
    harness.asked[0][1](records(gone, TcpAddress("other.example", "2")))
    harness.turn()
    harness.tunnel.targets.use(listener_config(target=gone))
    harness.asked[1][1](TargetError(TargetFault.RESOLVE, f"{gone}: no name server"))
    harness.turn()
    assert harness.log.lines[-1].startswith(f"error on dial: {gone}: no name server reason=name-not-resolved")
    assert len(harness.tunnel) == 0


def test_a_late_answer_about_a_removed_service_changes_nothing(harnesses: Harnesses, place: Path) -> None:
    harness = harnesses(target=SERVICE).serve()
    Peer(harness, harness.connect()).shake()
    harness.tunnel.targets.use(listener_config(target=backend_of(place)))
    harness.asked[0][1](records(TcpAddress("db.example", "2")))
    harness.turn()
    assert harness.accepted_by_backend() is not None, "the new target is used"
    assert [state.name for state in harness.tunnel.targets.states()] == [str(backend_of(place))]


def test_the_name_server_of_srv_records_is_an_ip_address() -> None:
    config = listener_config(target=SERVICE, resolution=NameResolution(dns_server=TcpAddress("ns.example", "53")))
    with pytest.raises(ConfigError, match="expected an IP address"):
        Targets(config, Loop(), RecordedLog(), lambda *_: None)  # type: ignore[arg-type]


def test_the_values_of_srv_records_are_those_of_one_target(harnesses: Harnesses, place: Path) -> None:
    targets = harnesses(targets=(SERVICE, backend_of(place))).tunnel.targets
    targets._take_records(SERVICE, records(TcpAddress("a.example", "1"), TcpAddress("b.example", "1")))
    first = next(one for one in targets.pool.targets if one.configured == str(SERVICE))
    for _ in range(3):
        targets.pool.note_failure(first, "connection refused")
    assert targets.gauges() == (TargetGauges(str(SERVICE), 1, 0, 3), TargetGauges(str(backend_of(place)), 1, 0, 0))
    targets._take_records(SERVICE, records(TcpAddress("b.example", "1")))
    assert targets.gauges()[0] == TargetGauges(str(SERVICE), 1, 0, 3), "a counter never decreases"
