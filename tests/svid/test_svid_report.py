"""The output of `svid show`: complete, without key material, and without control characters."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.support.cert_factory import NOW, key_of, leaf
from tests.support.workload_updates import FOREIGN, INTERMEDIATE, bundle, context, svid
from tunnel.identity.credentials import describe_key
from tunnel.lazy_dataclass import replace
from tunnel.svid.report import choose_svids, describe_update, report_update
from tunnel.time_format import describe_distance

UPDATE = context(bundle("b.test", FOREIGN), bundle("c.test"), hint="web", notes=("bundle of d.test skipped: \x1b",))


def test_people_read_it_in_words() -> None:
    serial = f"{UPDATE.svids[0].chain[0].serial_number:X}"
    assert describe_update(UPDATE.svids, UPDATE, NOW).splitlines() == [
        "spiffe://a.test/w (hint web)",
        f"  serial   {serial.zfill(len(serial) + len(serial) % 2)}",
        "  expires  in 60 minutes, 2026-11-22T13:00:00Z",
        "  key      EC secp256r1",
        "  chain    subject CN=worker, issuer CN=intermediate of a.test, until 2026-11-22T13:00:00Z",
        "           subject CN=intermediate of a.test, issuer CN=authority of a.test, until 2026-11-22T13:00:00Z",
        "",
        "trust domain a.test (own): 2 authorities, the last of which expires in 60 minutes, 2026-11-22T13:00:00Z",
        "trust domain b.test (federated): 1 authority, which expires in 60 minutes, 2026-11-22T13:00:00Z",
        "trust domain c.test (federated): no authority, no peer of it is trusted",
        r"warning: bundle of d.test skipped: \x1b",
    ]


def test_machines_read_it_as_json() -> None:
    report = json.loads(json.dumps(report_update(UPDATE.svids, UPDATE)))
    (only,) = report["svids"]
    assert (only["spiffe_id"], only["hint"], only["expiry"], only["key"]) == (
        "spiffe://a.test/w",
        "web",
        "2026-11-22T13:00:00Z",
        "EC secp256r1",
    )
    assert [certificate["subject"] for certificate in only["chain"]] == ["CN=worker", "CN=intermediate of a.test"]
    assert [(entry["trust_domain"], entry["federated"], len(entry["authorities"])) for entry in report["bundles"]] == [
        ("a.test", False, 2),
        ("b.test", True, 1),
        ("c.test", True, 0),
    ]


def test_what_is_left_out_is_told() -> None:
    update = replace(UPDATE, skipped=("svid-verification-failed: SVID 'spiffe://a.test/old': expired",))
    assert "warning: SVID skipped: svid-verification-failed" in describe_update(update.svids, update, NOW)
    assert report_update(update.svids, update)["skipped"] == list(update.skipped)


def test_a_certificate_cannot_play_with_the_terminal() -> None:
    hostile = svid("\x1b]0;x\x07", leaf(issuer=INTERMEDIATE, key=key_of("p256"), subject="\x1b[2Jroot\nspiffe://a.test/fake"))
    text = describe_update((hostile,), UPDATE, NOW)
    assert all(line.isprintable() for line in text.splitlines())
    assert "\nspiffe://a.test/fake" not in text


def test_without_a_choice_all_are_shown() -> None:
    other = svid("other")
    assert choose_svids(UPDATE, other, is_open=True) == UPDATE.svids
    assert choose_svids(UPDATE, other, is_open=False) == (other,)


@pytest.mark.parametrize(
    ("kind", "words"), [("p384", "EC secp384r1"), ("rsa2048", "RSA 2048"), ("ed25519", "Ed25519"), ("ed448", "Ed448")]
)
def test_keys_have_a_kind(kind: str, words: str) -> None:
    assert describe_key(key_of(kind)) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "in 0 seconds"),
        (1, "in 1 second"),
        (-119, "119 seconds ago"),
        (120, "in 2 minutes"),
        (7200, "in 2 hours"),
        (-172800, "2 days ago"),
    ],
)
def test_a_distance_is_said_in_one_unit(seconds: int, words: str) -> None:
    assert describe_distance(NOW + timedelta(seconds=seconds), NOW) == words
