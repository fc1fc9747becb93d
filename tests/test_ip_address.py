"""IP networks and the address in the text of a connection's source."""

from __future__ import annotations

import pytest

from tunnel.ip_address import parse_ip_network, parse_source


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", None),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("10.0.0.1/8", None),
        ("10.0.0.0/33", None),
        ("localhost", None),
        ("", None),
    ],
)
def test_a_network_of_mapped_addresses_is_an_ipv4_network(text: str, network: str | None) -> None:
    parsed = parse_ip_network(text)
    assert (None if parsed is None else str(parsed)) == network


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:10.1.2.3:57878", "10.1.2.3"),
        ("tcp:[2001:db8::7]:1", "2001:db8::7"),
        ("tcp:[fe80::1%eth0]:1", "fe80::1"),
        ("unix:@", None),
        ("unix:/run/10.1.2.3:5", None),
        ("", None),
    ],
)
def test_a_source_is_an_address_without_zone_and_port(text: str, address: str | None) -> None:
    parsed = parse_source(text)
    assert (None if parsed is None else str(parsed)) == address
