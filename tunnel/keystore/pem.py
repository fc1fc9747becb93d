"""PEM (RFC 7468): blocks with text around them, certificates and keys in any order.

The chain is every CERTIFICATE block in order, and the key is the first private key block; all other blocks are ignored. A
damaged certificate or key is an error: a chain is never shortened silently.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tunnel.errors import IdentityError, IdentityFault, WireError, WireFault
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.certificate import parse_certificate as parse_der

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# RFC 7468, section 3: a label has no two hyphens in a row, so a match never spans the body of a one-line block.
_BOUNDARY = re.compile(rb"-----(BEGIN|END) ([\x21-\x2c\x2e-\x7e](?:[- ]?[\x21-\x2c\x2e-\x7e])*)-----")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{2,}={0,2}")
_CERTIFICATE = "CERTIFICATE"
_REVOCATION_LIST = "X509 CRL"
_PRIVATE_KEY = "PRIVATE KEY"
_SHOWN_LABELS = 5
# Labels that a message may show. Any other label may be part of a damaged key.
_KNOWN_LABELS = frozenset(
    """
    CERTIFICATE, TRUSTED CERTIFICATE, X509 CERTIFICATE, CERTIFICATE REQUEST, NEW CERTIFICATE REQUEST, ATTRIBUTE CERTIFICATE,
    X509 CRL, PRIVATE KEY, ENCRYPTED PRIVATE KEY, RSA PRIVATE KEY, EC PRIVATE KEY, DSA PRIVATE KEY, ANY PRIVATE KEY,
    OPENSSH PRIVATE KEY, PUBLIC KEY, RSA PUBLIC KEY, EC PARAMETERS, DH PARAMETERS, DSA PARAMETERS, PKCS7, CMS
    """.strip()
    .replace("\n    ", " ")
    .split(", ")
)
_ENCRYPTED = re.compile(rb"^Proc-Type:\s*4\s*,\s*ENCRYPTED", re.MULTILINE)
_ESCAPED = ": it contains the text \\n; expected line breaks"
_UNKNOWN = "a block of another type"
_NO_BLOCK = "found no PEM block (a block begins at the start of a line)"


@dataclass(frozen=True, slots=True)
class Block:
    """One block with its boundaries; a truncated block has no END boundary."""

    label: str = field(repr=False)
    line: int  # of the BEGIN boundary, from 1
    text: bytes = field(repr=False)

    @property
    def is_certificate(self) -> bool:
        """Whether it is a CERTIFICATE block; TRUSTED CERTIFICATE of OpenSSL is not."""
        return self.label == _CERTIFICATE

    @property
    def is_revocation_list(self) -> bool:
        """Whether it is an X509 CRL block."""
        return self.label == _REVOCATION_LIST

    @property
    def is_key(self) -> bool:
        """Whether it is a private key of any type."""
        return self.label == _PRIVATE_KEY or self.label.endswith(f" {_PRIVATE_KEY}")

    @property
    def kind(self) -> str:
        """Its label, for a message."""
        return f"{self.label!a}" if self.label in _KNOWN_LABELS else _UNKNOWN

    @property
    def is_encrypted(self) -> bool:
        """Whether it is an encrypted key, in PKCS#8 or traditional OpenSSL format."""
        return self.label == f"ENCRYPTED {_PRIVATE_KEY}" or _ENCRYPTED.search(self.text) is not None

    @property
    def hint(self) -> str:
        """A known problem of the text, to append to an error; "" if there is none."""
        return _ESCAPED if rb"\n" in self.text or rb"\r" in self.text else ""


def parse_blocks(blob: bytes) -> tuple[Block, ...]:
    """Return every block in order; a block ends at the next boundary of any kind.

    A line may contain several boundaries, so a missing line break hides no block. Outside of a block, a boundary must start its
    line. Base64 before an END CERTIFICATE without a BEGIN counts as a damaged certificate.
    """
    reader = _PemReader()
    for number, raw in enumerate(blob.removeprefix(_BYTE_ORDER_MARK).splitlines(), 1):
        reader.read(raw.strip(), number)
    reader.close()
    return tuple(reader.blocks)


class _PemReader:
    """The complete blocks so far, and the lines of the open block."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._label = ""
        self._start = 0
        self._lines: list[bytes] = []
        self._is_base64 = False  # whether the last line outside of a block is base64

    def read(self, line: bytes, number: int) -> None:
        done = 0
        if self._label or line.startswith(b"-----"):
            for boundary in _BOUNDARY.finditer(line):
                if not self._label and not done and boundary.start():
                    break
                self._add(line[done : boundary.start()])
                self._take(boundary, number)
                done = boundary.end()
        self._add(line[done:])

    def close(self) -> None:
        """Complete the open block, if any."""
        if self._label:
            self.blocks.append(Block(self._label, self._start, _assemble(self._lines)))
        self._label, self._is_base64 = "", False

    def _take(self, boundary: re.Match[bytes], number: int) -> None:
        label = boundary[2].decode("ascii")
        if boundary[1] == b"BEGIN":
            self.close()
            self._label, self._start, self._lines = label, number, [boundary[0]]
        elif self._label:
            self._lines.append(boundary[0])
            self.close()
        elif self._is_base64 and label == _CERTIFICATE:
            self.blocks.append(Block(label, number, boundary[0]))

    def _add(self, text: bytes) -> None:
        if not (text := text.strip()):
            return
        if self._label:
            self._lines.append(text)
        else:
            self._is_base64 = bool(_BASE64.fullmatch(text))


def _assemble(lines: list[bytes]) -> bytes:
    """Join the lines of a block; the only blank line is the one after the headers (RFC 1421, section 4.4)."""
    headers = 1
    while headers < len(lines) and b":" in lines[headers]:
        headers += 1
    return b"\n".join([*lines[:headers], *([b""] if headers > 1 else []), *lines[headers:]]) + b"\n"


def parse_chain(blocks: Iterable[Block]) -> tuple[Certificate, ...]:
    """Parse every certificate in order; raises IdentityError at the first unreadable one."""
    return tuple(parse_certificate(block) for block in blocks if block.is_certificate)


def parse_certificate(block: Block) -> Certificate:
    """Parse the certificate of a block; raises IdentityError."""
    try:
        return parse_der(decode(block))
    except WireError:
        pass  # not chained: the cause may quote the file
    raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"line {block.line}: damaged or truncated certificate{block.hint}")


def decode(block: Block) -> bytes:
    """Return the content of a block in DER, without headers; raises WireError."""
    _begin, *body = block.text.strip().split(b"\n")
    if not body or body.pop() != f"-----END {block.label}-----".encode():
        raise WireError(WireFault.TRUNCATED, "no END boundary")
    base64 = b"".join(line for line in body if b":" not in line)
    try:
        return b64decode(b"".join(base64.split()), validate=True)
    except ValueError:
        pass  # not chained, as above
    raise WireError(WireFault.MALFORMED, "not base64")


def find_key(blocks: Iterable[Block]) -> Block | None:
    """Return the first private key block."""
    return next((block for block in blocks if block.is_key), None)


def parse_key(block: Block, password: str = "") -> PrivateKeyTypes:
    """Parse the key of a block, encrypted or not; raises IdentityError, without key material."""
    if block.is_encrypted and not password:
        raise IdentityError(
            IdentityFault.PASSWORD,
            f"line {block.line}: encrypted private key without a password; decrypt it with openssl pkey -in KEY -out PLAIN,"
            " or use one file with key and certificates as --keystore, with --storepass",
        )
    secret = password.encode("utf-8", "surrogateescape") if block.is_encrypted else None
    try:
        return load_pem_private_key(block.text, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        pass
    if block.is_encrypted:
        raise IdentityError(
            IdentityFault.PASSWORD, f"line {block.line}: wrong password for the private key, or the key is damaged"
        )
    problem = block.hint or "; expected a complete RSA, ECDSA or Ed25519 key"
    raise IdentityError(IdentityFault.BAD_KEY, f"line {block.line}: unreadable private key ({block.kind}){problem}")


def parse_pem(blob: bytes, password: str) -> KeyMaterial:
    """Parse key and chain from one PEM file; raises IdentityError."""
    blocks = parse_blocks(blob)
    chain, key = parse_chain(blocks), find_key(blocks)
    if not chain:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"no CERTIFICATE block: {describe(blocks)}")
    if key is None:
        raise IdentityError(IdentityFault.BAD_KEY, f"no PRIVATE KEY block: {describe(blocks)}")
    return make_material(chain, parse_key(key, password))


def describe(blocks: Iterable[Block]) -> str:
    """Return the types of the blocks for an error, without content of the file."""
    labels = list(dict.fromkeys(block.kind for block in blocks))
    more = ", ..." if len(labels) > _SHOWN_LABELS else ""
    return f"found only {', '.join(labels[:_SHOWN_LABELS])}{more}" if labels else _NO_BLOCK
