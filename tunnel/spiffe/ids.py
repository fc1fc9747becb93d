"""SPIFFE IDs and trust domain names (SPIFFE-ID, section 2).

Nothing is normalized: two IDs are equal exactly if their texts are equal.
"""

from __future__ import annotations

import re

from tunnel.errors import IdFault, SpiffeIdError, quote
from tunnel.lazy_dataclass import dataclass

SCHEME = "spiffe://"
_EXPECTED = f"{SCHEME}TRUST-DOMAIN/PATH"
MAX_ID_BYTES = 2048  # SPIFFE-ID 2.3
MAX_TRUST_DOMAIN_BYTES = 255  # SPIFFE-ID 2.1

# Always use fullmatch: `$` also matches before a trailing newline.
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")  # SPIFFE-ID 2.1
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")  # SPIFFE-ID 2.2


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """The name of a trust domain, `example.org`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID; an empty `path` names the trust domain itself."""

    trust_domain: TrustDomain
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain.name}{self.path}"

    def is_workload(self) -> bool:
        """Whether the ID has a path, so that it names a workload (X509-SVID 5.2)."""
        return bool(self.path)


def parse_spiffe_id(text: str) -> SpiffeId:
    """Parse a SPIFFE ID (SPIFFE-ID, section 2); raises SpiffeIdError."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        raise SpiffeIdError(IdFault.LENGTH, f"invalid SPIFFE ID: longer than {MAX_ID_BYTES} bytes")
    if not text.startswith(SCHEME):
        raise SpiffeIdError(IdFault.SCHEME, f"invalid SPIFFE ID {quote(text)}: missing scheme; expected {_EXPECTED}")
    name, slash, path = text[len(SCHEME) :].partition("/")
    trust_domain = _parse_name(name, text)
    if slash:
        _check_path(path, text)
    return SpiffeId(trust_domain, slash + path)


def parse_trust_domain(text: str) -> TrustDomain:
    """Parse a trust domain, written as its name or as a SPIFFE ID without a path; raises SpiffeIdError."""
    if ":" in text or "/" in text:
        spiffe_id = parse_spiffe_id(text)
        if spiffe_id.path:
            raise SpiffeIdError(
                IdFault.PATH_SEGMENT, f"invalid trust domain {quote(text)}: path; expected {SCHEME}TRUST-DOMAIN"
            )
        return spiffe_id.trust_domain
    return _parse_name(text, text)


def _parse_name(name: str, text: str) -> TrustDomain:
    if not name:
        raise SpiffeIdError(IdFault.TRUST_DOMAIN_MISSING, f"invalid SPIFFE ID {quote(text)}: missing trust domain")
    if not _TRUST_DOMAIN.fullmatch(name):
        seen = f"invalid SPIFFE ID {quote(text)}: invalid character in trust domain"
        raise SpiffeIdError(IdFault.TRUST_DOMAIN_CHARACTER, f"{seen}; expected a-z, 0-9, dot, dash and underscore")
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeIdError(IdFault.TRUST_DOMAIN_LENGTH, f"invalid trust domain: longer than {MAX_TRUST_DOMAIN_BYTES} bytes")
    return TrustDomain(name)


def _check_path(path: str, text: str) -> None:
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise SpiffeIdError(
                IdFault.PATH_SEGMENT, f"invalid SPIFFE ID {quote(text)}: empty segment, dot segment or trailing slash"
            )
        if not _SEGMENT.fullmatch(segment):
            seen = f"invalid SPIFFE ID {quote(text)}: invalid character in path"
            raise SpiffeIdError(IdFault.PATH_CHARACTER, f"{seen}; expected letters, digits, dot, dash and underscore")
