"""The parser on the page about backends reads every header that we send, and refuses everything else."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cookbook_page import read_page
from tunnel.wire.proxy_v2 import HeaderMode, TlsFacts, encode_header

ID = "spiffe://example.org/orders"
FACTS = TlsFacts("TLS 1.3", b"web.example.org", b"h2", "orders", b"\x30\x00", ID)
ADDRESSES: dict[str, tuple[Any, ...]] = {
    "IPv4": (socket.AF_INET, ("192.0.2.7", 50000), ("198.51.100.1", 443)),
    "IPv6": (socket.AF_INET6, ("2001:db8::7", 50000, 0, 0), ("2001:db8::1", 443, 0, 0)),
    "Unix": (socket.AF_UNIX, "", "/run/front"),
    "other": (socket.AF_VSOCK, (3, 1), (2, 1)),
}


def load_parser() -> Callable[[io.BytesIO], str]:
    names: dict[str, Any] = {"__name__": "hello"}
    exec(read_page("backend").files["hello.py"], names)  # the code of our own page
    parser: Callable[[io.BytesIO], str] = names["read_spiffe_id"]
    return parser


READ = load_parser()


@pytest.mark.parametrize("where", ADDRESSES.values(), ids=ADDRESSES)
@pytest.mark.parametrize("mode", HeaderMode)
def test_every_header_is_read_to_its_end(where: tuple[Any, ...], mode: HeaderMode) -> None:
    stream = io.BytesIO(encode_header(*where, mode, FACTS) + b"GET / HTTP/1.1")
    assert READ(stream) == (ID if mode is HeaderMode.SPIFFE else "")
    assert stream.read() == b"GET / HTTP/1.1"


def test_a_client_without_an_id_has_none() -> None:
    assert READ(io.BytesIO(encode_header(*ADDRESSES["IPv4"], HeaderMode.SPIFFE, TlsFacts("TLS 1.3")))) == ""


def test_a_header_that_is_cut_off_is_refused() -> None:
    header = encode_header(*ADDRESSES["IPv4"], HeaderMode.SPIFFE, FACTS)
    for end in range(len(header)):
        with pytest.raises(ValueError, match="PROXY header"):
            READ(io.BytesIO(header[:end]))
        size = end - 16
        if size >= 0:  # the length says so too
            with contextlib.suppress(ValueError):
                assert READ(io.BytesIO(header[:14] + size.to_bytes(2, "big") + header[16:end])) == ""


@given(st.binary(max_size=80), st.sampled_from([0x00, 0x11, 0x21, 0x31, 0x55]))
def test_noise_is_refused_or_has_some_id(noise: bytes, family: int) -> None:
    head = encode_header(*ADDRESSES["other"], HeaderMode.CONN, FACTS)[:13]
    with contextlib.suppress(ValueError):
        READ(io.BytesIO(head + bytes((family,)) + len(noise).to_bytes(2, "big") + noise))
    with pytest.raises(ValueError, match="no PROXY header"):
        READ(io.BytesIO(b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n" + noise))
