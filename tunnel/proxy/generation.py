"""One generation: what a handshake uses, all of one update.

Knows how an identity, bundles and rules become a TLS context; must not know where they came from. Built whole and then
swapped in by one reference, so that no handshake sees half of an update.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tunnel.authz.authorizer import Authorizer, admit_unasked
from tunnel.authz.rules import Rule
from tunnel.identity.credentials import Credentials
from tunnel.tls.callback import Demand
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.judge import PeerJudge
from tunnel.tls.verify import SpiffeVerifier


@dataclass(frozen=True, slots=True)
class Generation:
    """A number, who we are, and the contexts that say so: to the peers, and to whoever asks the status port."""

    number: int
    identity: str
    valid_until: datetime | None  # None: it is shown as long as there is no other
    context: TlsContext
    status_context: TlsContext


def build_generation(number: int, credentials: Credentials, rules: tuple[Rule, ...], *, is_server: bool) -> Generation:
    """A context for these credentials; the verdicts that it remembers die with it."""
    svid = credentials.svid
    authorizer = Authorizer(rules, svid.spiffe_id.trust_domain)
    judge = PeerJudge(SpiffeVerifier(credentials.bundles), authorizer)
    presented = Presented(svid.chain, svid.private_key)
    context = TlsContext(presented, Demand(judge, is_slow=authorizer.is_slow()), is_server=is_server)
    status_context = TlsContext(presented, admit_unasked("status"), is_server=True)
    return Generation(number, str(svid.spiffe_id), svid.not_after, context, status_context)
