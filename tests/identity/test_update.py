"""Updates are accepted or rejected as a whole, with a reason; unneeded invalid parts are skipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.support import spire_captures
from tests.support.cert_factory import END, NOW, SERVER_ONLY, MadeCertificate, authority, key_of, leaf, rewritten
from tests.support.odd_certificates.raw_der import extension, integer
from tests.support.revocation_lists import DELTA, encode_list
from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.identity import update
from tunnel.identity.credentials import X509Context, X509Svid
from tunnel.identity.update import accept_update
from tunnel.lazy_dataclass import replace
from tunnel.pkix.certificate import parse_certificates
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, parse_x509_svid_response
from tunnel.spiffe.selection import Selection

SECOND = timedelta(seconds=1)
A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT = authority(key=key_of("p256"))
OTHER_ROOT = authority("b.test", key=key_of("p256", 1))


def entry_of(
    worker: MadeCertificate,
    *others: MadeCertificate,
    root: MadeCertificate = ROOT,
    uri: str = "spiffe://a.test/w",
    hint: str = "",
) -> SvidEntry:
    """The entry of an SVID in a response."""
    return SvidEntry(uri, worker.der + b"".join(one.der for one in others), worker.key_der, root.der, hint)


def entry(uri: str = "spiffe://a.test/w", *, hint: str = "", root: MadeCertificate = ROOT, **fields: Any) -> SvidEntry:
    """A valid identity, except for the given fields of its leaf."""
    return entry_of(leaf(uri, issuer=root, **fields), root=root, uri=uri, hint=hint)


def response(*svids: SvidEntry, federated: Mapping[str, bytes] | None = None, crl: tuple[bytes, ...] = ()) -> X509SvidResponse:
    return X509SvidResponse(svids, crl, federated or {})


def fault(refused: X509SvidResponse, now: datetime = NOW) -> IdentityFault:
    with pytest.raises(IdentityError) as raised:
        accept_update(refused, now)
    return raised.value.reason


def accept(
    *svids: SvidEntry,
    now: datetime = NOW,
    selection: Selection = Selection(),  # noqa: B008
    current: X509Svid | None = None,
    wants_all: bool = False,
    **fields: Any,
) -> X509Context:
    return accept_update(response(*svids, **fields), now, selection, current, wants_all=wants_all)


# -- what agents sent


@pytest.mark.parametrize("name", [name for name in spire_captures.of("FetchX509SVID") if not name.startswith("rotation/")])
def test_captured_updates_are_accepted(name: str) -> None:
    index = spire_captures.INDEX[name]
    context = accept_update(parse_x509_svid_response(spire_captures.message(name)), spire_captures.DAY, wants_all=True)
    assert [str(svid.spiffe_id) for svid in context.svids] == [svid["spiffe_id"] for svid in index["svids"]]
    assert [svid.hint for svid in context.svids] == [svid["hint"] for svid in index["svids"]]
    assert [svid.not_after.isoformat() for svid in context.svids] == [
        min(one["not_after"] for one in svid["chain"] + svid["bundle"]) for svid in index["svids"]
    ]
    domains = {svid["spiffe_id"].split("/")[2] for svid in index["svids"]}
    domains |= {key.removeprefix("spiffe://") for key in index["federated_bundles"]}
    assert {domain.name for domain in context.bundles.bundles} == domains
    assert (context.notes, context.lists, dict(context.bundles.disabled)) == ((), (), {})


def test_the_captured_rotation_is_accepted_message_by_message() -> None:
    """71 captured seconds: each message is valid at its time, and only one equals the previous one."""
    call = spire_captures.call("rotation/svid")
    before, equal, same_svid = None, [], []
    for number, second in enumerate(call["messages_at"]):
        message = parse_x509_svid_response(spire_captures.message(f"rotation/svid/{number:02}"))
        context = accept_update(message, datetime.fromtimestamp(call["started"] + second, UTC))
        (svid,) = context.svids
        assert str(svid.spiffe_id) == "spiffe://r.test/w"
        assert {str(domain) for domain in context.bundles.bundles} == {"r.test"} | ({"b.test"} if 15 <= number <= 18 else set())
        if before is not None and message == before:
            equal.append(number)
        elif before is not None and message.svids[0].x509_svid == before.svids[0].x509_svid:
            same_svid.append(number)
        before = message
    assert equal == [8]
    assert same_svid == [3, 11, 15, 19]


def test_a_captured_message_is_rejected_when_its_svid_has_expired() -> None:
    message = parse_x509_svid_response(spire_captures.message("rotation/svid/00"))
    end = datetime.fromisoformat(spire_captures.INDEX["rotation/svid/00.bin"]["svids"][0]["chain"][0]["not_after"])
    assert accept_update(message, end).svids[0].not_after == end
    assert fault(message, end + SECOND) is IdentityFault.UNVERIFIED


def test_an_svid_from_before_an_authority_rotation_does_not_verify_after_it() -> None:
    call = spire_captures.call("rotation/svid")
    old = parse_x509_svid_response(spire_captures.message("rotation/svid/05")).svids[0]  # signed by the authority that went
    new = parse_x509_svid_response(spire_captures.message("rotation/svid/11")).svids[0]  # the bundle without it
    moment = datetime.fromtimestamp(call["started"] + call["messages_at"][5], UTC)
    accept(old, now=moment)
    assert fault(response(replace(old, bundle=new.bundle)), moment) is IdentityFault.UNVERIFIED


# -- one thing wrong

GOOD = entry()
BAD_UPDATES: dict[str, tuple[Callable[[], X509SvidResponse], IdentityFault]] = {
    "no SVID": (lambda: response(), IdentityFault.NO_SVID),
    "no SVID but a bundle": (lambda: response(federated={"b.test": OTHER_ROOT.der}), IdentityFault.NO_SVID),
    "no spiffe_id": (lambda: response(replace(GOOD, spiffe_id="")), IdentityFault.INCOMPLETE),
    "no x509_svid": (lambda: response(replace(GOOD, x509_svid=b"")), IdentityFault.INCOMPLETE),
    "no x509_svid_key": (lambda: response(replace(GOOD, x509_svid_key=b"")), IdentityFault.INCOMPLETE),
    "no bundle": (lambda: response(replace(GOOD, bundle=b"")), IdentityFault.INCOMPLETE),
    "nothing at all": (lambda: response(SvidEntry()), IdentityFault.INCOMPLETE),
    "key of another": (lambda: response(replace(GOOD, x509_svid_key=leaf().key_der)), IdentityFault.BAD_KEY),
    "key of another kind": (
        lambda: response(replace(GOOD, x509_svid_key=leaf(key=key_of("ed25519")).key_der)),
        IdentityFault.BAD_KEY,
    ),
    "key cut": (lambda: response(replace(GOOD, x509_svid_key=GOOD.x509_svid_key[:-1])), IdentityFault.BAD_KEY),
    "bytes after the key": (lambda: response(replace(GOOD, x509_svid_key=GOOD.x509_svid_key + b"\0")), IdentityFault.BAD_KEY),
    "key is noise": (lambda: response(replace(GOOD, x509_svid_key=b"secret")), IdentityFault.BAD_KEY),
    "key is PEM": (lambda: response(replace(GOOD, x509_svid_key=b"-----BEGIN PRIVATE KEY-----")), IdentityFault.BAD_KEY),
    "key is encrypted": (lambda: response(replace(GOOD, x509_svid_key=encrypted_key())), IdentityFault.BAD_KEY),
    "key that cannot sign": (lambda: response(entry(key=x25519.X25519PrivateKey.generate())), IdentityFault.BAD_KEY),
    "certificate cut": (lambda: response(replace(GOOD, x509_svid=GOOD.x509_svid[:-1])), IdentityFault.BAD_CERTIFICATE),
    "bytes after the certificate": (
        lambda: response(replace(GOOD, x509_svid=GOOD.x509_svid + b"\0")),
        IdentityFault.BAD_CERTIFICATE,
    ),
    "a sequence that is none": (lambda: response(replace(GOOD, x509_svid=b"\x30\x00")), IdentityFault.BAD_CERTIFICATE),
    "certificate in PEM": (lambda: response(replace(GOOD, x509_svid=b"-----BEGIN CER")), IdentityFault.BAD_CERTIFICATE),
    "bundle cut": (lambda: response(replace(GOOD, bundle=GOOD.bundle[:-1])), IdentityFault.BAD_BUNDLE),
    "bytes after the bundle": (lambda: response(replace(GOOD, bundle=GOOD.bundle + b"\0")), IdentityFault.BAD_BUNDLE),
    "bundle of another": (lambda: response(replace(GOOD, bundle=OTHER_ROOT.der)), IdentityFault.UNVERIFIED),
    "spiffe_id of another workload": (
        lambda: response(replace(GOOD, spiffe_id="spiffe://a.test/v")),
        IdentityFault.WRONG_ID,
    ),
    "spiffe_id of another trust domain": (
        lambda: response(replace(GOOD, spiffe_id="spiffe://b.test/w")),
        IdentityFault.UNVERIFIED,
    ),
    "spiffe_id that is none": (lambda: response(replace(GOOD, spiffe_id="a.test/w")), IdentityFault.WRONG_ID),
    "spiffe_id of a trust domain": (lambda: response(replace(GOOD, spiffe_id="spiffe://a.test")), IdentityFault.WRONG_ID),
    "expired": (lambda: response(entry(end=NOW - SECOND)), IdentityFault.UNVERIFIED),
    "not yet valid": (lambda: response(entry(start=NOW + SECOND)), IdentityFault.UNVERIFIED),
    "its authority expired": (
        lambda: response(entry(root=authority(end=NOW - SECOND))),
        IdentityFault.UNVERIFIED,
    ),
    "a leaf that breaks a rule": (lambda: response(entry(purposes=SERVER_ONLY)), IdentityFault.UNVERIFIED),
    "a leaf without a path": (lambda: response(entry("spiffe://a.test")), IdentityFault.UNVERIFIED),
    "an authority that breaks a rule": (
        lambda: response(entry(root=authority(usage=("crl_sign",)))),
        IdentityFault.UNVERIFIED,
    ),
    "an intermediate is missing": (
        lambda: response(entry_of(leaf(issuer=authority(issuer=ROOT, subject="middle")))),
        IdentityFault.UNVERIFIED,
    ),
    "a bundle that OpenSSL cannot read": (
        lambda: response(entry_of(leaf(issuer=ROOT), root=unreadable())),
        IdentityFault.UNVERIFIED,
    ),
    "both are bad": (
        lambda: response(replace(GOOD, bundle=b""), entry("spiffe://a.test/v", end=NOW - SECOND)),
        IdentityFault.INCOMPLETE,
    ),
    "a hint too long": (lambda: response(replace(GOOD, hint="h" * 1025)), IdentityFault.OVER_LIMIT),
    "a hint too long in bytes": (lambda: response(replace(GOOD, hint="\u20ac" * 342)), IdentityFault.OVER_LIMIT),
    "a bundle too long": (
        lambda: response(replace(GOOD, bundle=bytes(update.MAX_BUNDLE_BYTES + 1))),
        IdentityFault.BAD_BUNDLE,
    ),
}


def encrypted_key() -> bytes:
    return bytes(key_of("p256").private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))


def unreadable() -> MadeCertificate:
    signer = key_of("ed25519")
    return rewritten(authority(key=signer), b"authority of", b"authority\xff\xfef", signer)


@pytest.mark.parametrize(("make", "reason"), BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_an_update_without_a_valid_svid_is_rejected(make: Callable[[], X509SvidResponse], reason: IdentityFault) -> None:
    refused = make()
    with pytest.raises(IdentityError) as raised:
        accept_update(refused, NOW)
    assert raised.value.reason is reason
    secrets = {svid.x509_svid_key for svid in refused.svids if svid.x509_svid_key}
    assert not any(repr(secret)[2:-1] in str(raised.value) or secret.hex() in str(raised.value) for secret in secrets)


def test_only_bytes_are_limited() -> None:
    """Hundreds of SVIDs and thousands of bundles; only the selected SVID is verified."""
    others = [SvidEntry(f"spiffe://a.test/{number}", b"?", b"?", ROOT.der) for number in range(700)]
    federated = {f"{number}.test": OTHER_ROOT.der for number in range(2500)}
    wanted = entry("spiffe://a.test/w/700", hint="h" * 1024)
    context = accept(*others, wanted, federated=federated, selection=Selection(parse_spiffe_id("spiffe://a.test/w/700")))
    assert context.svid is not None
    assert context.svid.spiffe_id.path == "/w/700"
    assert (len(context.offered), len(context.svids), context.skipped) == (701, 1, ())
    assert len(context.bundles.bundles) == 2501


# -- one of several

V, W = "spiffe://a.test/v", "spiffe://a.test/w"
BAD_SVIDS: dict[str, Callable[[], SvidEntry]] = {
    "expired": lambda: entry(V, end=NOW - SECOND),
    "not yet valid": lambda: entry(V, start=NOW + SECOND),
    "a field is missing": lambda: replace(entry(V), x509_svid_key=b""),
    "another key": lambda: replace(entry(V), x509_svid_key=leaf().key_der),
    "no certificate": lambda: replace(entry(V), x509_svid=b"noise"),
    "no SPIFFE ID": lambda: replace(entry(V), spiffe_id="v"),
    "breaks a rule": lambda: entry(V, purposes=SERVER_ONLY),
    "of an unknown authority": lambda: entry_of(leaf(V, issuer=OTHER_ROOT), uri=V),
    "a bad bundle of another trust domain": lambda: replace(entry("spiffe://b.test/v", root=OTHER_ROOT), bundle=b"noise"),
    "a hint that is too long": lambda: replace(entry(V), hint="h" * 1025),
}


@pytest.mark.parametrize("make", BAD_SVIDS.values(), ids=BAD_SVIDS)
def test_an_invalid_svid_does_not_affect_a_valid_one(make: Callable[[], SvidEntry]) -> None:
    bad, good = make(), entry(hint="mine")
    for svids in ((bad, good), (good, bad)):
        for selection in (Selection(), Selection(parse_spiffe_id(W)), Selection(hint="mine")):
            context = accept(*svids, selection=selection)
            assert context.svid is not None
            assert str(context.svid.spiffe_id) == W
    (note,) = accept(bad, good).skipped
    assert repr(bad.spiffe_id) in note
    assert accept(good, bad).skipped == ()  # nobody has looked at it
    assert len(accept(good, bad, wants_all=True).skipped) == 1


def test_an_invalid_selected_svid_is_not_replaced_by_another() -> None:
    with pytest.raises(IdentityError, match=r"spiffe://a\.test/v"):
        accept(entry(V, end=NOW - SECOND), GOOD, selection=Selection(parse_spiffe_id(V)))


def test_a_selection_that_is_not_offered_is_no_error() -> None:
    context = accept(GOOD, selection=Selection(parse_spiffe_id(V)))
    assert (context.svid, [str(offer) for offer in context.offered]) == (None, [W])


def test_the_id_in_use_is_kept_while_its_old_svid_is_valid() -> None:
    """Its new SVID is invalid: the update is rejected, and another identity is selected only after the old SVID expires."""
    current = accept(entry(V)).svid
    update = response(GOOD, entry(V, end=NOW - SECOND))
    with pytest.raises(IdentityError, match=r"spiffe://a\.test/v"):
        accept_update(update, NOW, current=current)
    late = replace(current, not_after=NOW - SECOND)
    assert str(accept_update(update, NOW, current=late).svid.spiffe_id) == W


def test_two_svids_of_the_id_in_use_are_both_tried() -> None:
    current = accept(GOOD).svid
    context = accept_update(response(entry(end=NOW - SECOND, hint="a"), entry(hint="b"), entry(V)), NOW, current=current)
    assert context.svid.hint == "b"


def test_an_svid_that_is_not_yet_valid_has_its_start_in_the_error() -> None:
    with pytest.raises(IdentityError) as raised:
        accept(entry(start=NOW + SECOND))
    assert raised.value.begins == NOW + SECOND
    with pytest.raises(IdentityError) as raised:
        accept(entry(end=NOW - SECOND))
    assert raised.value.begins is None


@pytest.mark.parametrize(
    ("selection", "paths"),
    [
        (Selection(), "/one"),
        (Selection(parse_spiffe_id("spiffe://a.test/two")), "/two"),
        (Selection(hint="y"), "/two"),
        (Selection(hint="x"), "/one"),  # of several with one hint the first
        (Selection(parse_spiffe_id("spiffe://a.test/three")), "/three"),  # which shares its hint with another
        (Selection(parse_spiffe_id("spiffe://a.test/three"), "x"), "/three"),
        (Selection(parse_spiffe_id("spiffe://a.test/two"), "x"), None),
        (Selection(parse_spiffe_id("spiffe://a.test/four")), None),
        (Selection(hint="z"), None),
        (Selection(hint="X"), None),
    ],
)
def test_a_selection_matches_exactly(selection: Selection, paths: str | None) -> None:
    offered = [entry(f"spiffe://a.test/{name}", hint=hint) for name, hint in (("one", "x"), ("two", "y"), ("three", "x"))]
    svid = accept(*offered, selection=selection).svid
    assert (svid and svid.spiffe_id.path) == paths


def test_the_id_in_use_is_kept_when_the_list_is_reordered() -> None:
    one, two = entry("spiffe://a.test/one", hint="x"), entry("spiffe://a.test/two", hint="x")
    current = accept(two).svid
    for selection in (Selection(), Selection(hint="x")):
        assert accept(one, two, selection=selection, current=current).svid.spiffe_id.path == "/two"
    assert accept(one, current=current).svid.spiffe_id.path == "/one"


def test_an_update_that_changes_what_is_not_used_has_the_same_material() -> None:
    federated = {"b.test": OTHER_ROOT.der}
    one = accept(GOOD, entry(V), federated=federated)
    assert one.has_same_material(accept(entry(V), GOOD, selection=Selection(parse_spiffe_id(W)), federated=federated))
    assert not one.has_same_material(accept(entry(), federated=federated))
    assert not one.has_same_material(accept(GOOD, federated={"b.test": b""}))
    assert not one.has_same_material(accept(GOOD))


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
def test_every_key_type_is_accepted(kind: str) -> None:
    (svid,) = accept(entry(key=key_of(kind))).svids
    assert svid.private_key.public_key() == key_of(kind).public_key()


def test_an_svid_expires_with_the_first_certificate_of_its_path() -> None:
    middle = authority(issuer=ROOT, subject="middle", end=END - SECOND)
    (svid,) = accept(entry_of(leaf(issuer=middle), middle)).svids
    assert len(svid.chain) == 2
    assert svid.not_after == END - SECOND


def test_no_private_key_is_in_the_repr_of_an_accepted_update() -> None:
    assert "key" not in repr(accept(GOOD)).lower()


# -- bundles


def test_a_bad_federated_bundle_disables_that_trust_domain_only() -> None:
    third = authority("c.test")
    context = accept(GOOD, federated={"b.test": OTHER_ROOT.der[:-1], "c.test": third.der})
    assert set(context.bundles.bundles) == {A, TrustDomain("c.test")}
    assert set(context.bundles.disabled) == {B}
    assert len(context.notes) == 1
    assert "b.test" in context.notes[0]


@pytest.mark.parametrize("name", ["", "B.test", "spiffe://b.test/w", "spiffe://b.test/", "https://b.test", "b test"])
def test_a_federated_bundle_with_an_invalid_name_is_skipped_and_noted(name: str) -> None:
    context = accept(GOOD, federated={name: OTHER_ROOT.der})
    assert set(context.bundles.bundles) == {A}
    assert context.bundles.disabled == {}
    assert len(context.notes) == 1


@pytest.mark.parametrize("name", ["b.test", "spiffe://b.test"])
def test_the_key_of_a_federated_bundle_is_an_id_or_a_name(name: str) -> None:
    context = accept(GOOD, federated={name: OTHER_ROOT.der})
    assert context.bundles.bundles[B].authorities == (OTHER_ROOT.certificate,)


@pytest.mark.parametrize("name", ["a.test", "spiffe://a.test"])
@pytest.mark.parametrize("blob", [OTHER_ROOT.der, b"", b"noise"])
def test_our_own_bundle_takes_precedence_over_a_federated_one(name: str, blob: bytes) -> None:
    context = accept(GOOD, federated={name: blob})
    assert context.bundles.bundles[A].authorities == (ROOT.certificate,)
    assert A not in context.bundles.disabled
    assert context.notes == ()


@pytest.mark.parametrize("blobs", [(OTHER_ROOT.der, b"noise"), (b"noise", OTHER_ROOT.der), (OTHER_ROOT.der, ROOT.der)])
def test_two_bundles_of_a_trust_domain_disable_it(blobs: tuple[bytes, bytes]) -> None:
    """By name and by SPIFFE ID: two keys of the map, one trust domain."""
    context = accept(GOOD, federated=dict(zip(("b.test", "spiffe://b.test"), blobs, strict=True)))
    assert set(context.bundles.bundles) == {A}
    assert set(context.bundles.disabled) == {B}


def test_an_empty_federated_bundle_is_a_bundle() -> None:
    context = accept(GOOD, federated={"b.test": b""})
    assert context.bundles.bundles[B].authorities == ()
    assert context.notes == ()


def test_an_unreadable_authority_does_not_affect_the_others() -> None:
    for blob in (b"\x30\x00" + ROOT.der, ROOT.der + b"\x30\x03\x02\x01\x05"):
        context = accept(replace(GOOD, bundle=blob), federated={"b.test": blob.replace(ROOT.der, OTHER_ROOT.der)})
        assert context.bundles.bundles[A].authorities == (ROOT.certificate,)
        assert context.bundles.bundles[B].authorities == (OTHER_ROOT.certificate,)
        assert ["authority skipped: certificate" in note for note in context.notes] == [True, True]
    assert set(accept(GOOD, federated={"b.test": b"\x30\x00"}).bundles.disabled) == {B}


def test_a_bundle_with_expired_authorities_is_accepted() -> None:
    expired = authority(subject="old", end=NOW - SECOND)
    context = accept(replace(GOOD, bundle=expired.der + ROOT.der + authority(subject="next").der))
    assert len(context.bundles.bundles[A].authorities) == 3


def test_svids_of_two_trust_domains_have_their_own_bundles() -> None:
    context = accept(GOOD, entry("spiffe://b.test/w", root=OTHER_ROOT))
    assert {domain: bundle.authorities for domain, bundle in context.bundles.bundles.items()} == {
        A: (ROOT.certificate,),
        B: (OTHER_ROOT.certificate,),
    }


def test_an_svid_is_not_verified_by_a_federated_bundle() -> None:
    foreign = entry("spiffe://a.test/w", root=OTHER_ROOT)
    assert fault(response(replace(foreign, bundle=ROOT.der), federated={"b.test": OTHER_ROOT.der})) is IdentityFault.UNVERIFIED


# -- the rest


def test_a_bad_revocation_list_never_discards_a_good_one() -> None:
    good, delta = encode_list(ROOT, 1), encode_list(ROOT, extensions=[extension(DELTA, integer(1), critical=True)])
    context = accept(GOOD, crl=(b"noise", good, delta, good))
    assert [one.problem for one in context.lists] == ["", "it is a delta list; expected a complete list"]
    assert context.skipped_lists == 2
    first, second = context.notes
    assert first.startswith("revocation list 1 of 4 skipped: not a revocation list: ")
    assert second.startswith("revocation list of 'CN=authority of a.test' not used: it is a delta list")


def test_the_number_of_revocation_lists_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "MAX_LISTS", 1)
    lists = tuple(encode_list(ROOT, number) for number in range(1, 6))
    context = accept(GOOD, crl=lists)
    assert (len(context.lists), context.skipped_lists) == (1, 1)
    assert context.notes == ("4 revocation lists skipped: more than 1",)


def test_an_update_with_other_revocation_lists_has_other_material() -> None:
    encoded = encode_list(ROOT, 1)
    assert accept(GOOD, crl=(encoded,)).has_same_material(accept(GOOD, crl=(encoded,)))
    assert not accept(GOOD, crl=(encoded,)).has_same_material(accept(GOOD))


def test_our_own_revoked_svid_is_accepted() -> None:
    """Peers refuse it; the log warns of it."""
    own = parse_certificates(GOOD.x509_svid)[0]
    assert accept(GOOD, crl=(encode_list(ROOT, own.serial_number),)).svid is not None


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # the library takes such, still
def test_a_captured_message_with_a_changed_byte_is_accepted_or_rejected() -> None:
    """No message can end the client's thread: it raises only our own errors."""
    data = spire_captures.message("federated/svid/00")  # not an RSA one: the library proves each such key, which takes long
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= (0x01, 0x80, 0xFF)[place % 3]
        with suppress(WireError, IdentityError):
            accept_update(parse_x509_svid_response(bytes(changed)), spire_captures.DAY)
