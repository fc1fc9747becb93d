"""Selection and verification of the content of an X.509 update (Workload API, section 5; X509-SVID, sections 2 to 5).

Only the selected SVID is verified. An invalid part that is not needed is skipped: another SVID, a certificate of a
bundle, or a federated bundle (then no peer of its trust domain is trusted).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tunnel.errors import Denial, IdentityError, IdentityFault, PeerDenied, SpiffeIdError, WireError
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.pkix.certificate import Certificate, parse_certificate, parse_certificates
from tunnel.pkix.crl import RevocationList, parse_revocation_list
from tunnel.pkix.der import split_sequences
from tunnel.pkix.revocation import MAX_LISTS
from tunnel.pkix.strength import read_public_key
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id, parse_trust_domain
from tunnel.spiffe.messages import BundlesResponse, SvidEntry, X509SvidResponse
from tunnel.spiffe.selection import Offer, Selection
from tunnel.spiffe.x509 import PrivateKey
from tunnel.tls.verify import SpiffeVerifier

_ANY = Selection()
MAX_BUNDLE_BYTES = 4 * 1024 * 1024  # per trust domain; the gRPC channel limits the whole message
MAX_HINT_BYTES = 1024  # Workload API 5.2.1

Valid = list[tuple[SvidEntry, X509Svid]]
Invalid = list[tuple[SvidEntry, IdentityError]]


def accept_update(
    response: X509SvidResponse,
    now: datetime,
    selection: Selection = _ANY,
    current: X509Svid | None = None,
    *,
    wants_all: bool = False,
) -> X509Context:
    """Return the selected SVID of a response, verified as a peer would verify it, and the bundles.

    The entries that match `selection` are verified in order until one is valid; with `wants_all` every entry is verified. The
    order of an agent's list is arbitrary, so the ID of `current` is preferred while it is offered: if its new SVID is invalid,
    the update is rejected for as long as `current` is valid. Raises IdentityError if the update is empty, or if entries match
    `selection` and none of them is valid.
    """
    if not response.svids:
        raise IdentityError(IdentityFault.NO_SVID, "the update contains no SVID")
    wanted = [entry for entry in response.svids if selection.is_met_by(entry.offer)]
    if current is not None:
        wanted.sort(key=lambda entry: entry.spiffe_id != str(current.spiffe_id))
    kept = str(current.spiffe_id) if current is not None and now <= current.not_after else None
    bundles, notes = _read_bundles(response, wanted)
    lists, failures = _read_lists(response.crl)
    valid, invalid = _verify_entries(response.svids if wants_all else wanted, bundles, now, kept, wants_all=wants_all)
    svid = next((svid for entry, svid in valid if selection.is_met_by(entry.offer)), None)
    if svid is None and wanted:
        raise next(error for entry, error in invalid if selection.is_met_by(entry.offer))
    return X509Context(
        svid,
        bundles,
        offered=tuple(entry.offer for entry in response.svids),
        svids=tuple(svid for _entry, svid in valid),
        skipped=tuple(f"{error.reason.value}: {error}" for _entry, error in invalid),
        notes=(*notes, *failures),
        lists=lists,
        skipped_lists=len(failures),
    )


# -- SVIDs


def _verify_entries(
    entries: Iterable[SvidEntry], bundles: BundleSet, now: datetime, kept: str | None, *, wants_all: bool
) -> tuple[Valid, Invalid]:
    """Verify entries up to the first valid one, or up to the last one with the ID `kept`; all of them with `wants_all`."""
    verifier = SpiffeVerifier(bundles)
    valid: Valid = []
    invalid: Invalid = []
    for entry in entries:
        is_over = valid or (invalid and invalid[0][0].spiffe_id == kept != entry.spiffe_id)
        if is_over and not wants_all:
            break
        try:
            valid.append((entry, _accept_entry(entry, bundles, verifier, now)))
        except IdentityError as error:
            invalid.append((entry, error))
    return valid, invalid


def _accept_entry(entry: SvidEntry, bundles: BundleSet, verifier: SpiffeVerifier, now: datetime) -> X509Svid:
    chain = _read_chain(entry)
    key = _read_key(entry, chain[0])
    if (trouble := bundles.disabled.get(parse_spiffe_id(entry.spiffe_id).trust_domain)) is not None:
        raise IdentityError(IdentityFault.BAD_BUNDLE, f"SVID {entry.spiffe_id!a}: {trouble}")
    try:
        verified = verifier.verify(chain, now)
    except PeerDenied as error:
        begins = max(one.not_before for one in chain)  # otherwise an authority is not yet valid
        is_early = error.reason is Denial.NOT_YET_VALID and begins > now
        raise IdentityError(
            IdentityFault.UNVERIFIED, f"SVID {entry.spiffe_id!a}: {error}", begins if is_early else None
        ) from error
    spiffe_id = verified.spiffe_id
    if spiffe_id is None or str(spiffe_id) != entry.spiffe_id:
        raise IdentityError(IdentityFault.WRONG_ID, f"SVID {entry.spiffe_id!a}: its certificate is for {spiffe_id}")
    return X509Svid(spiffe_id, entry.hint, chain, key, verified.not_after)


def _read_chain(entry: SvidEntry) -> tuple[Certificate, ...]:
    check_hint(entry.offer)
    mandatory = {
        "spiffe_id": entry.spiffe_id,
        "x509_svid": entry.x509_svid,
        "x509_svid_key": entry.x509_svid_key,
        "bundle": entry.bundle,
    }
    missing = [name for name, value in mandatory.items() if not value]
    if missing:
        raise IdentityError(IdentityFault.INCOMPLETE, f"SVID {entry.spiffe_id!a}: missing {', '.join(missing)}")
    try:
        parse_spiffe_id(entry.spiffe_id)
        return parse_certificates(entry.x509_svid)
    except SpiffeIdError as error:
        raise IdentityError(IdentityFault.WRONG_ID, f"SVID {entry.spiffe_id!a}: {error}") from error
    except WireError as error:
        raise IdentityError(IdentityFault.BAD_CERTIFICATE, f"SVID {entry.spiffe_id!a}: {error}") from error


def check_hint(offer: Offer) -> None:
    """Raise IdentityError for a hint that is too long (Workload API 5.2.1)."""
    if len(offer.hint.encode()) > MAX_HINT_BYTES:
        raise IdentityError(IdentityFault.OVER_LIMIT, f"SVID {offer.spiffe_id!a}: hint of over {MAX_HINT_BYTES} bytes")


def _read_key(entry: SvidEntry, leaf: Certificate) -> PrivateKey:
    """Parse the PKCS#8 key, which must match the leaf; an error contains no key material."""
    try:
        key = load_der_private_key(entry.x509_svid_key, None)
        fits = key.public_key() == read_public_key(leaf.key_info)
    except (ValueError, TypeError, UnsupportedAlgorithm, PeerDenied):
        raise IdentityError(IdentityFault.BAD_KEY, f"SVID {entry.spiffe_id!a}: unreadable private key") from None
    if not isinstance(key, PrivateKey):
        raise IdentityError(IdentityFault.BAD_KEY, f"SVID {entry.spiffe_id!a}: unsupported type of private key")
    if not fits:
        raise IdentityError(IdentityFault.BAD_KEY, f"SVID {entry.spiffe_id!a}: the private key does not match the certificate")
    return key


# -- revocation lists


def _read_lists(blobs: Sequence[bytes]) -> tuple[tuple[RevocationList, ...], tuple[str, ...]]:
    """Return the lists of known issuers, and why others were skipped or are not used."""
    lists: dict[RevocationList, None] = {}
    failures = []
    if len(blobs) > MAX_LISTS:
        failures.append(f"{len(blobs) - MAX_LISTS} revocation lists skipped: more than {MAX_LISTS}")
    for number, blob in enumerate(blobs[:MAX_LISTS], 1):
        try:
            found = parse_revocation_list(blob)
        except WireError as error:
            failures.append(f"revocation list {number} of {len(blobs)} skipped: {error}")
            continue
        lists[found] = None  # an unusable one too: the certificates of its issuer are refused
        if found.problem:
            failures.append(f"revocation list of {found.issuer.describe()!a} not used: {found.problem}")
    return tuple(lists), tuple(failures)


# -- bundles


def accept_bundles(response: BundlesResponse) -> BundleSet:
    """Return the bundles of a `FetchX509Bundles` response; a bundle that cannot be parsed disables its trust domain only."""
    return _Bundles().add_federated(response.bundles.items()).as_set()


def _read_bundles(response: X509SvidResponse, wanted: Iterable[SvidEntry]) -> tuple[BundleSet, tuple[str, ...]]:
    """Parse the bundles of the SVIDs and the federated ones.

    An agent repeats the bundle in every SVID of a trust domain: the one of a selected SVID takes precedence.
    """
    bundles = _Bundles()
    for entry in (*wanted, *response.svids):
        with suppress(SpiffeIdError):
            bundles.add_own(parse_spiffe_id(entry.spiffe_id).trust_domain, entry.bundle)
    bundles.add_federated(response.federated_bundles.items())
    return bundles.as_set(), tuple(bundles.notes)


class _Bundles:
    """The bundles of a message while it is parsed; a federated bundle never replaces one that came with an SVID."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._own: set[TrustDomain] = set()
        self._read: dict[TrustDomain, TrustBundle] = {}
        self._disabled: dict[TrustDomain, str] = {}

    def as_set(self) -> BundleSet:
        return BundleSet(self._read, self._disabled)

    def add_own(self, trust_domain: TrustDomain, blob: bytes) -> None:
        if trust_domain not in self._own:
            self._own.add(trust_domain)
            self._add(trust_domain, blob)

    def add_federated(self, blobs: Iterable[tuple[str, bytes]]) -> _Bundles:
        for name, blob in blobs:
            try:
                trust_domain = parse_trust_domain(name)
            except SpiffeIdError as error:
                self.notes.append(f"federated bundle skipped: {error}")
                continue
            if trust_domain not in self._own:
                self._add(trust_domain, blob)
        return self

    def _add(self, trust_domain: TrustDomain, blob: bytes) -> None:
        try:
            if trust_domain in self._read or trust_domain in self._disabled:  # by SPIFFE ID and by name: no precedence
                raise IdentityError(IdentityFault.BAD_BUNDLE, f"two bundles for {trust_domain}")
            self._read[trust_domain] = TrustBundle(trust_domain, tuple(self._parse(trust_domain, blob)))
        except IdentityError as error:
            self._read.pop(trust_domain, None)
            self._disabled[trust_domain] = str(error)
            self.notes.append(f"bundle of {trust_domain} skipped, no peer of this trust domain is trusted: {error}")

    def _parse(self, trust_domain: TrustDomain, blob: bytes) -> Iterator[Certificate]:
        """Yield its authorities, skipping unreadable ones; raises IdentityError if every one is unreadable."""
        if len(blob) > MAX_BUNDLE_BYTES:
            raise IdentityError(IdentityFault.OVER_LIMIT, f"the bundle of {trust_domain} is over {MAX_BUNDLE_BYTES} bytes")
        try:
            ders = split_sequences(blob)
        except WireError as error:
            raise IdentityError(IdentityFault.BAD_BUNDLE, f"the bundle of {trust_domain}: {error}") from error
        failures = []
        for number, der in enumerate(ders, 1):
            try:
                yield parse_certificate(der)
            except WireError as error:
                failures.append(f"certificate {number} of {len(ders)} in the bundle of {trust_domain}: {error}")
        if failures and len(failures) == len(ders):
            raise IdentityError(IdentityFault.BAD_BUNDLE, failures[0])
        self.notes += [f"authority skipped: {failure}" for failure in failures]
