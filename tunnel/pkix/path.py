"""The search for a certification path from a leaf to a trust anchor, and its validation (RFC 5280, 6.1).

Names are compared first, then the rules of each certificate are checked, and only then signatures, from the anchor down: a
certificate that no anchor has signed costs at most one signature check per anchor of that name. Every number that a peer
decides is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import dataclass, field
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.constraints import check_name_constraints
from tunnel.pkix.names import Name
from tunnel.pkix.policies import check_policies
from tunnel.pkix.strength import check_key_cost, check_key_strength, check_signature, check_signature_strength
from tunnel.time_format import format_time

MAX_SENT = 100  # certificates that a peer may send
MAX_PATH = 16  # certificates of a path below the anchor; SPIRE's have one or two
_MOST_STEPS = 400  # candidates of one search
_MOST_ANCHOR_FAILURES = 4  # failed signature checks with anchor keys, in addition to one per anchor of that name
_MOST_ISSUER_FAILURES = 32  # failed signature checks with keys of intermediates, which an anchor has signed
_SHOWN = 200  # characters of a name in a message

Path = tuple[Certificate, ...]  # leaf first
CheckIssuer = Callable[[Certificate, bool], None]  # an issuer, and whether it is an anchor; raises PeerDenied
CheckStatus = Callable[[Certificate, Certificate, datetime], None]  # a certificate and its issuer; raises PeerDenied


@dataclass(frozen=True, slots=True)
class Anchors:
    """Usable trust anchors, also by subject, and the refused ones with the reason."""

    usable: tuple[Certificate, ...]
    by_subject: Mapping[Name, tuple[Certificate, ...]]
    refused: tuple[tuple[Certificate, PeerDenied], ...] = field(compare=False)  # for the text of a refusal

    def find_refusal(self, sent: Iterable[Certificate]) -> PeerDenied | None:
        """Return why an anchor that issued one of these certificates was refused, or None."""
        issuers = {one.issuer for one in sent} - self.by_subject.keys()
        for anchor, refusal in self.refused:
            if anchor.subject in issuers:
                return PeerDenied(refusal.reason, refusal.seen)  # a new instance, because a raised one keeps its traceback
        return None


def build_anchors(authorities: Iterable[Certificate], check: Callable[[Certificate], None]) -> Anchors:
    """Return the anchors of a bundle; `check` raises PeerDenied for one that is not usable."""
    usable, refused = [], []
    by_subject: dict[Name, tuple[Certificate, ...]] = {}
    for number, authority in enumerate(authorities, 1):
        try:
            check(authority)
        except PeerDenied as denied:
            where = f"authority {number} of the bundle {describe_certificate(authority)}"
            refused.append((authority, PeerDenied(denied.reason, f"{where}: {denied.seen}")))
        else:
            usable.append(authority)
            by_subject[authority.subject] = (*by_subject.get(authority.subject, ()), authority)
    return Anchors(tuple(usable), by_subject, tuple(refused))


def check_count(count: int) -> None:
    """Check the number of certificates that a peer sent; raises PeerDenied."""
    if not 1 <= count <= MAX_SENT:
        raise PeerDenied(Denial.BAD_PATH, f"the peer sent {count} certificates; expected 1 to {MAX_SENT}")


def check_sent(sent: Sequence[Certificate]) -> None:
    """Check that a search has a bounded cost: the number of certificates, and the size of each key; raises PeerDenied."""
    check_count(len(sent))
    for depth, certificate in enumerate(sent):
        with at_depth(depth, certificate):
            check_key_cost(certificate)


def check_dates(certificate: Certificate, now: datetime) -> None:
    """Check that the certificate is valid at `now`, with both ends included (RFC 5280, 4.1.2.5); raises PeerDenied."""
    if now > certificate.not_after:
        raise PeerDenied(Denial.EXPIRED, f"the certificate expired at {format_time(certificate.not_after)}")
    if now < certificate.not_before:
        raise PeerDenied(Denial.NOT_YET_VALID, f"the certificate is not valid before {format_time(certificate.not_before)}")


def find_path(
    anchors: Anchors,
    sent: Sequence[Certificate],
    now: datetime,
    check_issuer: CheckIssuer,
    check_status: CheckStatus | None = None,
) -> Path:
    """Return a valid path from the leaf, `sent[0]`, to an anchor, both included; raises PeerDenied.

    The other certificates may be in any order, and some may be unrelated. The caller has checked the leaf. When a path is
    valid otherwise, `check_status` is called for each certificate below the anchor.
    """
    search = _Search(anchors, tuple(dict.fromkeys(sent)), now, check_issuer, check_status)
    search.follow_names()
    for path in search.candidates((sent[0],)):
        if search.is_proven(path):
            return path
    raise search.find_refusal()


@dataclass(slots=True)
class _Search:
    """The state of one search, with the failures of all candidates so far."""

    anchors: Anchors
    sent: Path
    now: datetime
    check_issuer: CheckIssuer
    check_status: CheckStatus | None
    failures: list[tuple[PeerDenied, int, Certificate]] = field(default_factory=list)  # with the depth in the path
    issuers: dict[Name, list[Certificate]] = field(default_factory=dict)  # certificates sent, by subject
    connected: set[Name] = field(default_factory=set)  # subjects with a chain of names to an anchor
    steps: int = 0
    anchor_failures: int = 0  # failed signature checks
    issuer_failures: int = 0
    signatures: dict[tuple[Certificate, bytes], PeerDenied | None] = field(default_factory=dict)

    def follow_names(self) -> None:
        """Find the subjects with a chain of names to an anchor; only those are candidates."""
        issued: dict[Name, list[Name]] = {}
        for one in self.sent:
            issued.setdefault(one.issuer, []).append(one.subject)
            if one is not self.sent[0]:
                self.issuers.setdefault(one.subject, []).append(one)
        waiting = [name for name in issued if name in self.anchors.by_subject]
        while waiting:
            for subject in issued.pop(waiting.pop(), ()):
                self.connected.add(subject)
                waiting.append(subject)

    def candidates(self, path: Path) -> Iterator[Path]:
        """Yield every extension of `path` to an anchor by names, in which each certificate satisfies its own rules."""
        anchors = self._issuers(path, self.anchors.by_subject.get(path[-1].issuer, ()))
        for anchor in anchors:
            if self._is_sound(path, anchor, is_anchor=True):
                yield (*path, anchor)
        if path[-1].issuer in self.connected:
            for issuer in self._issuers(path, self.issuers.get(path[-1].issuer, ())):
                if self._is_sound(path, issuer, is_anchor=False):
                    yield from self.candidates((*path, issuer))

    def is_proven(self, path: Path) -> bool:
        """Whether signatures, constraints and policies of a path are valid, and none of its certificates is revoked."""
        depth = 0
        try:
            for depth in range(len(path) - 2, -1, -1):
                self._check_signature(path[depth], path[depth + 1])
            for depth in range(1, len(path)):
                check_name_constraints(path, depth)
            depth = 0
            check_policies(path)
            if self.check_status is not None:
                for depth in range(len(path) - 2, -1, -1):
                    self.check_status(path[depth], path[depth + 1], self.now)
        except PeerDenied as denied:
            self.failures.append((denied, depth, path[depth]))
            return False
        return True

    def find_refusal(self) -> PeerDenied:
        """Return the most specific failure: a broken rule, then a refused anchor, then an unknown issuer."""
        specific = [failure for failure in self.failures if failure[0].reason is not Denial.UNKNOWN_AUTHORITY]
        refusal = None if specific else self.anchors.find_refusal(self.sent)
        if refusal is not None:
            return refusal
        if self.failures:
            denied, depth, certificate = (specific or self.failures)[0]
            return refuse_certificate(denied.reason, depth, certificate, denied.seen)
        path = self._longest_chain()
        return refuse_certificate(Denial.UNKNOWN_AUTHORITY, len(path) - 1, path[-1], "no trusted authority has issued it")

    def _longest_chain(self) -> Path:
        """Return the chain of names from the leaf as far as the certificates sent reach."""
        path = self.sent[:1]
        while issuers := self._issuers(path, self.issuers.get(path[-1].issuer, ())):
            path = (*path, issuers[0])
        return path

    def _issuers(self, path: Path, named: Sequence[Certificate]) -> list[Certificate]:
        """Return the issuers that are not in the path, by name and key; those that match the authority key identifier first."""
        known = {(one.subject, one.key_info) for one in path}
        others = [one for one in named if (one.subject, one.key_info) not in known]
        return sorted(others, key=lambda one: _rank(path[-1], one)) if len(others) > 1 else others

    def _is_sound(self, path: Path, issuer: Certificate, *, is_anchor: bool) -> bool:
        self.steps += 1
        try:
            if self.steps > _MOST_STEPS:
                raise PeerDenied(Denial.BAD_PATH, f"no valid path among {_MOST_STEPS} candidates")
            if len(path) > MAX_PATH or (len(path) == MAX_PATH and not is_anchor):
                raise PeerDenied(Denial.BAD_PATH, f"a path of more than {MAX_PATH} certificates")
            check_dates(issuer, self.now)
            if not is_anchor:
                check_intermediate(issuer)
            self.check_issuer(issuer, is_anchor)
            _check_path_length(path, issuer)
        except PeerDenied as denied:
            if self.steps <= _MOST_STEPS + 1:
                self.failures.append((denied, len(path), issuer))
            return False
        return True

    def _check_signature(self, certificate: Certificate, issuer: Certificate) -> None:
        checked = certificate, issuer.key_info
        if checked not in self.signatures:
            try:
                check_signature(certificate, issuer)
                self.signatures[checked] = None
            except PeerDenied as denied:
                self.signatures[checked] = denied
                self._count_failure(issuer)
        refusal = self.signatures[checked]
        if refusal is not None:
            raise refusal

    def _count_failure(self, issuer: Certificate) -> None:
        """End the search after too many failed signature checks, whose number the peer decides."""
        anchors = self.anchors.by_subject.get(issuer.subject, ())
        if issuer in anchors:
            self.anchor_failures += 1
        else:
            self.issuer_failures += 1
        if self.anchor_failures > _MOST_ANCHOR_FAILURES + len(anchors) or self.issuer_failures > _MOST_ISSUER_FAILURES:
            self.steps = _MOST_STEPS


def check_issued_by(certificate: Certificate, issuer: Certificate) -> None:
    """Check that the issuer has the name in the certificate and has signed it; raises PeerDenied."""
    if certificate.issuer != issuer.subject:
        raise PeerDenied(Denial.UNKNOWN_AUTHORITY, "its issuer has a different name")
    check_signature(certificate, issuer)


def check_readable(certificate: Certificate) -> None:
    """Check that every extension that rules read can be parsed; raises PeerDenied."""
    extensions = certificate.extensions
    for read in (extensions.basic_constraints, extensions.key_usage, extensions.purposes, extensions.subject_names):
        read()


def check_intermediate(certificate: Certificate) -> None:
    """Check critical extensions, key and signature strength of a certificate that is not an anchor; raises PeerDenied."""
    certificate.extensions.check_critical()
    check_key_strength(certificate)
    check_signature_strength(certificate)


def validity_of(chain: Sequence[Certificate]) -> tuple[datetime, datetime]:
    """Return the span in which every certificate of a chain is valid."""
    return max(one.not_before for one in chain), min(one.not_after for one in chain)


def refuse_certificate(reason: Denial, depth: int, certificate: Certificate, seen: str) -> PeerDenied:
    """Return the error for a certificate of a path; `depth` is 0 for the leaf."""
    # The issuer helps to find a wrong bundle. It is an unverified claim.
    issuer = f", issued by {certificate.issuer.describe()[:_SHOWN]!a}" if reason is Denial.UNKNOWN_AUTHORITY else ""
    where = f"certificate {depth + 1} of the path {describe_certificate(certificate)}"
    return PeerDenied(reason, f"{where}: {seen}{issuer}")


@contextmanager
def at_depth(depth: int, certificate: Certificate) -> Iterator[None]:
    """Add the depth and the name of the certificate to a PeerDenied that is raised inside."""
    try:
        yield
    except PeerDenied as denied:
        raise refuse_certificate(denied.reason, depth, certificate, denied.seen) from denied


def describe_certificate(certificate: Certificate) -> str:
    """Return `(subject 'CN=Issuing CA', serial 1F)`, for a message; both are cut if they are long."""
    subject, serial = certificate.subject.describe(), f"{certificate.serial_number:X}"
    return f"(subject {subject[:_SHOWN]!a}, serial {serial[:_SHOWN]})"


def _check_path_length(path: Path, issuer: Certificate) -> None:
    """Check the path length constraint of an issuer (RFC 5280, 4.2.1.9); self-issued intermediates do not count."""
    constraints = issuer.extensions.basic_constraints()
    below = sum(not one.is_self_issued for one in path[1:])
    if constraints is not None and constraints.max_path is not None and below > constraints.max_path:
        raise PeerDenied(Denial.BAD_PATH, f"path length: {below} intermediates follow, expected at most {constraints.max_path}")


def _rank(certificate: Certificate, issuer: Certificate) -> int:
    """Return how an issuer fits the authority key identifier: 0 if it matches, 1 if unknown, 2 if it does not match."""
    hint = certificate.extensions.authority_key_id()
    if hint is None:
        return 1
    key_id = issuer.extensions.subject_key_id()
    if hint.key_id is not None and key_id is not None:
        return 0 if hint.key_id == key_id else 2
    if hint.serial_number is not None:
        return 0 if hint.serial_number == issuer.serial_number else 2
    return 1
