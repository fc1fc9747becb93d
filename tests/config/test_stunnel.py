"""Configurations of stunnel are converted, and nothing about authentication is lost without an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunnel.authz.rules import AnyRule, DnsRule, IpRule
from tunnel.config.file.document import parse_document
from tunnel.config.file.loader import build_process, load_config
from tunnel.config.file.problem import ConfigFileError, Problems
from tunnel.config.model import IdentityConfig, KeyFiles, Keystore, ListenerConfig, NoIdentity, ProcessConfig
from tunnel.config.stunnel.convert import convert_stunnel
from tunnel.config.stunnel.options import HARMLESS, NEEDED, PROCESS_OPTIONS
from tunnel.ip_address import parse_ip_address
from tunnel.net.address import TcpAddress, UnixAddress
from tunnel.wire.outbound import parse_outbound
from tunnel.wire.proxy_v2 import HeaderMode

SERVER = "[s]\naccept = 993\nconnect = 143\ncert = /c.pem\n"
VERIFIED = SERVER + "CAfile = /ca.pem\nverifyChain = yes\n"
CLIENT = "[c]\nclient = yes\naccept = localhost:1\nconnect = db.test:2\n"
CHECKED = CLIENT + "CAfile = /ca.pem\nverifyChain = yes\ncheckHost = db.test\n"


def convert(text: str) -> ProcessConfig:
    converted = convert_stunnel(text, "s.conf")
    assert converted.errors == ()
    found = Problems()
    config = build_process([parse_document(converted.text, "t.toml")], found)
    assert found.errors == []
    assert config is not None
    return config


def listener(text: str) -> ListenerConfig:
    [only] = convert(text).listeners
    return only


def remarks(text: str) -> tuple[list[str], list[str]]:
    converted = convert_stunnel(text, "s.conf")
    return [str(note) for note in converted.notes], [str(error) for error in converted.errors]


def test_several_services() -> None:
    shared = "\ufeff; comment\n# comment\n\nsyslog = yes\ncert = /c.pem\n"
    config = convert(shared + SERVER.replace("cert = /c.pem\n", "") + CHECKED)
    server, client = config.listeners
    assert config.log.is_syslog
    assert (server.name, server.is_server, server.listen) == ("s", True, TcpAddress("", "993"))
    assert server.targets == (TcpAddress("localhost", "143"),)
    assert (client.name, client.is_server, client.targets) == ("c", False, (TcpAddress("db.test", "2"),))
    assert client.identity.source == KeyFiles("/c.pem", "/c.pem")
    assert client.identity.ca_bundle == "/ca.pem"


def test_a_server_without_verification_requests_no_certificate() -> None:
    assert not listener(SERVER).access.is_mutual
    assert not listener(SERVER + "verify = 0").access.is_mutual


def test_a_server_with_verification_admits_what_stunnel_admits() -> None:
    assert listener(VERIFIED).access.rules == (AnyRule(),)
    assert listener(SERVER + "CAfile = x\nverify = 2").access.rules == (AnyRule(),)
    address = parse_ip_address("10.0.0.1")
    assert address is not None
    found = listener(VERIFIED + "checkHost = a.test\ncheckHost = b.test\ncheckIP = 10.0.0.1").access
    assert found.rules == (DnsRule("a.test"), DnsRule("b.test"), IpRule(address))
    assert found.is_mutual


def test_a_client_verifies_its_server_in_any_case() -> None:
    assert listener(CHECKED).host == "db.test"
    assert listener(CHECKED.replace("checkHost = db.test", "checkHost = other")).host == "other"
    assert listener(CHECKED.replace("checkHost = db.test", "sni = other")).host == "other"
    plain = listener(CLIENT)
    assert (plain.host, plain.identity) == ("db.test", IdentityConfig(NoIdentity(), name="default"))
    assert not plain.access.is_mutual
    assert remarks(CHECKED) == ([], [])
    [note] = remarks(CLIENT)[0]
    assert note == "s.conf:1: verifyChain = no: the certificate and the host name of the server are verified now"
    [note] = remarks(CHECKED.replace("checkHost = db.test", ""))[0]
    assert note == "s.conf:1: checkHost: the host name of the server is verified too"


def test_the_options_of_a_service() -> None:
    server = listener(
        VERIFIED.replace("/c.pem", "/c.P12") + "delay = yes\nsslVersionMax = TLSv1.2\nsslVersionMin = TLSv1\nCRLfile = /r.pem\n"
        "TIMEOUTconnect = 5\nTIMEOUTclose = 30\nprotocol = proxy\noptions = NO_SSLv2\nverify = 2\nrequireCert = yes"
    )
    assert server.identity.source == Keystore("/c.P12", "")
    assert server.identity.revocation.files == ("/r.pem",)
    assert not server.is_resolved_early
    assert server.tls.is_limited_to_tls12
    assert (server.connect_timeout, server.close_timeout, server.header_mode) == (5, 30, HeaderMode.CONN)
    assert listener(VERIFIED + "options = NO_TLSv1.3").tls.is_limited_to_tls12
    assert listener(VERIFIED + "sslVersion = TLSv1.2").tls.is_limited_to_tls12
    assert not listener(VERIFIED + "sslVersion = all").tls.is_limited_to_tls12


def test_several_targets() -> None:
    assert [str(target) for target in listener(VERIFIED + "connect = 144").targets] == ["localhost:143", "localhost:144"]


def test_addresses() -> None:
    server = listener(VERIFIED.replace("143", "/run/s").replace("993", ":::993"))
    assert (server.listen, server.targets) == (TcpAddress("::", "993"), (UnixAddress("/run/s"),))
    notes, errors = remarks(VERIFIED.replace("143", "10.0.0.1:143"))
    assert notes == ["s.conf:3: connect = 10.0.0.1:143: unsafe-target: plain connections of other machines are not encrypted"]
    assert errors == []
    assert listener(CHECKED.replace("localhost:1", "1")).listen == TcpAddress("", "1")


def test_a_proxy_of_a_client() -> None:
    text = CLIENT.replace("db.test:2", "proxy:3128") + "protocol = connect\nprotocolHost = db.test:2\n"
    assert listener(text).outbound == parse_outbound("http://proxy:3128")
    found = listener(text + "protocolUsername = u@x\nprotocolPassword = p:w\nprotocolAuthentication = basic\n")
    assert found.outbound == parse_outbound("http://u%40x:p%3Aw@proxy:3128")
    assert found.targets == (TcpAddress("db.test", "2"),)
    assert any("basic authentication" in note for note in remarks(text + "protocolAuthentication = ntlm")[0])


def test_a_file_for_inetd_is_one_service() -> None:
    assert listener("client = yes\naccept = localhost:1\nconnect = db.test:2").name == "stunnel"


def test_names_become_unique() -> None:
    text = convert_stunnel(CLIENT.replace("[c]", "[a b]") + CLIENT.replace("[c]", "[a-b]") + "[\u00e9]", "x").text
    assert [line for line in text.splitlines() if line.startswith("name")] == [
        'name = "a-b"',
        'name = "a-b-2"',
        'name = "service"',
    ]


@pytest.mark.parametrize("option", sorted({*PROCESS_OPTIONS, *HARMLESS}))
def test_an_option_without_an_effect_on_authentication_is_one_note(option: str) -> None:
    notes, errors = remarks(f"{option} = x\n{CHECKED}")
    assert errors == []
    [note] = notes
    assert note.startswith(f"s.conf:1: {option} = x: not converted: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((VERIFIED + f"{option} = yes", f"7: {option} = yes: not converted: {text}") for option, text in NEEDED.items()),
        (SERVER + "checkHost = x", "5: checkHost = x: not converted: without verifyChain the clients are not verified"),
        (SERVER + "verifyChain = yes", "1: CAfile: not converted: the clients cannot be verified without it"),
        (SERVER + "CAfile = x\nverify = 3", "6: verify = 3: not converted: pin the public key"),
        (
            CLIENT + "connect = other:3128\nprotocol = connect\nprotocolHost = db.test:2",
            "5: connect = other:3128: not converted: a client has one proxy",
        ),
        (
            SERVER + "requireCert = yes",
            "5: requireCert = yes: not converted: a certificate that is not verified proves nothing",
        ),
        (SERVER.replace("cert", "; cert"), "1: cert: not converted: a server needs a certificate"),
        (SERVER.replace("accept", "; accept"), "1: accept: not converted: the service has no such option"),
        (SERVER.replace("connect", "; connect"), "1: connect: not converted: the service has no such option"),
        (VERIFIED + "sni = other:*.test", "7: sni = other:*.test: not converted: several servers on one port"),
        (VERIFIED + "sslVersionMin = TLSv1.3", "7: sslVersionMin = TLSv1.3: not converted: the lowest version is TLS 1.2"),
        (VERIFIED + "sslVersion = TLSv1.3", "7: sslVersion = TLSv1.3: not converted: the lowest version is TLS 1.2"),
        (VERIFIED + "options = NO_TLSv1.2", "7: options = NO_TLSv1.2: not converted: the lowest version is TLS 1.2"),
        (VERIFIED + "protocol = imap", "7: protocol = imap: not converted: TLS is used from the first byte"),
        (CHECKED + "checkIP = 10.0.0.1", "8: checkIP = 10.0.0.1: not converted: one name of the server can be verified"),
        (CHECKED + "sni = x", "8: sni = x: not converted: the same name is sent (SNI) and verified"),
        (
            CHECKED + "CApath = /etc/ssl/certs",
            "8: CApath = /etc/ssl/certs: not converted: write the CA certificates to one PEM",
        ),
        (VERIFIED + "unknown = x", "7: unknown = x: not converted: unknown option"),
        (VERIFIED + "no option", "7: no option: not converted: this line is no option"),
        ("", ": no service"),
    ],
)
def test_an_option_that_matters_is_an_error_and_makes_the_file_invalid(tmp_path: Path, text: str, expected: str) -> None:
    converted = convert_stunnel(text, "s.conf")
    assert str(converted.errors[0]).startswith(f"s.conf{'' if expected.startswith(':') else ':'}{expected}")
    assert len(converted.errors) == 1
    (tmp_path / "t.toml").write_text(converted.text)
    with pytest.raises(
        ConfigFileError,
        match="not-converted: unknown key: the conversion is incomplete; replace what this list names, and remove",
    ):
        load_config([tmp_path / "t.toml"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SERVER + "CAfile = x\nverify = 1", "6: verify = 1: every peer must present a certificate now"),
        (VERIFIED + "sslVersionMax = SSLv3", "7: sslVersionMax = SSLv3: the lowest version is TLS 1.2"),
        (VERIFIED + "options = SINGLE_DH_USE", "7: options = SINGLE_DH_USE: not converted: the options of OpenSSL are fixed"),
        (VERIFIED + "TIMEOUTclose = 0", "7: TIMEOUTclose = 0: not converted: set close-timeout, where 0 has another meaning"),
        (
            CHECKED.replace("CAfile = /ca.pem", "CApath = /etc/ssl/certs/"),
            "5: CApath = /etc/ssl/certs/: the system's CA certificates are used",
        ),
        (VERIFIED + "protocol = proxy", "7: protocol = proxy: version 2 of the PROXY protocol is sent instead of version 1"),
    ],
)
def test_a_difference_that_admits_nobody_else_is_a_note(text: str, expected: str) -> None:
    notes, errors = remarks(text)
    assert (notes, errors) == ([f"s.conf:{expected}"], [])


# The options in the manual of stunnel 5.68.
OPTIONS = """
accept CAengine CApath CAfile cert checkEmail checkHost checkIP ciphers ciphersuites client config connect CRLpath
CRLfile curves logId debug delay engineId engineNum exec execArgs failover ident include key libwrap local OCSP OCSPaia
OCSPflag OCSPnonce options protocol protocolAuthentication protocolDomain protocolHeader protocolHost protocolPassword
protocolUsername PSKidentity PSKsecrets pty redirect renegotiation reset retry securityLevel requireCert setgid setuid
sessionCacheSize sessionCacheTimeout sessionResume sessiond sni socket sslVersion sslVersionMax sslVersionMin stack
ticketKeySecret ticketMacSecret TIMEOUTbusy TIMEOUTclose TIMEOUTconnect TIMEOUTidle transparent verify verifyChain
verifyPeer chroot compression EGD engine engineCtrl engineDefault fips foreground iconActive iconError iconIdle log
output pid RNDbytes RNDfile RNDoverwrite service syslog taskbar
"""


@pytest.mark.parametrize("option", OPTIONS.split())
def test_every_option_of_the_manual_is_known(option: str) -> None:
    for text in (f"{option} = x\n{VERIFIED}", f"{option} = x\n{CHECKED}"):
        assert [error for error in remarks(text)[1] if "unknown option" in error] == []


NAMES = st.sampled_from(OPTIONS.split())
VALUES = st.sampled_from(["yes", "no", "0", "2", "x", "a:1", "/x", "connect", "proxy", ""]) | st.text(max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=12), st.text(max_size=20))
def test_any_text_is_converted_to_toml(options: list[tuple[str, str]], noise: str) -> None:
    text = "[s]\n" + "\n".join(f"{name} = {value}" for name, value in options) + f"\n{noise}"
    converted = convert_stunnel(text, "s.conf")
    parse_document(converted.text, "t.toml")


def test_a_password_is_in_no_remark() -> None:
    notes, errors = remarks(VERIFIED + "protocolPassword = geheim\nprotocol = smtp\n[x]\nprotocolPassword = geheim")
    assert "geheim" not in str((notes, errors))
