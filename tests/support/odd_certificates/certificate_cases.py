"""Cases with one odd thing in one certificate: extensions, names, fields, keys and signatures."""

from __future__ import annotations

from typing import Any

from tests.support.odd_certificates.cases import OK, REFUSED, Table, three, two
from tests.support.odd_certificates.factory import (
    ANY_PURPOSE,
    AUTHORITY_ACCESS,
    AUTHORITY_KEY_ID,
    BASIC,
    CLIENT_AUTH,
    CODE_SIGNING,
    CRL_POINTS,
    EMAIL,
    HOST,
    INHIBIT_ANY,
    KEY_USAGE,
    POLICIES,
    POLICY_CONSTRAINTS,
    POLICY_MAPPINGS,
    PURPOSES,
    SAN,
    SERVER_AUTH,
    SPIFFE_ID,
    SUBJECT_KEY_ID,
    TLS_FEATURE,
    UNKNOWN,
    authority_key_id,
    basic,
    bit_string_with,
    directory,
    dns,
    email,
    ip,
    purposes,
    san,
    subject_key_id,
    uri,
    usage,
    usual_san,
)
from tests.support.odd_certificates.keys import Key, Scheme, key
from tests.support.odd_certificates.raw_der import (
    BMP,
    CN,
    COUNTRY,
    GENERAL,
    GENERALIZED_TIME,
    IA5,
    NULL,
    NUMERIC,
    OU,
    PRINTABLE,
    T61,
    UNIVERSAL,
    UTF8,
    VISIBLE,
    attribute,
    bits,
    common_name,
    context,
    extension,
    generalized,
    implicit,
    integer,
    long_form,
    name,
    octets,
    oid,
    seq,
    tlv,
    utc_time,
)
from tunnel.errors import Denial

CERTIFICATES = Table()
_add, _trim = CERTIFICATES.add, CERTIFICATES.sweep
_NULL = tlv(NULL)


def _more(*extensions: bytes) -> dict[str, Any]:
    return {"more": extensions}


def _replace(kind: str, extension: bytes) -> dict[str, Any]:
    return {"replace": {kind: extension}}


_EVERYWHERE = (OK, OK, OK)
_NOWHERE = (REFUSED, REFUSED, REFUSED)

# -- basic constraints

_add("leaf with cA FALSE written", two(_replace(BASIC, extension(BASIC, seq(tlv(1, b"\0")), True))))
_add("leaf with an empty basic constraints", two(_replace(BASIC, basic(False))))
_trim("cA FALSE and path length 0", _replace(BASIC, basic(False, 0)), (OK, Denial.NOT_CA, REFUSED))
_trim("cA FALSE and path length 5, not critical", _replace(BASIC, basic(False, 5, None)), (OK, Denial.NOT_CA, REFUSED))
_ANY_ANCHOR = {"server": REFUSED, "spiffe": OK, "go": False, "why": "anchor-is-name-and-key"}
_trim("no basic constraints", _replace(BASIC, b""), (OK, Denial.NOT_CA, _ANY_ANCHOR))
_trim("basic constraints that are not critical", _replace(BASIC, basic(True, None, None)), (None, OK, OK))
_trim("a negative path length", _replace(BASIC, basic(True, -1)), (None, REFUSED, REFUSED))
_trim("cA as an integer", _replace(BASIC, extension(BASIC, seq(integer(1)), True)), (None, REFUSED, REFUSED))
_add("leaf with cA TRUE", two(_replace(BASIC, basic(True))), spiffe=Denial.LEAF_IS_CA)

# -- key usage and purposes

_NO_LEAF_USAGE = {"server": OK, "spiffe": Denial.KEY_USAGE, "go": True, "why": "svid-profile"}
_trim("no key usage", _replace(KEY_USAGE, b""), (_NO_LEAF_USAGE, OK, OK))
_trim(
    "key usage that is not critical",
    _replace(KEY_USAGE, usage("digital_signature", critical=None)),
    (_NO_LEAF_USAGE, None, None),
)
_trim("key usage that is not critical", _replace(KEY_USAGE, usage("key_cert_sign", critical=None)), (None, OK, OK))
_trim("no keyCertSign", _replace(KEY_USAGE, usage("crl_sign")), (None, Denial.KEY_USAGE, REFUSED))
_trim("no digitalSignature", _replace(KEY_USAGE, usage("key_encipherment")), (_NO_LEAF_USAGE, None, None))
_trim("an empty key usage", _replace(KEY_USAGE, usage()), (_NO_LEAF_USAGE, None, None))
_trim("decipherOnly", _replace(KEY_USAGE, usage("digital_signature", "key_agreement", "decipher_only")), (OK, None, None))
_LONG_BITS = extension(KEY_USAGE, bit_string_with(0, b"\x86\0"), True)
_trim("key usage with trailing zero bits", _replace(KEY_USAGE, _LONG_BITS), (None, OK, OK))
_SHORT_BITS = extension(KEY_USAGE, bit_string_with(0, b"\x80"), True)
_trim("key usage with trailing zero bits", _replace(KEY_USAGE, _SHORT_BITS), (OK, None, None))
_SIGNS = _replace(KEY_USAGE, usage("digital_signature", "key_cert_sign"))
_add("leaf with keyCertSign", two(_SIGNS), spiffe=Denial.KEY_USAGE)

_BOTH = {"spiffe": Denial.EXTENDED_KEY_USAGE, "go": None}


def _purposes(*oids: str, critical: bool | None = None) -> dict[str, Any]:
    return _replace(PURPOSES, purposes(*oids, critical=critical))


_ONE_SIDE = {"spiffe": Denial.EXTENDED_KEY_USAGE, "why": "svid-profile"}
_add("leaf without purposes", two(_replace(PURPOSES, b"")))
_add("leaf with any purpose", two(_purposes(ANY_PURPOSE)), OK, go=True, **_ONE_SIDE)
_add("leaf for clients", two(_purposes(CLIENT_AUTH)), OK, client=Denial.EXTENDED_KEY_USAGE, go=(True, False, True), **_ONE_SIDE)
_add("leaf for servers", two(_purposes(SERVER_AUTH)), Denial.EXTENDED_KEY_USAGE, client=OK, go=(False, True, True), **_ONE_SIDE)
_add("leaf for mail", two(_purposes(EMAIL)), Denial.EXTENDED_KEY_USAGE, go=(False, False, True), why="svid-profile")
_add("leaf with critical purposes", two(_purposes(SERVER_AUTH, CLIENT_AUTH, critical=True)))
_add("leaf with an unknown purpose too", two(_purposes(SERVER_AUTH, "1.3.6.1.4.1.55555.9", CLIENT_AUTH)))
_add("leaf with a purpose twice", two(_purposes(SERVER_AUTH, CLIENT_AUTH, CLIENT_AUTH)))
_NO_PURPOSE = {"server": OK, "spiffe": Denial.EXTENDED_KEY_USAGE, "go": True, "why": "svid-profile"}
_trim("an empty list of purposes", _replace(PURPOSES, extension(PURPOSES, seq())), (_NO_PURPOSE, None, None))
for _position in ("middle", "root"):
    _add(f"{_position} for clients", three(**{_position: _purposes(CLIENT_AUTH)}), OK, client=REFUSED, spiffe=OK)
    _add(f"{_position} for servers", three(**{_position: _purposes(SERVER_AUTH)}), REFUSED, client=OK, spiffe=OK)
    _add(f"{_position} for both sides", three(**{_position: _purposes(SERVER_AUTH, CLIENT_AUTH)}))
    _add(f"{_position} for any purpose", three(**{_position: _purposes(ANY_PURPOSE)}))
    _add(f"{_position} for both sides and unknown", three(**{_position: _purposes(CLIENT_AUTH, "1.2.3.4", SERVER_AUTH)}))
_add(
    "middle for code signing",
    three(middle=_purposes(CODE_SIGNING)),
    REFUSED,
    go=(False, False, True),
    why="purpose-of-intermediate",
)
_add("root for code signing", three(root=_purposes(CODE_SIGNING)), REFUSED, spiffe=OK)

# -- key identifiers

_OTHER_ID = b"another identifier"
_SOMEONE = common_name("someone else")
for _name, _value in {
    "an issuer but no serial": authority_key_id(None, _SOMEONE),
    "a serial but no issuer": authority_key_id(None, serial=77),
    "issuer and serial that do not fit": authority_key_id(None, _SOMEONE, 77),
    "an identifier that does not fit": authority_key_id(_OTHER_ID),
    "identifier, issuer and serial that do not fit": authority_key_id(_OTHER_ID, _SOMEONE, 77),
    "nothing in it": authority_key_id(None),
    "an empty identifier": authority_key_id(b""),
    "a negative serial": authority_key_id(None, _SOMEONE, -5),
    "an issuer in another type of string": authority_key_id(None, common_name("someone", T61), 5),
}.items():
    _trim(f"authority key id with {_name}", _replace(AUTHORITY_KEY_ID, _value), _EVERYWHERE)
_trim("no authority key id", _replace(AUTHORITY_KEY_ID, b""), _EVERYWHERE)
_trim("no subject key id", _replace(SUBJECT_KEY_ID, b""), _EVERYWHERE)
_trim("another subject key id", _replace(SUBJECT_KEY_ID, subject_key_id(_OTHER_ID)), _EVERYWHERE)
_trim("a long subject key id", _replace(SUBJECT_KEY_ID, subject_key_id(b"x" * 300)), _EVERYWHERE)
_trim("an empty subject key id", _replace(SUBJECT_KEY_ID, subject_key_id(b"")), _EVERYWHERE)


# -- extensions that no rule reads


def _notice(tag: int, text: bytes) -> bytes:
    """A policy with a user notice (RFC 5280, 4.2.1.4)."""
    qualifier = seq(oid("1.3.6.1.5.5.7.2.2"), seq(tlv(tag, text)))
    return extension(POLICIES, seq(seq(oid("1.2.3.4"), seq(qualifier))))


def _points(general_name: bytes) -> bytes:
    return extension(CRL_POINTS, seq(seq(context(0, context(0, general_name)))))


_UNREAD = {
    "policy notice in UTF8": _notice(UTF8, "Grüße".encode()),
    "policy notice in Latin-1 marked as UTF8": _notice(UTF8, b"Gr\xfc\xdfe"),
    "policy notice in BMP": _notice(BMP, "Grüße".encode("utf-16-be")),
    "policy notice in Visible": _notice(VISIBLE, b"hello"),
    "policy notice in IA5": _notice(IA5, b"hello"),
    "policy notice in T61": _notice(T61, b"Gr\xfc\xdfe"),
    "policy notice in Universal": _notice(UNIVERSAL, "hi".encode("utf-32-be")),
    "policy notice in Printable": _notice(PRINTABLE, b"hello"),
    "policy notice of 300 bytes": _notice(UTF8, b"x" * 300),
    "practice statement in Latin-1": extension(
        POLICIES, seq(seq(oid("1.2.3.4"), seq(seq(oid("1.3.6.1.5.5.7.2.1"), tlv(IA5, b"http://x/\xe4")))))
    ),
    "unknown policy qualifier": extension(POLICIES, seq(seq(oid("1.2.3.4"), seq(seq(oid("1.2.3"), _NULL))))),
    "CRL point in Latin-1": _points(implicit(6, b"http://x/\xe4.crl")),
    "CRL point with a directory name in T61": _points(directory(name(attribute(CN, T61, b"Gr\xfc\xdfe")))),
    "CRL point relative to the issuer": extension(CRL_POINTS, seq(seq(context(0, context(1, attribute(CN, UTF8, b"crl")))))),
    "CRL point with reasons only": extension(CRL_POINTS, seq(seq(implicit(1, b"\x06\x40")))),
    "no CRL points": extension(CRL_POINTS, seq()),
    "TLS feature of an unknown value": extension(TLS_FEATURE, seq(integer(12345))),
    "TLS feature must-staple": extension(TLS_FEATURE, seq(integer(5))),
    "TLS feature that is empty": extension(TLS_FEATURE, seq()),
    "authority access of an unknown method": extension(AUTHORITY_ACCESS, seq(seq(oid("1.2.3"), uri("http://x/")))),
    "authority access by directory": extension(
        AUTHORITY_ACCESS, seq(seq(oid("1.3.6.1.5.5.7.48.2"), directory(name(attribute(CN, UNIVERSAL, b"\0\0\0a")))))
    ),
    "subject access": extension("1.3.6.1.5.5.7.1.11", seq(seq(oid("1.2.3"), uri("http://x/\x7f")))),
    "issuer alternative name of odd bytes": extension("2.5.29.18", b"\xff\xff"),
    "directory attributes of odd bytes": extension("2.5.29.9", b"\x30\x05"),
    "Netscape comment": extension("2.16.840.1.113730.1.13", tlv(IA5, b"by hand \xe9")),
    "Netscape certificate type of odd bytes": extension("2.16.840.1.113730.1.1", b"nothing"),
    "Microsoft template of odd bytes": extension("1.3.6.1.4.1.311.21.7", b"\x01"),
    "certificate timestamps of odd bytes": extension("1.3.6.1.4.1.11129.2.4.2", octets(b"\0\1x")),
    "qualified statements of odd bytes": extension("1.3.6.1.5.5.7.1.3", b"\x30\x03\x02\x01"),
    "private key period of odd bytes": extension("2.5.29.16", b"\x04\x00"),
    "no-check of odd bytes": extension("1.3.6.1.5.5.7.48.1.5", b""),
    "freshest CRL of odd bytes": extension("2.5.29.46", b"\x30\x80"),
    "unknown extension": extension(UNKNOWN, b"anything"),
    "unknown extension with FALSE written": extension(UNKNOWN, b"anything", False),
    "empty unknown extension": extension(UNKNOWN, b""),
    "large unknown extension": extension(UNKNOWN, bytes(5000)),
    "unknown extension with a long identifier": extension("1.2." + ".".join(["4294967295"] * 20), b""),
}
_UNKNOWN_TO_GO = {"go": False, "why": "unread-extension"}
_NOT_FOR_GO = ("CRL point relative to the issuer", "unknown extension with a long identifier")
for _name, _value in _UNREAD.items():
    _trim(_name, _more(_value), _EVERYWHERE, **(_UNKNOWN_TO_GO if _name in _NOT_FOR_GO else {}))

# -- critical, twice, empty, FALSE written

for _name, _value in {
    "unknown": extension(UNKNOWN, _NULL, True),
    "poison": extension("1.3.6.1.4.1.11129.2.4.3", _NULL, True),
    "TLS feature": extension(TLS_FEATURE, seq(integer(5)), True),
    "subject access": extension("1.3.6.1.5.5.7.1.11", seq(seq(oid("1.2.3"), uri("http://x/"))), True),
    "issuer alternative name": extension("2.5.29.18", seq(dns("ca.test")), True),
    "issuing points of a CRL": extension("2.5.29.28", seq(), True),
}.items():
    _trim(f"critical {_name}", _more(_value), (REFUSED, REFUSED, _ANY_ANCHOR))
for _name, _kind in {"key usage": KEY_USAGE, "subject key id": SUBJECT_KEY_ID}.items():
    _value = subject_key_id(b"second") if _kind == SUBJECT_KEY_ID else usage("key_cert_sign", "digital_signature")
    _trim(f"{_name} twice", _more(_value), _NOWHERE)
_trim("unknown extension twice", _more(extension(UNKNOWN, b"1"), extension(UNKNOWN, b"2")), _NOWHERE)
_trim("basic constraints twice", _more(basic(True)), (None, REFUSED, REFUSED))
_add("two extensions of names", two(_more(san(dns("other.test")))), REFUSED)
for _name, _kind, _value in (
    ("names", SAN, usual_san(critical=False)),
    ("purposes", PURPOSES, purposes(SERVER_AUTH, CLIENT_AUTH, critical=False)),
    ("subject key id", SUBJECT_KEY_ID, subject_key_id(b"an id", False)),
    ("authority key id", AUTHORITY_KEY_ID, authority_key_id(b"an id", critical=False)),
):
    _add(f"leaf with FALSE written for {_name}", two(_replace(_kind, _value)))
for _name, _kind, _value in (
    ("basic constraints", BASIC, basic(True, None, False)),
    ("key usage", KEY_USAGE, usage("key_cert_sign", critical=False)),
    ("subject key id", SUBJECT_KEY_ID, subject_key_id(b"an id", False)),
    ("authority key id", AUTHORITY_KEY_ID, authority_key_id(b"an id", critical=False)),
):
    _trim(f"FALSE written for {_name}", _replace(_kind, _value), (None, OK, OK))
_CRITICAL = (REFUSED, REFUSED, _ANY_ANCHOR)
_trim("critical subject key id", _replace(SUBJECT_KEY_ID, subject_key_id(b"an id", True)), _CRITICAL)
_trim("critical authority key id", _replace(AUTHORITY_KEY_ID, authority_key_id(b"an id", critical=True)), _CRITICAL)
_VALUE = extension(AUTHORITY_ACCESS, seq(seq(oid("1.3.6.1.5.5.7.48.2"), uri("http://x/"))), True)
_trim("critical authority access", _more(_VALUE), _CRITICAL)
_VALUE = extension(CRL_POINTS, seq(seq(context(0, context(0, uri("http://x/"))))), True)
_trim("critical CRL points", _more(_VALUE), _EVERYWHERE)
_add("leaf with an empty list of extensions", two({"extension_block": context(3, seq())}), client=REFUSED, spiffe=REFUSED)
_add("leaf without extensions", two({"extension_block": b""}), client=REFUSED, spiffe=REFUSED)
_add("leaf with critical names", two(_replace(SAN, usual_san(critical=True))))

# -- policies

_REQUIRE_NOW = seq(implicit(0, b"\0"))
_trim("critical policy constraints", _more(extension(POLICY_CONSTRAINTS, _REQUIRE_NOW, True)), (None, REFUSED, OK))
_add("leaf with critical policy constraints", two(_more(extension(POLICY_CONSTRAINTS, _REQUIRE_NOW, True))), REFUSED)
_trim("policy constraints", _more(extension(POLICY_CONSTRAINTS, _REQUIRE_NOW)), (None, REFUSED, OK))
_LATER = extension(POLICY_CONSTRAINTS, seq(implicit(0, b"\x05")), True)
_trim("critical policy constraints that count from 5", _more(_LATER), (None, OK, OK))
_INHIBIT = extension(POLICY_CONSTRAINTS, seq(implicit(1, b"\0")), True)
_trim("critical policy constraints that inhibit mapping", _more(_INHIBIT), (None, OK, OK))
_trim("critical inhibitAnyPolicy", _more(extension(INHIBIT_ANY, integer(0), True)), (None, OK, OK))
_trim("critical policies", _more(extension(POLICIES, seq(seq(oid("1.2.3.4"))), True)), _EVERYWHERE)
_trim(
    "a policy twice", _more(extension(POLICIES, seq(seq(oid("1.2.3.4")), seq(oid("1.2.3.4"))))), _EVERYWHERE, **_UNKNOWN_TO_GO
)
_MAPPED = extension(POLICY_MAPPINGS, seq(seq(oid("1.2.3.4"), oid("1.2.3.5"))), True)
_trim("critical policy mappings", _more(_MAPPED), (None, OK, OK))
_POLICY = _more(extension(POLICIES, seq(seq(oid("1.2.3.4")))))


def _required(leaf: dict[str, Any]) -> Any:
    middle = {"more": (*_POLICY["more"], extension(POLICY_CONSTRAINTS, _REQUIRE_NOW, True))}
    return three(leaf, middle)


_add("required policy that every certificate has", _required(_POLICY))
_add("required policy that the leaf lacks", _required({}), REFUSED)

# -- names of the leaf

_ODD_NAMES = {
    "x400": context(3, b""),
    "x400 with content": context(3, seq(integer(1))),
    "EDI": context(5, context(1, tlv(UTF8, b"party"))),
    "registered id": implicit(8, oid("1.2.3.4")[2:]),
    "other name": context(0, oid("1.2.3.4"), context(0, tlv(UTF8, b"x"))),
    "other name of a principal": context(0, oid("1.3.6.1.4.1.311.20.2.3"), context(0, tlv(UTF8, b"u@a.test"))),
    "directory in T61": directory(name(attribute(CN, T61, b"Gr\xfc\xdfe"))),
    "directory in BMP": directory(name(attribute(CN, BMP, b"\0a"))),
    "directory in Universal": directory(name(attribute(CN, UNIVERSAL, b"\0\0\0a"))),
    "empty directory": directory(name()),
    "email": email("a@a.test"),
    "email without @": email("nobody"),
    "second DNS name": dns("other.test"),
    "DNS name with an underscore": dns("a_b.test"),
    "DNS wildcard": dns("*.leaf.test"),
    "DNS wildcard in the middle": dns("a.*.test"),
    "DNS name with a trailing dot": dns("other.test."),
    "DNS name of one label": dns("localhost"),
    "DNS name with a space": dns("a b"),
    "empty DNS name": dns(""),
    "DNS name with NUL": dns("leaf.test\0.evil.test"),
    "DNS name of 300 bytes": dns("a." * 150),
    "IPv4": ip(bytes([192, 0, 2, 1])),
    "IPv6": ip(bytes(16)),
    "the same DNS name twice": dns(HOST),
}
for _name, _value in _ODD_NAMES.items():
    _add(f"name of the leaf: {_name}", two(_replace(SAN, usual_san(_value))))
for _name, _value in {
    "IP of 5 bytes": ip(bytes(5)),
    "IP with a mask": ip(bytes(8)),
    "DNS name in Latin-1": implicit(2, b"gr\xfc\xdfe.test"),
}.items():
    _add(f"name of the leaf: {_name}", two(_replace(SAN, usual_san(_value))), REFUSED)
_LATIN = implicit(1, b"gr\xfc\xdfe@a.test")
_add("name of the leaf: email in Latin-1", two(_replace(SAN, usual_san(_LATIN))), **_UNKNOWN_TO_GO)
_add("names without a SPIFFE ID", two(_replace(SAN, san(dns(HOST)))), spiffe=Denial.URI_SAN)
_add("names without the host", two(_replace(SAN, san(uri(SPIFFE_ID)))), client=Denial.HOST_NAME)
_add("host in upper case", two(_replace(SAN, san(uri(SPIFFE_ID), dns("LEAF.Test")))))
_add("host as the second DNS name", two(_replace(SAN, san(dns("other.test"), uri(SPIFFE_ID), dns(HOST)))))
_add("host behind an unreadable kind", two(_replace(SAN, san(context(3, b""), dns(HOST), uri(SPIFFE_ID)))))
_add("wildcard that covers the host", two(_replace(SAN, san(uri(SPIFFE_ID), dns("*.test")))))
_add("wildcard for a part of a label", two(_replace(SAN, san(uri(SPIFFE_ID), dns("l*.test")))), client=Denial.HOST_NAME)
_add("host only as an email", two(_replace(SAN, san(uri(SPIFFE_ID), email(HOST)))), client=Denial.HOST_NAME)
_add("host with NUL behind it", two(_replace(SAN, san(uri(SPIFFE_ID), dns(HOST + "\0.evil")))), client=Denial.HOST_NAME)
_add("two SPIFFE IDs", two(_replace(SAN, usual_san(uri("spiffe://a.test/v")))), spiffe=Denial.URI_SAN)
_add("a second URI", two(_replace(SAN, usual_san(uri("https://a.test/v")))), spiffe=Denial.URI_SAN)
_add("no names at all", two(_replace(SAN, b"")), client=REFUSED, spiffe=Denial.URI_SAN)
_add("empty names", two(_replace(SAN, san())), client=REFUSED, spiffe=REFUSED)
_add("host in the common name only", two({"subject": common_name(HOST)} | _replace(SAN, san(uri(SPIFFE_ID)))), client=REFUSED)
_trim("names of an authority", _more(san(email("ca@a.test"), context(3, b""))), (None, OK, OK))

# -- subjects

_STRINGS_NOT_FOR_GO = ("Universal", "Visible", "General", "GeneralizedTime")
for _name, _value in {
    "T61 in Latin-1": (T61, b"Gr\xfc\xdfe"),
    "T61 in ASCII": (T61, b"plain"),
    "BMP": (BMP, "Grüße".encode("utf-16-be")),
    "Universal": (UNIVERSAL, "hi".encode("utf-32-be")),
    "Visible": (VISIBLE, b"hello"),
    "General": (GENERAL, b"hello"),
    "Numeric": (NUMERIC, b"12345"),
    "IA5": (IA5, b"hello@a.test"),
    "GeneralizedTime": (GENERALIZED_TIME, b"20260101000000Z"),
    "a NUL": (UTF8, b"a\0b"),
    "an empty value": (UTF8, b""),
    "5000 characters": (UTF8, b"x" * 5000),
}.items():
    _attribute = attribute(OU, *_value)
    for _position in ("leaf", "middle", "root"):
        _subject = name(attribute(CN, UTF8, f"{_position} with {_name}".encode()), _attribute)
        _odd = {"go": False, "why": "subject-string"} if _name in _STRINGS_NOT_FOR_GO else {}
        _add(f"subject with {_name} in {_position}", three(**{_position: {"subject": _subject}}), **_odd)
for _name, _value in {
    "invalid UTF8": (UTF8, b"Gr\xfc\xdfe"),
    "BMP of an odd length": (BMP, b"\0a\0"),
    "Latin-1 marked as Printable": (PRINTABLE, b"Gr\xfc\xdfe"),
}.items():
    for _position in ("leaf", "middle", "root"):
        _subject = name(attribute(CN, UTF8, f"{_position} with {_name}".encode()), attribute(OU, *_value))
        _add(
            f"subject with {_name} in {_position}", three(**{_position: {"subject": _subject}}), go=False, why="subject-string"
        )
_MULTI = seq(tlv(0x31, attribute(CN, UTF8, b"multi"), attribute(OU, UTF8, b"valued")))
_UNSORTED = seq(tlv(0x31, attribute(OU, UTF8, b"zz"), attribute(CN, UTF8, b"aa")))
for _position in ("leaf", "middle", "root"):
    _add(f"multi-valued subject in {_position}", three(**{_position: {"subject": _MULTI}}))
    _add(f"unsorted multi-valued subject in {_position}", three(**{_position: {"subject": _UNSORTED}}))
    _add(f"country of three letters in {_position}", three(**{_position: {"subject": name(attribute(COUNTRY, UTF8, b"GER"))}}))
    _add(f"empty subject in {_position}", three(**{_position: {"subject": name()}}))
_add("empty subject and critical names", two({"subject": name()} | _replace(SAN, usual_san(critical=True))))
_add(
    "issuer in another type of string",
    two({"issuer_name": common_name("alike", PRINTABLE)}, {"subject": common_name("alike")}),
    REFUSED,
)
_add(
    "issuer in other letters",
    two({"issuer_name": common_name("Other Letters")}, {"subject": common_name("other letters")}),
    REFUSED,
)

# -- fields

for _name, _value in {
    "1": integer(1),
    "of 20 bytes": integer(2**158),
    "of 21 bytes": integer(2**166),
    "of 40 bytes": integer(2**318),
    "of 300 bytes": integer(2**2396),
}.items():
    _trim(f"serial number {_name}", {"serial": _value}, _EVERYWHERE)
_trim("serial number 0", {"serial": integer(0)}, _EVERYWHERE)
_UNREAD_FIELD = {"go": False, "why": "unread-field"}
_trim("negative serial number", {"serial": integer(-5)}, _EVERYWHERE, **_UNREAD_FIELD)
_trim("serial number with a zero too many", {"serial": tlv(2, b"\0\x05")}, _NOWHERE)
_trim("empty serial number", {"serial": tlv(2)}, _NOWHERE)
_OLD_LEAF = {"server": OK, "client": REFUSED, "spiffe": REFUSED}
_trim("version 1 with extensions", {"version": b""}, (_OLD_LEAF, REFUSED, OK))
_trim("version 1 written out", {"version": context(0, integer(0)), "extension_block": b""}, (None, REFUSED, None))
_trim("version 2 with extensions", {"version": context(0, integer(1))}, (_OLD_LEAF, REFUSED, OK))
_trim("version 4", {"version": context(0, integer(3))}, _NOWHERE)
_trim("version -1", {"version": context(0, integer(-1))}, _NOWHERE)
_V1 = {"version": b"", "extension_block": b""}
_trim("version 1", _V1, (_OLD_LEAF, REFUSED, OK))
for _name, _value in {
    "UTCTime": seq(utc_time("200101000000Z"), utc_time("491231235959Z")),
    "GeneralizedTime before 2050": seq(generalized("20200101000000Z"), generalized("20401231235959Z")),
    "UTCTime of 1950": seq(utc_time("500101000000Z"), utc_time("491231235959Z")),
    "year 1": seq(generalized("00010101000000Z"), generalized("20990101000000Z")),
    "year 9999": seq(utc_time("200101000000Z"), generalized("99991231235959Z")),
    "before 1970": seq(generalized("19000101000000Z"), generalized("20990101000000Z")),
    "year 2050": seq(utc_time("200101000000Z"), generalized("20500101000000Z")),
}.items():
    _trim(f"dates: {_name}", {"validity": _value}, _EVERYWHERE)
_NOT_DER = {"go": True, "why": "not-der"}
for _name, _value in {
    "UTCTime without seconds": seq(utc_time("2001010000Z"), utc_time("4912312359Z")),
    "UTCTime with an offset": seq(utc_time("200101000000+0100"), utc_time("491231235959+0100")),
    "GeneralizedTime with a fraction": seq(utc_time("200101000000Z"), generalized("20990101000000.5Z")),
    "GeneralizedTime without Z": seq(utc_time("200101000000Z"), generalized("20990101000000")),
    "day 31 of February": seq(utc_time("200231000000Z"), utc_time("491231235959Z")),
    "second 60": seq(utc_time("200101000060Z"), utc_time("491231235959Z")),
    "letters": seq(utc_time("2001o1000000Z"), utc_time("491231235959Z")),
    "end before start": seq(utc_time("300101000000Z"), utc_time("200101000000Z")),
    "one date": seq(utc_time("200101000000Z")),
    "three dates": seq(*[utc_time("200101000000Z")] * 3),
    "strings": seq(tlv(PRINTABLE, b"200101000000Z"), tlv(PRINTABLE, b"491231235959Z")),
}.items():
    _trim(f"dates: {_name}", {"validity": _value}, _EVERYWHERE if _name.startswith("UTCTime") else _NOWHERE)
_UNIQUE = implicit(1, b"\0issuer") + implicit(2, b"\0subject")
_trim("unique identifiers", {"unique_ids": _UNIQUE}, _EVERYWHERE)
_trim("a byte behind the certificate", {"wrap": lambda der: der + b"\0"}, (REFUSED, REFUSED, None))
_trim("an element behind the extensions", {"tail": _NULL}, _NOWHERE, **_NOT_DER)
_trim("serial number with a long length", {"serial": long_form(integer(5))}, _NOWHERE)
_trim("key with bytes behind it", {"spki": seq(key("p256", 2).spki[2:], _NULL)}, (REFUSED, None, None), **_NOT_DER)
_trim(
    "basic constraints with bytes behind",
    _replace(BASIC, extension(BASIC, seq(tlv(1, b"\xff")) + _NULL, True)),
    (None, REFUSED, REFUSED),
    **_NOT_DER,
)
_trim("basic constraints of odd bytes", _replace(BASIC, extension(BASIC, b"\x30\x80", True)), (None, REFUSED, REFUSED))
_trim("key usage of odd bytes", _replace(KEY_USAGE, extension(KEY_USAGE, b"\x03\x00", True)), _NOWHERE)
_VALUE = extension(SUBJECT_KEY_ID, b"\xff")
_trim("subject key id of odd bytes", _replace(SUBJECT_KEY_ID, _VALUE), _EVERYWHERE, **_UNKNOWN_TO_GO)
_trim(
    "TRUE written as 1", _replace(BASIC, seq(oid(BASIC), tlv(1, b"\1"), octets(seq(tlv(1, b"\xff"))))), (None, REFUSED, REFUSED)
)


# -- signatures

for _kind in ("p256", "rsa2048"):
    for _digest in ("sha1", "sha224", "md5", "sha256", "sha384", "sha512"):
        if _kind == "p256" and _digest == "md5":
            continue
        _signed = {"scheme": Scheme(_digest)}
        _weak = Denial.WEAK_SIGNATURE if _digest in ("sha1", "sha224", "md5") else OK
        _root = {"key": key(_kind, 0)}
        _middle = {"key": key(_kind, 1)}
        _add(f"leaf signed with {_kind} and {_digest}", two(_signed, _root), _weak)
        _add(f"leaf below an intermediate signed with {_kind} and {_digest}", three(_signed, _middle), _weak)
        _add(f"intermediate signed with {_kind} and {_digest}", three(middle=_signed, root=_root), _weak)
        _add(f"root signed with {_kind} and {_digest}", two(root=_root | _signed), OK)
for _digest in ("sha256", "sha384", "sha512"):
    _pss = {"scheme": Scheme(_digest, is_pss=True)}
    _add(f"leaf signed with RSA-PSS and {_digest}", two(_pss, {"key": key("rsa2048")}))
    _add(f"intermediate signed with RSA-PSS and {_digest}", three(middle=_pss, root={"key": key("rsa2048")}))
    _add(f"root signed with RSA-PSS and {_digest}", two(root={"key": key("rsa2048")} | _pss))
_PSS1 = {"scheme": Scheme("sha1", is_pss=True)}
_add("leaf signed with RSA-PSS and sha1", two(_PSS1, {"key": key("rsa2048")}), REFUSED)
_add("leaf signed with Ed25519", two(root={"key": key("ed25519")}))
_add("intermediate signed with Ed25519", three(root={"key": key("ed25519")}))
_ECDSA_NULL = {"scheme": Scheme(parameters=_NULL)}
_trim("ECDSA signature with NULL parameters", _ECDSA_NULL, _EVERYWHERE)
_RSA_ROOT = {"key": key("rsa2048")}
_add("RSA signature without parameters", two({"scheme": Scheme(parameters=b"")}, _RSA_ROOT))
_NULL_ED25519 = two({"scheme": Scheme(parameters=_NULL)}, {"key": key("ed25519")})
_add("Ed25519 signature with NULL parameters", _NULL_ED25519, REFUSED)
_INNER = {"inner_algorithm": seq(oid("1.2.840.10045.4.3.3"))}
_trim("signature algorithms that differ", _INNER, _NOWHERE)

# -- keys


def _keys(kind: str) -> dict[str, Any]:
    return {"key": key(kind)}


for _kind in ("p256", "p384", "p521", "ed25519", "rsa2048", "rsa2048e3", "rsa8192", "rsa2048e2147483647"):
    _add(f"leaf with a key {_kind}", two(_keys(_kind)))
    _add(f"intermediate with a key {_kind}", three(middle=_keys(_kind)))
    _add(f"anchor with a key {_kind}", two(root=_keys(_kind)))
_STRICTER = {"go": True, "why": "key-strength"}
_ONLY_HERE = (("p224", "rsa1024", "rsa2047"), (("leaf", "rsa512"), ("root", "rsa8200")))
for _kind in ("p192", "p224", "k256", "bp256", "rsa512", "rsa1024", "rsa2047", "rsa8200", "dsa", "explicit", "generator"):
    for _position in ("leaf", "middle", "root"):
        _is_stricter = _kind in _ONLY_HERE[0] or (_position, _kind) in _ONLY_HERE[1]
        _build = three(**{_position: _keys(_kind)})
        _add(f"key {_kind} in {_position}", _build, REFUSED, **(_STRICTER if _is_stricter else {}))
for _position in ("leaf", "middle", "root"):
    _add(f"key ed448 in {_position}", three(**{_position: _keys("ed448")}), go=False, why="ed448")
for _exponent in (3, 2**31 - 1):
    _add(f"intermediate with RSA exponent {_exponent}", three(middle=_keys(f"rsa2048e{_exponent}")))
for _bits, _exponent in ((33, 2**32 + 15), (64, 2**64 - 59)):
    _kind = f"rsa2048e{_exponent}"
    _is_ignored = {"go": True, "why": "key-strength"} if _bits == 33 else {}
    _add(f"leaf with an RSA exponent of {_bits} bits", two(_keys(_kind)), REFUSED, **_is_ignored)
    _add(f"intermediate with an RSA exponent of {_bits} bits", three(middle=_keys(_kind)), REFUSED)
    _add(f"anchor with an RSA exponent of {_bits} bits", two(root=_keys(_kind)), REFUSED)
for _position in ("leaf", "middle"):
    _add(f"RSA key of 16384 bits in {_position}", three(**{_position: _keys("rsa16384")}), REFUSED)
_point = bytearray(key("p256", 2).spki)
_point[-1] ^= 1
_add("leaf with a point off its curve", two({"spki": bytes(_point)}), REFUSED)
_X25519 = seq(seq(oid("1.3.101.110")), bits(bytes(range(32))))
_add("leaf with a key for key agreement", two({"spki": _X25519}), REFUSED)
_add("leaf with a key of an unknown kind", two({"spki": seq(seq(oid("1.2.3.4")), bits(b"\1\2\3"))}), REFUSED)
_RSA_NO_NULL = seq(seq(oid("1.2.840.113549.1.1.1")), key("rsa2048").spki[-271:])
_add("leaf with an RSA key without parameters", two({"key": Key(key("rsa2048").private, _RSA_NO_NULL)}), REFUSED)
