"""Cases of name constraints (RFC 5280, 4.2.1.10): every kind of name, permitted and excluded, in root and intermediate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.odd_certificates.cases import OK, REFUSED, Table, three
from tests.support.odd_certificates.factory import (
    HOST,
    NAME_CONSTRAINTS,
    SAN,
    SPIFFE_ID,
    Chain,
    Names,
    directory,
    dns,
    email,
    ip,
    name_constraints,
    san,
    uri,
    usual_san,
)
from tests.support.odd_certificates.raw_der import (
    CN,
    COUNTRY,
    NULL,
    OU,
    T61,
    UTF8,
    attribute,
    common_name,
    context,
    extension,
    implicit,
    integer,
    name,
    oid,
    seq,
    tlv,
)

CONSTRAINTS = Table()
_add = CONSTRAINTS.add
_V4, _V6 = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8000000000000000000000001")
_NET4 = bytes([192, 0, 2, 0, 255, 255, 255, 0])
_NET6 = bytes.fromhex("20010db8000000000000000000000000ffffffff000000000000000000000000")


def _constrained(constraints: bytes, names: bytes = b"", *, by: str = "middle", **leaf: Any) -> Callable[[Names], Chain]:
    """The constraints in one authority, the names in the leaf."""
    above: dict[str, Any] = {by: {"replace": {NAME_CONSTRAINTS: constraints}}}
    return three(leaf | {"replace": {SAN: names or usual_san()}}, **above)


def _both(name: str, constraints: bytes, names: bytes = b"", verdict: Any = OK, **fields: Any) -> None:
    """A case for the intermediate and one for the root."""
    for by in ("middle", "root"):
        _add(f"{name} by {by}", _constrained(constraints, names, by=by), verdict, **fields)


# -- DNS

for _base, _is_inside in {
    "leaf.test": True,
    "test": True,
    "": True,
    "LEAF.Test": True,
    "af.test": False,
    "a.leaf.test": False,
    "other.test": False,
    "leaf": False,
}.items():
    _both(f"permitted DNS {_base!r}", name_constraints([dns(_base)]), b"", OK if _is_inside else REFUSED)
    _both(f"excluded DNS {_base!r}", name_constraints(excluded=[dns(_base)]), b"", REFUSED if _is_inside else OK)
_both("permitted DNS with a leading dot", name_constraints([dns(".test")]))
_both("excluded DNS with a leading dot", name_constraints(excluded=[dns(".test")]), b"", REFUSED)
_both("constraints that are not critical", name_constraints(excluded=[dns(HOST)], critical=None), b"", REFUSED)
_both("constraints with FALSE written", name_constraints(excluded=[dns(HOST)], critical=False), b"", REFUSED)
_both("second of two permitted", name_constraints([dns("other.test"), dns(HOST)]))
_both("permitted and excluded", name_constraints([dns("test")], [dns(HOST)]), b"", REFUSED)
_both("excluded beside the host", name_constraints([dns("test")], [dns("other.test")]))
_both("second name outside", name_constraints([dns(HOST)]), usual_san(dns("other.test")), REFUSED)
_both("second name excluded", name_constraints(excluded=[dns("other.test")]), usual_san(dns("a.other.test")), REFUSED)

_WILDCARD = san(uri(SPIFFE_ID), dns("*.test"))
_both("wildcard, its host excluded", name_constraints(excluded=[dns(HOST)]), _WILDCARD, REFUSED)
_both("wildcard, another host excluded", name_constraints(excluded=[dns("other.test")]), _WILDCARD, REFUSED)
_both("wildcard, its domain excluded", name_constraints(excluded=[dns("test")]), _WILDCARD, REFUSED)
_both("wildcard, deeper host excluded", name_constraints(excluded=[dns("a.b.test")]), _WILDCARD, OK)
_both("wildcard, other domain excluded", name_constraints(excluded=[dns("example")]), _WILDCARD, OK)
_both("wildcard, its domain permitted", name_constraints([dns("test")]), _WILDCARD, OK)
_both("wildcard, its host permitted", name_constraints([dns(HOST)]), _WILDCARD, REFUSED)
_both("second wildcard, its host excluded", name_constraints(excluded=[dns("x.other")]), usual_san(dns("*.other")), REFUSED)
_both("host in the common name excluded", name_constraints(excluded=[dns("cn.test")]))
_add(
    "common name that looks like an excluded host",
    _constrained(name_constraints(excluded=[dns("cn.test")]), subject=common_name("cn.test")),
)

# -- URI

# A constraint without a leading dot is one host (RFC 5280, 4.2.1.10); for Go, and for us if it is excluded, a whole domain.
_HOST_ONLY: dict[str, Any] = {"go": True, "why": "host-constraint"}

for _base, _is_inside in {"a.test": True, ".test": True, "test": False, "b.test": False, ".a.test": False}.items():
    _odd = _HOST_ONLY if _base == "test" else {}
    _both(f"permitted URI {_base!r}", name_constraints([uri(_base)]), b"", OK if _is_inside else REFUSED, **_odd)
    _both(
        f"excluded URI {_base!r}",
        name_constraints(excluded=[uri(_base)]),
        b"",
        OK if not _is_inside and _base != "test" else REFUSED,
    )
_both("permitted URI, a second one outside", name_constraints([uri("a.test")]), usual_san(uri("https://b.test/")), REFUSED)
_both("excluded URI, none is there", name_constraints(excluded=[uri("a.test")]), san(dns(HOST)), OK, spiffe=REFUSED)
_NO_HOST = san(dns(HOST), uri("urn:uuid:1"))
_both("permitted URI, one without a host", name_constraints([uri("a.test")]), _NO_HOST, REFUSED)

# -- addresses

for _name, _net, _address in (("IPv4", _NET4, _V4), ("IPv6", _NET6, _V6)):
    _outside = bytes(len(_address))
    _both(f"permitted {_name}", name_constraints([ip(_net)]), usual_san(ip(_address)))
    _both(f"permitted {_name}, outside", name_constraints([ip(_net)]), usual_san(ip(_outside)), REFUSED)
    _both(f"excluded {_name}", name_constraints(excluded=[ip(_net)]), usual_san(ip(_address)), REFUSED)
    _both(f"excluded {_name}, outside", name_constraints(excluded=[ip(_net)]), usual_san(ip(_outside)))
    _both(f"permitted {_name}, no address", name_constraints([ip(_net)]))
_both("permitted IPv4, an IPv6 address", name_constraints([ip(_NET4)]), usual_san(ip(_V6)), REFUSED)
_HOST_BITS = bytes([192, 0, 2, 77, 255, 255, 255, 0])
_both("permitted IPv4 with host bits", name_constraints([ip(_HOST_BITS)]), usual_san(ip(_V4)))
_both("excluded IPv4 with host bits", name_constraints(excluded=[ip(_HOST_BITS)]), usual_san(ip(_V4)), REFUSED)
_both("excluded IPv4 with host bits, outside", name_constraints(excluded=[ip(_HOST_BITS)]), usual_san(ip(bytes(4))))
_HOST_BITS6 = _NET6[:15] + b"\x09" + _NET6[16:]
_both("excluded IPv6 with host bits", name_constraints(excluded=[ip(_HOST_BITS6)]), usual_san(ip(_V6)), REFUSED)
_HOLES = bytes([192, 0, 2, 0, 255, 0, 255, 0])
_both("permitted IPv4 with a mask that has holes", name_constraints([ip(_HOLES)]), usual_san(ip(_V4)), REFUSED)
_both("excluded IPv4 of 5 bytes", name_constraints(excluded=[ip(bytes(5))]), verdict=REFUSED)
_both("excluded IPv4 of 5 bytes, an address", name_constraints(excluded=[ip(bytes(5))]), usual_san(ip(_V4)), REFUSED)
_both("every IPv4 excluded", name_constraints(excluded=[ip(bytes(8))]), usual_san(ip(_V4)), REFUSED)
_both("every IPv4 excluded, an IPv6 address", name_constraints(excluded=[ip(bytes(8))]), usual_san(ip(_V6)))

# -- mail

_MAIL = usual_san(email("a@a.test"))
for _base, _is_inside in {"a@a.test": True, "a.test": True, ".test": True, "b@a.test": False, "test": False}.items():
    _odd = _HOST_ONLY if _base == "test" else {}
    _both(f"permitted mail {_base!r}", name_constraints([email(_base)]), _MAIL, OK if _is_inside else REFUSED, **_odd)
    _verdict = OK if not _is_inside and _base != "test" else REFUSED
    _both(f"excluded mail {_base!r}", name_constraints(excluded=[email(_base)]), _MAIL, _verdict)
_both("permitted mail, no mail", name_constraints([email("a.test")]))
_both("permitted mail, an odd one", name_constraints([email("a.test")]), usual_san(email("nobody")), REFUSED)

# -- directory names

_KIND: dict[str, Any] = {"go": False, "why": "constraint-kind"}

_IN = name(attribute(COUNTRY, UTF8, b"DE"), attribute(OU, UTF8, b"inside"), attribute(CN, UTF8, b"leaf"))
_TREE, _OTHER_TREE = name(attribute(COUNTRY, UTF8, b"DE")), name(attribute(COUNTRY, UTF8, b"FR"))
for _name, _tree, _permitted, _excluded in (("same", _TREE, OK, REFUSED), ("other", _OTHER_TREE, REFUSED, OK)):
    for _by in ("middle", "root"):
        # A root's constraints apply to the intermediate's subject too.
        _subjects = {"root": {"subject": name(attribute(COUNTRY, UTF8, b"DE"), attribute(CN, UTF8, b"middle"))}}
        for _what, _list, _verdict in (
            ("permitted", name_constraints([directory(_tree)]), _permitted),
            ("excluded", name_constraints(excluded=[directory(_tree)]), _excluded),
        ):
            _changes: dict[str, Any] = {"leaf": {"subject": _IN}, "middle": dict(_subjects.get(_by, {}))}
            _changes.setdefault(_by, {})["replace"] = {NAME_CONSTRAINTS: _list}
            _add(
                f"{_what} directory, {_name} country, by {_by}",
                three(**_changes),
                _verdict,
                **(_KIND if _verdict == OK else {}),
            )
_add(
    "excluded directory in the names of the leaf",
    _constrained(name_constraints(excluded=[directory(_TREE)]), usual_san(directory(_IN))),
    REFUSED,
)
_add(
    "permitted directory in T61", _constrained(name_constraints([directory(name(attribute(OU, T61, b"Gr\xfc\xdfe")))])), REFUSED
)
_add(
    "excluded directory in T61",
    _constrained(name_constraints(excluded=[directory(name(attribute(OU, T61, b"Gr\xfc\xdfe")))])),
    **_KIND,
)

# -- other kinds, and odd forms

_KINDS = {
    "other name": context(0, oid("1.2.3.4"), context(0, tlv(UTF8, b"x"))),
    "x400": context(3, seq()),
    "EDI": context(5, context(1, tlv(UTF8, b"party"))),
    "registered id": implicit(8, oid("1.2.3")[2:]),
}
for _name, _value in _KINDS.items():
    _both(f"excluded {_name}, none is there", name_constraints(excluded=[_value]), **_KIND)
    _both(f"permitted {_name}, none is there", name_constraints([_value]), **_KIND)
    _both(f"excluded {_name}, one is there", name_constraints(excluded=[_value]), usual_san(_value), REFUSED)
    _both(
        f"excluded {_name}, not critical, one is there", name_constraints(excluded=[_value], critical=None), usual_san(_value)
    )
_both("no subtrees", extension(NAME_CONSTRAINTS, seq(), True), verdict=REFUSED)
_both("empty subtrees", extension(NAME_CONSTRAINTS, seq(context(0), context(1)), True), verdict=REFUSED)
_MINIMUM = extension(NAME_CONSTRAINTS, seq(context(1, seq(dns("other.test"), implicit(0, integer(0)[2:])))), True)
_both("minimum written out", _MINIMUM)
_MAXIMUM = extension(NAME_CONSTRAINTS, seq(context(1, seq(dns("other.test"), implicit(1, integer(5)[2:])))), True)
_both("a maximum", _MAXIMUM, verdict=REFUSED, go=True, why="constraint-form")
_both("constraints of odd bytes", extension(NAME_CONSTRAINTS, b"\x30\x80", True), b"", REFUSED)
_both("constraints of odd bytes, not critical", extension(NAME_CONSTRAINTS, tlv(NULL)), b"", REFUSED)
_both("excluded DNS in Latin-1", name_constraints(excluded=[implicit(2, b"gr\xfc\xdfe")]), b"", REFUSED)
_both(
    "excluded DNS with a wildcard", name_constraints(excluded=[dns("*.test")]), verdict=REFUSED, go=True, why="constraint-form"
)
_both("permitted DNS with a wildcard", name_constraints([dns("*.test")]), b"", REFUSED)
_CN_ONLY = _constrained(name_constraints(excluded=[dns("cn.test")]), san(uri(SPIFFE_ID)), subject=common_name("cn.test"))
_add(
    "excluded host in the common name of a leaf without DNS names", _CN_ONLY, REFUSED, go=(True, False, True), why="common-name"
)
_add("constraints in the leaf", three({"replace": {NAME_CONSTRAINTS: name_constraints(excluded=[dns(HOST)])}}))


def _narrowed(root: bytes, middle: bytes) -> Callable[[Names], Chain]:
    return three(root={"replace": {NAME_CONSTRAINTS: root}}, middle={"replace": {NAME_CONSTRAINTS: middle}})


_add(
    "permitted by root, narrowed to another name",
    _narrowed(name_constraints([dns("test")]), name_constraints([dns("x.test")])),
    REFUSED,
)
_add("permitted by root, narrowed to the name", _narrowed(name_constraints([dns("test")]), name_constraints([dns(HOST)])))
_add(
    "excluded by root, permitted below",
    _narrowed(name_constraints(excluded=[dns(HOST)]), name_constraints([dns(HOST)])),
    REFUSED,
)
_MANY = [dns(f"x{number}.test") for number in range(300)]
_add("300 excluded names", _constrained(name_constraints(excluded=_MANY)))
_add("300 excluded names and the host's", _constrained(name_constraints(excluded=[*_MANY, dns(HOST)])), REFUSED)


def _names_of_intermediate(names: Names) -> Chain:
    root = names.root(replace={NAME_CONSTRAINTS: name_constraints(excluded=[dns("ca.test")])})
    middle = names.middle(root, more=(san(dns("ca.test")),))
    return Chain((root,), (names.leaf(middle), middle))


_add("excluded name of an intermediate", _names_of_intermediate, REFUSED)
