"""What lines of `svid jwt`, `svid jwt verify` and `svid verify` mean, and which mean nothing."""

from __future__ import annotations

import os

import pytest

from tunnel.cli.parser import Parsed, parse_command_line
from tunnel.commands.proxy.command import COMMON
from tunnel.commands.registry import load_commands
from tunnel.commands.svid import jwt as svid_jwt
from tunnel.commands.svid import verify as svid_verify
from tunnel.commands.svid.jwt import KeptFile, NamedBundle
from tunnel.config.model import WorkloadApi
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.selection import Selection

API = "--use-workload-api-addr=unix:///run/a.sock"
SOCKET = WorkloadEndpoint(path="/run/a.sock")


def parse(line: str, **environ: str) -> Parsed:
    return parse_command_line(line.split(), load_commands(), environ, early=COMMON)


def fetch(line: str, **environ: str) -> svid_jwt.JwtConfig:
    read = parse(f"svid jwt {line}", **environ)
    assert read.command is svid_jwt.COMMAND
    return svid_jwt.build_jwt(read.arguments)


def judge(line: str, **environ: str) -> svid_jwt.JwtVerifyConfig:
    read = parse(f"svid jwt verify {line}", **environ)
    assert read.command is svid_jwt.VERIFY
    return svid_jwt.build_verify(read.arguments)


def examine(line: str, **environ: str) -> svid_verify.VerifyConfig:
    return svid_verify.build(parse(f"svid verify {line}", **environ).arguments)


def build(line: str) -> object:
    read = parse(f"svid {line}")
    builders = {
        "svid jwt": svid_jwt.build_jwt,
        "svid jwt bundles": svid_jwt.build_bundles,
        "svid jwt verify": svid_jwt.build_verify,
        "svid verify": svid_verify.build,
    }
    return builders[read.command.name](read.arguments)


def test_a_token_is_printed_unless_a_file_is_named() -> None:
    config = fetch("--audience db", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock")
    assert (config.source.endpoint, config.source.timeout, config.audience, config.file) == (SOCKET, 15.0, ("db",), None)
    config = fetch(f"{API} --audience db --audience web --spiffe-id spiffe://a.test/x --spiffe-hint h --timeout 0 --json")
    assert (config.audience, config.source.timeout, config.is_json) == (("db", "web"), 0.0, True)
    assert config.source.selection == Selection(parse_spiffe_id("spiffe://a.test/x"), "h")


def test_a_file_is_for_its_owner_unless_told() -> None:
    assert fetch(f"{API} --audience db --out t").file == KeptFile("t", 0o600, None, False)
    group = os.getgid()
    file = fetch(f"{API} --audience db --out t --watch --mode 0640 --group {group}").file
    assert file == KeptFile("t", 0o640, group, True)


def test_bundles_are_printed_or_kept_for_everybody() -> None:
    assert build(f"jwt bundles {API}") == svid_jwt.BundlesConfig(WorkloadApi(SOCKET, 15.0, Selection()))
    config = build(f"jwt bundles {API} --out b --watch")
    assert isinstance(config, svid_jwt.BundlesConfig)
    assert config.file == KeptFile("b", 0o644, None, True)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (f"jwt {API}", "--audience is missing"),
        ("jwt --audience db", "no Workload API to ask"),
        (f"jwt {API} --audience db --audience db", "given twice"),
        (f"jwt {API} --audience=", "no audience"),
        (f"jwt {API} --audience db --watch", "--watch needs --out"),
        (f"jwt {API} --audience db --mode 0640", "--mode needs --out"),
        (f"jwt {API} --audience db --out t --decode", "--decode shows"),
        (f"jwt {API} --audience db --out t --mode 0644", "everybody"),
        (f"jwt {API} --audience db --out t --group no-such-group-here", "no group"),
        (f"jwt {API} --audience db --out t/", "is no file"),
        ("jwt bundles", "no Workload API to ask"),
        (f"jwt bundles {API} --watch", "--watch needs --out"),
        (f"jwt bundles {API} --audience db", "unknown|unexpected|audience"),
        (f"jwt verify {API}", "'--audience' not provided"),
        ("jwt verify --audience db", "no Workload API to ask"),
        (f"jwt verify {API} --audience db --local --bundle a.test=b", "two sources of keys"),
        (f"jwt verify {API} --audience db a b", "unexpected b"),
        ("verify", "CERT is missing"),
        (f"verify {API} c --bundle a.test=b", "two sources of authorities"),
        ("verify c --use-workload-api", "no Workload API to ask"),
        ("verify - --key=-", "expected argument|standard input"),
    ],
)
def test_a_line_that_means_nothing_is_told_what_it_lacks(line: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        build(line)


def test_a_token_in_the_place_of_a_file_is_refused_and_not_repeated() -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    with pytest.raises(ConfigError, match="looks like the token itself") as refused:
        judge(f"{API} --audience db {token}")
    assert token not in str(refused.value)


def test_a_token_is_judged_by_the_workload_api_unless_told() -> None:
    config = judge(f"{API} --audience db")
    assert (config.path, config.audience, config.is_local, config.bundle) == ("-", "db", False, None)
    assert config.source is not None
    assert judge(f"t {API} --audience db --local").is_local
    config = judge("t --audience db --bundle a.test=b.json", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock")
    assert (config.path, config.source, config.bundle) == ("t", None, NamedBundle("b.json", TrustDomain("a.test")))


@pytest.mark.parametrize(
    ("text", "path", "domain"),
    [
        ("a.test=b.json", "b.json", "a.test"),
        ("spiffe://a.test=/x/b.json", "/x/b.json", "a.test"),
        ("a.test=./a=b", "./a=b", "a.test"),
    ],
)
def test_a_bundle_says_whose_it_is(text: str, path: str, domain: str) -> None:
    assert svid_jwt.parse_bundle(text) == NamedBundle(path, TrustDomain(domain))


@pytest.mark.parametrize("text", ["", "b.json", "a.test=", "/run/a=b", "A b=c"])
def test_a_bundle_of_nobody_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="does not say whose bundle it is"):
        svid_jwt.parse_bundle(text)


def test_a_certificate_is_compared_with_what_is_there() -> None:
    assert examine("c.pem").source is None
    config = examine("c.pem --key k.pem", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock")
    assert config.source is not None
    assert (config.path, config.key_path, config.source.endpoint) == ("c.pem", "k.pem", SOCKET)
    assert examine("- --bundle a.test=b.pem", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock").source is None
