"""The URL of an outbound proxy: valid and invalid ones, and that credentials are never printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ConfigError
from tunnel.net.address import TcpAddress
from tunnel.wire.outbound import OutboundProxy, parse_outbound

GOOD = {
    "http://proxy.example:3128": OutboundProxy("http", "proxy.example", 3128),
    "http://proxy.example": OutboundProxy("http", "proxy.example", 8080),
    "http://proxy.example:": OutboundProxy("http", "proxy.example", 8080),
    "socks5://proxy": OutboundProxy("socks5", "proxy", 1080),
    "socks5h://proxy": OutboundProxy("socks5h", "proxy", 1080),
    "HTTP://Proxy.Example": OutboundProxy("http", "Proxy.Example", 8080),
    "http://[2001:db8::1]": OutboundProxy("http", "2001:db8::1", 8080),
    "http://[2001:db8::1]:3128": OutboundProxy("http", "2001:db8::1", 3128),
    "http://[fe80::1%25eth0]:3128": OutboundProxy("http", "fe80::1%eth0", 3128),
    "http://proxy:3128/": OutboundProxy("http", "proxy", 3128),
    "http://proxy:3128/path?query#fragment": OutboundProxy("http", "proxy", 3128),
    "http://proxy?query": OutboundProxy("http", "proxy", 8080),
    "http://u:p@proxy": OutboundProxy("http", "proxy", 8080, "u", "p"),
    "http://u@proxy": OutboundProxy("http", "proxy", 8080, "u"),
    "http://:p@proxy": OutboundProxy("http", "proxy", 8080, "", "p"),
    "http://@proxy": OutboundProxy("http", "proxy", 8080),
    "http://u:p:q@proxy": OutboundProxy("http", "proxy", 8080, "u", "p:q"),
    "http://u:p@q@proxy": OutboundProxy("http", "proxy", 8080, "u", "p@q"),
    "http://us%65r:p%40%2F%3a%25@proxy": OutboundProxy("http", "proxy", 8080, "user", "p@/:%"),
    "http://u:p+q%20r@proxy": OutboundProxy("http", "proxy", 8080, "u", "p+q r"),
    "http://u:%C3%BC@proxy": OutboundProxy("http", "proxy", 8080, "u", "\u00fc"),
    "socks5://a%3Ab:%00@proxy": OutboundProxy("socks5", "proxy", 1080, "a:b", "\0"),
    "socks5://" + "u" * 255 + ":" + "p" * 255 + "@proxy": OutboundProxy("socks5", "proxy", 1080, "u" * 255, "p" * 255),
}

BAD = {
    "https://proxy": "proxy: unknown scheme: https;",
    "ftp://proxy": "proxy: unknown scheme: ftp;",
    "\x1b://proxy": r"proxy: unknown scheme: \x1b;",
    "proxy:3128": "proxy: missing scheme;",
    "": "proxy: missing scheme;",
    "://proxy": "proxy: unknown scheme: ;",
    "http://": "invalid host",
    "http://:3128": "invalid host",
    "http://user@": "invalid host",
    "http://a b": "invalid host",
    "http://a\\b": "invalid host",
    "http://a%20b": "invalid host",
    "http://a\nb": "invalid host",
    "http://a\udcff": "invalid host",
    "http://::1": "invalid host",
    "http://::1:3128": "invalid host",
    "http://[::1": "invalid host",
    "http://[proxy]": "not an IPv6 address",
    "http://[192.0.2.1]": "not an IPv6 address",
    "http://[]": "not an IPv6 address",
    "http://[::1]3128": "invalid host",
    "http://proxy:0": "port",
    "http://proxy:65536": "port",
    "http://proxy:http": "port",
    "http://proxy:-1": "port",
    "http://proxy:\u0663": "port",
    "http://proxy:" + "9" * 5000: "port",
    "http://u:p%@proxy": "percent-encoding",
    "http://u:p%4@proxy": "percent-encoding",
    "http://u:p%zz@proxy": "percent-encoding",
    "http://u:%ff@proxy": "UTF-8",
    "http://u:\udcff@proxy": "UTF-8",
    "http://a%3Ab:p@proxy": "colon",
    "http://u:%0d%0aX@proxy": "control",
    "http://u:%7F@proxy": "control",
    "socks5://:p@proxy": "1 to 255",
    "socks5://" + "u" * 256 + "@proxy": "1 to 255",
    "socks5://u:" + "%C3%BC" * 128 + "@proxy": "1 to 255",
}


@pytest.mark.parametrize(("text", "expected"), GOOD.items(), ids=[text[:60] for text in GOOD])
def test_a_url_names_a_proxy(text: str, expected: OutboundProxy) -> None:
    assert parse_outbound(text) == expected


@pytest.mark.parametrize(("text", "words"), BAD.items(), ids=[ascii(text[:60]) for text in BAD])
def test_an_invalid_url_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_outbound(text)
    assert str(caught.value).startswith("proxy: ")
    assert words in str(caught.value)


def test_the_scheme_is_named_as_ghostunnel_names_it() -> None:
    with pytest.raises(ConfigError, match=r"^proxy: unknown scheme: https\b"):
        parse_outbound("https://proxy.example")


@pytest.mark.parametrize(
    "text",
    [
        "http://SECRET:SECRET@proxy",
        "http://SECRET@proxy:port",
        "http://user:SECRET/more@proxy",
        "http://user:SECRET#more@proxy",
        "http://user:SECRET?more@proxy",
        "http://user:SECRET%@proxy",
        "http://user:SECRET%0a@proxy",
        "http://user:SECRET",
        "http://user:SECRET@[::1",
        "user:SECRET@proxy",
        "ftp://user:SECRET@proxy",
        "socks5://:SECRET@proxy",
    ],
)
def test_credentials_are_never_shown(text: str) -> None:
    try:
        proxy = parse_outbound(text)
    except ConfigError as error:
        seen = str(error) + repr(error) + repr(error.__cause__)
    else:
        seen = f"{proxy} {proxy!r} {proxy.address}"
    assert "SECRET" not in seen


def test_its_text_can_be_dialled() -> None:
    proxy = parse_outbound("socks5h://u:p@[::1]:1081")
    assert str(proxy) == "socks5h://[::1]:1081"
    assert proxy.address == TcpAddress("::1", "1081")


@given(st.sampled_from(["", "http://", "socks5://", "http://[", "http://u:p@"]), st.text(max_size=80))
def test_noise_is_a_proxy_or_a_configuration_error(start: str, noise: str) -> None:
    try:
        proxy = parse_outbound(start + noise)
    except ConfigError:
        return
    assert proxy.host
    assert 0 < proxy.port <= 65535
