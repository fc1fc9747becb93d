"""An update is taken whole or refused whole, with the reason; only a federated bundle may be left out by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import scenes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from forge import END, NOW, SERVER_ONLY, Forged, authority, key_of, leaf, rewritten

from tunnel.errors import IdentityError, IdentityFault, WireError
from tunnel.identity import update
from tunnel.identity.credentials import X509Context
from tunnel.identity.update import accept_update
from tunnel.spiffe.ids import TrustDomain
from tunnel.spiffe.messages import SvidEntry, X509SvidResponse, parse_x509_svid_response

SECOND = timedelta(seconds=1)
A, B = TrustDomain("a.test"), TrustDomain("b.test")
ROOT = authority(key=key_of("p256"))
OTHER_ROOT = authority("b.test", key=key_of("p256", 1))


def entry_of(worker: Forged, *others: Forged, root: Forged = ROOT, uri: str = "spiffe://a.test/w", hint: str = "") -> SvidEntry:
    """What an agent says of an identity."""
    return SvidEntry(uri, worker.der + b"".join(one.der for one in others), worker.key_der, root.der, hint)


def entry(uri: str = "spiffe://a.test/w", *, hint: str = "", root: Forged = ROOT, **fields: Any) -> SvidEntry:
    """A good identity but for what is told of its leaf."""
    return entry_of(leaf(uri, issuer=root, **fields), root=root, uri=uri, hint=hint)


def response(*svids: SvidEntry, federated: Mapping[str, bytes] | None = None, crl: tuple[bytes, ...] = ()) -> X509SvidResponse:
    return X509SvidResponse(svids, crl, federated or {})


def fault(refused: X509SvidResponse, now: datetime = NOW) -> IdentityFault:
    with pytest.raises(IdentityError) as raised:
        accept_update(refused, now)
    return raised.value.reason


def accept(*svids: SvidEntry, now: datetime = NOW, **fields: Any) -> X509Context:
    return accept_update(response(*svids, **fields), now)


# -- what agents sent


@pytest.mark.parametrize("name", [name for name in scenes.of("FetchX509SVID") if not name.startswith("rotation/")])
def test_captured_updates_are_taken(name: str) -> None:
    index = scenes.INDEX[name]
    context = accept_update(parse_x509_svid_response(scenes.message(name)), scenes.DAY)
    assert [str(svid.spiffe_id) for svid in context.svids] == [svid["spiffe_id"] for svid in index["svids"]]
    assert [svid.hint for svid in context.svids] == [svid["hint"] for svid in index["svids"]]
    assert [svid.not_after.isoformat() for svid in context.svids] == [
        min(one["not_after"] for one in svid["chain"] + svid["bundle"]) for svid in index["svids"]
    ]
    domains = {svid["spiffe_id"].split("/")[2] for svid in index["svids"]}
    domains |= {key.removeprefix("spiffe://") for key in index["federated_bundles"]}
    assert {domain.name for domain in context.bundles.bundles} == domains
    assert (context.notes, context.crl_count, dict(context.bundles.disabled)) == ((), 0, {})


def test_the_captured_rotation_is_taken_message_by_message() -> None:
    """71 seconds of an agent's life: each message is good at its second, and only one equals the one before."""
    call = scenes.call("rotation/svid")
    before, equal, same_svid = None, [], []
    for number, second in enumerate(call["messages_at"]):
        message = parse_x509_svid_response(scenes.message(f"rotation/svid/{number:02}"))
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


def test_a_captured_message_is_refused_when_its_svid_has_ended() -> None:
    message = parse_x509_svid_response(scenes.message("rotation/svid/00"))
    end = datetime.fromisoformat(scenes.INDEX["rotation/svid/00.bin"]["svids"][0]["chain"][0]["not_after"])
    assert accept_update(message, end).svids[0].not_after == end
    assert fault(message, end + SECOND) is IdentityFault.UNVERIFIED


def test_an_svid_of_before_a_change_of_authority_does_not_verify_after_it() -> None:
    call = scenes.call("rotation/svid")
    old = parse_x509_svid_response(scenes.message("rotation/svid/05")).svids[0]  # signed by the authority that went
    new = parse_x509_svid_response(scenes.message("rotation/svid/11")).svids[0]  # the bundle without it
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
    "the second lacks a field": (
        lambda: response(GOOD, replace(entry("spiffe://a.test/v"), bundle=b"")),
        IdentityFault.INCOMPLETE,
    ),
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
    "the second is bad": (lambda: response(GOOD, entry("spiffe://a.test/v", end=NOW - SECOND)), IdentityFault.UNVERIFIED),
    "too many SVIDs": (lambda: response(*[GOOD] * (update.MAX_SVIDS + 1)), IdentityFault.OVER_LIMIT),
    "too many bundles": (
        lambda: response(GOOD, federated={f"{n}.test": b"" for n in range(update.MAX_BUNDLES + 1)}),
        IdentityFault.OVER_LIMIT,
    ),
    "a hint too long": (lambda: response(replace(GOOD, hint="h" * 1025)), IdentityFault.OVER_LIMIT),
    "a hint too long in bytes": (lambda: response(replace(GOOD, hint="\u20ac" * 342)), IdentityFault.OVER_LIMIT),
    "a bundle too long": (
        lambda: response(replace(GOOD, bundle=bytes(update.MAX_BUNDLE_BYTES + 1))),
        IdentityFault.OVER_LIMIT,
    ),
}


def encrypted_key() -> bytes:
    return bytes(key_of("p256").private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))


def unreadable() -> Forged:
    signer = key_of("ed25519")
    return rewritten(authority(key=signer), b"authority of", b"authority\xff\xfef", signer)


@pytest.mark.parametrize(("make", "reason"), BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_an_update_with_one_thing_wrong_is_refused_whole(make: Callable[[], X509SvidResponse], reason: IdentityFault) -> None:
    refused = make()
    with pytest.raises(IdentityError) as raised:
        accept_update(refused, NOW)
    assert raised.value.reason is reason
    secrets = {svid.x509_svid_key for svid in refused.svids if svid.x509_svid_key}
    assert not any(repr(secret)[2:-1] in str(raised.value) or secret.hex() in str(raised.value) for secret in secrets)


def test_the_largest_that_is_allowed_is_taken() -> None:
    svids = [entry(f"spiffe://a.test/{number}", key=key_of("p256", 2)) for number in range(update.MAX_SVIDS)]
    federated = {f"{number}.test": b"" for number in range(update.MAX_BUNDLES)}
    context = accept(replace(svids[0], hint="h" * 1024), *svids[1:], federated=federated)
    assert len(context.svids) == update.MAX_SVIDS
    assert len(context.bundles.bundles) == update.MAX_BUNDLES + 1


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
def test_every_kind_of_key_is_taken(kind: str) -> None:
    (svid,) = accept(entry(key=key_of(kind))).svids
    assert svid.private_key.public_key() == key_of(kind).public_key()


def test_an_svid_ends_with_the_first_certificate_of_its_path() -> None:
    middle = authority(issuer=ROOT, subject="middle", end=END - SECOND)
    (svid,) = accept(entry_of(leaf(issuer=middle), middle)).svids
    assert len(svid.chain) == 2
    assert svid.not_after == END - SECOND


def test_no_private_key_is_in_the_repr_of_what_is_taken() -> None:
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
def test_a_federated_bundle_of_a_name_that_is_none_is_left_out_and_noted(name: str) -> None:
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
def test_our_own_bundle_wins_over_a_federated_one_of_its_name(name: str, blob: bytes) -> None:
    context = accept(GOOD, federated={name: blob})
    assert context.bundles.bundles[A].authorities == (ROOT.certificate,)
    assert A not in context.bundles.disabled
    assert context.notes == ()


@pytest.mark.parametrize("blobs", [(OTHER_ROOT.der, b"noise"), (b"noise", OTHER_ROOT.der), (OTHER_ROOT.der, ROOT.der)])
def test_a_trust_domain_that_comes_twice_is_trusted_by_nobody(blobs: tuple[bytes, bytes]) -> None:
    """Once by its name and once by its ID: two keys of the map, one trust domain."""
    context = accept(GOOD, federated=dict(zip(("b.test", "spiffe://b.test"), blobs, strict=True)))
    assert set(context.bundles.bundles) == {A}
    assert set(context.bundles.disabled) == {B}


def test_an_empty_federated_bundle_is_a_bundle() -> None:
    context = accept(GOOD, federated={"b.test": b""})
    assert context.bundles.bundles[B].authorities == ()
    assert context.notes == ()


def test_a_bundle_of_many_authorities_with_expired_ones_among_them_is_taken() -> None:
    expired = authority(subject="old", end=NOW - SECOND)
    context = accept(replace(GOOD, bundle=expired.der + ROOT.der + authority(subject="next").der))
    assert len(context.bundles.bundles[A].authorities) == 3


def test_svids_of_two_trust_domains_have_each_its_own_bundle() -> None:
    context = accept(GOOD, entry("spiffe://b.test/w", root=OTHER_ROOT))
    assert {domain: bundle.authorities for domain, bundle in context.bundles.bundles.items()} == {
        A: (ROOT.certificate,),
        B: (OTHER_ROOT.certificate,),
    }


def test_an_svid_is_not_verified_by_a_federated_bundle() -> None:
    foreign = entry("spiffe://a.test/w", root=OTHER_ROOT)
    assert fault(response(replace(foreign, bundle=ROOT.der), federated={"b.test": OTHER_ROOT.der})) is IdentityFault.UNVERIFIED


# -- hints


def test_of_a_doubled_hint_the_first_counts() -> None:
    context = accept(
        entry("spiffe://a.test/1", hint="x"),
        entry("spiffe://a.test/2", hint="y"),
        entry("spiffe://a.test/3", hint="x"),
        entry("spiffe://a.test/4"),
        entry("spiffe://a.test/5"),
    )
    assert [svid.spiffe_id.path for svid in context.svids] == ["/1", "/2", "/4", "/5"]


def test_revocation_lists_are_counted() -> None:
    assert accept(GOOD, crl=(b"one", b"two")).crl_count == 2


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # the library takes such, still
def test_a_captured_message_with_any_byte_changed_is_taken_or_refused() -> None:
    """Nothing an agent sends can end the watcher's thread: our own errors come of it, and no others."""
    data = scenes.message("federated/svid/00")  # not an RSA one: the library proves each such key, which takes long
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= (0x01, 0x80, 0xFF)[place % 3]
        with suppress(WireError, IdentityError):
            accept_update(parse_x509_svid_response(bytes(changed)), scenes.DAY)
