"""Key material requires a matching key that OpenSSL can present."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from tests.support import cert_factory
from tests.support.keystore_files import chain_of, openssl
from tunnel.errors import IdentityError, IdentityFault
from tunnel.keystore.material import KeyMaterial, make_material
from tunnel.keystore.pem import parse_blocks, parse_chain
from tunnel.pkix.certificate import Certificate

USABLE = ["p256", "p384", "p521", "ed25519", "ed448", "rsa2048", "rsa4096"]
WEAK = ["p224", "k256", "rsa1024"]


def present(chain: tuple[Certificate, ...], key: object) -> None:
    """Run a handshake with a client that trusts every certificate; raises SSL.Error if the material is not usable."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(x509.load_der_x509_certificate(chain[0].der))
    context.use_privatekey(key)
    context.check_privatekey()
    server, client = SSL.Connection(context, None), SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    server.set_accept_state()
    client.set_connect_state()
    for near, far in [(client, server), (server, client)] * 3:
        with suppress(SSL.WantReadError):
            near.do_handshake()
        with suppress(SSL.WantReadError):
            far.bio_write(near.bio_read(65536))
    assert client.get_peer_certificate() is not None


@pytest.mark.parametrize("kind", USABLE)
def test_accepted_material_can_be_presented(kind: str) -> None:
    chain = chain_of(kind)
    material = make_material(chain.certificates, chain.leaf.key)
    present(material.chain, material.private_key)


@pytest.mark.parametrize("kind", WEAK)
def test_unusable_keys_are_refused_with_the_usable_ones(kind: str) -> None:
    weak = cert_factory.leaf(key=cert_factory.key_of(kind))
    with pytest.raises(SSL.Error):
        present((weak.certificate,), weak.key)
    with pytest.raises(IdentityError, match=r"weak-key: .*; expected RSA of 2048 bits or more, P-256") as refused:
        make_material([weak.certificate], weak.key)
    assert refused.value.reason is IdentityFault.BAD_KEY


def test_a_key_for_rsa_pss_only_is_refused() -> None:
    arguments = "req -x509 -newkey rsa-pss -pkeyopt rsa_keygen_bits:2048 -nodes -keyout - -subj /CN=pss".split()
    pem = openssl(*arguments)
    (certificate,), key = parse_chain(parse_blocks(pem)), load_pem_private_key(pem, None)
    with pytest.raises(SSL.Error):
        present((certificate,), key)
    with pytest.raises(IdentityError, match=r"for RSA-PSS only.*expected plain RSA"):
        make_material([certificate], key)


@pytest.mark.parametrize("key", [dsa.generate_private_key(1024), x25519.X25519PrivateKey.generate()])
def test_a_key_type_without_signatures_is_refused(key) -> None:
    with pytest.raises(IdentityError, match="unsupported type of private key") as refused:
        make_material(chain_of("p256").certificates, key)
    assert refused.value.reason is IdentityFault.BAD_KEY


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(IdentityError, match=r"matches none of the 3 certificates"):
        KeyMaterial(chain_of("p256").certificates, cert_factory.key_of("p256"))


def test_a_reversed_chain_is_refused_with_the_position_of_the_leaf() -> None:
    chain = chain_of("p256")
    with pytest.raises(IdentityError, match="matches certificate 3 of 3; expected the first"):
        KeyMaterial(chain.certificates[::-1], chain.leaf.key)


def test_a_key_alone_is_refused() -> None:
    with pytest.raises(IdentityError, match="no certificate") as refused:
        KeyMaterial((), chain_of("p256").leaf.key)
    assert refused.value.reason is IdentityFault.BAD_CERTIFICATE


def test_a_duplicate_certificate_is_dropped() -> None:
    chain = chain_of("p256")
    assert make_material(chain.certificates * 2, chain.leaf.key).chain == chain.certificates


def test_ordinary_pki_is_enough() -> None:
    plain = cert_factory.make_certificate(subject="no extension at all", is_ca=None, usage=None, has_key_ids=False)
    assert make_material([plain.certificate], plain.key).chain == (plain.certificate,)
    itself = cert_factory.authority()
    assert make_material([itself.certificate], itself.key).private_key is itself.key


def test_material_is_frozen_and_does_not_show_its_key() -> None:
    chain = chain_of("p256")
    material = make_material(chain.certificates, chain.leaf.key)
    assert "rivate" not in repr(material)
    with pytest.raises(AttributeError):
        material.chain = ()  # type: ignore[misc]
