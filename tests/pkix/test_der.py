"""Consecutive DER values are split, and anything else raises only WireError."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import spire_captures
from tunnel.errors import WireError, WireFault
from tunnel.pkix.der import MAX_VALUES, read_values, split_sequences
from tunnel.spiffe.messages import parse_x509_svid_response

SHORT = bytes.fromhex("3003020105")
LONG = bytes.fromhex("308180") + bytes(128)
LONGER = bytes.fromhex("30820100") + bytes(256)
EMPTY = bytes.fromhex("3000")

BAD = [
    ("31", WireFault.MALFORMED),
    ("00", WireFault.MALFORMED),
    ("04020102", WireFault.MALFORMED),  # an octet string
    ("300302010500", WireFault.MALFORMED),  # a zero byte after a whole value
    ("3003020105" + "0a", WireFault.MALFORMED),
    ("3080", WireFault.MALFORMED),  # the indefinite length of BER
    ("30800000", WireFault.MALFORMED),
    ("3085" + "0000000001" + "00", WireFault.MALFORMED),  # five bytes of length
    ("30ff", WireFault.MALFORMED),
    ("30", WireFault.TRUNCATED),
    ("3003020105" + "30", WireFault.TRUNCATED),
    ("3081", WireFault.TRUNCATED),
    ("308201", WireFault.TRUNCATED),
    ("3084ffffffff", WireFault.TRUNCATED),
    ("30030201", WireFault.TRUNCATED),
]


@pytest.mark.parametrize("values", [(), (SHORT,), (EMPTY,), (LONG, SHORT), (SHORT, EMPTY, LONGER, LONG)])
def test_values_back_to_back_come_out_singly(values: tuple[bytes, ...]) -> None:
    assert split_sequences(b"".join(values)) == values


@pytest.mark.parametrize(("blob", "reason"), BAD)
def test_anything_but_whole_sequences_is_refused(blob: str, reason: WireFault) -> None:
    with pytest.raises(WireError) as refused:
        split_sequences(bytes.fromhex(blob))
    assert refused.value.reason is reason


def test_a_captured_chain_cut_anywhere_but_between_certificates_is_truncated() -> None:
    chain = parse_x509_svid_response(spire_captures.message("same-subject-left/svid/00")).svids[0].x509_svid
    leaf, intermediate = split_sequences(chain)
    assert leaf + intermediate == chain
    for cut in range(len(chain)):
        if cut in (0, len(leaf)):
            assert b"".join(split_sequences(chain[:cut])) == chain[:cut]
            continue
        with pytest.raises(WireError) as refused:
            split_sequences(chain[:cut])
        assert refused.value.reason is WireFault.TRUNCATED


@given(st.binary(max_size=80) | st.lists(st.sampled_from([b"\x30", b"\x81", b"\x82", b"\x00", b"\x05"])).map(b"".join))
def test_noise_is_refused_or_cut_without_loss(blob: bytes) -> None:
    with contextlib.suppress(WireError):
        assert b"".join(split_sequences(blob)) == blob


def test_values_in_one_are_at_most_so_many() -> None:
    null = b"\x05\x00"
    assert len(list(read_values(null * MAX_VALUES))) == MAX_VALUES
    with pytest.raises(WireError) as refused:
        list(read_values(null * (MAX_VALUES + 1)))
    assert refused.value.reason is WireFault.TOO_LARGE
