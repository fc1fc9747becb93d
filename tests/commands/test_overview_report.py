"""`tunnel status`: the report, its exit code, and every answer of a server."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.overview_documents import sample_document
from tests.support.plain_backends import Backend
from tunnel.cli.main import main
from tunnel.cli.parser import parse_command_line
from tunnel.commands.overview import query, status, top
from tunnel.commands.overview.report import describe_overview
from tunnel.errors import ConfigError
from tunnel.status.overview_reading import parse_overview

PAGE = Path(__file__).parents[2] / "docs/top.md"


def report(width: int | None = None, **changes: Any) -> list[str]:
    return [line.text for line in describe_overview(parse_overview(sample_document(**changes)), width)]


def http(body: bytes, code: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class StatusPort(Backend):
    """Returns the same answer to every request, and records the requests."""

    def __init__(self, answer: bytes) -> None:
        self.requests: list[str] = []
        self._answer = answer
        super().__init__(self._respond)

    def _respond(self, connection: socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        self.requests.append(data.split(b"\r\n")[0].decode())
        with suppress(OSError):
            connection.sendall(self._answer)

    @property
    def url(self) -> str:
        return f"http://{self.target}"


# -- the report


def test_the_page_shows_the_report_of_the_program() -> None:
    shown = re.search(r"^```text\n(tunnel 0\.1\.0 on .*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert shown.group(1).splitlines() == report()


def test_only_tables_are_cut_to_the_width_of_a_terminal() -> None:
    rule = f"--allow-id spiffe://example.org/{'x' * 200}"
    document = sample_document()
    document["refusals"][0].update(flag=rule, peer=rule)
    lines = [line.text for line in describe_overview(parse_overview(document), 60)]
    assert f"      to admit this peer: {rule}" in lines
    rows = [line for line in lines if re.match(r"  \S", line)]
    assert max(map(len, rows[3:])) <= 60
    assert any(
        rule in line and "no-matching-rule" in line
        for line in (one.text for one in describe_overview(parse_overview(document)))
    )


def test_a_problem_is_below_what_has_it() -> None:
    document = sample_document(ready=False, problem="redis: identity has expired", more_peers=3)
    document["listeners"][0].update(ready=False, problem="identity has expired")
    document["listeners"][0]["limits"]["handshakes"]["used"] = 512
    document["listeners"][1]["targets"] = [{"target": "db1:1", "healthy": False}]
    document["identities"][0]["problem"] = "the stream is down"
    lines = [line.text for line in describe_overview(parse_overview(document))]
    assert "  not ready: redis: identity has expired" in lines
    assert "      problem: identity has expired" in lines
    assert "      all 512 handshake slots are in use" in lines
    assert "      target db1:1: unhealthy, 0 open, 0 failures" in lines
    assert "      problem: the stream is down" in lines
    assert "  and 3 more peers" in lines
    states = [line.split()[4:6] for line in lines if line.startswith(("  redis", "  db"))]
    assert states == [["not", "ready"], ["target", "down"]]


def test_an_empty_document_has_a_report() -> None:
    lines = [line.text for line in describe_overview(parse_overview({"listeners": [{}], "refusals": [{}], "identities": [{}]}))]
    assert lines[:2] == ["tunnel (unknown version) on an unknown host", "  not ready: no reason given"]
    assert "Peers: none" in lines


# -- the command


def test_the_report_and_the_document_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusPort(http(json.dumps(sample_document()).encode())) as port:
        assert main(["status", port.url], {"TERM": "xterm"}) == 0
        assert capsys.readouterr() == ("".join(f"{line}\n" for line in report()), "")
        assert main(["status", port.url, "--json", "--listener", "a b&c"], {}) == 0
        out, err = capsys.readouterr()
    assert (json.loads(out), err) == (sample_document(), "")
    assert port.requests == ["GET /_overview HTTP/1.1", "GET /_overview?listener=a+b%26c HTTP/1.1"]


def test_a_proxy_that_is_not_ready_is_printed_with_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    document = sample_document(ready=False, problem="initializing")
    with StatusPort(http(json.dumps(document).encode())) as port:
        assert main(["status", port.url], {}) == 1
        assert "  not ready: initializing\n" in capsys.readouterr().out
        assert main(["status", port.url, "--json"], {}) == 1
        assert json.loads(capsys.readouterr().out) == document


@pytest.mark.parametrize("environ", [{"TERM": "xterm"}, {"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_only_a_terminal_has_colours(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with StatusPort(http(json.dumps(sample_document()).encode())) as port:
        assert main(["status", port.url], environ) == 0
    assert ("\x1b[" in capsys.readouterr().out) == (environ == {"TERM": "xterm"})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            http(b"404 page not found\n", "404 Not Found"),
            "404 Not Found: no overview; expected the address of --status, not of --health",
        ),
        (http(b"[]"), "200 OK without an overview; expected a status port of tunnel"),
        (http(b"[" * 100_000), "200 OK without an overview"),
        (http(b'{"pid": 1' + b"0" * 5000 + b"}"), "200 OK without an overview"),
        (http(b"421 host-not-allowed", "421 Misdirected Request"), "421 Misdirected Request without an overview"),
        (http(b"x", "302 Found"), "302 Found without an overview"),
        (http(b'{"ok": true}'), "overview: invalid document: no listeners"),
        (http(b'{"listeners": [{"open": NaN}]}'), "listeners[0].open: invalid value nan; expected a whole number"),
        (http(b'{"listeners": "\\u001b[31m\\n"}'), "listeners: invalid value '\\x1b[31m\\n'; expected an array"),
        (http(b" " * (4 << 20)), "response is larger than 4 MiB"),
        (b"SSH-2.0-x\r\n", "response is not HTTP"),
        (b"", "no response: connection closed"),
    ],
)
def test_every_other_response_is_reported_in_one_line(answer: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with StatusPort(answer) as port:
        assert main(["status", port.url], {}) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"tunnel status: {port.url}: ")
    assert words in err
    assert err[:-1].isprintable()


def test_an_unknown_listener_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusPort(http(b"404 unknown listener\n", "404 Not Found")) as port:
        assert main(["status", port.url, "--listener=redis"], {}) == 1
    assert '404 Not Found: no listener "redis", or no overview' in capsys.readouterr().err


# -- the line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("status http://127.0.0.1:1/_status/x", "it has a path; expected HOST:PORT or unix:PATH"),
        ("status localhost", "missing port"),
        ("status 10.0.0.1:1", "is not on loopback; expected --cacert"),
        ("status http://localhost:1 --cacert=x", "--cacert has no effect"),
        ("status localhost:1 --cacert=/nonexistent", "--cacert: '/nonexistent': no such file"),
        ("top localhost:1 --interval=99ms", "too short; expected 100ms or longer"),
        ("top localhost:1 --interval=0s", "not above zero"),
    ],
)
def test_a_wrong_line_is_reported(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split(), {}) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err


@pytest.mark.parametrize(
    ("environ", "terminals", "words"),
    [
        ({"TERM": "dumb"}, ("stdin", "stdout"), 'TERM is "dumb" or not set; expected'),
        ({}, ("stdin", "stdout"), "use tunnel status"),
        ({"TERM": "xterm"}, ("stdout",), "standard input is no terminal; expected one, or use tunnel status"),
        ({"TERM": "xterm"}, ("stdin",), "standard output is no terminal"),
    ],
)
def test_top_needs_a_terminal(
    environ: dict[str, str],
    terminals: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda name=name: name in terminals, raising=False)
    assert main(["top", "localhost:1"], environ) == 1
    assert words in capsys.readouterr().err


def test_an_interval_is_a_duration() -> None:
    assert top.parse_interval("2.5s") == 2.5


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ((), "process 1 has no --status; expected HOST:PORT or unix:PATH"),
        (("localhost:1", "unix:/x"), "process 1 has several status ports; expected one of localhost:1, unix:/x"),
    ],
)
def test_the_default_is_the_only_status_port_of_process_1(
    ports: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(query, "own_status_ports", lambda: tuple(map(query.parse_place, ports)))
    assert main(["status"], {}) == 1
    assert words in capsys.readouterr().err
    with StatusPort(http(json.dumps(sample_document()).encode())) as port:
        monkeypatch.setattr(query, "own_status_ports", lambda: (query.parse_place(port.url),))
        assert main(["status", "--json"], {}) == 0


def test_a_place_has_no_path() -> None:
    assert str(query.parse_place("unix:/run/s")) == "unix:/run/s"
    with pytest.raises(ConfigError, match="it has a path"):
        query.parse_place("localhost:1/x")


def test_an_address_is_shown_as_ascii() -> None:
    arguments = parse_command_line(["status", "unix:/run/t\u00fcr"], (status.COMMAND,), {}).arguments
    place, asked = query.build_overview_query(arguments)
    assert (place, str(asked.url)) == (r"unix:/run/t\xfcr", "unix:/run/t\u00fcr /_overview")


@given(st.text(max_size=300), st.integers(0, (1 << 63) - 1), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_no_document_breaks_the_report(text: str, number: int, width: int) -> None:
    def replace(values: dict[str, Any]) -> dict[str, Any]:
        kinds = {str: text, int: number, float: float(number // 2)}
        return {key: kinds.get(type(value), value) for key, value in values.items()}

    overview = parse_overview(json.loads(json.dumps(sample_document()), object_hook=replace))
    for shown in (width, None):
        for line in describe_overview(overview, shown):
            assert line.text.isascii()
            assert not line.text or line.text.isprintable()
