"""The text form of addresses, and which of them are local."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ConfigError
from tunnel.net.address import (
    Address,
    LaunchdAddress,
    ListenAddress,
    SrvName,
    StatusAddress,
    SystemdAddress,
    TcpAddress,
    UnixAddress,
    is_local,
    parse_address,
    parse_listen_address,
    parse_status_address,
    parse_target,
)

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
    ("unix:@" + "p" * 107, UnixAddress("@" + "p" * 107)),
]
BAD = [
    ("", "missing port; expected HOST:PORT or unix:PATH"),
    ("localhost", "missing port; expected HOST:PORT or unix:PATH"),
    ("localhost:", "missing port; expected HOST:PORT or unix:PATH"),
    ("80", "missing port; expected HOST:PORT or unix:PATH"),
    ("::1:80", "too many colons"),
    ("a:b:c", "too many colons"),
    ("http://localhost:80", "too many colons"),
    ("localhost:65536", "port out of range; expected 0 to 65535"),
    ("localhost:99999999", "port out of range; expected 0 to 65535"),
    ("a b:80", "invalid host; expected"),
    ("a/b:80", "invalid host; expected"),
    ("a\n:80", "invalid host; expected"),
    ("localhost:80\n", "invalid host; expected"),
    ("[::1:80", "too many colons"),
    ("[x:80", "invalid host; expected"),
    ("unix:", "missing path; expected unix:PATH"),
    ("unix:/a\0b", "NUL character in path; expected unix:PATH"),
    ("unix:///run/x.sock", "not a URL; expected unix:PATH, for example unix:/run/x.sock"),
    ("unix:/" + "p" * 107, "socket path has 108 bytes; expected at most 107"),
    ("unix:/" + "\u20ac" * 36, "socket path has 109 bytes; expected at most 107"),
    ("unix:@" + "p" * 108, "socket name has 108 bytes; expected at most 107"),
    ("localhost:80/", "invalid port; expected"),
    ("localhost:80 ", "invalid port; expected"),
    ("systemd:", "missing name; expected systemd:NAME"),
    ("launchd:", "missing name; expected launchd:NAME"),
    ("systemd:a\nb", "invalid name; expected systemd:NAME"),
]
HANDED_OVER: list[tuple[str, ListenAddress]] = [
    ("systemd:x", SystemdAddress("x")),
    ("systemd:LISTEN_FD_3", SystemdAddress("LISTEN_FD_3")),
    ("systemd:my web.socket", SystemdAddress("my web.socket")),
    ("launchd:x", LaunchdAddress("x")),
]
STATUS = [
    ("localhost:80", StatusAddress(TcpAddress("localhost", "80"), "")),
    ("http://localhost:80", StatusAddress(TcpAddress("localhost", "80"), "http")),
    ("https://[::1]:80", StatusAddress(TcpAddress("::1", "80"), "https")),
    ("http://:80", StatusAddress(TcpAddress("", "80"), "http")),
    ("unix:/run/x", StatusAddress(UnixAddress("/run/x"), "")),
    ("systemd:x", StatusAddress(SystemdAddress("x"), "")),
    ("launchd:x", StatusAddress(LaunchdAddress("x"), "")),
]
BAD_STATUS = [
    ("https://unix:/x", "https:// requires HOST:PORT; expected unix:/x"),
    ("http://unix:/x", "http:// requires HOST:PORT"),
    ("http://systemd:x", "http:// requires HOST:PORT"),
    ("https://launchd:x", "https:// requires HOST:PORT"),
    ("http://localhost:80/", "invalid port; expected"),
    ("http://localhost", "missing port; expected HOST:PORT or unix:PATH"),
    ("http://http://localhost:80", "too many colons"),
    ("HTTP://localhost:80", "too many colons"),
    ("ftp://localhost:80", "too many colons"),
    ("http://", "missing port; expected HOST:PORT or unix:PATH"),
    ("", "missing port; expected HOST:PORT or unix:PATH"),
]


@pytest.mark.parametrize(("text", "address"), GOOD)
def test_a_valid_address_is_parsed_and_printed_unchanged(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_listen_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(("text", "address"), HANDED_OVER)
def test_an_inherited_socket_can_be_listened_on_but_not_dialled(text: str, address: ListenAddress) -> None:
    assert parse_listen_address(text) == address
    assert str(address) == text
    assert is_local(text)
    with pytest.raises(ConfigError, match="can only be listened on; expected HOST:PORT or unix:PATH"):
        parse_address(text)


@pytest.mark.parametrize(("text", "address"), STATUS)
def test_a_status_address_may_have_a_scheme(text: str, address: StatusAddress) -> None:
    assert parse_status_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(("text", "words"), BAD_STATUS)
def test_an_invalid_status_address_is_refused_with_the_problem(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_status_address(text)
    assert words in str(refused.value)


def test_a_path_outside_of_the_file_system_encoding_is_refused() -> None:
    with pytest.raises(ConfigError, match="has a character outside the file-system encoding utf-8"):
        parse_address("unix:/\ud800")


def test_the_length_of_an_undecodable_path_is_counted_in_bytes() -> None:
    path = "/" + b"\xff".decode("utf-8", "surrogateescape") * 106
    assert parse_address(f"unix:{path}") == UnixAddress(path)


@pytest.mark.parametrize(("text", "words"), BAD)
def test_an_invalid_address_is_refused_with_the_problem(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_listen_address(text)
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


@given(st.from_regex(r"(https?://)?(unix:|systemd:|launchd:)?[\[\]a-z0-9:.@%/]{0,20}", fullmatch=True))
def test_any_status_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        address = parse_status_address(text)
    except ConfigError:
        return
    assert parse_status_address(str(address)) == address


LABEL = "a" * 63


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("srv:_redis._tcp.example.org", SrvName("_redis._tcp.example.org")),
        ("srv:_redis._tcp.redis.default.", SrvName("_redis._tcp.redis.default.")),
        (f"srv:_r._tcp.{LABEL}.{LABEL}", SrvName(f"_r._tcp.{LABEL}.{LABEL}")),
        ("srv:8080", TcpAddress("srv", "8080")),
        ("localhost:80", TcpAddress("localhost", "80")),
        ("unix:/run/x.sock", UnixAddress("/run/x.sock")),
    ],
)
def test_a_target_can_be_a_name_of_srv_records(text: str, expected: object) -> None:
    assert parse_target(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "name",
    [
        "_redis",
        "_redis._tcp",
        "_redis._tcp.",
        "_redis.tcp.a",
        "_redis._tcp..a",
        "_redis._tcp.a b",
        "_r._tcp.a:80",
        f"_r._tcp.{LABEL}a",
        "_r._tcp" + f".{LABEL}" * 4,
        "_r._tcp.ä",
        "_redis._tcp.a\n",
    ],
)
def test_an_invalid_name_of_srv_records_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r'^invalid address "srv:_.*": invalid name of SRV records; expected srv:_SERVICE'):
        parse_target(f"srv:{name}")
