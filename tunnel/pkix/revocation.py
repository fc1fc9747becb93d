"""The check of certificates against revocation lists (RFC 5280, 6.3).

A list belongs to an issuer if it has the issuer's name and its signature verifies with the issuer's key: two authorities may
have the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from tunnel.errors import Denial, PeerDenied
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.crl import RevocationList
from tunnel.pkix.names import Name
from tunnel.pkix.strength import check_signature
from tunnel.time_format import format_time

MAX_LISTS = 1024  # of one identity
_MOST_CHECKED = 256  # results of signature checks that are kept: a certificate authority can issue any number of others
_MOST_WARNED = 256  # distinct warnings of one generation
_SHOWN = 200  # characters of a name in a message
_ALWAYS = datetime.max.replace(tzinfo=UTC)

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RevocationLists:
    """The lists of one identity source, and for which issuers a valid one is required.

    If `is_required`, a certificate is refused if the list of its issuer is expired or cannot be used, and with `is_complete` if
    there is none. Otherwise the certificate is accepted with a warning. An expired list still revokes its certificates.
    """

    lists: tuple[RevocationList, ...] = ()
    is_required: bool = True
    is_complete: bool = False  # every issuer has a list

    @property
    def is_checked(self) -> bool:
        """Whether certificates are checked at all."""
        return bool(self.lists) or self.is_complete

    @property
    def expires(self) -> datetime | None:
        """When the newest list of an issuer expires, the first of all issuers; None without lists."""
        ends: dict[Name, datetime] = {}
        for one in self.lists:
            if not one.problem:
                ends[one.issuer] = max(one.next_update, ends.get(one.issuer, one.next_update))
        return min(ends.values(), default=None)

    def names_serial(self, serial_number: int) -> bool:
        """Whether a list of any issuer has this serial number."""
        return any(serial_number in one.revoked for one in self.lists)

    def with_lists(self, lists: tuple[RevocationList, ...]) -> RevocationLists:
        """Return these lists and others, with the same requirements."""
        return replace(self, lists=(*self.lists, *lists))


NO_LISTS = RevocationLists()


def ignore_warning(_warning: str) -> None:
    """Drop a warning."""


class RevocationChecker:
    """Checks the certificates of paths against lists; the lists' signatures are verified on first use."""

    def __init__(self, lists: RevocationLists, warn: Warn = ignore_warning) -> None:
        """`warn` is called once for each reason why a certificate is accepted without a valid list."""
        self._lists = lists
        self._warn = warn
        self._by_issuer = _group(lists.lists)
        self._problems: dict[tuple[RevocationList, bytes], str] = {}  # of a list with the key of an issuer; "" if it is usable
        self._warned: set[str] = set()

    def check(self, certificate: Certificate, issuer: Certificate, now: datetime) -> None:
        """Check that the issuer has not revoked a certificate; raises PeerDenied."""
        found, problem = self._find(certificate, issuer, now)
        if found is not None and certificate.serial_number in found.revoked:
            raise PeerDenied(Denial.REVOKED, f"on the revocation list that {_describe(issuer)} issued at {_begin(found)}")
        if not problem:
            return
        if self._lists.is_required:
            raise PeerDenied(Denial.NO_REVOCATION_LIST, problem)
        if problem not in self._warned and len(self._warned) < _MOST_WARNED:
            self._warned.add(problem)
            self._warn(f"certificate accepted without a valid revocation list: {problem}")

    def find_revoked(
        self, chain: Sequence[Certificate], authorities: Iterable[Certificate], now: datetime
    ) -> Iterator[Certificate]:
        """Yield the certificates of a chain that are on a list of an issuer in the chain or among the authorities."""
        issuers = (*chain, *authorities)
        for certificate in chain:
            for issuer in issuers:
                if issuer.subject == certificate.issuer and self._is_on_list(certificate, issuer, now):
                    yield certificate
                    break

    def _is_on_list(self, certificate: Certificate, issuer: Certificate, now: datetime) -> bool:
        found, _problem = self._find(certificate, issuer, now)
        return found is not None and certificate.serial_number in found.revoked

    def next_change(self, path: Sequence[Certificate], now: datetime) -> datetime:
        """Return the time until which the verdict on a path, leaf first, cannot change."""
        ends = [_ALWAYS]
        for _certificate, issuer in pairwise(path):
            for one in self._by_issuer.get(issuer.subject, ()):
                ends += [date for date in (one.this_update, one.next_update) if date >= now]
        return min(ends)

    def find_warnings(self, authorities: Sequence[Certificate], now: datetime) -> Iterator[str]:
        """Yield what is wrong with the lists: with each of them, and with those of some authorities."""
        effect = f"certificates of this issuer are {'refused' if self._lists.is_required else 'accepted'}"
        for issuer, named in self._by_issuer.items():
            newest, name = named[0], f"{issuer.describe()[:_SHOWN]!a}"
            if newest.problem:
                yield f"revocation list of {name} not used: {newest.problem}"
            elif now > newest.next_update:
                yield f"revocation list of {name} expired at {format_time(newest.next_update)}: {effect}"
        for authority in authorities:
            named = self._by_issuer.get(authority.subject, [])
            problems = [self._problem_of(one, authority) for one in named if one.may_be_of(authority) and not one.problem]
            if problems and all(problems):
                yield f"{problems[0]}: {effect}"
        unlisted = [one for one in authorities if one.subject not in self._by_issuer]
        if unlisted and self._lists.is_complete:
            others = f" (and of {len(unlisted) - 1} more)" if len(unlisted) > 1 else ""
            yield f"no revocation list of {_describe(unlisted[0])}{others}: {effect}"

    def _find(self, certificate: Certificate, issuer: Certificate, now: datetime) -> tuple[RevocationList | None, str]:
        """Return the newest list about a certificate, also an expired one, and why there is no valid one, "" if there is."""
        problem = f"no revocation list of {_describe(issuer)}" if self._lists.is_complete else ""
        for one in self._by_issuer.get(issuer.subject, ()):  # newest first
            if not one.may_be_of(issuer):
                continue
            why = self._problem_of(one, issuer)
            if not why and not one.scope.includes(certificate):
                why = f"the revocation list of {_describe(issuer)} is for other certificates (issuing distribution point)"
            if not why and now < one.this_update:
                why = f"the revocation list of {_describe(issuer)} is not valid before {_begin(one)}"
            if why:
                problem = why
            elif now > one.next_update:
                return one, f"the revocation list of {_describe(issuer)} expired at {format_time(one.next_update)}"
            else:
                return one, ""
        return None, problem

    def _problem_of(self, one: RevocationList, issuer: Certificate) -> str:
        """Return why an issuer's list cannot be used at any time, "" if it can."""
        checked = one, issuer.key_info
        problem = self._problems.get(checked)
        if problem is None:
            if len(self._problems) >= _MOST_CHECKED:
                self._problems.clear()
            self._problems[checked] = problem = _find_problem(one, issuer)
        return problem


def _group(lists: Iterable[RevocationList]) -> dict[Name, list[RevocationList]]:
    """Return the lists by issuer, newest first."""
    found: dict[Name, list[RevocationList]] = {}
    for one in sorted(dict.fromkeys(lists), key=lambda one: one.this_update, reverse=True):
        found.setdefault(one.issuer, []).append(one)
    return found


def _find_problem(one: RevocationList, issuer: Certificate) -> str:
    problem = one.problem
    try:
        usage = issuer.extensions.key_usage()
        if usage is not None and not usage.crl_sign:  # RFC 5280, 6.3.3 f
            problem = problem or "the key usage of the issuer lacks cRLSign"
        if not problem:
            check_signature(one, issuer)
    except PeerDenied as denied:
        problem = denied.seen
    return f"the revocation list of {_describe(issuer)} cannot be used: {problem}" if problem else ""


def _describe(issuer: Certificate) -> str:
    return f"{issuer.subject.describe()[:_SHOWN]!a}"


def _begin(one: RevocationList) -> str:
    return format_time(one.this_update)
