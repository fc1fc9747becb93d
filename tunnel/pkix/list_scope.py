"""Which certificates a revocation list is about (RFC 5280, 5.2.5), compared with their distribution points (4.2.1.13)."""

from __future__ import annotations

from tunnel.errors import WireError, WireFault
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix import der
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.der import DerValue
from tunnel.pkix.extensions import DISTRIBUTION_POINTS

_POINT, _FULL_NAME = 0xA0, 0xA0
_ONLY_USERS, _ONLY_AUTHORITIES, _INDIRECT, _ONLY_ATTRIBUTES = 0x81, 0x82, 0x84, 0x85
_FLAGS = {_ONLY_USERS, _ONLY_AUTHORITIES, _INDIRECT, _ONLY_ATTRIBUTES}


@dataclass(frozen=True, slots=True)
class ListScope:
    """The certificates of the issuer that a list is about: end entities, authorities, and names of distribution points."""

    has_users: bool = True
    has_authorities: bool = True
    points: frozenset[bytes] | None = None  # general names in DER; None for a list that is not of a distribution point

    def includes(self, certificate: Certificate) -> bool:
        """Whether the list is about a certificate."""
        return self._has_kind(certificate) and (self.points is None or bool(self.points & _points_of(certificate)))

    def _has_kind(self, certificate: Certificate) -> bool:
        if self.has_users and self.has_authorities:
            return True
        constraints = certificate.extensions.basic_constraints()
        return self.has_authorities if constraints is not None and constraints.is_ca else self.has_users


def parse_scope(value: bytes) -> ListScope | None:
    """Parse an issuing distribution point; None if it is not supported. Raises WireError."""
    flags, points = set(), None
    for field in der.read_sequence(value):
        if field.tag == _POINT:
            points = _parse_point(field)
            if points is None:
                return None
        elif field.tag not in _FLAGS:
            return None  # for some reasons only
        elif field.body not in (b"\x00", b"\xff"):
            raise WireError(WireFault.MALFORMED, "an issuing distribution point with an invalid BOOLEAN")
        elif field.body == b"\xff":
            flags.add(field.tag)
    if len(flags) > 1 or flags & {_INDIRECT, _ONLY_ATTRIBUTES}:
        return None
    return ListScope(_ONLY_AUTHORITIES not in flags, _ONLY_USERS not in flags, points)


def _parse_point(field: DerValue) -> frozenset[bytes] | None:
    """Return the full names of a distribution point; None if it has a name relative to the issuer."""
    values = tuple(der.read_values(field.body))
    if len(values) != 1:
        raise WireError(WireFault.MALFORMED, f"a distribution point of {len(values)} names; expected 1")
    return frozenset(name.whole for name in der.read_values(values[0].body)) if values[0].tag == _FULL_NAME else None


def _points_of(certificate: Certificate) -> frozenset[bytes]:
    """Return the names of a certificate's distribution points for all reasons; none if they cannot be parsed."""
    extension = certificate.extensions.found.get(DISTRIBUTION_POINTS)
    names: set[bytes] = set()
    try:
        for point in der.read_sequence(extension.value) if extension is not None else ():
            fields = der.children(point)
            if [field.tag for field in fields] == [_POINT]:  # another issuer's list, or one for some reasons, has more fields
                names |= _parse_point(fields[0]) or frozenset()
    except WireError:
        return frozenset()
    return frozenset(names)
