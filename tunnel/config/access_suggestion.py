"""The access rule that would admit a peer that was denied, as a flag and as an entry of an access list."""

from __future__ import annotations

import shlex
from typing import cast

from tunnel.authz.pattern import parse_pattern
from tunnel.authz.peer import Peer
from tunnel.authz.rules import CommonNameRule, DnsRule, Fact, IdRule, UriRule
from tunnel.config.access import encode_rules
from tunnel.config.file.writer import TomlValue, encode_value
from tunnel.errors import ConfigError, Denial
from tunnel.lazy_dataclass import dataclass

_MOST_TEXT = 512  # characters of a rule: a peer chooses the names in its certificate


@dataclass(frozen=True, slots=True)
class AccessSuggestion:
    """What an operator adds to admit a peer; both are "" if no access rule would admit it."""

    flag: str = ""  # of `tunnel server` or `tunnel client`
    entry: str = ""  # for a configuration file, in TOML


def suggest_access(peer: Peer | None, reason: str, *, is_server: bool) -> AccessSuggestion:
    """Return the most exact rule that would admit a peer; `reason` is why it was denied."""
    if peer is None:
        return AccessSuggestion()
    if reason == Denial.FOREIGN_TRUST_DOMAIN.value and peer.spiffe_id is not None:
        return AccessSuggestion(entry=f"trust-domains = [{encode_value(str(peer.spiffe_id.trust_domain))}]")
    rule = _rule_for(peer)
    if rule is None or reason not in (Denial.NO_RULE.value, Denial.DENY_RULE.value):
        return AccessSuggestion()
    kind, _, text = str(rule).partition(":")
    if len(text) > _MOST_TEXT or not text.isprintable():
        return AccessSuggestion()
    entry = encode_value(cast(TomlValue, encode_rules((rule,))[0]))
    if reason == Denial.DENY_RULE.value:
        return AccessSuggestion(entry=f"{entry}  # before the entry that denies the peer")
    return AccessSuggestion(f"--{'allow' if is_server else 'verify'}-{kind} {shlex.quote(text)}", entry)


def _rule_for(peer: Peer) -> Fact | None:
    """The rule for the name of a peer that is most exact."""
    if peer.spiffe_id is not None:
        return IdRule(peer.spiffe_id)
    if peer.common_name:
        return CommonNameRule(peer.common_name)
    if peer.dns_names:
        return DnsRule(peer.dns_names[0])
    for uri in peer.uris:
        try:
            if "*" not in uri:
                return UriRule(parse_pattern(uri))
        except ConfigError:  # not every URI can be a pattern
            continue
    return None
