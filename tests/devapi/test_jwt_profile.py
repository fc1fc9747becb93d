"""The JWT calls of `tunnel dev`: statuses of an agent, new tokens, and key rotation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.api import JWT_BUNDLES, JWT_SVIDS, VALIDATE, DevWorkloadApi
from tunnel.devapi.jwt_authority import JwtAuthority
from tunnel.devapi.publisher import Refusal
from tunnel.errors import TokenError
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.jwks import parse_jwks
from tunnel.spiffe.jwt import Validation, check_token, parse_token
from tunnel.spiffe.messages import (
    HEADER,
    JwtSvidRequest,
    ValidateRequest,
    encode_jwt_svid_request,
    encode_validate_request,
    method_path,
    parse_jwt_bundles_response,
    parse_jwt_svid_response,
    parse_validate_response,
)

LIMIT = 60.0
X, Z = Entry(parse_spiffe_id("spiffe://a.test/x")), Entry(parse_spiffe_id("spiffe://a.test/z"), "inner")
Y = Entry(parse_spiffe_id("spiffe://b.test/y"))
Call = Callable[..., Any]


@pytest.fixture
def sockets(tmp_path: Path) -> tuple[WorkloadEndpoint, WorkloadEndpoint, WorkloadEndpoint]:
    here, there, empty = (WorkloadEndpoint(path=str(tmp_path / f"{name}.sock")) for name in ("here", "there", "empty"))
    return here, there, empty


@pytest.fixture
def api(sockets: tuple[WorkloadEndpoint, WorkloadEndpoint, WorkloadEndpoint], now: datetime) -> Iterator[DevWorkloadApi]:
    here, there, empty = sockets
    issuing = Issuing(jwt_ttl=timedelta(seconds=90))
    with DevWorkloadApi({here: [X, Z], there: [Y], empty: []}, issuing=issuing, clock=lambda: now) as api:
        yield api


@pytest.fixture
def call(sockets: tuple[WorkloadEndpoint, WorkloadEndpoint, WorkloadEndpoint]) -> Iterator[Call]:
    """Makes one call to a socket, `here` by default; returns the answer, or code and text."""
    with ExitStack() as channels:

        def asked(rpc: str, message: bytes = b"", at: int = 0, values: tuple[str, ...] = ("true",)) -> Any:
            channel = channels.enter_context(
                grpc.insecure_channel(f"unix:{sockets[at].path}", (("grpc.use_local_subchannel_pool", 1),))
            )
            metadata = [(HEADER[0], value) for value in values]
            try:
                return next(channel.unary_stream(method_path(rpc))(message, timeout=LIMIT, metadata=metadata))
            except grpc.RpcError as error:
                return error.code().name, error.details()  # type: ignore[attr-defined]

        yield asked


def request(*audience: str, spiffe_id: str = "") -> bytes:
    return encode_jwt_svid_request(JwtSvidRequest(audience, spiffe_id))


def keys(call: Call, at: int = 0) -> dict[str, list[str]]:
    bundles = parse_jwt_bundles_response(call(JWT_BUNDLES, at=at)).bundles
    return {domain: list(parse_jwks(document)) for domain, document in bundles.items()}


def test_each_identity_gets_a_token_like_that_of_spire(api: DevWorkloadApi, call: Call, now: datetime) -> None:
    entries = parse_jwt_svid_response(call(JWT_SVIDS, request("db", "web")))
    assert [(entry.spiffe_id, entry.hint) for entry in entries] == [("spiffe://a.test/x", ""), ("spiffe://a.test/z", "inner")]
    for entry in entries:
        parsed = parse_token(entry.svid)
        issued = int(now.timestamp())
        assert parsed.claims == {"sub": entry.spiffe_id, "aud": ["db", "web"], "exp": issued + 90, "iat": issued}
        assert parsed.header == {"alg": "ES256", "kid": keys(call)["spiffe://a.test"][0], "typ": "JWT"}
    chosen = parse_jwt_svid_response(call(JWT_SVIDS, request("db", spiffe_id="spiffe://a.test/z")))
    assert [entry.hint for entry in chosen] == ["inner"]


@pytest.mark.parametrize(
    ("message", "at", "code", "text"),
    [
        (request(), 0, "INVALID_ARGUMENT", "audience must be specified"),
        (request("db", spiffe_id="x"), 0, "INVALID_ARGUMENT", "invalid requested SPIFFE ID"),
        (request("db", spiffe_id="spiffe://b.test/y"), 0, "PERMISSION_DENIED", "no identity issued"),
        (request("db"), 2, "PERMISSION_DENIED", "no identity issued"),
        (b"\xff", 0, "INTERNAL", "unmarshalling"),
    ],
)
def test_a_fetch_is_refused_as_by_an_agent(
    message: bytes, at: int, code: str, text: str, api: DevWorkloadApi, call: Call, captured_status: Callable[[str], Any]
) -> None:
    answer = call(JWT_SVIDS, message, at)
    assert answer[0] == code
    assert text in answer[1]
    assert call(JWT_SVIDS, request()) == captured_status("jwt/no-audience")
    assert call(JWT_BUNDLES, at=2) == captured_status("no-identity/bundles")


@pytest.mark.parametrize("rpc", [JWT_SVIDS, JWT_BUNDLES, VALIDATE])
def test_the_header_must_be_there_exactly_once(rpc: str, api: DevWorkloadApi, call: Call) -> None:
    for values in ((), ("true", "true"), ("True",)):
        assert call(rpc, values=values) == ("INVALID_ARGUMENT", "security header missing from request")


def test_a_token_is_validated_if_the_socket_has_its_bundle(api: DevWorkloadApi, call: Call) -> None:
    (entry,) = parse_jwt_svid_response(call(JWT_SVIDS, request("db"), at=1))
    question = encode_validate_request(ValidateRequest("db", entry.svid))
    assert call(VALIDATE, question)[0] == "INVALID_ARGUMENT"
    api.federate(TrustDomain("a.test"), TrustDomain("b.test"))
    answer = parse_validate_response(call(VALIDATE, question))
    assert answer.spiffe_id == "spiffe://b.test/y"
    assert answer.claims == parse_token(entry.svid).claims
    assert set(keys(call)) == {"spiffe://a.test", "spiffe://b.test"}


def test_an_invalid_token_is_an_invalid_argument(api: DevWorkloadApi, call: Call) -> None:
    text = parse_jwt_svid_response(call(JWT_SVIDS, request("db")))[0].svid
    head, claims, signature = text.split(".")
    other = parse_jwt_svid_response(call(JWT_SVIDS, request("web")))[0].svid.split(".")
    for audience, token in {
        "": text,
        "web": text,
        "db": "",
        "db ": f"{head}.{claims}.{signature}",
        "db  ": "x",
    }.items():
        assert call(VALIDATE, encode_validate_request(ValidateRequest(audience, token)))[0] == "INVALID_ARGUMENT"
    for forged in (f"{head}.{other[1]}.{signature}", f"{head}.{claims}.{signature[:8]}", f"{head}.{claims}."):
        for audience in ("db", "web"):
            assert call(VALIDATE, encode_validate_request(ValidateRequest(audience, forged)))[0] == "INVALID_ARGUMENT"


def test_keys_rotate_with_the_authorities(api: DevWorkloadApi, call: Call) -> None:
    old = parse_jwt_svid_response(call(JWT_SVIDS, request("db")))[0].svid
    question = encode_validate_request(ValidateRequest("db", old))
    (first,) = keys(call)["spiffe://a.test"]
    api.prepare_authorities()
    assert len(keys(call)["spiffe://a.test"]) == 2
    assert parse_token(parse_jwt_svid_response(call(JWT_SVIDS, request("db")))[0].svid).header["kid"] == first
    api.activate_authorities()
    second = parse_token(parse_jwt_svid_response(call(JWT_SVIDS, request("db")))[0].svid).header["kid"]
    assert second != first
    assert isinstance(call(VALIDATE, question), bytes)
    api.drop_old_authorities()
    assert keys(call)["spiffe://a.test"] == [second]
    assert call(VALIDATE, question)[0] == "INVALID_ARGUMENT"


def test_a_withdrawn_socket_issues_no_token_and_an_answer_can_be_set(
    api: DevWorkloadApi, call: Call, sockets: tuple[WorkloadEndpoint, WorkloadEndpoint, WorkloadEndpoint]
) -> None:
    api.withdraw(sockets[0])
    assert call(JWT_SVIDS, request("db")) == ("PERMISSION_DENIED", "no identity issued")
    api.restore(sockets[0])
    api.publish(sockets[0], JWT_SVIDS, Refusal("UNAVAILABLE", "not now"))
    assert call(JWT_SVIDS, request("db")) == ("UNAVAILABLE", "not now")
    api.rotate_svids()
    assert parse_jwt_svid_response(call(JWT_SVIDS, request("db")))


def test_an_authority_signs_for_itself_only(now: datetime) -> None:
    one, other = JwtAuthority(), JwtAuthority()
    parsed = parse_token(one.issue(X.spiffe_id, ["db"], now=now, ttl=timedelta(seconds=60)))
    assert check_token(parsed, Validation("db", now.timestamp())) == X.spiffe_id
    one.check_signature(parsed)
    with pytest.raises(TokenError):
        other.check_signature(parsed)
