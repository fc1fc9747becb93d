"""The PROXY header: bytes written by hand from the specification, and a parser of the tests."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import WireError, WireFault
from tunnel.spiffe.ids import MAX_ID_BYTES
from tunnel.wire.proxy_v2 import SPIFFE_ID_TYPE, HeaderMode, TlsFacts, encode_header

SIGNATURE = "0d0a0d0a000d0a515549540a"
V4 = (socket.AF_INET, ("192.0.2.7", 50000), ("198.51.100.1", 443))
V4_BLOCK = "c0000207" + "c6336401" + "c350" + "01bb"
V6 = (socket.AF_INET6, ("2001:db8::7", 50000, 0, 0), ("2001:db8::1", 443, 0, 0))
V6_BLOCK = "20010db8" + "00" * 11 + "07" + "20010db8" + "00" * 11 + "01" + "c350" + "01bb"
MAPPED = (socket.AF_INET6, ("::ffff:192.0.2.7", 50000, 0, 0), ("::ffff:198.51.100.1", 443, 0, 0))
HALF_MAPPED = (socket.AF_INET6, ("::ffff:192.0.2.7", 50000, 0, 0), ("2001:db8::1", 443, 0, 0))
SCOPED = (socket.AF_INET6, ("fe80::7%eth0", 50000, 0, 2), ("fe80::1%eth0", 443, 0, 2))
NO_TLS = TlsFacts("")
PLAIN = TlsFacts("TLS 1.3")
VERIFIED_12 = "20" + "000f" + "01" + "00000000" + "21" + "0007" + b"TLS 1.2".hex()
FULL = TlsFacts("TLS 1.2", b"db.example", b"h2", "client", b"\x30\x01\x00", "spiffe://a.test/c")


def path_block(path: bytes) -> str:
    return path.ljust(108, b"\0").hex()


ADDRESSES = {
    "IPv4": (V4, "11" + "000c" + V4_BLOCK),
    "IPv6": (V6, "21" + "0024" + V6_BLOCK),
    "IPv4 mapped into IPv6": (MAPPED, "11" + "000c" + V4_BLOCK),
    "one address mapped": (
        HALF_MAPPED,
        "21" + "0024" + "00" * 10 + "ffffc0000207" + "20010db8" + "00" * 11 + "01" + "c350" + "01bb",
    ),
    "IPv6 with a scope": (
        SCOPED,
        "21" + "0024" + "fe80" + "00" * 13 + "07" + "fe80" + "00" * 13 + "01" + "c350" + "01bb",
    ),
    "Unix, a caller without a name": (
        (socket.AF_UNIX, "", "/run/front"),
        "31" + "00d8" + path_block(b"@") + path_block(b"/run/front"),
    ),
    "Unix, abstract names": (
        (socket.AF_UNIX, b"\0caller", b"\0front\0more"),
        "31" + "00d8" + path_block(b"@caller") + path_block(b"@front"),
    ),
    "Unix, a path of all bytes there are": (
        (socket.AF_UNIX, "/" * 108, "/" * 200),
        "31" + "00d8" + "2f" * 216,
    ),
    "Unix, a path that is not UTF-8": (
        (socket.AF_UNIX, "", "/\udcff"),
        "31" + "00d8" + path_block(b"@") + path_block(b"/\xff"),
    ),
    "another family": ((socket.AF_VSOCK, (3, 1), (2, 1)), "00" + "0000"),
}


@pytest.mark.parametrize(("where", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_addresses_of_each_family(where: tuple[Any, ...], expected: str) -> None:
    assert encode_header(*where, HeaderMode.CONN, NO_TLS).hex() == SIGNATURE + "21" + expected


# `verify` is 0 only if the client has presented a certificate: section 2.2.5 of the specification.
SSL_13 = "20" + "000f" + "01" + "00000001" + "21" + "0007" + b"TLS 1.3".hex()
SNI = "02" + "000a" + b"db.example".hex()
H2 = "01" + "0002" + b"h2".hex()
CERTIFICATE = "28" + "0003" + "300100"
SSL_CERT = "20" + "%s" + "07" + "00000000" + "21" + "0007" + b"TLS 1.2".hex()

TLVS = {
    "conn": (HeaderMode.CONN, FULL, ""),
    "tls": (HeaderMode.TLS, FULL, H2 + SNI + VERIFIED_12),
    "tls without SNI and ALPN": (HeaderMode.TLS, PLAIN, SSL_13),
    "tls-full": (HeaderMode.TLS_FULL, FULL, H2 + SNI + SSL_CERT % "001e" + "22" + "0006" + b"client".hex() + CERTIFICATE),
    "tls-full without a common name": (
        HeaderMode.TLS_FULL,
        TlsFacts("TLS 1.2", leaf=b"\x30\x01\x00"),
        SSL_CERT % "0015" + CERTIFICATE,
    ),
    "tls with a certificate": (HeaderMode.TLS, TlsFacts("TLS 1.2", leaf=b"\x30"), VERIFIED_12),
    "tls-full without a certificate": (HeaderMode.TLS_FULL, PLAIN, SSL_13),
    "spiffe": (HeaderMode.SPIFFE, FULL, H2 + SNI + VERIFIED_12 + "e5" + "0011" + b"spiffe://a.test/c".hex()),
    "spiffe without a certificate": (HeaderMode.SPIFFE, PLAIN, SSL_13),
    "names beyond ASCII are UTF-8": (
        HeaderMode.TLS_FULL,
        TlsFacts("TLS 1.2", common_name="\u00fc", leaf=b"\x30\x01\x00"),
        SSL_CERT % "001a" + "22" + "0002" + "c3bc" + CERTIFICATE,
    ),
}


@pytest.mark.parametrize(("mode", "facts", "tlvs"), TLVS.values(), ids=TLVS)
def test_the_content_of_each_mode(mode: HeaderMode, facts: TlsFacts, tlvs: str) -> None:
    size = 12 + len(tlvs) // 2
    assert encode_header(*V4, mode, facts).hex() == SIGNATURE + "2111" + f"{size:04x}" + V4_BLOCK + tlvs


def test_the_length_covers_what_follows_the_paths() -> None:
    header = encode_header(socket.AF_UNIX, "", "/run/front", HeaderMode.TLS, PLAIN)
    assert header[14:16] == struct.pack("!H", 216 + len(SSL_13) // 2)
    assert header[16 + 216 :].hex() == SSL_13


LARGEST_LEAF = 0xFFFF - 12 - 3 - 5 - (3 + 7) - 3


@pytest.mark.parametrize("leaf", [LARGEST_LEAF + 1, 0xFFFF, 0x10000, 1 << 20])
def test_a_header_that_does_not_fit_is_an_error(leaf: int) -> None:
    with pytest.raises(WireError) as caught:
        encode_header(*V4, HeaderMode.TLS_FULL, TlsFacts("TLS 1.3", leaf=bytes(leaf)))
    assert caught.value.reason is WireFault.TOO_LARGE


def test_the_largest_header_fits() -> None:
    header = encode_header(*V4, HeaderMode.TLS_FULL, TlsFacts("TLS 1.3", leaf=bytes(LARGEST_LEAF)))
    assert len(header) == 16 + 0xFFFF


def test_the_largest_header_with_an_id_is_as_documented() -> None:
    """nginx accepts 4096 bytes. A name of TLS has at most 255 bytes, an ID at most 2048."""
    facts = TlsFacts("TLS 1.3", bytes(255), bytes(255), leaf=b"x", spiffe_id="s" * MAX_ID_BYTES)
    assert len(encode_header(socket.AF_UNIX, "", "/front", HeaderMode.SPIFFE, facts)) == 2817
    assert len(encode_header(*V4, HeaderMode.SPIFFE, TlsFacts("TLS 1.3", leaf=b"x", spiffe_id="s"))) == 49 + 1


def test_our_type_is_one_for_applications() -> None:
    assert 0xE0 <= SPIFFE_ID_TYPE <= 0xEF


# -- what goes in comes out of a receiver


def parse_tlvs(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, size = struct.unpack_from("!BH", data)
        assert len(data) >= 3 + size
        assert kind not in found
        found[kind], data = data[3 : 3 + size], data[3 + size :]
    return found


short = st.binary(max_size=300)
facts = st.builds(
    TlsFacts, st.sampled_from(["TLS 1.2", "TLS 1.3"]), short, short, st.text(max_size=99), short, st.text(max_size=99)
)


@given(source=st.ip_addresses(v=6), port=st.integers(0, 65535), mode=st.sampled_from(HeaderMode), facts=facts)
def test_a_receiver_parses_the_header(source: Any, port: int, mode: HeaderMode, facts: TlsFacts) -> None:
    header = encode_header(socket.AF_INET6, (str(source), port, 0, 0), ("2001:db8::1", 443, 0, 0), mode, facts)
    assert (header[12], header[13], struct.unpack("!H", header[14:16])[0]) == (0x21, 0x21, len(header) - 16)
    assert ip_address(header[16:32]) == ip_address(source.packed)
    assert struct.unpack("!HH", header[48:52]) == (port, 443)
    tlvs = parse_tlvs(header[52:])
    if mode is HeaderMode.CONN:
        assert tlvs == {}
        return
    ssl = tlvs[0x20]
    inner = parse_tlvs(ssl[5:])
    is_full = mode is HeaderMode.TLS_FULL and facts.leaf != b""
    verify = struct.pack("!I", 0 if facts.leaf else 1)
    assert (ssl[0], ssl[1:5], inner[0x21].decode()) == (7 if is_full else 1, verify, facts.version)
    assert (tlvs.get(1, b""), tlvs.get(2, b"")) == (facts.alpn, facts.server_name)
    assert inner.get(0x28, b"") == (facts.leaf if is_full else b"")
    assert inner.get(0x22, b"") == (facts.common_name.encode("utf-8", "replace") if is_full else b"")
    expected = facts.spiffe_id.encode("utf-8", "replace") if mode is HeaderMode.SPIFFE else b""
    assert tlvs.get(SPIFFE_ID_TYPE, b"") == expected
