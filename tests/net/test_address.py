"""ghostunnel's grammar of addresses, and what looks local."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ConfigError
from tunnel.net.address import Address, TcpAddress, UnixAddress, is_local, parse_address

GOOD: list[tuple[str, Address]] = [
    ("localhost:80", TcpAddress("localhost", "80")),
    ("db.example.org:5432", TcpAddress("db.example.org", "5432")),
    ("127.0.0.1:0", TcpAddress("127.0.0.1", "0")),
    ("[::1]:80", TcpAddress("::1", "80")),
    ("[fe80::1%eth0]:80", TcpAddress("fe80::1%eth0", "80")),
    (":80", TcpAddress("", "80")),
    ("localhost:postgresql", TcpAddress("localhost", "postgresql")),
    ("1.2.3.4:65535", TcpAddress("1.2.3.4", "65535")),
    ("unix:/run/x.sock", UnixAddress("/run/x.sock")),
    ("unix:relative.sock", UnixAddress("relative.sock")),
    ("unix:@abstract", UnixAddress("@abstract")),
    ("unix:/" + "p" * 106, UnixAddress("/" + "p" * 106)),
]
BAD = [
    ("", "has no port"),
    ("localhost", "has no port"),
    ("localhost:", "has no port"),
    ("80", "has no port"),
    ("::1:80", "too many colons"),
    ("a:b:c", "too many colons"),
    ("http://localhost:80", "too many colons"),
    ("localhost:65536", "at most 65535"),
    ("localhost:99999999", "at most 65535"),
    ("a b:80", "no host that is one"),
    ("a/b:80", "no host that is one"),
    ("a\n:80", "no host that is one"),
    ("localhost:80\n", "no host that is one"),
    ("[::1:80", "too many colons"),
    ("[x:80", "no host that is one"),
    ("unix:", "names no socket"),
    ("unix:/a\0b", "names no socket"),
    ("unix:///run/x.sock", "written like a URL; unix:PATH is wanted, such as unix:/run/x.sock"),
    ("unix:/" + "p" * 107, "at most 107 bytes"),
    ("unix:/" + "\u20ac" * 36, "at most 107 bytes"),
    ("systemd:x", "service manager"),
    ("launchd:x", "service manager"),
]


@pytest.mark.parametrize(("text", "address"), GOOD)
def test_a_good_address_is_parsed_and_spelt_as_it_was(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(("text", "words"), BAD)
def test_a_bad_address_is_refused_with_the_mistake_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_address(text)
    assert words in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:80", True),
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("unix:/x", True),
        ("unix:@x", True),
        ("127.0.0.2:80", False),
        ("127.0.0.11:80", False),
        ("localhost.evil.org:80", False),
        ("Localhost:80", False),
        ("0.0.0.0:80", False),
        (":80", False),
        ("[::]:80", False),
    ],
)
def test_local_is_a_test_of_the_text(text: str, expected: bool) -> None:
    assert is_local(str(parse_address(text))) is expected


@given(st.text(max_size=30) | st.from_regex(r"(unix:)?[\[\]a-z0-9:.@%/]{0,20}", fullmatch=True))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError:
        return
    assert parse_address(str(address)) == address
