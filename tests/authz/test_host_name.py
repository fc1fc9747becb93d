"""The host names that a certificate is valid for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tunnel.authz.host_name import matches_host, parse_host
from tunnel.authz.peer import Peer
from tunnel.errors import Denial, IdentityError, PeerDenied

# What a certificate says, which hosts are meant by it, and which are not.
MATCHES = [
    ("db.test", "db.test DB.TEST db.test.", "db other.test a.db.test .db.test db..test"),
    ("Db.Test", "db.test", "db"),
    ("*.db.test", "a.db.test xn--bcher-kva.db.test A.db.test. *.db.test", "db.test a.b.db.test .db.test"),
    ("*.test", "db.test", "test a.db.test .test"),
    ("*", "", "db db.test"),
    ("*.", "", "db db."),
    ("d*.test", "d*.test", "db.test"),
    ("a.*.test", "a.*.test", "a.b.test"),
    ("*.*.test", "*.*.test", "a.b.test"),
    ("db.test.", "", "db.test"),
    ("db .test", "db\x20.test", "db.test"),
    ("under_score.test", "under_score.test", "underscore.test"),
    ("-db.test", "-db.test", "db.test"),
    ("", "", "db"),
    ("db.test\0.evil", "", "db.test"),
]


@pytest.mark.parametrize(("pattern", "hosts", "others"), MATCHES)
def test_a_dns_san_matches_a_host(pattern: str, hosts: str, others: str) -> None:
    wanted = [hosts] if " " in pattern else hosts.split()
    assert [host for host in wanted if not matches_host(pattern, host)] == []
    assert [host for host in others.split() if matches_host(pattern, host)] == []


PEER = Peer(
    "", common_name="cn.test", dns_names=("db.test", "192.0.2.9"), ip_addresses=(ip_address("192.0.2.1"), ip_address("::1"))
)


@pytest.mark.parametrize("host", ["db.test", "192.0.2.1", "::ffff:192.0.2.1", "::1", "[::1]", "0:0:0:0:0:0:0:1"])
def test_a_host_matches_by_name_or_address(host: str) -> None:
    parse_host(host).check(PEER)


@pytest.mark.parametrize("host", ["cn.test", "192.0.2.9", "192.0.2.2", "::2"])
def test_neither_a_common_name_nor_an_address_as_a_name_counts(host: str) -> None:
    with pytest.raises(PeerDenied, match=r'expected .*, the certificate has "db\.test"') as refused:
        parse_host(host).check(PEER)
    assert refused.value.reason is Denial.HOST_NAME


def test_a_refusal_shows_a_few_names_and_counts_the_rest() -> None:
    many = Peer("", dns_names=tuple(f"{number}.test\n" for number in range(100)))
    with pytest.raises(PeerDenied) as refused:
        parse_host("db.test").check(many)
    assert str(refused.value).endswith(r'"0.test\n", "1.test\n", "2.test\n", "3.test\n" and 96 more')


def test_an_international_name_matches_in_its_ascii_form() -> None:
    parse_host("bücher.test").check(Peer("", dns_names=("xn--bcher-kva.test",)))


@pytest.mark.parametrize("text", ["", "a\0b", "a\nb", "ü" * 64, "ü..test"])
def test_a_host_name_that_no_certificate_can_contain_is_refused(text: str) -> None:
    with pytest.raises(IdentityError, match="no certificate can contain it"):
        parse_host(text)
