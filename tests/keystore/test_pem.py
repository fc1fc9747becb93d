"""PEM: certificates and keys are found among other text, and damaged ones are errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from tests.support import cert_factory
from tests.support.keystore_files import chain_of, is_pair, key_pem, openssl, pem_of, refusal_of
from tunnel.check.svid_files import read_path
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.anchors import load_authorities
from tunnel.keystore.load import load_cert_and_key, load_keystore
from tunnel.keystore.pem import parse_blocks, parse_pem

CHAIN = chain_of("p256")
CERTIFICATES = pem_of(CHAIN.leaf, CHAIN.intermediate, CHAIN.root)
KEY = key_pem(CHAIN.leaf.key)
SEC1 = key_pem(CHAIN.leaf.key, PrivateFormat.TraditionalOpenSSL)
OTHER_KEY = key_pem(cert_factory.key_of("p256", 99))
PARAMETERS = openssl("ecparam", "-name", "prime256v1")
SHUT = key_pem(CHAIN.leaf.key, password=b"secret")
SHUT_OLD = openssl("ec", "-aes128", "-passout", "pass:secret", stdin=KEY)
TRUSTED = openssl("x509", "-trustout", "-addtrust", "serverAuth", stdin=pem_of(CHAIN.root))
TEXT = openssl("x509", "-text", stdin=pem_of(CHAIN.leaf))

COMBINED = {
    "certificates first": CERTIFICATES + KEY,
    "key first": KEY + CERTIFICATES,
    "key in between": pem_of(CHAIN.leaf) + KEY + pem_of(CHAIN.intermediate, CHAIN.root),
    "SEC1 after its parameters": PARAMETERS + SEC1 + CERTIFICATES,
    "CRLF": (CERTIFICATES + KEY).replace(b"\n", b"\r\n"),
    "CR alone": (CERTIFICATES + KEY).replace(b"\n", b"\r"),
    "a byte order mark": b"\xef\xbb\xbf" + CERTIFICATES + KEY,
    "blanks around lines": b"".join(b"  " + line + b"\t\n" for line in (CERTIFICATES + KEY).splitlines()),
    "no newline at the end": (CERTIFICATES + KEY).rstrip(),
    "OpenSSL's text before a block": TEXT + pem_of(CHAIN.intermediate, CHAIN.root) + KEY,
    "bag attributes": b"Bag Attributes\n    localKeyID: 01\nsubject=CN = leaf\n"
    + CERTIFICATES
    + b"Key Attributes: <None>\n"
    + KEY,
    "noise that is no text": b"\xff\x00\n" + CERTIFICATES + b"-----\x80\n" + KEY,
    "a second key": CERTIFICATES + KEY + OTHER_KEY,
    "an encrypted key behind": CERTIFICATES + KEY + SHUT,
    "a trusted certificate among them": TRUSTED + CERTIFICATES + KEY,
    "unknown blocks": b"-----BEGIN X-----\n!\n-----END X-----\n" + CERTIFICATES + KEY,
    "an end without a beginning": b"-----END CERTIFICATE-----\n" + CERTIFICATES + KEY,
}


JOINED = {
    "nothing between blocks": lambda pem: pem.replace(b"-----\n-----", b"----------"),
    "a blank between blocks": lambda pem: pem.replace(b"-----\n-----", b"----- -----"),
    "a tab between blocks": lambda pem: pem.replace(b"-----\n-----", b"-----\t-----"),
    "a comma between blocks": lambda pem: pem.replace(b"-----\n-----", b"-----,-----"),
    "text after each END": lambda pem: pem.replace(b"-----\n-----", b"----- next: -----"),
    "joined with CRLF": lambda pem: pem.replace(b"-----\n-----", b"----------").replace(b"\n", b"\r\n"),
    "no line break before END": lambda pem: pem.replace(b"\n-----END", b"-----END"),
    "no line break after BEGIN": lambda pem: pem.replace(b"KEY-----\n", b"KEY-----").replace(b"CATE-----\nM", b"CATE-----M"),
    "no line break at all": lambda pem: pem.replace(b"\n", b""),
    "blanks for line breaks": lambda pem: pem.replace(b"\n", b" "),
    "blank lines everywhere": lambda pem: pem.replace(b"\n", b"\n\n \t\n"),
    "one long line for each body": lambda pem: re.sub(rb"(?<=[A-Za-z0-9+/])\n(?=[A-Za-z0-9+/=])", b"", pem),
}


def write(folder: Path, name: str, blob: bytes) -> str:
    path = folder / name
    path.write_bytes(blob)
    return str(path)


@pytest.mark.parametrize("blob", COMBINED.values(), ids=COMBINED)
def test_a_combined_file_is_read_in_any_order_and_among_other_text(blob: bytes) -> None:
    assert is_pair(parse_pem(blob, ""), CHAIN)


@pytest.mark.parametrize("join", JOINED.values(), ids=JOINED)
def test_blocks_without_line_breaks_between_them_are_all_read(tmp_path: Path, join: Callable[[bytes], bytes]) -> None:
    for blob in (CERTIFICATES + KEY, KEY + CERTIFICATES, SEC1 + CERTIFICATES):
        path = write(tmp_path, "joined.pem", join(blob))
        assert is_pair(load_keystore(path, ""), CHAIN)
        assert is_pair(load_cert_and_key(path, path), CHAIN)
        assert load_authorities(path, {}).certificates == CHAIN.certificates
    assert list(read_path(write(tmp_path, "chain.crt", join(CERTIFICATES)))) == list(CHAIN.certificates)


def test_the_line_breaks_of_an_old_encrypted_key_may_be_missing_around_it(tmp_path: Path) -> None:
    joined = CERTIFICATES.rstrip() + SHUT_OLD.replace(b"\n\n", b"\n \n\n").rstrip()
    assert is_pair(load_keystore(write(tmp_path, "old.pem", joined), "secret"), CHAIN)


DAMAGED_CHAINS = {
    "five hyphens for two boundaries": CERTIFICATES.replace(b"-----\n-----", b"-----", 1),
    "no BEGIN": CERTIFICATES.replace(b"-----BEGIN CERTIFICATE-----\n", b"", 1),
    "a BEGIN that lacks a hyphen": CERTIFICATES.replace(b"-----BEGIN", b"----BEGIN", 1),
    "no END": CERTIFICATES.replace(b"-----END CERTIFICATE-----\n", b"", 1),
    "an END of another kind": CERTIFICATES.replace(b"END CERTIFICATE", b"END X509 CRL", 1),
    "an END in the first line": CERTIFICATES.replace(b"\nM", b"-----END CERTIFICATE-----\nM", 1),
    "line breaks written out": CERTIFICATES.strip().replace(b"\n", b"\\n"),
}


@pytest.mark.parametrize("blob", DAMAGED_CHAINS.values(), ids=DAMAGED_CHAINS)
def test_a_damaged_boundary_never_shortens_a_chain(tmp_path: Path, blob: bytes) -> None:
    path = write(tmp_path, "chain.pem", KEY + blob)
    assert refusal_of(load_cert_and_key, path, path)[0] is IdentityFault.BAD_CERTIFICATE
    assert refusal_of(load_keystore, path, "")[0] is IdentityFault.BAD_CERTIFICATE
    try:
        authorities = load_authorities(path, {})
    except IdentityError:
        return
    assert authorities.skipped


def test_escaped_line_breaks_are_named() -> None:
    with pytest.raises(IdentityError, match="expected line breaks"):
        parse_pem(CERTIFICATES + KEY.strip().replace(b"\n", b"\\n"), "")


@pytest.mark.parametrize("comment", [b"# ", b"// ", b'"', b"see -----END X-----"])
def test_a_boundary_after_other_text_is_text(comment: bytes) -> None:
    blob = b"".join(comment + line + b"\n" for line in OTHER_KEY.splitlines())
    assert is_pair(parse_pem(blob + CERTIFICATES + KEY, ""), CHAIN)


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_every_key_type_is_read_from_two_files(tmp_path: Path, kind: str, form: PrivateFormat) -> None:
    chain = chain_of(kind)
    form = PrivateFormat.PKCS8 if kind == "ed25519" else form  # it has no other
    cert = write(tmp_path, "chain.crt", pem_of(chain.leaf, chain.intermediate, chain.root))
    assert is_pair(load_cert_and_key(cert, write(tmp_path, "key", key_pem(chain.leaf.key, form))), chain)


def test_output_of_the_openssl_command_is_read(tmp_path: Path) -> None:
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    openssl(*f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -subj /CN=made -text".split())
    assert len(load_cert_and_key(cert, key).chain) == 1


def test_the_blocks_of_both_files_count_and_the_certificate_file_comes_first(tmp_path: Path) -> None:
    first = write(tmp_path, "first", pem_of(CHAIN.leaf) + KEY)
    second = write(tmp_path, "second", OTHER_KEY + pem_of(CHAIN.intermediate, CHAIN.root))
    assert is_pair(load_cert_and_key(first, second), CHAIN)


def test_both_flags_may_name_one_file(tmp_path: Path) -> None:
    both = write(tmp_path, "both", CERTIFICATES + KEY)
    assert is_pair(load_cert_and_key(both, both), CHAIN)
    assert is_pair(load_cert_and_key(both, write(tmp_path, "copy", CERTIFICATES + KEY)), CHAIN)


@pytest.mark.parametrize(
    ("cert", "key", "reason", "said"),
    [
        (CERTIFICATES, b"", IdentityFault.BAD_KEY, "'KEY': no PRIVATE KEY block: found no PEM block"),
        (CERTIFICATES, CERTIFICATES, IdentityFault.BAD_KEY, "'KEY': no PRIVATE KEY block: found only 'CERTIFICATE'"),
        (b"", KEY, IdentityFault.BAD_CERTIFICATE, "'CERT': no CERTIFICATE block: found no PEM block"),
        (TRUSTED, KEY, IdentityFault.BAD_CERTIFICATE, "'CERT': no CERTIFICATE block: found only 'TRUSTED CERTIFICATE'"),
        (CERTIFICATES, OTHER_KEY, IdentityFault.BAD_KEY, "'CERT' and 'KEY': the private key matches none of"),
        (CERTIFICATES, OTHER_KEY + KEY, IdentityFault.BAD_KEY, "'CERT' and 'KEY': the private key matches none of"),
        (CERTIFICATES, SHUT, IdentityFault.PASSWORD, "'KEY': line 1: encrypted private key without a password"),
        (
            CERTIFICATES,
            PARAMETERS + SHUT_OLD,
            IdentityFault.PASSWORD,
            "'KEY': line 4: encrypted private key without a password",
        ),
        (CERTIFICATES, KEY[:-60], IdentityFault.BAD_KEY, "'KEY': line 1: unreadable private key ('PRIVATE KEY')"),
        (CERTIFICATES[:-60], KEY, IdentityFault.BAD_CERTIFICATE, "'CERT': line "),
        (
            CERTIFICATES,
            b"-----BEGIN X PRIVATE KEY-----\n",
            IdentityFault.BAD_KEY,
            "'KEY': line 1: unreadable private key (a block of another type)",
        ),
    ],
)
def test_unusable_files_are_refused_with_the_file_and_the_problem(
    tmp_path: Path, cert: bytes, key: bytes, reason: IdentityFault, said: str
) -> None:
    cert_path, key_path = write(tmp_path, "CERT", cert), write(tmp_path, "KEY", key)
    seen, message = refusal_of(load_cert_and_key, cert_path, key_path)
    assert seen is reason
    assert message.replace(f"{tmp_path}/", "").startswith(said)


def test_the_error_for_an_encrypted_key_names_the_remedy(tmp_path: Path) -> None:
    arguments = write(tmp_path, "c", CERTIFICATES), write(tmp_path, "k", SHUT)
    _, message = refusal_of(load_cert_and_key, *arguments)
    assert "openssl pkey -in KEY -out PLAIN" in message
    assert "--keystore" in message


@pytest.mark.parametrize("key", [SHUT, SHUT_OLD], ids=["PKCS#8", "OpenSSL's own"])
def test_a_combined_keystore_is_decrypted_with_its_password(tmp_path: Path, key: bytes) -> None:
    path = write(tmp_path, "combined.pem", CERTIFICATES + key)
    assert is_pair(load_keystore(path, "secret"), CHAIN)
    for password in ("", "another", "secre\udcff"):
        reason, message = refusal_of(load_keystore, path, password)
        assert reason is IdentityFault.PASSWORD
        assert "secret" not in message


def test_a_password_for_an_unencrypted_key_is_ignored(tmp_path: Path) -> None:
    assert is_pair(load_keystore(write(tmp_path, "combined.pem", CERTIFICATES + KEY), "secret"), CHAIN)


@pytest.mark.parametrize(
    ("blob", "reason"),
    [(KEY, IdentityFault.BAD_CERTIFICATE), (CERTIFICATES, IdentityFault.BAD_KEY), (b"", IdentityFault.BAD_CERTIFICATE)],
)
def test_a_combined_file_that_lacks_a_part_is_refused(tmp_path: Path, blob: bytes, reason: IdentityFault) -> None:
    assert refusal_of(load_keystore, write(tmp_path, "k.pem", blob), "")[0] is reason


def test_no_error_shows_a_byte_of_the_key() -> None:
    secrets = [line for line in KEY.decode().splitlines() if not line.startswith("-")]
    for cut in range(len(KEY.rstrip())):
        with pytest.raises(IdentityError) as refused:
            parse_pem(CERTIFICATES + KEY[:cut], "")
        error: BaseException | None = refused.value
        while error:
            assert not any(secret[:12] in str(error) for secret in secrets)
            error = error.__cause__ or error.__context__


def test_a_truncated_file_is_refused_or_lacks_complete_certificates_only() -> None:
    whole = KEY + CERTIFICATES
    for cut in range(len(whole)):
        try:
            chain = parse_pem(whole[:cut], "").chain
        except IdentityError:
            continue
        assert chain == CHAIN.certificates[: len(chain)]


def test_blocks_have_their_line_and_hide_their_content() -> None:
    blocks = parse_blocks(b"text\n" + KEY + b"-----BEGIN \xff-----\n" + KEY)
    assert [(block.label, block.line) for block in blocks] == [("PRIVATE KEY", 2), ("PRIVATE KEY", 8)]
    assert KEY.decode().splitlines()[1] not in repr(blocks)


# -- damage never shows what is in a file

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "line breaks written out": lambda pem: pem.strip().replace(b"\n", b"\\n") + b"\n",
    "line breaks are blanks": lambda pem: pem.replace(b"\n", b" "),
    "no line breaks": lambda pem: pem.replace(b"\n", b""),
    "no dashes behind BEGIN": lambda pem: pem.replace(b" KEY-----\n", b" KEY ", 1).replace(b"\n", b" "),
    "the body in the label": lambda pem: b"-----BEGIN %b PRIVATE KEY-----\n" % body_of(pem),
    "the body as the label": lambda pem: b"-----BEGIN %b-----\nx\n-----END %b-----\n" % (body_of(pem)[:60], body_of(pem)[:60]),
    "a line with dashes around it": lambda pem: pem.replace(b"\n", b"-----\n-----BEGIN ", 2),
    "quoted": lambda pem: b'"' + pem.replace(b"\n", b"\\n") + b'"',
    "no END": lambda pem: pem[: pem.index(b"-----END")],
    "base64 cut": lambda pem: pem.replace(body_of(pem)[40:80], b"", 1),
    "other characters": lambda pem: pem.replace(body_of(pem)[20:24], b"\xff\x00\x1b[", 1),
}


def body_of(pem: bytes) -> bytes:
    return b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("secret", [KEY, SHUT, OTHER_KEY], ids=["plain", "encrypted", "another"])
def test_a_damaged_key_is_never_quoted(tmp_path: Path, damage: Callable[[bytes], bytes], secret: bytes) -> None:
    path = write(tmp_path, "damaged", damage(secret))
    both = write(tmp_path, "both", CERTIFICATES + damage(secret))
    cert = write(tmp_path, "cert", CERTIFICATES)
    body = body_of(secret).decode()
    pieces = {body[at : at + 8] for at in range(len(body) - 8)}
    for load, arguments in (
        (load_cert_and_key, (cert, path)),
        (load_cert_and_key, (path, cert)),
        (load_cert_and_key, (path, path)),
        (load_keystore, (path, "storepass-canary")),
        (load_keystore, (both, "storepass-canary")),
        (load_authorities, (path, {})),
    ):
        said = outcome_of(load, *arguments)
        assert not [piece for piece in pieces if piece in said], said
        assert "storepass-canary" not in said
        assert said.isprintable()


def outcome_of(load: Callable[..., object], *arguments: str) -> str:
    """Everything that could be shown of it: the message, or the loaded value."""
    try:
        return repr(load(*arguments))
    except IdentityError as error:
        return str(error)
