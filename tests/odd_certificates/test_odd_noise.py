"""Random damage inside certificates that are signed anew: every verifier answers, and raises nothing but its own refusal."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.support.odd_certificates.cases import OK, ROLES
from tests.support.odd_certificates.factory import (
    HOST,
    NAME_CONSTRAINTS,
    POLICIES,
    SAN,
    Extensions,
    Fields,
    Made,
    Names,
    directory,
    dns,
    email,
    ip,
    make,
    name_constraints,
    uri,
    usual_san,
)
from tests.support.odd_certificates.raw_der import common_name, extension, oid, seq
from tests.support.odd_certificates.verifiers import judge
from tunnel.errors import Denial

_ROUNDS = 250
_EXTENSIONS: Extensions = {
    SAN: usual_san(email("a@b.test"), ip(bytes([192, 0, 2, 1])), directory(common_name("x"))),
    NAME_CONSTRAINTS: name_constraints([dns("test"), uri("a.test"), ip(bytes(8))], [dns("bad.test"), email("x.test")]),
    POLICIES: extension(POLICIES, seq(seq(oid("1.2.3.4")))),
}


def _damage(random: Random, data: bytes) -> bytes:
    """The same with one byte changed, removed or added."""
    at = random.randrange(len(data))
    kept, byte = random.choice(((1, True), (1, False), (0, True))), bytes([random.randrange(256)])
    return data[:at] + (byte if kept[1] else b"") + data[at + kept[0] :]


def _damaged(random: Random, made: Made, issuer: Made | None) -> Made:
    """A certificate of the same name and key, with damage in its extensions, subject, dates or serial number."""
    whole = Fields(made.subject, made.key, _EXTENSIONS)
    part = random.choice(("extensions", "extensions", "subject", "validity", "serial", "version", "key"))
    if part == "extensions":
        kind = random.choice(list(_EXTENSIONS))
        return make(replace(whole, extensions={**_EXTENSIONS, kind: _damage(random, _EXTENSIONS[kind])}), issuer)
    if part == "subject":
        return make(replace(whole, subject=_damage(random, whole.subject)), issuer)
    if part == "key":
        return make(replace(whole, spki=_damage(random, made.key.spki)), issuer)
    return make(replace(whole, **{part: _damage(random, getattr(whole, part) or b"\x02\x01\x05")}), issuer)


@pytest.mark.parametrize("position", ["leaf", "middle", "root"])
def test_damage_inside_a_certificate_gives_a_verdict(position: str) -> None:
    random, names = Random(position), Names("noise")
    root = names.root()
    middle = names.middle(root)
    for _ in range(_ROUNDS):
        made = {"root": root, "middle": middle, "leaf": names.leaf(middle)}
        issuer = {"root": None, "middle": root, "leaf": middle}[position]
        made[position] = _damaged(random, made[position], issuer)
        for role in ROLES:
            verdict = judge(role, [made["root"].der], [made["leaf"].der, made["middle"].der], HOST)
            assert verdict == OK or isinstance(verdict, Denial)


@pytest.mark.parametrize("position", ["leaf", "middle", "root"])
def test_a_certificate_that_is_cut_short_gives_a_verdict(position: str) -> None:
    names = Names("cut")
    root = names.root()
    middle = names.middle(root)
    made = {"root": root.der, "middle": middle.der, "leaf": names.leaf(middle).der}
    for size in range(0, len(made[position]), 7):
        cut = made | {position: made[position][:size]}
        for role in ROLES:
            assert judge(role, [cut["root"]], [cut["leaf"], cut["middle"]], HOST) != OK
