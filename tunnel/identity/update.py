"""From a message of the Workload API to an update that can be used: whole, or not at all.

Knows what makes an update acceptable (Workload API, section 5; X509-SVID, sections 2 to 5); must not know streams or
time-outs. Only a federated bundle that cannot be read is left out by itself: its trust domain is then trusted by nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tunnel.errors import IdentityError, IdentityFault, PeerDenied, SpiffeIdError, WireError
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id, parse_trust_domain
from tunnel.spiffe.messages import BundlesResponse, JwtSvidEntry, SvidEntry, X509SvidResponse
from tunnel.spiffe.x509 import PrivateKey, parse_certificates
from tunnel.tls.verify import SpiffeVerifier

# What an update may hold: far above any that was seen, far below what would hurt.
MAX_SVIDS = 100
MAX_BUNDLES = 2000
MAX_BUNDLE_BYTES = 4 * 1024 * 1024
MAX_HINT_BYTES = 1024  # Workload API 5.2.1

Hinted = TypeVar("Hinted", SvidEntry, JwtSvidEntry)
Read = tuple[SvidEntry, tuple[x509.Certificate, ...], PrivateKey, TrustDomain]


def accept_update(response: X509SvidResponse, now: datetime) -> X509Context:
    """The update that `response` holds, each SVID verified as a peer would; raises IdentityError."""
    _check_limits(response)
    entries = [_read_entry(entry) for entry in without_repeated_hints(response.svids)]
    bundles, notes = _read_bundles(response, entries)
    verifier = SpiffeVerifier(bundles)
    svids = tuple(_verify(verifier, entry, now) for entry in entries)
    return X509Context(svids, bundles, notes, len(response.crl))


def _check_limits(response: X509SvidResponse) -> None:
    if not response.svids:
        raise IdentityError(IdentityFault.NO_SVID, "the update holds no SVID")
    if len(response.svids) > MAX_SVIDS:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{len(response.svids)} SVIDs, at most {MAX_SVIDS} are taken")
    _check_bundle_count(response.federated_bundles)
    if any(len(svid.hint.encode()) > MAX_HINT_BYTES for svid in response.svids):
        raise IdentityError(IdentityFault.OVER_LIMIT, f"a hint is longer than {MAX_HINT_BYTES} bytes")


def _check_bundle_count(bundles: Collection[str]) -> None:
    if len(bundles) > MAX_BUNDLES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"{len(bundles)} bundles, at most {MAX_BUNDLES} are taken")


def without_repeated_hints(svids: Iterable[Hinted]) -> list[Hinted]:
    """The first of those that share a hint (Workload API 5.2.1)."""
    seen: set[str] = set()
    kept = []
    for svid in svids:
        if not svid.hint or svid.hint not in seen:
            kept.append(svid)
        seen.add(svid.hint)
    return kept


def _read_entry(entry: SvidEntry) -> Read:
    mandatory = {
        "spiffe_id": entry.spiffe_id,
        "x509_svid": entry.x509_svid,
        "x509_svid_key": entry.x509_svid_key,
        "bundle": entry.bundle,
    }
    missing = [name for name, value in mandatory.items() if not value]
    if missing:
        raise IdentityError(IdentityFault.INCOMPLETE, f"an SVID lacks {', '.join(missing)}")
    try:
        chain = parse_certificates(entry.x509_svid)
        trust_domain = parse_spiffe_id(entry.spiffe_id).trust_domain
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"SVID {entry.spiffe_id!a}: {error}") from error
    except SpiffeIdError as error:
        raise IdentityError(IdentityFault.WRONG_ID, f"SVID {entry.spiffe_id!a}: {error}") from error
    return entry, chain, _read_key(entry, chain[0]), trust_domain


def _read_key(entry: SvidEntry, leaf: x509.Certificate) -> PrivateKey:
    """The key in PKCS#8, which must be that of the leaf; what is wrong with it is said without a byte of it."""
    try:
        key = load_der_private_key(entry.x509_svid_key, None)
        fits = key.public_key() == leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(IdentityFault.BAD_KEY, f"SVID {entry.spiffe_id!a}: its private key cannot be read") from None
    if not isinstance(key, PrivateKey):
        raise IdentityError(IdentityFault.BAD_KEY, f"SVID {entry.spiffe_id!a}: a kind of key that signs no TLS handshake")
    if not fits:
        raise IdentityError(IdentityFault.BAD_KEY, f"SVID {entry.spiffe_id!a}: its private key is another certificate's")
    return key


def accept_bundles(response: BundlesResponse) -> BundleSet:
    """The bundles that a response to `FetchX509Bundles` holds; raises IdentityError for too many of them."""
    _check_bundle_count(response.bundles)
    return _read_others({}, response.bundles)[0]


def _read_bundles(response: X509SvidResponse, entries: Iterable[Read]) -> tuple[BundleSet, tuple[str, ...]]:
    """Each trust domain's bundle by itself; our own is never replaced by one that comes as a federated one."""
    own = {domain: _read_bundle(domain, entry.bundle) for entry, _chain, _key, domain in entries}
    return _read_others(own, response.federated_bundles)


def _read_others(own: Mapping[TrustDomain, TrustBundle], others: Mapping[str, bytes]) -> tuple[BundleSet, tuple[str, ...]]:
    bundles = dict(own)
    disabled: dict[TrustDomain, str] = {}
    notes = []
    for name, blob in others.items():
        try:
            trust_domain = parse_trust_domain(name)
        except SpiffeIdError as error:
            notes.append(f"a federated bundle is left out: {error}")
            continue
        if trust_domain in own:
            continue
        try:
            if trust_domain in bundles or trust_domain in disabled:  # by its ID and by its bare name: neither is the better one
                raise IdentityError(IdentityFault.BAD_BUNDLE, f"two bundles of {trust_domain}")
            bundles[trust_domain] = _read_bundle(trust_domain, blob)
        except IdentityError as error:
            bundles.pop(trust_domain, None)
            disabled[trust_domain] = str(error)
            notes.append(f"trust domain {trust_domain} is trusted by nobody: {error}")
    return BundleSet(bundles, disabled), tuple(notes)


def _read_bundle(trust_domain: TrustDomain, blob: bytes) -> TrustBundle:
    if len(blob) > MAX_BUNDLE_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"the bundle of {trust_domain} is over {MAX_BUNDLE_BYTES} bytes")
    try:
        return TrustBundle(trust_domain, parse_certificates(blob))
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_BUNDLE, f"the bundle of {trust_domain}: {error}") from error


def _verify(verifier: SpiffeVerifier, read: Read, now: datetime) -> X509Svid:
    entry, chain, key, _trust_domain = read
    try:
        verified = verifier.verify(chain, now)
    except PeerDenied as error:
        raise IdentityError(IdentityFault.UNVERIFIED, f"SVID {entry.spiffe_id!a}: {error}") from error
    spiffe_id = verified.spiffe_id
    if spiffe_id is None or str(spiffe_id) != entry.spiffe_id:
        raise IdentityError(IdentityFault.WRONG_ID, f"SVID {entry.spiffe_id!a} comes with a certificate for {spiffe_id}")
    return X509Svid(spiffe_id, entry.hint, chain, key, verified.not_after)
