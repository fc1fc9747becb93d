"""CONNECT and SOCKS5 exchanges, with responses split at every byte."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ConfigError, TargetError, TargetFault, WireError, WireFault
from tunnel.wire.outbound import Exchange, OutboundProxy, Reached, open_exchange, parse_outbound

HTTP = parse_outbound("http://proxy")
HTTP_LOGIN = parse_outbound("http://user:p%40ss@proxy")
SOCKS = parse_outbound("socks5://proxy")
SOCKS_LOGIN = parse_outbound("socks5h://user:p%40ss@proxy")
Verdict = tuple[type[Exception], object, str] | bytes


def outcome(exchange: Exchange, pieces: list[bytes]) -> tuple[list[bytes], Verdict | None]:
    """What was said, and the leftover or the error; None for a wait for more."""
    said = [exchange.start()]
    for at, piece in enumerate(pieces):
        try:
            answer = exchange.feed(piece)
        except (TargetError, WireError) as error:
            return said, (type(error), error.reason, str(error))
        if isinstance(answer, Reached):
            return said, answer.leftover + b"".join(pieces[at + 1 :])
        if answer:
            said.append(answer)
    return said, None


# -- HTTP CONNECT


def request_of(proxy: OutboundProxy, host: str = "db.example", port: int = 5432) -> list[str]:
    head, _, rest = open_exchange(proxy, host, port).start().decode().partition("\r\n\r\n")
    assert rest == ""
    return head.split("\r\n")


def test_the_request_names_the_target_twice() -> None:
    assert request_of(HTTP) == ["CONNECT db.example:5432 HTTP/1.1", "Host: db.example:5432", "User-Agent: tunnel"]


def test_the_request_has_the_credentials_of_the_url() -> None:
    word = base64.b64encode(b"user:p@ss").decode()
    assert f"Proxy-Authorization: Basic {word}" in request_of(HTTP_LOGIN)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("DB.Example", "DB.Example:443"), ("db", "db:443"), ("192.0.2.1", "192.0.2.1:443"), ("2001:db8::1", "[2001:db8::1]:443")],
)
def test_a_host_is_sent_as_it_is_written(host: str, expected: str) -> None:
    assert request_of(HTTP, host, 443)[:2] == [f"CONNECT {expected} HTTP/1.1", f"Host: {expected}"]


@pytest.mark.parametrize(
    ("proxy", "host"), [(HTTP, "b\u00fccher.example"), (HTTP, "a b"), (HTTP, ""), (SOCKS, ""), (SOCKS, "a" * 256)]
)
def test_a_target_that_the_protocol_cannot_express_is_refused(proxy: OutboundProxy, host: str) -> None:
    with pytest.raises(ConfigError):
        open_exchange(proxy, host, 443)


def http(answer: str) -> bytes:
    return answer.replace("\n", "\r\n").encode("latin-1")


OPENED = {
    "plain": http("HTTP/1.1 200 Connection established\n\n"),
    "no reason": http("HTTP/1.1 200\n\n"),
    "HTTP/1.0": http("HTTP/1.0 200 OK\nProxy-Agent: old\n\n"),
    "bare newlines": b"HTTP/1.1 200 OK\n\n",
    "closing, it says": http("HTTP/1.1 200 OK\nConnection: close\n\n"),
    "a length, to be ignored": http("HTTP/1.1 200 OK\nContent-Length: 5\n\n"),
    "chunked, to be ignored": http("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n"),
    "after interim answers": http("HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\n\n"),
    "a large header": http("HTTP/1.1 200 OK\n" + "X-Padding: 0123456789abcdef\n" * 150 + "\n"),
}
NOT_OPENED = {
    "credentials wanted": (http('HTTP/1.1 407 Proxy Authentication Required\nProxy-Authenticate: Basic realm="x"\n\n'), "407"),
    "forbidden": (http("HTTP/1.1 403 Forbidden\nContent-Length: 3\n\nno!"), "refused: 403 Forbidden"),
    "another success": (http("HTTP/1.1 204 No Content\n\n"), "204"),
    "no reason": (http("HTTP/1.1 502\n\n"), "refused: 502"),
    "HTTP/1.0": (http("HTTP/1.0 503 Busy\n\n"), "503 Busy"),
    "chunked": (http("HTTP/1.1 500 Oops\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"), "500 Oops"),
    "a redirection": (http("HTTP/1.1 302 Found\nLocation: http://elsewhere\n\n"), "302"),
    "hostile words": (http("HTTP/1.1 403 \xff]peer=spiffe://x [\n\n"), r"403 \xff\x5dpeer=spiffe://x \x5b"),
}
GARBLED = {
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nwhat is this\r\n\r\n",
    "nothing": b"\r\n\r\n\r\n",
    "a switch that nobody asked for": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


def every_split(make: Callable[[], Exchange], data: bytes) -> None:
    """The verdict is the same wherever the data is cut, and byte by byte."""
    said, whole = outcome(make(), [data])
    step = max(1, len(data) // 300)
    for cut in range(0, len(data) + 1, step):
        assert outcome(make(), [data[:cut], data[cut:]]) == (said, whole)
    assert outcome(make(), [data[at : at + 1] for at in range(len(data))]) == (said, whole)


@pytest.mark.parametrize("answer", OPENED.values(), ids=OPENED)
@pytest.mark.parametrize("behind", [b"", b"\x16\x03\x01 from the target \r\n\r\n", b"HTTP/1.1 403 No\r\n\r\n"])
def test_status_200_connects_and_keeps_the_bytes_after_the_header(answer: bytes, behind: bytes) -> None:
    assert outcome(open_exchange(HTTP, "db", 1), [answer + behind])[1] == behind
    every_split(lambda: open_exchange(HTTP, "db", 1), answer + behind)


@pytest.mark.parametrize(("answer", "words"), NOT_OPENED.values(), ids=NOT_OPENED)
def test_every_other_status_is_a_refusal_with_its_text(answer: bytes, words: str) -> None:
    verdict = outcome(open_exchange(HTTP, "db", 1), [answer])[1]
    assert isinstance(verdict, tuple)
    kind, reason, text = verdict
    assert (kind, reason) == (TargetError, TargetFault.PROXY_REFUSED)
    assert text.startswith("proxy http://proxy:8080 refused: ")
    assert words in text
    every_split(lambda: open_exchange(HTTP, "db", 1), answer)


@pytest.mark.parametrize("answer", GARBLED.values(), ids=GARBLED)
def test_an_invalid_response_is_reported(answer: bytes) -> None:
    verdict = outcome(open_exchange(HTTP, "db", 1), [answer])[1]
    assert isinstance(verdict, tuple)
    assert verdict[:2] == (WireError, WireFault.MALFORMED)
    assert verdict[2].isprintable()
    assert len(verdict[2]) < 1000


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70000 + b"\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, b"a" * 70000],
    ids=["one line", "interim answers", "no line"],
)
@pytest.mark.parametrize("size", [1 << 20, 1000], ids=["whole", "cut"])
def test_the_size_of_a_header_is_bounded(piece: bytes, size: int) -> None:
    pieces = [piece[at : at + size] for at in range(0, len(piece), size)]
    verdict = outcome(open_exchange(HTTP, "db", 1), pieces)[1]
    assert isinstance(verdict, tuple)
    assert verdict[:2] in [(WireError, WireFault.TOO_LARGE), (WireError, WireFault.MALFORMED)]


def test_what_is_behind_the_header_does_not_count_for_its_size() -> None:
    behind = bytes(100_000)
    assert outcome(open_exchange(HTTP, "db", 1), [OPENED["plain"] + behind])[1] == behind


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.sampled_from([b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n"]))
def test_noise_from_an_http_proxy_is_an_error_or_a_wait(pieces: list[bytes], start: bytes) -> None:
    outcome(open_exchange(HTTP, "db", 1), [start, *pieces])


# -- SOCKS5

NO_LOGIN, LOGIN, LOGGED_IN = b"\x05\x00", b"\x05\x02", b"\x01\x00"
BOUND = {
    "IPv4": b"\x05\x00\x00\x01" + bytes(4) + b"\x00\x50",
    "IPv6": b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x50",
    "a name": b"\x05\x00\x00\x03" + b"\x02me" + b"\x00\x50",
    "an empty name": b"\x05\x00\x00\x03" + b"\x00" + b"\x00\x50",
}
ASKED = {
    "db.example": b"\x03\x0adb.example",
    "DB": b"\x03\x02DB",
    "b\u00fccher": b"\x03\x07b\xc3\xbccher",
    "a" * 255: b"\x03\xff" + b"a" * 255,
    "192.0.2.1": b"\x01\xc0\x00\x02\x01",
    "2001:db8::1": b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01",
    "fe80::1%eth0": b"\x03\x0cfe80::1%eth0",
}


def socks(proxy: OutboundProxy = SOCKS, host: str = "db", port: int = 443) -> Exchange:
    return open_exchange(proxy, host, port)


@pytest.mark.parametrize(("host", "encoded"), ASKED.items(), ids=[ascii(host[:20]) for host in ASKED])
def test_a_name_goes_as_a_name_and_an_address_as_an_address(host: str, encoded: bytes) -> None:
    said, _ = outcome(socks(host=host, port=5432), [NO_LOGIN])
    assert said == [b"\x05\x01\x00", b"\x05\x01\x00" + encoded + b"\x15\x38"]


@pytest.mark.parametrize("bound", BOUND.values(), ids=BOUND)
@pytest.mark.parametrize("behind", [b"", b"\x05\x01 from the target"])
def test_socks_connects_and_keeps_the_bytes_after_the_reply(bound: bytes, behind: bytes) -> None:
    for cut in range(len(bound + behind) + 1):
        pieces = [NO_LOGIN[:1], NO_LOGIN[1:], (bound + behind)[:cut], (bound + behind)[cut:]]
        said, leftover = outcome(socks(), pieces)
        assert leftover == behind
        assert len(said) == 2


def test_the_login_of_the_url_is_offered_and_given() -> None:
    for cut in range(3):
        pieces = [LOGIN[:cut], LOGIN[cut:], LOGGED_IN[:cut], LOGGED_IN[cut:], BOUND["IPv4"]]
        said, leftover = outcome(socks(SOCKS_LOGIN), pieces)
        assert said == [b"\x05\x02\x00\x02", b"\x01\x04user\x04p@ss", b"\x05\x01\x00\x03\x02db\x01\xbb"]
        assert leftover == b""


def test_credentials_are_not_sent_unless_the_proxy_selects_the_login() -> None:
    said, leftover = outcome(socks(SOCKS_LOGIN), [NO_LOGIN, BOUND["IPv4"]])
    assert b"p@ss" not in b"".join(said)
    assert leftover == b""


REPLIES = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
    9: "unknown reply",
    255: "unknown reply",
}


@pytest.mark.parametrize(("code", "words"), REPLIES.items())
@pytest.mark.parametrize("rest", [b"", b"\x00\x01", b"\x00\x01" + bytes(6), b"\x00\x77" + bytes(6)])
def test_each_reply_has_its_text(code: int, words: str, rest: bytes) -> None:
    _, verdict = outcome(socks(), [NO_LOGIN, bytes([5, code]) + rest])
    assert isinstance(verdict, tuple)
    assert verdict[:2] == (TargetError, TargetFault.PROXY_REFUSED)
    assert verdict[2] == f"proxy socks5://proxy:1080 refused: {verdict[2].partition('refused: ')[2]}"
    assert words in verdict[2]
    assert f"(reply {code})" in verdict[2]


SOCKS_ERRORS = {
    "no method in common": (SOCKS, [b"\x05\xff"], TargetFault.PROXY_REFUSED, "the URL has no username"),
    "no method though we have a login": (
        SOCKS_LOGIN,
        [b"\x05\xff"],
        TargetFault.PROXY_REFUSED,
        "no common authentication method",
    ),
    "a wrong login": (SOCKS_LOGIN, [LOGIN, b"\x01\x01"], TargetFault.PROXY_REFUSED, "wrong username or password"),
    "a method that was not offered": (SOCKS, [LOGIN], WireFault.MALFORMED, "method 2"),
    "GSSAPI": (SOCKS_LOGIN, [b"\x05\x01"], WireFault.MALFORMED, "method 1"),
    "SOCKS4": (SOCKS, [b"\x00\x5b"], WireFault.MALFORMED, "version 0x00; expected 0x05"),
    "HTTP": (SOCKS, [b"H"], WireFault.MALFORMED, "0x48"),
    "another version of the login": (SOCKS_LOGIN, [LOGIN, b"\x05"], WireFault.MALFORMED, "version 0x05; expected 0x01"),
    "another version of the answer": (SOCKS, [NO_LOGIN, b"\x04"], WireFault.MALFORMED, "0x04"),
    "an unknown kind of address": (SOCKS, [NO_LOGIN, b"\x05\x00\x00\x02\x00"], WireFault.MALFORMED, "address type 2"),
    "an answer before the question": (SOCKS, [NO_LOGIN + BOUND["IPv4"]], WireFault.MALFORMED, "unexpected bytes"),
    "an answer before the login": (SOCKS_LOGIN, [LOGIN + LOGGED_IN], WireFault.MALFORMED, "unexpected bytes"),
    "an answer behind the login": (SOCKS_LOGIN, [LOGIN, LOGGED_IN + b"\x05"], WireFault.MALFORMED, "unexpected bytes"),
}


@pytest.mark.parametrize(("proxy", "pieces", "reason", "words"), SOCKS_ERRORS.values(), ids=SOCKS_ERRORS)
def test_socks_failures_have_their_reason(proxy: OutboundProxy, pieces: list[bytes], reason: object, words: str) -> None:
    _, verdict = outcome(socks(proxy), pieces)
    assert isinstance(verdict, tuple)
    assert verdict[1] is reason
    assert words in verdict[2]
    assert "p@ss" not in verdict[2]


@given(st.lists(st.binary(max_size=12), max_size=6), st.sampled_from([[], [NO_LOGIN], [LOGIN], [LOGIN, LOGGED_IN]]))
def test_noise_from_a_socks_proxy_is_an_error_or_a_wait(pieces: list[bytes], start: list[bytes]) -> None:
    outcome(socks(SOCKS_LOGIN), [*start, *pieces])
