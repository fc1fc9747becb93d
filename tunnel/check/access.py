"""Explains which access rule of a listener decides on a peer, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import assert_never

from tunnel.authz.authorizer import Authorizer, RuleEffect
from tunnel.authz.peer import Peer, parse_peer
from tunnel.authz.rules import (
    AllRule,
    AnyRule,
    CommonNameRule,
    DenyRule,
    DnsRule,
    IdRule,
    IpRule,
    KeyRule,
    PolicyRule,
    Rule,
    SourceRule,
    TrustDomainRule,
    UnitRule,
    UriRule,
)
from tunnel.check.finding import escape_text
from tunnel.config.model import Access, ListenerConfig, WorkloadApi
from tunnel.errors import Denial, PeerDenied, quote
from tunnel.ip_address import IpAddress
from tunnel.lazy_dataclass import dataclass, replace
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.path import check_dates
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.spiffe.x509 import check_leaf

_NOBODY = TrustDomain("")  # no peer is of it
_UNKNOWN = "not known from a SPIFFE ID alone"
_MOST_NAMES = 4  # of the certificate, in an explanation


class Decision(Enum):
    """The result of an explanation."""

    ADMITTED = "admitted"
    DENIED = "denied"
    UNDECIDED = "undecided"  # by what is known here


@dataclass(frozen=True, slots=True)
class RuleStep:
    """One rule, its effect, and the fact that it was compared with."""

    rule: str
    effect: RuleEffect
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The rules in order, up to the one that decides, and the decision."""

    decision: Decision
    detail: str
    peer: str
    steps: tuple[RuleStep, ...] = ()
    reason: Denial | None = None  # of a denial
    notes: tuple[str, ...] = ()

    def encode_text(self) -> str:
        """Return the lines for people."""
        steps = [f"rule {number}: {step.rule}: {step.effect.value}: {step.why}" for number, step in enumerate(self.steps, 1)]
        reason = f" reason={self.reason.value}" if self.reason is not None else ""
        lines = [f"peer={self.peer}", *steps, *(f"note: {note}" for note in self.notes)]
        return "\n".join(map(escape_text, [*lines, f"{self.decision.value}: {self.detail}{reason}"])) + "\n"

    def encode_json(self) -> str:
        """Return one JSON object in one line."""
        rules = [{"rule": step.rule, "effect": step.effect.value, "why": step.why} for step in self.steps]
        found = {
            "decision": self.decision.value,
            "detail": self.detail,
            "reason": self.reason.value if self.reason is not None else None,
            "peer": self.peer,
            "rules": rules,
            "notes": list(self.notes),
        }
        return json.dumps(found) + "\n"


@dataclass(frozen=True, slots=True)
class Question:
    """A connection to explain; `own` is our trust domain, None if it is not known."""

    who: SpiffeId | Certificate
    now: datetime
    source: IpAddress | None = None
    own: TrustDomain | None = None


def explain_access(listener: ListenerConfig, question: Question) -> Explanation:
    """Return which rule of a listener decides on a connection; the certification path is not verified."""
    access, source = listener.access, listener.identity.source
    if listener.is_server and not access.is_mutual:
        return Explanation(Decision.ADMITTED, "no client certificate is requested: every client is admitted", "anonymous")
    try:
        peer = _parse_peer(question.who, is_spiffe=isinstance(source, WorkloadApi))
    except PeerDenied as denied:
        return Explanation(Decision.DENIED, denied.seen, "unnamed", reason=denied.reason)
    if access.pins:
        found = _explain_pins(access, peer)
    elif isinstance(source, WorkloadApi):
        own = question.own or (source.selection.spiffe_id.trust_domain if source.selection.spiffe_id is not None else None)
        found = _explain_spiffe(access, peer, question.source, own)
    else:
        found = _explain_rules(Authorizer(_rules_of(access), None, access.trust_domains), peer, question.source)
    return replace(found, notes=(*found.notes, *_list_notes(listener, question)))


def _parse_peer(who: SpiffeId | Certificate, *, is_spiffe: bool) -> Peer:
    if isinstance(who, Certificate):
        return parse_peer(who, check_leaf(who) if is_spiffe else None)
    return Peer("", who if is_spiffe else None, uris=(str(who),))


def _rules_of(access: Access) -> tuple[Rule, ...]:
    """Return the rules, with a policy as one that admits: whoever uses them must not believe it."""
    return access.rules if access.policy is None else (*access.rules, PolicyRule(access.policy.query, lambda _peer: True))


def _explain_pins(access: Access, peer: Peer) -> Explanation:
    if not peer.public_key:
        return Explanation(Decision.UNDECIDED, "a pinned key decides; expected the certificate of the peer", str(peer))
    if any(pin.is_match(peer.public_key) for pin in access.pins):
        return Explanation(Decision.ADMITTED, "the public key is pinned", str(peer))
    return Explanation(Decision.DENIED, "the public key is not pinned", str(peer), reason=Denial.PIN)


def _explain_spiffe(access: Access, peer: Peer, source: IpAddress | None, own: TrustDomain | None) -> Explanation:
    """Explain by our own trust domain; if it is not known, it must not make a difference."""
    authorizer = Authorizer(_rules_of(access), own or _NOBODY, access.trust_domains)
    found = _explain_rules(authorizer, peer, source)
    if own is None and peer.spiffe_id is not None:
        other = _explain_rules(replace(authorizer, own=peer.spiffe_id.trust_domain), peer, source)
        if (other.decision, other.detail) != (found.decision, found.detail):
            detail = "a rule is for peers of our own trust domain only; expected --own-trust-domain NAME"
            return replace(found, decision=Decision.UNDECIDED, detail=detail, reason=None)
    return found


def _explain_rules(authorizer: Authorizer, peer: Peer, source: IpAddress | None) -> Explanation:
    try:
        authorizer.check_trust_domain(peer)
    except PeerDenied as denied:
        return Explanation(Decision.DENIED, denied.seen, str(peer), reason=denied.reason)
    judged = list(authorizer.judge(peer, source))
    steps = tuple(_explain_step(rule, effect, peer, source) for rule, effect in judged)
    rule, effect = judged[-1] if judged else (None, None)
    is_admitted = effect is RuleEffect.ADMITS
    for number, (other, no_effect) in enumerate(judged, 1):
        is_open = no_effect is RuleEffect.NO_MATCH and not peer.leaf and _may_match(other, peer, source)
        if is_open and is_admitted is isinstance(other, DenyRule):
            detail = f"rule {number} depends on the certificate of the peer; expected CERT instead of ID"
            return Explanation(Decision.UNDECIDED, detail, str(peer), steps)
    if is_admitted and isinstance(rule, PolicyRule):
        return Explanation(Decision.UNDECIDED, "a policy decides, which is not evaluated here", str(peer), steps)
    if is_admitted:
        return Explanation(Decision.ADMITTED, f"rule {len(steps)} admits the peer", str(peer), steps)
    if effect is RuleEffect.DENIES:
        return Explanation(Decision.DENIED, f"rule {len(steps)} denies the peer", str(peer), steps, Denial.DENY_RULE)
    return Explanation(Decision.DENIED, "no rule matches", str(peer), steps, Denial.NO_RULE)


def _explain_step(rule: Rule, effect: RuleEffect, peer: Peer, source: IpAddress | None) -> RuleStep:
    is_own_only = effect is RuleEffect.OWN_ONLY
    why = (
        "the rule names no trust domain, and the peer is of another one" if is_own_only else _describe_fact(rule, peer, source)
    )
    return RuleStep(str(rule), effect, why)


def _may_match(rule: Rule, peer: Peer, source: IpAddress | None) -> bool:
    """Whether a rule can match a peer of which only the SPIFFE ID is known."""
    match rule:
        case DenyRule():
            return _may_match(rule.condition, peer, source)
        case AllRule():
            return all(_may_match(part, peer, source) for part in rule.parts)
        case CommonNameRule() | UnitRule() | DnsRule() | IpRule() | KeyRule():
            return True
    return rule.covers(peer, source, if_unknown=False)


def _describe_fact(rule: Rule, peer: Peer, source: IpAddress | None) -> str:
    """Return what the rule was compared with."""
    match rule:
        case IdRule() | TrustDomainRule():
            return f"the SPIFFE ID is {peer.spiffe_id}" if peer.spiffe_id is not None else "no SPIFFE ID is proven"
        case UriRule():
            return f"the URIs are {_join(peer.uris)}"
        case CommonNameRule():
            return f"the common name is {_join((peer.common_name,) if peer.common_name else (), peer)}"
        case UnitRule():
            return f"the organizational units are {_join(peer.organizational_units, peer)}"
        case DnsRule():
            return f"the DNS names are {_join(peer.dns_names, peer)}"
        case IpRule():
            return f"the IP addresses are {_join(tuple(map(str, peer.ip_addresses)), peer)}"
        case KeyRule():
            return "the public key was compared" if peer.public_key else f"the public key is {_UNKNOWN}"
        case SourceRule():
            return f"the client's address is {source or 'unknown'}"
        case PolicyRule():
            return "the policy is not evaluated"
        case AnyRule():
            return "it matches every peer"
        case AllRule():
            return "; ".join(_describe_fact(part, peer, source) for part in rule.parts)
        case DenyRule():
            return _describe_fact(rule.condition, peer, source)
        case _:
            assert_never(rule)


def _join(names: Sequence[str], peer: Peer | None = None) -> str:
    """Return names for a line; a peer without a certificate has names that are not known."""
    if not names and peer is not None and not peer.leaf:
        return _UNKNOWN
    shown = ", ".join(map(quote, names[:_MOST_NAMES])) or "none"
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown


def _list_notes(listener: ListenerConfig, question: Question) -> list[str]:
    notes = []
    if isinstance(question.who, Certificate):
        notes.append(
            "the certification path is not verified: a listener refuses a certificate that no trusted authority issued"
        )
        try:
            check_dates(question.who, question.now)
        except PeerDenied as denied:
            notes.append(f"a listener refuses the certificate now: {denied}")
    if not listener.is_server and not isinstance(listener.identity.source, WorkloadApi) and not listener.access.pins:
        notes.append("the host name of the server is not verified here")
    if question.source is None and any(rule.needs_source() for rule in listener.access.rules):
        notes.append("the client's address is not known: it matches no allow and every deny; expected --source IP")
    return notes
