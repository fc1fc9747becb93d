"""A factory of Workload API updates."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.support.cert_factory import END, NOW, START, MadeCertificate, authority, key_of, leaf
from tunnel.identity.credentials import SvidCredentials, X509Context, X509Svid
from tunnel.spiffe.bundle import BundleSet, TrustBundle
from tunnel.spiffe.ids import TrustDomain, parse_spiffe_id
from tunnel.spiffe.selection import Offer

ROOT = authority()
OLD_ROOT = authority(start=START - timedelta(days=1), end=NOW - timedelta(minutes=1))
FOREIGN = authority("b.test")
INTERMEDIATE = authority(issuer=ROOT, subject="intermediate of a.test")
WORKER = leaf(issuer=INTERMEDIATE, key=key_of("p256"), subject="worker")


def bundle(domain: str, *authorities: MadeCertificate) -> tuple[TrustDomain, TrustBundle]:
    name = TrustDomain(domain)
    return name, TrustBundle(name, tuple(authority.certificate for authority in authorities))


def svid(hint: str = "", worker: MadeCertificate = WORKER, spiffe_id: str = "spiffe://a.test/w") -> X509Svid:
    chain = (worker.certificate, INTERMEDIATE.certificate)
    return X509Svid(parse_spiffe_id(spiffe_id), hint, chain, worker.key, END)


def context(
    *bundles: tuple[TrustDomain, TrustBundle], hint: str = "", notes: tuple[str, ...] = (), **fields: Any
) -> X509Context:
    one = svid(hint)
    bundle_set = BundleSet(dict([bundle("a.test", ROOT, OLD_ROOT), *bundles]))
    return X509Context(one, bundle_set, (Offer(str(one.spiffe_id), hint),), (one,), notes=notes, **fields)


def credentials(*bundles: tuple[TrustDomain, TrustBundle], hint: str = "") -> SvidCredentials:
    update = context(*bundles, hint=hint)
    return SvidCredentials(update.svids[0], update.bundles)
