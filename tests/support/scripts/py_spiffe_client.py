"""A program on py-spiffe: prints what it is given as JSON lines, until it has seen as many updates as it was told to.

It runs in a process of its own, because py-spiffe brings generated code for the whole process.
"""

from __future__ import annotations

import json
import queue
import sys

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient
from spiffe.workloadapi.x509_context import X509Context

LIMIT = 60.0


def describe(context: X509Context) -> dict[str, object]:
    bundles = {
        bundle.trust_domain.name: [ca.public_bytes(Encoding.DER).hex() for ca in bundle.x509_authorities]
        for bundle in context.x509_bundle_set.bundles
    }
    svids = [
        {"id": str(svid.spiffe_id), "chain": [item.public_bytes(Encoding.DER).hex() for item in svid.cert_chain]}
        for svid in context.x509_svids
    ]
    return {"svids": svids, "bundles": bundles}


def main(address: str, updates: int) -> None:
    seen: queue.SimpleQueue[X509Context | Exception] = queue.SimpleQueue()
    with WorkloadApiClient(address) as client:
        print(json.dumps(describe(client.fetch_x509_context())))
        bundles = client.fetch_x509_bundles().bundles
        print(json.dumps(sorted(bundle.trust_domain.name for bundle in bundles)))
        stream = client.stream_x509_contexts(seen.put, seen.put)
        for _ in range(updates):
            update = seen.get(timeout=LIMIT)
            if isinstance(update, Exception):
                raise update
            print(json.dumps(describe(update)))
        stream.cancel()


main(sys.argv[1], int(sys.argv[2]))
