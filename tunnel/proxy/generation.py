"""One generation: what a handshake uses, all of one update.

Knows how an identity, what we trust and rules become TLS contexts; must not know where they came from. Built whole and then
swapped in by one reference, so that no handshake sees half of an update.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tunnel.authz.authorizer import Admitted, Authorizer, allow_anonymous
from tunnel.authz.rules import PolicyRule
from tunnel.config.model import Access, TlsOptions
from tunnel.errors import identity_errors
from tunnel.identity.credentials import Credentials, PkiCredentials, SvidCredentials
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import MAX_NAMES_BYTES, ChainObserver, PeerAuth, can_send_authority_names
from tunnel.tls.verify import PinVerifier, PkiVerifier, SpiffeVerifier, build_pki_anchors


@dataclass(frozen=True, slots=True)
class Terms:
    """What stays the same from one generation to the next."""

    is_server: bool
    access: Access
    host: str = ""  # whom a client wants, where certificates follow ordinary PKI rules
    tls: TlsOptions = TlsOptions()  # noqa: RUF009  # frozen
    accepts_acme: bool = False  # our certificate is from an ACME server, which looks in where we listen
    chain_observer: ChainObserver | None = None  # shown what each peer sent, whatever the verdict

    def with_policy(self, rule: PolicyRule) -> Terms:
        """These terms with a policy that is asked after every other rule."""
        return replace(self, access=replace(self.access, rules=(*self.access.rules, rule)))


@dataclass(frozen=True, slots=True)
class Generation:
    """A number, who we are, and the contexts that say so: to the peers, and to whoever asks the status port."""

    number: int
    identity: str
    expires: datetime | None  # when the first certificate of our chain ends; None when we show none
    is_bound_by_expiry: bool  # an SVID that has run out must not be shown; with files, peers check that
    context: TlsContext
    status_context: TlsContext | None
    begins: datetime | None = None  # when the first certificate of our chain begins, where peers check that
    notes: tuple[str, ...] = ()  # what differs from what the operator may expect, for the log


def build_generation(number: int, credentials: Credentials, terms: Terms) -> Generation:
    """Contexts for these credentials; the verdicts that they remember die with them. Raises IdentityError and nothing else."""
    with identity_errors("certificate and key cannot be used"):
        return _build(number, credentials, terms)


def check_presentable(credentials: Credentials, options: TlsOptions) -> None:
    """Whether a handshake can present these credentials; raises IdentityError."""
    with identity_errors("certificate and key cannot be used"):
        presented = _presented(credentials)
        if presented is not None:
            TlsContext(presented, allow_anonymous("check"), is_server=True, options=options)
            presented.chain[0].subject.describe()


def _build(number: int, credentials: Credentials, terms: Terms) -> Generation:
    presented = _presented(credentials)
    begins = None
    if isinstance(credentials, SvidCredentials):
        identity, expires = str(credentials.svid.spiffe_id), credentials.svid.not_after
    elif presented is not None:
        leaf = presented.chain[0]
        identity, expires, begins = leaf.subject.describe(), leaf.not_after, leaf.not_before
    else:
        identity, expires = "", None
    is_shown = terms.is_server or terms.access.is_mutual
    asked = _asked(credentials, terms)
    return Generation(
        number,
        identity,
        expires,
        isinstance(credentials, SvidCredentials),
        TlsContext(
            presented if is_shown else None,
            asked,
            is_server=terms.is_server,
            options=terms.tls,
            accepts_acme=terms.accepts_acme,
        ),
        _status_context(presented, terms),
        begins,
        note_names(asked.authorities) if isinstance(asked, PeerAuth) else (),
    )


def note_names(authorities: Sequence[Certificate]) -> tuple[str, ...]:
    """Say that clients are not told which authorities are trusted, if these are too many to be named."""
    if can_send_authority_names(authorities):
        return ()
    seen = f"{len(authorities)} certificate authorities have more than {MAX_NAMES_BYTES} bytes of names"
    return (f"{seen}: clients are not told which authorities are trusted",)


def _presented(credentials: Credentials) -> Presented | None:
    if isinstance(credentials, SvidCredentials):
        return Presented(credentials.svid.chain, credentials.svid.private_key)
    if credentials.private_key is None:
        return None
    return Presented(credentials.chain, credentials.private_key)


def _status_context(presented: Presented | None, terms: Terms) -> TlsContext | None:
    """Who asks for the status is no peer: load balancers and probes have no certificate to show."""
    if presented is None:
        return None
    return TlsContext(presented, allow_anonymous("status"), is_server=True, options=replace(terms.tls, protocols=()))


def _asked(credentials: Credentials, terms: Terms) -> PeerAuth | Admitted:
    access = terms.access
    if terms.is_server and not access.is_mutual:
        return allow_anonymous("no-authentication")
    if access.pins:
        admission = PeerAdmission(PinVerifier(access.pins), Authorizer(access.rules, None))
        return PeerAuth(admission, chain_observer=terms.chain_observer)
    if isinstance(credentials, SvidCredentials):
        authorizer = Authorizer(access.rules, credentials.svid.spiffe_id.trust_domain)
        admission = PeerAdmission(SpiffeVerifier(credentials.bundles), authorizer)
        return PeerAuth(admission, is_slow=authorizer.is_slow(), chain_observer=terms.chain_observer)
    return _asked_by_pki(credentials, terms)


def _asked_by_pki(credentials: PkiCredentials, terms: Terms) -> PeerAuth:
    authorizer = Authorizer(terms.access.rules, None)
    anchors = build_pki_anchors(credentials.authorities)
    purpose = CLIENT_AUTH if terms.is_server else SERVER_AUTH
    host = "" if terms.is_server else terms.host.rstrip(".")
    return PeerAuth(
        PeerAdmission(PkiVerifier(anchors, purpose, host), authorizer),
        authorities=anchors.usable if terms.is_server else (),
        is_slow=authorizer.is_slow(),
        chain_observer=terms.chain_observer,
    )
