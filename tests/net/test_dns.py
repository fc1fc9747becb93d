"""SRV records: which are used, for how long, and what each failure is."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support.dns_server import DnsServer, dns_server
from tunnel.errors import ConfigError, TargetError
from tunnel.net.address import SrvName, TcpAddress
from tunnel.net.cached_name import MAX_LIFETIME, MIN_LIFETIME, Timed
from tunnel.net.dns import MAX_RECORDS, SrvRecord, check_dns_server, check_dns_support, look_up_srv, order_records
from tunnel.net.sockets import NameNotFound

NAME = SrvName("_redis._tcp.example.org")


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with dns_server() as running:
        yield running


def test_records_are_ordered_by_priority_then_weight(server: DnsServer) -> None:
    server.set_srv(NAME.name, "20 0 1 c.example.org.", "10 1 2 b.example.org.", "10 5 3 a.example.org.", lifetime=77)
    assert look_up_srv(NAME, server.address) == Timed(
        (
            SrvRecord(TcpAddress("a.example.org", "3"), 10, 5),
            SrvRecord(TcpAddress("b.example.org", "2"), 10, 1),
            SrvRecord(TcpAddress("c.example.org", "1"), 20, 0),
        ),
        77.0,
    )


@pytest.mark.parametrize(("given", "used"), [(0, MIN_LIFETIME), (86400, MAX_LIFETIME)])
def test_lifetimes_are_bounded(server: DnsServer, given: int, used: float) -> None:
    server.set_srv(NAME.name, "1 1 1 a.example.org.", lifetime=given)
    assert look_up_srv(NAME, server.address).lifetime == used


def test_a_name_that_does_not_exist_is_told_apart_from_a_failure(server: DnsServer) -> None:
    with pytest.raises(NameNotFound, match=r"^srv:_redis\._tcp\.example\.org: there are no SRV records$"):
        look_up_srv(NAME, server.address)
    server.set_srv(NAME.name)
    with pytest.raises(NameNotFound, match="there are no SRV records"):
        look_up_srv(NAME, server.address)
    server.is_failing = True
    with pytest.raises(TargetError, match="lookup failed: NoNameservers") as failure:
        look_up_srv(NAME, server.address)
    assert not isinstance(failure.value, NameNotFound)


def test_a_silent_name_server_is_an_error(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.net.dns._QUERY_LIMIT", 0.05)
    server.is_silent = True
    with pytest.raises(TargetError, match=r"no answer from a name server within 0\.05s"):
        look_up_srv(NAME, server.address)


def test_the_host_of_one_dot_means_that_there_is_no_service() -> None:
    with pytest.raises(NameNotFound, match="the service is not offered at this name"):
        order_records(NAME, [(".", 0, 0, 0)])


def test_at_most_so_many_records_are_kept_and_the_most_important_ones() -> None:
    found = [(f"h{n}.", n, 1000 - n, 1) for n in range(1, 500)]
    kept = order_records(NAME, [*found, *found])
    assert len(kept) == MAX_RECORDS
    assert kept[0] == SrvRecord(TcpAddress("h499", "499"), 501, 1)
    assert len(set(kept)) == MAX_RECORDS


def test_without_dnspython_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_dns_support(NAME)
    monkeypatch.setitem(sys.modules, "dns.resolver", None)
    with pytest.raises(ConfigError, match=r"SRV records need dnspython; install it with: pip install 'spiffe-tunnel\[dns\]'"):
        check_dns_support(NAME)


def test_a_name_server_is_an_ip_address() -> None:
    check_dns_server(TcpAddress("::1", "53"))
    with pytest.raises(ConfigError, match=r"name server ns\.example\.org:53: invalid host; expected an IP address"):
        check_dns_server(TcpAddress("ns.example.org", "53"))
