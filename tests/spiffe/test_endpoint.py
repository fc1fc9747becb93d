"""Addresses of a Workload API: those that the standard, go-spiffe and rust-spiffe accept and refuse."""

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

# The value, and a part of the error message.
BAD = [
    ("unix://foo", "host in a unix URI; expected three slashes: unix:///foo"),
    ("unix://tmp/agent.sock", "host in a unix URI; expected three slashes: unix:///tmp/agent.sock"),
    ("unix:opaque", "path is not absolute; expected unix:///opaque"),
    ("unix:tmp/sock", "path is not absolute; expected unix:///tmp/sock"),
    ("unix:", "path is not absolute"),
    ("unix://", "path is not absolute"),
    ("unix:///", "missing path"),
    ("unix:////", "missing path"),
    ("unix://foo?q", "query or fragment"),
    ("unix://foo#f", "query or fragment"),
    ("unix:///run/a.sock?q", "query or fragment"),
    ("unix:///run/a.sock#", "query or fragment"),
    ("unix://john:doe@foo/path", "user name"),
    ("unix:///run/spire/", "path of a directory"),
    ("unix:/run/agent.sock//", "path of a directory"),
    ("unix:/run/agent.sock%2F", "path of a directory"),
    ("unix:///run/a%", "invalid percent-encoding"),
    ("unix:///run/%2", "invalid percent-encoding"),
    ("unix:///run/%zz.sock", "invalid percent-encoding"),
    ("unix:///run/a%00b", "NUL byte"),
    ("unix:///run/a,b.sock", "comma"),
    ("unix:///run/a%2Cb.sock", "comma"),
    (f"unix:///{'d' * 107}", "socket path has 108 bytes; expected at most 107"),
    (f"unix:///{'%C3%A9' * 54}", "socket path has 109 bytes; expected at most 107"),
    ("tcp:1.2.3.4:5", "missing slashes; expected tcp://1.2.3.4:5"),
    ("tcp://1.2.3.4", "missing port"),
    ("tcp://1.2.3.4:", "invalid port; expected 1 to 65535"),
    ("tcp://1.2.3.4:0", "invalid port; expected 1 to 65535"),
    ("tcp://1.2.3.4:65536", "invalid port; expected 1 to 65535"),
    ("tcp://1.2.3.4:+5", "invalid port; expected 1 to 65535"),
    ("tcp://1.2.3.4:5_0", "invalid port; expected 1 to 65535"),
    ("tcp://1.2.3.4:\u0665", "invalid port; expected 1 to 65535"),
    ("tcp://1.2.3.4:http", "invalid port; expected 1 to 65535"),
    ("tcp://", "missing port"),
    ("tcp://foo", "missing port"),
    ("tcp://:8000", "host is not an IP address"),
    ("tcp://localhost:8000", "host is not an IP address; expected for example tcp://127.0.0.1:8000"),
    ("tcp://1.2.3.4:5/path", "path in a tcp URI"),
    ("tcp://1.2.3.4:5/", "path in a tcp URI"),
    ("tcp://1.2.3.4:5?q", "query or fragment"),
    ("tcp://1.2.3.4:5#f", "query or fragment"),
    ("tcp://john:doe@1.2.3.4:5", "user name"),
    ("tcp://::1:8000", "missing port"),
    ("tcp://[::1]", "missing port"),
    ("tcp://[::1", "missing port"),
    ("tcp://[1.2.3.4]:5", "IPv4 address in brackets"),
    ("tcp://[]:5", "IP address"),
    ("tcp://[[::1]]:5", "IP address"),
    ("tcp://1.2.3:5", "IP address"),
    ("\t", "space or control character"),
    ("unix:///run/a b", "space or control character"),
    ("unix:///run/a.sock\n", "space or control character"),
    ("unix:///run/a\0b", "space or control character"),
    ("blah", "missing scheme"),
    ("", "missing scheme"),
    ("/plain/path", "missing scheme; expected unix:///plain/path"),
    ("npipe:spire-agent", "unknown scheme"),
    ("UNIX:///run/a.sock", "unknown scheme"),
    ("http://127.0.0.1:80", "unknown scheme"),
]


@pytest.mark.parametrize(("text", "endpoint", "canonical"), GOOD)
def test_a_good_address_is_parsed_and_shown_in_one_form(text: str, endpoint: WorkloadEndpoint, canonical: str) -> None:
    assert parse_endpoint(text) == endpoint
    assert str(endpoint) == canonical
    assert parse_endpoint(canonical) == endpoint


@pytest.mark.parametrize(("text", "mistake"), BAD)
def test_an_invalid_address_is_refused_with_its_problem(text: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_endpoint(text)
    assert mistake in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", [text for text, mistake in BAD if "expected" in mistake and "://" in mistake])
def test_the_expected_address_in_a_message_is_valid(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_endpoint(text)
    parse_endpoint(str(refused.value).rpartition(" ")[2])


@given(st.text(max_size=40) | st.from_regex(r"(unix|tcp):/{0,3}[\[\]a-z0-9:.@%/?#]{0,20}", fullmatch=True))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        endpoint = parse_endpoint(text)
    except ConfigError:
        return
    assert parse_endpoint(str(endpoint)) == endpoint
