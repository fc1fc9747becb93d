"""A program on py-spiffe: fetches tokens for an audience, prints whose they are, and has them validated in both ways.

It runs in a process of its own, because py-spiffe brings generated code for the whole process.
"""

from __future__ import annotations

import json
import sys

from spiffe import JwtSvid, WorkloadApiClient


def main(address: str, audience: str) -> None:
    with WorkloadApiClient(address) as client:
        bundles = client.fetch_jwt_bundles()
        for svid in client.fetch_jwt_svids({audience}):
            bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
            assert bundle is not None
            here = JwtSvid.parse_and_validate(svid.token, bundle, {audience})
            there = client.validate_jwt_svid(svid.token, audience)
            print(json.dumps([str(one.spiffe_id) for one in (svid, here, there)]))
        print(json.dumps(sorted(bundle.trust_domain.name for bundle in bundles.bundles)))


main(*sys.argv[1:])
