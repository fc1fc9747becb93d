"""All mistakes in configuration files are reported at once, each with its file, line and key path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnel.config.file.document import MAX_FILE_BYTES, parse_document
from tunnel.config.file.listener_keys import CLIENT, SERVER
from tunnel.config.file.loader import build_process, load_config, load_files
from tunnel.config.file.positions import MAX_DEPTH
from tunnel.config.file.problem import ConfigFileError, Problems
from tunnel.config.file.writer import encode_table
from tunnel.errors import ConfigError

IDENTITY = '[identity.default]\nworkload-api = "unix:///run/spire/agent.sock"\n'
FILES = '[identity.default]\ncert = "/c"\nkey = "/k"\n'
LISTENER = '[[server]]\nlisten = ":1"\ntarget = "localhost:2"\n'
OUTGOING = '[[client]]\nlisten = "localhost:1"\ntarget = "db.test:2"\n'
ACCESS = 'access = [{ allow = "spiffe://a.test/w" }]\n'
NO_VALUE = 'invalid TOML: invalid value; expected a "string" in quotes, a number, true, false, a [list] or a { table }'
TWICE = "invalid TOML: defined twice in this file, or as both [TABLE] and [[TABLE]]"
VALID = IDENTITY + LISTENER + ACCESS
TRACES = f"{VALID}[traces]\nurl = 'https://c/v1/traces'\n"
MISTAKES = Path(__file__).parent / "mistakes.toml"

Refuse = Callable[[str], list[str]]


def problems_of(*paths: str | Path) -> list[str]:
    with pytest.raises(ConfigFileError) as caught:
        load_config(paths)
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refuse:
    monkeypatch.chdir(tmp_path)

    def refuse_text(text: str) -> list[str]:
        Path("t.toml").write_text(text)
        return problems_of("t.toml")

    return refuse_text


def test_ten_mistakes_are_ten_messages_with_their_lines() -> None:
    text = MISTAKES.read_text().splitlines()
    expected = [number for number, line in enumerate(text, 1) if "# mistake" in line]
    assert len(expected) == 10
    with pytest.raises(ConfigFileError) as caught:
        load_config([MISTAKES])
    assert [problem.line for problem in caught.value.problems] == expected
    assert [str(problem).removeprefix(f"{MISTAKES}:") for problem in caught.value.problems] == [
        '2: shutdown-timeout: invalid type: an integer; expected a duration such as "10s"',
        '5: status.listen: invalid address "127.0.0.1": missing port; expected HOST:PORT or unix:PATH',
        "8: defaults.on-withdrawl: unknown key; did you mean on-withdrawal?",
        "13: identity.legacy.cert: needs key",
        '19: access.web.rules[1].alow: unknown key "alow"; did you mean allow?',
        "25: server[0].target: 10.0.0.1:6379 is not local, and connections there are not encrypted; expected localhost:PORT, "
        "127.0.0.1:PORT, [::1]:PORT or unix:PATH, or unsafe-target = true",
        '26: server[0].identity: unknown identity "defalt"; did you mean default?',
        '29: client[0]: missing key target; expected an address such as "localhost:6379", "unix:PATH" or "srv:NAME", or a list',
        "31: client[0].max-handshakes: invalid number -1; expected a number from 0 to 4294967295",
        "32: client[0].plaintext: for [[server]] only, not for [[client]]",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a =", f"t.toml:1:4: {NO_VALUE}"),
        ("a = any", f"t.toml:1:5: {NO_VALUE}"),
        ("a = 10s", "t.toml:1:7: invalid TOML: text after a value; expected a new line, or quotes around text"),
        ("\n[a", "t.toml:2:3: invalid TOML: expected ']' at the end of a table declaration"),
        ("a = 1\na = 2", f"t.toml:2:6: {TWICE}"),
        ("[a]\n[a]", f"t.toml:2:3: {TWICE}"),
        ("[[a]]\n[a]", f"t.toml:2:3: {TWICE}"),
        ("a = {}\na.b = 1", "t.toml:2:8: invalid TOML: this table or list is complete; expected its keys in one place"),
        (f"a = {'[' * 20}", f"t.toml:1: nested too deeply; expected at most {MAX_DEPTH} levels"),
        ("", "t.toml: no listener; expected at least one table [[server]] or [[client]]"),
        (IDENTITY, "t.toml: no listener; expected at least one table [[server]] or [[client]]"),
        (f"{VALID}timed-reload = 0", "t.toml:7: server[0].timed-reload: unknown key in this table; expected before the first"),
        ("servr = 1", "t.toml:1: servr: unknown key; did you mean server?"),
        ('"a b\\n" = 1', 't.toml:1: "a b\\n": unknown key'),
        ("[server]", "t.toml:1: server: invalid type: a table; expected a list of tables: [[server]]"),
        ("server = [1]", "t.toml:1: server[0]: invalid type: an integer; expected a table: [[server]]"),
        ("identity = 1", "t.toml:1: identity: invalid type: an integer; expected a table: [identity.NAME]"),
        ("[identity]\na = 1.5", "t.toml:2: identity.a: invalid type: a float; expected a table: [identity.NAME]"),
        (
            '[identity."a b"]',
            't.toml:1: identity."a b": invalid name "a b"; expected 1 to 63 letters, digits, dots, underscores and hyphens',
        ),
        ("log = 1979-05-27", "t.toml:1: log: invalid type: a date or time; expected a table: [log]"),
        ('[log]\nquiet = ["conns", "x"]', None),
        ("[log]\nsyslog = 1", "t.toml:2: log.syslog: invalid type: an integer; expected true or false"),
        ("[status]", "t.toml:1: status: missing key listen; expected"),
        (f"{VALID}[metrics]\ninterval = 0", 't.toml:8: metrics.interval: invalid duration "0": not above zero'),
        (f"{VALID}[traces]\n", "t.toml:7: traces: missing key url; expected an http:// or https:// URL with a path"),
        (
            f"{VALID}[traces]\nurl = 'http://c:4318'\n",
            't.toml:8: traces.url: invalid URL "http://c:4318": missing path; expected',
        ),
        (f"{TRACES}ratio = 0", "t.toml:9: traces.ratio: invalid number 0; expected a number above 0 and at most 1"),
        (f"{TRACES}ratio = nan", "t.toml:9: traces.ratio: invalid number nan; expected"),
        (f"{TRACES}ratio = '1'", "t.toml:9: traces.ratio: invalid type: a string; expected a number above 0"),
        (
            f"{TRACES}headers = ['a: b', 'geheim']",
            't.toml:9: traces.headers[1]: invalid header; expected "NAME: VALUE" in printable ASCII',
        ),
        (f"{TRACES}headers = 'a b: geheim'", "t.toml:9: traces.headers: invalid header; expected"),
        (f"{TRACES}headers = 'a: \u00e9'", "t.toml:9: traces.headers: invalid header; expected"),
        (f"{TRACES}headers = 'Host: x'", "t.toml:9: traces.headers: invalid header Host: each request has its own"),
        (f"{VALID}[metrics]\npeers = 1001", "t.toml:8: metrics.peers: invalid number 1001; expected a number from 0 to 1000"),
        (f"{VALID}[monitor]\n", "t.toml:7: monitor: invalid type: a table; expected a list of tables: [[monitor]]"),
        (f'{VALID}[[monitor]]\nlisteners = ["x"]\n', 't.toml:8: monitor[0].listeners[0]: unknown listener "x"'),
        (f"{VALID}[[monitor]]\nstatus = 1\n", "t.toml:8: monitor[0].status: invalid type; expected a table"),
        (f"{VALID}[[monitor]]\nhealth = 1\n", "t.toml:8: monitor[0].health: invalid type; expected a table"),
        (f"{VALID}[health]\n", "t.toml:7: health: missing key listen; expected an address such as"),
        (
            f'{VALID}[health]\nlisten = "https://:1"\n',
            't.toml:8: health.listen: invalid address "https://:1": health is served in plain HTTP; expected http://:1',
        ),
        (
            f'{VALID}[health]\nlisten = ":9"\n[[monitor]]\n[monitor.health]\nlisten = "http://:9"\n',
            "t.toml:11: monitor[0].health.listen: :9 is also the address of another health port; expected an address of its",
        ),
        (
            f'{VALID}[status]\nlisten = "http://:9"\n[health]\nlisten = ":9"\n',
            "t.toml:10: health.listen: :9 is also the address of the status port; expected an address of its own",
        ),
    ],
)
def test_a_mistake_in_the_process(refuse: Refuse, text: str, expected: str | None) -> None:
    found = refuse(text)
    assert expected is None or found[0].startswith(expected)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ('workload-api = "/x"\n', 2, 'workload-api: invalid Workload API address "/x": missing scheme; expected unix:///x'),
        ('spiffe-id = "spiffe://a/b"\n', 2, "spiffe-id: needs workload-api"),
        ('cert = "c"\n', 2, "cert: needs key"),
        ('key = "c"\n', 2, "key: needs cert"),
        ('cert = ""\nkey = "k"\n', 2, 'cert: invalid file name "": empty'),
        ('cert = "\\u0000"\nkey = "k"\n', 2, 'cert: invalid file name "\\x00": NUL character'),
        ("cert = 1\nkey = 'k'\n", 2, "cert: invalid type: an integer; expected a file name"),
        ('acme = "*.a.test"\nacme-email = "a@b"\nacme-agree-to-tos = true\n', 2, 'acme: invalid name "*.a.test": a wildcard'),
        ('acme = "a.test"\nacme-email = "b"\nacme-agree-to-tos = true\n', 3, 'acme-email: invalid address "b"; expected one'),
        ('keystore = "k"\nworkload-api = "unix:///x"\n', 1, ": workload-api and keystore are mutually exclusive"),
        ('keystore = "k"\nstorepass-file = "missing"\n', 3, "storepass-file: cannot read the file: no such file or directory"),
        ('keystore = "k"\nstorepass-file = "/dev/zero"\n', 3, "storepass-file: the file is too large; expected at most 4096"),
        ('keystore = "k"\nstorepass-file = "x"\nstorepass = "y"\n', 4, "storepass: storepass and storepass-file are mutually"),
        ('acme = "a.test"\nacme-agree-to-tos = true\n', 2, "acme: needs acme-email"),
        ('acme = "a.test"\nacme-email = "a@b"\nacme-agree-to-tos = false\n', 4, "acme-agree-to-tos: no agreement"),
        (
            'cert = "c"\nkey = "k"\ncrl-missing = "maybe"\n',
            4,
            'crl-missing: invalid value "maybe"; expected "refuse" or "accept"',
        ),
    ],
)
def test_a_mistake_in_an_identity(refuse: Refuse, text: str, line: int, expected: str) -> None:
    [problem] = refuse(f"[identity.default]\n{text}{LISTENER}{ACCESS}")
    assert problem.startswith(f"t.toml:{line}: identity.default{'' if expected.startswith(':') else '.'}{expected}")


PIN = "sha256:" + "A" * 43 + "="


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (IDENTITY + LISTENER, 3, "server[0]: missing key access: no access rule for clients"),
        (IDENTITY + OUTGOING, 3, "client[0]: missing key access: no access rule for the server"),
        (IDENTITY + LISTENER + "access = []", 6, "server[0].access: no access rule"),
        (
            VALID.replace('"spiffe://a.test/w"', "{ cnn = 'x' }"),
            6,
            'server[0].access[0].allow.cnn: unknown key "cnn"; did you mean cn?',
        ),
        (FILES + LISTENER + ACCESS, 7, "server[0].access[0].allow: a SPIFFE ID needs the Workload API"),
        (
            IDENTITY + OUTGOING + 'access = [{ allow = { source = "::1" } }]',
            6,
            "client[0].access[0].allow.source: for servers only",
        ),
        (FILES + OUTGOING + 'trust-domains = "a.test"', 7, "client[0].trust-domains: trust-domains needs the Workload API"),
        (
            IDENTITY + LISTENER + 'disable-authentication = true\ntrust-domains = "a.test"',
            7,
            "server[0].trust-domains: trust-domains needs access",
        ),
        (VALID + 'trust-domains = ["a.test", "A"]', 7, 'server[0].trust-domains[1]: invalid SPIFFE ID "A"'),
        (VALID + "trust-domains = []", 7, "server[0].trust-domains: empty"),
        (IDENTITY + LISTENER + "access = {}", 6, "server[0].access: empty: no peer would be admitted"),
        (
            IDENTITY + LISTENER + "access = 1",
            6,
            "server[0].access: invalid type: an integer; expected the name of an access list",
        ),
        (IDENTITY + LISTENER + "access = { rules = 1 }", 6, "server[0].access.rules: invalid type"),
        (IDENTITY + LISTENER + 'access = { policy = "p" }', 6, "server[0].access.policy: needs query"),
        (IDENTITY + LISTENER + 'access = "x"', 6, 'server[0].access: unknown access list "x"; expected a table [access.NAME]'),
        (VALID + "[access.x]\nrule = 1", 8, "access.x.rule: unknown key; did you mean rules?"),
        (VALID + "[access.x]\nrules = [\n5]", 9, "access.x.rules[0]: invalid"),
        (
            VALID + "disable-authentication = true",
            6,
            "server[0].access: access and disable-authentication are mutually exclusive: no certificate is requested",
        ),
        (
            IDENTITY + LISTENER + f'access = {{ spki-pins = "{PIN}" }}',
            6,
            "server[0].access.spki-pins: spki-pins and the Workload",
        ),
        (
            FILES + LISTENER + f'access = {{ spki-pins = "{PIN}", rules = [{{ allow = {{ cn = "w" }} }}] }}',
            7,
            "server[0].access.spki-pins: spki-pins and rules are mutually exclusive: a pinned key is the only check",
        ),
    ],
)
def test_a_mistake_in_an_access_list(refuse: Refuse, text: str, line: int, expected: str) -> None:
    found = refuse(text)
    assert found[0].startswith(f"t.toml:{line}: {expected}")
    assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (LISTENER + ACCESS, 1, "server[0]: no identity source; expected a table [identity.NAME]"),
        (LISTENER + ACCESS + LISTENER + ACCESS, 1, "server[0]: no identity source; expected a table [identity.NAME]"),
        (VALID + 'identity = "other"', 7, 'server[0].identity: unknown identity "other"; expected one of default'),
        (VALID.replace('"localhost:2"', "[]"), 5, "server[0].target: empty list; expected an address"),
        (VALID.replace('"localhost:2"', '["localhost:2", "x"]'), 5, 'server[0].target[1]: invalid address "x": missing port'),
        (VALID.replace('"localhost:2"', '["localhost:2", "srv:_a._tcp.b"]'), 5, "server[0].target: srv:_a._tcp.b is not local"),
        (VALID + 'dns-server = "localhost:53"', 7, 'server[0].dns-server: invalid address "localhost:53": host is not an IP'),
        (
            FILES + OUTGOING.replace('"db.test:2"', '["a:1", "srv:_a._tcp.b"]'),
            6,
            "client[0].target: srv:_a._tcp.b has no host name",
        ),
        (VALID + "identity = 1", 7, "server[0].identity: invalid type: an integer; expected a name"),
        (
            FILES.replace("default", "b") + VALID.replace("default", "c"),
            6,
            "server[0]: missing key identity; expected one of b, c",
        ),
        ("[identity.default]\n" + LISTENER + ACCESS, 2, "server[0].identity: identity default has no certificate to present"),
        (
            FILES + OUTGOING + "disable-authentication = true",
            4,
            "client[0].identity: disable-authentication and a certificate are mutually exclusive",
        ),
        (
            '[identity.a]\nacme = "a.test"\nacme-email = "a@b"\nacme-agree-to-tos = true\n' + OUTGOING,
            5,
            "client[0].identity: a certificate from an ACME server is for servers only",
        ),
        (VALID + LISTENER + ACCESS, 8, "server[1].listen: :1 is also the address of the listener at t.toml:3"),
        (
            VALID + 'name = "a"\n' + LISTENER.replace(":1", ":2") + ACCESS + 'name = "a"',
            12,
            "server[1].name: a is also the name of the listener at t.toml:3",
        ),
        (IDENTITY + OUTGOING.replace("localhost:1", ":1") + ACCESS, 4, "client[0].listen: :1 is not local"),
        (FILES + OUTGOING.replace("db.test:2", "unix:x"), 6, "client[0].target: unix:x has no host name to verify"),
        (
            IDENTITY + OUTGOING.replace("db.test:2", "unix:x") + ACCESS + 'proxy = "socks5://p:1"',
            5,
            "client[0].target: unix:x cannot be reached through proxy; expected HOST:PORT",
        ),
        (
            VALID + 'proxy-protocol-mode = "all"',
            7,
            'server[0].proxy-protocol-mode: invalid value "all"; expected "conn", "tls", "tls-full" or',
        ),
        (VALID + 'on-withdrawal = "never"', 7, 'server[0].on-withdrawal: invalid value "never"; expected "close", "keep" or'),
        (VALID + "on-withdrawal = true", 7, "server[0].on-withdrawal: invalid type: a boolean"),
        (VALID + 'plaintext-silence = "1s"', 7, 'server[0].plaintext-silence: needs plaintext = "permit"'),
        (
            VALID + 'plaintext = "permit"\nplaintext-sources = ["10.0.0.1/8"]',
            8,
            "server[0].plaintext-sources[0]: invalid network",
        ),
        (VALID + 'plaintext = "yes"', 7, 'server[0].plaintext: invalid value "yes"; expected "refuse" or "permit"'),
        (VALID + 'cipher-suites = ["UNSAFE-AZURE"]', 7, "server[0].cipher-suites: cipher suite option UNSAFE-AZURE is unsafe"),
        (VALID + 'cipher-suites = "RC4"', 7, 'server[0].cipher-suites: invalid cipher suite option "RC4"'),
        (VALID + "max-rate = nan", 7, "server[0].max-rate: invalid number nan"),
        (VALID + 'max-rate = "1"', 7, "server[0].max-rate: invalid type: a string; expected a number of 0 or more"),
        (VALID + f"alpn = {['x' * 250] * 300}", None, None),
        (VALID + f"alpn = {[f'{number:0250}' for number in range(300)]}", 7, "server[0].alpn: the protocols have 75300 bytes"),
        (VALID + f"alpn = {['h2'] * 10001}", 7, "server[0].alpn: 10001 elements; expected at most 10000"),
        (
            '[defaults]\ncipher-suites = "UNSAFE-AZURE"\n' + VALID,
            2,
            "defaults.cipher-suites: cipher suite option UNSAFE-AZURE is unsafe: it needs allow-unsafe-cipher-suites = true",
        ),
        ("[defaults]\nlisten = 1\n" + VALID, 2, "defaults.listen: unknown key"),
    ],
)
def test_a_mistake_in_a_listener(refuse: Refuse, text: str, line: int | None, expected: str | None) -> None:
    if line is None:
        Path("t.toml").write_text(text)
        assert load_config(["t.toml"]).listeners[0].tls.protocols == ("x" * 250,)
        return
    found = refuse(text)
    assert found[0].startswith(f"t.toml:{line}: {expected}")
    assert len(found) == 1


def test_a_mistake_is_no_reason_for_others(refuse: Refuse) -> None:
    listener = f'identity = "a"\naccess = "b"\n{LISTENER}identity = "a"\naccess = "b"\n'.partition("\n[[")[2]
    assert len(refuse(f"[identty.a]\n[acces.b]\n[[{listener}")) == 2
    assert len(refuse(f"[identity.a]\nx = 1\n[access.b]\nx = 1\n[[{listener}")) == 2


@pytest.mark.parametrize(
    "text",
    [
        VALID.replace("access", "acces"),
        VALID.replace("target", "taget"),
        VALID.replace("workload-api", "workload-ap"),
        FILES.replace("cert", "crt") + OUTGOING,
        FILES.replace("key", "kye") + OUTGOING,
        FILES + LISTENER + "disable-authentificaton = true",
        FILES.replace("default", "a") + FILES.replace("default", "b") + OUTGOING + 'identiy = "b"',
        VALID.replace("localhost", "10.0.0.1") + "unsafe-taget = true",
        VALID + 'plaintxt = "permit"\nplaintext-silence = 0',
        VALID + 'cipher-suites = "UNSAFE-AZURE"\nallow-unsafe-ciper-suites = true',
        IDENTITY + LISTENER + 'access = { polcy = "x", query = "y" }',
        IDENTITY + LISTENER + "access = { rule = [] }",
        FILES + OUTGOING.replace("db.test:2", "unix:x") + 'overide-server-name = "x"',
    ],
)
def test_a_misspelled_key_is_one_mistake(refuse: Refuse, text: str) -> None:
    [problem] = refuse(text)
    assert "unknown key; did you mean " in problem


def test_a_shared_access_list_is_reported_once(refuse: Refuse) -> None:
    second = LISTENER.replace(":1", ":3")
    found = refuse(f'{IDENTITY}{LISTENER}access = "x"\n{second}access = "x"\n[access.x]\nrules = [1]')
    assert len(found) == 1


def test_definitions_in_two_files_name_both_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text(f'shutdown-delay = "1s"\n[log]\n[access.x]\nrules = [{{ allow = "spiffe://a.test/w" }}]\n{VALID}')
    Path("b.toml").write_text(f"[access.x]\n[log]\n{IDENTITY}\n[defaults]\n")
    Path("c.toml").write_text('shutdown-delay = "1s"\n')
    assert problems_of(".") == [
        "./b.toml:1: access.x: defined twice: first at ./a.toml:3; expected one definition in all files",
        "./b.toml:2: log: defined twice: first at ./a.toml:2; expected one definition in all files",
        "./b.toml:3: identity.default: defined twice: first at ./a.toml:5; expected one definition in all files",
        "./c.toml:1: shutdown-delay: defined twice: first at ./a.toml:1; expected one definition in all files",
    ]


def test_files_that_cannot_be_read_are_reported_with_the_mistakes_in_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("latin").write_bytes(b"a = 1\n# \xe9")
    Path("large").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    Path("syntax").write_text("[identity.a")
    Path("digits").write_text(f"a = {'9' * 5000}")
    Path("other").write_text(LISTENER + 'identity = "a"\naccess = "x"\nconnect-timeout = true')
    assert problems_of("empty", "missing", "latin", "large", "syntax", "a\0b", "other", "digits") == [
        "empty: no configuration in this directory; expected files with names that end in .toml",
        "missing: cannot read the file: no such file or directory",
        "latin:2: invalid text: not UTF-8; expected TOML in UTF-8",
        f"large: the file is too large; expected at most {MAX_FILE_BYTES} bytes",
        "syntax:1:12: invalid TOML: expected ']' at the end of a table declaration",
        "a\0b: invalid file name",
        "digits: invalid TOML: a number with too many digits",
        'other:6: server[0].connect-timeout: invalid type: a boolean; expected a duration such as "10s"',
    ]


def test_what_is_not_used_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        VALID.replace('"spiffe://a.test/w"', '{ cn = "w" }')
        + 'identity = "default"\n[identity.b]\n[access.c]\nrules = [{ allow = "spiffe://a.test/w" }]\n'
        + '[identity.d]\nworkload-api = "unix:///x"\nca = "c"'
    )
    loaded = load_files([str(tmp_path / "a.toml")])
    assert [str(warning).removeprefix(f"{tmp_path}/") for warning in loaded.warnings] == [
        "a.toml:6: server[0].access[0]: names no trust domain: it matches peers of our own only",
        "a.toml:8: identity.b: not used by any listener",
        "a.toml:9: access.c: not used by any listener",
        "a.toml:11: identity.d: not used by any listener",
        "a.toml:13: identity.d.ca: not used for peers: the Workload API provides the bundles",
    ]
    assert loaded.config.warnings == tuple(map(str, loaded.warnings))  # which are logged


def test_a_rule_that_the_trust_domains_of_the_listener_exclude_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(VALID + 'trust-domains = ["b.test"]')
    (warning,) = load_files([tmp_path / "a.toml"]).warnings
    assert (warning.key, warning.text.partition(":")[0]) == ("server[0].access[0]", "never matches")


def test_a_million_mistakes_are_a_bounded_message(tmp_path: Path) -> None:
    (tmp_path / "many.toml").write_text(VALID + "".join(f"key{number} = 1\n" for number in range(100_000)))
    found = problems_of(tmp_path / "many.toml")
    assert len(found) == 1001
    assert found[-1] == f"{tmp_path}/many.toml: 99000 more problems"


def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode() + b"\r\n")
    assert len(load_config([tmp_path / "a.toml"]).listeners) == 1


def test_plaintext_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(VALID + 'plaintext = "permit"')
    loaded = load_files([tmp_path / "a.toml"])
    assert [warning.text for warning in loaded.warnings] == ["plain TCP clients are accepted without authentication"]
    assert loaded.config.warnings == ()  # the listener logs more about it


def test_a_secret_in_the_wrong_place_is_not_shown(refuse: Refuse) -> None:
    [problem] = refuse(VALID + 'target-status = "ftp://user:secret@host/"')
    assert "secret" not in problem


NAMES = st.sampled_from(
    [
        *(
            "server",
            "client",
            "identity",
            "access",
            "log",
            "status",
            "health",
            "metrics",
            "defaults",
            "monitor",
            "a",
            "rules",
            "allow",
        ),
        *(
            "workload-api",
            "cert",
            "key",
            "keystore",
            "storepass-file",
            "acme",
            "policy",
            "query",
            "spki-pins",
            "cn",
            "listeners",
        ),
        *SERVER.names(),
        *CLIENT.names(),
    ]
)
TEXTS = st.sampled_from(
    [":1", "localhost:2", "unix:///x", "spiffe://a.test/w", "10s", "a", "close", "permit", "unix:x", "http://x:1", ""]
) | st.text(st.characters(codec="utf-8"), max_size=5)
LEAVES = TEXTS | st.integers() | st.floats() | st.booleans()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20
)


def outcome(text: str) -> list[str]:
    """The mistakes, none for a configuration."""
    found = Problems()
    try:
        document = parse_document(text, "t.toml")
    except ConfigError as error:
        return [str(error)]
    config = build_process([document], found)
    assert (config is None) == bool(found.errors)
    lines = text.count("\n") + 1
    assert all(0 <= problem.line <= lines for problem in found.errors)
    return [str(problem) for problem in found.errors]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_table_is_a_configuration_or_messages(table: dict[str, object]) -> None:
    outcome(encode_table("", table))  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(VALID)), st.integers(0, 12), st.text(max_size=4))
def test_any_text_is_a_configuration_or_messages(start: int, size: int, noise: str) -> None:
    outcome(VALID[:start] + noise + VALID[start + size :])


def test_any_bytes_are_a_configuration_or_messages(tmp_path: Path) -> None:
    for seed in range(50):
        (tmp_path / "noise").write_bytes(os.urandom(seed))
        with pytest.raises(ConfigFileError):
            load_config([tmp_path / "noise"])
