"""JWT bundles in one JSON document, in spiffe-helper's format, and the refresher of a file with it.

Each trust domain's keys are under its own name; keys that are not for tokens are omitted.
"""

from __future__ import annotations

import json
from base64 import b64encode

from tunnel.lazy_dataclass import dataclass
from tunnel.spiffe.jwks import JwtBundles
from tunnel.svid.file_refresher import ContentDescription, FileRefresher

REFRESH_INTERVAL = 60.0  # seconds; an authority is published long before it signs, and refresh hints are in minutes


@dataclass(frozen=True, slots=True)
class BundleDocument:
    """The document and what it holds."""

    text: str
    trust_domains: tuple[str, ...]
    skipped: tuple[str, ...]  # one message for each bundle that cannot be read


@dataclass
class BundlesRefresher(FileRefresher[BundleDocument]):
    """Refreshes a file with the document."""

    interval: float = REFRESH_INTERVAL

    def refresh_delay(self, current: BundleDocument) -> float:
        """Return the fixed interval: a bundle has no time of its next change."""
        return self.interval

    def describe(self, current: BundleDocument) -> ContentDescription:
        """Return the trust domains, and a warning for each omitted bundle."""
        names = ", ".join(current.trust_domains) or "no trust domain"
        facts: dict[str, object] = {"trust_domains": list(current.trust_domains)}
        return ContentDescription(f"JWT bundles of {names} written", facts, current.skipped)

    def describe_failure(self, error: str) -> str:
        """Return the error, and that the previous bundles stay."""
        return f"cannot refresh JWT bundles: {error}; keeping the previous bundles, retrying"


def build_document(bundles: JwtBundles) -> BundleDocument:
    """Return a JSON object: by trust domain, its JWKS in base64. Equal bundles give equal documents."""
    encoded = {
        str(trust_domain): b64encode(json.dumps({"keys": list(keys.values())}).encode()).decode()
        for trust_domain, keys in sorted(bundles.bundles.items(), key=lambda item: str(item[0]))
    }
    skipped = tuple(
        f"JWT bundle of {trust_domain} omitted, tokens of this trust domain are not trusted: {why}"
        for trust_domain, why in bundles.disabled.items()
    )
    return BundleDocument(json.dumps(encoded), tuple(encoded), skipped)
