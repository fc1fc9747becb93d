"""The search for a certification path from a leaf to a trust anchor, and its validation (RFC 5280, 6.1).

Names are compared first, then the rules of each certificate, and only then signatures, from the anchor down: what no anchor
has signed costs one signature check at most for each anchor of that name. Every number that a peer decides is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from tunnel.errors import Denial, PeerDenied
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.constraints import check_name_constraints
from tunnel.pkix.names import Name
from tunnel.pkix.policies import check_policies
from tunnel.pkix.strength import check_key_cost, check_key_strength, check_signature, check_signature_strength
from tunnel.time_format import format_time

MAX_SENT = 100  # certificates that a peer may send
MAX_PATH = 16  # certificates of a path below the anchor; SPIRE's have one or two
_MOST_STEPS = 400  # candidates that one search looks at
_MOST_FORGED = 4  # failed signature checks by the key of an anchor, beyond one for each anchor of that name
_MOST_MISFITS = 32  # failed signature checks by the key of an intermediate, which an anchor has signed
_SHOWN = 200  # characters of a name in a message

Path = tuple[Certificate, ...]  # leaf first
CheckIssuer = Callable[[Certificate, bool], None]  # an issuer, and whether it is an anchor; raises PeerDenied


@dataclass(frozen=True, slots=True)
class Anchors:
    """The anchors that can be used, by their subjects, and why each of the others cannot."""

    usable: tuple[Certificate, ...]
    by_subject: Mapping[Name, tuple[Certificate, ...]]
    refused: tuple[tuple[Certificate, PeerDenied], ...]

    def find_refusal(self, sent: Iterable[Certificate]) -> PeerDenied | None:
        """Why the anchor that issued one of these is not used; None when no such anchor was left out."""
        issuers = {one.issuer for one in sent} - self.by_subject.keys()
        for anchor, refusal in self.refused:
            if anchor.subject in issuers:
                return PeerDenied(refusal.reason, refusal.seen)  # a new one: each that is raised keeps its own traceback
        return None


def build_anchors(authorities: Iterable[Certificate], check: Callable[[Certificate], None]) -> Anchors:
    """The anchors of a bundle; one that `check` refuses leaves its neighbours alone."""
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
    """A peer has sent a bounded number of certificates, and at least one; raises PeerDenied."""
    if not 1 <= count <= MAX_SENT:
        raise PeerDenied(Denial.BAD_PATH, f"the peer sent {count} certificates; expected 1 to {MAX_SENT}")


def check_sent(sent: Sequence[Certificate]) -> None:
    """What a peer sent can be searched at a bounded cost: not too many certificates, and no key that is too large."""
    check_count(len(sent))
    for depth, certificate in enumerate(sent):
        with at_depth(depth, certificate):
            check_key_cost(certificate)


def check_dates(certificate: Certificate, now: datetime) -> None:
    """`now` (with a time zone) lies within the dates of the certificate (RFC 5280, 4.1.2.5: both ends included)."""
    if now > certificate.not_after:
        raise PeerDenied(Denial.EXPIRED, f"a certificate ended at {format_time(certificate.not_after)}")
    if now < certificate.not_before:
        raise PeerDenied(Denial.NOT_YET_VALID, f"a certificate begins at {format_time(certificate.not_before)}")


def find_path(anchors: Anchors, sent: Sequence[Certificate], now: datetime, check_issuer: CheckIssuer) -> Path:
    """A path from the leaf, `sent[0]`, to an anchor, both included, that is valid at `now`; raises PeerDenied.

    The certificates behind the leaf may stand in any order, and any of them may be of no use. The leaf itself has been
    checked by the caller, and is no anchor here.
    """
    search = _Search(anchors, tuple(dict.fromkeys(sent)), now, check_issuer)
    search.follow_names()
    for path in search.candidates((sent[0],)):
        if search.is_proven(path):
            return path
    raise search.find_refusal()


@dataclass(slots=True)
class _Search:
    """One search; the failures are those of the candidates so far."""

    anchors: Anchors
    sent: Path
    now: datetime
    check_issuer: CheckIssuer
    failures: list[tuple[PeerDenied, int, Certificate]] = field(default_factory=list)  # with the place in the path
    issuers: dict[Name, list[Certificate]] = field(default_factory=dict)  # the certificates that were sent, by subject
    led: set[Name] = field(default_factory=set)  # the subjects that lead to an anchor, by their names
    steps: int = 0
    forged: int = 0
    misfits: int = 0
    signatures: dict[tuple[Certificate, bytes], PeerDenied | None] = field(default_factory=dict)

    def follow_names(self) -> None:
        """Find the subjects from which a path of names leads to an anchor: nothing else is looked at."""
        issued: dict[Name, list[Name]] = {}
        for one in self.sent:
            issued.setdefault(one.issuer, []).append(one.subject)
            if one is not self.sent[0]:
                self.issuers.setdefault(one.subject, []).append(one)
        waiting = [name for name in issued if name in self.anchors.by_subject]
        while waiting:
            for subject in issued.pop(waiting.pop(), ()):
                self.led.add(subject)
                waiting.append(subject)

    def candidates(self, path: Path) -> Iterator[Path]:
        """Every path on from `path` that ends at an anchor by its names, and whose certificates keep their own rules."""
        anchors = self._issuers(path, self.anchors.by_subject.get(path[-1].issuer, ()))
        for anchor in anchors:
            if self._is_sound(path, anchor, is_anchor=True):
                yield (*path, anchor)
        if path[-1].issuer in self.led:
            for issuer in self._issuers(path, self.issuers.get(path[-1].issuer, ())):
                if self._is_sound(path, issuer, is_anchor=False):
                    yield from self.candidates((*path, issuer))

    def is_proven(self, path: Path) -> bool:
        """Whether the signatures of a path fit, and it keeps what its authorities constrain."""
        depth = 0
        try:
            for depth in range(len(path) - 2, -1, -1):
                self._check_signature(path[depth], path[depth + 1])
            for depth in range(1, len(path)):
                check_name_constraints(path, depth)
            depth = 0
            check_policies(path)
        except PeerDenied as denied:
            self.failures.append((denied, depth, path[depth]))
            return False
        return True

    def find_refusal(self) -> PeerDenied:
        """The failure that says most: a broken rule, an anchor that is not used, an unknown issuer."""
        telling = [failure for failure in self.failures if failure[0].reason is not Denial.UNKNOWN_AUTHORITY]
        refusal = None if telling else self.anchors.find_refusal(self.sent)
        if refusal is not None:
            return refusal
        if self.failures:
            denied, depth, certificate = (telling or self.failures)[0]
            return refuse_certificate(denied.reason, depth, certificate, denied.seen)
        path = self._dead_end()
        return refuse_certificate(Denial.UNKNOWN_AUTHORITY, len(path) - 1, path[-1], "no trusted authority has issued it")

    def _dead_end(self) -> Path:
        """From the leaf by names as far as the sent certificates lead."""
        path = self.sent[:1]
        while issuers := self._issuers(path, self.issuers.get(path[-1].issuer, ())):
            path = (*path, issuers[0])
        return path

    def _issuers(self, path: Path, named: Sequence[Certificate]) -> list[Certificate]:
        """Those that are not in the path, by name and key; the one that the key identifier hints at comes first."""
        known = {(one.subject, one.key_info) for one in path}
        others = [one for one in named if (one.subject, one.key_info) not in known]
        return sorted(others, key=lambda one: _rank(path[-1], one)) if len(others) > 1 else others

    def _is_sound(self, path: Path, issuer: Certificate, *, is_anchor: bool) -> bool:
        self.steps += 1
        try:
            if self.steps > _MOST_STEPS:
                raise PeerDenied(Denial.BAD_PATH, f"no path among the first {_MOST_STEPS} candidates")
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
        """End the search after too many failed signature checks: the peer decides how many there could be."""
        namesakes = self.anchors.by_subject.get(issuer.subject, ())
        if issuer in namesakes:
            self.forged += 1
        else:
            self.misfits += 1
        if self.forged > _MOST_FORGED + len(namesakes) or self.misfits > _MOST_MISFITS:
            self.steps = _MOST_STEPS


def check_issued_by(certificate: Certificate, issuer: Certificate) -> None:
    """The issuer has the name that the certificate gives, and has signed it; raises PeerDenied."""
    if certificate.issuer != issuer.subject:
        raise PeerDenied(Denial.UNKNOWN_AUTHORITY, "its issuer has another name")
    check_signature(certificate, issuer)


def check_readable(certificate: Certificate) -> None:
    """Every extension that rules ask about can be read, whether or not one asks for it here; raises PeerDenied."""
    extensions = certificate.extensions
    for read in (extensions.basic_constraints, extensions.key_usage, extensions.purposes, extensions.subject_names):
        read()


def check_intermediate(certificate: Certificate) -> None:
    """What holds for every certificate of a path between leaf and anchor; raises PeerDenied."""
    certificate.extensions.check_critical()
    check_key_strength(certificate)
    check_signature_strength(certificate)


def validity_of(chain: Sequence[Certificate]) -> tuple[datetime, datetime]:
    """The time in which every certificate of a chain is within its dates."""
    return max(one.not_before for one in chain), min(one.not_after for one in chain)


def refuse_certificate(reason: Denial, depth: int, certificate: Certificate, seen: str) -> PeerDenied:
    """The refusal of a path for one of its certificates, which it names; `depth` is 0 for the leaf."""
    # The issuer helps whoever has given the wrong bundle; it is the peer's claim, and proves nothing.
    whose = f", issued by {certificate.issuer.describe()[:_SHOWN]!a}" if reason is Denial.UNKNOWN_AUTHORITY else ""
    where = f"certificate {depth + 1} of the path {describe_certificate(certificate)}"
    return PeerDenied(reason, f"{where}: {seen}{whose}")


@contextmanager
def at_depth(depth: int, certificate: Certificate) -> Iterator[None]:
    """Name the certificate in what a rule says of it."""
    try:
        yield
    except PeerDenied as denied:
        raise refuse_certificate(denied.reason, depth, certificate, denied.seen) from denied


def describe_certificate(certificate: Certificate) -> str:
    """`(subject 'CN=Issuing CA', serial 1F)`, for a message; both are the certificate's claims, and may be long."""
    subject, serial = certificate.subject.describe(), f"{certificate.serial_number:X}"
    return f"(subject {subject[:_SHOWN]!a}, serial {serial[:_SHOWN]})"


def _check_path_length(path: Path, issuer: Certificate) -> None:
    """No more intermediates follow than the issuer allows (RFC 5280, 4.2.1.9); one that is self-issued does not count."""
    constraints = issuer.extensions.basic_constraints()
    below = sum(not one.is_self_issued for one in path[1:])
    if constraints is not None and constraints.max_path is not None and below > constraints.max_path:
        raise PeerDenied(Denial.BAD_PATH, f"path length: {below} intermediates follow, expected at most {constraints.max_path}")


def _rank(certificate: Certificate, issuer: Certificate) -> int:
    """How well an issuer fits the hint that the certificate gives: 0 for the one that it names, 2 for another one."""
    hint = certificate.extensions.authority_key_id()
    if hint is None:
        return 1
    key_id = issuer.extensions.subject_key_id()
    if hint.key_id is not None and key_id is not None:
        return 0 if hint.key_id == key_id else 2
    if hint.serial_number is not None:
        return 0 if hint.serial_number == issuer.serial_number else 2
    return 1
