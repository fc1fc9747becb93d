"""A converted command line is a file that builds the same configuration; so is the effective configuration that is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunnel.cli.parser import parse_command_line
from tunnel.commands.config.convert import build_lines
from tunnel.commands.proxy import acme, limits, source, status, tls
from tunnel.commands.proxy import command as proxy
from tunnel.commands.proxy.access import ALLOW, VERIFY
from tunnel.commands.registry import load_commands, load_run
from tunnel.config.file.encode import Style, encode_config
from tunnel.config.file.loader import load_config
from tunnel.config.model import ProcessConfig
from tunnel.errors import ConfigError
from tunnel.lazy_dataclass import replace

SERVER = ("server", "--listen", ":8443", "--target", "localhost:80")
CLIENT = ("client", "--listen", "localhost:81", "--target", "db.test:8443")
API = ("--use-workload-api-addr", "unix:///run/api.sock")
FILES = ("--cert", "c", "--key", "k")
ID = "spiffe://a.test/w"
PIN = "sha256:" + "A" * 43 + "="

LINES = [
    (*SERVER, *API, "--allow-id", ID),
    (*SERVER, *API, "--allow-all"),
    (
        *SERVER,
        *API,
        "--allow-id",
        ID,
        "--allow-trust-domain",
        "b.test",
        "--allow-uri",
        "spiffe://a.test/**",
        "--allow-uri",
        "*",
    ),
    (
        *SERVER,
        *API,
        "--allow-cn",
        "a",
        "--allow-ou",
        "b c",
        "--allow-dns",
        "d.test",
        "--allow-ip",
        "::1",
        "--allow-ip",
        "10.0.0.1",
    ),
    (*SERVER, *API, "--allow-policy", "p.rego", "--allow-query", "data.p.allow"),
    (*SERVER, *API, "--allow-policy", "p.rego", "--allow-query", "data.p.allow", "--allow-id", ID),
    (*SERVER, *API, "--disable-authentication"),
    (*SERVER, *API, "--allow-id", ID, "--spiffe-id", "spiffe://a.test/me", "--spiffe-hint", "h"),
    (*SERVER, *API, "--allow-id", ID, "--use-workload-api-timeout", "1m", "--cacert", "ca"),
    (*SERVER, "--use-workload-api-addr", "tcp://[::1]:1", "--allow-id", ID),
    (*SERVER, *FILES, "--cacert", "ca.pem", "--allow-cn", 'a "quoted" name'),
    (*SERVER, *FILES, "--allow-all"),
    (*SERVER, *FILES, "--allow-all", "--crl", "a.pem", "--crl", "b.der", "--crl-missing", "accept"),
    (*SERVER, *FILES, "--allow-spki-pin", PIN),
    (*SERVER, *FILES, "--disable-authentication"),
    (*SERVER, "--keystore", "k.p12", "--storepass", "p\u00e4ss\n", "--allow-cn", "a"),
    (*SERVER, "--auto-acme-cert", "a.test", "--auto-acme-email", "a@b", "--auto-acme-agree-to-tos", "--allow-all"),
    (
        *(*SERVER, "--auto-acme-cert", "a.test", "--auto-acme-email", "a@b", "--auto-acme-agree-to-tos", "--allow-all"),
        *("--auto-acme-ca", "https://a/", "--auto-acme-renew-check-interval", "1m", "--auto-acme-alt-tls-alpn-port", "1"),
    ),
    (*SERVER, *FILES, "--allow-all", "--auto-acme-testca", "https://a/"),
    (*SERVER[:3], "--target", "10.0.0.1:1", "--unsafe-target", *API, "--allow-id", ID, "--skip-resolve"),
    (*SERVER[:1], "--listen", "unix:a", "--target", "unix:@b", *API, "--allow-id", ID),
    (*SERVER[:1], "--listen", "systemd:web", "--target", "unix:/b", *API, "--allow-id", ID),
    (*SERVER, *API, "--allow-id", ID, "--proxy-protocol"),
    (*SERVER, *API, "--allow-id", ID, "--proxy-protocol-mode", "tls-full", "--target-status", "http://localhost:1/x"),
    (
        *(*SERVER, *API, "--allow-id", ID, "--connect-timeout", "1h30m", "--close-timeout", "0", "--max-conn-lifetime", "1.5s"),
        *("--max-concurrent-conns", "7", "--max-handshakes", "0", "--shutdown-delay", "3ms", "--shutdown-timeout", "1m"),
        *("--timed-reload", "1234567.5s", "--disable-landlock", "--quiet", "conns", "--quiet", "conn-errs", "--syslog"),
    ),
    (*SERVER, *API, "--allow-id", ID, "--use-landlock", "--no-syslog", "--quiet", "all"),
    (*SERVER, *API, "--allow-id", ID, "--log-format", "json", "--access-log", "json", "--access-log-start"),
    (*SERVER, *API, "--allow-id", ID, "--workers", "auto"),
    (*SERVER, *API, "--allow-id", ID, "--access-log", "text", "--access-log-target", "/var/log/tunnel/access.log"),
    (*SERVER, *API, "--allow-id", ID, "--alpn", "h2", "--alpn", "http/1.1", "--max-tls-version", "TLS1.2"),
    (*SERVER, *API, "--allow-id", ID, "--cipher-suites", "CHACHA"),
    (*SERVER, *API, "--allow-id", ID, "--cipher-suites", "UNSAFE-AZURE,AES", "--allow-unsafe-cipher-suites"),
    (
        *(
            *SERVER,
            *API,
            "--allow-id",
            ID,
            "--status",
            "http://127.0.0.1:1",
            "--enable-pprof",
            "--enable-shutdown",
            "--enable-reload",
            "--ui",
        ),
        *("--status-allow-host", "a.test", "--metrics-graphite", "g:1", "--metrics-url", "http://u:p@m/"),
        *("--metrics-prefix", "x", "--metrics-interval", "1s", "--health", ":2", "--metrics-peers", "0"),
    ),
    (*SERVER, *API, "--allow-id", ID, "--health", "http://127.0.0.1:2", "--status-allow-host", "a.test"),
    (*SERVER, *API, "--allow-id", ID, "--health", "systemd:h", "+", *CLIENT, *API, "--verify-id", ID, "--health", "unix:h"),
    (*SERVER, *FILES, "--allow-all", "--status", "unix:s", "--cacert", "ca"),
    (*SERVER, *FILES, "--allow-all", "--traces", "https://u:p@c/v1/traces", "--traces-ratio", "0.5", "--traces-ca", "ca"),
    (*CLIENT, *API, "--verify-id", ID),
    (*CLIENT, *API, "--verify-any"),
    (*CLIENT[:4], "srv:_redis._tcp.example.org", *API, "--verify-id", ID),
    (*CLIENT, *API, "--verify-trust-domain", "b.test", "--verify-uri", "spiffe://a.test/*", "--verify-cn", "x"),
    (*CLIENT, *API, "--verify-ou", "x", "--verify-dns", "y", "--verify-ip", "10.0.0.1"),
    (*CLIENT, *API, "--verify-policy", "p", "--verify-query", "q", "--disable-authentication"),
    (*CLIENT, *FILES),
    (*CLIENT, *FILES, "--override-server-name", "x", "--verify-cn", "y"),
    (*CLIENT, *FILES, "--verify-spki-pin", PIN, "--verify-spki-pin", PIN.replace("A", "B", 1)),
    (*CLIENT, *FILES, "--verify-policy", "p", "--verify-query", "q"),
    (*CLIENT, "--disable-authentication"),
    (*CLIENT, "--disable-authentication", "--cacert", "ca"),
    (*CLIENT, *API, "--verify-id", ID, "--proxy", "socks5://us%40er:p%3Aw@[::1]:1"),
    (*CLIENT, *API, "--verify-id", ID, "--proxy", "http://proxy"),
    (*CLIENT[:1], "--listen", "0.0.0.0:1", "--target", "db:1", "--unsafe-listen", *API, "--verify-id", ID),
    (*SERVER, *API, "--allow-id", ID, "+", *CLIENT, *API, "--verify-id", ID),
    (
        *(*SERVER, *API, "--allow-id", ID, "--status", "localhost:1", "+", *CLIENT, *FILES, "--status", "localhost:2", "+"),
        *(*SERVER[:2], ":9", *SERVER[3:], "--keystore", "k", "--allow-all"),
    ),
]
FLAGS = (
    *source.FLAGS,
    *acme.FLAGS,
    *limits.LIMITS.flags,
    *limits.PROCESS.flags,
    *status.FLAGS,
    status.TARGET_STATUS,
    *tls.FLAGS,
)


def normalized(config: ProcessConfig) -> ProcessConfig:
    """The configuration without the names of identities, which a command line does not have, and without warnings."""
    listeners = tuple(
        replace(listener, identity=replace(listener.identity, name=""), warnings=()) for listener in config.listeners
    )
    return replace(config, listeners=listeners, warnings=())


@pytest.fixture
def reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ProcessConfig]:
    monkeypatch.chdir(tmp_path)

    def load_text(text: str) -> ProcessConfig:
        Path("t.toml").write_text(text)
        return load_config(["t.toml"])

    return load_text


@pytest.mark.parametrize("line", LINES, ids=map(" ".join, LINES))
@pytest.mark.parametrize("is_complete", [False, True], ids=["convert", "show"])
def test_the_file_of_a_line_builds_the_same_configuration(
    reload: Callable[[str], ProcessConfig], line: tuple[str, ...], is_complete: bool
) -> None:
    config = build_lines(line, {})
    text = encode_config(config, Style(is_complete, is_masked=False))
    assert normalized(reload(text)) == normalized(config)
    again = encode_config(reload(text), Style(is_complete, is_masked=False))
    assert again == text


def test_every_flag_of_a_proxy_is_in_one_of_the_lines() -> None:
    given = {token.removeprefix("--").replace("no-", "", 1) for line in LINES for token in line if token.startswith("--")}
    elsewhere = {"use-workload-api", "auto-acme-agree-to-tos", "connect-proxy"}  # of an environment variable; a part of others
    names = {flag.name for command in proxy.COMMANDS for flag in command.flags} - {flag.name for flag in source.PKCS11}
    assert names - given - elsewhere == set()
    assert {flag.name for flag in (*FLAGS, *ALLOW.admitting(), *VERIFY.admitting())} >= set()


def convert(*argv: str) -> int:
    parsed = parse_command_line(["config", "convert", *argv], load_commands(), {})
    return load_run(parsed.command)(parsed.command, parsed.arguments, {})


def test_convert_prints_what_is_not_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("--", *SERVER, *API, "--allow-id", ID) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        '[identity.default]\nworkload-api = "unix:///run/api.sock"\n\n'
        '[[server]]\nname = "server"\nlisten = ":8443"\ntarget = "localhost:80"\n'
        f'access = [{{ allow = "{ID}" }}]\n'
    )


def test_a_password_in_the_output_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("--", *CLIENT, "--keystore", "k", "--storepass", "geheim") == 0
    out, err = capsys.readouterr()
    assert 'storepass = "geheim"' in out
    assert err == "tunnel: warning: the output has the password of a keystore; use storepass-file instead\n"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), "nothing to convert"),
        (("--from-stunnel", "x", "--", *SERVER), "nothing to convert"),
        (("--", *SERVER, *API), "no access rule for clients"),
        (("--", *SERVER, *API, "--allow-id", ID, "+"), "a line is missing beside"),
        (("--", *SERVER, "--keystore", "\udcff", "--allow-all"), "a value is not Unicode"),
        (("--", "exec", "x"), 'expected command but got "exec"'),
    ],
)
def test_what_cannot_be_converted_is_refused(argv: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        convert(*argv)
