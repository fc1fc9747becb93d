"""A parsed certificate revocation list (RFC 5280, 5).

A list may have a million entries: for most of them only the serial number is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from tunnel.errors import PeerDenied, WireError, WireFault
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix import der
from tunnel.pkix.algorithms import Algorithm, parse_algorithm
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.dates import parse_time
from tunnel.pkix.der import DerValue
from tunnel.pkix.extensions import AUTHORITY_KEY_ID, Extension, Extensions, describe_oid, parse_extensions
from tunnel.pkix.list_scope import ListScope, parse_scope
from tunnel.pkix.names import Name
from tunnel.pkix.strength import check_algorithm_strength

MAX_REVOKED = 1_000_000  # entries of one list
_MOST_KNOWN = 64  # distinct extensions of entries that are remembered
_EXTENSIONS_TAG = 0xA0
_DATES = (der.UTC_TIME, der.GENERALIZED_TIME)
_UTC_HEAD, _UTC_BYTES = b"\x17\x0d", 15  # a UTCTime with seconds
_NO_EXTENSIONS = Extensions({})
_NEVER = datetime.max.replace(tzinfo=UTC)

# Object identifiers, as the content of their DER.
ISSUER_NAMES = b"\x55\x1d\x12"
CRL_NUMBER = b"\x55\x1d\x14"
REASON_CODE = b"\x55\x1d\x15"
DELTA_CRL_INDICATOR = b"\x55\x1d\x1b"
ISSUING_DISTRIBUTION_POINT = b"\x55\x1d\x1c"
CERTIFICATE_ISSUER = b"\x55\x1d\x1d"
_REMOVE_FROM_CRL = 8
_UNSUPPORTED_SCOPE = "its issuing distribution point is for another kind of certificates, for some reasons only, or indirect"

_UNDERSTOOD = frozenset({AUTHORITY_KEY_ID, ISSUER_NAMES, ISSUING_DISTRIBUTION_POINT})  # may be critical


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A revocation list; two are equal if their DER is. The caller checks the signature."""

    digest: bytes  # SHA-256 of the DER
    issuer: Name = field(compare=False)
    this_update: datetime = field(compare=False)
    next_update: datetime = field(compare=False)
    revoked: frozenset[int] = field(repr=False, compare=False)  # serial numbers
    problem: str = field(compare=False)  # why it is not used; "" if it is
    scope: ListScope = field(repr=False, compare=False)
    extensions: Extensions = field(repr=False, compare=False)
    algorithm: Algorithm = field(repr=False, compare=False)  # of the signature
    tbs: bytes = field(repr=False, compare=False)  # TBSCertList, which is signed
    signature: bytes = field(repr=False, compare=False)

    def may_be_of(self, issuer: Certificate) -> bool:
        """Whether the issuer has the name and, if both are known, the key identifier in the list."""
        hint, key_id = self.extensions.authority_key_id(), issuer.extensions.subject_key_id()
        is_other_key = hint is not None and None not in (hint.key_id, key_id) and hint.key_id != key_id
        return self.issuer == issuer.subject and not is_other_key


def parse_revocation_list(encoded: bytes) -> RevocationList:
    """Parse one list; raises WireError. A list that cannot be used, but has an issuer, has a `problem` instead."""
    try:
        return _parse(encoded)
    except WireError as error:
        raise WireError(error.reason, f"not a revocation list: {error}") from error


def _parse(encoded: bytes) -> RevocationList:
    from hashlib import sha256  # with the OpenSSL of the system: 0.5 MiB

    outer = der.read_sequence(encoded)
    if len(outer) != 3:
        raise WireError(WireFault.MALFORMED, f"a list of {len(outer)} parts; expected 3")
    signature, unused = der.as_bits(outer[2])
    if unused:
        raise WireError(WireFault.MALFORMED, "a signature that is not whole bytes")
    fields = _Fields(list(der.children(outer[0])))
    is_version_2 = fields.take_version()
    algorithm = parse_algorithm(fields.take())
    if algorithm.oid != parse_algorithm(outer[1]).oid:
        raise WireError(WireFault.MALFORMED, "two different signature algorithms in one list")
    issuer = Name(der.expect(fields.take(), der.SEQUENCE).whole)
    this_update, next_update = parse_time(fields.take()), fields.take_next_update()
    entries, extensions = fields.take_entries(), fields.take_extensions()
    if not is_version_2 and extensions is not _NO_EXTENSIONS:
        raise WireError(WireFault.MALFORMED, "a list of version 1 with extensions")
    scope = _parse_scope(extensions)
    revoked, problem = _parse_entries(entries, may_have_extensions=is_version_2)
    return RevocationList(
        sha256(encoded).digest(),
        issuer,
        this_update,
        next_update or _NEVER,
        revoked,
        _find_problem(extensions, algorithm, next_update) or problem or ("" if scope is not None else _UNSUPPORTED_SCOPE),
        scope or ListScope(),
        extensions,
        algorithm,
        outer[0].whole,
        signature,
    )


class _Fields:
    """The fields of a TBSCertList (RFC 5280, 5.1.2), each taken in its order."""

    def __init__(self, values: list[DerValue]) -> None:
        self._values = values[::-1]

    def take(self) -> DerValue:
        if not self._values:
            raise WireError(WireFault.MALFORMED, "a list with a missing field")
        return self._values.pop()

    def _take_if(self, *tags: int) -> DerValue | None:
        return self._values.pop() if self._values and self._values[-1].tag in tags else None

    def take_version(self) -> bool:
        """Whether it is a list of version 2, the only one that is stated."""
        version = self._take_if(der.INTEGER)
        if version is not None and der.as_integer(version) != 1:
            raise WireError(WireFault.MALFORMED, "a list of an unknown version")
        return version is not None

    def take_next_update(self) -> datetime | None:
        value = self._take_if(*_DATES)
        return parse_time(value) if value is not None else None

    def take_entries(self) -> bytes:
        """Return the content of the list of entries, empty if the field is absent."""
        value = self._take_if(der.SEQUENCE)
        return value.body if value is not None else b""

    def take_extensions(self) -> Extensions:
        value = self._take_if(_EXTENSIONS_TAG)
        if self._values:
            raise WireError(WireFault.MALFORMED, "a list with an unknown field")
        return parse_extensions(value.body) if value is not None else _NO_EXTENSIONS


def _parse_scope(extensions: Extensions) -> ListScope | None:
    found = extensions.found.get(ISSUING_DISTRIBUTION_POINT)
    return parse_scope(found.value) if found is not None else ListScope()


def _find_problem(extensions: Extensions, algorithm: Algorithm, next_update: datetime | None) -> str:
    """Return why a list is not used, "" if it is."""
    if next_update is None:
        return "it has no nextUpdate, so it never expires"
    for oid, extension in extensions.found.items():
        if oid == DELTA_CRL_INDICATOR:
            return "it is a delta list; expected a complete list"
        if extension.is_critical and oid == CRL_NUMBER:
            return "its number is a critical extension; expected one that is not critical"  # RFC 5280, 5.2.3
        if extension.is_critical and oid not in _UNDERSTOOD:
            return f"unknown critical extension {describe_oid(oid)}"
    try:
        check_algorithm_strength(algorithm)
    except PeerDenied as denied:
        return denied.seen
    return ""


# -- entries


def _parse_entries(entries: bytes, *, may_have_extensions: bool) -> tuple[frozenset[int], str]:
    """Return the serial numbers, and why the list cannot be used because of an entry, "" if it can."""
    revoked, problem = set(), ""
    known: dict[bytes, tuple[bool, str]] = {}  # the extensions of most entries are one of a few reason codes
    for serial, rest in _split_entries(entries):
        is_removed = False
        if rest:
            if not may_have_extensions:
                raise WireError(WireFault.MALFORMED, "a list of version 1 with extensions of an entry")
            if rest not in known:
                if len(known) > _MOST_KNOWN:
                    known.clear()
                known[rest] = _parse_entry_extensions(rest)
            is_removed, why = known[rest]
            problem = problem or why
        if not is_removed:
            revoked.add(serial)
    return frozenset(revoked), problem


def _split_entries(entries: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the serial number and the extensions in DER of each entry, at most `MAX_REVOKED`."""
    start, size, number = 0, len(entries), int.from_bytes
    for _ in range(MAX_REVOKED):
        if start >= size:
            return
        # The usual entry, with short lengths and a UTCTime, is parsed here without a function call: it is five times faster.
        head = entries[start : start + 5]
        if len(head) == 5 and head[0] == der.SEQUENCE and head[2] == der.INTEGER and 0 < head[4] < 0xFF:
            at, end = start + 4 + head[3], start + 2 + head[1]
            if at + _UTC_BYTES <= end <= size and entries[at : at + 2] == _UTC_HEAD and head[1] < 0x80 and 0 < head[3] < 0x80:
                yield number(entries[start + 4 : at], "big", signed=True), entries[at + _UTC_BYTES : end]
                start = end
                continue
        value = der.read_first(entries, start)
        yield _parse_entry(value)
        start += len(value.whole)
    if start < size:
        raise WireError(WireFault.TOO_LARGE, f"more than {MAX_REVOKED} entries")


def _parse_entry(value: DerValue) -> tuple[int, bytes]:
    parts = der.children(value)
    if not 2 <= len(parts) <= 3 or parts[1].tag not in _DATES:
        raise WireError(WireFault.MALFORMED, "an entry without a serial number or a date")
    return der.as_integer(parts[0]), parts[2].whole if len(parts) == 3 else b""


def _parse_entry_extensions(sequence: bytes) -> tuple[bool, str]:
    """Return whether the entry removes a certificate from the list, and why the whole list cannot be used."""
    found = parse_extensions(sequence).found
    for oid, extension in found.items():
        if oid == CERTIFICATE_ISSUER:
            return False, "it is an indirect list; expected the list of one issuer"
        if extension.is_critical and oid != REASON_CODE:  # RFC 5280, 5.3
            return False, f"an entry has the unknown critical extension {describe_oid(oid)}"
    return _is_removal(found.get(REASON_CODE)), ""


def _is_removal(reason: Extension | None) -> bool:
    if reason is None:
        return False
    value = der.read_value(reason.value, der.ENUMERATED)
    return der.integer_of(value.body) == _REMOVE_FROM_CRL
