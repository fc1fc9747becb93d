"""TLS contexts of the HTTPS clients: metric reports, `--target-status` and `tunnel health`."""

from __future__ import annotations

import ssl


def system_context(cafile: str | None = None) -> ssl.SSLContext:
    """Verify certificates and host names with the certificates of a PEM file, or of the system; raises OSError."""
    return _require_1_2(ssl.create_default_context(cafile=cafile))


def empty_context() -> ssl.SSLContext:
    """Verify certificates and host names, with no trusted certificate loaded."""
    return _require_1_2(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def _require_1_2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Set what the interpreter's build otherwise decides: Debian's allows every version that OpenSSL supports."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
