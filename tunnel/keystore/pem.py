"""PEM: blocks with text around them, certificates and keys in any order.

Knows what counts as a block (RFC 7468) and which blocks are meant; must not know files. The chain is every CERTIFICATE
in order and the key is the first block that is a private key, wherever it stands; everything else is passed over. What
is meant but damaged is an error here: a chain is never shortened in silence.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tunnel.errors import IdentityError, IdentityFault, WireError, WireFault
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.certificate import parse_certificate as parse_der

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# RFC 7468, section 3: a label has no two hyphens in a row, so a boundary never reaches over the body of a block in one line.
_BOUNDARY = re.compile(rb"-----(BEGIN|END) ([\x21-\x2c\x2e-\x7e](?:[- ]?[\x21-\x2c\x2e-\x7e])*)-----")
_CERTIFICATE = "CERTIFICATE"
_PRIVATE_KEY = "PRIVATE KEY"
_SHOWN_LABELS = 5
# Labels that a message may show. Any other one may be a part of a damaged key.
_KNOWN_LABELS = frozenset(
    """
    CERTIFICATE, TRUSTED CERTIFICATE, X509 CERTIFICATE, CERTIFICATE REQUEST, NEW CERTIFICATE REQUEST, ATTRIBUTE CERTIFICATE,
    X509 CRL, PRIVATE KEY, ENCRYPTED PRIVATE KEY, RSA PRIVATE KEY, EC PRIVATE KEY, DSA PRIVATE KEY, ANY PRIVATE KEY,
    OPENSSH PRIVATE KEY, PUBLIC KEY, RSA PUBLIC KEY, EC PARAMETERS, DH PARAMETERS, DSA PARAMETERS, PKCS7, CMS
    """.strip()
    .replace("\n    ", " ")
    .split(", ")
)
_UNKNOWN = "a block of another kind"
_NO_BLOCK = "and no block of PEM at all (each boundary needs a line of its own)"


@dataclass(frozen=True, slots=True)
class Block:
    """One block by itself, from its first boundary to its last; without the last one when it was cut short."""

    label: str = field(repr=False)
    line: int  # where it begins, counted from 1
    text: bytes = field(repr=False)

    @property
    def is_certificate(self) -> bool:
        """Whether it is a plain certificate; OpenSSL's TRUSTED CERTIFICATE is none."""
        return self.label == _CERTIFICATE

    @property
    def is_key(self) -> bool:
        """Whether it is a private key of any kind."""
        return self.label == _PRIVATE_KEY or self.label.endswith(f" {_PRIVATE_KEY}")

    @property
    def kind(self) -> str:
        """Its label for a message."""
        return f"{self.label!a}" if self.label in _KNOWN_LABELS else _UNKNOWN

    @property
    def is_encrypted(self) -> bool:
        """Whether it is a key under a password, in the form of PKCS#8 or in OpenSSL's older one."""
        return self.label == f"ENCRYPTED {_PRIVATE_KEY}" or b"\nProc-Type: 4,ENCRYPTED" in self.text


def parse_blocks(blob: bytes) -> tuple[Block, ...]:
    """Every block in order; a block ends at the next boundary, whichever that is."""
    blocks = []
    label, start, lines = "", 0, list[bytes]()

    def close() -> None:
        if label:
            blocks.append(Block(label, start, b"\n".join(lines) + b"\n"))

    for number, raw in enumerate(blob.removeprefix(_BYTE_ORDER_MARK).splitlines(), 1):
        line = raw.strip()
        boundary = _BOUNDARY.fullmatch(line)
        if boundary and boundary[1] == b"BEGIN":
            close()
            label, start, lines = boundary[2].decode("ascii", "backslashreplace"), number, []
        if label:
            lines.append(line)
        if boundary and boundary[1] == b"END":
            close()
            label = ""
    close()
    return tuple(blocks)


def parse_chain(blocks: Iterable[Block]) -> tuple[Certificate, ...]:
    """Every certificate in order; raises IdentityError at the first that cannot be read."""
    return tuple(parse_certificate(block) for block in blocks if block.is_certificate)


def parse_certificate(block: Block) -> Certificate:
    """The certificate of a block; raises IdentityError."""
    _begin, *body = block.text.strip().split(b"\n")
    try:
        if not body or body.pop() != f"-----END {_CERTIFICATE}-----".encode():
            raise WireError(WireFault.TRUNCATED, "no end")
        return parse_der(b64decode(b"".join(b"".join(body).split()), validate=True))
    except (ValueError, WireError) as error:
        raise IdentityError(
            IdentityFault.BAD_CERTIFICATE, f"line {block.line}: a certificate that is damaged or cut short"
        ) from error


def find_key(blocks: Iterable[Block]) -> Block | None:
    """The first private key: the one that counts."""
    return next((block for block in blocks if block.is_key), None)


def parse_key(block: Block, password: str = "") -> PrivateKeyTypes:
    """The key of a block, decrypted if need be; raises IdentityError, without a byte of the key."""
    if block.is_encrypted and not password:
        raise IdentityError(
            IdentityFault.PASSWORD,
            f"line {block.line}: the private key is encrypted and there is no password for it; decrypt it with"
            " openssl pkey -in KEY -out PLAIN, or give key and certificates in one file as --keystore, with --storepass",
        )
    secret = password.encode("utf-8", "surrogateescape") if block.is_encrypted else None
    try:
        return load_pem_private_key(block.text, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    if block.is_encrypted:
        raise IdentityError(
            IdentityFault.PASSWORD, f"line {block.line}: the password does not open the private key, or the key is damaged"
        )
    raise IdentityError(
        IdentityFault.BAD_KEY,
        f"line {block.line}: the private key ({block.kind}) cannot be read; wanted an RSA, ECDSA or Ed25519 key that is whole",
    )


def parse_pem(blob: bytes, password: str) -> KeyMaterial:
    """Key and chain out of one file's PEM; raises IdentityError."""
    blocks = parse_blocks(blob)
    chain, key = parse_chain(blocks), find_key(blocks)
    if not chain:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"no CERTIFICATE block, {describe(blocks)}")
    if key is None:
        raise IdentityError(IdentityFault.BAD_KEY, f"no PRIVATE KEY block, {describe(blocks)}")
    return make_material(chain, parse_key(key, password))


def describe(blocks: Iterable[Block]) -> str:
    """Which kinds of blocks there are, for an error; not a byte of what is in the file."""
    labels = list(dict.fromkeys(block.kind for block in blocks))
    more = ", ..." if len(labels) > _SHOWN_LABELS else ""
    return f"only {', '.join(labels[:_SHOWN_LABELS])}{more}" if labels else _NO_BLOCK
