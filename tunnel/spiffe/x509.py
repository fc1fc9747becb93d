"""The rules of X509-SVID for single certificates: one function per rule, in tables for handshakes and for `svid verify`.

A leaf must satisfy every rule of X509-SVID. A trust anchor is only a name and a key (RFC 5280, 6.1.1 d), and an intermediate
follows RFC 5280, 6.1.4, because authorities in use are ordinary PKI and break the stricter rules of X509-SVID for signing
certificates. Those are in SIGNING_RULES, which handshakes do not check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from tunnel.errors import Denial, PeerDenied, SpiffeIdError
from tunnel.lazy_dataclass import dataclass
from tunnel.pkix.certificate import Certificate
from tunnel.pkix.extensions import ANY_PURPOSE, CLIENT_AUTH, SERVER_AUTH, KeyUsage
from tunnel.pkix.path import check_readable
from tunnel.pkix.strength import check_key_strength, check_signature_strength
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_spiffe_id

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_BOTH_SIDES = {SERVER_AUTH, CLIENT_AUTH}
_TLS_PURPOSES = {*_BOTH_SIDES, ANY_PURPOSE}
_OURS = "own rule"


@dataclass(frozen=True, slots=True)
class RuleInput:
    """The input of a rule: a certificate and, for an authority, the trust domain of the leaf."""

    certificate: Certificate
    signs_for: TrustDomain | None = None


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """A rule: its name, the section of the standard, and the function that raises PeerDenied if it is broken.

    `requires` is the name of the rule that must hold first; `needs_trust_domain` is whether it needs that of the leaf.
    """

    name: str
    section: str
    summary: str
    check: Callable[[RuleInput], object]
    requires: str = ""
    needs_trust_domain: bool = False


def read_extensions(certificate: Certificate, signs_for: TrustDomain | None = None) -> RuleInput:
    """Return the input for all rules if every extension that they read can be parsed; raises PeerDenied."""
    check_readable(certificate)
    certificate.extensions.uris()
    return RuleInput(certificate, signs_for)


def check_leaf(certificate: Certificate) -> SpiffeId:
    """Check every rule of a leaf (X509-SVID 2, 3.1, 4), and return its SPIFFE ID; raises PeerDenied."""
    reading = RuleInput(certificate)
    _check_rules((*LEAF_RULES, *NAME_RULES), reading)
    return _parse_workload_id(reading)


def check_intermediate(certificate: Certificate, trust_domain: TrustDomain) -> None:
    """Check that an intermediate may issue for `trust_domain` (RFC 5280, 6.1.4 k to n); raises PeerDenied."""
    _check_rules(INTERMEDIATE_RULES, RuleInput(certificate, trust_domain))


def check_anchor(certificate: Certificate) -> None:
    """Check that a certificate of a bundle can be a trust anchor (RFC 5280, 6.1.1 d); raises PeerDenied."""
    _check_rules(ANCHOR_RULES, RuleInput(certificate))


def _check_rules(rules: Iterable[CertificateRule], reading: RuleInput) -> None:
    for rule in rules:
        try:
            rule.check(reading)
        except PeerDenied as denied:
            raise PeerDenied(denied.reason, f"rule {rule.name}: {denied.seen}") from denied


def parse_leaf_id(certificate: Certificate) -> SpiffeId:
    """Return the SPIFFE ID in the only URI SAN of a leaf (X509-SVID 2, 5.2); raises PeerDenied."""
    return _parse_workload_id(RuleInput(certificate))


def _parse_workload_id(reading: RuleInput) -> SpiffeId:
    spiffe_id = _parse_only_id(reading)
    if not spiffe_id.is_workload():
        raise PeerDenied(Denial.ROOT_PATH, f"{spiffe_id} names a trust domain, not a workload")
    return spiffe_id


def _parse_only_id(reading: RuleInput) -> SpiffeId:
    try:
        return parse_spiffe_id(_only_uri(reading))
    except SpiffeIdError as error:
        raise PeerDenied(Denial.SPIFFE_ID, str(error)) from error


def _only_uri(reading: RuleInput) -> str:
    uris = reading.certificate.extensions.uris()
    if len(uris) != 1:
        raise PeerDenied(Denial.URI_SAN, f"the certificate has {len(uris)} URI SANs; expected 1")
    return uris[0]


def _check_leaf_is_no_authority(reading: RuleInput) -> None:
    constraints = reading.certificate.extensions.basic_constraints()
    if constraints is not None and constraints.is_ca:
        raise PeerDenied(Denial.LEAF_IS_CA, "the leaf is a CA certificate")


def _critical_usage(reading: RuleInput) -> KeyUsage:
    usage = reading.certificate.extensions.key_usage()
    if usage is None or not usage.is_critical:
        raise PeerDenied(Denial.KEY_USAGE, "key usage is absent or not critical")
    return usage


def _check_digital_signature(reading: RuleInput) -> None:
    if not _critical_usage(reading).digital_signature:
        raise PeerDenied(Denial.KEY_USAGE, "the leaf's key usage lacks digitalSignature")


def _check_leaf_signs_nothing(reading: RuleInput) -> None:
    usage = _critical_usage(reading)
    if usage.key_cert_sign or usage.crl_sign:
        raise PeerDenied(Denial.KEY_USAGE, "the leaf's key usage has keyCertSign or cRLSign")


def _check_extended_key_usage(reading: RuleInput) -> None:
    purposes = reading.certificate.extensions.purposes()
    if purposes is not None and not purposes >= _BOTH_SIDES:
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, "extended key usage lacks serverAuth or clientAuth")


def _check_is_authority(reading: RuleInput) -> None:
    constraints = reading.certificate.extensions.basic_constraints()
    if constraints is None or not constraints.is_ca:
        raise PeerDenied(Denial.NOT_CA, "a signing certificate needs basic constraints with cA TRUE")


def _check_may_be_authority(reading: RuleInput) -> None:
    constraints = reading.certificate.extensions.basic_constraints()
    if constraints is not None and not constraints.is_ca:
        raise PeerDenied(Denial.NOT_CA, "its basic constraints have cA FALSE")


def _check_signs_certificates(reading: RuleInput) -> None:
    usage = reading.certificate.extensions.key_usage()
    if usage is not None and not usage.key_cert_sign:
        raise PeerDenied(Denial.KEY_USAGE, "its key usage lacks keyCertSign")


def _check_key_usage_of_signer(reading: RuleInput) -> None:
    if not _critical_usage(reading).key_cert_sign:
        raise PeerDenied(Denial.KEY_USAGE, "its key usage lacks keyCertSign")


def _check_trust_domain(reading: RuleInput) -> None:
    """Refuse an intermediate of another trust domain: two trust domains may share a root, and differ only in this name."""
    for uri in reading.certificate.extensions.uris():
        try:
            domain = parse_spiffe_id(uri).trust_domain
        except SpiffeIdError:
            continue  # a URI that is not a SPIFFE ID
        if domain != reading.signs_for:
            raise PeerDenied(Denial.TRUST_DOMAIN, f"its SPIFFE ID is {uri!a}, but the leaf is of {reading.signs_for}")


def _check_authority_id(reading: RuleInput) -> None:
    uris = reading.certificate.extensions.uris()
    if uris and uris != (f"spiffe://{reading.signs_for}",):
        raise PeerDenied(Denial.TRUST_DOMAIN, f"its URI SAN is {uris[0]!a}; expected spiffe://{reading.signs_for}")


def _check_tls_purpose(reading: RuleInput) -> None:
    purposes = reading.certificate.extensions.purposes()
    if purposes and not purposes & _TLS_PURPOSES:
        raise PeerDenied(Denial.EXTENDED_KEY_USAGE, "its extended key usage has no TLS purpose")


def _check_critical(reading: RuleInput) -> None:
    reading.certificate.extensions.check_critical()


_CRITICAL_USAGE = CertificateRule("key-usage", "X509-SVID 4.3", "key usage is present and critical", _critical_usage)
_PURPOSES = CertificateRule(
    "extended-key-usage",
    "X509-SVID 4.4",
    "extended key usage is absent, or has both serverAuth and clientAuth",
    _check_extended_key_usage,
)
_KEY_STRENGTH = CertificateRule(
    "key-strength",
    _OURS,
    "the key is RSA of 2048 to 8192 bits, P-256, P-384, P-521, Ed25519 or Ed448",
    lambda reading: check_key_strength(reading.certificate),
)
_SIGNATURE_STRENGTH = CertificateRule(
    "signature-strength",
    _OURS,
    "it is signed with SHA-256, SHA-384 or SHA-512, Ed25519 or Ed448",
    lambda reading: check_signature_strength(reading.certificate),
)
_CRITICAL_EXTENSIONS = CertificateRule(
    "critical-extensions", "RFC 5280 4.2", "every critical extension is known", _check_critical
)
# In the order of the checks: cheap ones first.
LEAF_RULES = (
    CertificateRule(
        "no-authority", "X509-SVID 4.1", "cA is false, or basic constraints are absent", _check_leaf_is_no_authority
    ),
    _CRITICAL_USAGE,
    CertificateRule(
        "digital-signature", "X509-SVID 4.3", "key usage has digitalSignature", _check_digital_signature, "key-usage"
    ),
    CertificateRule(
        "signs-nothing",
        "X509-SVID 4.3",
        "key usage has neither keyCertSign nor cRLSign",
        _check_leaf_signs_nothing,
        "key-usage",
    ),
    _PURPOSES,
    _CRITICAL_EXTENSIONS,
    _KEY_STRENGTH,
    _SIGNATURE_STRENGTH,
)
# The steps of `parse_leaf_id`, each of which includes the previous one.
NAME_RULES = (
    CertificateRule("one-uri", "X509-SVID 2", "there is exactly one URI SAN", _only_uri),
    CertificateRule("spiffe-id", "SPIFFE-ID 2", "the URI is a SPIFFE ID", _parse_only_id, "one-uri"),
    CertificateRule("path", "X509-SVID 3.1", "the ID has a path, so it names a workload", _parse_workload_id, "spiffe-id"),
)
_SIGNS_CERTIFICATES = CertificateRule(
    "signs-certificates", "RFC 5280 6.1.4 n", "key usage is absent, or has keyCertSign", _check_signs_certificates
)
ANCHOR_RULES = (
    CertificateRule("authority", "RFC 5280 6.1.1 d", "basic constraints are absent, or cA is true", _check_may_be_authority),
    _SIGNS_CERTIFICATES,
    _KEY_STRENGTH,
)
INTERMEDIATE_RULES = (
    CertificateRule("authority", "RFC 5280 6.1.4 k", "cA is true", _check_is_authority),
    _SIGNS_CERTIFICATES,
    CertificateRule(
        "trust-domain",
        _OURS,
        "it has no SPIFFE ID, or one of the leaf's trust domain",
        _check_trust_domain,
        needs_trust_domain=True,
    ),
    CertificateRule("purpose", _OURS, "extended key usage is absent, or has a TLS purpose", _check_tls_purpose),
    _CRITICAL_EXTENSIONS,
    _KEY_STRENGTH,
    _SIGNATURE_STRENGTH,
)
# The stricter rules of X509-SVID for signing certificates, reported as warnings.
SIGNING_RULES = (
    CertificateRule(
        "signer-key-usage", "X509-SVID 4.3", "key usage is critical and has keyCertSign", _check_key_usage_of_signer
    ),
    CertificateRule(
        "signer-id",
        "X509-SVID 3.2",
        "it has no URI SAN, or the SPIFFE ID of the leaf's trust domain",
        _check_authority_id,
        needs_trust_domain=True,
    ),
    CertificateRule("signer-purposes", "X509-SVID 4.4", _PURPOSES.summary, _check_extended_key_usage),
)
