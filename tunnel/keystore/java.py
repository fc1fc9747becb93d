"""JKS and JCEKS keystores of Java: the first private key that the password decrypts, with its own chain.

A trusted certificate entry may come first in a store. It is never the leaf: a key is used with its own certificates only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tunnel.errors import IdentityError, IdentityFault, WireError, WireFault
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.pkix.der import OCTET_STRING, as_integer, as_oid, children, expect, read_sequence
from tunnel.wire.byte_reader import ByteReader

_WHITENING = b"Mighty Aphrodite"  # Java hashes this between the password and the store
_DIGEST_BYTES = 20
_JKS, _JCEKS = 0xFEEDFEED, 0xCECECECE
_KEY, _TRUSTED, _SECRET = 1, 2, 3
_BY_XOR = (1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1)  # key protection of JKS
_BY_TRIPLE_DES = (1, 3, 6, 1, 4, 1, 42, 2, 19, 1)  # PBEWithMD5AndTripleDES of JCEKS
_SALT_BYTES = 8
_MAX_ITERATIONS = 5_000_000  # Java's limit (jdk.jceks.iterationCount)
_CONVERT = "keytool -importkeystore -srckeystore OLD.jks -destkeystore NEW.p12 -deststoretype PKCS12"
# A secret key is a javax.crypto.SealedObject in Java serialization, without a length field.
_SEALED = re.compile(
    rb"\xac\xed\x00\x05sr\x00\x33com\.sun\.crypto\.provider\.SealedObjectForKeyProtector.{8}\x02\x00\x00"
    rb"xr\x00\x19javax\.crypto\.SealedObject.{8}\x02\x00\x04\[\x00\x0dencodedParamst\x00\x02\[B"
    rb"\[\x00\x10encryptedContentq\x00~\x00\x02L\x00\tparamsAlgt\x00\x12Ljava/lang/String;L\x00\x07sealAlgq\x00~\x00\x03xp",
    re.DOTALL,
)
_ARRAY = re.compile(rb"ur\x00\x02\[B.{8}\x02\x00\x00xp|uq.{4}", re.DOTALL)  # the class, or a reference to it


@dataclass(frozen=True, slots=True)
class _Entry:
    """An encrypted private key with its certificates."""

    number: int  # position in the store, from 1
    protected: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)


def parse_java(blob: bytes, password: str) -> KeyMaterial:
    """Return the first private key that the password decrypts, with its chain; raises IdentityError."""
    _check_integrity(blob, password)
    entries = _key_entries(blob[:-_DIGEST_BYTES])
    if not entries:
        raise IdentityError(IdentityFault.BAD_KEY, "no private key in the Java keystore; expected a key with its certificates")
    for entry in entries:
        if (der := _decrypt(entry, password)) is not None:
            return make_material(_chain(entry), _load_key(entry, der))
    raise IdentityError(
        IdentityFault.PASSWORD,
        f"the store password decrypts none of the {len(entries)} private keys; set the same password for a key with"
        " keytool -keypasswd",
    )


def _check_integrity(blob: bytes, password: str) -> None:
    """Verify the digest, so that only an undamaged store and a correct password get to the parser."""
    if not password:
        raise IdentityError(IdentityFault.PASSWORD, "missing password for the Java keystore; expected --storepass")
    body, digest = blob[:-_DIGEST_BYTES], blob[-_DIGEST_BYTES:]
    if _sha1(_utf16(password) + _WHITENING + body) != digest:
        raise IdentityError(IdentityFault.PASSWORD, "wrong password for the Java keystore, or the file is damaged or truncated")


# -- the file


class _JksReader(ByteReader):
    """Reads the fields of a store in their order."""

    def skip(self, pattern: re.Pattern[bytes]) -> None:
        """Skip the bytes that the pattern matches here."""
        found = pattern.match(self.data, self.at)
        if not found:
            raise WireError(WireFault.MALFORMED, "an unknown object")
        self.at = found.end()


def _key_entries(body: bytes) -> list[_Entry]:
    try:
        return list(_read_entries(_JksReader(body, "the store")))
    except WireError:
        pass
    raise IdentityError(IdentityFault.FORMAT, f"unsupported entry in the Java keystore; convert it with {_CONVERT}")


def _read_entries(reader: _JksReader) -> Iterator[_Entry]:
    magic, version, count = reader.number(4), reader.number(4), reader.number(4)
    if magic not in (_JKS, _JCEKS) or version not in (1, 2):
        raise WireError(WireFault.MALFORMED, "neither JKS nor JCEKS")
    for number in range(1, count + 1):  # each entry consumes bytes, so the size of the store limits the loop
        kind = reader.number(4)
        reader.vector(2)  # its alias
        reader.take(8)  # its date
        if kind == _KEY:
            yield _Entry(number, reader.vector(4), _read_chain(reader, version))
        elif kind == _TRUSTED:
            _read_certificate(reader, version)
        elif kind == _SECRET:
            _skip_sealed(reader)
        else:
            raise WireError(WireFault.MALFORMED, "an entry of an unknown type")


def _read_chain(reader: _JksReader, version: int) -> tuple[bytes, ...]:
    return tuple(_read_certificate(reader, version) for _ in range(reader.number(4)))


def _read_certificate(reader: _JksReader, version: int) -> bytes:
    if version == 2:
        reader.vector(2)  # its type, X.509
    return reader.vector(4)


def _skip_sealed(reader: _JksReader) -> None:
    reader.skip(_SEALED)
    for _ in ("encodedParams", "encryptedContent"):
        reader.skip(_ARRAY)
        reader.vector(4)
    for _ in ("paramsAlg", "sealAlg"):
        is_text = reader.take(1) == b"t"  # otherwise a reference to a text
        reader.take(reader.number(2) if is_text else 4)


# -- the keys


def _decrypt(entry: _Entry, password: str) -> bytes | None:
    """Return the PKCS#8 key; None if the password is wrong for this entry."""
    try:
        algorithm, encrypted = read_sequence(entry.protected)
        data = expect(encrypted, OCTET_STRING).body
        oid, *parameters = children(algorithm)
        if as_oid(oid) == _BY_XOR:
            return _decrypt_by_xor(data, _utf16(password))
        if as_oid(oid) == _BY_TRIPLE_DES:
            salt, iterations = children(parameters[0])
            return _decrypt_by_triple_des(data, password, expect(salt, OCTET_STRING).body, as_integer(iterations))
    except (WireError, ValueError, IndexError):
        pass
    return None


def _decrypt_by_xor(data: bytes, secret: bytes) -> bytes | None:
    """JKS key protection: 20 bytes of salt, the key XOR a chain of SHA-1 digests, a digest of password and key."""
    block, sealed, digest = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    stream = bytearray()
    while len(stream) < len(sealed):
        block = _sha1(secret + block)
        stream += block
    plain = bytes(one ^ other for one, other in zip(sealed, stream, strict=False))
    return plain if _sha1(secret + plain) == digest else None


def _decrypt_by_triple_des(data: bytes, password: str, salt: bytes, iterations: int) -> bytes | None:
    if len(salt) != _SALT_BYTES or not 0 < iterations <= _MAX_ITERATIONS:
        return None
    derived = _derive(password.encode("ascii"), salt, iterations)  # Java accepts only ASCII for a key of JCEKS
    decryptor = Cipher(TripleDES(derived[:24]), modes.CBC(derived[24:])).decryptor()
    unpadder = PKCS7(64).unpadder()
    return unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()


def _derive(password: bytes, salt: bytes, iterations: int) -> bytes:
    """Derive 24 bytes of key and 8 of IV: a chain of MD5 for each half of the salt."""
    first, second = salt[:4], salt[4:]
    if first == second:  # Java intends to reverse the half; a bug in it produces this
        first = bytes((first[3], first[0], first[1], first[3]))
    derived = b""
    for half in (first, second):
        for _ in range(iterations):
            half = hashlib.md5(half + password, usedforsecurity=False).digest()
        derived += half
    return derived


def _load_key(entry: _Entry, der: bytes) -> PrivateKeyTypes:
    try:
        return load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    raise IdentityError(
        IdentityFault.BAD_KEY, f"unreadable private key in entry {entry.number}; expected RSA, ECDSA or Ed25519"
    )


def _chain(entry: _Entry) -> list[Certificate]:
    try:
        return [parse_certificate(der) for der in entry.chain]
    except WireError:
        pass
    raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"unreadable certificate in entry {entry.number}")


def _utf16(password: str) -> bytes:
    return password.encode("utf-16-be", "surrogatepass")


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()
