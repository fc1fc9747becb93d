"""A temporary X.509 authority of one trust domain, with rotation in three steps."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tunnel.devapi.certificates import (
    IssuedKey,
    as_authority,
    as_leaf,
    authority_name,
    encode_certificates,
    leaf_name,
    make_key,
    make_serial,
    sign,
    start_certificate,
)
from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe.ids import SpiffeId, TrustDomain


@dataclass(frozen=True)
class IssuedSvid:
    """An X.509-SVID with its key."""

    spiffe_id: SpiffeId
    chain: tuple[x509.Certificate, ...]  # leaf first, then intermediates
    private_key: IssuedKey = field(repr=False)

    @property
    def chain_der(self) -> bytes:
        """The certificates as concatenated DER, the form of the Workload API."""
        return encode_certificates(self.chain)

    @property
    def chain_pem(self) -> bytes:
        """The certificates as PEM."""
        return encode_certificates(self.chain, Encoding.PEM)

    @property
    def key_der(self) -> bytes:
        """The key as PKCS#8, unencrypted."""
        return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    @property
    def key_pem(self) -> bytes:
        """The key as PKCS#8 in PEM, unencrypted."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class _Signer:
    """One generation of the authority: the anchor in the bundle and the signing key."""

    anchor: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]  # part of every SVID
    key: IssuedKey = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate:
        return self.intermediates[0] if self.intermediates else self.anchor


class Authority:
    """Signs for one trust domain; a rotation is `prepare`, `activate`, `drop_old`."""

    def __init__(
        self,
        trust_domain: TrustDomain,
        *,
        now: datetime,
        ttl: timedelta,
        has_intermediate: bool = False,
        subject: x509.Name | None = None,
        key_type: str = "ec-p256",
    ) -> None:
        """`subject` is the name of every anchor; by default, as in SPIRE, each name contains a serial number."""
        self.trust_domain = trust_domain
        self._ttl = ttl
        self._has_intermediate = has_intermediate
        self._subject = subject
        self._key_type = key_type
        self._old: tuple[_Signer, ...] = ()
        self._current = self._make_signer(now)
        self._prepared: _Signer | None = None

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """The trust anchors, oldest first: old ones that are not dropped, current, prepared."""
        prepared = (self._prepared,) if self._prepared else ()
        return tuple(signer.anchor for signer in (*self._old, self._current, *prepared))

    def issue(
        self,
        spiffe_id: SpiffeId,
        *,
        now: datetime,
        ttl: timedelta,
        key_type: str = "ec-p256",
        dns_names: tuple[str, ...] = (),
    ) -> IssuedSvid:
        """Issue an SVID by the current authority; it does not expire after it."""
        signer = self._current
        issuer = signer.certificate
        end = min(now + ttl, issuer.not_valid_after_utc)
        builder = as_leaf(start_certificate(leaf_name(dns_names), issuer.subject, now, end)).serial_number(make_serial())
        key = make_key(key_type)
        leaf = sign(builder, key, signer.key, [*map(x509.DNSName, dns_names), _uri(spiffe_id)])
        return IssuedSvid(spiffe_id, (leaf, *signer.intermediates), key)

    def prepare(self, now: datetime) -> None:
        """Add the next authority to the bundle; it does not sign yet."""
        self._prepared = self._make_signer(now)

    def activate(self) -> None:
        """Sign with the prepared authority; the previous one stays in the bundle."""
        assert self._prepared is not None, "prepare comes before activate"
        self._old = (*self._old, self._current)
        self._current, self._prepared = self._prepared, None

    def drop_old(self) -> None:
        """Remove the old authorities from the bundle."""
        self._old = ()

    def _make_signer(self, now: datetime) -> _Signer:
        serial = make_serial()
        name = self._subject or authority_name(serial)
        builder = as_authority(start_certificate(name, name, now, now + self._ttl)).serial_number(serial)
        # As in captured chains, an upstream root has no SPIFFE ID.
        names = [] if self._has_intermediate else [self._own_name()]
        key = make_key(self._key_type)
        root = _Signer(sign(builder, key, key, names), (), key)
        return self._make_intermediate(root, now) if self._has_intermediate else root

    def _make_intermediate(self, root: _Signer, now: datetime) -> _Signer:
        name, end = authority_name(make_serial()), root.anchor.not_valid_after_utc
        builder = as_authority(start_certificate(name, root.anchor.subject, now, end)).serial_number(make_serial())
        key = make_key(self._key_type)
        return _Signer(root.anchor, (sign(builder, key, root.key, [self._own_name()]),), key)

    def _own_name(self) -> x509.GeneralName:
        return _uri(SpiffeId(self.trust_domain, ""))


def _uri(spiffe_id: SpiffeId) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(str(spiffe_id))
