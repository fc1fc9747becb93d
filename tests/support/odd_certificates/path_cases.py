"""Cases of path building: several paths, unrelated certificates, order, length, and names that repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.support.odd_certificates.cases import OK, REFUSED, Table, three, two
from tests.support.odd_certificates.factory import (
    BASIC,
    CODE_SIGNING,
    EMAIL,
    EXPIRED,
    KEY_USAGE,
    NAME_CONSTRAINTS,
    NO_KEY_IDS,
    NOT_YET,
    PURPOSES,
    UNKNOWN,
    Chain,
    Made,
    Names,
    basic,
    dns,
    name_constraints,
    purposes,
    uri,
    usage,
)
from tests.support.odd_certificates.keys import Scheme, flip_last_bit, key
from tests.support.odd_certificates.raw_der import NULL, extension, tlv
from tunnel.errors import Denial

PATHS = Table()
_NO_IDS = {"replace": NO_KEY_IDS}
_add = PATHS.add


def _plain(count: int, *, with_root: bool = False) -> Callable[[Names], Chain]:
    def build(names: Names) -> Chain:
        root = issuer = names.root()
        middles: list[Made] = []
        for number in range(count):
            issuer = names.middle(issuer, f"middle {number}", key=key("p256", 100 + number))
            middles.insert(0, issuer)
        return Chain((root,), (names.leaf(issuer), *middles, *((root,) if with_root else ())))

    return build


for _count in (0, 1, 3, 8, 13):
    _add(f"{_count} intermediates", _plain(_count))
_add("root is sent too", _plain(1, with_root=True))
_add("31 intermediates", _plain(31), REFUSED, go=True, why="path-length")


def _arranged(order: str, *trusted: str, **changes: Any) -> Callable[[Names], Chain]:
    """Certificates by letter: L leaf, M middle, R root, X and Y unrelated, S another root."""

    def build(names: Names) -> Chain:
        root = names.root()
        middle = names.middle(root)
        other = names.root("other root", key=key("p256", 5))
        made = {
            "L": names.leaf(middle),
            "M": middle,
            "R": root,
            "S": other,
            "X": names.middle(other, "unrelated", key=key("p256", 6)),
            "Y": names.leaf(other, "unrelated leaf", key=key("p256", 7)),
            "U": names.middle(other, "unknown", key=key("p256", 8), more=(extension(UNKNOWN, tlv(NULL), True),)),
            "E": names.middle(other, "outdated", key=key("p256", 9), validity=EXPIRED),
        }
        return Chain(tuple(made[one] for one in trusted or "R"), tuple(made[one] for one in order))

    return build


for _order in ("LXM", "LMX", "LYM", "LXYSM", "LSRM", "LRM", "LMM", "LML", "LRRMM", "LUM", "LEM", "LMUE", "LMSXXXXX"):
    _add(f"sent in the order {_order}", _arranged(_order))
_add("trusted by an anchor that is the intermediate", _arranged("L", "M"))
_add("the anchor is the intermediate, which is sent", _arranged("LM", "M"))
_add("the anchor is the intermediate, its root is sent", _arranged("LMR", "M"))
_add("anchors with an unrelated one first", _arranged("LM", "S", "R"))
_add("an anchor that is listed twice", _arranged("LM", "R", "R"))
_add("the intermediate is missing", _arranged("LX"), Denial.UNKNOWN_AUTHORITY)
_add("only another root is trusted", _arranged("LM", "S"), Denial.UNKNOWN_AUTHORITY)
_add("only another root is trusted, the own root is sent", _arranged("LMR", "S"), Denial.UNKNOWN_AUTHORITY)
_add("only an unrelated leaf is trusted", _arranged("LM", "Y"), Denial.UNKNOWN_AUTHORITY)


def _self_signed_leaf(is_anchor: bool) -> Callable[[Names], Chain]:
    def build(names: Names) -> Chain:
        leaf = names.leaf(None)
        return Chain((leaf if is_anchor else names.root(),), (leaf,))

    return build


_add("self-signed leaf", _self_signed_leaf(False), Denial.UNKNOWN_AUTHORITY)
_add("self-signed leaf that is an anchor", _self_signed_leaf(True), spiffe=REFUSED, go=True, why="leaf-as-anchor")


def _issued_leaf_as_anchor(names: Names) -> Chain:
    leaf = names.leaf(names.root())
    return Chain((leaf,), (leaf,))


_add("issued leaf that is an anchor", _issued_leaf_as_anchor, spiffe=REFUSED, go=True, why="leaf-as-anchor")


def _issued_by_a_leaf(names: Names) -> Chain:
    root = names.root()
    signer = names.leaf(root, "signing leaf", key=key("p256", 1))
    return Chain((root,), (names.leaf(signer), signer))


_add("issued by a leaf", _issued_by_a_leaf, Denial.NOT_CA)


# -- several paths


def _cross_signed(order: str, trusted: str, **below: Any) -> Callable[[Names], Chain]:
    """One intermediate signed by two roots."""

    def build(names: Names) -> Chain:
        roots = {letter: names.root(f"root {letter}", key=key("p256", number)) for number, letter in enumerate("AB", 10)}
        crossed = {letter: names.middle(root, **below) for letter, root in roots.items()}
        leaf = names.leaf(crossed["A"], **below)
        return Chain(tuple(roots[one] for one in trusted), (leaf, *(crossed[one] for one in order)))

    return build


for _order in ("AB", "BA"):
    for _trusted in ("A", "B"):
        _add(f"cross-signed {_order}, {_trusted} is trusted", _cross_signed(_order, _trusted))
        _add(f"cross-signed {_order}, {_trusted} is trusted, no key ids", _cross_signed(_order, _trusted, **_NO_IDS))
_add("cross-signed by A only, B is trusted", _cross_signed("A", "B"), Denial.UNKNOWN_AUTHORITY)


def _renewed_root(order: str, trusted: str, **changes: Any) -> Callable[[Names], Chain]:
    """N: new root, self-signed; C: the same key certified by the old root O."""

    def build(names: Names) -> Chain:
        old = names.root("old root", key=key("p256", 10), **changes)
        new = names.root("new root", key=key("p256", 11), **changes)
        cross = names.middle(old, "new root", key=key("p256", 11), **changes)
        middle = names.middle(new, **changes)
        made = {"N": new, "C": cross, "O": old, "M": middle}
        return Chain(tuple(made[one] for one in trusted), (names.leaf(middle, **changes), *(made[one] for one in order)))

    return build


for _order in ("MNC", "NCM", "MCN", "CMNO", "MNCO"):
    _add(f"new root, cross-certificate sent as {_order}, old root is trusted", _renewed_root(_order, "O"))
    _add(f"new root, cross-certificate sent as {_order}, new root is trusted", _renewed_root(_order, "N"))
_add("new root without its cross-certificate, old root is trusted", _renewed_root("MN", "O"), Denial.UNKNOWN_AUTHORITY)
_add("new root and cross-certificate without key ids", _renewed_root("MNC", "O", **_NO_IDS))


def _twins(first: dict[str, Any], *, sent: Sequence[int] = (0, 1), **below: Any) -> Callable[[Names], Chain]:
    """Two intermediates of one name and key: the first has a change, the second is right."""

    def build(names: Names) -> Chain:
        root = names.root()
        both = (names.middle(root, **first), names.middle(root))
        below_it = names.middle(both[1], "lower", key=key("p256", 12))
        return Chain((root,), (names.leaf(below_it, **below), below_it, *(both[one] for one in sent)))

    return build


_CHANGES: dict[str, dict[str, Any]] = {
    "a path length of 0": {"replace": {BASIC: basic(True, 0)}},
    "another purpose": {"replace": {PURPOSES: purposes(EMAIL)}},
    "cA FALSE": {"replace": {BASIC: basic(False)}},
    "no basic constraints": {"replace": {BASIC: b""}},
    "no keyCertSign": {"replace": {KEY_USAGE: usage("crl_sign")}},
    "an end in the past": {"validity": EXPIRED},
    "a start in the future": {"validity": NOT_YET},
    "a SHA-1 signature": {"scheme": Scheme("sha1")},
    "a wrong signature": {"spoil_signature": flip_last_bit},
    "an unknown critical extension": {"more": (extension(UNKNOWN, tlv(NULL), True),)},
    "excluded names": {"replace": {NAME_CONSTRAINTS: name_constraints(excluded=[dns("leaf.test"), uri("a.test")])}},
    "another key": {"key": key("p256", 13)},
    "another key and no key ids": {"key": key("p256", 13), "replace": NO_KEY_IDS},
    "a weak key": {"key": key("p192")},
    "a short RSA key": {"key": key("rsa1024")},
    "a huge RSA key": {"key": key("rsa8200")},
}
_BESIDE: dict[str, dict[str, Any]] = {
    "a weak key": {"go": False, "why": "unused-certificate"},
    "a huge RSA key": {"server": REFUSED},
}
_ALONE = {"another purpose": {"go": (False, False, True), "why": "purpose-of-intermediate"}}
for _name, _change in _CHANGES.items():
    _add(f"twin with {_name} first", _twins(_change), **_BESIDE.get(_name, {}))
    _add(f"twin with {_name} last", _twins(_change, sent=(1, 0)), **_BESIDE.get(_name, {}))
    _add(f"only the twin with {_name}", _twins(_change, sent=(0,)), REFUSED, **_ALONE.get(_name, {}))


def _outdated_in_bundle(name: str, first: dict[str, Any], *, is_root_first: bool, **changes: Any) -> None:
    """The bundle holds an intermediate that is not good any more, and the peer sends the renewed one."""

    def build(names: Names) -> Chain:
        root = names.root()
        old, new = names.middle(root, **(changes | first)), names.middle(root, **changes)
        anchors = (root, old) if is_root_first else (old, root)
        return Chain(anchors, (names.leaf(new, **changes), new))

    _add(f"bundle with an intermediate with {name}, root {'first' if is_root_first else 'last'}", build)


for _is_first in (False, True):
    _outdated_in_bundle("an end in the past", {"validity": EXPIRED}, is_root_first=_is_first)
    _outdated_in_bundle("a start in the future", {"validity": NOT_YET}, is_root_first=_is_first)
    _outdated_in_bundle("another purpose", {"replace": {PURPOSES: purposes(CODE_SIGNING)}}, is_root_first=_is_first)
    _outdated_in_bundle("cA FALSE", {"replace": {BASIC: basic(False)}}, is_root_first=_is_first)


def _renewed_anchor(names: Names, order: Sequence[int], **changes: Any) -> Chain:
    anchors = (names.root(validity=EXPIRED, **changes), names.root(**changes))
    middle = names.middle(anchors[1], **changes)
    return Chain(tuple(anchors[one] for one in order), (names.leaf(middle, **changes), middle))


_add("expired root first, renewed root last", lambda names: _renewed_anchor(names, (0, 1)))
_add("renewed root first, expired root last", lambda names: _renewed_anchor(names, (1, 0)))
_add("expired root first, renewed root last, no key ids", lambda names: _renewed_anchor(names, (0, 1), **_NO_IDS))
_add("expired root only", lambda names: _renewed_anchor(names, (0,)), Denial.EXPIRED)


def _namesakes(count: int, signer: int, **changes: Any) -> Callable[[Names], Chain]:
    """Anchors of one name, each with a key of its own."""

    def build(names: Names) -> Chain:
        anchors = tuple(names.root(key=key("p256", 200 + number), **changes) for number in range(count))
        return Chain(anchors, (names.leaf(anchors[signer], **changes),))

    return build


for _count, _signer in ((2, 1), (9, 8), (12, 11), (20, 10), (40, 39)):
    _add(f"anchor {_signer + 1} of {_count} of one name", _namesakes(_count, _signer))
    _add(f"anchor {_signer + 1} of {_count} of one name without key ids", _namesakes(_count, _signer, **_NO_IDS))


def _sent_namesakes(count: int, **changes: Any) -> Callable[[Names], Chain]:
    def build(names: Names) -> Chain:
        root = names.root(**changes)
        alike = [names.middle(root, key=key("p256", 200 + number), **changes) for number in range(count)]
        return Chain((root,), (names.leaf(alike[-1], **changes), *alike))

    return build


for _count in (2, 8):
    _add(f"{_count} intermediates of one name", _sent_namesakes(_count))
    _add(f"{_count} intermediates of one name without key ids", _sent_namesakes(_count, **_NO_IDS))
_add("60 intermediates of one name", _sent_namesakes(60))
_add("60 intermediates of one name without key ids", _sent_namesakes(60, **_NO_IDS), REFUSED, go=True, why="search-bounds")


def _cycle(names: Names) -> Chain:
    root = names.root()
    first = names.middle(root, "first", key=key("p256", 20))
    second = names.middle(first, "second", key=key("p256", 21))
    again = names.middle(second, "first", key=key("p256", 20))
    return Chain((root,), (names.leaf(second), again, second))


_add("authorities that certify each other", _cycle, Denial.UNKNOWN_AUTHORITY)


def _way_out_of_a_cycle(names: Names) -> Chain:
    root = names.root()
    first = names.middle(root, "first", key=key("p256", 20))
    second = names.middle(first, "second", key=key("p256", 21))
    again = names.middle(second, "first", key=key("p256", 20))
    return Chain((root,), (names.leaf(second), again, second, first))


_add("authorities that certify each other, and a way out", _way_out_of_a_cycle)


# -- signatures that are wrong, dates, path length

_WRONG = {"spoil_signature": flip_last_bit}
PATHS.sweep("wrong signature", _WRONG, (REFUSED, REFUSED, OK))
_EMPTY = {"spoil_signature": lambda _: b""}
PATHS.sweep("empty signature", _EMPTY, (REFUSED, REFUSED, OK))
PATHS.sweep("past", {"validity": EXPIRED}, (Denial.EXPIRED,) * 3)
PATHS.sweep("future", {"validity": NOT_YET}, (Denial.NOT_YET_VALID,) * 3)
_add("path length 0 above a leaf", two(root={"replace": {BASIC: basic(True, 0)}}))
_add("path length 0 in root above an intermediate", three(root={"replace": {BASIC: basic(True, 0)}}), REFUSED)
_add("path length 1 in root above an intermediate", three(root={"replace": {BASIC: basic(True, 1)}}))
_add("path length 0 in intermediate", three(middle={"replace": {BASIC: basic(True, 0)}}))
_add("huge path length", three(middle={"replace": {BASIC: basic(True, 2**31 - 1)}}))
_add("path length not critical", three(root={"replace": {BASIC: basic(True, 0, None)}}), REFUSED)


def _self_issued(names: Names) -> Chain:
    """A new key of the same name does not count (RFC 5280, 6.1.4 l)."""
    root = names.root(replace={BASIC: basic(True, 1)})
    first = names.middle(root, replace={BASIC: basic(True, 0)})
    rolled = names.middle(first, key=key("p256", 22), replace={BASIC: basic(True, 0)})
    return Chain((root,), (names.leaf(rolled), rolled, first))


_add("self-issued intermediate below path length 0", _self_issued, go=False, why="self-issued")
