"""The state of the development Workload API: entries, authorities and federation, and the messages made from them.

It is not thread-safe: its owner calls it from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.authority import Authority, IssuedSvid
from tunnel.devapi.certificates import SAME_SUBJECT, encode_certificates
from tunnel.devapi.jwt_authority import JwtAuthority
from tunnel.errors import TokenError, TokenFault
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import SpiffeId, TrustDomain
from tunnel.spiffe.jwt import Token
from tunnel.spiffe.messages import (
    BundlesResponse,
    JwtSvidEntry,
    SvidEntry,
    X509SvidResponse,
    encode_jwt_bundles_response,
    encode_x509_bundles_response,
    encode_x509_svid_response,
)


class IssuingState:
    """The registered entries with their current SVIDs, and the authorities that sign them."""

    def __init__(self, issuing: Issuing) -> None:
        self._issuing = issuing
        self._authorities: dict[TrustDomain, Authority] = {}
        self._jwt_authorities: dict[TrustDomain, JwtAuthority] = {}
        self._federations: set[frozenset[TrustDomain]] = set()
        self._svids: dict[WorkloadEndpoint, dict[Entry, IssuedSvid]] = {}

    def authority(self, trust_domain: TrustDomain, now: datetime) -> Authority:
        """Return the authority of a trust domain; it is created at the first call."""
        if trust_domain not in self._authorities:
            self._authorities[trust_domain] = Authority(
                trust_domain,
                now=now,
                ttl=self._issuing.ca_ttl,
                has_intermediate=self._issuing.has_intermediate,
                subject=SAME_SUBJECT if self._issuing.has_same_subject else None,
            )
            self._jwt_authorities[trust_domain] = JwtAuthority()
        return self._authorities[trust_domain]

    def register(self, endpoint: WorkloadEndpoint, entry: Entry, now: datetime) -> None:
        """Add an identity; the order of registration is the order in messages."""
        self._svids.setdefault(endpoint, {})[entry] = self._issue(entry, now)

    def unregister(self, endpoint: WorkloadEndpoint, entry: Entry) -> None:
        """Remove an identity."""
        del self._svids[endpoint][entry]

    def federate(self, domains: Iterable[TrustDomain], now: datetime) -> None:
        """Give the workloads of each of `domains` the bundles of the others."""
        federation = frozenset(domains)
        self._federations.add(federation)
        for domain in federation:
            self.authority(domain, now)

    def unfederate(self, domains: Iterable[TrustDomain]) -> None:
        """Undo `federate` for the same `domains`."""
        self._federations.discard(frozenset(domains))

    def renew(self, now: datetime) -> None:
        """Replace every SVID by a new one."""
        for svids in self._svids.values():
            for entry in svids:
                svids[entry] = self._issue(entry, now)

    def prepare(self, now: datetime) -> None:
        """Add the next authority of each trust domain to its bundle."""
        for authority in self._authorities.values():
            authority.prepare(now)
        for jwt_authority in self._jwt_authorities.values():
            jwt_authority.prepare()

    def activate(self, now: datetime) -> None:
        """Sign with the prepared authorities, and renew all SVIDs, so that none depends on an old authority."""
        for authority in self._authorities.values():
            authority.activate()
        for jwt_authority in self._jwt_authorities.values():
            jwt_authority.activate()
        self.renew(now)

    def drop_old(self) -> None:
        """Remove the old authorities from the bundles."""
        for authority in self._authorities.values():
            authority.drop_old()
        for jwt_authority in self._jwt_authorities.values():
            jwt_authority.drop_old()

    def issued(self, endpoint: WorkloadEndpoint) -> tuple[IssuedSvid, ...]:
        """Return the SVIDs of a socket, the default first."""
        return tuple(self._svids.get(endpoint, {}).values())

    def svid_message(self, endpoint: WorkloadEndpoint) -> bytes | None:
        """Return the response to `FetchX509SVID`; None without an identity."""
        svids = self._svids.get(endpoint)
        if not svids:
            return None
        own = self._domains(endpoint)
        federated = self._federated(own) - own
        entries = tuple(self._svid_entry(entry, svid) for entry, svid in svids.items())
        return encode_x509_svid_response(X509SvidResponse(entries, (), self._bundles(federated)))

    def bundles_message(self, endpoint: WorkloadEndpoint) -> bytes | None:
        """Return the response to `FetchX509Bundles`; None without an identity."""
        known = self._known(endpoint)
        return encode_x509_bundles_response(BundlesResponse(self._bundles(known))) if known else None

    def jwt_svids(
        self, endpoint: WorkloadEndpoint, audience: Sequence[str], wanted: SpiffeId | None, now: datetime
    ) -> tuple[JwtSvidEntry, ...]:
        """Issue a token for each identity of a socket, or for the requested one."""
        return tuple(
            JwtSvidEntry(str(entry.spiffe_id), self._issue_token(entry, audience, now), entry.hint)
            for entry in self._svids.get(endpoint, {})
            if wanted in (None, entry.spiffe_id)
        )

    def jwt_bundles_message(self, endpoint: WorkloadEndpoint) -> bytes | None:
        """Return the response to `FetchJWTBundles`; None without an identity."""
        known = self._known(endpoint)
        bundles = {str(SpiffeId(domain, "")): self._jwt_authorities[domain].bundle for domain in sorted(known)}
        return encode_jwt_bundles_response(bundles) if bundles else None

    def check_signature(self, endpoint: WorkloadEndpoint, token: Token, spiffe_id: SpiffeId) -> None:
        """Verify that the authority of its trust domain, whose bundle the socket has, signed the token; raises TokenError."""
        trust_domain = spiffe_id.trust_domain
        if trust_domain not in self._known(endpoint):
            raise TokenError(TokenFault.UNKNOWN_TRUST_DOMAIN, f'no keys found for trust domain "{trust_domain}"')
        self._jwt_authorities[trust_domain].check_signature(token)

    def _issue_token(self, entry: Entry, audience: Sequence[str], now: datetime) -> str:
        authority = self._jwt_authorities[entry.spiffe_id.trust_domain]
        return authority.issue(entry.spiffe_id, audience, now=now, ttl=self._issuing.jwt_ttl)

    def _issue(self, entry: Entry, now: datetime) -> IssuedSvid:
        return self.authority(entry.spiffe_id.trust_domain, now).issue(
            entry.spiffe_id, now=now, ttl=self._issuing.ttl, key_type=self._issuing.key_type, dns_names=entry.dns_names
        )

    def _domains(self, endpoint: WorkloadEndpoint) -> set[TrustDomain]:
        return {entry.spiffe_id.trust_domain for entry in self._svids.get(endpoint, {})}

    def _known(self, endpoint: WorkloadEndpoint) -> set[TrustDomain]:
        own = self._domains(endpoint)
        return own | self._federated(own)

    def _federated(self, own: set[TrustDomain]) -> set[TrustDomain]:
        return {domain for federation in self._federations if federation & own for domain in federation}

    def _bundle(self, trust_domain: TrustDomain) -> bytes:
        return encode_certificates(self._authorities[trust_domain].bundle)

    def _bundles(self, trust_domains: set[TrustDomain]) -> dict[str, bytes]:
        return {str(SpiffeId(domain, "")): self._bundle(domain) for domain in sorted(trust_domains)}

    def _svid_entry(self, entry: Entry, svid: IssuedSvid) -> SvidEntry:
        return SvidEntry(
            spiffe_id=str(entry.spiffe_id),
            x509_svid=svid.chain_der,
            x509_svid_key=svid.key_der,
            bundle=self._bundle(entry.spiffe_id.trust_domain),
            hint=entry.hint,
        )
