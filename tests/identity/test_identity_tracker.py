"""The identity tracker: outcomes of Workload API events, and one log line for each change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cert_factory import END, NOW, authority, key_of, leaf
from tests.support.revocation_lists import make_list
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.identity.events import Denied, Disconnected, FatalError, Overdue, Rejected, Updated, WorkloadEvent
from tunnel.identity.identity_tracker import IdentityTracker, Outcome
from tunnel.lazy_dataclass import dataclass, field, replace
from tunnel.pkix.revocation import RevocationLists
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.selection import Offer, Selection

HOME = TrustDomain("a.test")
ROOT = authority()
WORKER = leaf(issuer=ROOT, key=key_of("p256"))
BUNDLES = BundleSet({HOME: TrustBundle(HOME, (ROOT.certificate,))})
NOTHING, CONFIRMED, WITHDRAWN = Outcome(), Outcome(is_confirmed=True), Outcome(is_withdrawn=True)
ANY = Selection()
DOWN = Disconnected("UNAVAILABLE", "connection refused", 0.0)
ENDED = Disconnected("OK", "", 0.0)
NO_IDENTITY = Denied("PERMISSION_DENIED", "no identity issued", 1.0)


def svid(path: str, hint: str = "") -> X509Svid:
    return X509Svid(parse_spiffe_id(f"spiffe://a.test/{path}"), hint, (WORKER.certificate,), WORKER.key, END)


def updated(svid: X509Svid | None, *others: X509Svid, is_new: bool = True, **fields: Any) -> Updated:
    """An update of which the first SVID is selected; None when what is wanted is not offered."""
    offered = tuple(Offer(str(one.spiffe_id), one.hint) for one in (svid, *others) if one is not None)
    return Updated(X509Context(svid, BUNDLES, offered, **fields), is_new)


def rejected(message: str) -> Rejected:
    return Rejected(IdentityError(IdentityFault.BAD_KEY, message))


@dataclass
class LoggedTracker:
    """A tracker and the lines that it has logged."""

    selection: Selection = ANY
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracker = IdentityTracker(self.selection, self.lines.append, self.lines.append)

    def take(self, *events: WorkloadEvent) -> list[Outcome]:
        return [self.tracker.take(event) for event in events]

    def used(self, event: WorkloadEvent) -> str:
        """The path of the ID whose credentials an event brings."""
        credentials = self.tracker.take(event).credentials
        assert credentials is not None
        return credentials.svid.spiffe_id.path

    def count(self, words: str) -> int:
        return sum(words in line for line in self.lines)


ONE, TWO = svid("one", "x"), svid("two", "y")
OVERDUE = Overdue(ONE)


def test_an_update_brings_credentials_and_a_generation() -> None:
    logged = LoggedTracker()
    (outcome,) = logged.take(updated(ONE))
    assert outcome.credentials is not None
    assert (outcome.credentials.svid, outcome.credentials.bundles) == (ONE, BUNDLES)
    assert not outcome.is_confirmed
    assert not outcome.is_withdrawn
    assert logged.tracker.generation == 1
    assert logged.lines == [
        f"identity updated: spiffe_id=spiffe://a.test/one generation=1 expires_at={END:%Y-%m-%dT%H:%M:%SZ} trust_domains=a.test"
    ]


def test_an_update_with_the_same_svid_is_logged_as_one_of_trust_bundles() -> None:
    logged = LoggedTracker()
    renewed = replace(ONE, chain=(leaf(issuer=ROOT).certificate,))
    logged.take(*[updated(one) for one in (ONE, ONE, renewed, replace(renewed, hint="z"), replace(renewed, hint="z"))])
    assert [line.partition(" updated: ")[0] for line in logged.lines] == [
        "identity",
        "trust bundles",
        "identity",
        "identity",
        "trust bundles",
    ]
    assert "generation=2 expires_at=" in logged.lines[1]


def test_an_update_with_other_revocation_lists_only_is_logged_as_such() -> None:
    logged = LoggedTracker()
    lists = (make_list(authority(key=key_of("p256", 530)), 1),)
    logged.take(updated(ONE), updated(ONE, lists=lists), updated(ONE, is_new=True))
    assert [line.partition(" updated: ")[0] for line in logged.lines] == ["identity", "revocation lists", "revocation lists"]


def test_an_identity_that_comes_back_is_logged_as_an_identity() -> None:
    logged = LoggedTracker(Selection(hint="y"))
    logged.take(updated(TWO, ONE), updated(None, ONE), updated(TWO, ONE))
    assert logged.count("identity updated: spiffe_id=spiffe://a.test/two") == 2
    assert logged.count("trust bundles updated") == 0


def test_an_equal_update_confirms_without_a_log_line() -> None:
    logged = LoggedTracker()
    logged.take(updated(ONE))
    before = list(logged.lines)
    assert logged.take(updated(ONE, is_new=False), updated(ONE, is_new=False)) == [CONFIRMED, CONFIRMED]
    assert logged.tracker.generation == 1
    assert logged.lines == before


def test_several_offered_svids_without_a_selection_are_warned_about_once() -> None:
    logged = LoggedTracker()
    logged.take(updated(ONE, TWO), updated(ONE, TWO), updated(TWO, ONE))
    assert logged.count("2 SVIDs offered and none selected") == 1
    for wish in (Selection(hint="x"), Selection(ONE.spiffe_id)):
        logged = LoggedTracker(wish)
        logged.take(updated(ONE, TWO))
        assert logged.count("warning") == 0


def test_a_selection_that_is_not_offered_is_waited_for_and_logged_once() -> None:
    logged = LoggedTracker(Selection(hint="y"))
    missing = updated(None, ONE)
    assert logged.take(missing, updated(None, ONE, is_new=False), missing) == [NOTHING] * 3
    assert logged.count("does not offer --spiffe-hint y, only spiffe://a.test/one (hint x)") == 1
    assert logged.tracker.generation == 0
    assert logged.used(updated(TWO, ONE)) == "/two"
    assert logged.count("recovered") == 1


def test_a_selection_that_is_no_longer_offered_is_withdrawn() -> None:
    logged = LoggedTracker(Selection(parse_spiffe_id("spiffe://a.test/two")))
    logged.take(updated(TWO, ONE))
    assert logged.take(updated(None, ONE)) == [WITHDRAWN]
    assert logged.count("does not offer --spiffe-id spiffe://a.test/two") == 1
    assert logged.count("; keeping identity spiffe://a.test/two for now, retrying") == 1


def test_an_identity_that_comes_back_is_confirmed_or_taken() -> None:
    logged = LoggedTracker(Selection(hint="y"))
    logged.take(updated(TWO, ONE))
    logged.take(updated(None, ONE))
    assert logged.used(updated(TWO, ONE)) == "/two"
    assert logged.count("recovered") == 1


@pytest.mark.parametrize("trouble", [DOWN, NO_IDENTITY, rejected("bad key")], ids=["down", "denied", "rejected"])
def test_a_problem_is_logged_when_it_begins_and_when_it_is_over(trouble: WorkloadEvent) -> None:
    logged = LoggedTracker()
    logged.take(updated(ONE))
    logged.lines.clear()
    logged.take(trouble, trouble, trouble)
    assert len(logged.lines) == 1
    assert logged.tracker.problem
    assert logged.take(updated(ONE, is_new=False)) == [CONFIRMED]
    assert logged.lines[1:] == ["Workload API connection recovered"]
    assert not logged.tracker.problem
    logged.take(trouble)
    assert len(logged.lines) == 3, "a new problem is logged again"


def test_each_new_problem_is_logged() -> None:
    logged = LoggedTracker()
    logged.take(DOWN, NO_IDENTITY, rejected("one"), rejected("two"), rejected("two"))
    assert len(logged.lines) == 4


def test_a_disconnect_changes_nothing() -> None:
    logged = LoggedTracker()
    assert logged.take(DOWN, updated(ONE))[0] == NOTHING
    assert logged.take(DOWN, rejected("bad"), ENDED) == [NOTHING] * 3
    assert logged.count("; keeping identity spiffe://a.test/one for now, retrying") == 1
    assert logged.count("; keeping the previous identity") == 1


def test_a_clean_end_is_no_problem_once_there_is_an_identity() -> None:
    logged = LoggedTracker()
    logged.take(updated(ONE))
    logged.lines.clear()
    assert logged.take(ENDED) == [NOTHING]
    assert logged.lines == []
    early = LoggedTracker()
    early.take(ENDED)
    assert early.count("Workload API unavailable (OK); retrying") == 1


def test_an_overdue_rotation_is_logged_once_and_ends_with_a_new_svid() -> None:
    logged = LoggedTracker()
    logged.take(updated(ONE))
    logged.lines.clear()
    assert logged.take(OVERDUE, updated(ONE, is_new=False), DOWN, updated(ONE, is_new=False)) == [
        NOTHING,
        CONFIRMED,
        NOTHING,
        CONFIRMED,
    ]
    until = f"{END:%Y-%m-%dT%H:%M:%SZ}"
    overdue = f"SVID rotation overdue: spiffe_id=spiffe://a.test/one expires_at={until}"
    assert logged.lines[0] == f"{overdue}; opening a new stream to the Workload API"
    assert len(logged.lines) == 2
    assert logged.tracker.problem == overdue
    logged.take(updated(None, TWO), updated(ONE))
    assert logged.tracker.problem == overdue, "it was offered again, and is still the old one"
    logged.take(updated(replace(ONE, chain=(leaf(issuer=ROOT).certificate,))))
    assert logged.count("recovered") == 1
    assert logged.tracker.problem == ""


def test_a_skipped_svid_is_logged_once() -> None:
    logged = LoggedTracker(Selection(hint="x"))
    failure = "svid-verification-failed: SVID 'spiffe://a.test/two': expired"
    logged.take(updated(ONE, TWO, skipped=(failure,)), updated(ONE, TWO, skipped=(failure,)))
    assert logged.count(f"warning: SVID skipped: {failure}") == 1


def test_a_denial_is_a_withdrawal() -> None:
    logged = LoggedTracker()
    assert logged.take(NO_IDENTITY) == [WITHDRAWN]
    assert logged.count("issued no identity to this process (PERMISSION_DENIED: no identity issued); retrying") == 1
    logged.take(updated(ONE))
    assert logged.take(NO_IDENTITY) == [WITHDRAWN]


def test_a_fatal_answer_is_raised() -> None:
    error = IdentityError(IdentityFault.REFUSED, "no header")
    with pytest.raises(IdentityError) as raised:
        LoggedTracker().take(FatalError(error))
    assert raised.value is error


def test_each_note_is_logged_once() -> None:
    logged = LoggedTracker()
    note = "bundle of b.test skipped: noise"
    logged.take(updated(ONE, notes=(note,)), updated(TWO, ONE, notes=(note, "other")))
    assert logged.count(f"warning: {note}") == 1
    assert logged.count("warning: other") == 1


def test_credentials_have_the_revocation_lists_of_the_update() -> None:
    lists = (make_list(authority(key=key_of("p256", 530)), 1),)
    (outcome,) = LoggedTracker().take(updated(ONE, lists=lists))
    assert outcome.credentials is not None
    assert outcome.credentials.revocation == RevocationLists(lists)


def test_hostile_text_stays_in_one_line() -> None:
    logged = LoggedTracker(Selection(hint="y"))
    logged.take(
        Disconnected("UNAVAILABLE", "evil\nline \x1b[31m \u202e", 0.0), rejected("bad\r\nkey"), updated(None, svid("w", "h\ni"))
    )
    logged.take(updated(svid("w", "y"), notes=("n\no",)))
    assert len(logged.lines) >= 4
    assert all(line.isprintable() and line.isascii() for line in logged.lines)


def test_the_test_time_is_before_the_expiry() -> None:
    assert NOW < END
