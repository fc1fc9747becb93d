"""The configurations of `svid jwt`, `svid jwt verify` and `svid verify`, and the lines that are refused."""

from __future__ import annotations

import os

import pytest

from tunnel.cli.parser import Parsed, parse_command_line
from tunnel.commands.proxy.command import GLOBAL_FLAGS
from tunnel.commands.registry import load_commands
from tunnel.commands.svid import jwt, jwt_bundles, jwt_verify, verify
from tunnel.config.model import WorkloadApi
from tunnel.config.svid_model import (
    BundleFile,
    JwtBundlesConfig,
    JwtConfig,
    JwtVerifyConfig,
    OutputFile,
    SvidVerifyConfig,
    parse_bundle_file,
)
from tunnel.errors import ConfigError
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.selection import Selection

API = "--use-workload-api-addr=unix:///run/a.sock"
SOCKET = WorkloadEndpoint(path="/run/a.sock")


def parse(line: str, **environ: str) -> Parsed:
    return parse_command_line(line.split(), load_commands(), environ, global_flags=GLOBAL_FLAGS)


def fetch(line: str, **environ: str) -> JwtConfig:
    read = parse(f"svid jwt {line}", **environ)
    assert read.command is jwt.COMMAND
    return jwt.build(read.arguments)


def judge(line: str, **environ: str) -> JwtVerifyConfig:
    read = parse(f"svid jwt verify {line}", **environ)
    assert read.command is jwt_verify.COMMAND
    return jwt_verify.build(read.arguments)


def examine(line: str, **environ: str) -> SvidVerifyConfig:
    return verify.build(parse(f"svid verify {line}", **environ).arguments)


def build(line: str) -> object:
    read = parse(f"svid {line}")
    builders = {
        "svid jwt": jwt.build,
        "svid jwt bundles": jwt_bundles.build,
        "svid jwt verify": jwt_verify.build,
        "svid verify": verify.build,
    }
    return builders[read.command.name](read.arguments)


def test_a_token_is_printed_unless_a_file_is_named() -> None:
    config = fetch("--audience db", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock")
    assert (config.source.endpoint, config.source.timeout, config.audience, config.file) == (SOCKET, 15.0, ("db",), None)
    config = fetch(f"{API} --audience db --audience web --spiffe-id spiffe://a.test/x --spiffe-hint h --timeout 0 --json")
    assert (config.audience, config.source.timeout, config.is_json) == (("db", "web"), 0.0, True)
    assert config.source.selection == Selection(parse_spiffe_id("spiffe://a.test/x"), "h")


def test_a_token_file_is_private_by_default() -> None:
    assert fetch(f"{API} --audience db --out t").file == OutputFile("t", 0o600, None, False)
    group = os.getgid()
    file = fetch(f"{API} --audience db --out t --watch --mode 0640 --group {group}").file
    assert file == OutputFile("t", 0o640, group, True)


def test_bundles_are_printed_or_written_to_a_public_file() -> None:
    assert build(f"jwt bundles {API}") == JwtBundlesConfig(WorkloadApi(SOCKET, 15.0, Selection()))
    config = build(f"jwt bundles {API} --out b --watch")
    assert isinstance(config, JwtBundlesConfig)
    assert config.file == OutputFile("b", 0o644, None, True)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (f"jwt {API}", "--audience is missing"),
        ("jwt --audience db", "no Workload API address"),
        (f"jwt {API} --audience db --audience db", "given twice"),
        (f"jwt {API} --audience=", "invalid audience"),
        (f"jwt {API} --audience db --watch", "--watch needs --out"),
        (f"jwt {API} --audience db --mode 0640", "--mode needs --out"),
        (f"jwt {API} --audience db --out t --decode", "--decode and --out are mutually exclusive"),
        (f"jwt {API} --audience db --out t --mode 0644", "every user"),
        (f"jwt {API} --audience db --out t --group no-such-group-here", "unknown group"),
        (f"jwt {API} --audience db --out t/", "invalid file"),
        ("jwt bundles", "no Workload API address"),
        (f"jwt bundles {API} --watch", "--watch needs --out"),
        (f"jwt bundles {API} --audience db", "unknown|unexpected|audience"),
        (f"jwt verify {API}", "'--audience' not provided"),
        ("jwt verify --audience db", "no Workload API address"),
        (f"jwt verify {API} --audience db --local --bundle a.test=b", "--bundle and --local are mutually exclusive"),
        (f"jwt verify {API} --audience db a b", "unexpected b"),
        ("verify", "CERT is missing"),
        (f"verify {API} c --bundle a.test=b", "--bundle and the Workload API are mutually exclusive"),
        ("verify c --use-workload-api", "no Workload API address"),
        ("verify - --key=-", "expected argument|standard input"),
    ],
)
def test_an_invalid_line_of_svid_is_refused(line: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        build(line)


def test_a_token_instead_of_a_file_is_refused_and_not_quoted() -> None:
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    with pytest.raises(ConfigError, match="this is a token") as refused:
        judge(f"{API} --audience db {token}")
    assert token not in str(refused.value)


def test_the_workload_api_verifies_a_token_by_default() -> None:
    config = judge(f"{API} --audience db")
    assert (config.path, config.audience, config.is_local, config.bundle) == ("-", "db", False, None)
    assert config.source is not None
    assert judge(f"t {API} --audience db --local").is_local
    config = judge("t --audience db --bundle a.test=b.json", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock")
    assert (config.path, config.source, config.bundle) == ("t", None, BundleFile("b.json", TrustDomain("a.test")))


@pytest.mark.parametrize(
    ("text", "path", "domain"),
    [
        ("a.test=b.json", "b.json", "a.test"),
        ("spiffe://a.test=/x/b.json", "/x/b.json", "a.test"),
        ("a.test=./a=b", "./a=b", "a.test"),
    ],
)
def test_a_bundle_file_has_a_trust_domain(text: str, path: str, domain: str) -> None:
    assert parse_bundle_file(text) == BundleFile(path, TrustDomain(domain))


@pytest.mark.parametrize("text", ["", "b.json", "a.test=", "/run/a=b", "A b=c"])
def test_a_bundle_file_without_a_trust_domain_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid bundle"):
        parse_bundle_file(text)


def test_a_certificate_is_verified_with_the_available_bundle() -> None:
    assert examine("c.pem").source is None
    config = examine("c.pem --key k.pem", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock")
    assert config.source is not None
    assert (config.path, config.key_path, config.source.endpoint) == ("c.pem", "k.pem", SOCKET)
    assert examine("- --bundle a.test=b.pem", SPIFFE_ENDPOINT_SOCKET="unix:///run/a.sock").source is None
