"""SPIFFE IDs and trust domains: strict parsing without normalization."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import IdFault, SpiffeIdError
from tunnel.spiffe.ids import SpiffeId, TrustDomain, parse_spiffe_id, parse_trust_domain

DOMAIN_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
PATH_CHARACTERS = DOMAIN_CHARACTERS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

VALID = [
    ("spiffe://trustdomain", "trustdomain", ""),
    ("spiffe://trustdomain/path", "trustdomain", "/path"),
    ("spiffe://trustdomain/path/element", "trustdomain", "/path/element"),
    ("spiffe://trustdomain/.path", "trustdomain", "/.path"),
    ("spiffe://trustdomain/..path", "trustdomain", "/..path"),
    ("spiffe://trustdomain/...", "trustdomain", "/..."),
    ("spiffe://trustdomain/a/.../b", "trustdomain", "/a/.../b"),
    ("spiffe://1.2.3.4/w", "1.2.3.4", "/w"),
    ("spiffe://example..org/w", "example..org", "/w"),
    ("spiffe://.example.org/w", ".example.org", "/w"),
    ("spiffe://example.org./w", "example.org.", "/w"),
    ("spiffe://-example.org/w", "-example.org", "/w"),
    ("spiffe://example.org/NS/Prod", "example.org", "/NS/Prod"),
]

INVALID = [
    ("", IdFault.SCHEME),
    ("s", IdFault.SCHEME),
    ("spiffe:/", IdFault.SCHEME),
    ("spiffe:path/element", IdFault.SCHEME),
    ("Spiffe://trustdomain/w", IdFault.SCHEME),
    ("SPIFFE://trustdomain/w", IdFault.SCHEME),
    ("https://trustdomain/w", IdFault.SCHEME),
    ("://domain.test", IdFault.SCHEME),
    (" spiffe://trustdomain/w", IdFault.SCHEME),
    ("\nspiffe://trustdomain/w", IdFault.SCHEME),
    ("trustdomain", IdFault.SCHEME),
    ("/trustdomain", IdFault.SCHEME),
    ("192.168.2.2:6688", IdFault.SCHEME),
    ("spiffe://", IdFault.TRUST_DOMAIN_MISSING),
    ("spiffe:///", IdFault.TRUST_DOMAIN_MISSING),
    ("spiffe:///path", IdFault.TRUST_DOMAIN_MISSING),
    ("spiffe:// domain.test/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://Example.org/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trust$domain/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://alice@trustdomain/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain:8080/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain:/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://[::1]/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://%F0%9F%A4%AF/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://%62%61%64/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain\n", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain\n/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain\0/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain?bar", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain#bar", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdom\u0430in/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain\u0661/w", IdFault.TRUST_DOMAIN_CHARACTER),
    ("spiffe://trustdomain/", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain//", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain//path", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/path/", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/path//other", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/.", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/./path", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/path/./other", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/path/..", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/..", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/../path", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/path/../other", IdFault.PATH_SEGMENT),
    ("spiffe://trustdomain/path$", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/%F0%9F%A4%AF", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/%62%61%64", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/a%20b", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/path?bar", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/path#bar", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/path\n", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/path ", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/foo;bar", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/foo:bar", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/pf\u00e4d", IdFault.PATH_CHARACTER),
    ("spiffe://trustdomain/\ud800", IdFault.PATH_CHARACTER),
]


@pytest.mark.parametrize(("text", "domain", "path"), VALID)
def test_an_id_is_parsed_into_its_parts_and_spelt_as_it_was(text: str, domain: str, path: str) -> None:
    spiffe_id = parse_spiffe_id(text)
    assert spiffe_id == SpiffeId(TrustDomain(domain), path)
    assert str(spiffe_id) == text
    assert spiffe_id.is_workload() == bool(path)


@pytest.mark.parametrize(("text", "reason"), INVALID)
def test_an_invalid_id_is_refused_with_its_reason(text: str, reason: IdFault) -> None:
    with pytest.raises(SpiffeIdError) as refused:
        parse_spiffe_id(text)
    assert refused.value.reason is reason
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("byte", range(256))
def test_a_trust_domain_takes_exactly_its_39_characters(byte: int) -> None:
    character = chr(byte)
    text = f"spiffe://trust{character}domain/w"
    if character in DOMAIN_CHARACTERS:
        assert parse_spiffe_id(text).trust_domain.name == f"trust{character}domain"
        assert parse_trust_domain(f"trust{character}domain").name == f"trust{character}domain"
    elif character == "/":  # it ends the trust domain
        assert parse_spiffe_id(text) == SpiffeId(TrustDomain("trust"), "/domain/w")
    else:
        with pytest.raises(SpiffeIdError):
            parse_spiffe_id(text)
        with pytest.raises(SpiffeIdError):
            parse_trust_domain(f"trust{character}domain")


@pytest.mark.parametrize("byte", range(256))
def test_a_path_segment_takes_exactly_its_65_characters(byte: int) -> None:
    character = chr(byte)
    text = f"spiffe://trustdomain/pa{character}th"
    if character in PATH_CHARACTERS + "/":
        assert parse_spiffe_id(text).path == f"/pa{character}th"
    else:
        with pytest.raises(SpiffeIdError):
            parse_spiffe_id(text)


def test_a_trust_domain_has_at_most_255_bytes() -> None:
    assert parse_spiffe_id(f"spiffe://{'a' * 255}/w").trust_domain.name == "a" * 255
    for text in (f"spiffe://{'a' * 256}/w", "a" * 256):
        with pytest.raises(SpiffeIdError) as refused:
            parse_trust_domain(text) if ":" not in text else parse_spiffe_id(text)
        assert refused.value.reason is IdFault.TRUST_DOMAIN_LENGTH


def test_an_id_has_at_most_2048_bytes_with_its_scheme() -> None:
    longest = "spiffe://a.test/" + "p" * (2048 - len("spiffe://a.test/"))
    assert str(parse_spiffe_id(longest)) == longest
    with pytest.raises(SpiffeIdError) as refused:
        parse_spiffe_id(longest + "p")
    assert refused.value.reason is IdFault.LENGTH
    assert len(str(refused.value)) < 200, "the message does not repeat what is too long"


def test_lengths_are_counted_in_bytes() -> None:
    with pytest.raises(SpiffeIdError) as refused:
        parse_spiffe_id("spiffe://a.test/" + "\u20ac" * 700)
    assert refused.value.reason is IdFault.LENGTH


@pytest.mark.parametrize("text", ["a.test", "spiffe://a.test"])
def test_a_trust_domain_is_named_by_its_name_or_its_id(text: str) -> None:
    assert parse_trust_domain(text) == TrustDomain("a.test")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", IdFault.TRUST_DOMAIN_MISSING),
        ("spiffe://", IdFault.TRUST_DOMAIN_MISSING),
        ("spiffe://a.test/w", IdFault.PATH_SEGMENT),
        ("spiffe://a.test/", IdFault.PATH_SEGMENT),
        ("a.test/", IdFault.SCHEME),
        ("a.test/w", IdFault.SCHEME),
        ("a.test:443", IdFault.SCHEME),
        ("https://a.test", IdFault.SCHEME),
        ("A.test", IdFault.TRUST_DOMAIN_CHARACTER),
        ("a.test\n", IdFault.TRUST_DOMAIN_CHARACTER),
        ("*", IdFault.TRUST_DOMAIN_CHARACTER),
    ],
)
def test_an_invalid_trust_domain_is_refused_with_its_reason(text: str, reason: IdFault) -> None:
    with pytest.raises(SpiffeIdError) as refused:
        parse_trust_domain(text)
    assert refused.value.reason is reason


@given(st.text(max_size=60) | st.from_regex(r"spiffe://[a-z.]{0,5}(/[a-z./]{0,9})?"))
def test_any_text_is_refused_or_comes_back_unchanged(text: str) -> None:
    with contextlib.suppress(SpiffeIdError):
        assert str(parse_spiffe_id(text)) == text
