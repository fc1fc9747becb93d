"""The facts about a connection have the names of OpenTelemetry where there are any."""

from __future__ import annotations

import pytest

from tests.support.connection_records import TLS, dial_failed, outbound, refused, relayed
from tunnel.authz.peer import PLAINTEXT, Peer
from tunnel.listener.connection_attributes import Attributes, connection_attributes, endpoint_attributes
from tunnel.listener.connection_record import ConnectionOutcome

TLS_FACTS = {
    "tls.established": True,
    "tls.protocol.name": "tls",
    "tls.protocol.version": "1.3",
    "tls.cipher": "TLS_AES_128_GCM_SHA256",
    "tls.curve": "X25519MLKEM768",
}
PEER_FACTS = {
    "tunnel.peer.id": "spiffe://example.org/web",
    "tunnel.peer.trust_domain": "example.org",
    "tunnel.rule": "id:spiffe://example.org/web",
}


def test_an_inbound_connection_is_from_a_client_to_our_listener() -> None:
    assert connection_attributes(relayed()) == {
        "client.address": "10.0.0.7",
        "client.port": 40000,
        "server.address": "192.0.2.1",
        "server.port": 8443,
        "network.transport": "tcp",
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 40000,
        **TLS_FACTS,
        "tls.client.subject": "O=SPIRE,C=US",
        **PEER_FACTS,
        "tunnel.listener": "redis",
        "tunnel.direction": "inbound",
        "tunnel.target": "localhost:6379",
        "tunnel.outcome": "relayed",
        "tunnel.close_reason": "closed",
        "tunnel.forwarded_bytes": 12,
        "tunnel.returned_bytes": 34,
    }


def test_an_outbound_connection_is_from_a_program_to_a_server() -> None:
    found = connection_attributes(outbound(via_proxy="socks5://proxy:1080"))
    assert {name: value for name, value in found.items() if name.startswith(("client.", "server.", "network."))} == {
        "client.address": "127.0.0.1",
        "client.port": 50000,
        "server.address": "cache.example.org",
        "server.port": 8443,
        "network.transport": "tcp",
        "network.peer.address": "2001:db8::5",
        "network.peer.port": 8443,
    }
    assert found["tls.server.subject"] == "O=SPIRE,C=US"
    assert "tls.client.subject" not in found
    assert (found["tunnel.direction"], found["tunnel.outbound_proxy"]) == ("outbound", "socks5://proxy:1080")


def test_what_is_unknown_is_left_out() -> None:
    found = connection_attributes(refused(peer=None))
    assert found["tls.established"] is False
    assert (found["tunnel.reason"], found["tunnel.forwarded_bytes"]) == ("no-matching-rule", 0)
    absent = ("tls.protocol", "tls.cipher", "tls.client", "tunnel.peer", "tunnel.rule", "tunnel.close", "tunnel.outbound")
    assert [name for name in found if name.startswith(absent)] == []
    unreached = connection_attributes(dial_failed(is_server=False, target_name="a:1,b:2"))
    assert [name for name in unreached if name.startswith(("server.", "network."))] == []


def test_a_plain_client_has_no_attributes_of_tls() -> None:
    found = connection_attributes(relayed(peer=None, tls=None, rule=PLAINTEXT))
    assert [name for name in found if name.startswith(("tls.", "tunnel.peer"))] == ["tunnel.peer.id"]
    assert (found["tunnel.peer.id"], found["tunnel.rule"]) == ("plaintext", "plaintext")


def test_tls_12_has_its_version_and_a_key_exchange_without_group_has_none() -> None:
    found = connection_attributes(relayed(tls=TLS._replace(version="TLSv1.2", group="")))
    assert found["tls.protocol.version"] == "1.2"
    assert "tls.curve" not in found


def test_texts_of_others_are_escaped_and_bounded() -> None:
    found = connection_attributes(
        relayed(
            peer=Peer("CN=\n\x1b[31m" + "x" * 10_000),
            source="unix:/run/\n",
            rule="cn:\u202e",
            target_name="unix:/\x00",
            outcome=ConnectionOutcome.RELAYED,
        )
    )
    texts = [value for value in found.values() if isinstance(value, str)]
    assert all(text.isascii() and text.isprintable() and len(text) <= 515 for text in texts)
    assert found["tunnel.rule"] == "cn:\\u202e"
    assert found["network.transport"] == "unix"


def test_texts_of_the_configuration_are_bounded_and_keep_their_brackets() -> None:
    found = connection_attributes(relayed(target_name="[::1]:80", rule="uri:" + "x" * 1000, via_proxy="http://[::1]:3128"))
    assert (found["tunnel.target"], found["tunnel.outbound_proxy"]) == ("[::1]:80", "http://[::1]:3128")
    assert len(str(found["tunnel.rule"])) == 515


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("tcp:10.0.0.7:1", {"x.address": "10.0.0.7", "x.port": 1}),
        ("tcp:[::1]:65535", {"x.address": "::1", "x.port": 65535}),
        ("[fe80::1%eth0]:2", {"x.address": "fe80::1%eth0", "x.port": 2}),
        ("name.example:3", {"x.address": "name.example", "x.port": 3}),
        ("unix:/run/x", {"x.address": "/run/x"}),
        ("unix:@", {"x.address": "@"}),
        ("srv:_db._tcp.example.org", {}),
        ("name.example:http", {}),
        ("a:1,b:2", {}),
        (":1", {}),
        ("", {}),
    ],
)
def test_addresses_have_a_host_and_a_port(address: str, found: Attributes) -> None:
    assert endpoint_attributes("x", address) == found
