"""The messages of each socket contain the identities and bundles of its workloads only."""

from __future__ import annotations

from datetime import datetime

import pytest
from cryptography import x509

from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.issuing_state import IssuingState
from tunnel.pkix.der import split_sequences
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import BundlesResponse, X509SvidResponse, parse_x509_bundles_response, parse_x509_svid_response

HERE = WorkloadEndpoint(path="/run/here.sock")
THERE = WorkloadEndpoint(path="/run/there.sock")
A, B, C = (TrustDomain(name) for name in ("a.test", "b.test", "c.test"))


def entry(text: str, hint: str = "") -> Entry:
    return Entry(parse_spiffe_id(text), hint)


def svids(state: IssuingState, endpoint: WorkloadEndpoint = HERE) -> X509SvidResponse:
    message = state.svid_message(endpoint)
    assert message is not None
    return parse_x509_svid_response(message)


def bundles(state: IssuingState, endpoint: WorkloadEndpoint = HERE) -> BundlesResponse:
    message = state.bundles_message(endpoint)
    assert message is not None
    return parse_x509_bundles_response(message)


@pytest.fixture
def state(now: datetime) -> IssuingState:
    state = IssuingState(Issuing())
    state.register(HERE, entry("spiffe://a.test/x"), now)
    state.register(THERE, entry("spiffe://b.test/y"), now)
    return state


def test_a_message_has_matching_chain_key_and_bundle(state: IssuingState) -> None:
    (svid,) = svids(state).svids
    leaf = x509.load_der_x509_certificate(svid.x509_svid)
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(svid.bundle))
    (issued,) = state.issued(HERE)
    assert (issued.key_der, issued.chain[0]) == (svid.x509_svid_key, leaf)
    assert bundles(state).bundles == {"spiffe://a.test": svid.bundle}


def test_a_socket_without_entries_has_no_message(state: IssuingState) -> None:
    nowhere = WorkloadEndpoint(path="/run/nowhere.sock")
    assert (state.svid_message(nowhere), state.bundles_message(nowhere)) == (None, None)
    state.unregister(HERE, entry("spiffe://a.test/x"))
    assert (state.svid_message(HERE), state.bundles_message(HERE)) == (None, None)


def test_several_identities_come_in_the_order_of_their_registration(state: IssuingState, now: datetime) -> None:
    state.register(HERE, entry("spiffe://a.test/a", "internal"), now)
    state.renew(now)
    assert [(svid.spiffe_id, svid.hint) for svid in svids(state).svids] == [
        ("spiffe://a.test/x", ""),
        ("spiffe://a.test/a", "internal"),
    ]


def test_federation_gives_each_side_the_bundle_of_the_other_until_it_ends(state: IssuingState, now: datetime) -> None:
    assert not svids(state).federated_bundles
    state.federate((A, B), now)
    theirs = svids(state, THERE).svids[0].bundle
    assert svids(state).federated_bundles == {"spiffe://b.test": theirs}
    assert list(svids(state, THERE).federated_bundles) == ["spiffe://a.test"]
    assert list(bundles(state).bundles) == ["spiffe://a.test", "spiffe://b.test"]
    state.unfederate((A, B))
    assert not svids(state).federated_bundles


def test_federation_does_not_affect_other_trust_domains(state: IssuingState, now: datetime) -> None:
    state.federate((B, C), now)
    assert not svids(state).federated_bundles
    assert list(svids(state, THERE).federated_bundles) == ["spiffe://c.test"]


def test_a_trust_domain_of_an_own_identity_is_not_also_federated(state: IssuingState, now: datetime) -> None:
    state.register(HERE, entry("spiffe://b.test/y"), now)
    state.federate((A, B), now)
    assert not svids(state).federated_bundles
    assert list(bundles(state).bundles) == ["spiffe://a.test", "spiffe://b.test"]


def test_a_renewal_changes_certificate_and_key_and_leaves_the_bundle(state: IssuingState, now: datetime) -> None:
    before, bundle = svids(state).svids[0], state.bundles_message(HERE)
    state.renew(now)
    after = svids(state).svids[0]
    assert before.x509_svid != after.x509_svid
    assert before.x509_svid_key != after.x509_svid_key
    assert state.bundles_message(HERE) == bundle


def test_activation_renews_svids_before_the_old_authority_is_dropped(state: IssuingState, now: datetime) -> None:
    state.prepare(now)
    old, new = split_sequences(svids(state).svids[0].bundle)
    state.activate(now)
    leaf = x509.load_der_x509_certificate(svids(state).svids[0].x509_svid)
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(new))
    assert split_sequences(svids(state).svids[0].bundle) == (old, new)
    state.drop_old()
    assert split_sequences(svids(state).svids[0].bundle) == (new,)


def test_issuing_options_reach_the_certificates(now: datetime) -> None:
    state = IssuingState(Issuing(key_type="rsa-2048", has_intermediate=True, has_same_subject=True))
    for endpoint, text in ((HERE, "spiffe://a.test/x"), (THERE, "spiffe://b.test/y")):
        state.register(endpoint, entry(text), now)
    here, there = (svids(state, endpoint).svids[0] for endpoint in (HERE, THERE))
    leaf, intermediate = map(x509.load_der_x509_certificate, split_sequences(here.x509_svid))
    ours, theirs = (x509.load_der_x509_certificate(svid.bundle) for svid in (here, there))
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(ours)
    assert ours.subject == theirs.subject
    assert ours != theirs
    assert leaf.public_key_algorithm_oid == x509.oid.PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
