"""Which identity is followed through updates and losses, and what is said of it: each thing once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support.cert_factory import END, NOW, authority, key_of, leaf
from tunnel.errors import IdentityError, IdentityFault
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.identity.identity_tracker import IdentityTracker, Outcome
from tunnel.identity.workload import Denied, Disconnected, Event, FatalError, Overdue, Rejected, Updated
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
class Said:
    """A follower and what it has said."""

    selection: Selection = ANY
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tracker = IdentityTracker(self.selection, self.lines.append, self.lines.append)

    def take(self, *events: Event) -> list[Outcome]:
        return [self.tracker.take(event) for event in events]

    def used(self, event: Event) -> str:
        """The path of the ID whose credentials an event brings."""
        credentials = self.tracker.take(event).credentials
        assert credentials is not None
        return credentials.svid.spiffe_id.path

    def count(self, words: str) -> int:
        return sum(words in line for line in self.lines)


ONE, TWO = svid("one", "x"), svid("two", "y")
OVERDUE = Overdue(ONE)


def test_an_update_brings_credentials_and_a_generation() -> None:
    said = Said()
    (outcome,) = said.take(updated(ONE))
    assert outcome.credentials is not None
    assert (outcome.credentials.svid, outcome.credentials.bundles) == (ONE, BUNDLES)
    assert not outcome.is_confirmed
    assert not outcome.is_withdrawn
    assert said.tracker.generation == 1
    assert said.lines == [
        f"identity spiffe://a.test/one generation 1 valid until {END:%Y-%m-%dT%H:%M:%SZ}, trust domains a.test"
    ]


def test_an_equal_update_confirms_and_says_nothing() -> None:
    said = Said()
    said.take(updated(ONE))
    before = list(said.lines)
    assert said.take(updated(ONE, is_new=False), updated(ONE, is_new=False)) == [CONFIRMED, CONFIRMED]
    assert said.tracker.generation == 1
    assert said.lines == before


def test_the_choice_among_several_is_warned_of_once() -> None:
    said = Said()
    said.take(updated(ONE, TWO), updated(ONE, TWO), updated(TWO, ONE))
    assert said.count("2 identities are offered and none is chosen") == 1
    for wish in (Selection(hint="x"), Selection(ONE.spiffe_id)):
        said = Said(wish)
        said.take(updated(ONE, TWO))
        assert said.count("warning") == 0


def test_a_wish_that_is_not_offered_is_waited_for_and_said_once() -> None:
    said = Said(Selection(hint="y"))
    missing = updated(None, ONE)
    assert said.take(missing, updated(None, ONE, is_new=False), missing) == [NOTHING] * 3
    assert said.count("does not offer --spiffe-hint y, only spiffe://a.test/one (hint x)") == 1
    assert said.tracker.generation == 0
    assert said.used(updated(TWO, ONE)) == "/two"
    assert said.count("recovered") == 1


def test_a_wish_that_is_offered_no_more_is_withdrawn() -> None:
    said = Said(Selection(parse_spiffe_id("spiffe://a.test/two")))
    said.take(updated(TWO, ONE))
    assert said.take(updated(None, ONE)) == [WITHDRAWN]
    assert said.count("does not offer --spiffe-id spiffe://a.test/two") == 1
    assert said.count("identity spiffe://a.test/two stays in use for now") == 1


def test_an_identity_that_comes_back_is_confirmed_or_taken() -> None:
    said = Said(Selection(hint="y"))
    said.take(updated(TWO, ONE))
    said.take(updated(None, ONE))
    assert said.used(updated(TWO, ONE)) == "/two"
    assert said.count("recovered") == 1


@pytest.mark.parametrize("trouble", [DOWN, NO_IDENTITY, rejected("bad key")], ids=["down", "denied", "rejected"])
def test_trouble_is_said_when_it_begins_and_when_it_is_over(trouble: Event) -> None:
    said = Said()
    said.take(updated(ONE))
    said.lines.clear()
    said.take(trouble, trouble, trouble)
    assert len(said.lines) == 1
    assert said.tracker.complaint
    assert said.take(updated(ONE, is_new=False)) == [CONFIRMED]
    assert said.lines[1:] == ["Workload API connection recovered"]
    assert not said.tracker.complaint
    said.take(trouble)
    assert len(said.lines) == 3, "new trouble is said anew"


def test_other_trouble_is_said_too() -> None:
    said = Said()
    said.take(DOWN, NO_IDENTITY, rejected("one"), rejected("two"), rejected("two"))
    assert len(said.lines) == 4


def test_a_lost_stream_changes_nothing() -> None:
    said = Said()
    assert said.take(DOWN, updated(ONE))[0] == NOTHING
    assert said.take(DOWN, rejected("bad"), ENDED) == [NOTHING] * 3
    assert said.count("identity spiffe://a.test/one stays in use for now, trying again") == 1
    assert said.count("keeping the previous one") == 1


def test_a_clean_end_is_no_trouble_once_there_is_an_identity() -> None:
    said = Said()
    said.take(updated(ONE))
    said.lines.clear()
    assert said.take(ENDED) == [NOTHING]
    assert said.lines == []
    early = Said()
    early.take(ENDED)
    assert early.count("not available (OK)") == 1


def test_an_overdue_rotation_is_told_once_and_is_over_with_a_new_svid() -> None:
    said = Said()
    said.take(updated(ONE))
    said.lines.clear()
    assert said.take(OVERDUE, updated(ONE, is_new=False), DOWN, updated(ONE, is_new=False)) == [
        NOTHING,
        CONFIRMED,
        NOTHING,
        CONFIRMED,
    ]
    until = f"{END:%Y-%m-%dT%H:%M:%SZ}"
    overdue = f"rotation of spiffe://a.test/one is overdue: its SVID ends at {until}, and no newer one has come"
    assert said.lines[0] == f"{overdue}; opening a new stream to the Workload API"
    assert len(said.lines) == 2
    assert said.tracker.complaint == overdue
    said.take(updated(None, TWO), updated(ONE))
    assert said.tracker.complaint == overdue, "it was offered again, and is still the old one"
    said.take(updated(replace(ONE, chain=(leaf(issuer=ROOT).certificate,))))
    assert said.count("recovered") == 1
    assert said.tracker.complaint == ""


def test_an_svid_that_is_left_out_is_told_once() -> None:
    said = Said(Selection(hint="x"))
    failure = "svid-verification-failed: SVID 'spiffe://a.test/two': expired"
    said.take(updated(ONE, TWO, left_out=(failure,)), updated(ONE, TWO, left_out=(failure,)))
    assert said.count(f"warning: an identity is left out: {failure}") == 1


def test_no_identity_is_a_withdrawal() -> None:
    said = Said()
    assert said.take(NO_IDENTITY) == [WITHDRAWN]
    assert said.count("gives this process no identity (PERMISSION_DENIED: no identity issued); trying again") == 1
    said.take(updated(ONE))
    assert said.take(NO_IDENTITY) == [WITHDRAWN]


def test_an_answer_without_hope_ends_it() -> None:
    error = IdentityError(IdentityFault.REFUSED, "no header")
    with pytest.raises(IdentityError) as raised:
        Said().take(FatalError(error))
    assert raised.value is error


def test_notes_are_said_once_each() -> None:
    said = Said()
    note = "trust domain b.test is trusted by nobody: noise"
    said.take(updated(ONE, notes=(note,), crl_count=1), updated(TWO, ONE, notes=(note, "other"), crl_count=2))
    assert said.count(f"warning: {note}") == 1
    assert said.count("warning: other") == 1
    assert said.count("(crl)") == 1


def test_hostile_text_stays_in_its_line() -> None:
    said = Said(Selection(hint="y"))
    said.take(
        Disconnected("UNAVAILABLE", "evil\nline \x1b[31m \u202e", 0.0), rejected("bad\r\nkey"), updated(None, svid("w", "h\ni"))
    )
    said.take(updated(svid("w", "y"), notes=("n\no",)))
    assert len(said.lines) >= 4
    assert all(line.isprintable() and line.isascii() for line in said.lines)


def test_the_moment_is_that_of_the_tests() -> None:
    assert NOW < END
