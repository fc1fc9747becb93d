"""One generation: what a handshake uses, all of one update.

Knows how an identity, bundles and rules become a TLS context; must not know where they came from. Built whole and then
swapped in by one reference, so that no handshake sees half of an update.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.authz.authorizer import Authorizer
from tunnel.authz.rules import Rule
from tunnel.identity.credentials import Credentials
from tunnel.tls.context import TlsContext
from tunnel.tls.judge import PeerJudge
from tunnel.tls.verify import Verifier


@dataclass(frozen=True, slots=True)
class Generation:
    """A number, the credentials and the context that presents and trusts them."""

    number: int
    credentials: Credentials
    context: TlsContext


def build_generation(number: int, credentials: Credentials, rules: tuple[Rule, ...], *, is_server: bool) -> Generation:
    """A context for these credentials; the verdicts that it remembers die with it."""
    authorizer = Authorizer(rules, credentials.svid.spiffe_id.trust_domain)
    judge = PeerJudge(Verifier(credentials.bundles), authorizer)
    context = TlsContext(credentials.svid.chain, credentials.svid.private_key, judge, is_server=is_server)
    return Generation(number, credentials, context)
