"""SPIFFE IDs and trust domains as values that are right once parsed.

Knows the grammar of SPIFFE-ID, section 2; must not know certificates or rules about who may pass. One canonical form
only: nothing is normalised, so that a configured ID and one from a certificate are equal exactly when their texts are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunnel.errors import IdFault, SpiffeIdError

SCHEME = "spiffe://"
MAX_ID_BYTES = 2048  # SPIFFE-ID 2.3
MAX_TRUST_DOMAIN_BYTES = 255  # SPIFFE-ID 2.1

# fullmatch everywhere: `$` would let one trailing newline through.
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
        """Whether the ID names a workload: its path is not the root (X509-SVID 5.2)."""
        return bool(self.path)


def parse_spiffe_id(text: str) -> SpiffeId:
    """The ID that `text` spells exactly (SPIFFE-ID, section 2); raises SpiffeIdError."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        raise SpiffeIdError(IdFault.LENGTH, f"SPIFFE ID is longer than {MAX_ID_BYTES} bytes")
    if not text.startswith(SCHEME):
        raise SpiffeIdError(IdFault.SCHEME, f"{text!a} does not start with {SCHEME}")
    name, slash, path = text[len(SCHEME) :].partition("/")
    trust_domain = _parse_name(name, text)
    if slash:
        _check_path(path, text)
    return SpiffeId(trust_domain, slash + path)


def parse_trust_domain(text: str) -> TrustDomain:
    """The trust domain named by its bare name or by its SPIFFE ID without a path; raises SpiffeIdError."""
    if ":" in text or "/" in text:
        spiffe_id = parse_spiffe_id(text)
        if spiffe_id.path:
            raise SpiffeIdError(IdFault.PATH_SEGMENT, f"{text!a} has a path; a trust domain has none")
        return spiffe_id.trust_domain
    return _parse_name(text, text)


def _parse_name(name: str, text: str) -> TrustDomain:
    if not name:
        raise SpiffeIdError(IdFault.TRUST_DOMAIN_MISSING, f"{text!a} names no trust domain")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise SpiffeIdError(
            IdFault.TRUST_DOMAIN_CHARACTER, f"{text!a}: a trust domain has only a-z, 0-9, dot, dash and underscore"
        )
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeIdError(IdFault.TRUST_DOMAIN_LENGTH, f"trust domain is longer than {MAX_TRUST_DOMAIN_BYTES} bytes")
    return TrustDomain(name)


def _check_path(path: str, text: str) -> None:
    for segment in path.split("/"):
        if segment in ("", ".", ".."):
            raise SpiffeIdError(IdFault.PATH_SEGMENT, f"{text!a} has an empty segment, a dot segment or a slash at its end")
        if not _SEGMENT.fullmatch(segment):
            raise SpiffeIdError(IdFault.PATH_CHARACTER, f"{text!a}: a path has only letters, digits, dot, dash and underscore")
