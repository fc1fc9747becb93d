"""The encoding of messages between parent and workers."""

from __future__ import annotations

import os
import pickle
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.support.cert_factory import authority
from tunnel.pkix.certificate import parse_certificate
from tunnel.workers.codec import decode_limited, decode_trusted, encode
from tunnel.workers.messages import FROM_WORKER, Started, TargetResult


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()],
)
def test_a_private_key_arrives_as_it_was(key: ec.EllipticCurvePrivateKey) -> None:
    decoded = decode_trusted(encode([key, key]))
    assert isinstance(decoded, list)
    assert [one.private_numbers() if hasattr(one, "private_numbers") else one.private_bytes_raw() for one in decoded] == [
        key.private_numbers() if hasattr(key, "private_numbers") else key.private_bytes_raw()
    ] * 2


def test_a_certificate_is_sent_as_der_and_parsed_again() -> None:
    certificate = parse_certificate(authority().der)
    data = encode(certificate)
    assert decode_trusted(data) == certificate
    assert data.count(certificate.subject.der) == certificate.der.count(certificate.subject.der)


def test_a_message_of_a_worker_has_known_types_only() -> None:
    decode = decode_limited(FROM_WORKER)
    assert decode(encode(Started())) == Started()
    assert decode(encode(TargetResult(1, "x", None))) == TargetResult(1, "x", None)


@pytest.mark.parametrize("value", [os.system, datetime.now(UTC).tzinfo, pickle.loads, parse_certificate], ids=["system", "zone", "loads", "parse"])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="unexpected type"):
        decode_limited(FROM_WORKER)(pickle.dumps(value))
