"""The grammar of the command line, by the installed command: what is taken, what is refused, and in which words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.installed_command import command, environment, failed_start, refusal, run
from tests.support.processes import LIMIT
from tunnel import __version__

SERVER = ("server", "--listen=127.0.0.1:0", "--target=127.0.0.1:1")
CLIENT = ("client", "--listen=127.0.0.1:0", "--target=db.example.org:1")
UNREAD = "no identity source"  # the first thing that is wrong with a line that has been read to its end
NOWHERE = "unix:///nonexistent/api.sock"

# Every flag that both modes have, in the spellings of an operator who uses all.
BOTH = """
    --use-workload-api-timeout=1h30m --timed-reload=1d --shutdown-timeout=2w --connect-timeout=250ms --close-timeout=0
    --max-conn-lifetime=2h45m1.5s --max-concurrent-conns=0x10 --metrics-graphite=127.0.0.1:2003
    --metrics-url=http://127.0.0.1/metrics --metrics-prefix=proxy --metrics-interval=10s --status=http://127.0.0.1:0
    --enable-pprof --enable-shutdown --quiet=conns --quiet=conn-errs --skip-resolve --disable-landlock --use-landlock
    --cipher-suites=AES,CHACHA,UNSAFE-AZURE --allow-unsafe-cipher-suites --max-tls-version=tls1.2 --cacert=ca.pem
    --storepass=secret --no-use-workload-api --no-syslog --use-workload-api-addr= --keystore= --cert= --key=
    --pkcs11-module= --pkcs11-token-label= --pkcs11-pin=
""".split()
SERVER_ONLY = """
    --target-status=http://localhost/health --proxy-protocol-mode=tls-full --no-proxy-protocol --unsafe-target
    --allow-cn=a --allow-cn=b --allow-ou=a --allow-dns=a.example --allow-dns-san=b.example --allow-ip=10.0.0.1
    --allow-ip-san=::1 --allow-uri=spiffe://a.test/* --allow-uri-san=spiffe://a.test/b/** --no-allow-all
    --no-disable-authentication --allow-policy= --allow-query= --auto-acme-cert= --auto-acme-email= --auto-acme-ca=
    --auto-acme-testca= --no-auto-acme-agree-to-tos --auto-acme-renew-check-interval=1m --auto-acme-alt-tls-alpn-port=5001
""".split()
CLIENT_ONLY = """
    --override-server-name=db --unsafe-listen --proxy=http://127.0.0.1:8080 --connect-proxy=socks5h://127.0.0.1:1080
    --verify-cn=a --verify-ou=a --verify-dns=a.example --verify-dns-san=b.example --verify-ip=10.0.0.1 --verify-ip-san=::1
    --verify-uri=spiffe://a.test/* --verify-uri-san=spiffe://a.test/b/** --verify-policy= --verify-query=
    --no-disable-authentication
""".split()


def each(ask: Callable[..., str], lines: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """What is said of each of many lines, two at a time."""
    lines = list(lines)
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(lines, threads.map(lambda line: ask(*line), lines), strict=True))


def assert_read(lines: Iterable[tuple[str, ...]]) -> None:
    """Each of these lines is read to its end."""
    assert [line for line, said in each(failed_start, lines).items() if not said.startswith(UNREAD)] == []


# -- what is taken


@pytest.mark.parametrize("line", [(*SERVER, *SERVER_ONLY, *BOTH), (*CLIENT, *CLIENT_ONLY, *BOTH)], ids=["server", "client"])
def test_every_flag_of_a_mode_is_read(line: tuple[str, ...]) -> None:
    assert failed_start(*line).startswith(UNREAD)


def test_a_value_stands_behind_an_equals_sign_or_in_the_next_word() -> None:
    assert failed_start("server", "--listen", "127.0.0.1:0", "--target", "127.0.0.1:1").startswith(UNREAD)


def test_flags_of_both_modes_stand_before_or_behind_the_command() -> None:
    assert failed_start("--quiet=conns", "--skip-resolve", *SERVER, "--connect-timeout=1s").startswith(UNREAD)
    assert refusal("--allow-cn=a", *SERVER) == "unknown long flag '--allow-cn'"


def test_a_value_behind_an_equals_sign_may_begin_with_a_dash_or_be_empty() -> None:
    assert failed_start(*SERVER, "--storepass=-x", "--metrics-prefix=").startswith(UNREAD)


def test_of_two_spellings_of_one_flag_the_last_on_the_line_counts() -> None:
    line = (*CLIENT, "--disable-authentication", "--proxy=ftp://first", "--connect-proxy=gopher://last")
    assert "unknown scheme: gopher" in failed_start(*line)


def test_numbers_are_written_as_in_go() -> None:
    pairs = (("16", "0x10"), ("0b1", "0o7"), ("4294967295", "017"), ("0", "1_000"))
    assert_read((*SERVER, f"--max-concurrent-conns={one}", f"--auto-acme-alt-tls-alpn-port={two}") for one, two in pairs)


def test_durations_are_written_as_in_go_and_in_days_and_weeks() -> None:
    texts = ("1ns 1us 1µs 1μs 1ms", "1s 1m 1h 1d 1w", "1.5h 2h45m +1s .5s 0")
    flags = ("close-timeout", "shutdown-timeout", "max-conn-lifetime", "timed-reload", "use-workload-api-timeout")
    assert_read((*SERVER, *map("--{}={}".format, flags, line.split())) for line in texts)


def test_addresses_to_listen_on() -> None:
    pairs = (("[::1]:1", "unix:relative"), ("localhost:http", "unix:@name"), (":1", "systemd:name"), ("unix:/a", "https://:1"))
    assert_read(("server", f"--listen={one}", f"--status={two}", "--target=127.0.0.1:1") for one, two in pairs)


def test_a_file_of_arguments_has_one_in_a_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "arguments"
    file.write_text(
        "# a server\nserver\n\n--listen\n127.0.0.1:0\n--target=127.0.0.1:1\n#--unknown\n--metrics-prefix=two words\n"
    )
    assert failed_start(f"@{file}").startswith(UNREAD)
    assert failed_start(f"@{file}", "--quiet=conns").startswith(UNREAD)
    file.write_text("server\n--unknown\n")
    assert refusal(f"@{file}") == "unknown long flag '--unknown'"
    assert refusal(f"@{tmp_path}/none").startswith("cannot read arguments from ")


# -- the environment


VARIABLES = {
    "KEYSTORE_PATH": "--keystore",
    "CERT_PATH": "--cert",
    "KEY_PATH": "--key",
    "SPIFFE_ENDPOINT_SOCKET": "$SPIFFE_ENDPOINT_SOCKET",
    "PKCS11_MODULE": "--pkcs11-module",
    "PKCS11_TOKEN_LABEL": "--pkcs11-token-label",
    "PKCS11_PIN": "--pkcs11-pin",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_stands_in_for_its_flag(name: str) -> None:
    value = NOWHERE if name.startswith("SPIFFE") else "/nonexistent"
    assert VARIABLES[name] in failed_start(*SERVER, "--allow-all", "--auto-acme-cert=a.test", environ={name: value})


def test_empty_variables_are_none() -> None:
    assert failed_start(*SERVER, environ=dict.fromkeys(VARIABLES, "")).startswith(UNREAD)


def test_the_flag_counts_before_its_variable(tmp_path: Path) -> None:
    line = (*SERVER, "--allow-all", f"--keystore={tmp_path}/flag", f"--cacert={tmp_path}/ca")
    assert f"{tmp_path}/" in failed_start(*line, environ={"KEYSTORE_PATH": "/variable", "CACERT_PATH": "/variable"})


def test_the_variable_of_the_workload_api_alone_switches_it_on_and_the_error_says_so() -> None:
    seen = failed_start(*SERVER, "--allow-all", "--keystore=a.pem", environ={"SPIFFE_ENDPOINT_SOCKET": NOWHERE})
    assert "enabled by $SPIFFE_ENDPOINT_SOCKET" in seen
    assert "mutually exclusive" in seen


# -- what is refused


REFUSED = {
    ("server",): "required flag(s) '--listen', '--target' not provided",
    ("client", "--listen=127.0.0.1:1"): "required flag(s) '--target' not provided",
    ("foo",): 'expected command but got "foo"',
    ("service", "install"): 'expected command but got "service"',
    (*SERVER, "--foo"): "unknown long flag '--foo'",
    (*SERVER, "--listen=127.0.0.1:1"): "flag 'listen' cannot be repeated",
    (*SERVER, "--syslog", "--no-syslog"): "flag 'syslog' cannot be repeated",
    (*SERVER, "--syslog=true"): "unexpected true",
    (*SERVER, "true"): "unexpected true",
    (*SERVER, "--", "--allow-all"): "unexpected --allow-all",
    (*SERVER, "--keystore", "-x"): "expected argument for flag '--keystore'",
    (*SERVER, "--keystore"): "expected argument for flag '--keystore'",
    (*SERVER, "--proxy=http://x"): "unknown long flag '--proxy'",
    (*CLIENT, "--allow-all"): "unknown long flag '--allow-all'",
    (*CLIENT, "--proxy-protocol"): "unknown long flag '--proxy-protocol'",
    (*SERVER, "--quiet=x"): "--quiet: enum value must be one of ,all,conns,handshake-errs,conn-errs, got 'x'",
    (*SERVER, "--proxy-protocol-mode=x"): "--proxy-protocol-mode: enum value must be one of conn,tls,tls-full,spiffe, got 'x'",
    (*SERVER, "--allow-ip=x"): '--allow-ip: invalid IP address "x"',
    (*SERVER, "--metrics-graphite=x"): '--metrics-graphite: invalid address "x": missing port',
    (
        *SERVER,
        "--close-timeout=5",
    ): '--close-timeout: invalid duration "5": missing unit in duration; expected a duration such as 250ms, 10s or 1h30m',
    (*SERVER, "--close-timeout=1y"): '--close-timeout: invalid duration "1y"',
    (*SERVER, "--close-timeout=-1s"): '--close-timeout: invalid duration "-1s": negative',
    (*SERVER, "--max-concurrent-conns=-1"): '--max-concurrent-conns: invalid number "-1"',
    (*SERVER, "--max-concurrent-conns=4294967296"): '--max-concurrent-conns: invalid number "4294967296"',
    (*SERVER, "--max-concurrent-conns=1.5"): '--max-concurrent-conns: invalid number "1.5"',
    ("server", "--listen=80"): '--listen: invalid address "80": missing port',
    ("server", "--listen=::1:80"): '--listen: invalid address "::1:80": too many colons',
    ("server", "--target=systemd:x"): '--target: invalid address "systemd:x": can only be listened on',
    (*SERVER, "--enable-pprof"): "--enable-pprof needs --status",
    (*SERVER, "--enable-shutdown"): "--enable-shutdown needs --status",
    (*SERVER, "--metrics-url=ftp://x"): '--metrics-url: invalid URL "ftp://x"; expected http:// or https://',
    (*SERVER, "--target-status=x"): '--target-status: invalid URL "x"; expected http:// or https://',
    (*SERVER, "--status=https://unix:/x"): '--status: invalid address "https://unix:/x": https:// requires HOST:PORT',
    (*SERVER, "--connect-timeout=0"): '--connect-timeout: invalid duration "0": not above zero',
    (*SERVER, "--use-workload-api-timeout=-1s"): '--use-workload-api-timeout: invalid duration "-1s": negative',
    (*SERVER, "--use-workload-api-addr=unix://x/y"): "--use-workload-api-addr: ",
    (*SERVER, "--max-tls-version=TLS1.1"): "--max-tls-version: invalid max TLS version",
    (*SERVER, "--keychain-identity=x"): "unknown long flag '--keychain-identity'",
    (*SERVER, "--keychain-issuer=x"): "unknown long flag '--keychain-issuer'",
    (*SERVER, "--keychain-require-token"): "unknown long flag '--keychain-require-token'",
    (*SERVER, "--eventlog"): "unknown long flag '--eventlog'",
    ("-h",): "unknown short flag '-h'",
}


def test_what_cannot_be_read_is_one_line_on_standard_error() -> None:
    said = each(refusal, REFUSED)
    assert [(line, seen) for line, seen in said.items() if not seen.startswith(REFUSED[line])] == []


# -- what is said when it is asked for


def test_no_arguments_are_answered_with_help() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tunnel ")


@pytest.mark.parametrize(
    "line", [("--help",), ("server", "--help"), (*SERVER, "--help"), ("--help", "server"), ("help", "client")]
)
def test_help_is_on_standard_output(line: tuple[str, ...]) -> None:
    done = run(*line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: tunnel ")


def test_long_help_has_the_flags_of_all_commands() -> None:
    done = run("--help-long")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(flag in done.stdout for flag in ("--allow-cn", "--verify-cn", "--use-workload-api-addr"))


@pytest.mark.parametrize("line", [("--help-man",), ("--help-custom-man",), ("server", "--help-man")])
def test_the_manual_is_printed_as_roff(line: tuple[str, ...]) -> None:
    done = run(*line)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith('.TH "TUNNEL" 1 ')
    assert all(flag in done.stdout for flag in ("\\-\\-allow\\-cn", "\\-\\-verify\\-cn", "\\-\\-use\\-workload\\-api\\-addr"))


def test_shells_are_served_as_kingpin_serves_them() -> None:
    """Its script asks the program with the words up to the cursor, and takes what is printed."""
    for line, offered in (
        (("s",), ["server"]),
        (("server", "--listen=:1", "--allow-d"), ["--allow-dns"]),
        (("server", "--proxy-protocol-mode", "tl"), ["tls", "tls-full"]),
        (("client", "--no-sy"), ["--no-syslog"]),
        (("service", "--"), ["--help"]),
    ):
        done = run("--completion-bash", *line)
        assert (done.returncode, done.stderr) == (0, "")
        assert set(offered) <= set(done.stdout.splitlines())
    for shell, words in (("bash", "complete -F _tunnel tunnel"), ("zsh", "#compdef tunnel")):
        done = run(f"--completion-script-{shell}")
        assert (done.returncode, done.stderr) == (0, "")
        assert words in done.stdout.splitlines()


@pytest.mark.parametrize("line", [("--version",), (*SERVER, "--version")])
def test_the_version_is_on_standard_output(line: tuple[str, ...]) -> None:
    done = run(*line)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tunnel {__version__}\n", "")


def test_a_line_is_refused_before_anything_heavy_is_loaded() -> None:
    """Nothing else says it as well: what has been imported when the process ends."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tunnel", *command(*SERVER, "--foo")[-4:]],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "tunnel" in loaded
    assert not loaded & {"trio", "grpc", "OpenSSL", "cryptography", "h11", "prometheus_client", "regopy", "acme", "asyncio"}


# -- what is wrong with a line that can be read, in the order in which it is looked at


SOURCE = "--keystore=/nonexistent.pem"
API = f"--use-workload-api-addr={NOWHERE}"
PIN = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
ACME = "--auto-acme-cert=a.example.org"
SERVER_ORDER: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "no identity source"),
    ((SOURCE, "--cert=a", "--key=b"), "mutually exclusive"),
    ((SOURCE, API), "mutually exclusive"),
    ((API, ACME), "mutually exclusive"),
    (("--use-workload-api",), "workload endpoint socket address is not configured"),
    (("--cert=a", "--allow-all"), "--cert needs --key"),
    (("--key=a", "--allow-all"), "--key needs --cert"),
    ((SOURCE,), "no access rule for clients"),
    ((SOURCE, "--allow-all", "--allow-cn=x"), "--allow-all and --allow-cn are mutually exclusive"),
    ((SOURCE, "--allow-all", "--disable-authentication"), "--allow-all and --disable-authentication"),
    ((SOURCE, "--allow-all", f"--allow-spki-pin={PIN}"), "--allow-all and --allow-spki-pin"),
    (
        (SOURCE, "--disable-authentication", "--allow-ou=x"),
        "--disable-authentication and --allow-ou are mutually exclusive",
    ),
    ((SOURCE, f"--allow-spki-pin={PIN}", "--allow-uri=x"), "--allow-spki-pin and --allow-uri"),
    ((API, f"--allow-spki-pin={PIN}"), "--allow-spki-pin and the Workload API are mutually exclusive"),
    ((SOURCE, "--allow-policy=x.rego"), "--allow-policy needs --allow-query"),
    ((SOURCE, "--allow-query=data.x"), "--allow-query needs --allow-policy"),
    ((SOURCE, "--allow-spki-pin=md5:AA=="), "--allow-spki-pin: "),
    ((SOURCE, "--allow-cn=x", "--target=10.0.0.1:1"), "--target: 10.0.0.1:1 is not local"),
    ((SOURCE, "--allow-cn=x", "--target=127.0.0.2:1"), "--target: 127.0.0.2:1 is not local"),
    ((ACME, "--allow-all"), "--auto-acme-cert needs --auto-acme-email"),
    ((ACME, "--allow-all", "--auto-acme-email=a@b"), "--auto-acme-cert needs --auto-acme-agree-to-tos"),
    (
        (SOURCE, "--allow-all", "--proxy-protocol", "--proxy-protocol-mode=tls"),
        "--proxy-protocol and --proxy-protocol-mode are",
    ),
    ((SOURCE, "--allow-all", "--cipher-suites=AES,DES"), 'invalid cipher suite option "DES"'),
    ((SOURCE, "--allow-all", "--cipher-suites=UNSAFE-AZURE"), "cipher suite option UNSAFE-AZURE is unsafe"),
)
CLIENT_ORDER: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "no identity source"),
    ((SOURCE, "--disable-authentication"), "mutually exclusive"),
    ((SOURCE, API), "mutually exclusive"),
    ((SOURCE, "--listen=:80"), "--listen: :80 is not local"),
    ((SOURCE, "--listen=0.0.0.0:80"), "--listen: 0.0.0.0:80 is not local"),
    ((SOURCE, "--verify-policy=x.rego"), "--verify-policy needs --verify-query"),
    ((API, f"--verify-spki-pin={PIN}"), "--verify-spki-pin and the Workload API are mutually exclusive"),
    (
        (SOURCE, f"--verify-spki-pin={PIN}", "--verify-cn=x"),
        "--verify-spki-pin and --verify-cn",
    ),
    ((SOURCE, "--verify-spki-pin=sha256:AA=="), "--verify-spki-pin: "),
    ((API,), "no access rule for the server"),
    ((SOURCE, "--cipher-suites=DES"), 'invalid cipher suite option "DES"'),
    (("--disable-authentication", "--proxy=https://x"), "proxy: unknown scheme: https"),
)


def with_addresses(mode: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """The line, with a good address for each that it has not."""
    names = [flag.partition("=")[0] for flag in flags]
    return (
        mode,
        *(flag for flag in (SERVER if mode == "server" else CLIENT)[1:] if flag.partition("=")[0] not in names),
        *flags,
    )


@pytest.mark.parametrize(("mode", "table"), [("server", SERVER_ORDER), ("client", CLIENT_ORDER)])
def test_what_does_not_go_together_is_not_started(mode: str, table: tuple[tuple[tuple[str, ...], str], ...]) -> None:
    lines = {with_addresses(mode, flags): words for flags, words in table}
    assert [(line, seen) for line, seen in each(failed_start, lines).items() if lines[line] not in seen] == []


def test_of_several_mistakes_the_one_that_ghostunnel_finds_first_is_told() -> None:
    rest: tuple[str, ...] = ("--cipher-suites=DES",)
    for flags, words in (
        (("--proxy-protocol", "--proxy-protocol-mode=tls"), "--proxy-protocol and --proxy-protocol-mode"),
        (("--target=10.0.0.1:1",), "--target: 10.0.0.1:1 is not local"),
        (("--allow-all", "--allow-cn=x"), "--allow-all and --allow-cn are mutually exclusive"),
        (("--cert=a", "--key=b"), "mutually exclusive"),
    ):
        rest = (*rest, *flags)
        line = (SOURCE, *rest) if "--allow-all" in rest else (SOURCE, "--allow-ou=y", *rest)
        assert words in failed_start(*with_addresses("server", line))


def test_pkcs11_is_refused_with_what_to_do_instead() -> None:
    for flag in ("--pkcs11-module=/lib/softhsm.so", "--pkcs11-token-label=x", "--pkcs11-pin=1234"):
        seen = failed_start(*SERVER, "--allow-all", "--cert=a.pem", flag)
        assert "PKCS#11 modules are not supported" in seen
        assert "use --use-workload-api with short-lived SVIDs, or a key in a file" in seen
        assert "1234" not in seen
