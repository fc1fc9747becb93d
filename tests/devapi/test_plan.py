"""Each socket's messages hold what its workloads may have, and nothing else."""

from __future__ import annotations

from datetime import datetime

import pytest
from cryptography import x509

from tunnel.config.dev_model import Entry, Issuing
from tunnel.devapi.plan import Plan
from tunnel.pkix.der import split_sequences
from tunnel.spiffe.endpoint import WorkloadEndpoint
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.messages import BundlesResponse, X509SvidResponse, parse_x509_bundles_response, parse_x509_svid_response

HERE = WorkloadEndpoint(path="/run/here.sock")
THERE = WorkloadEndpoint(path="/run/there.sock")
A, B, C = (TrustDomain(name) for name in ("a.test", "b.test", "c.test"))


def entry(text: str, hint: str = "") -> Entry:
    return Entry(parse_spiffe_id(text), hint)


def svids(plan: Plan, endpoint: WorkloadEndpoint = HERE) -> X509SvidResponse:
    message = plan.svid_message(endpoint)
    assert message is not None
    return parse_x509_svid_response(message)


def bundles(plan: Plan, endpoint: WorkloadEndpoint = HERE) -> BundlesResponse:
    message = plan.bundles_message(endpoint)
    assert message is not None
    return parse_x509_bundles_response(message)


@pytest.fixture
def plan(now: datetime) -> Plan:
    plan = Plan(Issuing())
    plan.register(HERE, entry("spiffe://a.test/x"), now)
    plan.register(THERE, entry("spiffe://b.test/y"), now)
    return plan


def test_a_message_has_chain_key_and_bundle_that_fit(plan: Plan) -> None:
    (svid,) = svids(plan).svids
    leaf = x509.load_der_x509_certificate(svid.x509_svid)
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(svid.bundle))
    (issued,) = plan.issued(HERE)
    assert (issued.key_der, issued.chain[0]) == (svid.x509_svid_key, leaf)
    assert bundles(plan).bundles == {"spiffe://a.test": svid.bundle}


def test_a_socket_without_entries_has_no_message(plan: Plan) -> None:
    nowhere = WorkloadEndpoint(path="/run/nowhere.sock")
    assert (plan.svid_message(nowhere), plan.bundles_message(nowhere)) == (None, None)
    plan.unregister(HERE, entry("spiffe://a.test/x"))
    assert (plan.svid_message(HERE), plan.bundles_message(HERE)) == (None, None)


def test_several_identities_come_in_the_order_of_their_registration(plan: Plan, now: datetime) -> None:
    plan.register(HERE, entry("spiffe://a.test/a", "internal"), now)
    plan.renew(now)
    assert [(svid.spiffe_id, svid.hint) for svid in svids(plan).svids] == [
        ("spiffe://a.test/x", ""),
        ("spiffe://a.test/a", "internal"),
    ]


def test_federation_gives_each_side_the_bundle_of_the_other_until_it_ends(plan: Plan, now: datetime) -> None:
    assert not svids(plan).federated_bundles
    plan.federate((A, B), now)
    theirs = svids(plan, THERE).svids[0].bundle
    assert svids(plan).federated_bundles == {"spiffe://b.test": theirs}
    assert list(svids(plan, THERE).federated_bundles) == ["spiffe://a.test"]
    assert list(bundles(plan).bundles) == ["spiffe://a.test", "spiffe://b.test"]
    plan.unfederate((A, B))
    assert not svids(plan).federated_bundles


def test_federation_does_not_reach_those_who_are_not_named(plan: Plan, now: datetime) -> None:
    plan.federate((B, C), now)
    assert not svids(plan).federated_bundles
    assert list(svids(plan, THERE).federated_bundles) == ["spiffe://c.test"]


def test_a_trust_domain_of_an_own_identity_is_not_also_federated(plan: Plan, now: datetime) -> None:
    plan.register(HERE, entry("spiffe://b.test/y"), now)
    plan.federate((A, B), now)
    assert not svids(plan).federated_bundles
    assert list(bundles(plan).bundles) == ["spiffe://a.test", "spiffe://b.test"]


def test_a_renewal_changes_certificate_and_key_and_leaves_the_bundle(plan: Plan, now: datetime) -> None:
    before, bundle = svids(plan).svids[0], plan.bundles_message(HERE)
    plan.renew(now)
    after = svids(plan).svids[0]
    assert before.x509_svid != after.x509_svid
    assert before.x509_svid_key != after.x509_svid_key
    assert plan.bundles_message(HERE) == bundle


def test_activating_renews_so_that_dropping_the_old_authority_harms_nobody(plan: Plan, now: datetime) -> None:
    plan.prepare(now)
    old, new = split_sequences(svids(plan).svids[0].bundle)
    plan.activate(now)
    leaf = x509.load_der_x509_certificate(svids(plan).svids[0].x509_svid)
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(new))
    assert split_sequences(svids(plan).svids[0].bundle) == (old, new)
    plan.drop_old()
    assert split_sequences(svids(plan).svids[0].bundle) == (new,)


def test_issuing_options_reach_the_certificates(now: datetime) -> None:
    plan = Plan(Issuing(key_type="rsa-2048", has_intermediate=True, has_same_subject=True))
    for endpoint, text in ((HERE, "spiffe://a.test/x"), (THERE, "spiffe://b.test/y")):
        plan.register(endpoint, entry(text), now)
    here, there = (svids(plan, endpoint).svids[0] for endpoint in (HERE, THERE))
    leaf, intermediate = map(x509.load_der_x509_certificate, split_sequences(here.x509_svid))
    ours, theirs = (x509.load_der_x509_certificate(svid.bundle) for svid in (here, there))
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(ours)
    assert ours.subject == theirs.subject
    assert ours != theirs
    assert leaf.public_key_algorithm_oid == x509.oid.PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
