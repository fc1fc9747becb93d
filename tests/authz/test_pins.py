"""SPKI pins as text and as values."""

from __future__ import annotations

import base64
import hashlib

import pytest

from tunnel.authz.pins import SpkiPin, parse_pin
from tunnel.errors import ConfigError

KEY = b"any key"


def encoded(algorithm: str) -> str:
    return base64.b64encode(hashlib.new(algorithm, KEY).digest()).decode()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512", "SHA256", "Sha512"])
def test_a_pin_is_an_algorithm_and_a_digest(algorithm: str) -> None:
    pin = parse_pin(f"{algorithm}:{encoded(algorithm)}")
    assert pin == SpkiPin(algorithm.lower(), hashlib.new(algorithm, KEY).digest())
    assert parse_pin(str(pin)) == pin


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "sha256, sha384, sha512"),
        (encoded("sha256"), "sha256, sha384, sha512"),
        (f"md5:{encoded('md5')}", "sha256, sha384, sha512"),
        ("sha256:", "digest of 0 bytes; expected 32 for sha256"),
        (f"sha512:{encoded('sha256')}", "digest of 32 bytes; expected 64 for sha512"),
        (f"sha256:{encoded('sha256')[:-1]}", "padding"),
        (f"sha256:{encoded('sha256')}\n", "sha256:"),
        ("sha256:" + encoded("sha256").replace("=", "!"), "sha256:"),
    ],
)
def test_an_invalid_pin_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_pin(text)
