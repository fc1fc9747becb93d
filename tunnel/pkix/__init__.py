"""X.509 certificates and certification paths (RFC 5280)."""
