"""The files of one update and their content."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tests.support.cert_factory import NOW
from tests.support.workload_updates import FOREIGN, INTERMEDIATE, OLD_ROOT, ROOT, WORKER, bundle, credentials
from tunnel.config.svid_model import FileNames, Output
from tunnel.pkix.certificate import Certificate, parse_certificate
from tunnel.svid.update_files import UpdateFiles, build_update_files, describe_written, facts_of

FEDERATED = credentials(bundle("b.test", FOREIGN), bundle("0.test"), hint="web")


def build(output: Output | None = None) -> UpdateFiles:
    return build_update_files(FEDERATED, output or Output("/tls"), NOW)


def content(update: UpdateFiles, name: str) -> bytes:
    return next(file.content for file in update.files if file.name == name)


def certificates(pem: bytes) -> list[Certificate]:
    return [parse_certificate(one.public_bytes(Encoding.DER)) for one in x509.load_pem_x509_certificates(pem)]


def test_the_whole_chain_is_there_leaf_first_and_the_key_fits() -> None:
    update = build()
    assert certificates(content(update, "svid.pem")) == [WORKER.certificate, INTERMEDIATE.certificate]
    pem = content(update, "svid_key.pem")
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")  # PKCS#8
    assert load_pem_private_key(pem, None).public_key() == WORKER.built.public_key()


def test_each_trust_domain_has_a_file_and_bundles_are_never_pooled() -> None:
    update = build()
    names = ["svid.pem", "svid_key.pem", "bundle.pem", "bundle.0.test.pem", "bundle.b.test.pem"]
    assert [file.name for file in update.files] == names
    assert [str(domain) for domain in update.trust_domains] == ["a.test", "0.test", "b.test"]
    assert certificates(content(update, "bundle.pem")) == [ROOT.certificate, OLD_ROOT.certificate]
    assert certificates(content(update, "bundle.b.test.pem")) == [FOREIGN.certificate]
    assert content(update, "bundle.0.test.pem") == b""  # an empty bundle is written: no peer is trusted


def test_only_the_key_is_for_few() -> None:
    modes = {file.name: file.mode for file in build().files}
    assert modes.pop("svid_key.pem") == 0o600
    assert set(modes.values()) == {0o644}


def test_names_and_modes_are_the_users() -> None:
    output = Output("/tls", FileNames("tls.crt", "tls.key", "ca.crt"), cert_mode=0o444, key_mode=0o440)
    assert [(file.name, file.mode) for file in build(output).files] == [
        ("tls.crt", 0o444),
        ("tls.key", 0o440),
        ("ca.crt", 0o444),
        ("ca.0.test.crt", 0o444),
        ("ca.b.test.crt", 0o444),
    ]
    assert FileNames(bundle="roots").bundle_of(next(iter(FEDERATED.bundles.bundles))) == "roots.a.test"


def test_key_and_chain_may_stand_in_one_file_besides() -> None:
    update = build(Output("/tls", combined="/tls/both.pem"))
    assert update.combined is not None
    assert update.combined.name == "/tls/both.pem"
    assert update.combined.mode == 0o600
    assert update.combined.content == content(update, "svid_key.pem") + content(update, "svid.pem")


def test_expired_authorities_may_be_left_out() -> None:
    update = build(Output("/tls", is_expired_omitted=True))
    assert certificates(content(update, "bundle.pem")) == [ROOT.certificate]


def test_intermediates_may_be_moved_to_the_own_bundle_only() -> None:
    update = build(Output("/tls", has_intermediates_in_bundle=True))
    assert certificates(content(update, "svid.pem")) == [WORKER.certificate]
    assert INTERMEDIATE.certificate in certificates(content(update, "bundle.pem"))
    assert certificates(content(update, "bundle.b.test.pem")) == [FOREIGN.certificate]


def test_a_trust_domain_whose_name_is_too_long_for_a_file_is_left_out_and_named() -> None:
    long = f"{'x' * 250}.test"
    update = build_update_files(credentials(bundle(long, FOREIGN)), Output("/tls"), NOW)
    assert [file.name for file in update.files] == ["svid.pem", "svid_key.pem", "bundle.pem"]
    assert update.notes == (f"bundle of {long} omitted: file name too long: 266 bytes; expected at most 255",)


def test_what_is_told_has_no_key_and_no_hostile_text() -> None:
    update = build_update_files(credentials(hint="a\x1b[31mb"), Output("/tls"), NOW)
    line = describe_written(update, "/tls")
    assert line == (
        r"wrote spiffe://a.test/w (hint a\x1b\x5b31mb), valid until 2026-11-22T13:00:00Z, to /tls: "
        "svid.pem, svid_key.pem, bundle.pem"
    )
    facts = facts_of(build(), "/tls")
    assert int(str(facts["serial"]), 16) == WORKER.certificate.serial_number
    assert len(str(facts["serial"])) % 2 == 0
    assert facts["trust_domains"] == ["a.test", "0.test", "b.test"]
    assert "PRIVATE" not in f"{line}{facts}{update!r}"
