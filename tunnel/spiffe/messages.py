"""The messages of the Workload API (workloadapi.proto): parsers and encoders.

As in proto3, a missing field has its default, and of a repeated singular field or map key the last one counts. Private keys and
tokens are never part of a `repr`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunnel.lazy_dataclass import dataclass, field
from tunnel.spiffe import claims, protobuf
from tunnel.spiffe.selection import Offer

SERVICE = "SpiffeWorkloadAPI"  # the proto has no package, so this is the whole name
HEADER = ("workload.spiffe.io", "true")  # Workload Endpoint, section 4: exactly once on every call


def method_path(rpc: str) -> str:
    """Return the HTTP/2 path of an RPC."""
    return f"/{SERVICE}/{rpc}"


@dataclass(frozen=True, slots=True)
class SvidEntry:
    """`X509SVID`: certificates and key in DER."""

    spiffe_id: str = ""
    x509_svid: bytes = b""
    x509_svid_key: bytes = field(default=b"", repr=False)
    bundle: bytes = b""
    hint: str = ""

    @property
    def offer(self) -> Offer:
        """The SPIFFE ID and the hint."""
        return Offer(self.spiffe_id, self.hint)


@dataclass(frozen=True, slots=True)
class X509SvidResponse:
    """`X509SVIDResponse`: all X.509 identities of a workload."""

    svids: tuple[SvidEntry, ...] = ()
    crl: tuple[bytes, ...] = ()
    federated_bundles: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundlesResponse:
    """`X509BundlesResponse`, or `JWTBundlesResponse`, which has no CRLs."""

    bundles: Mapping[str, bytes] = field(default_factory=dict)
    crl: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class JwtSvidEntry:
    """`JWTSVID`; the token is a bearer secret."""

    spiffe_id: str = ""
    svid: str = field(default="", repr=False)
    hint: str = ""

    @property
    def offer(self) -> Offer:
        """The SPIFFE ID and the hint."""
        return Offer(self.spiffe_id, self.hint)


@dataclass(frozen=True, slots=True)
class JwtSvidRequest:
    """`JWTSVIDRequest`: the audience of the token, and its SPIFFE ID, or all identities if empty."""

    audience: tuple[str, ...] = ()
    spiffe_id: str = ""


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """`ValidateJWTSVIDRequest`: a token and the audience that validates it."""

    audience: str = ""
    svid: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ValidateResponse:
    """`ValidateJWTSVIDResponse`: the SPIFFE ID and the claims of a token."""

    spiffe_id: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)


def parse_x509_svid_response(data: bytes) -> X509SvidResponse:
    """Parse the response to `FetchX509SVID`; raises WireError."""
    svids, crl, federated = [], [], {}
    for number, value in protobuf.parse_fields(data):
        if number == 1:
            svids.append(_parse_svid(value))
        elif number == 2:
            crl.append(value)
        elif number == 3:
            key, bundle = protobuf.parse_map_entry(value)
            federated[key] = bundle
    return X509SvidResponse(tuple(svids), tuple(crl), federated)


def parse_x509_bundles_response(data: bytes) -> BundlesResponse:
    """Parse the response to `FetchX509Bundles`; raises WireError."""
    crl, bundles = [], {}
    for number, value in protobuf.parse_fields(data):
        if number == 1:
            crl.append(value)
        elif number == 2:
            key, bundle = protobuf.parse_map_entry(value)
            bundles[key] = bundle
    return BundlesResponse(bundles, tuple(crl))


def parse_jwt_bundles_response(data: bytes) -> BundlesResponse:
    """Parse the response to `FetchJWTBundles`, JWKS documents by trust domain; raises WireError."""
    return BundlesResponse(dict(protobuf.parse_map_entry(value) for n, value in protobuf.parse_fields(data) if n == 1))


def parse_jwt_svid_response(data: bytes) -> tuple[JwtSvidEntry, ...]:
    """Parse the response to `FetchJWTSVID`; raises WireError."""
    return tuple(_parse_jwt_svid(value) for number, value in protobuf.parse_fields(data) if number == 1)


def parse_jwt_svid_request(data: bytes) -> JwtSvidRequest:
    """Parse the request of `FetchJWTSVID`; raises WireError."""
    audience, spiffe_id = [], ""
    for number, value in protobuf.parse_fields(data):
        if number == 1:
            audience.append(protobuf.parse_text(value))
        elif number == 2:
            spiffe_id = protobuf.parse_text(value)
    return JwtSvidRequest(tuple(audience), spiffe_id)


def parse_validate_request(data: bytes) -> ValidateRequest:
    """Parse the request of `ValidateJWTSVID`; raises WireError."""
    fields = dict(protobuf.parse_fields(data))
    return ValidateRequest(*(protobuf.parse_text(fields.get(number, b"")) for number in (1, 2)))


def parse_validate_response(data: bytes) -> ValidateResponse:
    """Parse the response to `ValidateJWTSVID`; raises WireError."""
    fields = dict(protobuf.parse_fields(data))
    return ValidateResponse(protobuf.parse_text(fields.get(1, b"")), claims.parse_struct(fields.get(2, b"")))


def encode_jwt_svid_request(request: JwtSvidRequest) -> bytes:
    """Encode the request of `FetchJWTSVID`."""
    audience = b"".join(protobuf.encode_message(1, name.encode()) for name in request.audience)
    return audience + protobuf.encode_field(2, request.spiffe_id)


def encode_jwt_svid_response(svids: Iterable[JwtSvidEntry]) -> bytes:
    """Encode the response to `FetchJWTSVID`."""
    return b"".join(protobuf.encode_message(1, _encode_texts(svid.spiffe_id, svid.svid, svid.hint)) for svid in svids)


def encode_jwt_bundles_response(bundles: Mapping[str, bytes]) -> bytes:
    """Encode the response to `FetchJWTBundles`."""
    return protobuf.encode_map(1, bundles.items())


def encode_validate_request(request: ValidateRequest) -> bytes:
    """Encode the request of `ValidateJWTSVID`."""
    return _encode_texts(request.audience, request.svid)


def encode_validate_response(response: ValidateResponse) -> bytes:
    """Encode the response to `ValidateJWTSVID`."""
    return protobuf.encode_field(1, response.spiffe_id) + protobuf.encode_message(2, claims.encode_struct(response.claims))


def encode_x509_svid_response(response: X509SvidResponse) -> bytes:
    """Encode the response to `FetchX509SVID`."""
    svids = b"".join(protobuf.encode_message(1, _encode_svid(svid)) for svid in response.svids)
    crl = b"".join(protobuf.encode_message(2, item) for item in response.crl)
    return svids + crl + protobuf.encode_map(3, response.federated_bundles.items())


def encode_x509_bundles_response(response: BundlesResponse) -> bytes:
    """Encode the response to `FetchX509Bundles`."""
    crl = b"".join(protobuf.encode_message(1, item) for item in response.crl)
    return crl + protobuf.encode_map(2, response.bundles.items())


def _parse_svid(data: bytes) -> SvidEntry:
    fields = dict(protobuf.parse_fields(data))
    return SvidEntry(
        spiffe_id=protobuf.parse_text(fields.get(1, b"")),
        x509_svid=fields.get(2, b""),
        x509_svid_key=fields.get(3, b""),
        bundle=fields.get(4, b""),
        hint=protobuf.parse_text(fields.get(5, b"")),
    )


def _parse_jwt_svid(data: bytes) -> JwtSvidEntry:
    fields = dict(protobuf.parse_fields(data))
    spiffe_id, svid, hint = (protobuf.parse_text(fields.get(number, b"")) for number in (1, 2, 3))
    return JwtSvidEntry(spiffe_id, svid, hint)


def _encode_svid(svid: SvidEntry) -> bytes:
    return _encode_texts(svid.spiffe_id, svid.x509_svid, svid.x509_svid_key, svid.bundle, svid.hint)


def _encode_texts(*values: str | bytes) -> bytes:
    """Encode fields with the numbers 1, 2, 3 and so on."""
    return b"".join(protobuf.encode_field(number, value) for number, value in enumerate(values, 1))
