"""Warnings about access rules whose effect may be unintended."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunnel.authz.rules import AllRule, AnyRule, Condition, DenyRule, IdRule, KeyRule, Rule, TrustDomainRule, UriRule
from tunnel.config.access import RuleMistake
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import TrustDomain

_MOST_PATTERNS = 64  # of one list that are compared with each SPIFFE ID after them


def rule_warning(rule: Rule, *, is_spiffe: bool) -> str:
    """Return a warning if the effect of a rule may be unintended, else ""."""
    if not is_spiffe or isinstance(rule, DenyRule):
        return ""
    if isinstance(rule, AnyRule):
        return "admits every valid SVID of our own trust domain and of every federated trust domain"
    if isinstance(rule, UriRule) and not rule.pattern.can_match_spiffe_id():
        return "cannot match a SPIFFE ID"
    if any(isinstance(part, KeyRule) for part in (rule.parts if isinstance(rule, AllRule) else (rule,))):
        return "matches until the next rotation of the peer's SVID, which changes its key"
    return "" if rule.names_trust_domain() else "names no trust domain: it matches peers of our own only"


def list_warnings(
    rules: Sequence[Rule],
    *,
    has_policy: bool,
    is_spiffe: bool,
    trust_domains: Collection[TrustDomain] | None = None,
) -> list[RuleMistake]:
    """Return the warnings about an access list, with their paths in the list; `trust_domains` are those that are accepted."""
    found: list[RuleMistake] = [
        ((index,), text) for index, rule in enumerate(rules) if (text := rule_warning(rule, is_spiffe=is_spiffe))
    ]
    if not has_policy and all(isinstance(rule, DenyRule) for rule in rules):
        found.append(((), "no rule admits a peer: every peer is refused"))
    last = next((index for index, rule in enumerate(rules) if isinstance(_condition_of(rule), AnyRule)), len(rules))
    found += [((index,), "never decides: an earlier rule matches every peer") for index in range(last + 1, len(rules))]
    earlier = _EarlierRules(is_spiffe)
    for index, rule in enumerate(rules[: last + 1]):
        if trust_domains is not None and not _is_accepted(_condition_of(rule), trust_domains):
            found.append(((index,), "never matches: trust-domains does not have the trust domain of this rule"))
        elif earlier.decide(rule):
            found.append(((index,), "never decides: an earlier rule matches the same peers"))
        earlier.add(rule)
    return found


def _condition_of(rule: Rule) -> Condition:
    return rule.condition if isinstance(rule, DenyRule) else rule


def _parts_of(condition: Condition) -> Sequence[Condition]:
    return condition.parts if isinstance(condition, AllRule) else (condition,)


def _is_accepted(condition: Condition, trust_domains: Collection[TrustDomain]) -> bool:
    named = [part.trust_domain for part in _parts_of(condition) if isinstance(part, TrustDomainRule)]
    named += [part.spiffe_id.trust_domain for part in _parts_of(condition) if isinstance(part, IdRule)]
    return all(domain in trust_domains for domain in named)


@dataclass(slots=True)
class _EarlierRules:
    """The rules before one in a list, of which the first that matches decides."""

    is_spiffe: bool
    everywhere: set[Condition] = field(default_factory=set)  # they hold for peers of every trust domain
    at_home: set[Condition] = field(default_factory=set)  # for peers of our own only
    patterns: list[UriRule] = field(default_factory=list)  # of `everywhere`

    def add(self, rule: Rule) -> None:
        condition = _condition_of(rule)
        (self.everywhere if self._is_everywhere(rule) else self.at_home).add(condition)
        if isinstance(condition, UriRule) and self._is_everywhere(rule) and len(self.patterns) < _MOST_PATTERNS:
            self.patterns.append(condition)

    def decide(self, rule: Rule) -> bool:
        """Whether every peer that a rule matches is decided on before it."""
        if isinstance(rule, DenyRule) and rule.needs_source():
            return False  # it also matches clients of unknown address
        condition = _condition_of(rule)
        return any(self._covers(part, is_everywhere=self._is_everywhere(rule)) for part in (condition, *_parts_of(condition)))

    def _is_everywhere(self, rule: Rule) -> bool:
        return not self.is_spiffe or rule.names_trust_domain()

    def _covers(self, condition: Condition, *, is_everywhere: bool) -> bool:
        if condition in self.everywhere or (condition in self.at_home and not is_everywhere):
            return True
        if not isinstance(condition, IdRule):
            return False
        spiffe_id = condition.spiffe_id
        return TrustDomainRule(spiffe_id.trust_domain) in self.everywhere or any(
            one.pattern.is_match(str(spiffe_id)) for one in self.patterns
        )
