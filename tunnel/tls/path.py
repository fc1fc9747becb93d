"""Building a certification path to a set of anchors, by OpenSSL's own path builder.

Knows OpenSSL's store and its numbers of faults; must not know SPIFFE, host names or who may pass. An anchor need not be
self-signed: whoever named it as one vouches for it (Trust Domain and Bundle, 4.2; Go's pools likewise).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509
from OpenSSL import crypto

from tunnel.errors import Denial, PeerDenied
from tunnel.spiffe.ids import SpiffeId
from tunnel.tls.facts import issuer_of, subject_of

MAX_PATH = 16  # certificates; SPIRE's paths have two or three
_SHOWN = 200  # characters of a name in a message
_MOST_NAMESAKES = 8  # anchors of one name that are tried in turn: a stranger must not cost us a verification for each of many

# OpenSSL's numbers for why a path fails (x509_vfy.h). Those that only say that no anchor is at hand come first.
NO_ANCHOR_ERRORS = frozenset({2, 18, 19, 20, 21})
WRONG_SIGNATURE = 7  # by none of the authorities of that name: nobody whom we know has signed it
WRONG_PURPOSE = 26
# Dates, path length, keyCertSign, critical extensions, cA: of an authority that the peer sent and the path may not need.
AUTHORITY_ERRORS = frozenset({9, 10, 25, 32, 34, 79})
_DENIALS = {
    9: Denial.NOT_YET_VALID,
    10: Denial.EXPIRED,
    WRONG_PURPOSE: Denial.EXTENDED_KEY_USAGE,
    32: Denial.KEY_USAGE,
    66: Denial.WEAK_KEY,
    67: Denial.WEAK_KEY,
    68: Denial.WEAK_SIGNATURE,
    79: Denial.NOT_CA,
} | dict.fromkeys((*NO_ANCHOR_ERRORS, WRONG_SIGNATURE), Denial.UNKNOWN_AUTHORITY)


@dataclass(frozen=True, slots=True)
class Verified:
    """A leaf that is proven, and the span in which every certificate of the path that proves it is within its dates."""

    leaf: x509.Certificate
    not_before: datetime
    not_after: datetime
    spiffe_id: SpiffeId | None = None


class Verifier(Protocol):
    """Judges certification paths by what one generation trusts."""

    def verify(self, path: Sequence[x509.Certificate], now: datetime) -> Verified:
        """What `path`, leaf first, proves at `now`; raises PeerDenied with the rule that it breaks."""


def denial_of(openssl_error: int) -> Denial:
    """Our word for OpenSSL's number of a path's fault."""
    return _DENIALS.get(openssl_error, Denial.BAD_PATH)


def check_length(path: Sequence[x509.Certificate]) -> None:
    """A path has a leaf and a bounded number of others."""
    if not 1 <= len(path) <= MAX_PATH:
        raise PeerDenied(Denial.BAD_PATH, f"{len(path)} certificates where 1 to {MAX_PATH} are wanted")


def build_path(anchors: Sequence[crypto.X509], path: Sequence[x509.Certificate], now: datetime) -> list[x509.Certificate]:
    """The path that leads from the leaf to one of `anchors`, both included; raises PeerDenied."""
    failures = []
    certificates = list(map(to_openssl, path))
    for pool in _pools(anchors):
        try:
            return _attempt(pool, certificates, now)
        except crypto.X509StoreContextError as error:
            failures.append(error)
        if failures[0].errors[0] in NO_ANCHOR_ERRORS:  # a part of them has no issuer that all of them lack
            break
    # A wrong signature is what an anchor of the same name and another key gives: any other failure says more.
    failure = next((one for one in failures if one.errors[0] != WRONG_SIGNATURE), failures[0])
    code, depth, text = failure.errors[:3]
    raise refuse_certificate(denial_of(code), depth, failure.certificate.to_cryptography(), text) from failure


class PathDenied(PeerDenied):
    """A path that is refused for one of its certificates; `depth` is 0 for the leaf."""

    def __init__(self, reason: Denial, seen: str, depth: int, certificate: x509.Certificate) -> None:
        super().__init__(reason, seen)
        self.depth = depth
        self.certificate = certificate


def refuse_certificate(reason: Denial, depth: int, certificate: x509.Certificate, seen: str) -> PathDenied:
    """The refusal of a path for one of its certificates, which it names; `depth` is 0 for the leaf."""
    # The issuer helps whoever has given the wrong bundle; it is the peer's claim, and proves nothing.
    whose = f", issued by {issuer_of(certificate)[:_SHOWN]!a}" if reason is Denial.UNKNOWN_AUTHORITY else ""
    where = f"certificate {depth + 1} of the path {describe_certificate(certificate)}"
    return PathDenied(reason, f"{where}: {seen}{whose}", depth, certificate)


@contextmanager
def at_depth(depth: int, certificate: x509.Certificate) -> Iterator[None]:
    """Name the certificate in what a rule says of it."""
    try:
        yield
    except PeerDenied as denied:
        raise refuse_certificate(denied.reason, depth, certificate, denied.seen) from denied


def describe_certificate(certificate: x509.Certificate) -> str:
    """`(subject 'CN=Issuing CA', serial 1F)`, for a message; both are the certificate's claims, and may be long."""
    subject, serial = subject_of(certificate), f"{certificate.serial_number:X}"
    return f"(subject {subject[:_SHOWN]!a}, serial {serial[:_SHOWN]})"


def _pools(anchors: Sequence[crypto.X509]) -> Iterator[Sequence[crypto.X509]]:
    """All anchors; then, since of several with one name OpenSSL tries the first alone, each of them with no other.

    This matters when an authority has a new key and its old name, and certificates do not say by which key (RFC 5280,
    4.2.1.1) they are signed; and when it was renewed with its old key and other constraints.
    """
    yield anchors
    by_name: dict[int, list[crypto.X509]] = {}
    for anchor in anchors:
        by_name.setdefault(anchor.subject_name_hash(), []).append(anchor)
    most = max(map(len, by_name.values()), default=1)
    for turn in range(min(most, _MOST_NAMESAKES) if most > 1 else 0):
        yield [namesakes[min(turn, len(namesakes) - 1)] for namesakes in by_name.values()]


def _attempt(anchors: Sequence[crypto.X509], path: Sequence[crypto.X509], now: datetime) -> list[x509.Certificate]:
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    # A store takes a time once and silently keeps it at the next call, so each verification has a store of its own.
    store.set_time(now)
    for anchor in anchors:
        store.add_cert(anchor)
    leaf, *untrusted = path
    chain = crypto.X509StoreContext(store, leaf, untrusted).get_verified_chain()
    return [certificate.to_cryptography() for certificate in chain]


def span_of(chain: Sequence[x509.Certificate]) -> tuple[datetime, datetime]:
    """The time in which every certificate of a chain is within its dates."""
    return max(one.not_valid_before_utc for one in chain), min(one.not_valid_after_utc for one in chain)


def usable(certificates: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Those that OpenSSL can read; an authority that it cannot read is trusted by nobody."""
    return tuple(one for one in certificates if _is_readable(one))


def _is_readable(certificate: x509.Certificate) -> bool:
    try:
        to_openssl(certificate)
    except PeerDenied:
        return False
    return True


def to_openssl(certificate: x509.Certificate) -> crypto.X509:
    """The certificate as OpenSSL has it, which does not read all that the other library reads."""
    try:
        return crypto.X509.from_cryptography(certificate)
    except crypto.Error as error:
        raise PeerDenied(Denial.UNREADABLE, "a certificate that OpenSSL cannot read") from error
