"""URI patterns: ghostunnel's own vectors, and matching of whole segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.authz.pattern import parse_pattern
from tunnel.errors import ConfigError

# Pattern, what must match, what must not.
VECTORS = [
    (
        "spiffe://foo/*/bar",
        ["spiffe://foo/baz/bar", "spiffe://foo/baz/bar/", "spiffe://foo/x/bar"],
        [
            "spiffe://foo/bar",
            "spiffe://foo//bar",
            "spiffe://foo/baz/bar/spam",
            "spiff://foo/baz/bar",
            "spiffe://foox/baz/bar",
            "spiffe://foo/baz/barx",
            "spiffe://foo/baz/spam/bar",
            "spiffe://foo/baz/bar//",
            "spiffe://foo/baz/bar\n",
            "xspiffe://foo/baz/bar",
            "SPIFFE://foo/baz/bar",
        ],
    ),
    (
        "spiffe://*/*/bar",
        ["spiffe://foo/baz/bar", "spiffe://x/y/bar/"],
        ["spiffe://foo/bar", "spiffe:///baz/bar", "spiffe://foo//bar", "spiffe://foo/baz/barx", "spiffe://foo/baz/spam/bar"],
    ),
    (
        "spiffe://foo/*/*",
        ["spiffe://foo/baz/bar", "spiffe://foo/baz/bar/"],
        ["spiffe://foo/baz", "spiffe://foo/baz/", "spiffe://foo//bar", "spiffe://foo/baz/bar/spam", "spiffe://foox/baz/bar"],
    ),
    (
        "spiffe://*/*/*",
        ["spiffe://foo/baz/bar", "spiffe://foo/baz/bar/"],
        ["spiffe://foo/baz", "spiffe://foo/baz/bar/spam", "spiffe:///baz/bar", "https://foo/baz/bar"],
    ),
    (
        "spiffe://foo/*/bar/**",
        [
            "spiffe://foo/baz/bar",
            "spiffe://foo/baz/bar/",
            "spiffe://foo/baz/bar/asdf",
            "spiffe://foo/baz/bar/asdf/qwer",
        ],
        [
            "spiffe://foo/baz/barf",
            "spiffe://foo//bar/asdf",
            "spiffe://foo/bar/asdf",
            "spiffe://foo/baz/bar/a\nb",
            "spiffe://foo/baz/bar\n",
        ],
    ),
    (
        "spiffe://td/*",
        ["spiffe://td/w", "spiffe://td/w/"],
        ["spiffe://td", "spiffe://td/", "spiffe://td/w/v", "spiffe://tdx/w"],
    ),
    (
        "spiffe://td/**",
        ["spiffe://td", "spiffe://td/", "spiffe://td/w", "spiffe://td/w/v"],
        ["spiffe://tdx", "spiffe://tdx/w", "spiffe://td.evil/w"],
    ),
    (
        "spiffe://td/ns/prod",
        ["spiffe://td/ns/prod", "spiffe://td/ns/prod/"],
        ["spiffe://td/ns/production", "spiffe://td/ns/prod/x", "spiffe://td/ns/pro", "spiffe://td/ns/PROD"],
    ),
    ("spiffe://td/ns/prod/", ["spiffe://td/ns/prod", "spiffe://td/ns/prod/"], ["spiffe://td/ns/prod//"]),
    ("spiffe://td/ns/prod/**", ["spiffe://td/ns/prod", "spiffe://td/ns/prod/a/b"], ["spiffe://td/ns/production/a"]),
    ("spiffe://foo/./bar", ["spiffe://foo/./bar"], ["spiffe://foo/x/bar", "spiffe://foo/bar"]),
    ("spiffe://foo/.+/bar", ["spiffe://foo/.+/bar"], ["spiffe://foo/xy/bar"]),
    ("spiffe://foo.bar/w", ["spiffe://foo.bar/w"], ["spiffe://fooxbar/w"]),
    ("spiffe://foo/(a|b)", ["spiffe://foo/(a|b)"], ["spiffe://foo/a"]),
    ("spiffe://foo/[a-z]", ["spiffe://foo/[a-z]"], ["spiffe://foo/a"]),
    ("**", ["", "anything", "spiffe://foo/bar"], ["a\nb"]),
    ("*", ["anything", "anything/"], ["", "a/b", "spiffe://foo"]),
    ("/", ["/", "//"], ["", "a"]),
]
REJECTED = [
    "",
    "test://foo*/asdf",
    "test://*foo/asdf",
    "test://**/asdf",
    "**://foo/asdf",
    "spiffe://**/**/**",
    "spiffe://foo/**/bar",
    "spiffe://foo/a*",
    "spiffe://foo/*a",
    "spiffe://foo/a*b",
    "spiffe://foo/***",
    "spiffe://foo/a**",
]


@pytest.mark.parametrize(("pattern", "uri"), [(p, uri) for p, matching, _ in VECTORS for uri in matching])
def test_a_pattern_matches(pattern: str, uri: str) -> None:
    assert parse_pattern(pattern).is_match(uri)


@pytest.mark.parametrize(("pattern", "uri"), [(p, uri) for p, _, other in VECTORS for uri in other])
def test_a_pattern_does_not_match(pattern: str, uri: str) -> None:
    assert not parse_pattern(pattern).is_match(uri)


@pytest.mark.parametrize("pattern", REJECTED)
def test_an_invalid_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        parse_pattern(pattern)


def test_one_slash_at_the_end_of_a_pattern_is_dropped() -> None:
    assert parse_pattern("**/").is_match("spiffe://foo/bar")
    assert not parse_pattern("spiffe://foo/bar//").is_match("spiffe://foo/bar")


@pytest.mark.parametrize(
    ("pattern", "names", "can"),
    [
        ("spiffe://td/w", True, True),
        ("spiffe://td/*", True, True),
        ("spiffe://td/**", True, True),
        ("spiffe://td", True, True),
        ("spiffe://*/w", False, True),
        ("spiffe://**", False, True),
        ("spiffe:/**", False, True),
        ("*//td/w", False, True),
        ("**", False, True),
        ("spiffe:///w", False, True),
        ("https://td/w", False, False),
        ("td/w", False, False),
        ("Spiffe://td/w", False, False),
        ("spiffe:/td/w", False, False),
        ("/**", False, False),
    ],
)
def test_whether_a_pattern_names_a_trust_domain_and_can_match_an_id(pattern: str, names: bool, can: bool) -> None:
    parsed = parse_pattern(pattern)
    assert parsed.names_trust_domain() is names
    assert parsed.can_match_spiffe_id() is can


SEGMENT = st.text("abcAB.-_09", min_size=1, max_size=6)
PATTERN = st.lists(SEGMENT | st.just("*"), min_size=1, max_size=5)


def matches_by_segments(pattern: list[str], uri: list[str]) -> bool:
    """The grammar said again without regular expressions, for input without a slash at its end."""
    head, is_open = (pattern[:-1], True) if pattern[-1] == "**" else (pattern, False)
    if len(uri) < len(head) or (len(uri) > len(head) and not is_open):
        return False
    return all(wanted in ("*", seen) for wanted, seen in zip(head, uri, strict=False))


@given(PATTERN, st.booleans(), st.lists(SEGMENT, min_size=1, max_size=6))
def test_a_segment_is_matched_whole_or_not_at_all(pattern: list[str], is_open: bool, uri: list[str]) -> None:
    segments = [*pattern, "**"] if is_open else pattern
    parsed = parse_pattern("spiffe://" + "/".join(segments))
    assert parsed.is_match("spiffe://" + "/".join(uri)) == matches_by_segments(segments, uri)


@given(PATTERN, st.lists(SEGMENT, max_size=3), SEGMENT)
def test_what_a_pattern_matches_it_matches_no_longer_with_a_segment_prolonged(
    pattern: list[str], rest: list[str], more: str
) -> None:
    uri = [segment if segment != "*" else "x" for segment in pattern]
    parsed = parse_pattern("spiffe://" + "/".join(pattern))
    assert parsed.is_match("spiffe://" + "/".join(uri))
    for place, segment in enumerate(pattern):
        if segment != "*":
            longer = [*uri[:place], uri[place] + more, *uri[place + 1 :]]
            assert not parsed.is_match("spiffe://" + "/".join(longer))


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_a_config_error(text: str) -> None:
    try:
        parsed = parse_pattern(text)
    except ConfigError:
        return
    if "*" not in text:
        assert parsed.is_match(text)
