"""A ClientHello is parsed at every split; anything else is refused with its reason."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from tunnel.errors import WireError, WireFault
from tunnel.tls.client_hello import PREFIX_SIZE, ClientHello, is_client_hello, parse_client_hello

PROBE = ClientHello("www.example.test", (b"acme-tls/1",))


def vector(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def name_extension(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    return 0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names))


def alpn_extension(*protocols: bytes) -> tuple[int, bytes]:
    return 16, vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def hello(*extensions: tuple[int, bytes], tail: bytes = b"") -> bytes:
    """The handshake message, without records."""
    listed = b"".join(struct.pack("!H", number) + vector(2, content) for number, content in extensions)
    body = b"\3\3" + bytes(32) + vector(1, b"session") + vector(2, b"\x13\x01") + vector(1, b"\0") + vector(2, listed) + tail
    return b"\1" + vector(3, body)


def records(message: bytes, sizes: Sequence[int] = ()) -> bytes:
    """The message in records of these sizes, and one with the rest."""
    out = b""
    for size in (*sizes, len(message)):
        piece, message = message[:size], message[size:]
        out += b"\x16\3\1" + vector(2, piece) if piece else b""
    return out


WHOLE = records(hello((43, b"\2\3\4"), name_extension(b"WWW.example.TEST"), alpn_extension(b"acme-tls/1"), (51, b"")))


def said_by_openssl(version: int, name: bytes, protocols: list[bytes]) -> bytes:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(version)
    if protocols:
        context.set_alpn_protos(protocols)
    connection = SSL.Connection(context)
    if name:
        connection.set_tlsext_host_name(name)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["tls12", "tls13"])
@pytest.mark.parametrize(
    ("name", "protocols"),
    [
        (b"", []),
        (b"www.example.test", []),
        (b"", [b"h2", b"http/1.1"]),
        (b"www.example.test", [b"acme-tls/1"]),
        (b"www.example.test", [b"h2", b"acme-tls/1"]),
    ],
)
def test_what_openssl_says_is_read(version: int, name: bytes, protocols: list[bytes]) -> None:
    assert parse_client_hello(said_by_openssl(version, name, protocols)) == ClientHello(name.decode(), tuple(protocols))


def test_a_client_hello_is_parsed_at_every_split() -> None:
    for cut in range(len(WHOLE)):
        assert parse_client_hello(WHOLE[:cut]) is None
    assert parse_client_hello(WHOLE) == PROBE
    assert parse_client_hello(WHOLE + b"whatever comes behind") == PROBE


def test_a_client_hello_in_several_records_is_parsed_at_every_split() -> None:
    message = hello(name_extension(b"www.example.test"), alpn_extension(b"acme-tls/1"))
    for cut in range(1, len(message)):
        data = records(message, [cut])
        assert parse_client_hello(data) == PROBE
        assert parse_client_hello(data[:-1]) is None


def test_one_without_extensions_is_read() -> None:
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"
    assert parse_client_hello(records(b"\1" + vector(3, body))) == ClientHello("", ())


BAD = {
    "HTTP": (b"GET / HTTP/1.1\r\n", WireFault.MALFORMED),
    "an alert": (b"\x15\3\1\0\2\2\0", WireFault.MALFORMED),
    "SSL 2": (b"\x80\x2e\1\3\1", WireFault.MALFORMED),
    "another major version": (b"\x16\2", WireFault.MALFORMED),
    "an empty record": (b"\x16\3\1\0\0", WireFault.MALFORMED),
    "a record beyond the limit": (b"\x16\3\1\x40\1", WireFault.MALFORMED),
    "another message": (b"\x16\3\1\0\4\2", WireFault.MALFORMED),
    "a message beyond our limit": (b"\x16\3\1\0\4\1\0\x40\1", WireFault.TOO_LARGE),
    "too many records": (records(hello(), [1] * 8), WireFault.TOO_LARGE),
    "an empty message": (records(b"\1\0\0\0"), WireFault.TRUNCATED),
    "a session beyond the end": (records(b"\1" + vector(3, bytes(34) + b"\xff")), WireFault.TRUNCATED),
    "bytes behind the extensions": (records(hello(tail=b"x")), WireFault.MALFORMED),
    "an extension twice": (records(hello((7, b""), (7, b""))), WireFault.MALFORMED),
    "an extension beyond the end": (
        records(b"\1" + vector(3, bytes(34) + b"\0\0\2\x13\1\1\0" + vector(2, b"\0\7\0\1"))),
        WireFault.TRUNCATED,
    ),
    "no name in the list": (records(hello((0, b"\0\0"))), WireFault.MALFORMED),
    "two names": (records(hello(name_extension(b"a", b"b"))), WireFault.MALFORMED),
    "a name of another kind": (records(hello(name_extension(b"a", kind=1))), WireFault.MALFORMED),
    "a name that is not ASCII": (records(hello(name_extension(b"\xe9.test"))), WireFault.NOT_TEXT),
    "bytes behind the name": (records(hello((0, name_extension(b"a")[1] + b"x"))), WireFault.MALFORMED),
    "an empty list of protocols": (records(hello(alpn_extension())), WireFault.MALFORMED),
    "a protocol without a name": (records(hello(alpn_extension(b"h2", b""))), WireFault.MALFORMED),
    "a protocol beyond the end": (records(hello((16, b"\0\2\7h"))), WireFault.TRUNCATED),
}


@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=BAD)
def test_an_invalid_client_hello_is_refused_with_its_reason(data: bytes, reason: WireFault) -> None:
    with pytest.raises(WireError) as refused:
        parse_client_hello(data)
    assert refused.value.reason is reason


def test_the_largest_is_read_and_one_byte_more_is_not() -> None:
    room = 16384 - len(hello((21, b""))) + 4
    assert parse_client_hello(records(hello((21, bytes(room))), [16384])) == ClientHello("", ())
    with pytest.raises(WireError) as refused:
        parse_client_hello(records(hello((21, bytes(room + 1))), [16384]))
    assert refused.value.reason is WireFault.TOO_LARGE


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)), st.integers(0, 20))
def test_noise_raises_its_own_error_only(noise: bytes, at: int, gap: int) -> None:
    for data in (noise, WHOLE[:at] + noise + WHOLE[at + gap :], b"\x16\3\1" + vector(2, b"\1" + vector(3, noise))):
        try:
            found = parse_client_hello(data)
        except WireError:
            continue
        assert found is None or isinstance(found, ClientHello)


# -- the first bytes


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 4])
def test_a_client_hello_is_recognized_at_its_sixth_byte_and_not_before(minor: int) -> None:
    data = WHOLE[:2] + bytes([minor]) + WHOLE[3:]  # RFC 8446, 5.1: the version of the record has no meaning
    assert [is_client_hello(data[:size]) for size in range(PREFIX_SIZE)] == [None] * PREFIX_SIZE
    assert is_client_hello(data[:PREFIX_SIZE]) is True
    assert is_client_hello(data) is True


@pytest.mark.parametrize(
    ("data", "decided_at"),
    [
        (b"GET / HTTP/1.1", 1),
        (b"\x15\x03\x01\x00\x02\x01", 1),  # an alert
        (b"\x16\x02\x01\x00\x10\x01", 2),
        (b"\x16\x03\x01\x00\x00\x01", 5),  # an empty record
        (b"\x16\x03\x01\x40\x01\x01", 5),  # a record of more than 16384 bytes
        (b"\x16\x03\x01\x00\x10\x02", 6),  # another handshake message
    ],
)
def test_other_bytes_are_told_from_a_client_hello_at_the_first_that_differs(data: bytes, decided_at: int) -> None:
    found = [is_client_hello(data[:size]) for size in range(len(data) + 1)]
    assert found == [None] * decided_at + [False] * (len(data) + 1 - decided_at)
