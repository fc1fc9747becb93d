"""JWT bundles in one JSON document, in the form that spiffe-helper writes, and kept fresh in a file.

Knows that form and how old it may become; must not know gRPC, flags or files. Each trust domain's keys stand under its own
name, and what is not a key for tokens is left out.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass

from tunnel.spiffe.jwks import JwtBundles
from tunnel.svid.file_refresher import Description, FileRefresher

LOOK = 60.0  # seconds; an authority is published long before it signs, and refresh hints are of minutes


@dataclass(frozen=True, slots=True)
class BundleDocument:
    """The document, and what is told of it."""

    text: str
    trust_domains: tuple[str, ...]
    left_out: tuple[str, ...]  # which bundle and why, one for each


@dataclass
class BundlesRefresher(FileRefresher[BundleDocument]):
    """One file with the document."""

    interval: float = LOOK

    def delay(self, current: BundleDocument) -> float:
        """Always the same: nothing in a bundle says when it changes."""
        return self.interval

    def describe(self, current: BundleDocument) -> Description:
        """Whose bundles are in it."""
        names = ", ".join(current.trust_domains) or "no trust domain"
        facts: dict[str, object] = {"trust_domains": list(current.trust_domains)}
        return Description(f"JWT bundles of {names} written", facts, current.left_out)

    def complain(self, trouble: str) -> str:
        """None, and why."""
        return f"no fresh JWT bundles: {trouble}; the old ones stay, trying again"


def build_document(bundles: JwtBundles) -> BundleDocument:
    """A JSON object: by the name of each trust domain, its JWKS in base64. The same bundles make the same document."""
    encoded = {
        str(trust_domain): b64encode(json.dumps({"keys": list(keys.values())}).encode()).decode()
        for trust_domain, keys in sorted(bundles.bundles.items(), key=lambda item: str(item[0]))
    }
    left_out = tuple(
        f"the JWT bundle of {trust_domain} cannot be read and is left out, so that nobody of it is trusted: {why}"
        for trust_domain, why in bundles.disabled.items()
    )
    return BundleDocument(json.dumps(encoded), tuple(encoded), left_out)
