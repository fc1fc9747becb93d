"""Workload API messages: captured ones are parsed as by the protobuf runtime; truncated and changed ones raise WireError."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.support import spire_captures
from tunnel.errors import WireError
from tunnel.pkix.certificate import Certificate, parse_certificates
from tunnel.pkix.strength import read_public_key
from tunnel.spiffe import messages
from tunnel.spiffe.messages import (
    BundlesResponse,
    JwtSvidEntry,
    JwtSvidRequest,
    SvidEntry,
    ValidateRequest,
    ValidateResponse,
    X509SvidResponse,
    encode_jwt_bundles_response,
    encode_jwt_svid_request,
    encode_jwt_svid_response,
    encode_validate_request,
    encode_validate_response,
    encode_x509_bundles_response,
    encode_x509_svid_response,
    parse_jwt_bundles_response,
    parse_jwt_svid_request,
    parse_jwt_svid_response,
    parse_validate_request,
    parse_validate_response,
    parse_x509_bundles_response,
    parse_x509_svid_response,
)
from tunnel.spiffe.protobuf import encode_field, encode_map, encode_message

PARSERS: dict[str, Callable[[bytes], object]] = {
    "FetchX509SVID": parse_x509_svid_response,
    "FetchX509Bundles": parse_x509_bundles_response,
    "FetchJWTSVID": parse_jwt_svid_response,
    "FetchJWTBundles": parse_jwt_bundles_response,
}
ENTRY = SvidEntry("spiffe://a.test/w", b"chain", b"secret-key", b"bundle", "hint")
UNKNOWN = bytes.fromhex("7801" + "79" + "00" * 8 + "7b" + "0801" + "7c" + "7d" + "00" * 4 + "7a0101")  # field 15, all types


def key_name(certificate: Certificate) -> str:
    key = read_public_key(certificate.key_info)
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.curve.name


def seen_in(blob: bytes) -> list[dict[str, Any]]:
    """What the index says of each certificate, read by our own code."""
    return [
        {
            "sha256": sha256(certificate.der).hexdigest(),
            "serial": f"{certificate.serial_number:x}",
            "subject": certificate.subject.describe(),
            "issuer": certificate.issuer.describe(),
            "uris": list(certificate.extensions.uris()),
            "not_before": certificate.not_before.isoformat(),
            "not_after": certificate.not_after.isoformat(),
            "key": key_name(certificate),
        }
        for certificate in parse_certificates(blob)
    ]


def seen_in_bundles(bundles: Mapping[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    return {domain: seen_in(blob) for domain, blob in bundles.items()}


@pytest.mark.parametrize("name", spire_captures.of("FetchX509SVID"))
def test_captured_svids_hold_what_the_index_says(name: str) -> None:
    response = parse_x509_svid_response(spire_captures.message(name))
    assert {
        "rpc": "FetchX509SVID",
        "svids": [
            {
                "spiffe_id": svid.spiffe_id,
                "hint": svid.hint,
                "chain": seen_in(svid.x509_svid),
                "bundle": seen_in(svid.bundle),
            }
            for svid in response.svids
        ],
        "federated_bundles": seen_in_bundles(response.federated_bundles),
        "crl": len(response.crl),
    } == spire_captures.INDEX[name]


@pytest.mark.parametrize("name", spire_captures.of("FetchX509Bundles"))
def test_captured_bundles_hold_what_the_index_says(name: str) -> None:
    response = parse_x509_bundles_response(spire_captures.message(name))
    assert {
        "rpc": "FetchX509Bundles",
        "bundles": seen_in_bundles(response.bundles),
        "crl": len(response.crl),
    } == spire_captures.INDEX[name]


@pytest.mark.parametrize("name", spire_captures.of("FetchJWTSVID"))
def test_captured_jwt_svids_hold_what_the_index_says(name: str) -> None:
    svids = parse_jwt_svid_response(spire_captures.message(name))
    seen = [{"spiffe_id": svid.spiffe_id, "hint": svid.hint, "svid": svid.svid} for svid in svids]
    assert {"rpc": "FetchJWTSVID", "svids": seen} == spire_captures.INDEX[name]


@pytest.mark.parametrize("name", spire_captures.of("FetchJWTBundles"))
def test_captured_jwt_bundles_hold_what_the_index_says(name: str) -> None:
    bundles = parse_jwt_bundles_response(spire_captures.message(name)).bundles
    assert {"rpc": "FetchJWTBundles", "bundles": {k: json.loads(v) for k, v in bundles.items()}} == spire_captures.INDEX[name]


def test_every_captured_message_is_in_the_index_and_is_read_by_one_of_these_tests() -> None:
    files = {str(path.relative_to(spire_captures.HERE)) for path in spire_captures.HERE.rglob("*.bin")}
    assert files == set(spire_captures.INDEX)
    assert {entry["rpc"] for entry in spire_captures.INDEX.values()} == set(PARSERS)


@pytest.mark.parametrize("name", [name for name in spire_captures.INDEX if not name.startswith("rotation/svid/1")])
def test_a_captured_message_cut_anywhere_is_refused_or_read(name: str) -> None:
    parse, data = PARSERS[spire_captures.INDEX[name]["rpc"]], spire_captures.message(name)
    whole = parse(data)
    for cut in range(len(data)):
        with contextlib.suppress(WireError):
            assert parse(data[:cut]) != whole


def test_captured_x509_messages_are_encoded_back_byte_for_byte() -> None:
    for name in spire_captures.of("FetchX509SVID"):
        data = spire_captures.message(name)
        assert encode_x509_svid_response(parse_x509_svid_response(data)) == data
    for name in spire_captures.of("FetchX509Bundles"):
        response = parse_x509_bundles_response(spire_captures.message(name))
        again = parse_x509_bundles_response(encode_x509_bundles_response(response))  # the order of a map is free
        assert again == response


def test_captured_jwt_messages_are_encoded_back_byte_for_byte() -> None:
    for name in spire_captures.of("FetchJWTSVID"):
        request = parse_jwt_svid_request(bytes.fromhex(spire_captures.call(name.rpartition("/")[0])["request"]))
        assert request == JwtSvidRequest(("db1",))
        assert encode_jwt_svid_request(request).hex() == spire_captures.call(name.rpartition("/")[0])["request"]
        message = spire_captures.message(name)
        assert encode_jwt_svid_response(parse_jwt_svid_response(message)) == message
    for name in spire_captures.of("FetchJWTBundles"):
        message = spire_captures.message(name)
        assert encode_jwt_bundles_response(parse_jwt_bundles_response(message).bundles) == message


def test_validation_requests_and_responses_are_parsed_back() -> None:
    question = ValidateRequest("db", "a.b.c")
    assert parse_validate_request(encode_validate_request(question)) == question
    assert "a.b.c" not in repr(question)
    answer = ValidateResponse("spiffe://a.test/x", {"aud": ["db"], "exp": 1.5, "deep": {"no": None, "yes": True}})
    assert parse_validate_response(encode_validate_response(answer)) == answer
    asked = JwtSvidRequest(("a", "", "b"), "spiffe://a.test/x")
    assert parse_jwt_svid_request(encode_jwt_svid_request(asked)) == asked


def svid_fields() -> Iterator[bytes]:
    for number, value in enumerate((ENTRY.spiffe_id, ENTRY.x509_svid, ENTRY.x509_svid_key, ENTRY.bundle, ENTRY.hint), 1):
        yield encode_field(number, value)


def test_fields_may_come_in_any_order_with_unknown_ones_between() -> None:
    backwards = UNKNOWN.join([b"", *reversed(list(svid_fields())), b""])
    svid, other = encode_message(1, backwards), encode_message(1, b"")
    data = UNKNOWN.join([encode_map(3, [("b.test", b"B")]), svid, encode_message(2, b"crl"), other, b""])
    assert parse_x509_svid_response(data) == X509SvidResponse((ENTRY, SvidEntry()), (b"crl",), {"b.test": b"B"})
    data = UNKNOWN.join([encode_map(2, [("b.test", b"B")]), encode_message(1, b"crl"), b""])
    assert parse_x509_bundles_response(data) == BundlesResponse({"b.test": b"B"}, (b"crl",))
    data = UNKNOWN.join([encode_field(2, "spiffe://a.test/w"), encode_field(1, "db"), b""])
    assert parse_jwt_svid_request(data) == JwtSvidRequest(("db",), "spiffe://a.test/w")


def test_the_last_of_a_repeated_singular_field_counts() -> None:
    doubled = b"".join(svid_fields()) + encode_message(1, b"spiffe://a.test/last") + encode_message(5, b"")
    (svid,) = parse_x509_svid_response(encode_message(1, doubled)).svids
    assert (svid.spiffe_id, svid.hint, svid.bundle) == ("spiffe://a.test/last", "", b"bundle")


def test_the_last_of_two_equal_map_keys_counts() -> None:
    data = encode_map(3, [("b.test", b"old"), ("b.test", b"new")])
    assert parse_x509_svid_response(data).federated_bundles == {"b.test": b"new"}
    data = encode_map(2, [("b.test", b"old"), ("b.test", b"new")])
    assert parse_x509_bundles_response(data).bundles == {"b.test": b"new"}


def test_missing_fields_are_their_defaults() -> None:
    assert parse_x509_svid_response(b"") == X509SvidResponse()
    assert parse_x509_svid_response(b"\x0a\x00\x1a\x00") == X509SvidResponse((SvidEntry(),), (), {"": b""})
    assert parse_x509_bundles_response(b"") == BundlesResponse()
    assert parse_jwt_bundles_response(b"") == BundlesResponse()
    assert parse_jwt_svid_response(b"\x0a\x00") == (JwtSvidEntry(),)


@pytest.mark.parametrize("number", range(1, 6))
def test_a_field_of_the_wrong_wire_type_is_unknown(number: int) -> None:
    data = encode_message(1, bytes([number << 3, 1]))
    assert parse_x509_svid_response(data) == X509SvidResponse((SvidEntry(),))


@pytest.mark.parametrize("number", [1, 5])
def test_text_that_is_not_utf8_is_refused(number: int) -> None:
    with pytest.raises(WireError):
        parse_x509_svid_response(encode_message(1, encode_field(number, b"\xff")))


def test_a_map_key_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(WireError):
        parse_x509_svid_response(encode_message(3, encode_field(1, b"\xff")))


def test_the_two_responses_number_their_fields_differently() -> None:
    data = encode_message(1, b"") + encode_map(2, [("a.test", b"A")])
    assert parse_x509_bundles_response(data) == BundlesResponse({"a.test": b"A"}, (b"",))


def test_no_secret_is_in_a_repr() -> None:
    response = X509SvidResponse((ENTRY,))
    assert "secret" not in repr(response)
    assert "secret" not in f"{response} {ENTRY!s} {[ENTRY]}"
    assert "bearer" not in repr(JwtSvidEntry("spiffe://a.test/w", "bearer-token", "hint"))
    for name in spire_captures.of("FetchX509SVID"):
        response = parse_x509_svid_response(spire_captures.message(name))
        assert all(repr(svid.x509_svid_key)[2:-1] not in repr(response) for svid in response.svids)


def test_a_call_is_named_without_a_package() -> None:
    assert messages.method_path("FetchX509SVID") == "/SpiffeWorkloadAPI/FetchX509SVID"


@given(st.binary(max_size=80), st.sampled_from(sorted(PARSERS)))
def test_noise_is_parsed_or_refused_with_a_wire_error(data: bytes, rpc: str) -> None:
    with contextlib.suppress(WireError):
        PARSERS[rpc](data)


@given(st.data())
def test_a_captured_message_with_changed_bytes_is_parsed_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(spire_captures.INDEX)))
    changed = bytearray(spire_captures.message(name))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        PARSERS[spire_captures.INDEX[name]["rpc"]](bytes(changed))
