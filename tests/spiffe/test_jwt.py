"""The rules of JWT-SVID except the signature: one token per rule that breaks only this rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import spire_captures
from tests.support.jwt_factory import ABSENT, NOW, jwk, jwks, token
from tunnel.errors import IdentityError, TokenError, TokenFault
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.jwks import JwtBundles, parse_jwks
from tunnel.spiffe.jwt import (
    ALGORITHMS,
    MAX_TOKEN_BYTES,
    RULES,
    Validation,
    check_token,
    encode_part,
    parse_json,
    parse_token,
)
from tunnel.spiffe.messages import parse_jwt_bundles_response, parse_jwt_svid_response

VALIDATION = Validation("db", NOW)


def raw(header: str, claims: str = '{"sub":"spiffe://a.test/w"}', signature: str = "AA") -> str:
    return f"{encode_part(header.encode())}.{encode_part(claims.encode())}.{signature}"


BAD_TOKENS: dict[str, tuple[Callable[[], str], str, TokenFault]] = {
    "alg none": (lambda: token(header={"alg": "none"}), "alg", TokenFault.ALGORITHM),
    "alg None": (lambda: token(header={"alg": "NONE"}), "alg", TokenFault.ALGORITHM),
    "alg HS256": (lambda: token(header={"alg": "HS256"}), "alg", TokenFault.ALGORITHM),
    "alg EdDSA": (lambda: token(header={"alg": "EdDSA"}), "alg", TokenFault.ALGORITHM),
    "alg es256": (lambda: token(header={"alg": "es256"}), "alg", TokenFault.ALGORITHM),
    "no alg": (lambda: token(header={"alg": ABSENT}), "alg", TokenFault.ALGORITHM),
    "alg is a list": (lambda: token(header={"alg": ["ES256"]}), "alg", TokenFault.ALGORITHM),
    "typ JWE": (lambda: token(header={"typ": "JWE"}), "typ", TokenFault.TYPE),
    "typ jwt": (lambda: token(header={"typ": "jwt"}), "typ", TokenFault.TYPE),
    "typ null": (lambda: token(header={"typ": None}), "typ", TokenFault.TYPE),
    "jku": (lambda: token(header={"jku": "https://evil.test/"}), "header", TokenFault.HEADER),
    "crit": (lambda: token(header={"crit": ["b64"]}), "header", TokenFault.HEADER),
    "no kid": (lambda: token(header={"kid": ABSENT}), "kid", TokenFault.KEY_ID),
    "empty kid": (lambda: token(header={"kid": ""}), "kid", TokenFault.KEY_ID),
    "kid is a number": (lambda: token(header={"kid": 1}), "kid", TokenFault.KEY_ID),
    "no sub": (lambda: token(sub=ABSENT), "sub", TokenFault.SUBJECT),
    "sub is a name": (lambda: token(sub="alice"), "sub", TokenFault.SUBJECT),
    "sub is a list": (lambda: token(sub=["spiffe://a.test/w"]), "sub", TokenFault.SUBJECT),
    "sub without path": (lambda: token(sub="spiffe://a.test"), "sub", TokenFault.SUBJECT),
    "no aud": (lambda: token(aud=ABSENT), "aud", TokenFault.AUDIENCE),
    "aud is empty": (lambda: token(aud=[]), "aud", TokenFault.AUDIENCE),
    "aud of another": (lambda: token(aud=["web", "DB"]), "aud", TokenFault.AUDIENCE),
    "aud is a longer name": (lambda: token(aud="dbs"), "aud", TokenFault.AUDIENCE),
    "aud holds a number": (lambda: token(aud=["db", 1]), "aud", TokenFault.AUDIENCE),
    "no exp": (lambda: token(exp=ABSENT), "exp", TokenFault.EXPIRY),
    "exp is text": (lambda: token(exp=str(int(NOW) + 60)), "exp", TokenFault.EXPIRY),
    "exp is true": (lambda: token(exp=True), "exp", TokenFault.EXPIRY),
    "exp is more than a double holds": (lambda: token(exp=10**400), "exp", TokenFault.EXPIRY),
    "exp is now": (lambda: token(exp=NOW), "exp", TokenFault.EXPIRED),
    "exp long ago": (lambda: token(exp=-1e300), "exp", TokenFault.EXPIRED),
    "nbf ahead": (lambda: token(nbf=NOW + 1), "nbf", TokenFault.NOT_YET_VALID),
    "nbf is text": (lambda: token(nbf="now"), "nbf", TokenFault.EXPIRY),
}
NO_TOKENS: dict[str, str] = {
    "empty": "",
    "two parts": "e30.e30",
    "four parts": "e30.e30.AA.AA",
    "five parts, as JWE": "e30.e30.AA.AA.AA",
    "JSON serialization": '{"payload":"e30"}',
    "not base64": "e30.e30.A*",
    "padding": "e30=.e30.AA",
    "a newline at the end": raw('{"alg":"ES256"}') + "\n",
    "one letter over": "e30.e30.AAAAA",
    "bits that mean nothing": "e30.e30.AB",
    "header is a list": raw("[]"),
    "claims are a text": raw("{}", '"x"'),
    "header is no JSON": raw("alg"),
    "NaN": raw('{"alg": NaN}'),
    "a name twice": raw('{"alg":"none","alg":"ES256"}'),
    "a name twice, further in": raw("{}", '{"a":{"b":1,"b":2}}'),
    "not UTF-8": f"{encode_part(bytes([0x7B, 0xFF, 0x7D]))}.e30.AA",
    "deep": raw("{}", "[" * 20000),
    "a number of 5000 digits": raw("{}", '{"exp":' + "9" * 5000 + "}"),
}


@pytest.mark.parametrize(("make", "rule", "reason"), BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_a_token_that_breaks_one_rule_is_refused_for_it(make: Callable[[], str], rule: str, reason: TokenFault) -> None:
    parsed = parse_token(make())
    broken = []
    for one in RULES:
        try:
            one.check(parsed, VALIDATION)
        except TokenError as error:
            broken.append((one.name, error.reason))
    assert broken == [(rule, reason)]
    with pytest.raises(TokenError):
        check_token(parsed, VALIDATION)


@pytest.mark.parametrize("text", NO_TOKENS.values(), ids=NO_TOKENS)
def test_a_malformed_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError) as refused:
        parse_token(text)
    assert refused.value.reason is TokenFault.MALFORMED


def test_a_token_has_a_bounded_size() -> None:
    with pytest.raises(TokenError) as refused:
        parse_token("A" * (MAX_TOKEN_BYTES + 1))
    assert refused.value.reason is TokenFault.TOO_LARGE


@pytest.mark.parametrize(
    "text",
    [
        token(),
        token(aud="db"),
        token(aud=["web", "db"]),
        token(exp=NOW + 0.5),
        token(exp=1e300),
        token(nbf=NOW),
        token(role="admin"),
        token(header={"typ": "JOSE"}),
        token(header={"typ": ABSENT}),
        *(token(header={"alg": algorithm}) for algorithm in ALGORITHMS),
    ],
)
def test_a_token_within_the_rules_claims_its_subject(text: str) -> None:
    assert check_token(parse_token(text), VALIDATION) == parse_spiffe_id("spiffe://a.test/w")


def test_captured_tokens_keep_the_rules_and_name_a_key_of_their_bundle() -> None:
    document = parse_jwt_bundles_response(spire_captures.message("jwt/bundles/00")).bundles["spiffe://a.test"]
    bundles = JwtBundles({TrustDomain("a.test"): parse_jwks(document)})
    for scene in ("jwt/svid/00", "jwt/svid-two-hints/00"):
        for entry in parse_jwt_svid_response(spire_captures.message(scene)):
            parsed = parse_token(entry.svid)
            spiffe_id = check_token(parsed, Validation("db1", NOW))
            assert str(spiffe_id) == entry.spiffe_id
            assert bundles.find_key(parsed, spiffe_id)["crv"] == "P-256"


def test_a_key_is_looked_for_in_the_bundle_of_its_own_trust_domain_only() -> None:
    bundles = JwtBundles({TrustDomain("a.test"): {"k1": jwk()}, TrustDomain("b.test"): {"k2": jwk("k2")}})
    find = {
        "spiffe://a.test/w": ("k1", None),
        "spiffe://b.test/w": ("k1", TokenFault.UNKNOWN_KEY),
        "spiffe://c.test/w": ("k1", TokenFault.UNKNOWN_TRUST_DOMAIN),
    }
    for subject, (key, reason) in find.items():
        parsed = parse_token(token(sub=subject, header={"kid": key}))
        if reason is None:
            assert bundles.find_key(parsed, parse_spiffe_id(subject))["kid"] == key
            continue
        with pytest.raises(TokenError) as refused:
            bundles.find_key(parsed, parse_spiffe_id(subject))
        assert refused.value.reason is reason


def test_keys_for_another_use_are_ignored() -> None:
    document = jwks(
        jwk("k1"),
        jwk("k2", use=ABSENT),
        jwk("k3", use="wit-svid"),
        jwk("k4", kty="oct"),
        {"use": "x509-svid", "kty": "EC", "x5c": ["AA"]},
    )
    assert list(parse_jwks(document)) == ["k1", "k2"]
    assert parse_jwks(b'{"keys": []}') == {}
    for bad in ([jwk(kid=ABSENT)], [jwk(kid="")], [jwk(kid=[])], [jwk("twice"), jwk("twice", number=1)]):
        assert list(parse_jwks(jwks(*bad, jwk()))) == ["k1"], "a bad key leaves its neighbours alone"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b"\xff",
        b"[" * 100000,
        jwks(jwk(kid=ABSENT)),
        jwks(jwk(kid="")),
        jwks(jwk(), jwk()),
        b" " * (4 * 1024 * 1024 + 1),
    ],
    ids=lambda document: document[:24].decode("latin-1"),
)
def test_a_bundle_that_cannot_be_read_is_refused(document: bytes) -> None:
    with pytest.raises(IdentityError):
        parse_jwks(document)


def test_the_token_is_in_no_repr_and_in_no_error() -> None:
    text = token(aud="web", secret_claim="x")
    parsed = parse_token(text)
    assert text.split(".")[2] not in repr(parsed)
    with pytest.raises(TokenError) as refused:
        check_token(parsed, VALIDATION)
    assert text.split(".")[2] not in str(refused.value)


@given(st.text(alphabet="eyJ0.-_A*=\n\0é", max_size=60))
def test_noise_is_refused_with_our_own_error(text: str) -> None:
    with suppress(TokenError):
        check_token(parse_token(text), VALIDATION)


@given(
    st.dictionaries(
        st.sampled_from(["sub", "aud", "exp", "nbf", "iat"]),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=4,
        ),
    )
)
def test_any_claims_are_accepted_or_refused(claims: dict[str, object]) -> None:
    with suppress(TokenError):
        check_token(parse_token(token(**claims)), VALIDATION)


def test_ambiguous_json_is_refused() -> None:
    assert parse_json(b'{"a": 1}') == {"a": 1}
    for document in (b'{"a": 1, "a": 1}', b"Infinity", b"{"):
        with pytest.raises(ValueError, match=r"."):
            parse_json(document)
    assert json.loads("{}") == parse_json(b"{}")
