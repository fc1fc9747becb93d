"""The extensions of a certificate (RFC 5280, 4.2), each parsed when a rule reads it.

An extension that no rule reads may have any content: a malformed policy notice is no reason to reject a certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar, cast

from tunnel.errors import Denial, PeerDenied, WireError, WireFault
from tunnel.ip_address import IpAddress
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix import der
from tunnel.pkix.der import DerValue

T = TypeVar("T")

MAX_EXTENSIONS = 32  # of one certificate; peers decide the number, ten are usual

# Object identifiers, as the content of their DER; all are below 2.5.29.
SUBJECT_KEY_ID = b"\x55\x1d\x0e"
KEY_USAGE = b"\x55\x1d\x0f"
SUBJECT_NAMES = b"\x55\x1d\x11"
BASIC_CONSTRAINTS = b"\x55\x1d\x13"
NAME_CONSTRAINTS = b"\x55\x1d\x1e"
DISTRIBUTION_POINTS = b"\x55\x1d\x1f"
POLICIES = b"\x55\x1d\x20"
POLICY_MAPPINGS = b"\x55\x1d\x21"
AUTHORITY_KEY_ID = b"\x55\x1d\x23"
POLICY_CONSTRAINTS = b"\x55\x1d\x24"
EXTENDED_KEY_USAGE = b"\x55\x1d\x25"
INHIBIT_ANY_POLICY = b"\x55\x1d\x36"
_WORDS = {
    KEY_USAGE: "key usage",
    SUBJECT_NAMES: "subject alternative names",
    BASIC_CONSTRAINTS: "basic constraints",
    NAME_CONSTRAINTS: "name constraints",
    POLICIES: "certificate policies",
    POLICY_MAPPINGS: "policy mappings",
    POLICY_CONSTRAINTS: "policy constraints",
    EXTENDED_KEY_USAGE: "extended key usage",
    INHIBIT_ANY_POLICY: "inhibit anyPolicy",
}
# The extensions that may be critical, as in Go. RFC 5280 forbids critical key identifiers.
_UNDERSTOOD = frozenset({*_WORDS, DISTRIBUTION_POINTS})

# Purposes of extended key usage, as above.
SERVER_AUTH = bytes.fromhex("2b06010505070301")
CLIENT_AUTH = bytes.fromhex("2b06010505070302")
ANY_PURPOSE = b"\x55\x1d\x25\x00"

# The tags of general names (RFC 5280, 4.2.1.6).
EMAIL, DNS, DIRECTORY, URI, IP = 0x81, 0x82, 0xA4, 0x86, 0x87


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: whether it is critical, and its value in DER."""

    is_critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class BasicConstraints:
    """Whether the subject is a CA, and the number of intermediates that may follow; None is any number."""

    is_ca: bool
    max_path: int | None


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """The key usages that rules check."""

    is_critical: bool
    digital_signature: bool
    key_cert_sign: bool
    crl_sign: bool


@dataclass(frozen=True, slots=True)
class AuthorityKeyId:
    """A hint at the certificate of the issuer: its key identifier, or its serial number."""

    key_id: bytes | None
    serial_number: int | None


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """The permitted and excluded subtrees for the names of subsequent certificates, as general names."""

    is_critical: bool
    permitted: tuple[DerValue, ...]
    excluded: tuple[DerValue, ...]


@dataclass(frozen=True, slots=True)
class PolicyConstraints:
    """The number of certificates after which a policy is required, and after which mappings are forbidden; None is never."""

    require_explicit: int | None
    inhibit_mapping: int | None


@dataclass(frozen=True, slots=True)
class Extensions:
    """All extensions of one certificate. An accessor raises PeerDenied if its extension is malformed."""

    found: Mapping[bytes, Extension]
    _parsed: dict[bytes, Any] = field(default_factory=dict, repr=False, compare=False)  # by object identifier

    def check_critical(self) -> None:
        """Raise PeerDenied for an unknown critical extension."""
        for oid, extension in self.found.items():
            if extension.is_critical and oid not in _UNDERSTOOD:
                raise PeerDenied(Denial.BAD_PATH, f"unknown critical extension {describe_oid(oid)}")

    def basic_constraints(self) -> BasicConstraints | None:
        """Return the basic constraints (4.2.1.9)."""
        return self._read(BASIC_CONSTRAINTS, lambda extension: parse_basic_constraints(extension.value))

    def key_usage(self) -> KeyUsage | None:
        """Return the key usage (4.2.1.3)."""
        return self._read(KEY_USAGE, _parse_key_usage)

    def purposes(self) -> frozenset[bytes] | None:
        """Return the extended key usages (4.2.1.12), each as the content of its object identifier."""
        return self._read(EXTENDED_KEY_USAGE, lambda extension: frozenset(parse_oids(extension.value)))

    def subject_names(self) -> tuple[DerValue, ...]:
        """Return the subject alternative names (4.2.1.6) of all kinds."""
        return self._read(SUBJECT_NAMES, lambda extension: der.read_sequence(extension.value)) or ()

    def uris(self) -> tuple[str, ...]:
        """Return the URI SANs."""
        return self._names(URI, parse_text)

    def dns_names(self) -> tuple[str, ...]:
        """Return the DNS SANs."""
        return self._names(DNS, parse_text)

    def ip_addresses(self) -> tuple[IpAddress, ...]:
        """Return the IP SANs."""
        return self._names(IP, parse_address)

    def name_constraints(self) -> NameConstraints | None:
        """Return the name constraints (4.2.1.10)."""
        return self._read(NAME_CONSTRAINTS, _parse_name_constraints)

    def policies(self) -> frozenset[bytes]:
        """Return the certificate policies (4.2.1.4), without their qualifiers."""
        return self._read(POLICIES, lambda extension: frozenset(parse_policies(extension.value))) or frozenset()

    def policy_mappings(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the policy mappings (4.2.1.5): the policy of the issuer, and the equivalent one of the subject."""
        return self._read(POLICY_MAPPINGS, _parse_mappings) or ()

    def policy_constraints(self) -> PolicyConstraints:
        """Return the policy constraints (4.2.1.11)."""
        return self._read(POLICY_CONSTRAINTS, _parse_policy_constraints) or PolicyConstraints(None, None)

    def inhibit_any_policy(self) -> int | None:
        """Return the number of certificates after which anyPolicy is ignored (4.2.1.14)."""
        return self._read(INHIBIT_ANY_POLICY, lambda extension: _count(der.read_value(extension.value, der.INTEGER).body))

    def subject_key_id(self) -> bytes | None:
        """Return the subject key identifier (4.2.1.2), a hint: None if it is malformed."""
        try:
            return self._read(SUBJECT_KEY_ID, lambda extension: der.read_value(extension.value, der.OCTET_STRING).body)
        except PeerDenied:
            return None

    def authority_key_id(self) -> AuthorityKeyId | None:
        """Return the authority key identifier (4.2.1.1), a hint: None if it is malformed."""
        try:
            return self._read(AUTHORITY_KEY_ID, _parse_authority_key_id)
        except PeerDenied:
            return None

    def _names(self, tag: int, parse: Callable[[DerValue], T]) -> tuple[T, ...]:
        try:
            return tuple(parse(name) for name in self.subject_names() if name.tag == tag)
        except WireError as error:
            raise PeerDenied(Denial.UNREADABLE, f"its {_WORDS[SUBJECT_NAMES]} cannot be read: {error}") from error

    def _read(self, oid: bytes, parse: Callable[[Extension], T]) -> T | None:
        extension = self.found.get(oid)
        if extension is None:
            return None
        if oid in self._parsed:
            return cast(T, self._parsed[oid])
        try:
            self._parsed[oid] = value = parse(extension)
            return value
        except WireError as error:
            word = _WORDS.get(oid, describe_oid(oid))
            raise PeerDenied(Denial.UNREADABLE, f"its {word} cannot be read: {error}") from error


def parse_extensions(sequence: bytes) -> Extensions:
    """Parse the extensions of a certificate, each kind at most once; raises WireError."""
    found: dict[bytes, Extension] = {}
    for value in der.read_values(der.read_value(sequence, der.SEQUENCE).body):
        oid, extension = _parse_extension(value)
        if oid in found:
            raise WireError(WireFault.MALFORMED, f"duplicate extension {describe_oid(oid)}")
        if len(found) == MAX_EXTENSIONS:
            raise WireError(WireFault.TOO_LARGE, f"more than {MAX_EXTENSIONS} extensions")
        found[oid] = extension
    return Extensions(found)


def _parse_extension(value: DerValue) -> tuple[bytes, Extension]:
    """Parse one extension. `critical FALSE` may be encoded explicitly, as many issuers do."""
    parts = list(der.children(value))
    is_critical = len(parts) == 3 and der.as_boolean(parts.pop(1))
    if len(parts) != 2:
        raise WireError(WireFault.MALFORMED, "an extension without an identifier or a value")
    return der.expect(parts[0], der.OID).body, Extension(is_critical, der.expect(parts[1], der.OCTET_STRING).body)


def parse_text(name: DerValue) -> str:
    """Return a general name of type IA5String; raises WireError if it is not ASCII."""
    try:
        return name.body.decode("ascii")
    except UnicodeDecodeError as error:
        raise WireError(WireFault.NOT_TEXT, "a name that is not ASCII") from error


def parse_address(name: DerValue) -> IpAddress:
    """Return a general name of type iPAddress; raises WireError."""
    if len(name.body) not in (4, 16):
        raise WireError(WireFault.MALFORMED, f"an IP address of {len(name.body)} bytes; expected 4 or 16")
    return IPv4Address(name.body) if len(name.body) == 4 else IPv6Address(name.body)


def describe_oid(oid: bytes) -> str:
    """Return an object identifier as `2.5.29.15`, for a message."""
    try:
        numbers = der.oid_of(oid)
    except WireError:
        return "(unreadable)"
    return ".".join(str(number) if number < 1 << 64 else "..." for number in numbers)


def parse_basic_constraints(value: bytes) -> BasicConstraints:
    """Parse the value of the extension; raises WireError."""
    parts = list(der.read_sequence(value))
    is_ca = bool(parts) and parts[0].tag == der.BOOLEAN and der.as_boolean(parts.pop(0))
    if len(parts) > 1:
        raise WireError(WireFault.MALFORMED, "basic constraints with more than cA and a path length")
    return BasicConstraints(is_ca, _count(der.expect(parts[0], der.INTEGER).body) if parts else None)


def _parse_key_usage(extension: Extension) -> KeyUsage:
    bits, _ = der.as_bits(der.read_value(extension.value, der.BIT_STRING))
    first = bits[0] if bits else 0
    return KeyUsage(extension.is_critical, bool(first & 0x80), bool(first & 0x04), bool(first & 0x02))


def parse_oids(sequence: bytes) -> tuple[bytes, ...]:
    """Parse a SEQUENCE of object identifiers in its order; raises WireError."""
    return tuple(der.expect(value, der.OID).body for value in der.read_sequence(sequence))


def _parse_name_constraints(extension: Extension) -> NameConstraints:
    trees: dict[int, tuple[DerValue, ...]] = {0xA0: (), 0xA1: ()}
    for part in der.read_sequence(extension.value):
        if part.tag not in trees or trees[part.tag]:
            raise WireError(WireFault.MALFORMED, "unknown field in name constraints")
        trees[part.tag] = tuple(map(_parse_subtree, der.read_values(part.body)))
        if not trees[part.tag]:
            raise WireError(WireFault.MALFORMED, "empty list of subtrees in name constraints")
    if not any(trees.values()):
        raise WireError(WireFault.MALFORMED, "empty name constraints")
    return NameConstraints(extension.is_critical, trees[0xA0], trees[0xA1])


def _parse_subtree(value: DerValue) -> DerValue:
    parts = der.children(value)
    if not parts or [(bound.tag, bound.body) for bound in parts[1:]] not in ([], [(0x80, b"\0")]):
        raise WireError(WireFault.MALFORMED, "subtree without a base or with bounds")  # RFC 5280 allows no bounds
    return parts[0]


def parse_policies(value: bytes) -> tuple[bytes, ...]:
    """Parse the object identifiers of certificate policies in their order; raises WireError."""
    policies = [der.children(policy) for policy in der.read_sequence(value)]
    if not all(policies):
        raise WireError(WireFault.MALFORMED, "a certificate policy without an identifier")
    return tuple(der.expect(policy[0], der.OID).body for policy in policies)


def _parse_mappings(extension: Extension) -> tuple[tuple[bytes, bytes], ...]:
    pairs = [parse_oids(value.whole) for value in der.read_sequence(extension.value)]
    if any(len(pair) != 2 for pair in pairs):
        raise WireError(WireFault.MALFORMED, "a policy mapping without exactly two policies")
    return tuple((pair[0], pair[1]) for pair in pairs)


def _parse_policy_constraints(extension: Extension) -> PolicyConstraints:
    counts = {value.tag: _count(value.body) for value in der.read_sequence(extension.value)}
    if not counts.keys() <= {0x80, 0x81}:
        raise WireError(WireFault.MALFORMED, "unknown field in policy constraints")
    return PolicyConstraints(counts.get(0x80), counts.get(0x81))


def _parse_authority_key_id(extension: Extension) -> AuthorityKeyId:
    parts = {value.tag: value.body for value in der.read_sequence(extension.value)}
    serial = der.integer_of(parts[0x82]) if 0x82 in parts else None
    return AuthorityKeyId(parts.get(0x80), serial)


def _count(body: bytes) -> int:
    """Return a number of certificates."""
    count = der.integer_of(body)
    if count < 0:
        raise WireError(WireFault.MALFORMED, "a negative number of certificates")
    return count
