"""Keys of every kind and strength, each made once, and signatures over any digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.odd_certificates.raw_der import NULL, bits, context, integer, octets, oid, seq, tlv

# By size of the modulus. The numbers are random primes, kept because the large ones take minutes to find.
_PRIMES: dict[str, list[str]] = json.loads((Path(__file__).parent / "primes.json").read_text())
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "p192": ec.SECP192R1,
    "p224": ec.SECP224R1,
    "p256": ec.SECP256R1,
    "p384": ec.SECP384R1,
    "p521": ec.SECP521R1,
    "k256": ec.SECP256K1,
    "bp256": ec.BrainpoolP256R1,
}
_RSA = "1.2.840.113549.1.1."
_NO_PARAMETERS, _NULL = b"", tlv(NULL)
_RSA_OIDS = {"md5": "4", "sha1": "5", "sha224": "14", "sha256": "11", "sha384": "12", "sha512": "13"}
_ECDSA_OIDS = {"sha1": "1", "sha224": "3.1", "sha256": "3.2", "sha384": "3.3", "sha512": "3.4"}
_DSA_OIDS = {"sha1": "1.2.840.10040.4.3", "sha256": "2.16.840.1.101.3.4.3.2"}
_DIGEST_OIDS = {
    "md5": "1.2.840.113549.2.5",
    "sha1": "1.3.14.3.2.26",
    "sha224": "2.16.840.1.101.3.4.2.4",
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Key:
    """A private key and its SubjectPublicKeyInfo."""

    private: Any
    spki: bytes


@cache
def key(kind: str, number: int = 0) -> Key:
    """A key such as `p256`, `rsa2048`, `rsa2048e3`, `dsa`; the same one for the same number."""
    if kind.startswith("rsa"):
        size, _, exponent = kind.removeprefix("rsa").partition("e")
        return _rsa_key(size, int(exponent or 65537))
    if kind in _CURVES:
        return _key(ec.generate_private_key(_CURVES[kind]()))
    if kind in ("explicit", "generator"):
        return _explicit_curve(is_own=kind == "generator")
    makers = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "ed448": ed448.Ed448PrivateKey.generate,
        "dsa": lambda: dsa.generate_private_key(2048),
    }
    return _key(makers[kind]())


def _key(private: Any) -> Key:
    return Key(private, private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _rsa_key(size: str, exponent: int) -> Key:
    p, q = (int(prime, 16) for prime in _PRIMES[size])
    modulus, secret = p * q, pow(exponent, -1, (p - 1) * (q - 1))
    spki = seq(seq(oid(_RSA + "1"), _NULL), bits(seq(integer(modulus), integer(exponent))))
    return Key(_Rsa(p, q, exponent, secret), spki)


@dataclass(frozen=True, slots=True)
class _Rsa:
    """An RSA key that no library has looked at: some are too short, too long or too odd for them."""

    p: int
    q: int
    exponent: int
    secret: int

    def loaded(self) -> rsa.RSAPrivateKey:
        """The same for a library; raises ValueError where it refuses the key."""
        dp, dq = self.secret % (self.p - 1), self.secret % (self.q - 1)
        public = rsa.RSAPublicNumbers(self.exponent, self.p * self.q)
        numbers = rsa.RSAPrivateNumbers(self.p, self.q, self.secret, dp, dq, pow(self.q, -1, self.p), public)
        return numbers.private_key(unsafe_skip_rsa_key_validation=True)

    def pkcs1(self, data: bytes, digest: str) -> bytes:
        """RSASSA-PKCS1-v1_5 (RFC 8017, 8.2.1)."""
        info = seq(seq(oid(_DIGEST_OIDS[digest]), _NULL), octets(hashlib.new(digest, data).digest()))
        size = ((self.p * self.q).bit_length() + 7) // 8
        padded = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
        return self._power(int.from_bytes(padded, "big")).to_bytes(size, "big")

    def _power(self, message: int) -> int:
        at_p = pow(message, self.secret % (self.p - 1), self.p)
        at_q = pow(message, self.secret % (self.q - 1), self.q)
        return at_q + self.q * ((at_p - at_q) * pow(self.q, -1, self.p) % self.p)


def _explicit_curve(*, is_own: bool) -> Key:
    """A P-256 key whose curve is written out (RFC 3279, 2.3.5), which RFC 5480 forbids.

    With a generator of its own the same public key has another private key (CVE-2020-0601).
    """
    private = ec.generate_private_key(ec.SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    base = bytes.fromhex(
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
    )
    base = point if is_own else base
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    field = seq(oid("1.2.840.10045.1.1"), integer(prime))
    curve = seq(octets((prime - 3).to_bytes(32, "big")), octets(b.to_bytes(32, "big")))
    parameters = seq(integer(1), field, curve, octets(base), integer(order), integer(1))
    return Key(private, seq(seq(oid("1.2.840.10045.2.1"), parameters), bits(point)))


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a certificate is signed: the digest, and what is odd about it."""

    digest: str = "sha256"
    is_pss: bool = False
    parameters: bytes | None = None  # of the AlgorithmIdentifier, in place of the right ones


def algorithm(signer: Key, scheme: Scheme) -> bytes:
    """The AlgorithmIdentifier of a signature."""
    private = signer.private
    if isinstance(private, _Rsa):
        if scheme.is_pss:
            return seq(oid(_RSA + "10"), _pss_parameters(scheme.digest))
        return _identifier(_RSA + _RSA_OIDS[scheme.digest], _NULL, scheme)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return _identifier("1.2.840.10045.4." + _ECDSA_OIDS[scheme.digest], _NO_PARAMETERS, scheme)
    if isinstance(private, dsa.DSAPrivateKey):
        return _identifier(_DSA_OIDS[scheme.digest], _NO_PARAMETERS, scheme)
    dotted = "1.3.101.112" if isinstance(private, ed25519.Ed25519PrivateKey) else "1.3.101.113"
    return _identifier(dotted, _NO_PARAMETERS, scheme)


def _identifier(dotted: str, parameters: bytes, scheme: Scheme) -> bytes:
    return seq(oid(dotted), parameters if scheme.parameters is None else scheme.parameters)


def _pss_parameters(digest: str) -> bytes:
    hashed = seq(oid(_DIGEST_OIDS[digest]), _NULL)
    size = hashlib.new(digest).digest_size
    return seq(context(0, hashed), context(1, seq(oid(_RSA + "8"), hashed)), context(2, integer(size)))


def sign(signer: Key, scheme: Scheme, data: bytes) -> bytes:
    """The signature of `data`."""
    private = signer.private
    if isinstance(private, _Rsa):
        if not scheme.is_pss:
            return private.pkcs1(data, scheme.digest)
        digest = _HASHES[scheme.digest]
        return private.loaded().sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return private.sign(data, ec.ECDSA(_HASHES[scheme.digest]))
    if isinstance(private, dsa.DSAPrivateKey):
        return private.sign(data, _HASHES[scheme.digest])
    return private.sign(data)


def flip_last_bit(signature: bytes) -> bytes:
    """A signature that is wrong, in the same form."""
    return signature[:-1] + bytes([signature[-1] ^ 1])


def loaded(made: Key) -> Any:
    """The private key as the libraries hold it; raises ValueError where they refuse it."""
    return made.private.loaded() if isinstance(made.private, _Rsa) else made.private
