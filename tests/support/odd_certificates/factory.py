"""A certificate factory: every field and extension is raw DER that a case may replace, and the rest is right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final
from zlib import crc32

from tests.support.odd_certificates.keys import Key, Scheme, algorithm, key, sign
from tests.support.odd_certificates.raw_der import (
    BIT_STRING,
    bits,
    boolean,
    common_name,
    context,
    extension,
    implicit,
    integer,
    octets,
    oid,
    seq,
    time,
    tlv,
)

# Real handshakes use the current time, so what is valid must be valid whenever the tests run.
EARLY, LATE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)
PAST = (EARLY, datetime(2021, 1, 1, tzinfo=UTC))
FUTURE = (datetime(2098, 1, 1, tzinfo=UTC), LATE)
HOST, SPIFFE_ID = "leaf.test", "spiffe://a.test/w"

SUBJECT_KEY_ID, KEY_USAGE, SAN, BASIC, NAME_CONSTRAINTS = "2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.30"
CRL_POINTS, POLICIES, POLICY_MAPPINGS, AUTHORITY_KEY_ID = "2.5.29.31", "2.5.29.32", "2.5.29.33", "2.5.29.35"
POLICY_CONSTRAINTS, PURPOSES, INHIBIT_ANY = "2.5.29.36", "2.5.29.37", "2.5.29.54"
AUTHORITY_ACCESS, TLS_FEATURE, UNKNOWN = "1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.1.24", "1.3.6.1.4.1.55555.1"
SERVER_AUTH, CLIENT_AUTH, CODE_SIGNING, EMAIL = (f"1.3.6.1.5.5.7.3.{number}" for number in range(1, 5))
ANY_PURPOSE = "2.5.29.37.0"
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_SERIALS = count(1000)


@dataclass(frozen=True, slots=True)
class Made:
    """A certificate, its key, and what its issued certificates repeat."""

    der: bytes
    key: Key
    subject: bytes
    key_id: bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """What one side trusts and what the other side sends, leaf first."""

    anchors: tuple[Made, ...]
    sent: tuple[Made, ...]


# -- extensions


def basic(ca: bool, length: int | None = None, critical: bool | None = True) -> bytes:
    content = (boolean(True) if ca else b"") + (b"" if length is None else integer(length))
    return extension(BASIC, seq(content), critical)


def usage(*names: str, critical: bool | None = True) -> bytes:
    """Key usage, as a named bit list without trailing zeros (X.690, 11.2.2)."""
    value = sum(1 << (15 - _USAGES.index(name)) for name in names)
    if not value:
        return extension(KEY_USAGE, bits(b""), critical)
    content = value.to_bytes(2, "big").rstrip(b"\0")
    unused = (content[-1] & -content[-1]).bit_length() - 1
    return extension(KEY_USAGE, bits(content, unused), critical)


def purposes(*oids: str, critical: bool | None = None) -> bytes:
    return extension(PURPOSES, seq(*map(oid, oids)), critical)


def uri(text: str) -> bytes:
    return implicit(6, text.encode())


def dns(text: str) -> bytes:
    return implicit(2, text.encode())


def email(text: str) -> bytes:
    return implicit(1, text.encode())


def ip(content: bytes) -> bytes:
    return implicit(7, content)


def directory(name: bytes) -> bytes:
    return context(4, name)


def san(*names: bytes, critical: bool | None = None) -> bytes:
    return extension(SAN, seq(*names), critical)


def usual_san(*more: bytes, critical: bool | None = None) -> bytes:
    """The names that every mode accepts, and others."""
    return san(uri(SPIFFE_ID), dns(HOST), *more, critical=critical)


def subject_key_id(value: bytes, critical: bool | None = None) -> bytes:
    return extension(SUBJECT_KEY_ID, octets(value), critical)


def authority_key_id(
    value: bytes | None, issuer: bytes = b"", serial: int | None = None, critical: bool | None = None
) -> bytes:
    parts = (
        implicit(0, value) if value is not None else b"",
        context(1, directory(issuer)) if issuer else b"",
        implicit(2, integer(serial)[2:]) if serial is not None else b"",
    )
    return extension(AUTHORITY_KEY_ID, seq(*parts), critical)


def name_constraints(permitted: Sequence[bytes] = (), excluded: Sequence[bytes] = (), critical: bool | None = True) -> bytes:
    trees = (context(number, *map(seq, bases)) if bases else b"" for number, bases in enumerate((permitted, excluded)))
    return extension(NAME_CONSTRAINTS, seq(*trees), critical)


# -- certificates

Extensions = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Fields:
    """The parts of a certificate that a case may replace; None stands for the right value."""

    subject: bytes
    key: Key
    extensions: Extensions = field(default_factory=dict)
    version: bytes = context(0, integer(2))
    serial: bytes | None = None
    issuer_name: bytes | None = None
    scheme: Scheme = Scheme()  # noqa: RUF009 - frozen
    inner_algorithm: bytes | None = None
    validity: bytes = seq(time(EARLY), time(LATE))
    spki: bytes | None = None
    unique_ids: bytes = b""
    extension_block: bytes | None = None
    tail: bytes = b""  # behind the extensions
    spoil_signature: Callable[[bytes], bytes] = bytes
    wrap: Callable[[bytes], bytes] = bytes  # the whole certificate


def make(made: Fields, issuer: Made | None) -> Made:
    """The certificate; self-signed without an issuer."""
    signer = issuer.key if issuer else made.key
    named = algorithm(signer, made.scheme)
    tbs = seq(
        made.version,
        made.serial or integer(next(_SERIALS)),
        made.inner_algorithm or named,
        _first(made.issuer_name, issuer.subject if issuer else made.subject),
        made.validity,
        made.subject,
        made.spki or made.key.spki,
        made.unique_ids,
        _first(made.extension_block, context(3, seq(*made.extensions.values()))),
        made.tail,
    )
    signature = made.spoil_signature(sign(signer, made.scheme, tbs))
    der = made.wrap(seq(tbs, named, bits(signature)))
    return Made(der, made.key, made.subject, key_id_of(made.key))


def _first(value: bytes | None, otherwise: bytes) -> bytes:
    return otherwise if value is None else value


def key_id_of(made: Key) -> bytes:
    return hashlib.sha256(made.spki).digest()[:20]


def validity(start: datetime, end: datetime) -> bytes:
    return seq(time(start), time(end))


EXPIRED: Final = validity(*PAST)
NOT_YET: Final = validity(*FUTURE)


class Names:
    """Makes the certificates of one case, under names that no other case has."""

    def __init__(self, case: str) -> None:
        self._number = crc32(case.encode())

    def name(self, role: str) -> bytes:
        return common_name(f"{role} {self._number:08x}")

    def root(self, role: str = "root", **changes: Any) -> Made:
        """A self-signed authority."""
        return self._authority(role, None, {"key": key("p256", 0)} | changes)

    def middle(self, issuer: Made, role: str = "middle", **changes: Any) -> Made:
        """An authority below another one."""
        return self._authority(role, issuer, {"key": key("p256", 1)} | changes)

    def leaf(self, issuer: Made | None, role: str = "leaf", **changes: Any) -> Made:
        """A certificate that every mode and role accepts."""
        told = {"key": key("p256", 2)} | changes
        usual = {
            KEY_USAGE: usage("digital_signature"),
            PURPOSES: purposes(SERVER_AUTH, CLIENT_AUTH),
            SAN: usual_san(),
        }
        return self._make(role, issuer, usual, told)

    def _authority(self, role: str, issuer: Made | None, told: dict[str, Any]) -> Made:
        usual = {BASIC: basic(True), KEY_USAGE: usage("key_cert_sign", "crl_sign")}
        return self._make(role, issuer, usual, told)

    def _make(self, role: str, issuer: Made | None, usual: dict[str, bytes], told: dict[str, Any]) -> Made:
        """`replace` has extensions by their OID, b"" for none; `more` is added behind them."""
        own = key_id_of(told["key"])
        usual[SUBJECT_KEY_ID] = subject_key_id(own)
        usual[AUTHORITY_KEY_ID] = authority_key_id(issuer.key_id if issuer else own)
        replaced = usual | told.pop("replace", {})
        for number, one in enumerate(told.pop("more", ())):
            replaced[f"more {number}"] = one
        return make(Fields(told.pop("subject", self.name(role)), extensions=replaced, **told), issuer)


NO_KEY_IDS: Final = {SUBJECT_KEY_ID: b"", AUTHORITY_KEY_ID: b""}
NO_CONSTRAINTS: Final = {BASIC: b""}


def bit_string_with(unused: int, content: bytes) -> bytes:
    return tlv(BIT_STRING, bytes([unused]), content)
