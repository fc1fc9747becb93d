"""The address of a Workload API: the standard's column of what go-spiffe, rust-spiffe and the standard say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import WorkloadEndpoint, parse_endpoint

GOOD = [
    ("unix:///run/spire/agent.sock", WorkloadEndpoint(path="/run/spire/agent.sock"), "unix:///run/spire/agent.sock"),
    ("unix:/run/spire/agent.sock", WorkloadEndpoint(path="/run/spire/agent.sock"), "unix:///run/spire/agent.sock"),
    ("unix:///%2Frun/x.sock", WorkloadEndpoint(path="/run/x.sock"), "unix:///run/x.sock"),
    ("unix:////run/x.sock", WorkloadEndpoint(path="/run/x.sock"), "unix:///run/x.sock"),
    ("unix://///run//x.sock", WorkloadEndpoint(path="/run//x.sock"), "unix:///run//x.sock"),
    ("unix:///run/a%20b.sock", WorkloadEndpoint(path="/run/a b.sock"), "unix:///run/a%20b.sock"),
    ("unix:///run/%41%3F%23%25.sock", WorkloadEndpoint(path="/run/A?#%.sock"), "unix:///run/A%3F%23%25.sock"),
    ("unix:///run/\u00e9.sock", WorkloadEndpoint(path="/run/\u00e9.sock"), "unix:///run/%C3%A9.sock"),
    (f"unix:///{'d' * 106}", WorkloadEndpoint(path=f"/{'d' * 106}"), f"unix:///{'d' * 106}"),
    ("tcp://1.2.3.4:5", WorkloadEndpoint(host="1.2.3.4", port=5), "tcp://1.2.3.4:5"),
    ("tcp://[::1]:8000", WorkloadEndpoint(host="::1", port=8000), "tcp://[::1]:8000"),
    ("tcp://127.0.0.1:65535", WorkloadEndpoint(host="127.0.0.1", port=65535), "tcp://127.0.0.1:65535"),
]

# The value, and words of the message that name the mistake.
BAD = [
    ("unix://foo", "two slashes where three are wanted; did you mean unix:///foo"),
    ("unix://tmp/agent.sock", "two slashes where three are wanted; did you mean unix:///tmp/agent.sock"),
    ("unix:opaque", "no absolute path; did you mean unix:///opaque"),
    ("unix:tmp/sock", "no absolute path; did you mean unix:///tmp/sock"),
    ("unix:", "no absolute path"),
    ("unix://", "no absolute path"),
    ("unix:///", "names no socket"),
    ("unix:////", "names no socket"),
    ("unix://foo?q", "has a query or a fragment"),
    ("unix://foo#f", "has a query or a fragment"),
    ("unix:///run/a.sock?q", "has a query or a fragment"),
    ("unix:///run/a.sock#", "has a query or a fragment"),
    ("unix://john:doe@foo/path", "names a user"),
    ("unix:///run/spire/", "names a directory"),
    ("unix:/run/agent.sock//", "names a directory"),
    ("unix:/run/agent.sock%2F", "names a directory"),
    ("unix:///run/a%", "percent sign without two hexadecimal digits"),
    ("unix:///run/%2", "percent sign without two hexadecimal digits"),
    ("unix:///run/%zz.sock", "percent sign without two hexadecimal digits"),
    ("unix:///run/a%00b", "null byte"),
    ("unix:///run/a,b.sock", "comma"),
    ("unix:///run/a%2Cb.sock", "comma"),
    (f"unix:///{'d' * 107}", "path has 108 bytes; a Unix socket path has at most 107"),
    (f"unix:///{'%C3%A9' * 54}", "path has 109 bytes; a Unix socket path has at most 107"),
    ("tcp:1.2.3.4:5", "lacks its slashes; did you mean tcp://1.2.3.4:5"),
    ("tcp://1.2.3.4", "has no port"),
    ("tcp://1.2.3.4:", "port from 1 to 65535"),
    ("tcp://1.2.3.4:0", "port from 1 to 65535"),
    ("tcp://1.2.3.4:65536", "port from 1 to 65535"),
    ("tcp://1.2.3.4:+5", "port from 1 to 65535"),
    ("tcp://1.2.3.4:5_0", "port from 1 to 65535"),
    ("tcp://1.2.3.4:\u0665", "port from 1 to 65535"),
    ("tcp://1.2.3.4:http", "port from 1 to 65535"),
    ("tcp://", "has no port"),
    ("tcp://foo", "has no port"),
    ("tcp://:8000", "names a host; the standard wants an IP address"),
    ("tcp://localhost:8000", "names a host; the standard wants an IP address, such as tcp://127.0.0.1:8000"),
    ("tcp://1.2.3.4:5/path", "has a path"),
    ("tcp://1.2.3.4:5/", "has a path"),
    ("tcp://1.2.3.4:5?q", "has a query or a fragment"),
    ("tcp://1.2.3.4:5#f", "has a query or a fragment"),
    ("tcp://john:doe@1.2.3.4:5", "names a user"),
    ("tcp://::1:8000", "has no port"),
    ("tcp://[::1]", "has no port"),
    ("tcp://[::1", "has no port"),
    ("tcp://[1.2.3.4]:5", "IPv6 address, and no other, stands in brackets"),
    ("tcp://[]:5", "IP address"),
    ("tcp://[[::1]]:5", "IP address"),
    ("tcp://1.2.3:5", "IP address"),
    ("\t", "a blank or a control character"),
    ("unix:///run/a b", "a blank or a control character"),
    ("unix:///run/a.sock\n", "a blank or a control character"),
    ("unix:///run/a\0b", "a blank or a control character"),
    ("blah", "no scheme that is known"),
    ("", "no scheme that is known"),
    ("/plain/path", "is a bare path; did you mean unix:///plain/path"),
    ("npipe:spire-agent", "no scheme that is known"),
    ("UNIX:///run/a.sock", "no scheme that is known"),
    ("http://127.0.0.1:80", "no scheme that is known"),
]


@pytest.mark.parametrize(("text", "endpoint", "canonical"), GOOD)
def test_a_good_address_is_parsed_and_shown_in_one_form(text: str, endpoint: WorkloadEndpoint, canonical: str) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == canonical
    assert parse_endpoint(canonical) == endpoint


@pytest.mark.parametrize(("text", "mistake"), BAD)
def test_a_bad_address_is_refused_with_the_mistake_named(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_endpoint(text)
    assert mistake in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", [text for text, mistake in BAD if "did you mean" in mistake])
def test_what_the_message_suggests_is_itself_good(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_endpoint(text)
    suggestion = str(refused.value).partition("did you mean ")[2].removesuffix(" ?")
    parse_endpoint(suggestion)


@given(st.text(max_size=40) | st.from_regex(r"(unix|tcp):/{0,3}[\[\]a-z0-9:.@%/?#]{0,20}", fullmatch=True))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ConfigError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint
