"""The overview document as a client reads it: of any version, and of a server that is not to be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.overview_documents import NOW, sample_document
from tunnel.errors import WireError
from tunnel.lazy_dataclass import fields
from tunnel.status.overview_reading import parse_overview

Path = tuple[str | int, ...]


def paths(value: Any, before: Path = ()) -> Iterator[Path]:
    """Where each value of a document is; of an array the first one."""
    if before:
        yield before
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*before, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*before, 0))


def document_with(path: Path, value: Any = None, *, is_removed: bool = False) -> dict[str, Any]:
    """The sample with one value changed or removed."""
    document = sample_document()
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if is_removed:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def texts(value: object) -> Iterator[str]:
    """Every text in a summary."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from texts(one)
    elif hasattr(value, "__lazy_fields__"):
        for field in fields(value):
            yield from texts(getattr(value, field.name))


PATHS = list(paths(sample_document()))
KEYS = [path for path in PATHS if isinstance(path[-1], str)]


def test_the_document_is_parsed() -> None:
    seen = parse_overview(sample_document())
    assert (seen.pid, seen.is_ready, seen.phase, seen.started) == (4711, True, "listening", NOW - 12400)
    redis, db = seen.listeners
    assert (redis.name, redis.open, redis.refused, redis.connection_limit.most) == ("redis", 3, 11, 1000)
    assert [(one.name, one.is_healthy, one.error) for one in db.targets][1] == (
        "db2.example.org:8443",
        False,
        "connection refused",
    )
    assert seen.identities[0].rotations == (NOW - 400, NOW - 12400)
    assert [one.name for one in seen.trust_domains] == ["example.org", "partner.org"]
    assert seen.peers[0].returned == 1_900_000_000
    assert seen.refusals[0].entry == '{ allow = "spiffe://example.org/cron" }'
    assert seen.lag.buckets[0] == (0.0005, 48000)


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_missing_key_and_null_have_a_default(path: Path) -> None:
    if path == ("listeners",):
        return
    missing = parse_overview(document_with(path, is_removed=True))
    assert missing == parse_overview(document_with(path, None))


@pytest.mark.parametrize("document", [{}, {"ok": True}, {"listener": []}])
def test_a_document_without_listeners_is_no_overview(document: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="no listeners; expected a status port of tunnel"):
        parse_overview(document)


def test_an_unknown_key_is_ignored() -> None:
    expected = parse_overview(sample_document())
    assert parse_overview(sample_document(tomorrow=[{"x": 1}])) == expected
    assert parse_overview(document_with(("peers", 0, "tomorrow"), 1)) == expected


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_is_named_in_one_line(path: Path) -> None:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]
    for value in (True, "text", -1, [], {}, [1], 10**400, float("nan"), float("inf"), "\x1b[2J" * 2000):
        fault = _fault_of(document_with(path, value))
        assert fault == "" or (fault.startswith(f"overview: {where}") and "; expected " in fault)
        assert fault.isprintable()
        assert len(fault) < 200


def _fault_of(document: dict[str, Any]) -> str:
    """The error; empty if the value is right, or if no client reads it."""
    try:
        parse_overview(document)
    except WireError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("pid",), 1.5, "pid: invalid value 1.5; expected a whole number"),
        (("pid",), True, "pid: invalid value True; expected a whole number"),
        (("listeners", 0, "open"), -1, r"listeners\[0\].open: invalid value -1"),
        (("listeners", 0, "limits", "connections", "max"), 1 << 63, r"listeners\[0\].limits.connections.max: invalid value 9"),
        (("time",), float("nan"), "time: invalid value nan; expected a number"),
        (("started",), 1e19, "started: invalid value"),
        (("hostname",), ["x"], "hostname: invalid value .*; expected a text"),
        (("ready",), 1, "ready: invalid value 1; expected true or false"),
        (("peers",), {}, "peers: invalid value {}; expected an array"),
        (("peers", 0), "x", r"peers\[0\]: invalid value 'x'; expected an object"),
        (("loop_lag", "buckets", 0), [1], r"buckets\[0\]: invalid value \[1\]; expected a bound and a count"),
    ],
)
def test_each_kind_of_wrong_value_has_its_expectation(path: Path, value: object, words: str) -> None:
    with pytest.raises(WireError, match=words):
        parse_overview(document_with(path, value))


@given(st.text(max_size=50))
def test_every_text_becomes_printable_ascii(text: str) -> None:
    document = json.loads(json.dumps(sample_document()), object_hook=lambda values: _replace_texts(values, text))
    for seen in texts(parse_overview(document)):
        assert seen.isascii()
        assert seen.isprintable()


def _replace_texts(values: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        key: text
        if isinstance(value, str)
        else [text]
        if value and isinstance(value, list) and isinstance(value[0], str)
        else value
        for key, value in values.items()
    }


def test_a_text_is_bounded_and_an_access_rule_with_the_longest_id_fits() -> None:
    rule = f"--allow-id spiffe://example.org/{'x' * 2028}"
    document = sample_document(hostname="\x00" * 100_000, version="é\u202e漢\ud800\x7f")
    document["refusals"][0]["flag"] = rule
    seen = parse_overview(document)
    assert len(seen.hostname) < 5000
    assert seen.version == r"\xe9\u202e\u6f22\ud800\x7f"
    assert seen.refusals[0].flag == rule
