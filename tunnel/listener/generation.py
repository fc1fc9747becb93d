"""One generation: the immutable snapshot of credentials, trust and access rules that a handshake uses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property

from tunnel.authz.authorizer import Admitted, Authorizer, allow_anonymous
from tunnel.authz.rules import PolicyRule
from tunnel.config.model import Access, Acme, ListenerConfig, TlsOptions
from tunnel.errors import identity_errors
from tunnel.identity.credentials import Credentials, SvidCredentials
from tunnel.lazy_dataclass import dataclass, field, replace
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import CLIENT_AUTH, SERVER_AUTH
from tunnel.pkix.path import Anchors, describe_certificate
from tunnel.pkix.revocation import RevocationChecker, Warn, ignore_warning
from tunnel.spiffe.ids import TrustDomain
from tunnel.tls.admission import PeerAdmission
from tunnel.tls.context import Presented, TlsContext
from tunnel.tls.peer_auth import MAX_NAMES_BYTES, AuthorityNames, ChainObserver, PeerAuth, can_send_authority_names
from tunnel.tls.verify import PinVerifier, PkiVerifier, SpiffeVerifier, Verifier, build_pki_anchors


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The configuration that all generations of one listener share."""

    is_server: bool
    access: Access
    host: str = ""  # of the server that a client expects, if certificates are verified by PKI rules
    tls: TlsOptions = TlsOptions()  # frozen
    accepts_acme: bool = False  # the listener also answers ACME challenges
    chain_observer: ChainObserver | None = None  # called with the chain of each peer, also if it is refused
    warn: Warn = ignore_warning  # called on any thread, once for each peer's issuer without a valid revocation list

    def with_policy(self, rule: PolicyRule) -> GenerationConfig:
        """Add a policy, evaluated after every other rule."""
        return replace(self, access=replace(self.access, rules=(*self.access.rules, rule)))


@dataclass(frozen=True, slots=True)
class Generation:
    """The TLS contexts of the listener and of the status port for one set of credentials."""

    number: int
    identity: str
    expires: datetime | None  # end of our certificate's validity; None without a certificate
    is_bound_by_expiry: bool  # an expired SVID must not be presented; certificates from files may be
    context: TlsContext
    status_context: TlsContext | None
    begins: datetime | None = None  # begin of the validity of a certificate from files
    warnings: tuple[str, ...] = ()  # warnings for the log
    admission: PeerAdmission | None = None  # None if no client certificate is requested
    lists_expire: datetime | None = None  # when the first revocation list expires; None without lists
    credentials: Credentials | None = field(default=None, repr=False, compare=False)  # from which it was built


def plan_generations(config: ListenerConfig, policy: PolicyRule | None, warn: Warn) -> GenerationConfig:
    """Return the configuration of the generations of a listener."""
    accepts_acme = isinstance(config.identity.source, Acme)
    plan = GenerationConfig(config.is_server, config.access, config.host, config.tls, accepts_acme, warn=warn)
    return plan.with_policy(policy) if policy is not None else plan


def build_generation(
    number: int, credentials: Credentials, config: GenerationConfig, previous: Generation | None = None
) -> Generation:
    """Build one generation, as `GenerationBuilder.build` does."""
    return GenerationBuilder(number, credentials).build(config, previous)


def check_presentable(credentials: Credentials, options: TlsOptions) -> None:
    """Raise IdentityError if a handshake cannot present these credentials."""
    with identity_errors("certificate and key cannot be used"):
        presented = _presented(credentials)
        if presented is not None:
            TlsContext(presented, allow_anonymous("check"), is_server=True, options=options)
            presented.chain[0].subject.describe()


class GenerationBuilder:
    """Builds the generations of several listeners for one set of credentials; what they have in common is built once."""

    def __init__(self, number: int, credentials: Credentials) -> None:
        self.number = number
        self.credentials = credentials
        self._status_contexts: dict[TlsOptions, TlsContext] = {}
        self._spiffe_verifiers: dict[Warn, SpiffeVerifier] = {}

    def build(self, config: GenerationConfig, previous: Generation | None = None) -> Generation:
        """Build the contexts for one configuration; raises only IdentityError.

        If the previous generation admits the same peers, its admission is used again, with its cache: a rotation of our own
        certificate then causes no verification.
        """
        with identity_errors("certificate and key cannot be used"):
            return self._build(config, previous.admission if previous is not None else None)

    def _build(self, config: GenerationConfig, previous: PeerAdmission | None) -> Generation:
        credentials, presented = self.credentials, self._presented
        begins = None
        if isinstance(credentials, SvidCredentials):
            identity, expires = str(credentials.svid.spiffe_id), credentials.svid.not_after
        elif presented is not None:
            leaf = presented.chain[0]
            identity, expires, begins = leaf.subject.describe(), leaf.not_after, leaf.not_before
        else:
            identity, expires = "", None
        is_shown = config.is_server or config.access.is_mutual
        peer_auth = self._peer_auth(config, previous)
        return Generation(
            self.number,
            identity,
            expires,
            isinstance(credentials, SvidCredentials),
            TlsContext(
                presented if is_shown else None,
                peer_auth,
                is_server=config.is_server,
                options=config.tls,
                accepts_acme=config.accepts_acme,
            ),
            self._status_context(config.tls),
            begins,
            self._warnings(peer_auth, config.access),
            peer_auth.admit if isinstance(peer_auth, PeerAuth) and isinstance(peer_auth.admit, PeerAdmission) else None,
            credentials.revocation.expires,
            credentials,
        )

    @cached_property
    def _presented(self) -> Presented | None:
        return _presented(self.credentials)

    def _status_context(self, options: TlsOptions) -> TlsContext | None:
        """The context of the status port, which requires no client certificate: load balancers and probes have none."""
        if self._presented is None:
            return None
        options = replace(options, protocols=())
        if options not in self._status_contexts:
            self._status_contexts[options] = TlsContext(
                self._presented, allow_anonymous("status"), is_server=True, options=options
            )
        return self._status_contexts[options]

    def _warnings(self, peer_auth: PeerAuth | Admitted, access: Access) -> tuple[str, ...]:
        if isinstance(peer_auth, Admitted) or access.pins:
            return ()
        return (*authority_name_warnings(peer_auth.names.authorities), *self._revocation_warnings)

    @cached_property
    def _revocation_warnings(self) -> tuple[str, ...]:
        return revocation_warnings(self.credentials, datetime.now(UTC))

    def _peer_auth(self, config: GenerationConfig, previous: PeerAdmission | None) -> PeerAuth | Admitted:
        access = config.access
        if config.is_server and not access.is_mutual:
            return allow_anonymous("no-authentication")
        own: TrustDomain | None = None
        names = AuthorityNames()
        verifier: Verifier
        if access.pins:
            verifier = PinVerifier(access.pins)
        elif isinstance(self.credentials, SvidCredentials):
            verifier = self._spiffe_verifier(self.credentials, config.warn)
            own = self.credentials.svid.spiffe_id.trust_domain
        else:
            verifier = self._pki_verifier(config)
            names = self._authority_names if config.is_server else names
        authorizer = Authorizer(access.rules, own, access.trust_domains)
        admission = PeerAdmission(verifier, authorizer)
        if previous is not None and previous.is_equivalent(admission):
            admission = previous
        return PeerAuth(admission, names, authorizer.is_slow(), config.chain_observer)

    def _spiffe_verifier(self, credentials: SvidCredentials, warn: Warn) -> SpiffeVerifier:
        """The verifier, whose anchors take memory and time, with the bundles that all listeners have in common."""
        if warn not in self._spiffe_verifiers:
            self._spiffe_verifiers[warn] = SpiffeVerifier(credentials.bundles, credentials.revocation, warn)
        return self._spiffe_verifiers[warn]

    def _pki_verifier(self, config: GenerationConfig) -> PkiVerifier:
        purpose = CLIENT_AUTH if config.is_server else SERVER_AUTH
        host = "" if config.is_server else config.host.rstrip(".")
        return PkiVerifier(self._anchors, purpose, host, revocation=self.credentials.revocation, warn=config.warn)

    @cached_property
    def _authority_names(self) -> AuthorityNames:
        return AuthorityNames(self._anchors.usable)

    @cached_property
    def _anchors(self) -> Anchors:
        assert not isinstance(self.credentials, SvidCredentials)
        return build_pki_anchors(self.credentials.authorities)


def revocation_warnings(credentials: Credentials, now: datetime) -> tuple[str, ...]:
    """Return what is wrong with the revocation lists, and whether our own certificate is on one."""
    if not credentials.revocation.is_checked:
        return ()
    if isinstance(credentials, SvidCredentials):
        chain, bundles = credentials.svid.chain, credentials.bundles.bundles.values()
        authorities = tuple(one for bundle in bundles for one in bundle.authorities)
    else:
        chain, authorities = credentials.chain, credentials.authorities
    checker = RevocationChecker(credentials.revocation)
    revoked = [describe_certificate(one) for one in checker.find_revoked(chain, authorities, now)]
    own = [f"our own certificate {one} is revoked: peers that check revocation lists refuse it" for one in revoked]
    return (*own, *checker.find_warnings(authorities, now))


def authority_name_warnings(authorities: Sequence[Certificate]) -> tuple[str, ...]:
    """Return a warning if the authorities are too many to be named in a CertificateRequest."""
    if can_send_authority_names(authorities):
        return ()
    seen = f"{len(authorities)} certificate authorities have more than {MAX_NAMES_BYTES} bytes of names"
    return (f"{seen}: no authority names are sent to clients",)


def _presented(credentials: Credentials) -> Presented | None:
    if isinstance(credentials, SvidCredentials):
        return Presented(credentials.svid.chain, credentials.svid.private_key)
    if credentials.private_key is None:
        return None
    return Presented(credentials.chain, credentials.private_key)
