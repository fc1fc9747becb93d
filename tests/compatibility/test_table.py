"""The table of compatibility is complete, and each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from tunnel.commands.proxy import command as proxy

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs/compatibility.md").read_text()
ROWS = [[cell.strip() for cell in line[1:-1].split("|")] for line in TABLE.splitlines() if line.startswith("| ")]
BODY = [row for row in ROWS if row[0] != "ghostunnel"]

# Every flag of ghostunnel 1.11.1, hidden ones and those of other systems included.
FLAGS = """
    keystore cert key storepass cacert use-workload-api use-workload-api-addr use-workload-api-timeout timed-reload
    shutdown-timeout connect-timeout close-timeout max-conn-lifetime max-concurrent-conns metrics-graphite metrics-url
    metrics-prefix metrics-interval status enable-pprof enable-shutdown quiet skip-resolve syslog disable-landlock
    pkcs11-module pkcs11-token-label pkcs11-pin cipher-suites allow-unsafe-cipher-suites max-tls-version use-landlock
    listen target target-status proxy-protocol proxy-protocol-mode unsafe-target allow-all allow-cn allow-ou allow-dns
    allow-uri allow-ip allow-dns-san allow-ip-san allow-uri-san allow-spki-pin allow-policy allow-query
    disable-authentication auto-acme-cert auto-acme-email auto-acme-agree-to-tos auto-acme-ca auto-acme-testca
    auto-acme-renew-check-interval auto-acme-alt-tls-alpn-port unsafe-listen override-server-name proxy connect-proxy
    verify-cn verify-ou verify-dns verify-uri verify-ip verify-dns-san verify-ip-san verify-uri-san verify-spki-pin
    verify-policy verify-query keychain-identity keychain-issuer keychain-require-token eventlog service-name
    help help-long help-man help-custom-man version completion-script-bash completion-script-zsh completion-bash
""".split()
VARIABLES = """
    KEYSTORE_PATH CERT_PATH KEY_PATH KEYSTORE_PASS CACERT_PATH SPIFFE_ENDPOINT_SOCKET PKCS11_MODULE PKCS11_TOKEN_LABEL
    PKCS11_PIN SSL_CERT_FILE SSL_CERT_DIR NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_PID LISTEN_FDS LISTEN_FDNAMES
""".split()
VERDICTS = {"same", "fixed", "changed", "not offered", "ours"}
BY_NATURE = {"`GODEBUG`"}  # nothing of ours to test


def named_flags() -> set[str]:
    """The flags that have a row."""
    return {name for row in BODY for name in re.findall(r"`--([a-z0-9-]+)`", row[0])}


def test_every_row_has_a_verdict_and_a_test() -> None:
    assert all(len(row) == 4 for row in BODY), [row for row in BODY if len(row) != 4]
    assert {row[1] for row in BODY} == VERDICTS
    assert {row[0] for row in BODY if "`test_" not in row[3]} == BY_NATURE
    assert [row[0] for row in BODY if row[1] == "changed"] == ["no `--verify-*` flag under SPIFFE"], "the one break"


def test_every_flag_and_variable_of_ghostunnel_has_a_row() -> None:
    assert set(FLAGS) <= named_flags()
    assert [name for name in VARIABLES if f"`{name}`" not in TABLE] == []


def test_every_flag_of_ours_has_a_row_and_no_other_has() -> None:
    ours = {name for command in (proxy.SERVER, proxy.CLIENT) for flag in command.flags for name in (flag.name, *flag.aliases)}
    assert ours <= named_flags()
    offered = {name for row in BODY if row[1] != "not offered" for name in re.findall(r"`--([a-z0-9-]+)`", row[0])}
    texts = {"help-man", "help-custom-man", "completion-bash", "completion-script-bash", "completion-script-zsh"}
    assert offered - ours == {"help", "help-long", "version"} | texts


def test_each_test_that_a_row_names_is_there() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in texts for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}
    assert sorted({name for row in BODY for name in re.findall(r"`(test_\w+)`", row[3])} - there) == []
